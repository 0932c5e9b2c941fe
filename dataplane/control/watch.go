package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// What the fields of a WatchRequest may be at most.
const (
	MaxCount     = 1<<31 - 1
	MaxPerSecond = 1_000_000
	MaxSample    = 1_000_000
	MaxSnapLen   = 262_144 // what Wireshark takes; no packet is as long
)

// WatchRequest chooses packets for Trace and Capture. The zero value is all of them, until the
// client has enough.
type WatchRequest struct {
	// Filter is an expression, see watch.Filter.
	Filter string
	// Denied leaves out what was carried.
	Denied bool
	// Count ends the stream after so many packets; 0: it has no end.
	Count int
	// PerSecond bounds the packets of a second; 0: no bound.
	PerSecond int
	// Sample takes one packet of so many; 0: all.
	Sample int
	// SnapLen is how many bytes of each packet Capture keeps; 0: all of them.
	SnapLen int
}

// WatchSummary says how complete a stream is.
type WatchSummary struct {
	// Packets are those that the stream has had so far.
	Packets uint64 `json:"packets"`
	// Lost are those that it should have had, but nobody read in time.
	Lost uint64 `json:"lost"`
	// Skipped are those that were left out because of PerSecond or Sample.
	Skipped uint64 `json:"skipped"`
}

func (q *WatchRequest) values() url.Values {
	return url.Values{"filter": {q.Filter}, "denied": {strconv.FormatBool(q.Denied)}, "count": {strconv.Itoa(q.Count)},
		"perSecond": {strconv.Itoa(q.PerSecond)}, "sample": {strconv.Itoa(q.Sample)}, "snapLen": {strconv.Itoa(q.SnapLen)}}
}

func watchRequest(r *http.Request) (q WatchRequest, err error) {
	values := r.URL.Query()
	if q.Denied, err = flag(r, "denied"); err != nil {
		return q, err
	}
	q.Filter = values.Get("filter")
	for _, n := range []struct {
		name string
		max  int
		into *int
	}{{"count", MaxCount, &q.Count}, {"perSecond", MaxPerSecond, &q.PerSecond}, {"sample", MaxSample, &q.Sample}, {"snapLen", MaxSnapLen, &q.SnapLen}} {
		text := values.Get(n.name)
		if text == "" {
			continue
		}
		if *n.into, err = strconv.Atoi(text); err != nil || *n.into < 0 || *n.into > n.max {
			return q, fmt.Errorf("%s: %q: allowed are 0 to %d", n.name, text, n.max)
		}
	}
	return q, nil
}

// Trailers of a capture.
const (
	trailerPackets = "Nsgd-Packets"
	trailerLost    = "Nsgd-Lost"
	trailerSkipped = "Nsgd-Skipped"
)

// stream is one answer that goes on as long as somebody listens. The client ends it by going
// away or, if it sends a body, by ending that: then it learns what was lost to the end.
type stream struct {
	server       *Server
	subscription *watch.Subscription
	request      WatchRequest
	namer        *dataplane.Namer
	out          *bufio.Writer
	control      *http.ResponseController
	told         WatchSummary
	toldAt       time.Time
	packets      uint64
}

// encoder writes a stream's packets; summary may be written at any time between them.
type encoder interface {
	packet(*watch.Event, []byte) error
	summary(WatchSummary) error
}

const (
	// streamEvents is how many packets a stream takes at a time.
	streamEvents = 256
	// captureBytes is room for a burst of superpackets, for each worker.
	captureBytes = 8 << 20
	// lastWords is how long a client that does not read may take for the end of its stream when
	// the daemon ends.
	lastWords = time.Second
)

