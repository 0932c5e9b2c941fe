package dataplane

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/virtio"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

func datagramBetween(src, dst string, from, to uint16) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: from, DstPort: to})
}

func TestAForwardingNICDoesNotSpeakForThePlatform(t *testing.T) {
	lb := anyRule("vnet", 200, ruleset.Inbound, ruleset.Deny)
	lb.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, h := range []hubWorld{{a: []ruleset.Rule{lb}}, {a: []ruleset.Rule{lb}, left: byFW("10.2.0.0/24")}} {
		r := hubRig(t, h)
		r.play([]step{{atFW, datagramBetween("168.63.129.16", addrA, 53, 4444), 0, "spoofed_source"}})
	}
}

func TestKMSIsNoServiceUnderADefaultRouteThatAGatewayHasLearned(t *testing.T) {
	specs := append([]topology.Spec(nil), hubSpecs...)
	specs[4].Prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	r := newRigWith(t, hubWorld{a: []ruleset.Rule{anyRule("d", 100, ruleset.Outbound, ruleset.Deny)}}.policy(),
		Options{Attachments: specs, Flows: conntrack.Options{Max: 64}})
	r.play([]step{{atA, packettest.TCP(packettest.Spec{Src: addrA, Dst: "23.102.135.246", SrcPort: 4000, DstPort: 1688, Flags: "S"}), 0, "rule_deny"}})
}

func TestAnswersToTheInternetTakeTheDefaultRouteThatAGatewayHasLearned(t *testing.T) {
	specs := append([]topology.Spec(nil), hubSpecs...)
	specs[4].Prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	for _, h := range []hubWorld{{right: byFW("198.18.0.0/24")}, {}} {
		r := newRigWith(t, h.policy(), Options{Attachments: specs, Flows: conntrack.Options{Max: 64}})
		r.play([]step{{atOut, datagramBetween(world, addrA, 5, 5), atA, ""}, {atA, datagramBetween(addrA, world, 5, 5), atOnPremises, ""}})
	}
}

func TestPort25IsBlockedOnADetourToo(t *testing.T) {
	syn := packettest.TCP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 4000, DstPort: 25, Flags: "S"})
	// a -> fw one way only: fw's subnet goes straight to the internet, answers from fw to "world" differ
	h := hubWorld{left: byFW("0.0.0.0/0"), edit: func(s *policy.Set) {
		hub := s.VirtualNetworks[0].Subnets[0]
		hub.RouteTable = &policy.RouteTable{Name: "h", ID: "/rt/h", Routes: []policy.Route{{Name: "x", Prefix: netip.MustParsePrefix("10.1.0.0/24"), Hop: policy.HopNone}}}
	}}
	after := hubWorld{left: []policy.Route{{Name: "n", Prefix: netip.MustParsePrefix("198.18.0.0/24"), Hop: policy.HopNone}}}
	r := newRigWith(t, h.policy(), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64}, Subscription: topology.Subscription{Type: "payg"}})
	r.play([]step{{atA, syn, atFW, ""}, {atFW, syn, 0, "smtp_blocked"}})
	swap(t, r, after.policy())
	if to, drop := r.send(atA, syn); to >= 0 {
		t.Errorf("port 25 came out at %d %s", to, drop)
	}
}

func TestRecordsOfOneEndEndWithItsAddress(t *testing.T) {
	for _, moves := range []string{addrA, addrB} {
		r := hubRig(t, hubWorld{right: byFW("10.1.0.0/24")})
		d := datagramBetween(addrA, addrB, 7, 7)
		r.play([]step{{atA, d, atB, ""}})
		before := r.engine.Flows().Stats().Flows
		swap(t, r, hubWorld{right: byFW("10.1.0.0/24"), edit: func(s *policy.Set) {
			for _, nic := range s.NetworkInterfaces {
				if c := &nic.IPConfigurations[0]; c.Address == netip.MustParseAddr(moves) {
					next := c.Address.As4()
					next[3] += 40
					c.Address = netip.AddrFrom4(next)
				}
			}
		}}.policy())
		if after := r.engine.Flows().Stats().Flows; before != 2 || after != 1 {
			t.Errorf("%s moved: %d of %d records are left, want the other end's of 2", moves, after, before)
		}
	}
}

func TestLaterFragmentsEndWithTheFlowAtTheReceiversEnd(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24"), b: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}})
	d := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 7, DstPort: 7, Payload: 200}), 9, 48, 48)
	r.play([]step{{atA, d[0], atFW, ""}, {atFW, d[0], atB, ""}, {atFW, d[1], atB, ""}})
	// b's end ends (as judged again, or by the operator)
	n := 0
	r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		if _, whole := r.engine.Room().Attachment(f.Key.Zone); !whole && f.ReplyKey.Zone == atB {
			k := f.Key
			r.engine.Flows().End(&k)
			n++
		}
		return true
	})
	if n != 1 {
		t.Fatalf("%d ended", n)
	}
	r.play([]step{{atFW, d[2], 0, "fragment_no_first"}})
}

func TestLaterFragmentsDoNotTakeAWayThatAReloadHasCut(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
	d := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 7, DstPort: 7, Payload: 200}), 9, 48, 48)
	r.play([]step{{atFW, d[0], atB, ""}, {atFW, d[1], atB, ""}})
	swap(t, r, hubWorld{left: byFW("10.2.0.0/24"), edit: func(s *policy.Set) { // hub and right are no peers any more
		s.VirtualNetworks[0].Peerings = s.VirtualNetworks[0].Peerings[:1]
		s.VirtualNetworks[2].Peerings = s.VirtualNetworks[2].Peerings[1:]
	}}.policy())
	r.play([]step{{atFW, datagramBetween(addrA, addrB, 7, 7), 0, "no_route"}})
	if to, drop := r.send(atFW, d[2]); to >= 0 {
		t.Errorf("a later fragment came out at %d %s, there is no way now", to, drop)
	}
}

