package classifier

import (
	"math/bits"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// run is how many intervals the values of one slot may lie in. They stand side
// by side and are compared at once, without a branch that depends on the data:
// packets come in no order that a branch predictor could learn.
const run = 4

// inner marks a slot that holds the number of a node; any other holds the number
// of the first of its run of intervals.
const inner = 1 << 31

// node divides the values from the first to the last of some borders into slots
// of 2^shift values each. Values below go to the first slot, values above to the
// last one.
type node[V any] struct {
	first V
	base  uint32 // the first slot's number
	last  uint32 // the last slot's number, less base
	shift uint8
}

// intervals maps every number of a field to a class: each interval reaches from
// its start to the next one's. The first starts at 0, so a search never misses.
type intervals struct {
	root  node[uint32]
	nodes []node[uint32]
	slots []uint32
	list  []interval // in ascending order; the last one is repeated until a run fits
}

type interval struct{ start, class uint32 }

// narrow makes intervals of the borders of ports or IPv4 addresses.
func narrow(borders []border) intervals {
	d := divide(borders)
	v := intervals{slots: d.slots, list: make([]interval, 0, len(borders)+run-1), nodes: make([]node[uint32], 0, len(d.nodes)-1)}
	for _, b := range borders {
		v.list = append(v.list, interval{start: uint32(b.start.Lo), class: b.class})
	}
	for range run - 1 {
		v.list = append(v.list, interval{start: 1<<32 - 1, class: borders[len(borders)-1].class})
	}
	for i, n := range d.nodes {
		m := node[uint32]{first: uint32(n.first.Lo), base: n.base, last: n.last, shift: n.shift}
		if i == 0 {
			v.root = m
		} else {
			v.nodes = append(v.nodes, m)
		}
	}
	return v
}

func (v *intervals) class(x uint32) uint32 {
	n := &v.root
	for {
		slot := min((max(x, n.first)-n.first)>>(n.shift&31), n.last)
		at := v.slots[n.base+slot]
		if at&inner == 0 {
			r := (*[run]interval)(v.list[at:])
			return r[run-1-below(x, r[1].start)-below(x, r[2].start)-below(x, r[3].start)].class
		}
		n = &v.nodes[at&^inner]
	}
}

// below is 1 when x is below y, or 0.
func below(x, y uint32) uint64 { return (uint64(x) - uint64(y)) >> 63 }

func (v *intervals) bytes() int {
	return cap(v.nodes)*int(unsafe.Sizeof(v.root)) + 4*cap(v.slots) + cap(v.list)*int(unsafe.Sizeof(interval{}))
}

// wideIntervals is intervals for IPv6 addresses.
type wideIntervals struct {
	root    node[value]
	nodes   []node[value]
	slots   []uint32
	starts  []value // as intervals.list
	classes []uint32
}

// wide makes wideIntervals of the borders of IPv6 addresses.
func wide(borders []border) wideIntervals {
	d := divide(borders)
	v := wideIntervals{
		root: d.nodes[0], nodes: append([]node[value](nil), d.nodes[1:]...), slots: d.slots,
		starts: make([]value, 0, len(borders)+run-1), classes: make([]uint32, 0, len(borders)+run-1),
	}
	for _, b := range borders {
		v.starts, v.classes = append(v.starts, b.start), append(v.classes, b.class)
	}
	for range run - 1 {
		v.starts, v.classes = append(v.starts, ipv6Last), append(v.classes, borders[len(borders)-1].class)
	}
	return v
}

func (v *wideIntervals) class(a packet.Addr) uint32 {
	n := &v.root
	for {
		slot := n.last
		if d := distance(n.first, a); d.Less(shifted(uint64(n.last), n.shift)) {
			slot = uint32(shiftedDown(d, n.shift))
		}
		at := v.slots[n.base+slot]
		if at&inner == 0 {
			r := (*[run]value)(v.starts[at:])
			return v.classes[at+run-1-wideBelow(a, &r[1])-wideBelow(a, &r[2])-wideBelow(a, &r[3])]
		}
		n = &v.nodes[at&^inner]
	}
}

// distance is a-from, or 0 when a is below from.
func distance(from, a value) value {
	lo, borrow := bits.Sub64(a.Lo, from.Lo, 0)
	hi, borrow := bits.Sub64(a.Hi, from.Hi, borrow)
	return value{Hi: hi &^ -borrow, Lo: lo &^ -borrow}
}

// shiftedDown is the low 64 bits of a >> n.
func shiftedDown(a value, n uint8) uint64 {
	s := uint(n)
	return a.Hi>>(s-64) | a.Hi<<(64-s) | a.Lo>>s
}

// shifted is a << n.
func shifted(a uint64, n uint8) value {
	s := uint(n)
	return value{Hi: a<<(s-64) | a>>(64-s), Lo: a << s}
}

// wideBelow is 1 when a is below b, or 0.
func wideBelow(a value, b *value) uint32 {
	_, borrow := bits.Sub64(a.Lo, b.Lo, 0)
	_, borrow = bits.Sub64(a.Hi, b.Hi, borrow)
	return uint32(borrow)
}

func (v *wideIntervals) bytes() int {
	return cap(v.nodes)*int(unsafe.Sizeof(v.root)) + 4*cap(v.slots) + 16*cap(v.starts) + 4*cap(v.classes)
}

// divider builds the nodes over borders; the first node is the root.
type divider struct {
	borders []border
	nodes   []node[value]
	slots   []uint32
}

func divide(borders []border) divider {
	d := divider{borders: borders}
	if len(borders) == 1 {
		return divider{nodes: make([]node[value], 1), slots: make([]uint32, 1)}
	}
	// The first border starts where the values do. Values below the second
	// border are in its slot too.
	d.add(1, len(borders))
	d.slots = append([]uint32(nil), d.slots...)
	return d
}

// add makes a node over the borders from i to j, and the nodes below it.
func (d *divider) add(i, j int) uint32 {
	first := d.borders[i].start
	span := distance(first, d.borders[j-1].start)
	// About as many slots as borders, at least two of them used.
	shift := uint8(max(0, length(span)-max(1, bits.Len(uint(j-i)))))
	last := uint32(shiftedDown(span, shift))
	number, base := uint32(len(d.nodes)), uint32(len(d.slots))
	d.nodes = append(d.nodes, node[value]{first: first, base: base, last: last, shift: shift})
	d.slots = append(d.slots, make([]uint32, last+1)...)
	for slot := range last + 1 {
		at := i
		for i < j && uint32(shiftedDown(distance(first, d.borders[i].start), shift)) == slot {
			i++
		}
		// The slot's values lie in the intervals that start in it and in the one before.
		if i-at < run {
			d.slots[base+slot] = uint32(at - 1)
		} else {
			d.slots[base+slot] = inner | (d.add(at, i) - 1)
		}
	}
	return number
}

// length is the number of bits of a.
func length(a value) int {
	if a.Hi != 0 {
		return 64 + bits.Len64(a.Hi)
	}
	return bits.Len64(a.Lo)
}
