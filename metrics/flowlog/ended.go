package flowlog

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/conntrack"
)

// endedFlows bounds the flows that have ended and wait for their last row: what a table of a
// million can end in a few of drainEvery.
const endedFlows = 1 << 16

// ring takes ended flows from the flow table, one call at a time, to the one goroutine that
// logs them. It never waits: a flow that finds it full has no last row, and is counted.
type ring struct {
	flows []conntrack.FlowInfo
	wake  chan struct{} // one pending token: the ring fills

	_    [64]byte
	tail atomic.Uint64
	lost atomic.Uint64
	_    [64]byte
	head atomic.Uint64
	_    [64]byte
}

func newRing(flows int) *ring {
	return &ring{flows: make([]conntrack.FlowInfo, flows), wake: make(chan struct{}, 1)}
}

// push is for conntrack.Table.OnEnd.
func (r *ring) push(i *conntrack.FlowInfo) {
	if !logged(i.Key.Proto) {
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

// drain hands over what is there.
func (r *ring) drain(f func(*conntrack.FlowInfo)) {
	head, tail := r.head.Load(), r.tail.Load()
	for ; head != tail; head++ {
		f(&r.flows[head%uint64(len(r.flows))])
		r.head.Store(head + 1)
	}
}