// subscribe makes the request's subscription; the error is for the client.
func (s *Service) subscribe(q *WatchRequest, snap int) (*watch.Subscription, error) {
	filter, err := watch.Parse(q.Filter)
	if err != nil {
		return nil, badRequest(err)
	}
	o := watch.Options{Filter: filter, DroppedOnly: q.Denied, PerSecond: q.PerSecond, Every: q.Sample, Snap: snap}
	if snap > 0 {
		o.Bytes = captureBytes
	}
	sub, err := s.options.Engine.Watch(o)
	if errors.Is(err, dataplane.ErrWatchers) {
		return nil, asError(err, http.StatusServiceUnavailable)
	}
	if err != nil {
		return nil, badRequest(err)
	}
	return sub, nil
}

// stream answers with what begin makes of the subscription.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, contentType string, snap func(*WatchRequest) int,
	begin func(*stream) (encoder, error)) {
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		answer(w, nil, err)
		return
	}
	header := w.Header()
	header.Set("Connection", "close")
	// The server must not wait for the end of the body, which comes when the client has had enough.
	defer control.SetReadDeadline(time.Unix(1, 0))
	q, err := watchRequest(r)
	if err != nil {
		answer(w, nil, badRequest(err))
		return
	}
	sub, err := s.service.subscribe(&q, snap(&q))
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer sub.Close()
	st := &stream{server: s, subscription: sub, request: q, namer: s.service.options.Engine.NewNamer(),
		out: bufio.NewWriterSize(w, 64<<10), control: control}
	header.Set("Content-Type", contentType)
	for _, name := range []string{trailerPackets, trailerLost, trailerSkipped} {
		header.Add("Trailer", name)
	}
	w.WriteHeader(http.StatusOK)
	ctx, leave := st.until(r)
	defer leave()
	e, err := begin(st)
	if err == nil {
		err = st.run(ctx, e)
	}
	if err != nil { // the client sees that the answer is cut off
		s.service.options.Log.Debug("stream ended early", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	now := st.now()
	header.Set(trailerPackets, strconv.FormatUint(now.Packets, 10))
	header.Set(trailerLost, strconv.FormatUint(now.Lost, 10))
	header.Set(trailerSkipped, strconv.FormatUint(now.Skipped, 10))
}

// until is the context of a stream; it ends with the client, with its body, or with the server.
func (st *stream) until(r *http.Request) (ctx context.Context, leave func()) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(st.server.streams, func() {
		st.control.SetWriteDeadline(time.Now().Add(lastWords))
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
		st.control.SetReadDeadline(time.Unix(1, 0))
		<-read
	}
}

func (st *stream) now() WatchSummary {
	return WatchSummary{Packets: st.packets, Lost: st.subscription.Lost(), Skipped: st.subscription.Skipped()}
}

// run writes events until there are enough, or ctx ends; then those that wait, too.
func (st *stream) run(ctx context.Context, e encoder) error {
	if err := errors.Join(e.summary(st.told), st.flush()); err != nil { // it has begun
		return err
	}
	events := make([]watch.Event, streamEvents)
	for st.left() > 0 {
		n, err := st.subscription.Read(ctx, events[:min(st.left(), streamEvents)])
		if ctx.Err() != nil {
			st.subscription.Close()
		}
		if n == 0 && err != nil {
			break
		}
		for i := range events[:n] {
			st.packets++
			if err := e.packet(&events[i], st.subscription.Bytes(&events[i])); err != nil {
				return err
			}
		}
		if now := st.now(); time.Since(st.toldAt) >= time.Second && (now.Lost != st.told.Lost || now.Skipped != st.told.Skipped) {
			st.told, st.toldAt = now, time.Now()
			if err := e.summary(now); err != nil {
				return err
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
	}
	if err := e.summary(st.now()); err != nil {
		return err
	}
	return st.out.Flush()
}

// left is how many packets the stream may still have.
func (st *stream) left() int {
	if st.request.Count == 0 {
		return streamEvents
	}
	return st.request.Count - int(st.packets)
}

func (st *stream) flush() error {
	if err := st.out.Flush(); err != nil {
		return err
	}
	return st.control.Flush()
}
