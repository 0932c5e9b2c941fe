package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// total is the number and the bytes of packets.
func total(list [][]byte) (c counter.Rule) {
	for _, p := range list {
		c.Packets++
		c.Bytes += uint64(len(p))
	}
	return c
}

func TestFragmentsCountOnTheRuleAndTheFlowOfTheirFirst(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, dualStack(figureOfTheSeed()), conntrack.Options{Max: 1024})
			datagram := packettest.Fragments(packettest.UDP(f.query()), 1, 16, 24)
			for _, p := range datagram {
				r.play([]step{{vm1, p, internet, ""}})
			}
			want := total(datagram)
			want.Hits = 1
			for _, g := range []string{"NSG1", "NSG2"} {
				if got := r.count(g, ruleset.Outbound, "AllowInternetOutBound"); got != want {
					t.Errorf("%s counted %+v, want %+v", g, got, want)
				}
			}
			r.engine.Flows().Flows(func(i *conntrack.FlowInfo) bool {
				if i.Packets[conntrack.Original] != want.Packets || i.Bytes[conntrack.Original] != want.Bytes {
					t.Errorf("the flow counted %v, %v; want %+v", i.Packets, i.Bytes, want)
				}
				return true
			})

			// The answer is part of the flow, and one that a rule denies counts on it.
			answer := packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 53, DstPort: 40000, Payload: 40})
			for _, p := range packettest.Fragments(answer, 1, 16, 24) {
				r.play([]step{{internet, p, vm1, ""}})
			}
			denied := packettest.Fragments(packettest.TCP(f.syn(22)), 2, 24, 16)
			for _, p := range denied {
				r.play([]step{{internet, p, -1, "rule_deny"}})
			}
			want = total(denied)
			want.Hits = 1
			if got := r.count("NSG1", ruleset.Inbound, "DenyAllInBound"); got != want {
				t.Errorf("the denying rule counted %+v, want %+v", got, want)
			}
		})
	}
}

// Without ports every fragment but the first looked like port 0, and a filter that let
// those pass could be walked around (NetBird).
func TestFragmentsSkipNoRule(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			open := anyRule("AllowPortZero", 100, ruleset.Inbound, ruleset.Allow)
			open.DestinationPorts = []ruleset.PortRange{{First: 0, Last: 0}}
			r := newRig(t, dualStack(figure([]ruleset.Rule{open}, []ruleset.Rule{open})), conntrack.Options{Max: 1024})
			for _, p := range packettest.Fragments(packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 1, DstPort: 22, Payload: 40}), 1, 16, 24) {
				r.play([]step{{internet, p, -1, "rule_deny"}})
			}
			r.play([]step{{internet, packettest.Fragments(packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, DstPort: 22, Payload: 40}), 2, 16)[1], -1, "fragment_no_first"}})
		})
	}
}

func TestLaterFragmentsEndWithTheirFlow(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	f := families[0]
	datagram := packettest.Fragments(packettest.UDP(f.query()), 1, 16, 24)
	r.play([]step{{vm1, datagram[0], internet, ""}})
	r.engine.Flows().Flush()
	r.play([]step{{vm1, datagram[1], -1, "fragment_no_first"}})
}

