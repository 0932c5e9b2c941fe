package conntracktest

import "github.com/nsgd/nsgd/dataplane/packet"

// before is by how much a sequence number is before another; negative: it is behind it.
func before(a, b uint32) int64 { return int64(int32(b - a)) }

// beginNumbers notes the segment that begins a flow, and what is to be expected of the other side.
func (f *Flow) beginNumbers(p *packet.Packet) {
	self, other := &f.sides[Original], &f.sides[Reply]
	window := max(int64(p.Window), 1)
	self.Numbers = Numbers{Heard: true, End: p.SeqEnd(), Window: window, Scale: int(p.WindowScale) - 1}
	other.Numbers = Numbers{Next: p.Seq, Limit: p.SeqEnd() + uint32(window), Scale: -1}
	if p.TCPFlags&packet.SYN != 0 {
		other.Next = p.Seq + 1
	}
	if p.TCPFlags&packet.ACK != 0 {
		self.Next, self.Limit = p.Ack, p.Ack+uint32(window)
		other.End = p.Ack
	}
}

// opens notes a SYN or SYN+ACK of a side that the other one has not acknowledged.
func (f *Flow) opens(from int, p *packet.Packet) {
	self, other := &f.sides[from], &f.sides[1-from]
	self.Heard, self.End, self.Window, self.Scale = true, p.SeqEnd(), max(int64(p.Window), 1), int(p.WindowScale)-1
	other.Next, other.Limit = p.Seq+1, self.End+uint32(other.Window)
	if p.TCPFlags&packet.ACK != 0 {
		self.Next, self.Limit = p.Ack, p.Ack+uint32(max(p.Window, 1))
	}
}

// continues reports whether a segment's bytes follow what its side has sent, without a gap.
func (f *Flow) continues(from int, p *packet.Packet) bool {
	end := f.sides[from].End
	return before(p.Seq, end) >= 0 && before(end, p.SeqEnd()) >= 0
}

// fits says whether a segment fits the windows, and notes what it says of them.
func (f *Flow) fits(from int, p *packet.Packet) bool {
	self, other := &f.sides[from], &f.sides[1-from]
	flags := p.TCPFlags & judged
	answersSYN := before(self.Next, p.Ack) >= 0 && before(p.Ack, other.End) >= 0
	switch {
	case flags&packet.RST != 0:
		switch {
		case f.Loose:
			return true
		case self.opening() && other.joined() && !f.picked:
			return false
		case !self.spoke && !f.picked:
			return answersSYN
		case self.joined() && other.opening() && !f.picked:
			return flags&packet.ACK != 0 && answersSYN
		}
		return p.Seq == other.Next || p.Seq == self.End
	case flags == packet.SYN:
		if !self.opening() {
			f.opens(from, p)
		}
		return true
	case flags&packet.SYN != 0 && !f.picked && !self.acked && !self.fin:
		if !f.Loose && !answersSYN {
			return false
		}
		f.opens(from, p)
		return true
	case other.opening() && !f.Loose && before(self.Next, p.Ack) < 0:
		return false
	case f.Loose:
		self.Heard = true
		f.note(from, p.SeqEnd(), 1, p.Ack, p.Ack)
		return true
	case f.picked:
		return f.fitsPicked(from, p)
	}
	return f.fitsWindow(from, p)
}

// fitsWindow is for a connection that was seen from its first SYN: the four bounds of Rooij's paper.
func (f *Flow) fitsWindow(from int, p *packet.Packet) bool {
	self, other := &f.sides[from], &f.sides[1-from]
	if !self.Heard || !other.Heard {
		return false
	}
	end, sack := p.SeqEnd(), p.Ack+p.SACKed
	notBeyondWindow := before(p.Seq, other.Limit) >= 0
	notTooOld := before(end, self.End) <= other.Window
	sentBefore := before(sack, other.End) >= 0
	notTooOldAck := before(sack, other.End) <= max(self.Window, 66_000)
	if !notTooOld || !sentBefore || !notTooOldAck {
		return false
	}
	if !notBeyondWindow {
		if uint32(before(other.Limit, end)+1) <= uint32(other.Window) && before(self.End, end) > 0 {
			self.End = end
		}
		return false
	}
	window := int64(p.Window)
	if p.TCPFlags&packet.SYN == 0 && self.Scale >= 0 && other.Scale >= 0 {
		window <<= self.Scale
	}
	beyond := before(other.Limit, end)
	f.note(from, end, window+int64(p.SACKed), p.Ack, sack+uint32(max(window, 1)))
	if beyond > 0 {
		other.Window += beyond
	}
	return true
}

// fitsPicked is for one that was not.
func (f *Flow) fitsPicked(from int, p *packet.Packet) bool {
	const first, gap, old = 1 << 24, 1 << 20, 66_000
	self, other := &f.sides[from], &f.sides[1-from]
	near := func(a, b uint32) bool { return before(a, b) <= first && before(a, b) >= -first }
	end, sack := p.SeqEnd(), p.Ack+p.SACKed
	switch {
	case !self.Heard && p.TCPFlags&packet.SYN != 0:
		if before(self.Next, p.Ack) < 0 || before(other.End, p.Ack) > 1 {
			return false
		}
		f.opens(from, p)
		return true
	case !self.Heard:
		if !near(p.Seq, other.Next) || !near(end, other.Next) || !near(p.Ack, other.End) {
			return false
		}
		self.Heard, self.End, self.Window, self.Next, self.Limit = true, end, max(int64(p.Window), 1), p.Ack, 0
		if before(other.End, p.Ack) > 0 {
			other.End = p.Ack
		}
		return true
	case before(self.End, p.Seq) > gap:
		return false
	case !other.Heard:
		if !near(end, self.End) {
			return false
		}
	case before(end, other.Next) > old || before(sack, other.End) < 0 || before(p.Ack, self.Next) > old:
		return false
	}
	f.note(from, end, 0, p.Ack, p.Ack)
	return true
}

// note raises what a side has said.
func (f *Flow) note(from int, end uint32, window int64, next, limit uint32) {
	self := &f.sides[from]
	if before(self.End, end) > 0 {
		self.End = end
	}
	self.Window = max(self.Window, window)
	if before(self.Next, next) > 0 {
		self.Next = next
	}
	if before(self.Limit, limit) > 0 {
		self.Limit = limit
	}
}

// Numbers are what a side has said.
func (f *Flow) Numbers(side int) Numbers { return f.sides[side].Numbers }

// Edges are the sequence and acknowledgement numbers at which a segment of a side begins or ceases to fit.
func (f *Flow) Edges(side int) (seq, ack []uint32) {
	self, other := f.sides[side].Numbers, f.sides[1-side].Numbers
	seq = []uint32{self.End, other.Limit, other.Next, self.End - uint32(other.Window), self.End + 1<<20, other.Next - 66_000, other.Next + 1<<24}
	ack = []uint32{other.End, self.Next, other.End - 66_000, other.End - uint32(self.Window), self.Next - 66_000, other.End - 1<<24}
	return seq, ack
}
