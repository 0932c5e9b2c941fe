package classifier

import (
	"math/bits"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// run is how many intervals a slot may cover without getting a node of its own. They are
// stored side by side and compared at once, without a branch that depends on the data: a
// branch predictor cannot learn the order of packets.
const run = 4

// A slot holds one of three: a class, ofRun plus the number of the first interval of a run,
// or ofNode plus the number of a node.
const (
	ofRun  = 1 << 30
	ofNode = 1 << 31
)

// node divides the values from the first to the last of some borders into slots of 2^shift
// values each. Lower values go to the first slot, higher values to the last one.
type node[V any] struct {
	first V
	base  uint32 // the number of the first slot
	last  uint32 // the number of the last slot, minus base
	shift uint8
}

// intervals maps every value of a field to a class. An interval reaches from its start to
// the start of the next. The first starts at 0, so a search always finds one.
type intervals struct {
	root  node[uint32]
	nodes []node[uint32]
	slots []uint32
	// sorted are the intervals in ascending order, with the last one repeated so that the
	// last run is whole. Empty when no slot leads to a run.
	sorted []interval
}

type interval struct{ start, class uint32 }

// newIntervals makes intervals out of the borders of ports or IPv4 addresses.
func newIntervals(borders []border) intervals {
	d := divide(borders)
	v := intervals{root: narrowNode(d.nodes[0]), nodes: make([]node[uint32], 0, len(d.nodes)-1), slots: d.slots}
	for _, n := range d.nodes[1:] {
		v.nodes = append(v.nodes, narrowNode(n))
	}
	if d.runs {
		v.sorted = make([]interval, 0, len(borders)+run-1)
		for _, b := range borders {
			v.sorted = append(v.sorted, interval{start: uint32(b.start.Lo), class: b.class})
		}
		for range run - 1 {
			v.sorted = append(v.sorted, interval{start: 1<<32 - 1, class: borders[len(borders)-1].class})
		}
	}
	return v
}

func narrowNode(n node[value]) node[uint32] {
	return node[uint32]{first: uint32(n.first.Lo), base: n.base, last: n.last, shift: n.shift}
}

func (v *intervals) class(x uint32) uint32 {
	n := &v.root
	for {
		slot := min((max(x, n.first)-n.first)>>(n.shift&31), n.last)
		at := v.slots[n.base+slot]
		if at < ofRun {
			return at
		}
		if at < ofNode {
			r := (*[run]interval)(v.sorted[at-ofRun:])
			return r[run-1-below(x, r[1].start)-below(x, r[2].start)-below(x, r[3].start)].class
		}
		n = &v.nodes[at-ofNode]
	}
}

// below is 1 when x is below y, or 0.
func below(x, y uint32) uint64 { return (uint64(x) - uint64(y)) >> 63 }

func (v *intervals) bytes() int {
	return cap(v.nodes)*int(unsafe.Sizeof(v.root)) + 4*cap(v.slots) + cap(v.sorted)*int(unsafe.Sizeof(interval{}))
}

// wideIntervals is intervals for IPv6 addresses.
type wideIntervals struct {
	root    node[value]
	nodes   []node[value]
	slots   []uint32
	starts  []value // like intervals.sorted
	classes []uint32
}

// newWideIntervals makes wideIntervals out of the borders of IPv6 addresses.
func newWideIntervals(borders []border) wideIntervals {
	d := divide(borders)
	v := wideIntervals{
		root: d.nodes[0], nodes: append([]node[value](nil), d.nodes[1:]...), slots: d.slots,
	}
	if !d.runs {
		return v
	}
	v.starts, v.classes = make([]value, 0, len(borders)+run-1), make([]uint32, 0, len(borders)+run-1)
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
		slot := uint32(min(wideShift(distance(n.first, a), n.shift), uint64(n.last)))
		at := v.slots[n.base+slot]
		if at < ofRun {
			return at
		}
		if at < ofNode {
			at -= ofRun
			r := (*[run]value)(v.starts[at:])
			return v.classes[at+run-1-wideBelow(a, &r[1])-wideBelow(a, &r[2])-wideBelow(a, &r[3])]
		}
		n = &v.nodes[at-ofNode]
	}
}

// distance is a-from, or 0 when a is below from.
func distance(from, a value) value {
	lo, borrow := bits.Sub64(a.Lo, from.Lo, 0)
	hi, borrow := bits.Sub64(a.Hi, from.Hi, borrow)
	return value{Hi: hi &^ -borrow, Lo: lo &^ -borrow}
}

// wideShift is a >> n, or the highest number if that does not fit in 64 bits.
func wideShift(a value, n uint8) uint64 {
	s := uint(n)
	if a.Hi>>s != 0 {
		return 1<<64 - 1
	}
	return a.Hi>>(s-64) | a.Hi<<(64-s) | a.Lo>>s
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

// divider builds the nodes over borders. The first node is the root.
type divider struct {
	borders []border
	nodes   []node[value]
	slots   []uint32
	runs    bool // a slot leads to a run
}

func divide(borders []border) divider {
	d := divider{borders: borders}
	if len(borders) == 1 {
		return divider{nodes: make([]node[value], 1), slots: []uint32{borders[0].class}}
	}
	d.add(1, len(borders))
	d.slots = append([]uint32(nil), d.slots...)
	return d
}

// add makes a node over the borders from i to j, and the nodes below it. No value that
// reaches the node is below border i-1 or above border j.
func (d *divider) add(i, j int) uint32 {
	first := d.borders[i].start
	span := distance(first, d.borders[j-1].start)
	// One to four slots for each border; at least the first and the last are used.
	shift := uint8(max(0, length(span)-bits.Len(uint(j-i))-1))
	if shift == 0 {
		// A slot for each value, and one for all below the first border: there are no runs.
		first = predecessor(first)
		span, _ = span.Next()
	}
	last := uint32(wideShift(span, shift))
	number, base := uint32(len(d.nodes)), uint32(len(d.slots))
	d.nodes = append(d.nodes, node[value]{first: first, base: base, last: last, shift: shift})
	d.slots = append(d.slots, make([]uint32, last+1)...)
	for slot := range last + 1 {
		at := i
		for i < j && uint32(wideShift(distance(first, d.borders[i].start), shift)) == slot {
			i++
		}
		// The slot's values are in the intervals that start in it and, unless one starts
		// exactly with the slot, in the interval before. The first slot also has the
		// values below first.
		low := at - 1
		if i > at && slot > 0 && aligned(distance(first, d.borders[at].start), shift) {
			low = at
		}
		switch {
		case i-low == 1:
			d.slots[base+slot] = d.borders[low].class
		case i-low <= run:
			d.slots[base+slot] = ofRun + uint32(low)
			d.runs = true
		default:
			node := d.add(low+1, i) // appends to d.slots
			d.slots[base+slot] = ofNode + node - 1
		}
	}
	return number
}

// predecessor is the value before a, which is not 0.
func predecessor(a value) value {
	lo, borrow := bits.Sub64(a.Lo, 1, 0)
	return value{Hi: a.Hi - borrow, Lo: lo}
}

// aligned reports whether the low n bits of a are zero.
func aligned(a value, n uint8) bool {
	if n < 64 {
		return a.Lo&(1<<n-1) == 0
	}
	return a.Lo == 0 && a.Hi&(1<<(n-64)-1) == 0
}

// length is the number of bits of a.
func length(a value) int {
	if a.Hi != 0 {
		return 64 + bits.Len64(a.Hi)
	}
	return bits.Len64(a.Lo)
}
