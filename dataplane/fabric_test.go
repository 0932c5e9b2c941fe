package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// hostOf is a host with some of the figure's NICs and the fabric of its network.
func hostOf(t testing.TB, set *policy.Set, host string, specs ...topology.Spec) *Carrier {
	t.Helper()
	return hostIn(t, set, "vnet1", host, specs...)
}

// hostIn is a host with the fabric of a group of networks.
func hostIn(t testing.TB, set *policy.Set, group, host string, specs ...topology.Spec) *Carrier {
	t.Helper()
	o := Options{Attachments: append([]topology.Spec{{Kind: topology.Fabric, Reference: group}}, specs...), Flows: conntrack.Options{Max: 64, Seed: [2]uint64{1, 2}}}
	o.Topology.Host, o.Topology.Seed = host, 1
	c, err := NewCarrier(set, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// between are the first packet of a flow from vm1 to vm3, and its answer.
func between() (first, answer []byte) {
	s := packettest.Spec{Src: enginetest.Addr1, Dst: enginetest.Addr3, SrcPort: 40000, DstPort: 80, Flags: "S"}
	a := packettest.Spec{Src: s.Dst, Dst: s.Src, SrcPort: 80, DstPort: 40000, Flags: "SA", Ack: 1}
	return frameOf(tun.Header{}, packettest.TCP(s)), frameOf(tun.Header{}, packettest.TCP(a))
}

// The sender's host asks the sender's rules, the receiver's host the receiver's, each once.
func TestEachEndIsJudgedByItsHost(t *testing.T) {
	const fabric, local = 0, 1
	set := enginetest.Figure([]ruleset.Rule{enginetest.AnyRule("in1", 100, ruleset.Inbound, ruleset.Deny), enginetest.AnyRule("out1", 100, ruleset.Outbound, ruleset.Allow)},
		[]ruleset.Rule{enginetest.AnyRule("in2", 100, ruleset.Inbound, ruleset.Allow), enginetest.AnyRule("out2", 100, ruleset.Outbound, ruleset.Allow)})
	sender := hostOf(t, set, "left", topology.Spec{Kind: topology.NetworkInterface, Reference: "vm1-nic"})
	receiver := hostOf(t, set, "right", topology.Spec{Kind: topology.NetworkInterface, Reference: "vm3-nic"})
	at := time.Unix(1_800_000_000, 0)
	first, answer := between()
	for _, step := range []struct {
		name  string
		host  *Carrier
		from  int
		frame []byte
		to    int
		drop  packet.Drop
		slots int
	}{
		{"the first packet leaves by the sender's rules", sender, local, first, fabric, packet.NotDropped, 2},
		{"and arrives by the receiver's", receiver, fabric, first, local, packet.NotDropped, 1},
		{"the answer needs none", receiver, local, answer, fabric, packet.NotDropped, 1},
		{"at the sender's host neither, though its rules deny", sender, fabric, answer, local, packet.NotDropped, 2},
		{"a NIC that is attached here does not send from elsewhere", sender, fabric, first, 0, packet.DropSpoofed, 0},
		{"what is for a third host goes to none", receiver, fabric, frameOf(tun.Header{}, packettest.TCP(packettest.Spec{Src: enginetest.Addr1, Dst: enginetest.Addr4, SrcPort: 1, DstPort: 80, Flags: "S"})), 0, packet.DropNoRoute, 0},
	} {
		var r Carried
		step.host.Carry(at, step.from, step.frame, &r)
		if r.Drop != step.drop || r.Drop == packet.NotDropped && r.To != step.to || len(r.Slots) != step.slots {
			t.Errorf("%s: %s to %d by %d rules, want %s to %d by %d", step.name, r.Drop, r.To, len(r.Slots), step.drop, step.to, step.slots)
		}
	}
}

// trialOf is a candidate beside what a host carries, and reads what it was told once the host has carried.
func trialOf(t *testing.T, c *Carrier, next *policy.Set) (told func() []string) {
	t.Helper()
	snapshot, err := c.Engine().Candidate(next)
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := c.Engine().Judge(8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(decisions.Close)
	c.worker.beginWatch()
	return func() (list []string) {
		c.worker.endWatch()
		all := make([]watch.Decided, 8)
		for i := range all[:decisions.Read(all)] {
			var d verdict.Decision
			list = append(list, fmt.Sprintf("%v to %v", all[i].Drop, d.DecideFrom(snapshot, snapshot.Attachments[all[i].From], &all[i].Packet)))
		}
		return list
	}
}

// Each end of a flow between hosts is told to the candidate of its host, which judges that end alone.
func TestACandidateIsJudgedAtEachEnd(t *testing.T) {
	const fabric, local = 0, 1
	figure := func(out, in ruleset.Access) *policy.Set {
		return enginetest.Figure([]ruleset.Rule{enginetest.AnyRule("out", 100, ruleset.Outbound, out)}, []ruleset.Rule{enginetest.AnyRule("in", 100, ruleset.Inbound, in)})
	}
	hub := func(out, in ruleset.Access) *policy.Set { // answers take another way, so each end has a record of its own
		return hubWorld{right: byFW("10.1.0.0/24"), a: []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, out)}, b: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, in)}}.policy()
	}
	toVM3, _ := between()
	for _, world := range []struct {
		name            string
		policy          func(out, in ruleset.Access) *policy.Set
		group, from, to string
		first           []byte
		more            []topology.Spec
	}{
		{"answers by the same way", figure, "vnet1", "vm1-nic", "vm3-nic", toVM3, nil},
		{"answers by an appliance", hub, "/vnet/hub", "/nic/a", "/nic/b", frameOf(tun.Header{}, ab("S")), []topology.Spec{{Kind: topology.Fabric, Sort: topology.FabricInterface, Reference: "/nic/fw"}}},
	} {
		const same, denied, allowed = "none to none", "none to rule_deny", "rule_deny to none"
		for _, tt := range []struct {
			name                 string
			was, next            [2]ruleset.Access // outbound, inbound
			atSender, atReceiver []string
		}{
			{"nothing changes", [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, []string{same}, []string{same}},
			{"the sender's rules deny", [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, [2]ruleset.Access{ruleset.Deny, ruleset.Allow}, []string{denied}, []string{same}},
			{"the receiver's rules deny", [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, [2]ruleset.Access{ruleset.Allow, ruleset.Deny}, []string{same}, []string{denied}},
			{"the receiver's rules have denied", [2]ruleset.Access{ruleset.Allow, ruleset.Deny}, [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, []string{same}, []string{allowed}},
			{"the sender's rules have denied", [2]ruleset.Access{ruleset.Deny, ruleset.Allow}, [2]ruleset.Access{ruleset.Allow, ruleset.Allow}, []string{allowed}, nil},
		} {
			t.Run(world.name+"/"+tt.name, func(t *testing.T) {
				set, next := world.policy(tt.was[0], tt.was[1]), world.policy(tt.next[0], tt.next[1])
				hosts := map[string]*Carrier{}
				for _, nic := range []string{world.from, world.to} {
					hosts[nic] = hostIn(t, set, world.group, nic, append([]topology.Spec{{Kind: topology.NetworkInterface, Reference: nic}}, world.more...)...)
				}
				atSender, atReceiver := trialOf(t, hosts[world.from], next), trialOf(t, hosts[world.to], next)
				var r Carried
				at := time.Unix(1_800_000_000, 0)
				if hosts[world.from].Carry(at, local, world.first, &r); r.Drop == packet.NotDropped {
					hosts[world.to].Carry(at, fabric, world.first, &r)
				}
				if s, o := atSender(), atReceiver(); !slices.Equal(s, tt.atSender) || !slices.Equal(o, tt.atReceiver) {
					t.Errorf("at the sender %q, at the receiver %q, want %q and %q", s, o, tt.atSender, tt.atReceiver)
				}
			})
		}
	}
}

// An appliance that gets the answers alone begins a record of them on its host, and its rules are judged.
func TestACandidateIsJudgedWhereAnApplianceGetsAnswers(t *testing.T) {
	const appliances = 2
	world := func(a ruleset.Access) *policy.Set {
		return hubWorld{right: byFW("10.1.0.0/24"), fw: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, a)}}.policy()
	}
	host := hostIn(t, world(ruleset.Allow), "/vnet/hub", "fw", topology.Spec{Kind: topology.NetworkInterface, Reference: "/nic/fw"},
		topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInterface, Reference: "/nic/fw"})
	told := trialOf(t, host, world(ruleset.Deny))
	var r Carried
	host.Carry(time.Unix(1_800_000_000, 0), appliances, frameOf(tun.Header{}, ba("SA")), &r)
	if list := told(); r.Drop != packet.NotDropped || !slices.Equal(list, []string{"none to rule_deny"}) {
		t.Errorf("%v: %q", r.Drop, list)
	}
}

