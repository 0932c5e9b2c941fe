package serve_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve"
	"golang.org/x/crypto/bcrypt"
)

// identity is a certificate of 127.0.0.1 that signs itself, in files of a folder.
func identity(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		write(t, filepath.Join(dir, file), string(pem.EncodeToMemory(&block)))
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startWeb serves with a web configuration, until the test ends. It returns what a client trusts.
func startWeb(t *testing.T, o serve.Options, more string, handler http.HandlerFunc) (address string, trust *tls.Config, client tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	server, client := identity(t, dir, "server"), identity(t, dir, "client")
	file := filepath.Join(dir, "web.yaml")
	write(t, file, "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"+more)
	if err := serve.CheckWeb(file); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, done := serve.New(handler, o), make(chan error, 1)
	go func() { done <- s.ServeWeb(l, file, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(t.Context()), <-done); err != nil {
			t.Error(err)
		}
	})
	leaf, err := x509.ParseCertificate(server.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return l.Addr().String(), &tls.Config{RootCAs: roots}, client
}

func TestOnlyWhomTheWebConfigurationLetsInIsAnswered(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	address, trust, certificate := startWeb(t, usual,
		"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: client.crt\nbasic_auth_users: {prometheus: '"+string(hash)+"'}\n",
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	other := identity(t, t.TempDir(), "client")
	for _, tt := range []struct {
		name, scheme, password string
		certificates           []tls.Certificate
		want                   string // of the answer; empty: there is none
	}{
		{"a client that is known", "https", "secret", []tls.Certificate{certificate}, "200 HTTP/1.1"},
		{"a wrong password", "https", "guess", []tls.Certificate{certificate}, "401 Unauthorized\n"},
		{"no password", "https", "", []tls.Certificate{certificate}, "401 Unauthorized\n"},
		{"no certificate", "https", "secret", nil, ""},
		{"another's certificate", "https", "secret", []tls.Certificate{other}, ""},
		{"no TLS", "http", "secret", nil, "400 Client sent an HTTP request to an HTTPS server.\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := trust.Clone()
			config.Certificates = tt.certificates
			client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
			request, err := http.NewRequest("GET", tt.scheme+"://"+address, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.password != "" {
				request.SetBasicAuth("prometheus", tt.password)
			}
			got := ""
			if response, err := client.Do(request); err == nil {
				text, _ := io.ReadAll(response.Body)
				response.Body.Close()
				got = fmt.Sprintf("%d %s", response.StatusCode, text)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TLS says goodbye before it closes, and waits up to five seconds for a peer that does not read; all others waited.
func TestAnEvictedPeerOfTLSIsCutOffWithoutAGoodbye(t *testing.T) {
	o := usual
	o.Connections = 1
	address, trust, _ := startWeb(t, o, "", func(w http.ResponseWriter, r *http.Request) {})
	first, err := tls.Dial("tcp", address, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := io.ReadAll(first); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the first connection ended with %v", err)
	}
}

func TestAFaultyWebConfigurationIsRefusedBeforeItIsUsed(t *testing.T) {
	dir := t.TempDir()
	identity(t, dir, "server")
	for name, tt := range map[string]struct{ text, want string }{
		"an unknown key":          {"tls_config: {}\n", "field tls_config not found"},
		"no key":                  {"tls_server_config: {cert_file: server.crt}\n", "missing one of key or key_file"},
		"no such certificate":     {"tls_server_config: {cert_file: nowhere, key_file: server.key}\n", "nowhere"},
		"a file that is too long": {"tls_server_config: {cert_file: server.crt, key_file: server.key}\n#" + strings.Repeat("x", 64<<10), "at most 65536 bytes"},
		"a password in clear":     {"basic_auth_users: {prometheus: secret}\n", "hashedSecret too short"},
	} {
		file := filepath.Join(dir, "web.yaml")
		write(t, file, tt.text)
		if err := serve.CheckWeb(file); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
