// Package conntracktest holds the slow reference of a flow: facts about what each side has done.
// State and timeout follow from them. The tests of the flow table and of the engine share it. It
// uses nothing of package conntrack.
package conntracktest

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Side says who sent a packet of a flow, as an index into pairs.
const (
	Original = 0
	Reply    = 1
)

// Flow is the facts of a flow. Times are since any fixed point and do not wrap.
type Flow struct {
	Proto          uint8
	Seen           time.Duration // of the last packet that extended the flow's life
	Established    time.Duration // idle timeout of an established TCP flow
	Packets, Bytes [2]uint64     // wire segments, by side
	Stateless      bool          // a TCP flow without states
	Translated     bool          // a UDP flow lives as long as an established TCP flow, answered or not

	Loose bool // a TCP flow whose windows are not looked at

	kind   uint8 // type of the ICMP request that began the flow
	sides  [2]side
	reset  bool
	picked bool // begun in mid-stream: no window is known
}

// side holds what one side is known to have done.
type side struct {
	syn, mid, acked, fin, spoke bool
	Numbers
}

// Numbers are what one side of a TCP connection has said of sequence numbers.
type Numbers struct {
	Heard  bool
	End    uint32 // of all that it has sent
	Window int64  // the largest that it has offered
	Next   uint32 // what it expects
	Limit  uint32 // of what it lets the other side send
	Scale  int    // what it has offered; -1: it has not
}

func (s side) opening() bool { return s.syn && !s.acked && !s.fin }
func (s side) joined() bool  { return s.mid && !s.syn && !s.acked && !s.fin }

// judged are the TCP flags that mean something to a flow.
const judged = packet.SYN | packet.ACK | packet.RST | packet.FIN

// MayCreateStateless is MayCreate for a flow without TCP states.
func MayCreateStateless(p *packet.Packet) packet.Drop {
	drop := MayCreate(p, false)
	if drop == packet.DropTCPNoSYN {
		return packet.NotDropped
	}
	return drop
}

// MayCreate says why a packet cannot begin a flow, or NotDropped.
func MayCreate(p *packet.Packet, strict bool) packet.Drop {
	switch p.Proto {
	case packet.ProtoTCP:
		switch p.TCPFlags & judged {
		case packet.SYN:
			return packet.NotDropped
		case packet.ACK, packet.FIN | packet.ACK:
			if strict {
				return packet.DropTCPNoSYN
			}
			return packet.NotDropped
		case packet.SYN | packet.ACK, packet.RST, packet.RST | packet.ACK:
			return packet.DropTCPNoSYN
		}
		return packet.DropTCPFlags
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if _, isRequest := answers(p.Proto)[p.ICMPType]; !isRequest {
			return packet.DropICMPNoFlow
		}
	}
	return packet.NotDropped
}

// answers are the types that answer the requests which can begin a flow.
func answers(proto uint8) map[uint8]uint8 {
	if proto == packet.ProtoICMP {
		return map[uint8]uint8{8: 0, 13: 14}
	}
	return map[uint8]uint8{128: 129}
}

// Begin is the flow that p begins.
func Begin(p *packet.Packet, now time.Duration) *Flow {
	has := func(flag uint8) bool { return p.TCPFlags&flag != 0 }
	f := &Flow{Proto: p.Proto, Established: 4 * time.Minute, kind: p.ICMPType}
	f.sides[Original] = side{spoke: true, syn: has(packet.SYN), mid: !has(packet.SYN), fin: has(packet.FIN)}
	if p.Proto == packet.ProtoTCP {
		f.picked, f.Loose = !has(packet.SYN), p.Fragment.IsFragment()
		f.beginNumbers(p)
	}
	f.credit(Original, p, now)
	return f
}

// State is the flow's class and how long it lives after Seen.
func (f *Flow) State() (protocol, state string, lifetime time.Duration) {
	a, b := f.sides[0], f.sides[1]
	switch f.Proto {
	case packet.ProtoUDP:
		state, lifetime = "one_way", 30*time.Second
		if b.spoke {
			state, lifetime = "two_way", 240*time.Second
		}
		if f.Translated {
			lifetime = f.Established
		}
		return "udp", state, lifetime
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if b.spoke {
			return "icmp", "two_way", 30 * time.Second
		}
		return "icmp", "one_way", 30 * time.Second
	case packet.ProtoTCP:
		switch {
		case f.Stateless && b.spoke:
			return "tcp", "two_way", f.Established
		case f.Stateless:
			return "tcp", "one_way", 30 * time.Second
		case f.reset:
			return "tcp", "reset", 5 * time.Second
		case !b.spoke:
			return "tcp", "syn_sent", 30 * time.Second
		case a.fin && b.fin:
			return "tcp", "time_wait", 10 * time.Second
		case a.fin || b.fin:
			return "tcp", "closing", f.Established
		case a.acked && b.acked:
			return "tcp", "established", f.Established
		}
		return "tcp", "syn_sent", 30 * time.Second
	}
	if b.spoke {
		return "other", "two_way", 240 * time.Second
	}
	return "other", "one_way", 240 * time.Second
}

// Over reports whether the flow has been idle for its timeout.
func (f *Flow) Over(now time.Duration) bool {
	_, _, lifetime := f.State()
	return now-f.Seen >= lifetime
}

// Evictable reports whether a full table may end the flow for another one.
func (f *Flow) Evictable() bool {
	switch _, state, _ := f.State(); state {
	case "one_way", "syn_sent", "reset", "time_wait":
		return true
	}
	return false
}