func TestPacketsBetweenHostsAllocateNothing(t *testing.T) {
	const fabric, local = 0, 1
	set := enginetest.FigureOfTheSeed()
	sender := hostOf(t, set, "left", topology.Spec{Kind: topology.NetworkInterface, Reference: "vm4-nic"})
	receiver := hostOf(t, set, "right", topology.Spec{Kind: topology.NetworkInterface, Reference: "vm3-nic"})
	s := packettest.Spec{Src: enginetest.Addr4, Dst: enginetest.Addr3, SrcPort: 40000, DstPort: 80, Flags: "S"}
	out := frameOf(tun.Header{}, packettest.TCP(s))
	back := frameOf(tun.Header{}, packettest.TCP(packettest.Spec{Src: s.Dst, Dst: s.Src, SrcPort: 80, DstPort: 40000, Flags: "SA", Ack: 1}))
	at := time.Unix(1_800_000_000, 0)
	var r Carried
	dropped := 0
	carry := func(c *Carrier, from int, frame []byte) {
		if c.Carry(at, from, frame, &r); r.Drop != packet.NotDropped {
			dropped++
		}
	}
	n := testing.AllocsPerRun(50, func() {
		carry(sender, local, out)
		carry(receiver, fabric, out)
		carry(receiver, local, back)
		carry(sender, fabric, back)
	})
	if n != 0 || dropped != 0 {
		t.Errorf("%v allocations, %d packets dropped, the last by %s", n, dropped, r.Drop)
	}
}

