package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// side is what one side of a TCP connection has said of sequence numbers, as of the segments that fit
// the windows (Rooij, "Real stateful TCP packet filtering in IP Filter"). Each of its two words changes
// at once. Segments of one flow pass on several workers at a time, and none waits: every change only
// raises a number.
type side struct {
	// sent is the end of all that the side has sent (bits 32-63), and the largest window that it has
	// offered (0-31). A window of 0 says that the side has not been heard.
	sent atomic.Uint64
	// taken is the sequence number that the side expects next (bits 32-63), and the end of what it lets
	// the other side send (0-31).
	taken atomic.Uint64
}

// sides are a flow's, by Direction.
type sides [2]side

// numbers are a side's, read once.
type numbers struct{ end, window, next, limit uint32 }

func (x *side) read() numbers {
	sent, taken := x.sent.Load(), x.taken.Load()
	return numbers{uint32(sent >> 32), uint32(sent), uint32(taken >> 32), uint32(taken)}
}

func words(high, low uint32) uint64 { return uint64(high)<<32 | uint64(low) }

// behind is how far a sequence number is behind another; negative: before it.
func behind(a, b uint32) int32 { return int32(a - b) }

const (
	// leastAckWindow is how far an acknowledgement may be behind, whatever the window (the largest one
	// without scaling, and some).
	leastAckWindow = 66_000
	// A connection that was picked up in mid-stream has windows that nobody knows: its scaling was
	// agreed before. There a segment may leave a gap of pickedGap behind what its side has sent, and the
	// first segments may be apart by pickedFirst.
	pickedGap   = 1 << 20
	pickedFirst = 1 << 24
)

// begin notes the segment that begins a flow. What the other side expects follows from it.
func (x *sides) begin(p *packet.Packet) {
	end, window := p.SeqEnd(), max(uint32(p.Window), 1)
	x[Original].sent.Store(words(end, window))
	x[Original].taken.Store(0)
	x[Reply].sent.Store(0)
	x[Reply].taken.Store(words(p.Seq+uint32(p.TCPFlags&packet.SYN)>>1, end+window))
	if p.TCPFlags&packet.ACK != 0 {
		x[Original].taken.Store(words(p.Ack, p.Ack+window))
		x[Reply].sent.Store(words(p.Ack, 0))
	}
}

// answer notes a SYN, or a SYN+ACK, of a side that nobody has acknowledged yet. Windows of such segments
// are never scaled.
func (x *sides) answer(d Direction, p *packet.Packet) {
	self, other := &x[d], &x[1-d]
	end, window := p.SeqEnd(), uint32(p.Window)
	self.sent.Store(words(end, max(window, 1)))
	other.taken.Store(words(p.Seq+1, end+uint32(other.sent.Load())))
	if p.TCPFlags&packet.ACK != 0 {
		self.taken.Store(words(p.Ack, p.Ack+max(window, 1)))
	}
}

// answers reports whether an acknowledgement is one of the other side's SYN, and of data in it perhaps.
func (x *sides) answers(d Direction, ack uint32) bool {
	return behind(ack, uint32(x[d].taken.Load()>>32)) >= 0 && behind(ack, uint32(x[1-d].sent.Load()>>32)) <= 0
}

// repeats reports whether a SYN is the one that the side has sent before.
func (x *sides) repeats(d Direction, p *packet.Packet) bool {
	return p.SeqEnd() == uint32(x[d].sent.Load()>>32) || p.Seq+1 == uint32(x[1-d].taken.Load()>>32)
}

// resets reports whether a RST is where its receiver must take it: at the number that it expects next,
// or at the end of what it was sent, should all of that have arrived (RFC 5961 section 3.2).
func (x *sides) resets(d Direction, p *packet.Packet) bool {
	return p.Seq == uint32(x[1-d].taken.Load()>>32) || p.Seq == uint32(x[d].sent.Load()>>32)
}

// finishes reports whether a FIN ends what its side has sent, and leaves no gap.
func (x *sides) finishes(d Direction, p *packet.Packet) bool {
	end := uint32(x[d].sent.Load() >> 32)
	return behind(p.Seq, end) <= 0 && behind(p.SeqEnd(), end) >= 0
}

