package dataplane

import (
	"fmt"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
)

// flood has hosts of the internet ask a VM, which answers, with flows of their own.
func (r *rig) flood(vm int, addr string, first, n int) {
	for i := first; i < first+n; i++ {
		q := packettest.Spec{Src: fmt.Sprintf("203.0.113.%d", i>>8&0xff), Dst: addr, SrcPort: uint16(1000 + i&0xff), DstPort: uint16(53 + i>>16), Payload: 30}
		for range 2 { // twice, so that it is more than a question with its answer
			r.send(internet, packettest.UDP(q))
			r.send(vm, packettest.UDP(back(q)))
		}
	}
}

// Two NICs, each with as many flows as it may have, fill the table. A third one still gets flows, and
// keeps those it has.
func TestHostile04NoIsolation(t *testing.T) {
	const n = 500
	rules := []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}
	r := newRig(t, figure(rules, rules), conntrack.Options{Max: 2 * n, MaxPerZone: n, TCPStrict: true})
	r.flood(vm1, addr1, 0, n)
	r.flood(vm2, addr2, 0, n)
	if s := r.engine.Flows().Stats(); s.Flows != 2*n {
		t.Fatalf("%d flows, want a full table", s.Flows)
	}
	syn := func(dst string, port int) packettest.Spec {
		return packettest.Spec{Src: addr3, Dst: dst, SrcPort: uint16(port), DstPort: 443, Flags: "S"}
	}
	const share = 2*n/3 - 10
	for port := 1; port <= share; port++ {
		if to, drop := r.send(vm3, packettest.TCP(syn(world, port))); to != internet {
			t.Fatalf("SYN %d of a NIC that nobody attacks: %s", port, drop)
		}
		answer := back(syn(world, port))
		answer.Flags = "SA"
		r.send(internet, packettest.TCP(answer))
	}
	r.flood(vm1, addr1, n, n) // they go on
	r.flood(vm2, addr2, n, n)
	for port := 1; port <= share; port++ {
		answer := back(syn(world, port))
		answer.Flags = "A"
		if to, drop := r.send(internet, packettest.TCP(answer)); to != vm3 {
			t.Fatalf("connection %d of a NIC that nobody attacks: %s", port, drop)
		}
	}
}

// A flood into a NIC that is full of connections ends none of them, and searches for a victim once in a
// tick: see BenchmarkInsertIntoFullZone.
func TestHostile04AFullNIC(t *testing.T) {
	const n = 100
	rules := []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}
	r := newRig(t, figure(rules, rules), conntrack.Options{Max: 100 * n, MaxPerZone: n})
	r.flood(vm1, addr1, 0, n)
	for i := range n {
		s := packettest.Spec{Src: world2, Dst: addr1, SrcPort: uint16(i + 1), DstPort: 443, Flags: "S"}
		if to, drop := r.send(internet, packettest.TCP(s)); drop != packet.DropFlowLimit.String() {
			t.Fatalf("to %d, %s", to, drop)
		}
	}
	if to, drop := r.send(vm2, packettest.TCP(packettest.Spec{Src: addr2, Dst: world, SrcPort: 1, DstPort: 443, Flags: "S"})); to != internet {
		t.Errorf("another NIC: %s", drop)
	}
}
