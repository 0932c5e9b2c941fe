package flowlog

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/conntrack"
)

// endedFlows bounds the ended flows that wait for their last row. A table of a million flows
// ends that many within a few of drainEvery.
const endedFlows = 1 << 16

// ring carries ended flows from the flow table to the goroutine that logs them. One goroutine
// pushes at a time. It never waits: a flow that finds it full gets no last row and is counted.
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

// push takes an ended flow; it is for conntrack.Table.OnEnd.
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

// drain hands over the flows that wait.
func (r *ring) drain(f func(*conntrack.FlowInfo)) {
	head, tail := r.head.Load(), r.tail.Load()
	for ; head != tail; head++ {
		f(&r.flows[head%uint64(len(r.flows))])
		r.head.Store(head + 1)
	}
}
