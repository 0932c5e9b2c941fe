package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// Trace and capture go on until their count, or until the client goes away. The client of a POST
// may also end its body, and then gets the rest of the stream with its summary.
const (
	// streamGrace is how long a client that does not read may take for the end of its stream
	// when the daemon ends.
	streamGrace = time.Second
	// goodbye is how long a daemon may say nothing of a stream that was asked to end. It may go on for goodbyes.
	goodbye  = 5 * time.Second
	goodbyes = time.Minute
)

// GET or POST /v1/trace answers with an inspect.Trace a line. Its query is an
// inspect.WatchRequest: filter, denied, count, perSecond and sample.
var tracePath = addRoute("trace", look, (*Server).trace, http.MethodGet, http.MethodPost)

func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, "application/x-ndjson", false, func(ctx context.Context, a *streamAnswer) error {
		lines := json.NewEncoder(a.out)
		lines.SetEscapeHTML(false)
		return a.Trace(ctx, func(t *inspect.Trace) error { return lines.Encode(t) }, a.flush)
	}, func(inspect.WatchSummary) http.Header { return nil })
}

// Trace yields what becomes of packets, until the request's count or until ctx ends. The end of
// ctx is no error, and the last line, with the summary, comes after it.
func (c *Client) Trace(ctx context.Context, q inspect.WatchRequest, yield func(*inspect.Trace) error) error {
	_, err := c.stream(ctx, tracePath, watchQuery(q), func(body io.Reader) error { return eachLine(body, yield) })
	return err
}

func watchQuery(q inspect.WatchRequest) url.Values {
	return url.Values{"filter": {q.Filter}, "denied": {strconv.FormatBool(q.Denied)}, "count": {strconv.Itoa(q.Count)},
		"perSecond": {strconv.Itoa(q.PerSecond)}, "sample": {strconv.Itoa(q.Sample)}, "snapLen": {strconv.Itoa(q.SnapLen)}}
}

func parseWatch(query url.Values) (q inspect.WatchRequest, err error) {
	if q.Denied, err = parseFlag(query, "denied"); err != nil {
		return q, err
	}
	q.Filter = query.Get("filter")
	for _, n := range []struct {
		name string
		most int
		into *int
	}{{"count", inspect.MaxCount, &q.Count}, {"perSecond", inspect.MaxPerSecond, &q.PerSecond},
		{"sample", inspect.MaxSample, &q.Sample}, {"snapLen", inspect.MaxSnapLen, &q.SnapLen}} {
		if *n.into, err = parseNumber(query, n.name, 0, n.most); err != nil {
			return q, err
		}
	}
	return q, nil
}

// streamAnswer is a stream on its way to a client.
type streamAnswer struct {
	*inspect.Stream
	out     *bufio.Writer
	control *http.ResponseController
}

func (a *streamAnswer) flush() error {
	if err := a.out.Flush(); err != nil {
		return err
	}
	return a.control.Flush()
}

// stream answers with what write makes of watched packets. trailers, if not nil, are for its end.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, contentType string, keepBytes bool,
	write func(context.Context, *streamAnswer) error, trailers func(inspect.WatchSummary) http.Header) {
	s.streamOf(w, r, contentType, func(query url.Values) (*inspect.Stream, error) {
		q, err := parseWatch(query)
		if err != nil {
			return nil, err
		}
		stream, err := s.service.Watch(q, keepBytes)
		return stream, badRequest(err)
	}, write, trailers)
}

// streamOf is stream for what open opens.
func (s *Server) streamOf(w http.ResponseWriter, r *http.Request, contentType string, open func(url.Values) (*inspect.Stream, error),
	write func(context.Context, *streamAnswer) error, trailers func(inspect.WatchSummary) http.Header) {
	header := w.Header()
	header.Set("Connection", "close") // or a refusal waits for the end of the body, which comes when the client has had enough
	precedence := clientOf(r.Context()).denied == nil
	if !precedence {
		select {
		case s.lookers <- struct{}{}:
			defer func() { <-s.lookers }()
		default:
			refuse(w, fmt.Errorf("%w: %d by clients who may only look", watch.ErrWatchers, maxLookers))
			return
		}
	}
	if err := serve.Stream(w, precedence); err != nil {
		refuse(w, err)
		return
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		refuse(w, err)
		return
	}
	defer control.SetReadDeadline(time.Unix(1, 0))
	stream, err := open(r.URL.Query())
	if err != nil {
		refuse(w, err)
		return
	}
	defer stream.Close()
	header.Set("Content-Type", contentType)
	for name := range trailers(inspect.WatchSummary{}) {
		header.Add("Trailer", name)
	}
	w.WriteHeader(http.StatusOK)
	ctx, leave := s.untilEnough(r, control)
	defer leave()
	if err := write(ctx, &streamAnswer{stream, bufio.NewWriterSize(w, 64<<10), control}); err != nil {
		// The client sees that the answer is cut off.
		s.service.Log().Debug("stream ended early", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	for name, values := range trailers(stream.Summary()) {
		header[name] = values
	}
}

// untilEnough is a context that ends with the client, with the client's body, or with the server.
func (s *Server) untilEnough(r *http.Request, control *http.ResponseController) (ctx context.Context, leave func()) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.streams, func() {
		control.SetWriteDeadline(time.Now().Add(streamGrace)) // of the write that waits
		cancel()
	})
	read := make(chan struct{})
	if r.ContentLength == 0 {
		close(read)
	} else {
		go func() {
			defer close(read)
			io.Copy(io.Discard, r.Body)
			cancel()
		}()
	}
	return ctx, func() {
		stop()
		cancel()
		control.SetReadDeadline(time.Unix(1, 0))
		<-read
	}
}

// stream reads an endless answer. The request's body stays open until ctx ends; its end tells
// the daemon to finish.
func (c *Client) stream(ctx context.Context, path string, query url.Values, read func(io.Reader) error) (http.Header, error) {
	body, end := io.Pipe()
	defer end.Close()
	asked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	e := newEnding(cancel)
	defer e.close()
	stop := context.AfterFunc(ctx, func() {
		end.Close()
		e.ask()
	})
	defer stop()
	response, err := c.do(asked, http.MethodPost, path, query, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	e.from = response.Body
	if err := read(e); err != nil {
		return nil, fmt.Errorf("control: %s: %w", path, err)
	}
	return response.Trailer, nil
}

// ending reads a stream, and gives it up where its end was asked for and the daemon says nothing more. Whoever reads may
// take their time.
type ending struct {
	from   io.Reader
	silent *time.Timer // runs while the daemon is waited for
	all    *time.Timer // runs once the end was asked for

	mu             sync.Mutex
	waiting, asked bool // guarded by mu
}

// newEnding waits for a daemon's answer. cancel gives it up.
func newEnding(cancel func()) *ending {
	e := &ending{silent: time.AfterFunc(goodbyes, cancel), all: time.AfterFunc(goodbyes, cancel), waiting: true}
	e.close()
	return e
}

// close stops the timers.
func (e *ending) close() {
	e.silent.Stop()
	e.all.Stop()
}

// ask notes that the daemon was asked for the end.
func (e *ending) ask() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = true
	e.all.Reset(goodbyes)
	if e.waiting {
		e.silent.Reset(goodbye)
	}
}

// waits notes whether the daemon is waited for.
func (e *ending) waits(waiting bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting = waiting; !waiting {
		e.silent.Stop()
	} else if e.asked {
		e.silent.Reset(goodbye)
	}
}

// Read implements io.Reader.
func (e *ending) Read(b []byte) (int, error) {
	e.waits(true)
	defer e.waits(false)
	return e.from.Read(b)
}
