package dataplane

import (
	"fmt"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// stormed is a policy with rules of the names of one reload.
func stormed(reload int) *policy.Set {
	var rules []ruleset.Rule
	for i := range 8 {
		r := anyRule(fmt.Sprintf("r%d-%d", reload, i), 100+i, ruleset.Inbound, ruleset.Allow)
		r.Protocol, r.DestinationPorts = ruleset.TCP, []ruleset.PortRange{{First: uint16(80 + i), Last: uint16(80 + i)}}
		rules = append(rules, r)
	}
	return figure(rules, nil)
}

// A daemon lives through any number of reloads that rename rules. A rule that a flow counts on stays.
func TestAReloadStormTakesNoMoreRules(t *testing.T) {
	reloads := 10_000
	if testing.Short() {
		reloads = 500
	}
	r := newRig(t, stormed(0), conntrack.Options{Max: 64})
	s := packettest.Spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 80, Flags: "S"}
	if to, drop := r.send(internet, packettest.TCP(s)); to != vm2 {
		t.Fatal(drop)
	}
	answer := back(s)
	answer.Flags = "SA" // or each policy would judge the flow again
	r.send(vm2, packettest.TCP(answer))
	most, again := 0, packettest.Spec{Src: world, Dst: addr2, SrcPort: 40001, DstPort: 81, Flags: "S"}
	for n := 1; n <= reloads; n++ {
		next, err := r.engine.Prepare(stormed(n))
		if err == nil {
			err = r.engine.Swap(next, nil)
		}
		if err != nil {
			t.Fatalf("reload %d: %v", n, err)
		}
		if again.SrcPort++; again.SrcPort < 1000 {
			again.SrcPort = 1000
		}
		r.send(internet, packettest.TCP(again))
		r.engine.flows.Flows(func(f *conntrack.FlowInfo) bool {
			if f.Key.SrcPort != 40000 {
				r.engine.flows.End(&f.Key)
			}
			return true
		})
		most = max(most, len(r.engine.Registry().Keys()))
	}
	if most > 3000 {
		t.Errorf("%d rules were counted at once", most)
	}
	// Each rule in force has its own counters: one packet, of this reload.
	counts := r.engine.Counters().Rules(len(r.engine.Registry().Keys()))
	named := map[topology.RuleKey]int{}
	for slot, k := range r.engine.Registry().Keys() {
		if k != (topology.RuleKey{}) {
			named[k]++
		} else if counts[slot] != (counter.Rule{}) {
			t.Errorf("slot %d without a rule counts %+v", slot, counts[slot])
		}
		if k.Rule == fmt.Sprintf("r%d-1", reloads) && k.NetworkSecurityGroup == "nsg-1" && counts[slot].Packets > 1 {
			t.Errorf("%+v counts %+v", k, counts[slot])
		}
	}
	if c := countOf(r.engine, "NSG1", ruleset.Inbound, "r0-0"); c.Packets != 2 {
		t.Errorf("the rule of a live flow counts %+v; rules: %v", c, named)
	}
	s.Flags = "A"
	r.send(internet, packettest.TCP(s))
	if c := countOf(r.engine, "NSG1", ruleset.Inbound, "r0-0"); c.Packets != 3 {
		t.Errorf("the rule of a live flow counts %+v", c)
	}
}

// What was prepared before rules were forgotten would count on other rules' slots.
func TestAnOldPreparedPolicyIsRefused(t *testing.T) {
	r := newRig(t, stormed(0), conntrack.Options{Max: 64})
	old, err := r.engine.Prepare(stormed(1))
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n < 400; n++ {
		next, err := r.engine.Prepare(stormed(n))
		if err == nil {
			err = r.engine.Swap(next, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: addr2, SrcPort: 1, DstPort: 80, Flags: "S"}))
	}
	if err := r.engine.Swap(old, nil); err != ErrPrepared {
		t.Errorf("%v", err)
	}
}

