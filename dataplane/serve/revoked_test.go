package serve_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/serve/servetest"
)

// peerOf is a connection of a client with a certificate.
func peerOf(t *testing.T, ca *servetest.Authority, name string) *tls.ConnectionState {
	t.Helper()
	text, err := os.ReadFile(ca.Path(name + ".crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

// TestRevokedCertificatesAreRefused changes the lists below a server that runs.
func TestRevokedCertificatesAreRefused(t *testing.T) {
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	for _, name := range []string{"server", "alice", "bob"} {
		ca.Issue(name, nil)
	}
	hour := time.Now().Add(time.Hour)
	ca.Revoke("list.crl", hour)
	m, err := serve.NewMutual(serve.MutualFiles{Certificate: ca.Path("server.crt"), Key: ca.Path("server.key"), CA: ca.Path("ca.crt"), CRL: ca.Path("list.crl")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	other := servetest.NewAuthority(t, t.TempDir(), "ca") // of the same name, with another key
	for _, tt := range []struct {
		name       string
		change     func()
		alice, bob string // why each is refused; empty: it is not
	}{
		{"an empty list", func() {}, "", ""},
		{"one is revoked", func() { ca.Revoke("list.crl", hour, "alice") }, "revoked: CN=alice, by CN=ca", ""},
		{"a list that has ended", func() { ca.Revoke("list.crl", time.Now().Add(-time.Hour)) }, "has ended at", "has ended at"},
		{"a list that another has signed", func() {
			other.Revoke("list.crl", hour)
			if err := os.Rename(other.Path("list.crl"), ca.Path("list.crl")); err != nil {
				t.Fatal(err)
			}
		}, "there is no list of CN=ca", "there is no list of CN=ca"},
		{"both are revoked", func() { ca.Revoke("list.crl", hour, "bob", "alice") }, "by CN=ca", "by CN=ca"},
		{"a file with a fault changes nothing", func() { ca.Write("list.crl", "X509 CRL", []byte("no list")) }, "by CN=ca", "by CN=ca"},
		{"a list again", func() { ca.Revoke("list.crl", hour, "bob") }, "", "by CN=ca"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			for name, want := range map[string]string{"alice": tt.alice, "bob": tt.bob} {
				_, err := m.Peer(peerOf(t, ca, name))
				if want == "" && err != nil || want != "" && (!errors.Is(err, serve.ErrCertificate) || !errors.Is(err, serve.ErrRevoked) || !strings.Contains(err.Error(), want)) {
					t.Errorf("%s: %v, want %q", name, err, want)
				}
			}
		})
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secured := m.Listen(listener)
	defer secured.Close()
	go func() {
		for {
			conn, err := secured.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(conn, conn); conn.Close() }()
		}
	}()
	for name, passes := range map[string]bool{"alice": true, "bob": false} {
		pair, err := tls.LoadX509KeyPair(ca.Path(name+".crt"), ca.Path(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(peerOf(t, ca, "ca").PeerCertificates[0])
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool})
		if err == nil { // the server's word about the certificate comes with the first bytes
			conn.Write([]byte("x"))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if (err == nil) != passes {
			t.Errorf("%s connects: %v", name, err)
		}
	}
}

func TestListsThatAreNoneAreRefused(t *testing.T) {
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	ca.Issue("server", nil)
	files := serve.MutualFiles{Certificate: ca.Path("server.crt"), Key: ca.Path("server.key"), CA: ca.Path("ca.crt"), CRL: ca.Path("list.crl")}
	for want, write := range map[string]func(){
		"no such file":                 func() {},
		"no list: a PEM block":         func() { os.WriteFile(files.CRL, nil, 0o600) },
		"of type CERTIFICATE: allowed": func() { ca.Write("list.crl", "CERTIFICATE", nil) },
		"malformed":                    func() { ca.Write("list.crl", "X509 CRL", []byte("x")) },
	} {
		os.Remove(files.CRL)
		write()
		if _, err := files.Load(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "list.crl") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