func TestPingOfWhichRequestsOrAnswersAloneTakeTheAppliance(t *testing.T) {
	ping := packettest.ICMP(packettest.Spec{Src: addrA, Dst: addrB, ICMPType: 8, ICMPID: 7})
	pong := packettest.ICMP(packettest.Spec{Src: addrB, Dst: addrA, ICMPType: 0, ICMPID: 7})
	t.Run("back", func(t *testing.T) {
		r := hubRig(t, hubWorld{right: byFW("10.1.0.0/24")})
		for range 3 {
			r.play([]step{{atA, ping, atB, ""}, {atB, pong, atFW, ""}, {atFW, pong, atA, ""}})
		}
	})
	t.Run("there", func(t *testing.T) {
		r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
		for range 3 {
			r.play([]step{{atA, ping, atFW, ""}, {atFW, ping, atB, ""}, {atB, pong, atA, ""}})
		}
	})
}

func TestNoRSTBeginsARecordAtTheReceiversEnd(t *testing.T) {
	for _, flags := range []string{"R", "SA", "RA"} {
		r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
		r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}})
		r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
			if _, whole := r.engine.Room().Attachment(f.Key.Zone); !whole && f.ReplyKey.Zone == atB {
				k := f.Key
				r.engine.Flows().End(&k)
			}
			return true
		})
		if to, drop := r.send(atFW, ab(flags)); to >= 0 {
			t.Errorf("%s began at the receiver's end: out at %d %s", flags, to, drop)
		}
	}
}

func TestFragmentsOfADeniedDatagramCountOnTheRulesOfBothEnds(t *testing.T) {
	h := hubWorld{left: byFW("10.2.0.0/24"), b: []ruleset.Rule{anyRule("deny", 100, ruleset.Inbound, ruleset.Deny)}, fw: []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, ruleset.Allow)}}
	r := hubRig(t, h)
	d := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 7, DstPort: 7, Payload: 200}), 9, 48, 48)
	r.play([]step{{atFW, d[0], 0, "rule_deny"}, {atFW, d[1], 0, "rule_deny"}, {atFW, d[2], 0, "rule_deny"}})
	if out, in := r.count("fw-nsg", ruleset.Outbound, "out"), r.count("b-nsg", ruleset.Inbound, "deny"); out != in {
		t.Errorf("sender's %+v, receiver's %+v", out, in)
	}
}

func TestSpokesReachEachOtherByADefaultRouteToTheAppliance(t *testing.T) {
	h := hubWorld{left: byFW("0.0.0.0/0"), right: byFW("0.0.0.0/0"), edit: func(s *policy.Set) { // no straight peering
		s.VirtualNetworks[1].Peerings = s.VirtualNetworks[1].Peerings[:1]
		s.VirtualNetworks[2].Peerings = s.VirtualNetworks[2].Peerings[:1]
	}}
	r := hubRig(t, h)
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atFW, ""}, {atFW, ba("SA"), atA, ""}})
}

func TestNoEchoReplyBeginsARecordAtTheReceiversEnd(t *testing.T) {
	ping := packettest.ICMP(packettest.Spec{Src: addrA, Dst: addrB, ICMPType: 8, ICMPID: 7})
	pong := packettest.ICMP(packettest.Spec{Src: addrB, Dst: addrA, ICMPType: 0, ICMPID: 7})
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
	r.play([]step{{atA, ping, atFW, ""}, {atFW, ping, atB, ""}, {atB, pong, atA, ""}})
	r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool { // a's end goes
		if f.Key.Zone == atA {
			k := f.Key
			r.engine.Flows().End(&k)
		}
		return true
	})
	if to, drop := r.send(atB, pong); to >= 0 {
		t.Errorf("an echo reply that nobody at a's end asked for came out at %d %s", to, drop)
	}
}

func TestAReloadThatOvertakesABurstCountsAPacketOnce(t *testing.T) {
	h := hubWorld{left: byFW("10.2.0.0/24"), a: allowPort(ruleset.Outbound), b: allowPort(ruleset.Inbound), fw: allowPort(ruleset.Outbound)}
	r := hubRig(t, h)
	w, old := r.engine.workers[0], r.engine.Snapshot()
	swap(t, r, h.policy())
	w.time = r.clock
	w.now = ticks(r.clock)
	var g slot
	g.frame = append(make([]byte, tun.HeaderLen), ab("S")...)
	from := old.Attachments[atFW]
	if g.drop = virtio.Decode(&w.decoder, g.frame, &g.packet); g.drop != packet.NotDropped {
		t.Fatal(g.drop)
	}
	g.key.Set(&g.packet.Tuple, uint16(from.Index))
	g.hash = w.flows.Hash(&g.key)
	drop := w.passage.carry(old, from, &g)
	w.counters.Flush()
	if fw, b := r.count("fw-nsg", ruleset.Outbound, "http"), r.count("b-nsg", ruleset.Inbound, "http"); fw.Packets != 1 || b.Packets != 1 || fw.Hits != 1 || b.Hits != 1 {
		t.Errorf("%v: one packet counted %+v and %+v", drop, fw, b)
	}
}
