package dataplane

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// The figure's names, as the tests of this package use them.
const (
	vm1, vm2, vm3, vm4, internet, numAttachments = enginetest.VM1, enginetest.VM2, enginetest.VM3, enginetest.VM4, enginetest.Internet, enginetest.NumAttachments

	addr1, addr2, addr3, addr4, world = enginetest.Addr1, enginetest.Addr2, enginetest.Addr3, enginetest.Addr4, enginetest.World
)

var (
	figureSpecs     = enginetest.FigureSpecs
	allowHTTP       = enginetest.AllowHTTP
	anyRule         = enginetest.AnyRule
	figure          = enginetest.Figure
	figureOfTheSeed = enginetest.FigureOfTheSeed
)

// rig is an engine on memory devices with a clock that the test moves.
type rig struct {
	t        testing.TB
	engine   *Engine
	devices  []*tuntest.Memory
	clock    time.Duration
	rewrites bool // the policy translates: send does not hold the bytes
}

func newRig(t testing.TB, policy *policy.Set, flows conntrack.Options) *rig {
	t.Helper()
	return newRigWith(t, policy, Options{Flows: flows})
}

func newRigWith(t testing.TB, policy *policy.Set, o Options) *rig {
	t.Helper()
	r := &rig{t: t, clock: time.Hour}
	o.Flows.Seed = [2]uint64{1, 2}
	if o.Attachments == nil {
		o.Attachments = figureSpecs
	}
	o.Workers, o.Clock = max(o.Workers, 1), func() time.Duration { return r.clock }
	var err error
	r.engine, err = New(policy, o)
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	for range o.Attachments {
		d := newMemory(t, o.Workers, 256)
		r.devices = append(r.devices, d)
		devices = append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	return r
}

// send carries one packet from an attachment and returns where it came out, or
// -1 and why it did not.
func (r *rig) send(from int, p []byte) (to int, drop string) {
	r.t.Helper()
	before := r.engine.Drops()
	if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		r.t.Fatal("memory device is full")
	}
	if err := r.engine.workers[0].carryBurst(from); err != nil {
		r.t.Fatal(err)
	}
	to = -1
	for i, d := range r.devices {
		d.Drain(0, func(frame []byte) {
			if to >= 0 {
				r.t.Errorf("came out at %d and %d", to, i)
			}
			if string(frame[tun.HeaderLen:]) != string(p) && !r.rewrites {
				r.t.Error("the packet's bytes were changed")
			}
			to = i
		})
	}
	for reason, n := range r.engine.Drops() {
		if n > before[reason] {
			if drop != "" || to >= 0 {
				r.t.Fatalf("carried or dropped twice: to %d, %s", to, drop)
			}
			drop = dropName(reason)
		}
	}
	if to < 0 && drop == "" {
		r.t.Fatal("neither carried nor dropped under a reason")
	}
	return to, drop
}

// count is a rule's counters.
func (r *rig) count(nsg string, d ruleset.Direction, rule string) counter.Rule {
	return countOf(r.engine, nsg, d, rule)
}

func countOf(e *Engine, nsg string, d ruleset.Direction, rule string) counter.Rule {
	keys := e.Registry().Keys()
	for i, c := range e.Counters().Rules(len(keys)) {
		if k := keys[i]; k.NetworkSecurityGroup == nsg && k.Direction == d && k.Rule == rule {
			return c
		}
	}
	return counter.Rule{}
}

func newMemory(t testing.TB, queues, capacity int) *tuntest.Memory {
	t.Helper()
	d, err := tuntest.NewMemory("mem", queues, capacity, tuntest.WithSlotLen(8192))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