// Restarts reports whether p asks for a new flow in place of this one, which is over.
func (f *Flow) Restarts(from int, p *packet.Packet) bool {
	switch f.Proto {
	case packet.ProtoTCP:
		bare := p.TCPFlags&judged == packet.SYN
		return bare && !f.Stateless && (f.reset || f.sides[0].fin && f.sides[1].fin || !f.sides[0].opening() && !f.sides[1].spoke)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		_, isRequest := answers(f.Proto)[p.ICMPType]
		return isRequest && (from == Reply || p.ICMPType != f.kind)
	}
	return false
}

// Succeeds reports whether p asks for a new flow while this one lives. The SYN of an attempt may be sent once
// more, and the other side may ask for the same connection.
func (f *Flow) Succeeds(from int, p *packet.Packet) bool {
	if f.Proto != packet.ProtoTCP || p.TCPFlags&judged != packet.SYN || f.Stateless || f.Restarts(from, p) {
		return false
	}
	self, other := f.sides[from], f.sides[1-from]
	if self.opening() || self.acked && !self.fin && other.opening() { // its answer may be lost
		return p.SeqEnd() != self.End && p.Seq+1 != other.Next
	}
	simultaneous := (!self.spoke || self.joined()) && other.opening()
	return !simultaneous
}

// Repeats reports whether a SYN is the one that began the flow, sent once more.
func (f *Flow) Repeats(p *packet.Packet) bool {
	return p.SeqEnd() == f.sides[Original].End || p.Seq+1 == f.sides[Reply].Next
}

// Answered reports whether the side that did not begin the flow has been heard.
func (f *Flow) Answered() bool {
	a, b := f.sides[Original], f.sides[Reply]
	if _, state, _ := f.State(); f.Proto == packet.ProtoTCP && state == "syn_sent" {
		return a.acked && !a.fin
	}
	return b.spoke
}

// Answers reports whether a SYN+ACK acknowledges the SYN that began the flow.
func (f *Flow) Answers(p *packet.Packet) bool {
	syn := &f.sides[Original]
	return before(f.sides[Reply].Next, p.Ack) >= 0 && before(p.Ack, syn.End) >= 0
}

// Pass takes a packet of the flow. One that is dropped changes nothing.
func (f *Flow) Pass(from int, p *packet.Packet, now time.Duration) packet.Drop {
	switch f.Proto {
	case packet.ProtoTCP:
		return f.passTCP(from, p, now)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if from == Original && p.ICMPType != f.kind || from == Reply && p.ICMPType != answers(f.Proto)[f.kind] {
			return packet.DropICMPNoFlow
		}
	}
	f.sides[from].spoke = true
	return f.credit(from, p, now)
}

// credit counts a packet that passes. Pass Seen as now if it does not extend the flow's life.
func (f *Flow) credit(from int, p *packet.Packet, now time.Duration) packet.Drop {
	f.Seen = now
	f.Count(from, p)
	return packet.NotDropped
}

// Count counts a packet that does not move the flow on.
func (f *Flow) Count(from int, p *packet.Packet) {
	f.Packets[from] += uint64(p.Segments)
	f.Bytes[from] += uint64(p.WireLen)
}

func (f *Flow) passTCP(from int, p *packet.Packet, now time.Duration) packet.Drop {
	self, other := &f.sides[from], &f.sides[1-from]
	_, state, _ := f.State()
	if MayCreate(p, false) == packet.DropTCPFlags {
		return packet.DropTCPFlags
	}
	if f.Stateless {
		self.spoke = true
		return f.credit(from, p, now)
	}
	if f.Restarts(from, p) || f.Succeeds(from, p) {
		return packet.DropTCPState
	}
	if f.reset {
		return f.credit(from, p, f.Seen)
	}
	flags := p.TCPFlags & judged
	onlySYN := self.opening() && !other.spoke
	switch {
	case flags&packet.RST != 0 && onlySYN,
		flags == packet.RST && !self.spoke && other.opening(),
		flags == packet.SYN|packet.ACK && !other.spoke:
		return packet.DropTCPState
	case flags&packet.RST != 0 && state == "time_wait":
		return f.credit(from, p, f.Seen)
	}
	fin := flags&packet.FIN != 0 && (f.Loose || f.continues(from, p))
	if !f.fits(from, p) {
		if !self.spoke && other.opening() && flags&(packet.SYN|packet.RST) == 0 {
			self.spoke, self.mid = true, true // an old connection's answer: the opener may reset it
		}
		return f.credit(from, p, f.Seen)
	}
	if p.Fragment.IsFragment() && flags != packet.SYN {
		f.Loose = true
	}
	switch flags {
	case packet.RST, packet.RST | packet.ACK:
		f.reset = true
		return f.credit(from, p, now)
	case packet.SYN:
		if !self.acked {
			self.spoke, self.syn = true, true
		}
		if from == Reply { // nobody knows that the other side asks for it
			return f.credit(from, p, f.Seen)
		}
		return f.credit(from, p, now)
	case packet.SYN | packet.ACK:
		if !self.acked {
			self.spoke, self.syn = true, true
		}
		other.acked = true
		return f.credit(from, p, now)
	}
	f.acknowledge(from)
	self.fin = self.fin || fin
	return f.credit(from, p, now)
}

// acknowledge notes that an ACK acknowledges all that the other side sent. Exception: the first
// segment of a side that owes an answer to a SYN acknowledges nothing.
func (f *Flow) acknowledge(from int) {
	self, other := &f.sides[from], &f.sides[1-from]
	first := !self.spoke
	self.spoke = true
	switch {
	case first && other.opening():
		self.mid = true
	case first:
		self.acked, other.acked = true, true
	case self.joined() && other.opening(), !other.spoke:
	case other.opening():
		other.acked = true
	case other.joined():
		self.acked, other.acked = true, true
	}
}
