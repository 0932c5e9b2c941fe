package conntrack

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// ports knows which ports of a shared address are taken towards a destination, so that a new flow
// finds a free one, or that none is free, without asking the table for each.
//
// While few ports of a destination are taken, a port chosen at random is free, and only the number
// of flows is kept. A destination with more flows has a portMap. All of it follows from the records:
// it changes as flows with Shared begin and end.
type ports struct {
	counts []portCount // by hash of a portKey
	mu     sync.RWMutex
	maps   map[Key]*portMap // by portKey
}

// portCount is of all destinations with one hash. More than one only makes maps come sooner.
type portCount struct {
	flows, maps atomic.Int32
}

const (
	// A destination gets a map when one in mapShare of its ports is taken, and at least leastMapped.
	mapShare    = 16
	leastMapped = 16
	// portTries bounds the ports that are tried without a map, and those that a map calls free and
	// that turn out to be taken.
	portTries = 8
	// wordsRead bounds the words of a map that one packet reads from the table, 64 ports each.
	wordsRead = 2
	// A sender may take a port while it has less than shareOfFree times what is free. So a single one
	// gets four of five ports, two get four of nine each, and some are left for the next.
	shareOfFree = 4
)

func newPortCounts(maxFlows int) []portCount {
	n := 1 << bits.Len(uint(min(max(maxFlows/4, 1024), 1<<20)-1))
	return make([]portCount, n)
}

// portKey is what the reply keys have in common of flows that must not share a port.
func portKey(reply *Key) Key {
	k := *reply
	k.DstPort = 0
	return k
}

func (t *Table) portCount(k *Key) *portCount {
	return &t.ports.counts[t.secrets.hash(k)&uint64(len(t.ports.counts)-1)]
}

// mapOf is the map of a portKey, or nil.
func (x *ports) mapOf(k *Key) *portMap {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.maps[*k]
}

// addMap makes the map of a portKey. It returns nil when there are as many maps as the table's flows
// can fill.
func (x *ports) addMap(k *Key, count *portCount, least int32, limit int64) *portMap {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.maps[*k]
	if m == nil && int64(len(x.maps)) < limit {
		m = &portMap{least: least, senders: map[uint16]int32{}}
		x.maps[*k] = m
		count.maps.Add(1)
	}
	return m
}

func (x *ports) dropMap(k *Key, count *portCount, m *portMap) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.maps[*k] == m {
		delete(x.maps, *k)
		count.maps.Add(-1)
	}
}

// portMap says for each port of an address whether a flow to one destination has it.
type portMap struct {
	least   int32 // with fewer flows the map goes
	mu      sync.Mutex
	chunks  [16]*portChunk
	senders map[uint16]int32 // set bits by the zone of the flow
}

// portChunk is 64 words of 64 ports. A word that is not known has not been read from the table yet.
type portChunk struct {
	taken       [64]uint64
	known, full uint64 // by word
	bits        int32  // set in taken
}

func (m *portMap) chunk(port uint32) *portChunk {
	c := &m.chunks[port>>12]
	if *c == nil {
		*c = &portChunk{}
	}
	return *c
}

// set notes a port as taken by a flow of a zone, or as free, and reports a change; mu is held. Words
// that are not known are left to be read.
func (m *portMap) set(port uint32, zone uint16, taken bool) bool {
	c, word, bit := m.chunk(port), port>>6&63, uint64(1)<<(port&63)
	if c.known>>word&1 == 0 || c.taken[word]&bit != 0 == taken {
		return false
	}
	if c.taken[word] ^= bit; c.taken[word] == ^uint64(0) {
		c.full |= 1 << word
	} else {
		c.full &^= 1 << word
	}
	if taken {
		c.bits++
		m.senders[zone]++
	} else if c.bits--; m.senders[zone] > 1 {
		m.senders[zone]--
	} else {
		delete(m.senders, zone)
	}
	return true
}

// takenOf counts the taken ports from first to last; mu is held. The map may have ports of other ranges too.
func (m *portMap) takenOf(first, last uint32) (n int32) {
	for i, c := range m.chunks {
		low, high := max(first, uint32(i)<<12), min(last, uint32(i)<<12|0xfff)
		switch {
		case c == nil || low > high:
		case high-low == 0xfff:
			n += c.bits
		default:
			for word := low >> 6; word <= high>>6; word++ {
				ports := c.taken[word&63]
				if word == low>>6 {
					ports &= ^uint64(0) << (low & 63)
				}
				if word == high>>6 {
					ports &= ^uint64(0) >> (63 - high&63)
				}
				n += int32(bits.OnesCount64(ports))
			}
		}
	}
	return n
}