// The fragments of an ICMP error are not packets of the flow that it quotes.
func TestTheFragmentsOfAnICMPErrorFollowIt(t *testing.T) {
	for _, f := range families {
		query := packettest.UDP(f.query())
		report := packettest.ICMPError(packettest.Spec{Src: f.world, Dst: f.vm1, ICMPType: f.unreachable}, query)
		whole := packettest.Fragments(report, 1, 64, 8)
		t.Run("as part of a flow/"+f.name, func(t *testing.T) {
			r := newRig(t, dualStack(figureOfTheSeed()), conntrack.Options{Max: 1024})
			r.play([]step{{vm1, query, internet, ""}})
			for _, p := range whole {
				r.play([]step{{internet, p, vm1, ""}})
			}
			r.engine.Flows().Flows(func(i *conntrack.FlowInfo) bool {
				if i.Packets != [2]uint64{1, 0} {
					t.Errorf("the flow counted %v packets", i.Packets)
				}
				return true
			})
		})
		t.Run("by the rules/"+f.name, func(t *testing.T) {
			allow := []ruleset.Rule{anyRule("Allow", 100, ruleset.Inbound, ruleset.Allow)}
			r := newRig(t, dualStack(figure(allow, allow)), conntrack.Options{Max: 1024})
			for _, p := range whole {
				r.play([]step{{internet, p, vm1, ""}})
			}
			want := total(whole)
			want.Hits = 1
			if got := r.count("NSG1", ruleset.Inbound, "Allow"); got != want {
				t.Errorf("the rule counted %+v, want %+v", got, want)
			}
		})
		t.Run("not under another policy/"+f.name, func(t *testing.T) {
			allow := []ruleset.Rule{anyRule("Allow", 100, ruleset.Inbound, ruleset.Allow)}
			r := newRig(t, dualStack(figure(allow, allow)), conntrack.Options{Max: 1024})
			r.play([]step{{internet, whole[0], vm1, ""}})
			s, err := r.engine.Prepare(dualStack(figure(nil, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Swap(s, nil); err != nil {
				t.Fatal(err)
			}
			r.play([]step{{internet, whole[1], -1, "fragment_no_first"}})
		})
	}
}

// inject sends packets in one burst and returns those that came out at an attachment.
func (r *rig) inject(from, to int, packets ...[]byte) (out []string) {
	r.t.Helper()
	for _, p := range packets {
		if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
			r.t.Fatal("memory device is full")
		}
	}
	if err := r.engine.workers[0].carryBurst(from); err != nil {
		r.t.Fatal(err)
	}
	r.devices[to].Drain(0, func(frame []byte) { out = append(out, string(frame[tun.HeaderLen:])) })
	return out
}

func TestFragmentsThatOvertookTheirFirstWaitForIt(t *testing.T) {
	for _, f := range families {
		datagram := packettest.Fragments(packettest.UDP(f.query()), 1, 16, 8, 8)
		first, second, third, last := datagram[0], datagram[1], datagram[2], datagram[3]
		hold := func(t *testing.T, n int) *rig {
			return newRigWith(t, dualStack(figureOfTheSeed()), Options{Flows: conntrack.Options{Max: 1024}, Fragments: fragment.Options{Hold: n}})
		}
		same := func(t *testing.T, got []string, want ...[]byte) {
			t.Helper()
			var list []string
			for _, p := range want {
				list = append(list, string(p))
			}
			if fmt.Sprint(got) != fmt.Sprint(list) {
				t.Errorf("%d packets came out, want %d in their order", len(got), len(want))
			}
		}
		t.Run("and go behind it in their order/"+f.name, func(t *testing.T) {
			r := hold(t, 10)
			same(t, r.inject(vm1, internet, third, last, second))
			same(t, r.inject(vm1, internet, first), first, third, last, second)
			if d := r.engine.Drops(); d != [packet.NumDrops]uint64{} {
				t.Errorf("drops: %v", d)
			}
			want := total(datagram)
			want.Hits = 1
			if got := r.count("NSG1", ruleset.Outbound, "AllowInternetOutBound"); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
		t.Run("into its denial/"+f.name, func(t *testing.T) {
			r := hold(t, 10)
			denied := packettest.Fragments(packettest.TCP(f.syn(22)), 1, 24, 8)
			same(t, r.inject(internet, vm1, denied[1], denied[2], denied[0]))
			if n := r.engine.Drops()[packet.DropRule]; n != 3 {
				t.Errorf("%d denied, want 3", n)
			}
		})
		t.Run("no longer than a datagram lives/"+f.name, func(t *testing.T) {
			r := hold(t, 10)
			r.inject(vm1, internet, second, third)
			r.clock += 2 * time.Second
			r.engine.Fragments().Expire(r.clock, time.Hour)
			if n := r.engine.Drops()[packet.DropFragmentNoFirst]; n != 2 || r.engine.Fragments().Held() != 0 {
				t.Errorf("%d dropped, %d wait", n, r.engine.Fragments().Held())
			}
			same(t, r.inject(vm1, internet, first), first)
		})
		t.Run("no more than may/"+f.name, func(t *testing.T) {
			r := hold(t, 1)
			same(t, r.inject(vm1, internet, second, third, first), first, second)
			if n := r.engine.Drops()[packet.DropFragmentNoFirst]; n != 1 {
				t.Errorf("%d dropped, want 1", n)
			}
		})
	}
}

// The datagram of a host behind a forwarding NIC was looked for at the place where its
// address lives, which is not where it came in.
func TestAnErrorAboutAFragmentOfAForwardedDatagramComesBack(t *testing.T) {
	policy := figureOfTheSeed()
	policy.NetworkInterfaces[0].EnableIPForwarding = true
	r := newRig(t, policy, conntrack.Options{Max: 1024})
	const behind = "10.0.9.9" // of the virtual network, and nobody's NIC
	query := packettest.UDP(packettest.Spec{Src: behind, Dst: world, SrcPort: 40000, DstPort: 53, Payload: 40})
	for i, p := range packettest.Fragments(query, 1, 16, 24) {
		r.play([]step{{vm1, p, internet, ""}, {internet, unreachable(world, behind, p), vm1, ""}})
		if i == 1 {
			r.play([]step{{internet, unreachable(world, behind, packettest.Fragments(query, 2, 16, 24)[1]), -1, "no_route"}})
		}
	}
}

// An error about a later fragment of an ICMP error is about no flow's packet.
func TestAnErrorAboutAFragmentOfAnICMPErrorIsForTheRules(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	f := families[0]
	answer := packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 53, DstPort: 40000, Payload: 40})
	report := packettest.Fragments(unreachable(f.vm1, f.world, answer), 1, 48, 8)
	r.play([]step{{vm1, packettest.UDP(f.query()), internet, ""}, {internet, answer, vm1, ""},
		{vm1, report[0], internet, ""}, {vm1, report[1], internet, ""},
		{internet, unreachable(f.world, f.vm1, report[1]), -1, "rule_deny"}})
}

func TestFragmentsOfOneDatagramMayComeInOnSeveralWorkers(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			e, err := New(dualStack(figureOfTheSeed()), Options{Attachments: figureSpecs, Workers: 2, Flows: conntrack.Options{Max: 1024}})
			if err != nil {
				t.Fatal(err)
			}
			var devices []tun.Device
			var memory []*tuntest.Memory
			for range numAttachments {
				d := newMemory(t, 2, 16)
				devices, memory = append(devices, d), append(memory, d)
			}
			if err := e.Attach(devices); err != nil {
				t.Fatal(err)
			}
			for i, p := range packettest.Fragments(packettest.UDP(f.query()), 1, 16, 16, 8) {
				memory[vm1].Inject(i%2, append(make([]byte, tun.HeaderLen), p...))
				if err := e.workers[i%2].carryBurst(vm1); err != nil {
					t.Fatal(err)
				}
				if n := memory[internet].Drain(i%2, nil); n != 1 {
					t.Errorf("fragment %d came out %d times", i, n)
				}
			}
		})
	}
}

