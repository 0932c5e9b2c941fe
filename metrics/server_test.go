package metrics

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/nsgd/nsgd/dataplane"
)

// newServer serves an engine's metrics with options.
func newServer(engine *dataplane.Engine, o ServerOptions) *Server {
	o.Gatherer, o.Log = NewGatherer(Options{Engine: engine, Version: "1.2.3", Reloads: noReloads}), slog.New(slog.DiscardHandler)
	return NewServer(o)
}

// listen serves an engine's metrics until the test ends.
func listen(t *testing.T, engine *dataplane.Engine) (address string) {
	t.Helper()
	server := newServer(engine, ServerOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// open sends a scrape. It waits for the answer's first byte.
func open(t *testing.T, address, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.(*net.TCPConn).SetReadBuffer(2048)
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReaderSize(c, 16)
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func scrape(t *testing.T, address string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if n, err := io.Copy(io.Discard, r.Body); err != nil || n == 0 || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %d bytes: %v", r.Status, n, err)
	}
}

func TestHostile09MetricsClients(t *testing.T) {
	t.Run("peers that do not read", func(t *testing.T) {
		rules := 30_000 // more than sockets buffer
		if testing.Short() {
			rules = 10_000
		}
		address := listen(t, manyRules(t, rules))
		scrape(t, address)
		for range 3 * maxAnswers {
			open(t, address, "/metrics")
			scrape(t, address)
		}
	})
	t.Run("idle peers", func(t *testing.T) {
		address := listen(t, traffic(t))
		var first []net.Conn
		for range 3 * maxConnections {
			c, r := open(t, address, "/x")
			response, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, response.Body)
			first = append(first, c)
		}
		for _, c := range first[:2*maxConnections] {
			io.Copy(io.Discard, c) // until the server ends it
		}
		scrape(t, address)
	})
}
