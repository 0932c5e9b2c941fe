package dataplane

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
)

// unreachable is port unreachable from router about a packet that came to it.
func unreachable(router, to string, quote []byte) []byte {
	return packettest.ICMPError(packettest.Spec{Src: router, Dst: to, ICMPType: 3, ICMPCode: 3}, quote)
}

func TestAnICMPErrorPassesAsPartOfTheFlowThatItQuotes(t *testing.T) {
	query := packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 40000, DstPort: 53, Payload: 20})
	answer := packettest.UDP(packettest.Spec{Src: world, Dst: addr1, SrcPort: 53, DstPort: 40000, Payload: 20})
	echo := packettest.ICMP(packettest.Spec{Src: addr1, Dst: world, ICMPType: 8, ICMPID: 0})
	tests := []struct {
		name  string
		flow  [][]byte // sent by VM1 (even) and the internet (odd) before
		from  int
		error []byte
		to    int
		drop  string
	}{
		{"from the host that was asked", [][]byte{query}, internet, unreachable(world, addr1, query), vm1, ""},
		{"from a router on the way", [][]byte{query}, internet, unreachable("198.51.100.1", addr1, query), vm1, ""},
		{"about an answer, back to who gave it", [][]byte{query, answer}, vm1, unreachable(addr1, world, answer), internet, ""},
		{"about an echo request with identifier 0", [][]byte{echo}, internet, unreachable(world, addr1, echo), vm1, ""},
		{"about a flow that is not there", nil, internet, unreachable(world, addr1, query), -1, "rule_deny"},
		{"about a flow of another port", [][]byte{packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 40001, DstPort: 53})},
			internet, unreachable(world, addr1, query), -1, "rule_deny"},
		{"that travels to somebody else than the quoted sender", [][]byte{query}, internet, unreachable(world, addr2, query), -1, "rule_deny"},
		{"quoting a packet that went the other way", [][]byte{query}, internet, unreachable(world, addr1, answer), -1, "rule_deny"},
		{"with half a quote", [][]byte{query}, internet, unreachable(world, addr1, query[:27]), -1, "rule_deny"},
		{"with an inside source from outside", [][]byte{query}, internet, unreachable(addr2, addr1, query), -1, "spoofed_source"},
		{"from a place that the flow does not touch", [][]byte{query}, vm2, unreachable(addr2, addr1, query), vm1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
			for i, p := range tt.flow {
				r.send([]int{vm1, internet}[i%2], p)
			}
			before := r.engine.Flows().Stats()
			to, drop := r.send(tt.from, tt.error)
			if to != tt.to || drop != tt.drop {
				t.Errorf("came out at %d (%q), want %d (%q)", to, drop, tt.to, tt.drop)
			}
			if after := r.engine.Flows().Stats(); after != before {
				t.Errorf("the error changed the flow table: %+v, was %+v", after, before)
			}
		})
	}
}

func TestAnICMPErrorDoesNotKeepItsFlowAlive(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	query := packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 40000, DstPort: 53})
	r.send(vm1, query)
	for range 3 {
		r.clock += 11 * time.Second
		r.send(internet, unreachable(world, addr1, query))
	}
	if to, drop := r.send(internet, unreachable(world, addr1, query)); drop != "rule_deny" {
		t.Errorf("an error for a flow that has timed out: to %d, %q", to, drop)
	}
}

func TestAnICMPErrorCountsOnTheRulesOfItsFlow(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	query := packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 40000, DstPort: 53})
	report := unreachable(world, addr1, query)
	r.send(vm1, query)
	r.send(internet, report)
	want := counter.Rule{Hits: 1, Packets: 2, Bytes: uint64(len(query) + len(report))}
	if got := r.count("NSG1", ruleset.Outbound, "AllowInternetOutBound"); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestWithoutAFlowTheRulesForICMPDecideAboutAnError(t *testing.T) {
	allow := anyRule("AllowIcmpIn", 100, ruleset.Inbound, ruleset.Allow)
	allow.Protocol = ruleset.ICMP
	r := newRig(t, figure([]ruleset.Rule{allow}, nil), conntrack.Options{Max: 1024})
	query := packettest.UDP(packettest.Spec{Src: addr2, Dst: world, SrcPort: 40000, DstPort: 53})
	for range 2 {
		if to, drop := r.send(internet, unreachable(world, addr2, query)); to != vm2 {
			t.Errorf("to %d, %q", to, drop)
		}
	}
	if c := r.count("NSG1", ruleset.Inbound, "AllowIcmpIn"); c.Hits != 2 {
		t.Errorf("%d hits, want one for each error: none makes a flow", c.Hits)
	}
	if n := r.engine.Flows().Stats().Created; n != 0 {
		t.Errorf("%d flows were made", n)
	}
}

// The word that a header leaves to do is written after the verdict. So it must not lie in the quote, which the verdict
// is made of.
func TestHostile06ICMPQuoteChecksum(t *testing.T) {
	for _, f := range families {
		header := 20 // length of the IP header
		if f.name == "IPv6" {
			header = 40
		}
		asked := packettest.UDP(packettest.Spec{Src: f.vm1, Dst: f.vm4, SrcPort: 5000, DstPort: 53, Payload: 20})
		about := packettest.ICMPError(packettest.Spec{Src: f.vm4, Dst: f.vm1, ICMPType: f.unreachable, ICMPCode: 3}, asked)
		passes := func(start, offset int) bool {
			r := newRig(t, dualStack(figureOfTheSeed()), conntrack.Options{Max: 1024})
			r.send(vm1, asked)
			out := r.pass(vm4, frameOf(tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(offset)}, about))
			if out.at != vm1 && out.drop != packet.DropOffload.String() {
				t.Errorf("%s: dropped as %q", f.name, out.drop)
			}
			return out.at == vm1
		}
		if !passes(header, 2) {
			t.Errorf("%s: an error whose own checksum is left to do does not pass", f.name)
		}
		for at := header + 4; at < len(about); at += 2 {
			for _, offset := range []int{0, 2, 6, 16} {
				if passes(at-offset, offset) {
					t.Errorf("%s: an error passes whose quote is written at %d after the verdict", f.name, at-header-8)
				}
			}
		}
	}
}
