package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// successor is the engine of the next process, with these NICs in this order. What the last one has left is all that
// it gets: the last one never learns that it has ended.
func successor(t *testing.T, slabs *slab.Slabs, set *policy.Set, workers int, nics ...int) *comings {
	t.Helper()
	kept, err := continuity.Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &comings{t: t, set: set, attached: map[int]*tuntest.Memory{}, order: nics, flows: map[[2]int]bool{}}
	c.engine, err = New(c.set, Options{Attachments: c.specs(), Room: 8, Workers: workers, Continuity: kept,
		Flows: conntrack.Options{Max: 4096, Timeouts: conntrack.Timeouts{UDPOneWay: time.Hour}}, Fragments: fragment.Options{Lifetime: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	for _, nic := range nics {
		c.attached[nic] = newMemory(t, workers, 256)
		devices = append(devices, c.attached[nic])
	}
	if err := c.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	return c
}

// tallies are an engine's counters by name, whatever their slots are.
func (c *comings) tallies() map[string]uint64 {
	all := map[string]uint64{}
	keys := c.engine.Registry().Keys()
	for slot, r := range c.engine.Counters().Rules(len(keys)) {
		k := keys[slot]
		all["hits of "+k.NetworkSecurityGroup+" "+k.Direction.String()+" "+k.Rule] += r.Hits
	}
	for i, a := range c.engine.AttachmentCounts() {
		all["received from "+c.engine.Snapshot().Attachments[i].Name] += a.ReceivePackets
		all["sent to "+c.engine.Snapshot().Attachments[i].Name] += a.TransmitPackets
	}
	for d, n := range c.engine.Drops() {
		all["dropped: "+packet.Drop(d).String()] += n
	}
	s := c.engine.Flows().Stats()
	all["flows created"], all["flows"] = s.Created, uint64(s.Flows)
	return all
}

// guarded is a policy of eight NICs in a subnet whose NSG lets everything come in, or nothing.
func guarded(access ruleset.Access, more ...ruleset.Rule) *policy.Set {
	set := manyNICs(8)
	nsg := &ruleset.NSG{Name: "nsg1", ID: "/nsg/nsg1", Rules: append(more, enginetest.AnyRule("everything", 100, ruleset.Inbound, access))}
	set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, nsg)
	set.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = nsg
	return set
}

// answer is what a NIC answers to numbered.
func answer(from, to int) []byte {
	return framed(packettest.UDP(packettest.Spec{Src: movingAddress(from), Dst: movingAddress(to), SrcPort: 2000, DstPort: 1000, Payload: 8}))
}

func (c *comings) carries(from, to int, frame []byte) bool {
	c.t.Helper()
	if !c.attached[from].Inject(0, frame) {
		c.t.Fatal("memory device is full")
	}
	if err := c.engine.workers[0].carryBurst(slices.Index(c.order, from)); err != nil {
		c.t.Fatal(err)
	}
	return c.attached[to].Drain(0, nil) == 1
}

func TestAnEngineGoesOnWhereTheLastProcessStopped(t *testing.T) {
	slabs := slab.New(nil, nil)
	first := successor(t, slabs, guarded(ruleset.Allow), 2, 0, 1, 2)
	for _, from := range []int{0, 2} {
		if !first.carries(from, 1, numbered(from, 1)) || !first.carries(1, from, answer(1, from)) {
			t.Fatal("nothing is carried")
		}
	}
	seed := first.engine.setting.Load().topology.Seed
	want := first.tallies()
	for step, nics := range [][]int{{0, 1, 2}, {2, 0, 1}, {5, 2, 0, 1}, {0, 1, 2}} {
		other := enginetest.AnyRule(fmt.Sprint("other", step), 50, ruleset.Inbound, ruleset.Deny) // stands before in the policy
		other.SourcePorts = []ruleset.PortRange{{First: 1, Last: 1}}
		c := successor(t, slabs, guarded(ruleset.Allow, other), 1+step%2, nics...)
		got := c.tallies()
		for name, n := range want {
			if got[name] != n {
				t.Errorf("step %d: %s: %d, want %d", step, name, got[name], n)
			}
		}
		if n := c.engine.setting.Load().topology.Seed; n != seed {
			t.Errorf("step %d: another seed", step)
		}
		c.set = guarded(ruleset.Deny)
		c.rearrange()
		if !c.carries(1, 0, answer(1, 0)) || !c.carries(0, 1, numbered(0, 1)) {
			t.Errorf("step %d: a flow of the last process is not carried", step)
		}
		want = c.tallies()
		delete(want, "received from "+movingName(5))
	}
	last := successor(t, slabs, guarded(ruleset.Deny), 1, 0, 1)
	if a := last.engine.Flows().Adoption(); a.Flows != 1 || a.Lost[conntrack.LostZone] != 1 {
		t.Errorf("%+v", a)
	}
	if !last.carries(1, 0, answer(1, 0)) {
		t.Error("a flow of the last process is not carried")
	}
}

func TestAFlowWhoseEndHasMovedEndsAtTheStart(t *testing.T) {
	slabs := slab.New(nil, nil)
	first := successor(t, slabs, guarded(ruleset.Allow), 1, 0, 1, 2)
	for _, from := range []int{0, 2} {
		if !first.carries(from, 1, numbered(from, 1)) || !first.carries(1, from, answer(1, from)) {
			t.Fatal("nothing is carried")
		}
	}
	moved := guarded(ruleset.Allow)
	moved.NetworkInterfaces[2].IPConfigurations[0].Address = netip.MustParseAddr(movingAddress(9))
	second := successor(t, slabs, moved, 1, 0, 1, 2)
	ctx, stop := context.WithCancel(t.Context())
	stop() // what the workers have begun they end
	if err := second.engine.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var left []string
	second.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		left = append(left, second.engine.Snapshot().Attachments[f.Key.Zone].Name)
		return true
	})
	if !slices.Equal(left, []string{movingName(0)}) {
		t.Errorf("flows of %v, want that of the NIC that stays where it was", left)
	}
}

func TestRulesCountOnWithFewerWorkers(t *testing.T) {
	slabs := slab.New(nil, nil)
	first := successor(t, slabs, guarded(ruleset.Allow), 2, 0, 1)
	if !first.attached[0].Inject(1, numbered(0, 1)) {
		t.Fatal("memory device is full")
	}
	if err := first.engine.workers[1].carryBurst(0); err != nil {
		t.Fatal(err)
	}
	const hits = "hits of nsg1 Inbound everything"
	if n := first.tallies()[hits]; n != 1 {
		t.Fatalf("%d hits: %v", n, first.tallies())
	}
	second := successor(t, slabs, guarded(ruleset.Allow), 1, 0, 1)
	if n := second.tallies()[hits]; n != 1 {
		t.Errorf("%d hits, want those of a worker that is no more", n)
	}
}
