package flowlog

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack"
)

// endedFlows bounds the ended flows that wait for their last row. A table of a million flows
// ends that many within a few of drainEvery.
const endedFlows = 1 << 16

// ring carries ended flows from the flow table to the goroutine that logs them. One goroutine
// pushes at a time. It never waits: a flow that finds it full gets no last row and is counted.
type ring struct {
	*ringHead
	flows []conntrack.FlowInfo
	wake  chan struct{} // one pending token: the ring fills
	lost  atomic.Uint64

	// last is what the last process pushed last. The flow table may tell of it again. Nil: it can't any more.
	last *conntrack.FlowInfo
}

// ringHead is the beginning of a ring's slab.
type ringHead struct {
	_    [64]byte
	tail atomic.Uint64
	_    [64]byte
	head atomic.Uint64
	_    [64]byte
}

const (
	ringHeads = 4096
	ringSize  = ringHeads + endedFlows*int(unsafe.Sizeof(conntrack.FlowInfo{}))
)

func newRing(flows int) *ring {
	return &ring{ringHead: &ringHead{}, flows: make([]conntrack.FlowInfo, flows), wake: make(chan struct{}, 1)}
}

// ringOf is a ring in a slab.
func ringOf(memory []byte) *ring {
	return &ring{
		ringHead: (*ringHead)(unsafe.Pointer(&memory[0])), wake: make(chan struct{}, 1),
		flows: unsafe.Slice((*conntrack.FlowInfo)(unsafe.Pointer(&memory[ringHeads])), endedFlows),
	}
}

// openRing opens the ring of the last process.
func openRing(memory []byte) (*ring, error) {
	if len(memory) != ringSize {
		return nil, fmt.Errorf("a ring of ended flows of %d bytes: must be %d", len(memory), ringSize)
	}
	r := ringOf(memory)
	tail := r.tail.Load()
	if waiting := tail - r.head.Load(); waiting > endedFlows {
		return nil, fmt.Errorf("a ring of ended flows in which %d wait: at most %d", waiting, endedFlows)
	}
	if tail > 0 {
		last := r.flows[(tail-1)%endedFlows]
		r.last = &last
	}
	return r, nil
}

// push takes an ended flow; it is for conntrack.Table.OnEnd.
func (r *ring) push(i *conntrack.FlowInfo) {
	if !logged(i.Key.Proto) || r.again(i) {
		return
	}
	tail := r.tail.Load()
	waiting := tail - r.head.Load()
	if waiting == uint64(len(r.flows)) {
		r.lost.Add(1)
		return
	}
	r.flows[tail%uint64(len(r.flows))] = *i
	r.tail.Store(tail + 1)
	if waiting == uint64(len(r.flows)/4) {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// drain hands over the flows that wait.
func (r *ring) drain(f func(*conntrack.FlowInfo)) {
	head, tail := r.head.Load(), r.tail.Load()
	for ; head != tail; head++ {
		f(&r.flows[head%uint64(len(r.flows))])
		r.head.Store(head + 1)
	}
}

// again reports that the last process has pushed the flow, and was killed before it freed the flow's record.
func (r *ring) again(i *conntrack.FlowInfo) bool {
	l := r.last
	if l == nil || l.Flow != i.Flow || l.Created != i.Created || l.Key != i.Key || l.Packets != i.Packets || l.Bytes != i.Bytes {
		return false
	}
	r.last = nil
	return true
}

// drop leaves the flows that wait without a last row.
func (r *ring) drop() {
	tail := r.tail.Load()
	r.lost.Add(tail - r.head.Load())
	r.head.Store(tail)
}
