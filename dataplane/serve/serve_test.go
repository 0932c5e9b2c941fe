package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve"
)

// large does not fit in the buffers of two sockets.
var large = bytes.Repeat([]byte("0123456789abcdef"), 1<<20)

// usual bounds nothing that a test meets by accident.
var usual = serve.Options{Timeout: time.Minute, IdleTimeout: time.Minute, Connections: 100, Answers: 100, Streams: 100}

func start(t *testing.T, o serve.Options, handler http.HandlerFunc) (address string) {
	t.Helper()
	address, end := run(t, serve.New(handler, o))
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		end(ctx)
	})
	return address
}

// run serves until end is called.
func run(t *testing.T, s *serve.Server) (address string, end func(context.Context)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return l.Addr().String(), func(ctx context.Context) {
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	}
}

type peer struct {
	net.Conn
	*bufio.Reader
}

func (p peer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func dial(t *testing.T, address string) peer {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return peer{c, bufio.NewReaderSize(c, 16)}
}

func (p peer) ask(t *testing.T, method, path, rest string) {
	t.Helper()
	if _, err := fmt.Fprintf(p, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, rest); err != nil {
		t.Fatal(err)
	}
}

// answer reads a whole answer.
func (p peer) answer(t *testing.T) (status int, text string) {
	t.Helper()
	r, err := http.ReadResponse(p.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// ended waits for the end of the connection, and reports how many bytes came before.
func (p peer) ended() int64 {
	n, _ := io.Copy(io.Discard, p)
	return n
}

func TestASilentPeerIsCutOff(t *testing.T) {
	short := usual
	short.Timeout, short.IdleTimeout = time.Second, time.Second // a busy machine takes long to ask
	address := start(t, short, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			w.Write(large)
		case "/body":
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("a body that does not come was read")
			}
		}
	})
	for name, begin := range map[string]func(peer){
		"says nothing":              func(peer) {},
		"half a head":               func(p peer) { io.WriteString(p, "GET / HTTP/1.1\r\nHo") },
		"no body":                   func(p peer) { p.ask(t, "POST", "/body", "Content-Length: 10\r\n") },
		"a body that nobody reads":  func(p peer) { p.ask(t, "POST", "/", "Content-Length: 10\r\n") },
		"no second request":         func(p peer) { p.ask(t, "GET", "/", ""); p.answer(t) },
		"does not read":             func(p peer) { p.ask(t, "GET", "/large", ""); p.ReadByte() },
		"half a head of the second": func(p peer) { p.ask(t, "GET", "/", ""); p.answer(t); io.WriteString(p, "GET") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := dial(t, address)
			begin(p)
			if name == "does not read" {
				waitForEnd(t, p)
			}
			if n := p.ended(); n >= int64(len(large)) && name == "does not read" {
				t.Errorf("%d bytes: the whole answer waited for its reader", n)
			}
		})
	}
}

// Whoever pauses keeps its stream, until the server ends.
func TestAStreamWaitsForItsReader(t *testing.T) {
	o := usual
	o.Timeout = 500 * time.Millisecond
	waits := make(chan bool, 1)
	ended := make(chan error, 1)
	s := serve.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := serve.Stream(w, false); err != nil {
			t.Error(err)
		}
		for {
			time.AfterFunc(2*o.Timeout, func() {
				select {
				case waits <- true:
				default:
				}
			})
			if _, err := w.Write(large); err != nil {
				ended <- err
				return
			}
		}
	}), o)
	address, end := run(t, s)
	p := dial(t, address)
	p.ask(t, "GET", "/stream", "")
	<-waits // twice as long as another answer may
	if n, err := io.CopyN(io.Discard, p, 3*int64(len(large))); err != nil {
		t.Fatalf("after a pause %d bytes came: %v", n, err)
	}
	end(context.Background())
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that waits ends with %v", err)
	}
}

// waitForEnd waits, without reading, until the other end has closed the connection.
func waitForEnd(t *testing.T, p peer) {
	t.Helper()
	for {
		if _, err := p.Write([]byte("x")); err != nil {
			return
		}
	}
}

func TestALongHandlerKeepsItsRequest(t *testing.T) {
	short := usual
	short.Timeout = 500 * time.Millisecond
	address := start(t, short, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			io.WriteString(w, "given up")
		case <-time.After(2 * short.Timeout):
			io.WriteString(w, "done")
		}
	})
	for _, q := range []struct{ method, rest string }{{"GET", ""}, {"POST", "Content-Length: 1\r\n"}} {
		p := dial(t, address)
		p.ask(t, q.method, "/", q.rest)
		if q.method == "POST" {
			io.WriteString(p, "x")
		}
		if _, text := p.answer(t); text != "done" {
			t.Errorf("%s: %q", q.method, text)
		}
	}
}