// half carries what waits on an attachment's queue by a snapshot. The burst goes on.
func (r *rig) half(s *topology.Snapshot, from int) {
	r.t.Helper()
	w := r.engine.workers[0]
	w.time = r.engine.clock()
	w.now = ticks(w.time)
	n, _ := w.read(w.queues[from], w.group[:], waitingBytes)
	group := w.group[:n]
	w.prepare(s.Attachments[from], group)
	for i := range group {
		w.passage.carry(s, s.Attachments[from], &group[i])
	}
}

// end ends a burst that half has begun.
func (r *rig) end() {
	w := r.engine.workers[0]
	w.sendTrains()
	w.used = 0
	w.counters.Flush()
	w.flows.Quiesce()
}

// noRulesCount holds that nothing is counted on a slot that no rule has.
func (r *rig) noRulesCount() {
	r.t.Helper()
	keys := r.engine.Registry().Keys()
	for slot, c := range r.engine.Counters().Rules(len(keys)) {
		if keys[slot] == (topology.RuleKey{}) && c != (counter.Rule{}) {
			r.t.Errorf("slot %d without a rule counts %+v", slot, c)
		}
	}
}

// storm reloads until rules have been forgotten. Once there are many, before comes before each reload, with its number among
// those, and after behind it, with the snapshot that it has replaced.
func (r *rig) storm(make func(int) *policy.Set, before func(nth int), after func(old *topology.Snapshot)) {
	r.t.Helper()
	for n, nth := 1, 0; ; n++ {
		old := r.engine.Snapshot()
		next, err := r.engine.Prepare(make(n))
		if err != nil {
			r.t.Fatal(err)
		}
		crowded := r.engine.Registry().Crowded(next)
		if crowded {
			nth++
			before(nth)
		}
		if err := r.engine.Swap(next, nil); err != nil {
			r.t.Fatal(err)
		}
		if crowded {
			after(old)
		}
		r.end()
		if crowded && !r.engine.Registry().Crowded(next) {
			return
		}
	}
}

// A burst has counted a flow's packet on a rule, and has judged the flow anew since: no record has the rule any
// more when a reload looks for it. The burst's sums must not come to the slot of another rule.
func TestARuleIsForgottenBehindTheBurstsThatCountOnIt(t *testing.T) {
	flushed := func(n int) *policy.Set {
		p := stormed(n)
		for _, g := range p.NetworkSecurityGroups {
			g.FlushConnection = true
		}
		return p
	}
	for at := 1; at <= 2; at++ { // the reload that finds rules unused, and the one that forgets them
		r := newRig(t, flushed(0), conntrack.Options{Max: 64})
		s := packettest.Spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 80, Flags: "S"}
		answer := back(s)
		r.send(internet, packettest.TCP(s))
		answer.Flags = "SA"
		r.send(vm2, packettest.TCP(answer))
		s.Flags, answer.Flags = "A", "A"
		r.storm(flushed, func(nth int) {
			if nth == at {
				r.devices[vm2].Inject(0, framed(packettest.TCP(answer))) // counts on the first policy's rule
				r.half(r.engine.Snapshot(), vm2)
				r.devices[internet].Inject(0, framed(packettest.TCP(s))) // judges the flow again
				r.half(r.engine.Snapshot(), internet)
			}
		}, func(*topology.Snapshot) {})
		r.noRulesCount()
	}
}

// The rule that has denied a datagram is forgotten: its later fragments count on no other.
func TestARuleIsForgottenBehindTheDatagramsThatItDenied(t *testing.T) {
	denying := func(n int) *policy.Set {
		p := stormed(n)
		for i := range p.NetworkSecurityGroups[0].Rules {
			p.NetworkSecurityGroups[0].Rules[i].Access = ruleset.Deny
		}
		return p
	}
	r := newRig(t, denying(0), conntrack.Options{Max: 64})
	parts := packettest.Fragments(packettest.TCP(packettest.Spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 80, Flags: "S", Payload: 400}), 7, 40, 24)
	if _, drop := r.send(internet, parts[0]); drop != "rule_deny" {
		t.Fatal(drop)
	}
	later := 1
	r.storm(denying, func(int) {}, func(old *topology.Snapshot) {
		r.devices[internet].Inject(0, framed(parts[later]))
		later++
		r.half(old, internet)
	})
	r.noRulesCount()
}