var publicOutbound = netip.MustParseAddr("203.0.113.250")

// Two hosts with the internet translate for a third with ports of their own, and answers go back by the host that they came to.
func TestHostsWithTheInternetShareAnAddress(t *testing.T) {
	set := enginetest.Figure(nil, nil)
	set.NetworkSecurityGroups[0].Rules = []ruleset.Rule{enginetest.AnyRule("out1", 100, ruleset.Outbound, ruleset.Allow)}
	at := time.Unix(1_800_000_000, 0)
	toInternet := func(host string) topology.Spec {
		return topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInternet, Reference: "vnet1", Host: host}
	}
	seen := map[uint16]bool{}
	for index, name := range []string{"east", "west"} {
		o := Options{Attachments: []topology.Spec{{Kind: topology.Fabric, Reference: "vnet1"}, toInternet("east"), toInternet("west"), {Kind: topology.Internet}},
			Flows: conntrack.Options{Max: 4096, Seed: [2]uint64{1, 2}}}
		o.Topology = topology.Options{Host: name, Seed: 1, DefaultOutbound: publicOutbound, InternetShare: topology.Share{Index: index, Of: 2}}
		c, err := NewCarrier(set, o)
		if err != nil {
			t.Fatal(err)
		}
		own, inet := 1+index, 3
		for port := uint16(1000); port < 2000; port++ {
			s := packettest.Spec{Src: enginetest.Addr4, Dst: "198.51.100.7", SrcPort: port, DstPort: 53, Payload: 8}
			frame := frameOf(tun.Header{}, packettest.UDP(s))
			var r Carried
			if c.Carry(at, own, frame, &r); r.Drop != packet.NotDropped || r.To != inet {
				t.Fatalf("%s, port %d: %s to %d", name, port, r.Drop, r.To)
			}
			var d packet.Decoder
			var p packet.Packet
			d.Decode(frame[tun.HeaderLen:], 0, &p)
			if p.Src.Netip() != publicOutbound || seen[p.SrcPort] {
				t.Fatalf("%s: %s: the address is another, or the port is given twice", name, p.Tuple)
			}
			seen[p.SrcPort] = true
			answer := frameOf(tun.Header{}, packettest.UDP(packettest.Spec{Src: s.Dst, Dst: publicOutbound.String(), SrcPort: 53, DstPort: p.SrcPort, Payload: 8}))
			if c.Carry(at, inet, answer, &r); r.Drop != packet.NotDropped || r.To != own || len(r.Slots) != 0 {
				t.Fatalf("%s: the answer to port %d: %s to %d by %d rules", name, p.SrcPort, r.Drop, r.To, len(r.Slots))
			}
			d.Decode(answer[tun.HeaderLen:], 0, &p)
			if p.Dst.Netip().String() != enginetest.Addr4 || p.DstPort != port {
				t.Fatalf("%s: the answer arrives as %s", name, p.Tuple)
			}
			if c.Carry(at, 3-own, answer, &r); r.Drop == packet.NotDropped { // of the other host's fabric
				t.Fatalf("%s: what is for NICs elsewhere was carried to %d", name, r.To)
			}
		}
	}
}
