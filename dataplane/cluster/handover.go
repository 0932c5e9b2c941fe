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
	come     chan *line // room for one: who has shown the certificate
	all      sync.WaitGroup
}

// openEntrance waits for the host whose certificate has a hash, until close.
func openEntrance(l net.Listener, own tls.Certificate, peer string) *entrance {
	e := &entrance{listener: l, come: make(chan *line, 1)}
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
				case e.come <- &line{Conn: conn}:
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
	if err := json.Unmarshal(text, message); err != nil {
		return fmt.Errorf("a message that can't be read: %w", err)
	}
	return nil
}

// line is the connection with the other host. Errors of sending and receiving are errBrokenOff.
type line struct {
	*tls.Conn
	bytes int64 // written and read
}

var errBrokenOff = errors.New("the connection has broken off")

func (l *line) Write(b []byte) (int, error) { return l.count(l.Conn.Write(b)) }

func (l *line) Read(b []byte) (int, error) { return l.count(l.Conn.Read(b)) }

func (l *line) count(n int, err error) (int, error) {
	if l.bytes += int64(n); err != nil {
		err = fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return n, err
}

// named says whose an error is; nil stays nil.
func named(whose string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", whose, err)
}

// call connects to a host that waits, whose certificate has a hash.
func call(ctx context.Context, dial func(context.Context, string) (net.Conn, error), address string, own tls.Certificate, peer string) (*line, error) {
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
	return &line{Conn: conn}, nil
}

// hand sends the flows of a frozen network interface. With an error the new host has taken it or not.
func hand(conn *line, d Departing, nic string, m *Move, state *MoveState) (taken bool, err error) {
	before := conn.bytes
	if !m.WithoutFlows {
		state.Flows, err = d.Write(conn)
		err = named("flows to "+m.To, err)
	}
	state.Bytes = conn.bytes - before
	if err == nil {
		err = named(m.To, send(conn, &hello{NIC: nic, Move: m.Revision}))
	}
	if err != nil && !errors.Is(err, errBrokenOff) {
		return false, err // the new host still waits for flows
	}
	// A host that refuses the flows says so, and closes the connection: it may be read still.
	var result outcome
	switch told := receive(conn, &result); {
	case told == nil && !result.Taken:
		err = named(m.To, errors.New(result.Fault))
	case err == nil:
		err = named(m.To, told)
	}
	return err == nil, err
}
