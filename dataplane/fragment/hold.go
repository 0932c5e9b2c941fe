package fragment

import (
	"sync"
	"sync/atomic"
)

// frameLen is the longest frame that can wait: the largest IP packet and a virtio-net
// header.
const frameLen = 64 << 10

// held is a list of frames that wait for the first fragment of their datagram, in the
// order in which they came. Numbers are of slots, from 1; 0 is none.
type held struct{ first, last, n uint16 }

// release takes the list away.
func (h *held) release() Held {
	list := Held{next: h.first}
	*h = held{}
	return list
}

// holds are the buffers of all frames that wait.
type holds struct {
	slots []slot
	drops atomic.Uint64 // frames that waited in vain
	used  atomic.Int64

	mu   sync.Mutex
	free uint16 // first of the free slots, linked by next; guarded by mu
}

type slot struct {
	next   uint16 // guarded by mu in the free list, by the bucket's lock in held
	length int
	bytes  []byte
}

func (h *holds) init(n int) {
	memory := make([]byte, n*frameLen)
	h.slots = make([]slot, n)
	for i := range h.slots {
		h.slots[i] = slot{next: h.free, bytes: memory[i*frameLen : (i+1)*frameLen]}
		h.free = uint16(i + 1)
	}
}

func (h *holds) full() bool { return h.used.Load() >= int64(len(h.slots)) }

func (h *holds) slot(number uint16) *slot { return &h.slots[number-1] }

// keep puts a copy of frame at the end of a list, if there is room.
func (h *holds) keep(list *held, frame []byte) bool {
	if len(frame) > frameLen {
		return false
	}
	h.mu.Lock()
	number := h.free
	if number != 0 {
		h.free = h.slot(number).next
	}
	h.mu.Unlock()
	if number == 0 {
		return false
	}
	h.used.Add(1)
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

// drop gives up a list whose first fragment never came.
func (h *holds) drop(list *held) {
	if list.n == 0 {
		return
	}
	for waiting := list.release(); ; {
		if _, ok := h.next(&waiting); !ok {
			return
		}
		h.drops.Add(1)
	}
}

// next takes the next frame off a released list; the frame is valid until done.
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

// done frees the slot of the frame that next returned last.
func (h *holds) done(list *Held) {
	if list.current == 0 {
		return
	}
	h.used.Add(-1)
	h.mu.Lock()
	h.slot(list.current).next, h.free = h.free, list.current
	h.mu.Unlock()
	list.current = 0
}

// Held are fragments that came before the first one of their datagram. The zero value
// is none.
type Held struct{ current, next uint16 }

// Next returns the frames of a list one after the other, in the order in which they
// came. A frame may be used until the next call, which must be made until it returns nil.
func (t *Table) Next(list *Held) []byte {
	s, ok := t.holds.next(list)
	if !ok {
		return nil
	}
	return s.bytes[:s.length]
}

// Held is the number of fragments that wait.
func (t *Table) Held() int64 { return t.holds.used.Load() }

// WaitedInVain is the number of fragments that waited and were given up; each was
// dropped for want of a first fragment.
func (t *Table) WaitedInVain() uint64 { return t.holds.drops.Load() }
