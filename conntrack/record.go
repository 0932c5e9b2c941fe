package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// record is a flow: two cache lines, no pointer. The fields without atomics are
// written before the record is published in the index and stay until every
// worker has passed a quiescent point after its end, so they are read plainly.
//
// The first line is what a lookup reads and is seldom written; the second holds
// the counters that every packet writes.
type record struct {
	src, dst         packet.Addr
	srcPort, dstPort uint16
	zone             uint16 // where packets of the original direction come in
	proto            uint8
	icmpType         uint8 // of the request that began the flow; ICMP only

	lastSeen    atomic.Uint32 // Tick
	state       atomic.Uint32 // word
	established atomic.Uint32 // ticks; see Init.Established
	replyZone   uint16        // where packets of the reply direction come in
	marks       Marks         // with any, translations has more of the flow
	_           uint8
	generation  atomic.Uint32
	_           uint32

	packets [2]atomic.Uint64 // by Direction
	bytes   [2]atomic.Uint64
	slots   [2]atomic.Uint64 // Slots
	links   [2]atomic.Uint32 // ref of the next entry in the chain of each key
	next    atomic.Uint32    // number+1 of the next record in limbo or free list
	created Tick
}

// tuple is that of the packets in the original direction.
func (r *record) tuple() packet.Tuple {
	return packet.Tuple{Src: r.src, Dst: r.dst, SrcPort: r.srcPort, DstPort: r.dstPort, Proto: r.proto}
}

// matches reports whether k is the record's key of direction d, of a flow that is not translated.
func (r *record) matches(k *Key, d Direction) bool {
	if d == Original {
		return r.src == k.Src && r.dst == k.Dst && r.srcPort == k.SrcPort && r.dstPort == k.DstPort &&
			r.zone == k.Zone && r.proto == k.Proto
	}
	return r.src == k.Dst && r.dst == k.Src && r.srcPort == k.DstPort && r.dstPort == k.SrcPort &&
		r.replyZone == k.Zone && r.proto == k.Proto
}

// touches reports whether an end of the flow is in the zone.
func (r *record) touches(zone uint16) bool { return r.zone == zone || r.replyZone == zone }

// see moves last-seen on. It writes only when the tick changed, to leave the line
// to the other workers, and never backwards.
func (r *record) see(now Tick) {
	if last := Tick(r.lastSeen.Load()); now.since(last) > 0 {
		r.lastSeen.CompareAndSwap(uint32(last), uint32(now))
	}
}

func (r *record) setSlots(s *Slots) {
	r.slots[0].Store(s.first)
	r.slots[1].Store(s.second)
}

// loadSlots may meet the rules of two judgements while another worker replaces them.
func (r *record) loadSlots() Slots { return Slots{r.slots[0].Load(), r.slots[1].Load()} }

func (r *record) count(d Direction, p *packet.Packet) {
	r.packets[d].Add(uint64(p.Segments))
	r.bytes[d].Add(uint64(p.WireLen))
}

// expiresIn is the number of ticks that the flow has left when it is in state s; 0: it is over.
func (t *Table) expiresIn(r *record, s word, now Tick) uint32 {
	class := s.class()
	lifetime := t.lifetimes[class]
	if class == ClassTCPEstablished || class == ClassTCPTwoWay ||
		r.marks&Translated != 0 && (class == ClassUDPOneWay || class == ClassUDPTwoWay) {
		lifetime = r.established.Load()
	}
	idle := now.since(Tick(r.lastSeen.Load()))
	return lifetime - min(lifetime, idle)
}

// word is everything about a flow that changes together, in one atomic: whether it
// lives, its class, and for TCP what each side did.
//
//	bits 0-2 original peer, 3-5 reply peer, 6 reset, 8-11 class, 12 live
type word uint32

const (
	wordReset = 1 << 6
	wordLive  = 1 << 12
)

func (s word) live() bool   { return s&wordLive != 0 }
func (s word) class() Class { return Class(s >> 8 & 0xf) }

func liveWord(c Class) word { return wordLive | word(c)<<8 }

func tcpWord(s tcpState) word {
	w := liveWord(s.class()) | word(s.peers[Original]) | word(s.peers[Reply])<<3
	if s.reset {
		w |= wordReset
	}
	return w
}

func (s word) tcp() tcpState {
	return tcpState{peers: [2]peer{peer(s & 7), peer(s >> 3 & 7)}, reset: s&wordReset != 0}
}