// portChanges takes a record's port into account, before the record can be found (by 1), or gives it
// back, once the record cannot be found any more (by -1). It reports that a map has changed.
func (t *Table) portChanges(f Flow, by int32) (changed bool) {
	if t.records[f].marks&Shared == 0 {
		return false
	}
	_, reply := t.keys(f)
	k := portKey(&reply)
	count := t.portCount(&k)
	flows := count.flows.Add(by)
	if count.maps.Load() == 0 {
		return false
	}
	m := t.ports.mapOf(&k)
	if m == nil {
		return false
	}
	m.mu.Lock()
	changed = m.set(uint32(reply.DstPort), t.records[f].zone, by > 0)
	m.mu.Unlock()
	if by < 0 && flows < m.least {
		t.ports.dropMap(&k, count, m)
	}
	return changed
}

// FreePort finds a port for which no live flow has the reply key k: the first free one from k.DstPort
// on, among first to last, and leaves it in k. sender is the zone that asks. With contended, other
// senders want ports of the address too, and each gets a share. It is false when no port is left, and
// costs the same then. Insert may still find the port taken by another worker.
func (w *Worker) FreePort(k *Key, first, last, sender uint16, contended bool, now Tick) bool {
	t := w.table
	key := portKey(k)
	count := t.portCount(&key)
	n := int32(last) - int32(first) + 1
	least := max(leastMapped, n/mapShare)
	m := (*portMap)(nil)
	if count.maps.Load() > 0 {
		m = t.ports.mapOf(&key)
	}
	if m == nil {
		if count.flows.Load() < least && w.tryPorts(k, first, uint32(n), now) {
			return true
		}
		if m = t.ports.addMap(&key, count, least/4, t.max/leastMapped+1); m == nil {
			return false
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := portSearch{w: w, m: m, k: k, now: now}
	start := uint32(k.DstPort)
	s.knows(start)
	if contended && m.senders[sender] >= shareOfFree*(n-m.takenOf(uint32(first), uint32(last))) {
		return false
	}
	if _, _, taken := s.ask(start); !taken { // perhaps its flow is over and not gone yet
		return true
	}
	return s.between(start, uint32(last)) || start > uint32(first) && s.between(uint32(first), start-1)
}

// tryPorts tries k's port, then others at random.
func (w *Worker) tryPorts(k *Key, first uint16, n uint32, now Tick) bool {
	for range portTries {
		if _, _, taken := w.Lookup(k, now); !taken {
			return true
		}
		k.DstPort = first + uint16(w.pick(n))
	}
	return false
}

// portSearch is a search for a free port; the map's mu is held.
type portSearch struct {
	w           *Worker
	m           *portMap
	k           *Key
	now         Tick
	read, tried int
}

// between finds the first free port of those from first to last.
func (s *portSearch) between(first, last uint32) bool {
	for port := first; port <= last; {
		c, word := s.m.chunk(port), port>>6&63
		if left := ^c.full >> word; left&1 == 0 { // on to the next word that is not full
			port = port&^63 + 64*uint32(min(bits.TrailingZeros64(left), int(64-word)))
			continue
		}
		if !s.knows(port) { // a later search will
			port = port&^63 + 64
			continue
		}
		free := ^c.taken[word] >> (port & 63)
		if free == 0 {
			port = port&^63 + 64
			continue
		}
		if port += uint32(bits.TrailingZeros64(free)); port > last {
			return false
		}
		f, d, taken := s.ask(port)
		if !taken {
			return true
		}
		if s.tried++; s.tried == portTries {
			return false
		}
		s.note(port, f, d)
		port++
	}
	return false
}

// ask looks for the flow that has a port.
func (s *portSearch) ask(port uint32) (Flow, Direction, bool) {
	s.k.DstPort = uint16(port)
	return s.w.Lookup(s.k, s.now)
}

func (s *portSearch) note(port uint32, f Flow, d Direction) {
	if r := &s.w.table.records[f]; d == Reply && r.marks&Shared != 0 {
		s.m.set(port, r.zone, true)
	}
}

// knows reads from the table which ports of a port's word are taken, if that is not known and wordsRead
// allows it.
func (s *portSearch) knows(port uint32) bool {
	c, word := s.m.chunk(port), port>>6&63
	if c.known>>word&1 != 0 {
		return true
	}
	if s.read == wordsRead {
		return false
	}
	s.read++
	c.known |= 1 << word
	for i := range uint32(64) {
		if f, d, taken := s.ask(port&^63 + i); taken {
			s.note(port&^63+i, f, d)
		}
	}
	return true
}