// pass notes a segment if it fits the windows, and reports whether it does. It has ACK, and neither SYN
// nor RST, or SYN in a connection that was picked up or is open.
func (x *sides) pass(s status, d Direction, p *packet.Packet) bool {
	if s&(statusPicked|statusLoose) != 0 {
		if s&statusLoose != 0 {
			return x.passLoose(d, p)
		}
		return x.passPicked(d, p)
	}
	d &= 1 // so that no index is checked
	self, other := x[d].read(), x[1-d].read()
	end, ack := p.SeqEnd(), p.Ack
	sack := ack + p.SACKed
	if self.window == 0 || other.window == 0 {
		return false // only SYN+ACK answers a SYN
	}
	// Unsigned: what was never sent is far more than any window behind.
	inWindow := behind(end, self.end-other.window) >= 0 && other.end-sack <= max(self.window, leastAckWindow)
	if !inWindow || behind(p.Seq, other.limit) > 0 {
		if inWindow && end-other.limit+1 <= other.window && behind(end, self.end) > 0 {
			// The receiver may take what is beyond its window, and then its answer must fit.
			raise(&x[d].sent, end, 0)
		}
		return false
	}
	window := uint32(p.Window)
	if p.TCPFlags&packet.SYN == 0 {
		window <<= s.scale(d)
	}
	if behind(end, self.end) > 0 || window+p.SACKed > self.window {
		raise(&x[d].sent, end, window+p.SACKed)
	}
	if limit := sack + max(window, 1); behind(ack, self.next) > 0 || behind(limit, self.limit) > 0 {
		grant(&x[d].taken, ack, limit)
	}
	if beyond := behind(end, other.limit); beyond > 0 {
		raise(&x[1-d].sent, other.end, other.window+uint32(beyond))
	}
	return true
}

// passPicked is pass for a connection that was picked up in mid-stream. A segment fits if it goes on where
// the last ones have stopped, or repeats what may not have arrived.
func (x *sides) passPicked(d Direction, p *packet.Packet) bool {
	d &= 1
	self, other := x[d].read(), x[1-d].read()
	end, ack := p.SeqEnd(), p.Ack
	switch {
	case self.window == 0 && p.TCPFlags&packet.SYN != 0: // SYN+ACK, sent once more
		if behind(ack, self.next) < 0 || behind(ack, other.end) > 1 {
			return false
		}
		x.answer(d, p)
		return true
	case self.window == 0: // the first one of its side
		if far(p.Seq, other.next) || far(end, other.next) || far(ack, other.end) {
			return false
		}
		x[d].sent.Store(words(end, max(uint32(p.Window), 1)))
		x[d].taken.Store(words(ack, 0))
		raise(&x[1-d].sent, ack, 0) // the other side's first segment may have repeated older data
		return true
	case behind(p.Seq, self.end) > pickedGap:
		return false
	case other.window == 0:
		if far(end, self.end) {
			return false
		}
	case behind(end, other.next) < -leastAckWindow || behind(ack+p.SACKed, other.end) > 0 || behind(ack, self.next) < -leastAckWindow:
		return false
	}
	if behind(end, self.end) > 0 {
		raise(&x[d].sent, end, 0)
	}
	if behind(ack, self.next) > 0 {
		grant(&x[d].taken, ack, ack)
	}
	return true
}

// passLoose is pass where windows are not looked at.
func (x *sides) passLoose(d Direction, p *packet.Packet) bool {
	raise(&x[d].sent, p.SeqEnd(), 1)
	grant(&x[d].taken, p.Ack, p.Ack)
	return true
}

func far(a, b uint32) bool { return a-b+pickedFirst > 2*pickedFirst }

// raise raises what a side has sent.
func raise(word *atomic.Uint64, end, window uint32) {
	for {
		old := word.Load()
		e, w := uint32(old>>32), max(uint32(old), window)
		if behind(end, e) > 0 {
			e = end
		}
		if now := words(e, w); now == old || word.CompareAndSwap(old, now) {
			return
		}
	}
}

// grant raises what a side has taken and grants.
func grant(word *atomic.Uint64, next, limit uint32) {
	for {
		old := word.Load()
		n, l := uint32(old>>32), uint32(old)
		if behind(next, n) > 0 {
			n = next
		}
		if behind(limit, l) > 0 {
			l = limit
		}
		if now := words(n, l); now == old || word.CompareAndSwap(old, now) {
			return
		}
	}
}
