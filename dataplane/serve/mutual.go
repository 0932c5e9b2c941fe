package serve

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// maxPEM bounds a file of certificates or of a key, in bytes.
const maxPEM = 1 << 20

// Mutual is TLS 1.3 between two that know each other by certificates. Its files are read again when they change; while
// they have a fault, what was read before holds. Safe for concurrent use.
type Mutual struct {
	files MutualFiles
	log   *slog.Logger

	mu      sync.Mutex
	stats   [mutualFiles]os.FileInfo // of the files as last read, faulty or not; guarded by mu
	current *tls.Config              // guarded by mu
}

// MutualFiles are files of PEM.
type MutualFiles struct {
	// Certificate, with those between it and its CA, and Key are this side's; CA holds who may sign the other side's.
	Certificate, Key, CA string
	// CRL holds lists of revoked certificates of every CA that signs the other side's; empty: none is revoked.
	CRL string
}

// mutualFiles is how many there are.
const mutualFiles = 4

// Load reads the files.
func (f MutualFiles) Load() (*tls.Config, error) {
	var texts [mutualFiles - 1][]byte
	for i, file := range []string{f.Certificate, f.Key, f.CA} {
		var err error
		if texts[i], err = readPEM(file); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(texts[2]) {
		return nil, fmt.Errorf("%s: no certificate: a PEM block of type CERTIFICATE is needed", f.CA)
	}
	var check func([][]byte, [][]*x509.Certificate) error
	if f.CRL != "" {
		revoked, err := readRevocations(f.CRL)
		if err != nil {
			return nil, err
		}
		check = func(_ [][]byte, chains [][]*x509.Certificate) error { return revoked.check(chains, time.Now()) }
	}
	return &tls.Config{
		VerifyPeerCertificate: check,
		Certificates:          []tls.Certificate{pair}, ClientCAs: pool, RootCAs: pool, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"http/1.1"},
		SessionTicketsDisabled: true, // each connection is judged by the files as they are
	}, nil
}

func (f MutualFiles) list() [mutualFiles]string {
	return [mutualFiles]string{f.Certificate, f.Key, f.CA, f.CRL}
}

func readPEM(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: a regular file is needed", file) // reading a pipe could last for ever
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, io.LimitReader(f, maxPEM+1)); err != nil {
		return nil, err
	}
	if text.Len() > maxPEM {
		return nil, fmt.Errorf("%s: longer than %d bytes", file, maxPEM)
	}
	return text.Bytes(), nil
}

// NewMutual reads the files.
func NewMutual(files MutualFiles, log *slog.Logger) (*Mutual, error) {
	m := &Mutual{files: files, log: log}
	m.stats = m.look()
	var err error
	m.current, err = files.Load()
	return m, err
}

// look is how the files are; nil for one that is missing.
func (m *Mutual) look() (stats [mutualFiles]os.FileInfo) {
	for i, file := range m.files.list() {
		stats[i], _ = os.Stat(file)
	}
	return stats
}

// config is that of the files as they are now.
func (m *Mutual) config() *tls.Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.look()
	if sameFiles(now, m.stats) {
		return m.current
	}
	m.stats = now
	next, err := m.files.Load()
	if err != nil {
		m.log.Error("certificates stay as they were: the files have a fault", "error", err)
		return m.current
	}
	m.log.Info("certificates read again", "certificate", m.files.Certificate, "ca", m.files.CA)
	m.current = next
	return next
}

func sameFiles(a, b [mutualFiles]os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime())) {
			return false
		}
	}
	return true
}

// Listen speaks TLS on a listener, with peers that have a certificate.
func (m *Mutual) Listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return m.config(), nil },
	})
}

// ErrCertificate says that a peer's certificate does not count any more.
var ErrCertificate = errors.New("the client's certificate is not valid any more")

// Peer is the certificate of a connection's peer, by the files as they are now: who has connected before one expired, or
// before its CA was taken away, or before it was revoked, is refused.
func (m *Mutual) Peer(state *tls.ConnectionState) (*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, ErrCertificate
	}
	leaf, between := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	config := m.config()
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: config.ClientCAs, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil && config.VerifyPeerCertificate != nil {
		err = config.VerifyPeerCertificate(nil, chains)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return leaf, nil
}
