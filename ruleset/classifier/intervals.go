package classifier

import (
	"math/bits"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// intervals maps every number of a field to a class: each interval reaches from
// its start to the next one's. The first starts at 0, so a search never misses.
type intervals []interval

type interval struct{ start, class uint32 }

// narrow makes intervals of the borders of ports or IPv4 addresses.
func narrow(borders []border) intervals {
	out := make(intervals, len(borders))
	for i, b := range borders {
		out[i] = interval{start: uint32(b.start.Lo), class: b.class}
	}
	return out
}

// class is a binary search without a branch that depends on the data: packets
// come in no order that a branch predictor could learn.
func (v intervals) class(x uint32) uint32 {
	low := 0
	for n := len(v); n > 1; {
		half := n / 2
		// All ones unless the subtraction borrows, which it does when x is below.
		up := int((uint64(x)-uint64(v[low+half].start))>>63) - 1
		low += half & up
		n -= half
	}
	return v[low].class
}

func (v intervals) bytes() int { return cap(v) * int(unsafe.Sizeof(interval{})) }

// wideIntervals is intervals for IPv6 addresses.
type wideIntervals []border

// wide makes wideIntervals of the borders of IPv6 addresses.
func wide(borders []border) wideIntervals {
	return append(make(wideIntervals, 0, len(borders)), borders...)
}

func (v wideIntervals) class(a packet.Addr) uint32 {
	low := 0
	for n := len(v); n > 1; {
		half := n / 2
		start := &v[low+half].start
		_, borrow := bits.Sub64(a.Lo, start.Lo, 0)
		_, borrow = bits.Sub64(a.Hi, start.Hi, borrow)
		low += half & (int(borrow) - 1)
		n -= half
	}
	return v[low].class
}

func (v wideIntervals) bytes() int { return cap(v) * int(unsafe.Sizeof(border{})) }
