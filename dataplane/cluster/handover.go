package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

// Two hosts hand a network interface over by TLS with certificates on both sides. Each process makes its own, and says in
// the host's record, which no other host may write, what its hash is.

const (
	// shakeWait bounds a connection's beginning, and handWait all of it from when the network interface is frozen.
	shakeWait, handWait = 3 * time.Second, 10 * time.Second
	// maxShakes bounds the connections of strangers at a time.
	maxShakes = 8
	// maxMessage bounds a message, in bytes.
	maxMessage = 16 << 10
)

// newIdentity makes a certificate at a time of this host's clock, and its hash for others.
func newIdentity(now time.Time) (tls.Certificate, string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	// Nobody looks at the dates: the hash is what counts, and hosts' clocks may differ.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, hashOf(der), nil
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// handoverTLS lets in, or trusts, whoever has the certificate with a hash, and nobody else.
func handoverTLS(own tls.Certificate, peer string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, // names and dates say nothing here: VerifyConnection holds the hash against the record
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || peer == "" || hashOf(s.PeerCertificates[0].Raw) != peer {
				return errors.New("the other side is not the host that it has to be")
			}
			return nil
		},
	}
}

// entrance lets one host in.
type entrance struct {
	listener net.Listener
	come     chan *tls.Conn // room for one: who has shown the certificate
	all      sync.WaitGroup
}

// openEntrance waits for the host whose certificate has a hash, until close.
func openEntrance(l net.Listener, own tls.Certificate, peer string) *entrance {
	e := &entrance{listener: l, come: make(chan *tls.Conn, 1)}
	config := handoverTLS(own, peer)
	room := make(chan struct{}, maxShakes)
	e.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case room <- struct{}{}:
			default:
				c.Close()
				continue
			}
			e.all.Go(func() {
				defer func() { <-room }()
				conn := tls.Server(c, config)
				conn.SetDeadline(time.Now().Add(shakeWait))
				if conn.Handshake() != nil {
					conn.Close()
					return
				}
				select {
				case e.come <- conn:
				default: // it has come already
					conn.Close()
				}
			})
		}
	})
	return e
}

func (e *entrance) close() {
	e.listener.Close()
	e.all.Wait()
	select {
	case conn := <-e.come:
		conn.Close()
	default:
	}
}

// hello begins a handover, invitation answers it, and outcome ends it.
type hello struct {
	NIC  string `json:"networkInterface"`
	Move int64  `json:"move"`
	// Generation is what the old host carries; 0: its nsgd is too old to say.
	Generation uint64 `json:"generation,omitempty"`
}

type invitation struct {
	// Fault says why the handover does not go on; empty: it does.
	Fault string `json:"fault,omitempty"`
}

type outcome struct {
	// Taken says that the new host has the claim now. Else Fault says why not.
	Taken bool   `json:"taken"`
	Fault string `json:"fault,omitempty"`
}

func send(w io.Writer, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func receive(r io.Reader, message any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return fmt.Errorf("a message of %d bytes: at most %d", n, maxMessage)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	return json.Unmarshal(text, message)
}

// counted counts what is written or read.
type counted struct {
	io.ReadWriter
	bytes int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ReadWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadWriter.Read(b)
	c.bytes += int64(n)
	return n, err
}

// brokenOff says of an error of the connection who is at its other end; nil stays nil.
func brokenOff(host string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the connection with %s has broken off: %w", host, err)
}

// call connects to a host that waits, whose certificate has a hash.
func call(ctx context.Context, dial func(context.Context, string) (net.Conn, error), address string, own tls.Certificate, peer string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, shakeWait)
	defer cancel()
	c, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(c, handoverTLS(own, peer))
	if err := conn.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return conn, nil
}
