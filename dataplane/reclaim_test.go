package dataplane

import (
	"fmt"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
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
		reloads = 2_000
	}
	r := newRig(t, stormed(0), conntrack.Options{Max: 64})
	s := packettest.Spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 80, Flags: "S"}
	if to, drop := r.send(internet, packettest.TCP(s)); to != vm2 {
		t.Fatal(drop)
	}
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
	counts := r.engine.RuleCounts(len(r.engine.Registry().Keys()))
	named := map[topology.RuleKey]int{}
	for slot, k := range r.engine.Registry().Keys() {
		if k != (topology.RuleKey{}) {
			named[k]++
		} else if counts[slot] != (RuleCount{}) {
			t.Errorf("slot %d without a rule counts %+v", slot, counts[slot])
		}
		if k.Rule == fmt.Sprintf("r%d-1", reloads) && k.NetworkSecurityGroup == "nsg-1" && counts[slot].Packets > 1 {
			t.Errorf("%+v counts %+v", k, counts[slot])
		}
	}
	if c := countOf(r.engine, "NSG1", ruleset.Inbound, "r0-0"); c.Packets != 1 {
		t.Errorf("the rule of a live flow counts %+v; rules: %v", c, named)
	}
	s.Flags = "A"
	r.send(internet, packettest.TCP(s))
	if c := countOf(r.engine, "NSG1", ruleset.Inbound, "r0-0"); c.Packets != 2 {
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