func TestOneConnectionTooManyEndsTheOldestThatWaits(t *testing.T) {
	o := usual
	o.Connections = 3
	begun, goOn := make(chan bool), make(chan bool)
	address := start(t, o, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			begun <- true
			<-goOn
		}
		io.WriteString(w, "here")
	})
	busy := dial(t, address)
	busy.ask(t, "GET", "/wait", "")
	<-begun
	var idle []peer
	for range 50 {
		p := dial(t, address)
		p.ask(t, "GET", "/", "")
		if _, text := p.answer(t); text != "here" {
			t.Fatal(text)
		}
		idle = append(idle, p)
	}
	for _, p := range idle[:48] {
		p.ended()
	}
	idle[49].ask(t, "GET", "/", "")
	if _, text := idle[49].answer(t); text != "here" {
		t.Error(text)
	}
	goOn <- true
	if _, text := busy.answer(t); text != "here" {
		t.Errorf("the oldest one, which had a request: %q", text)
	}
}

func TestOneAnswerTooManyEndsTheOldest(t *testing.T) {
	o := usual
	o.Answers = 2
	address := start(t, o, func(w http.ResponseWriter, r *http.Request) {
		serve.Hold(w)
		w.Write(large)
	})
	var slow []peer
	for range 5 {
		p := dial(t, address)
		p.ask(t, "GET", "/", "")
		p.ReadByte() // the answer has begun
		slow = append(slow, p)
	}
	for _, p := range slow[:3] {
		waitForEnd(t, p)
	}
	p := dial(t, address)
	p.ask(t, "GET", "/", "")
	if status, text := p.answer(t); status != http.StatusOK || len(text) != len(large) {
		t.Errorf("status %d, %d bytes", status, len(text))
	}
}

func TestStreamsAreBoundedAndEndForNoOther(t *testing.T) {
	o := usual
	o.Connections, o.Streams = 2, 1
	begun := make(chan bool, 10)
	address := start(t, o, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			return
		}
		if err := serve.Stream(w, false); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		begun <- true
		io.Copy(w, r.Body)
	})
	stream := dial(t, address)
	stream.ask(t, "POST", "/stream", fmt.Sprintf("Content-Length: %d\r\n", 2<<20))
	<-begun
	for range 5 {
		p := dial(t, address)
		p.ask(t, "GET", "/stream", "")
		if status, _ := p.answer(t); status != http.StatusServiceUnavailable {
			t.Errorf("one stream too many: status %d", status)
		}
	}
	body := large[:2<<20]
	go stream.Write(body)
	if _, text := stream.answer(t); text != string(body) {
		t.Errorf("the stream came back with %d bytes", len(text))
	}
}

func TestARequestsBodyIsBounded(t *testing.T) {
	address := start(t, usual, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		var tooLong *http.MaxBytesError
		fmt.Fprint(w, n <= 1<<20, errors.As(err, &tooLong))
	})
	p := dial(t, address)
	p.ask(t, "POST", "/", fmt.Sprintf("Content-Length: %d\r\n", len(large)))
	go p.Write(large)
	if _, text := p.answer(t); text != "true true" {
		t.Error(text)
	}
}

// Whoever had no precedence could take them all.
func TestPeersWithPrecedenceHaveAReserveOfStreams(t *testing.T) {
	o := usual
	o.Streams, o.Reserve = 3, 1
	begun := make(chan bool, 10)
	address := start(t, o, func(w http.ResponseWriter, r *http.Request) {
		if err := serve.Stream(w, r.URL.Path == "/first"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.(http.Flusher).Flush()
		begun <- true
		<-r.Context().Done()
	})
	ask := func(path string) peer {
		p := dial(t, address)
		p.ask(t, "GET", path, "")
		return p
	}
	refused := func(path string) {
		t.Helper()
		if status, _ := ask(path).answer(t); status != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d", path, status)
		}
	}
	first := ask("/")
	<-begun
	ask("/")
	<-begun
	refused("/")
	ask("/first")
	<-begun
	refused("/first")
	first.Close() // what ends is counted where it began
	for p := ask("/"); ; p = ask("/") {
		line, err := p.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "200") {
			return
		}
	}
}
