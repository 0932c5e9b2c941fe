package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// record is a flow: two cache lines, no pointer. Fields without atomics are written before the
// record is published in the index. They stay until every worker has passed a quiescent point
// after the flow's end, so plain reads are safe.
//
// A lookup reads the first line, which is seldom written. The second holds the counters that
// every packet writes.
type record struct {
	src, dst         packet.Addr
	srcPort, dstPort uint16
	zone             uint16 // where packets of the original direction come in
	proto            uint8
	icmpType         uint8 // the type of the request that began the flow; ICMP only

	lastSeen    atomic.Uint32 // Tick
	status      atomic.Uint32 // status
	established atomic.Uint32 // ticks; see Init.Established
	replyZone   uint16        // where packets of the reply direction come in
	marks       Marks         // if any, translations holds more about the flow
	_           uint8
	generation  atomic.Uint32
	successor   atomic.Uint32 // number+1 of the record that waits to take this one's place, see Insert; 0: none

	tallies [2]tally         // by Direction
	slots   [2]atomic.Uint64 // Slots
	links   [2]atomic.Uint32 // ref of the next entry in the chain of each key; of a flow that waits, the first is the number of the other
	next    atomic.Uint32    // number+1 of the next record in limbo or free list
	created Tick
}

// tuple is the one of packets in the original direction.
func (r *record) tuple() packet.Tuple {
	return packet.Tuple{Src: r.src, Dst: r.dst, SrcPort: r.srcPort, DstPort: r.dstPort, Proto: r.proto}
}

// matches reports whether k is the key of direction d. The flow must not be translated.
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

// see moves last-seen on, never backwards. It writes only when the tick changed: other
// workers read the same cache line.
func (r *record) see(now Tick) {
	if last := Tick(r.lastSeen.Load()); now.since(last) > 0 {
		r.lastSeen.CompareAndSwap(uint32(last), uint32(now))
	}
}

func (r *record) setSlots(s *Slots) {
	r.slots[0].Store(s.first)
	r.slots[1].Store(s.second)
}

// loadSlots may return a mix of two judgements while another worker replaces them.
func (r *record) loadSlots() Slots { return Slots{r.slots[0].Load(), r.slots[1].Load()} }

// count adds a packet. d&1 needs no check of the index.
func (r *record) count(d Direction, p *packet.Packet) { r.tallies[d&1].add(p.Segments, p.WireLen) }

// counted is the sum of both directions.
func (r *record) counted() (packets, bytes uint64) {
	for d := range r.tallies {
		p, b := r.tallies[d].sum()
		packets, bytes = packets+p, bytes+b
	}
	return packets, bytes
}

// lifetime is how many ticks a flow of status s lives after its last packet.
func (t *Table) lifetime(r *record, s status) uint32 {
	class := s.class()
	lifetime := t.lifetimes[class]
	if lifetime == ofTheFlow || r.marks&Translated != 0 && (class == ClassUDPOneWay || class == ClassUDPTwoWay) {
		return r.established.Load()
	}
	return lifetime
}

// expiresIn is the number of ticks that a flow of status s has left; 0: it is over.
func (t *Table) expiresIn(r *record, s status, now Tick) uint32 {
	lifetime := t.lifetime(r, s)
	idle := now.since(Tick(r.lastSeen.Load()))
	return lifetime - min(lifetime, idle)
}

// status is all of a flow that changes together, in one atomic: whether it lives, its class,
// and for TCP what each side did.
//
// Scales are the window scales that each side has offered plus one; 0: it has offered none.
//
//	bits 0-2 original peer, 3-5 reply peer, 6 reset, 8-11 class, 12 live, 13 picked up in mid-stream,
//	14 windows are not looked at, 15 waits for an answer, 16-19 original scale, 20-23 reply scale
type status uint32

const (
	// statusClasses is how many classes a status can hold. A list this long needs no check of its index.
	statusClasses = 1 << 4

	statusReset = 1 << 6
	statusLive  = 1 << 12

	statusPicked = 1 << 13
	statusLoose  = 1 << 14
	statusWaits  = 1 << 15
	// statusKept is what a segment does not change but for the windows.
	statusKept = statusPicked | statusLoose | statusWaits | 0xff<<16
)

func (s status) live() bool   { return s&statusLive != 0 }
func (s status) class() Class { return Class(s >> 8 & (statusClasses - 1)) }

func liveStatus(c Class) status { return statusLive | status(c)<<8 }

func tcpStatus(s tcpState) status {
	w := liveStatus(s.class()) | status(s.peers[Original]) | status(s.peers[Reply])<<3
	if s.reset {
		w |= statusReset
	}
	return w
}

// scale is the shift of the windows that a side offers: both must have offered one.
func (s status) scale(d Direction) uint32 {
	if s>>16&0xf == 0 || s>>20&0xf == 0 {
		return 0
	}
	return uint32(s>>(16+4*d)&0xf) - 1
}

// withScale is s with the scale that a side's SYN offers.
func (s status) withScale(d Direction, p *packet.Packet) status {
	shift := 16 + 4*d
	return s&^(0xf<<shift) | status(p.WindowScale)<<shift
}

func (s status) tcp() tcpState {
	return tcpState{peers: [2]peer{peer(s & 7), peer(s >> 3 & 7)}, reset: s&statusReset != 0}
}
