package dataplane

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Packets of a connection from VM4 to VM1, under NSG1 and NSG2 of VM1.
var (
	forward  = packettest.TCP(packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 40000, DstPort: 80, Flags: "A"})
	backward = packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 80, DstPort: 40000, Flags: "A"})
)

func connected(t *testing.T, policy *policy.Set) *rig {
	t.Helper()
	r := newRig(t, policy, conntrack.Options{Max: 1024})
	for i, flags := range []string{"S", "SA", "A"} {
		s := packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 40000, DstPort: 80, Flags: flags}
		from := vm4
		if i == 1 {
			from, s.Src, s.Dst, s.SrcPort, s.DstPort = vm1, s.Dst, s.Src, s.DstPort, s.SrcPort
		}
		if to, drop := r.send(from, packettest.TCP(s)); to < 0 {
			t.Fatalf("%s: %s", flags, drop)
		}
	}
	return r
}

func swap(t *testing.T, r *rig, policy *policy.Set) {
	t.Helper()
	s, err := r.engine.Prepare(policy)
	if err == nil {
		err = r.engine.Swap(s, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFlushConnectionJudgesAgain(t *testing.T) {
	groups := func(flush bool, nsg1 ...ruleset.Rule) *policy.Set {
		p := figure(nsg1, nil)
		p.NetworkSecurityGroups[0].FlushConnection = flush
		return p
	}
	without := func(p *policy.Set) *policy.Set {
		p.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = nil
		return p
	}
	elsewhere := func(p *policy.Set) *policy.Set { // NSG1 stands at Subnet2 too
		p.VirtualNetworks[0].Subnets[1].NetworkSecurityGroup = p.NetworkSecurityGroups[0]
		return p
	}
	deny, allow := anyRule("deny", 100, ruleset.Inbound, ruleset.Deny), anyRule("allow", 100, ruleset.Inbound, ruleset.Allow)
	unrelated := anyRule("out", 100, ruleset.Outbound, ruleset.Allow)
	other := groups(true)
	other.NetworkSecurityGroups[1].Rules = []ruleset.Rule{deny}
	for _, tt := range []struct {
		name   string
		before *policy.Set
		after  []*policy.Set
		cut    bool
	}{
		{"a denial with it ends the flow", groups(true), []*policy.Set{groups(true, deny)}, true},
		{"a denial without it leaves the flow", groups(false), []*policy.Set{groups(false, deny)}, false},
		{"switching it on judges once what was denied before", groups(false), []*policy.Set{groups(false, deny), groups(true, deny)}, true},
		{"another NSG's denial is not its change", groups(true), []*policy.Set{other}, false},
		{"but is asked when it changes too", groups(true), []*policy.Set{other, func() *policy.Set {
			p := groups(true, unrelated)
			p.NetworkSecurityGroups[1].Rules = []ruleset.Rule{deny}
			return p
		}()}, true},
		{"an NSG with it that is associated denies", without(groups(true, deny)), []*policy.Set{groups(true, deny)}, true},
		{"and one that another subnet has had all along", without(elsewhere(groups(true, deny))), []*policy.Set{elsewhere(groups(true, deny))}, true},
		{"an NSG with it that is removed has the others asked", other, []*policy.Set{without(groups(true))}, false},
		{"a rule that still allows leaves the flow", groups(true), []*policy.Set{groups(true, allow)}, false},
		{"a change that was undone is none when no packet came between", groups(true), []*policy.Set{groups(true, deny), groups(true)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := tt.before
			if start == other { // which would deny the flow at its start
				start = groups(true)
			}
			r := connected(t, start)
			for _, p := range tt.after {
				swap(t, r, p)
			}
			if to, drop := r.send(vm1, backward); to != vm4 {
				t.Fatalf("a reply came out at %d (%s): replies are never judged", to, drop)
			}
			want, ended := vm1, uint64(0)
			if tt.cut {
				want, ended = -1, 1
			}
			to, drop := r.send(vm4, forward)
			if to != want || tt.cut && drop != packet.DropRule.String() {
				t.Errorf("came out at %d (%s), want %d", to, drop, want)
			}
			if n := r.engine.Flows().Stats().Ended[conntrack.EndDenied]; n != ended {
				t.Errorf("%d flows ended, want %d", n, ended)
			}
			if to, _ := r.send(vm1, backward); tt.cut && to >= 0 && r.engine.Flows().Stats().Flows == 0 {
				t.Error("a reply passed without a flow")
			}
		})
	}
}

func TestAFlowThatIsAllowedAgainCountsOnTheRulesOfNow(t *testing.T) {
	p := figure(nil, nil)
	p.NetworkSecurityGroups[0].FlushConnection = true
	r := connected(t, p)
	p = figure([]ruleset.Rule{anyRule("allow", 100, ruleset.Inbound, ruleset.Allow)}, nil)
	p.NetworkSecurityGroups[0].FlushConnection = true
	swap(t, r, p)
	count := func() (c counter.Rule) {
		keys := r.engine.Registry().Keys()
		for i, n := range r.engine.Counters().Rules(len(keys)) {
			if keys[i].Rule == "allow" {
				c = n
			}
		}
		return c
	}
	r.send(vm1, backward)
	if c := count(); c != (counter.Rule{}) {
		t.Errorf("%+v before a packet forward", c)
	}
	r.send(vm4, forward)
	r.send(vm1, backward)
	if c := count(); c.Packets != 2 || c.Hits != 0 {
		t.Errorf("%+v, want two packets and no verdict on a new flow", c)
	}
	for f := range r.engine.Flows().Flows {
		if f.Packets != [2]uint64{3, 3} || f.Generation != 2 {
			t.Errorf("%+v: the flow's own counters went on from where they were", f)
		}
	}
}

func TestJudgingAgainAllocatesNothing(t *testing.T) {
	p := [2]*policy.Set{figure(nil, nil), figure([]ruleset.Rule{anyRule("allow", 100, ruleset.Inbound, ruleset.Allow)}, nil)}
	for _, set := range p {
		set.NetworkSecurityGroups[0].FlushConnection = true
	}
	r := connected(t, p[0])
	w := r.engine.workers[0]
	s := r.engine.Snapshot()
	s.Flushed = ^uint32(0) // as if every packet met a change
	for _, e := range []*topology.Endpoint{s.Endpoint(p[0].NetworkInterfaces[0], p[0].NetworkInterfaces[0].IPConfigurations[0].Address)} {
		e.Flushed = ^uint32(0)
	}
	frame := append(make([]byte, 12), forward...)
	run := func() {
		r.devices[vm4].Inject(0, frame)
		if err := w.carryBurst(vm4); err != nil {
			t.Fatal(err)
		}
		r.devices[vm1].Drain(0, nil)
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheVirtualNetworksTimeoutHoldsForBothEndsAndForLiveFlows(t *testing.T) {
	policy := func(d time.Duration) *policy.Set {
		p := figureOfTheSeed()
		p.VirtualNetworks[0].FlowTimeout = d
		return p
	}
	for _, tt := range []struct {
		name  string
		from  int
		first []byte
		reply []byte
	}{
		{"a flow into the network", internet, syn(world, addr4, 80), packettest.TCP(packettest.Spec{Src: addr4, Dst: world, SrcPort: 80, DstPort: 40000, Flags: "SA"})},
		{"a flow out of it", vm4, syn(addr4, world, 80), packettest.TCP(packettest.Spec{Src: world, Dst: addr4, SrcPort: 80, DstPort: 40000, Flags: "SA"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, policy(10*time.Minute), conntrack.Options{Max: 1024})
			to, drop := r.send(tt.from, tt.first)
			if to < 0 {
				t.Fatal(drop)
			}
			r.send(to, tt.reply)
			ack := packettest.TCP(packettest.Spec{Src: addr4, Dst: world, SrcPort: 40000, DstPort: 80, Flags: "A"})
			if tt.from == internet {
				ack = packettest.TCP(packettest.Spec{Src: world, Dst: addr4, SrcPort: 40000, DstPort: 80, Flags: "A"})
			}
			r.send(tt.from, ack)
			live := func() (n int, left time.Duration) {
				r.engine.Flows().Expire(r.engine.Now(), 0)
				for f := range r.engine.Flows().Flows {
					n, left = n+1, f.ExpiresIn
				}
				return n, left
			}
			r.clock += 9 * time.Minute
			if n, left := live(); n != 1 || left != time.Minute {
				t.Fatalf("%d flows, %v left", n, left)
			}
			swap(t, r, policy(30*time.Minute))
			if n, left := live(); n != 1 || left != 21*time.Minute {
				t.Errorf("after a longer timeout %d flows, %v left", n, left)
			}
			swap(t, r, policy(0)) // the default, 4 minutes
			if n, _ := live(); n != 0 {
				t.Errorf("%d flows after a shorter timeout", n)
			}
		})
	}
}

func TestANICWithoutTCPStatesTakesAnySegment(t *testing.T) {
	p := figureOfTheSeed()
	p.NetworkInterfaces[3].DisableTCPStateTracking = true
	r := newRig(t, p, conntrack.Options{Max: 1024, TCPStrict: true})
	synAck := func(src, dst string) []byte {
		return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: 80, DstPort: 40000, Flags: "SA"})
	}
	if to, drop := r.send(vm4, synAck(addr4, world)); to != internet {
		t.Errorf("from it: %s", drop)
	}
	if to, drop := r.send(internet, synAck(world, addr4)); to != vm4 {
		t.Errorf("to it: %s", drop)
	}
	if _, drop := r.send(vm2, synAck(addr2, world)); drop != packet.DropTCPNoSYN.String() {
		t.Errorf("from another: %s", drop)
	}
	for f := range r.engine.Flows().Flows {
		if f.State() != "one_way" && f.State() != "two_way" {
			t.Errorf("%v is %s", f.Key, f.State())
		}
	}
}

func TestPort25IsBlockedBySubscription(t *testing.T) {
	for kind, want := range map[string]string{"enterprise": "", "payg": packet.DropSMTP.String()} {
		r := newRigWith(t, figureOfTheSeed(), Options{Subscription: topology.Subscription{Type: kind}})
		to, drop := r.send(vm4, syn(addr4, world, 25))
		if (to == internet) != (want == "") || to < 0 && drop != want {
			t.Errorf("%s: came out at %d (%s)", kind, to, drop)
		}
		if to, drop := r.send(vm4, syn(addr4, addr1, 25)); to != vm1 {
			t.Errorf("%s: within the virtual network: %s", kind, drop)
		}
		if to, drop := r.send(internet, syn(world, addr4, 25)); to != vm4 {
			t.Errorf("%s: from the internet: %s", kind, drop)
		}
		q := &azure.Flow{Direction: ruleset.Outbound, Protocol: packet.ProtoTCP, NetworkInterface: "vm4-nic", LocalPort: 40000, RemotePort: 25,
			Local: packetAddr(addr4), Remote: packetAddr(world)}
		v, err := ask.Verify(r.engine.Snapshot(), q, false)
		if err != nil || (v.Access == "Deny") != (want != "") || want != "" && v.Reason != "smtpBlocked" {
			t.Errorf("%s: verify %+v, %v", kind, v, err)
		}
	}
}
