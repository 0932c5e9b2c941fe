package fragment

import (
	"sync"
	"sync/atomic"
)

// frameLen is the longest frame that can wait: the largest IP packet with a virtio-net header,
// less nine bytes.
const frameLen = 64 << 10

// maxHeld bounds how many fragments of one datagram wait, and so what its first one costs. A
// datagram of 64 KB has fewer at the usual MTU.
const maxHeld = 64

// held lists frames that wait for the first fragment of their datagram, in the order in which
// they came. It holds numbers of slots, from 1; 0 is none.
type held struct{ first, last, n uint16 }

// release empties the list and returns it for Table.Next.
func (h *held) release(zone uint16) Held {
	list := Held{next: h.first, zone: zone}
	*h = held{}
	return list
}

// holds is the memory of all frames that wait.
type holds struct {
	slots   []slot
	drops   atomic.Uint64  // frames that waited in vain
	used    []atomic.Int64 // number of used slots, by zone
	zoneMax int64

	mu   sync.Mutex
	free uint16 // first of the free slots, linked by next; guarded by mu
}

type slot struct {
	next   uint16 // guarded by mu in the free list, by the bucket's lock in held
	length int
	bytes  []byte
}

func (h *holds) init(n, zones int) {
	memory := make([]byte, n*frameLen)
	h.slots = make([]slot, n)
	for i := range h.slots {
		h.slots[i] = slot{next: h.free, bytes: memory[i*frameLen : (i+1)*frameLen]}
		h.free = uint16(i + 1)
	}
	h.used, h.zoneMax = make([]atomic.Int64, zones), int64(n)
	if zones > 1 {
		h.zoneMax = int64(n+1) / 2
	}
}

func (h *holds) full(zone uint16) bool { return h.used[zone].Load() >= h.zoneMax }

func (h *holds) slot(number uint16) *slot { return &h.slots[number-1] }

// keep appends a copy of frame to a list of the zone, if there is room.
func (h *holds) keep(list *held, frame []byte, zone uint16) bool {
	if len(frame) > frameLen || list.n >= maxHeld {
		return false
	}
	number := h.take(zone)
	if number == 0 {
		return false
	}
	s := h.slot(number)
	s.length, s.next = copy(s.bytes, frame), 0
	if list.n == 0 {
		list.first = number
	} else {
		h.slot(list.last).next = number
	}
	list.last = number
	list.n++
	return true
}

// take takes a free slot for a zone. It returns 0 when the zone has its share or no slot is left.
func (h *holds) take(zone uint16) uint16 {
	if h.used[zone].Add(1) > h.zoneMax {
		h.used[zone].Add(-1)
		return 0
	}
	number := h.pop()
	if number == 0 {
		h.used[zone].Add(-1)
	}
	return number
}

// pop takes a free slot off the list; 0: there is none.
func (h *holds) pop() uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := h.free
	if number != 0 {
		h.free = h.slot(number).next
	}
	return number
}

// push gives a slot back.
func (h *holds) push(number uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slot(number).next, h.free = h.free, number
}

// drop frees a list after the first fragment did not come.
func (h *holds) drop(list *held, zone uint16) {
	for waiting := list.release(zone); ; {
		if _, ok := h.next(&waiting); !ok {
			return
		}
		h.drops.Add(1)
	}
}

// next takes the next frame off a released list. It is valid until done.
func (h *holds) next(list *Held) (*slot, bool) {
	h.done(list)
	if list.next == 0 {
		return nil, false
	}
	list.current = list.next
	s := h.slot(list.current)
	list.next = s.next
	return s, true
}

// done frees the slot of the frame that next returned last, if any.
func (h *holds) done(list *Held) {
	if list.current == 0 {
		return
	}
	h.used[list.zone].Add(-1)
	h.push(list.current)
	list.current = 0
}

// Held lists fragments that came before the first one of their datagram. The zero value is empty.
type Held struct{ current, next, zone uint16 }

// Next returns the next frame of a list, in the order in which the frames came, or nil. Call it
// until it returns nil. A frame is valid until the next call.
func (t *Table) Next(list *Held) []byte {
	s, ok := t.holds.next(list)
	if !ok {
		return nil
	}
	return s.bytes[:s.length]
}

// Held is the number of fragments that wait.
func (t *Table) Held() (n int64) {
	for i := range t.holds.used {
		n += t.holds.used[i].Load()
	}
	return n
}

// WaitedInVain is the number of fragments that waited and were dropped because the first fragment
// did not come.
func (t *Table) WaitedInVain() uint64 { return t.holds.drops.Load() }
