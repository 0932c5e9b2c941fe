package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// hostOf is a host with some of the figure's NICs and the fabric of its network.
func hostOf(t testing.TB, set *policy.Set, host string, specs ...topology.Spec) *Carrier {
	t.Helper()
	o := Options{Attachments: append([]topology.Spec{{Kind: topology.Fabric, Reference: "vnet1"}}, specs...), Flows: conntrack.Options{Max: 64, Seed: [2]uint64{1, 2}}}
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
