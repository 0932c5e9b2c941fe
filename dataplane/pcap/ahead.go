package pcap

import (
	"context"
	"io"
)

const (
	aheadChunk  = 256 << 10
	aheadChunks = 4
)

// ahead reads in a goroutine of its own, up to aheadChunks ahead. So decompressing runs beside
// the judging of packets, and a read that hangs can be abandoned.
type ahead struct {
	ctx  context.Context
	full chan chunk
	free chan []byte
	now  chunk
	rest []byte // of now
}

type chunk struct {
	b   []byte
	err error
}

// newAhead reads r until it ends, fails, or ctx is done.
func newAhead(ctx context.Context, r io.Reader) *ahead {
	a := &ahead{ctx: ctx, full: make(chan chunk, aheadChunks), free: make(chan []byte, aheadChunks)}
	for range aheadChunks {
		a.free <- make([]byte, aheadChunk)
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.ctx.Done():
			return
		}
		n, err := r.Read(b[:aheadChunk])
		a.full <- chunk{b[:n], err} // there is room for all
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader; it fails with ctx's cause when that is done.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.b != nil {
			a.free <- a.now.b
			a.now = chunk{}
		}
		select {
		case a.now = <-a.full:
			a.rest = a.now.b
		case <-a.ctx.Done():
			return 0, context.Cause(a.ctx)
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// waits reports whether the next Read may block.
func (a *ahead) waits() bool { return len(a.rest) == 0 && len(a.full) == 0 }
