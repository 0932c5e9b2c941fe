package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/serve/servetest"
	"github.com/nsgd/nsgd/tun"
)

// remote is a rig that is asked over TLS too.
type remote struct {
	*rig
	ca      *servetest.Authority
	address string
}

func newRemote(t *testing.T, mayChange ...string) *remote {
	t.Helper()
	r := &remote{rig: newRig(t), ca: servetest.NewAuthority(t, t.TempDir(), "ca")}
	for _, name := range []string{"server", "alice", "bob"} {
		r.ca.Issue(name, nil)
	}
	mutual, err := serve.NewMutual(r.files("server", "ca"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- r.server.ServeRemote(l, mutual, mayChange) }()
	t.Cleanup(func() {
		r.server.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *remote) files(name, ca string) serve.MutualFiles {
	return serve.MutualFiles{Certificate: r.ca.Path(name + ".crt"), Key: r.ca.Path(name + ".key"), CA: r.ca.Path(ca + ".crt")}
}

// as is a client with a certificate.
func (r *remote) as(name string) *control.Client {
	r.t.Helper()
	client := control.NewRemoteClient(r.address, r.files(name, "ca"))
	r.t.Cleanup(client.Close)
	return client
}

func TestACertificateSaysWhoMayChange(t *testing.T) {
	r := newRemote(t, "alice", "spiffe://example.org/deploy")
	r.ca.Issue("deploy", func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/deploy"}}
	})
	for name, may := range map[string]bool{"alice": true, "bob": false, "deploy": true} {
		client := r.as(name)
		if status, err := client.Status(t.Context()); err != nil || status.Version != "test" {
			t.Errorf("%s looks: %v", name, err)
		}
		_, err := client.Reload(t.Context(), 0)
		if may {
			if cause := r.service.Reloads().LastCause; err != nil || !strings.Contains(cause, "certificate "+name) {
				t.Errorf("%s reloads: %v, by %q", name, err, cause)
			}
			continue
		}
		if refusal := wantRefusal(t, err, http.StatusForbidden); !strings.Contains(refusal.Message, `names ["bob"] may look; allowed are those that control.mayChange`) {
			t.Error(refusal)
		}
	}
}

// All that a stream needs works over TLS: both directions at a time, and an end by its client.
func TestStreamsGoOverTLS(t *testing.T) {
	r := newRemote(t)
	var lines strings.Builder
	if err := r.as("bob").Verify(t.Context(), false, strings.NewReader(question("vm1-nic", "Inbound", "10.0.1.4", 80)+"\n"), &lines); err != nil || !strings.Contains(lines.String(), `"access":"Allow"`) {
		t.Errorf("verify: %q, %v", lines.String(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	err := r.as("bob").Trace(ctx, inspect.WatchRequest{}, func(tr *inspect.Trace) error {
		if seen++; seen == 1 {
			r.devices[internet].Inject(0, append(make([]byte, tun.HeaderLen), syn("203.0.113.10", "10.0.1.4", 80)...))
		} else {
			cancel()
		}
		return nil
	})
	if err != nil || seen < 2 {
		t.Errorf("trace: %d lines, %v", seen, err)
	}
}

func TestWhoHasNoCertificateOfTheAuthorityIsNotAnswered(t *testing.T) {
	r := newRemote(t, "alice")
	pool := x509.NewCertPool()
	text, err := os.ReadFile(r.ca.Path("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	other := servetest.NewAuthority(t, t.TempDir(), "other")
	other.Issue("alice", nil)
	stranger, err := tls.LoadX509KeyPair(other.Path("alice.crt"), other.Path("alice.key"))
	if err != nil {
		t.Fatal(err)
	}
	r.ca.Issue("signs", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	server, err := tls.LoadX509KeyPair(r.ca.Path("signs.crt"), r.ca.Path("signs.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":            {RootCAs: pool},
		"another's":                 {RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }},
		"a certificate for servers": {RootCAs: pool, Certificates: []tls.Certificate{server}},
		"an old version":            {RootCAs: pool, MaxVersion: tls.VersionTLS12},
	} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		if response, err := client.Get("https://" + r.address + "/v1/status"); err == nil {
			response.Body.Close()
			t.Errorf("%s: status %d", name, response.StatusCode)
		}
	}
	response, err := http.Get("http://" + r.address + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %d %s", response.StatusCode, text)
	}
}

// What nsgctl says where TLS ends the connection.
func TestAClientIsToldWhatIsWrongWithCertificates(t *testing.T) {
	r := newRemote(t)
	other := servetest.NewAuthority(t, r.ca.Path(""), "other")
	other.Issue("mallory", nil)
	client := control.NewRemoteClient(r.address, r.files("bob", "other"))
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not of the CA that --ca gives") {
		t.Errorf("the daemon's: %v", err)
	}
	if _, err := r.as("mallory").Status(t.Context()); err == nil || !strings.Contains(err.Error(), "control.clientCA") {
		t.Errorf("the client's: %v", err)
	}
	client = control.NewRemoteClient("127.0.0.1:1", r.files("bob", "ca"))
	if _, err := client.Status(t.Context()); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("no daemon: %v", err)
	}
	for address, files := range map[string]serve.MutualFiles{"nowhere": r.files("bob", "ca"), r.address: r.files("nobody", "ca")} {
		if _, err := control.NewRemoteClient(address, files).Status(t.Context()); err == nil || errors.Is(err, control.ErrNoDaemon) {
			t.Errorf("%s with %v: %v", address, files, err)
		}
	}
}

// An authority that is taken away counts at once, also for who is connected. A file with a fault changes nothing.
func TestCertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	r := newRemote(t)
	bob := r.as("bob")
	ask := func(want string) {
		t.Helper()
		_, err := bob.Status(t.Context())
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	ask("nil")
	r.ca.Write("server.key", "NOTHING", nil)
	bob.Close()
	ask("nil")
	r.ca.Issue("server", func(c *x509.Certificate) { c.Subject.CommonName = "renewed" })
	conn, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "renewed" {
		t.Errorf("the daemon shows the certificate of %s", name)
	}
	next := servetest.NewAuthority(t, t.TempDir(), "next")
	text, err := os.ReadFile(next.Path("next.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next.Path("next.crt"), r.ca.Path("ca.crt")); err != nil {
		t.Fatal(len(text), err)
	}
	ask("permission denied: the client's certificate is not valid any more")
}

// lookers is how many traces those who may only look have at most.
const lookers = 4

// Eight traces of those who look left none for who may change.
func TestWhoMayChangeHasWatchersOfTheirOwn(t *testing.T) {
	r := newRemote(t, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, ended := make(chan bool, 100), make(chan error, 100)
	trace := func(client *control.Client) {
		ended <- client.Trace(ctx, inspect.WatchRequest{}, func(*inspect.Trace) error { begun <- true; return nil })
	}
	bob := r.as("bob")
	for range lookers {
		go trace(bob)
		<-begun
	}
	err := bob.Trace(ctx, inspect.WatchRequest{}, func(*inspect.Trace) error { return errors.New("it began") })
	if refusal := wantRefusal(t, err, http.StatusServiceUnavailable); !strings.Contains(refusal.Message, "by clients who may only look") {
		t.Error(refusal)
	}
	go trace(r.as("alice"))
	<-begun
	cancel()
	for range lookers + 1 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