func TestAFragmentIsNoSuperpacket(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	header := make([]byte, tun.HeaderLen)
	(&tun.Header{GSOType: tun.GSOUDPL4, GSOSize: 8}).Encode((*[tun.HeaderLen]byte)(header))
	r.devices[vm1].Inject(0, append(header, packettest.Fragments(packettest.UDP(families[0].query()), 1, 24)[0]...))
	if err := r.engine.workers[0].carryBurst(vm1); err != nil {
		t.Fatal(err)
	}
	if n := r.engine.Drops()[packet.DropOffload]; n != 1 {
		t.Errorf("%d drops under %s", n, packet.DropOffload)
	}
}

func TestProtocolsWithoutPortsAreFlows(t *testing.T) {
	const gre, unknown = packet.ProtoGRE, 253
	tests := []struct {
		name     string
		rule     ruleset.Protocol
		protocol uint8
		allowed  bool
	}{
		{"ESP by a rule for Esp", ruleset.ESP, packet.ProtoESP, true},
		{"ESP by a rule for any protocol", ruleset.AnyProtocol, packet.ProtoESP, true},
		{"ESP by a rule for Ah", ruleset.AH, packet.ProtoESP, false},
		{"AH by a rule for Ah", ruleset.AH, packet.ProtoAH, true},
		{"AH by a rule for Esp", ruleset.ESP, packet.ProtoAH, false},
		{"GRE by a rule for any protocol", ruleset.AnyProtocol, gre, true},
		{"GRE by a rule for Tcp", ruleset.TCP, gre, false},
		{"an unknown protocol by a rule for any protocol", ruleset.AnyProtocol, unknown, true},
		{"an unknown protocol by a rule for Udp", ruleset.UDP, unknown, false},
	}
	for _, tt := range tests {
		for _, f := range families {
			if tt.protocol == packet.ProtoAH && f.name == "IPv6" {
				continue // an extension header there: what it protects is judged
			}
			t.Run(tt.name+"/"+f.name, func(t *testing.T) {
				allow := anyRule("Allow", 100, ruleset.Inbound, ruleset.Allow)
				allow.Protocol = tt.rule
				rules := []ruleset.Rule{allow}
				r := newRig(t, dualStack(figure(rules, rules)), conntrack.Options{Max: 1024})
				in := packettest.Raw(packettest.Spec{Src: f.world, Dst: f.vm1, Payload: 40}, tt.protocol)
				out := packettest.Raw(packettest.Spec{Src: f.vm1, Dst: f.world, Payload: 40}, tt.protocol)
				if !tt.allowed {
					r.play([]step{{internet, in, -1, "rule_deny"}})
					return
				}
				r.play([]step{{internet, in, vm1, ""}})
				closed, err := r.engine.Prepare(dualStack(figure([]ruleset.Rule{anyRule("No", 100, ruleset.Outbound, ruleset.Deny)}, nil)))
				if err != nil {
					t.Fatal(err)
				}
				if err := r.engine.Swap(closed, nil); err != nil {
					t.Fatal(err)
				}
				r.play([]step{{vm1, out, internet, ""}, {internet, in, vm1, ""}})
			})
		}
	}
}
