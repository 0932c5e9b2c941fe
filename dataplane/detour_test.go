package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// The attachments of the hub's world.
const (
	atA  = iota // 10.1.0.4 in network "left"
	atB         // 10.2.0.4 in network "right"
	atFW        // 10.0.0.4 in the hub, which forwards
	atOut
	atOnPremises
)

const (
	addrA  = "10.1.0.4"
	addrB  = "10.2.0.4"
	addrFW = "10.0.0.4"
	addrOn = "192.168.0.9"
)

var hubSpecs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "a"}, {Kind: topology.NetworkInterface, Reference: "b"},
	{Kind: topology.NetworkInterface, Reference: "fw"}, {Kind: topology.Internet},
	{Kind: topology.Gateway, Reference: "hub", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}},
}

func hubRig(t *testing.T, h hubWorld) *rig {
	t.Helper()
	return newRigWith(t, h.policy(), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64}})
}

// hubWorld is a hub with an appliance, two networks peered with it, and their routes to each other:
// through the appliance where left or right is set.
type hubWorld struct {
	left, right []policy.Route
	// rules of the NSG of each NIC; nil: no NSG.
	a, b, fw []ruleset.Rule
	edit     func(*policy.Set)
}

func (h hubWorld) policy() *policy.Set {
	set := &policy.Set{}
	var networks []*policy.VirtualNetwork
	for i, name := range []string{"hub", "left", "right"} {
		p := []string{"10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24"}[i]
		v := &policy.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{netip.MustParsePrefix(p)}}
		v.Subnets = []*policy.Subnet{{Name: "s", ID: v.ID + "/s", VirtualNetwork: v, Prefixes: v.AddressSpace}}
		networks = append(networks, v)
	}
	set.VirtualNetworks = networks
	hub := networks[0]
	for i, v := range networks[1:] {
		hub.Peerings = append(hub.Peerings, policy.Peering{Name: v.Name, Remote: v, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true, AllowGatewayTransit: true})
		v.Peerings = []policy.Peering{{Name: "hub", Remote: hub, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true, UseRemoteGateways: true}}
		if routes := [][]policy.Route{h.left, h.right}[i]; routes != nil {
			v.Subnets[0].RouteTable = &policy.RouteTable{Name: v.Name, ID: "/rt/" + v.Name, Routes: routes}
		}
	}
	// The two are peers as well, so that there is a straight way.
	left, right := networks[1], networks[2]
	left.Peerings = append(left.Peerings, policy.Peering{Name: "right", Remote: right, AllowVirtualNetworkAccess: true})
	right.Peerings = append(right.Peerings, policy.Peering{Name: "left", Remote: left, AllowVirtualNetworkAccess: true})
	for i, name := range []string{"a", "b", "fw"} {
		nic := &policy.NetworkInterface{Name: name, ID: "/nic/" + name, EnableIPForwarding: name == "fw", IPConfigurations: []policy.IPConfiguration{{
			Name: "c", Address: netip.MustParseAddr([]string{addrA, addrB, addrFW}[i]), Subnet: networks[[]int{1, 2, 0}[i]].Subnets[0], Primary: true}}}
		if rules := [][]ruleset.Rule{h.a, h.b, h.fw}[i]; rules != nil {
			nic.NetworkSecurityGroup = &ruleset.NSG{Name: name + "-nsg", ID: "/nsg/" + name, Rules: rules}
			set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, nic.NetworkSecurityGroup)
		}
		set.NetworkInterfaces = append(set.NetworkInterfaces, nic)
	}
	if h.edit != nil {
		h.edit(set)
	}
	return set
}

// byFW sends a prefix through the appliance.
func byFW(prefix string) []policy.Route {
	return []policy.Route{{Name: "fw", Prefix: netip.MustParsePrefix(prefix), Hop: policy.HopVirtualAppliance, Appliance: netip.MustParseAddr(addrFW)}}
}

// ab and ba are segments of one connection from a to b.
func ab(flags string) []byte {
	return packettest.TCP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 40000, DstPort: 80, Flags: flags})
}

func ba(flags string) []byte {
	return packettest.TCP(packettest.Spec{Src: addrB, Dst: addrA, SrcPort: 80, DstPort: 40000, Flags: flags})
}

// allowPort allows TCP to port 80, and nothing besides: the default rules are denied.
func allowPort(d ruleset.Direction) []ruleset.Rule {
	allow, deny := anyRule("http", 100, d, ruleset.Allow), anyRule("deny", 200, d, ruleset.Deny)
	allow.Protocol, allow.DestinationPorts = ruleset.TCP, []ruleset.PortRange{{First: 80, Last: 80}}
	return []ruleset.Rule{allow, deny}
}

func TestAConnectionThroughAnAppliance(t *testing.T) {
	both := hubWorld{left: byFW("10.2.0.0/24"), right: byFW("10.1.0.0/24")}
	toFW := hubWorld{left: byFW("10.2.0.0/24")}
	fromFW := hubWorld{right: byFW("10.1.0.0/24")}
	guarded := func(h hubWorld) hubWorld {
		h.a = []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Deny)}
		h.b = append(allowPort(ruleset.Inbound), anyRule("out", 300, ruleset.Outbound, ruleset.Deny))
		return h
	}
	symmetric := []step{
		{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""},
		{atB, ba("SA"), atFW, ""}, {atFW, ba("SA"), atA, ""},
		{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""},
		{atB, ba("PA"), atFW, ""}, {atFW, ba("PA"), atA, ""},
	}
	back := []step{ // straight back
		{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""},
		{atB, ba("SA"), atA, ""},
		{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""},
		{atB, ba("PA"), atA, ""}, {atA, ab("FA"), atFW, ""}, {atFW, ab("FA"), atB, ""}, {atB, ba("FA"), atA, ""},
	}
	there := []step{ // straight there, back through the appliance
		{atA, ab("S"), atB, ""},
		{atB, ba("SA"), atFW, ""}, {atFW, ba("SA"), atA, ""},
		{atA, ab("A"), atB, ""},
		{atB, ba("PA"), atFW, ""}, {atFW, ba("PA"), atA, ""}, {atA, ab("FA"), atB, ""}, {atB, ba("FA"), atFW, ""}, {atFW, ba("FA"), atA, ""},
	}
	tests := []struct {
		name  string
		world hubWorld
		legs  []step
	}{
		{"both ways", both, symmetric},
		{"both ways, with NSGs that allow the connection and nothing back", guarded(both), symmetric},
		{"there only", toFW, back},
		{"there only, with NSGs that allow the connection and nothing back", guarded(toFW), back},
		{"back only", fromFW, there},
		{"back only, with NSGs that allow the connection and nothing back", guarded(fromFW), there},
		{"the appliance's NSG denies what comes in", hubWorld{left: both.left, right: both.right, fw: []ruleset.Rule{anyRule("d", 100, ruleset.Inbound, ruleset.Deny)}},
			[]step{{atA, ab("S"), 0, "rule_deny"}}},
		{"the appliance's NSG denies what it sends on, though the source is not its own", hubWorld{left: both.left, right: both.right, fw: []ruleset.Rule{anyRule("d", 100, ruleset.Outbound, ruleset.Deny)}},
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), 0, "rule_deny"}}},
		{"the receiver's NSG sees the sender's address behind the appliance", hubWorld{left: both.left, right: both.right, b: []ruleset.Rule{
			{Name: "d", Priority: 100, Access: ruleset.Deny, Source: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix(addrA + "/32")}}, Destination: ruleset.Peer{Any: true},
				SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}}},
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), 0, "rule_deny"}}},
		{"the appliance's NSG denies answers that come back through it alone", hubWorld{right: fromFW.right, fw: []ruleset.Rule{anyRule("d", 100, ruleset.Inbound, ruleset.Deny)}},
			[]step{{atA, ab("S"), atB, ""}, {atB, ba("SA"), 0, "rule_deny"}}},
		{"an answer that the appliance makes up goes by the rules of whom it is for", guarded(toFW),
			[]step{{atFW, ab("S"), atB, ""}, {atB, ba("SA"), 0, "rule_deny"}}},
		{"a SYN+ACK that nobody asked for", both, []step{{atB, ba("SA"), 0, "tcp_no_syn"}}},
		{"the way back is closed", hubWorld{right: []policy.Route{{Name: "n", Prefix: netip.MustParsePrefix("10.1.0.0/24"), Hop: policy.HopNone}}},
			[]step{{atA, ab("S"), atB, ""}, {atB, ba("SA"), 0, "route_none"}, {atB, ba("R"), 0, "route_none"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hubRig(t, tt.world).play(tt.legs)
		})
	}
}

// On the way there the appliance's own end sees one direction only.
func TestAnEndThatSeesOneDirectionKeepsUpWithIt(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}})
	for range 20 { // beyond every timeout together, but never idle for long
		r.clock += 20 * time.Second
		r.play([]step{{atA, ab("PA"), atFW, ""}, {atFW, ab("PA"), atB, ""}, {atB, ba("A"), atA, ""}})
	}
	r.play([]step{{atA, ab("RA"), atFW, ""}, {atFW, ab("RA"), atB, ""}})
}

func TestTheInternetAnswersTheWayThatItWasAsked(t *testing.T) {
	out := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 40000, DstPort: 80, Flags: flags})
	}
	in := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: world, Dst: addrA, SrcPort: 80, DstPort: 40000, Flags: flags})
	}
	t.Run("asked through the appliance", func(t *testing.T) {
		hubRig(t, hubWorld{left: byFW("0.0.0.0/0")}).play([]step{
			{atA, out("S"), atFW, ""}, {atFW, out("S"), atOut, ""}, {atOut, in("SA"), atFW, ""}, {atFW, in("SA"), atA, ""}})
	})
	t.Run("a connection from the internet is answered through the appliance", func(t *testing.T) {
		hubRig(t, hubWorld{left: byFW("0.0.0.0/0")}).play([]step{
			{atOut, in("S"), atA, ""}, {atA, out("SA"), atFW, ""}, {atFW, out("SA"), atOut, ""}, {atOut, in("A"), atA, ""}})
	})
}

func TestOnPremises(t *testing.T) {
	udp := func(src, dst string) []byte {
		return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 5000, DstPort: 5000})
	}
	tests := []struct {
		name  string
		world hubWorld
		legs  []step
	}{
		{"reaches the networks that borrow the gateway, and is answered", hubWorld{}, []step{{atOnPremises, udp(addrOn, addrA), atA, ""}, {atA, udp(addrA, addrOn), atOnPremises, ""}}},
		{"is VirtualNetwork to their NSGs", hubWorld{a: []ruleset.Rule{}}, []step{{atOnPremises, udp(addrOn, addrA), atA, ""}}},
		{"is not what the internet can claim to be", hubWorld{a: []ruleset.Rule{}}, []step{{atOut, udp(addrOn, addrA), 0, "spoofed_source"}}},
		{"has the addresses behind the gateway only", hubWorld{}, []step{{atOnPremises, udp(addrB, addrA), 0, "spoofed_source"}}},
		{"goes straight, and is answered through an appliance", hubWorld{left: byFW("192.168.0.0/16")},
			[]step{{atOnPremises, udp(addrOn, addrA), atA, ""}, {atA, udp(addrA, addrOn), atFW, ""}, {atFW, udp(addrA, addrOn), atOnPremises, ""}, {atOnPremises, udp(addrOn, addrA), atA, ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hubRig(t, tt.world).play(tt.legs)
		})
	}
}

func TestRulesOfBothEndsCountAFlowWhoseAnswersGoAnotherWay(t *testing.T) {
	h := hubWorld{left: byFW("10.2.0.0/24"), a: allowPort(ruleset.Outbound), b: allowPort(ruleset.Inbound), fw: allowPort(ruleset.Inbound)}
	r := hubRig(t, h)
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}})
	for _, tt := range []struct {
		group string
		d     ruleset.Direction
		rule  string
		want  counter.Rule
	}{
		{"a-nsg", ruleset.Outbound, "http", counter.Rule{Hits: 1, Packets: 2, Bytes: 80}}, // its SYN, and the answer
		{"fw-nsg", ruleset.Inbound, "http", counter.Rule{Hits: 1, Packets: 2, Bytes: 80}}, // one leg with a's rule
		{"b-nsg", ruleset.Inbound, "http", counter.Rule{Hits: 1, Packets: 2, Bytes: 80}},
	} {
		if got := r.count(tt.group, tt.d, tt.rule); got != tt.want {
			t.Errorf("%s %s %s counted %+v, want %+v", tt.group, tt.d, tt.rule, got, tt.want)
		}
	}
}

func TestADenialAtTheReceiversEndCountsTheSendersRulesToo(t *testing.T) {
	h := hubWorld{left: byFW("10.2.0.0/24"), b: []ruleset.Rule{anyRule("deny", 100, ruleset.Inbound, ruleset.Deny)}, fw: []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, ruleset.Allow)}}
	r := hubRig(t, h)
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), 0, "rule_deny"}})
	want := counter.Rule{Hits: 1, Packets: 1, Bytes: 40}
	if out, in := r.count("fw-nsg", ruleset.Outbound, "out"), r.count("b-nsg", ruleset.Inbound, "deny"); out != want || in != want {
		t.Errorf("counted %+v and %+v, want %+v", out, in, want)
	}
}

func TestErrorsAndFragmentsOfAFlowWhoseAnswersGoAnotherWay(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24"), a: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Deny)}})
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}})
	unreachable := packettest.ICMPError(packettest.Spec{Src: addrB, Dst: addrA, ICMPType: 3, ICMPCode: 4}, ab("S"))
	r.play([]step{{atB, unreachable, atA, ""}})
	stranger := packettest.ICMPError(packettest.Spec{Src: addrB, Dst: addrA, ICMPType: 3}, packettest.TCP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 1, DstPort: 1, Flags: "S"}))
	r.play([]step{{atB, stranger, 0, "rule_deny"}})

	datagram := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 7, DstPort: 7, Payload: 100}), 9, 48)
	answer := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addrB, Dst: addrA, SrcPort: 7, DstPort: 7, Payload: 100}), 9, 48)
	r.play([]step{{atA, datagram[0], atFW, ""}, {atFW, datagram[0], atB, ""}, {atA, datagram[1], atFW, ""}, {atFW, datagram[1], atB, ""},
		{atB, answer[0], atA, ""}, {atB, answer[1], atA, ""}})
}

func TestWhatAReloadOfRoutesAndPeeringsEnds(t *testing.T) {
	direct := hubWorld{}
	through := hubWorld{left: byFW("10.2.0.0/24"), right: byFW("10.1.0.0/24")}
	cut := hubWorld{edit: func(s *policy.Set) {
		s.VirtualNetworks[1].Peerings = s.VirtualNetworks[1].Peerings[:1]
		s.VirtualNetworks[2].Peerings = s.VirtualNetworks[2].Peerings[:1]
	}}
	denied := hubWorld{b: []ruleset.Rule{anyRule("d", 100, ruleset.Inbound, ruleset.Deny)}}
	tests := []struct {
		name          string
		before, after hubWorld
		first, then   []step
	}{
		{"a changed rule ends nothing", direct, denied,
			[]step{{atA, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}}, []step{{atA, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}}},
		{"a peering that is taken away", direct, cut,
			[]step{{atA, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}}, []step{{atA, ab("A"), 0, "no_route"}, {atB, ba("A"), 0, "no_route"}}},
		{"a new way through the appliance is taken, by the rules", direct, through,
			[]step{{atA, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}}, []step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}, {atB, ba("A"), atFW, ""}, {atFW, ba("A"), atA, ""}}},
		{"the straight way is taken again", through, direct,
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atFW, ""}, {atFW, ba("SA"), atA, ""}}, []step{{atA, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}}},
		{"a way back that changes", through, hubWorld{left: byFW("10.2.0.0/24")},
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atFW, ""}, {atFW, ba("SA"), atA, ""}}, []step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}}},
		{"a flow that takes two ways goes on by the routes of now", hubWorld{left: byFW("10.2.0.0/24")}, direct,
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}}, []step{{atB, ba("A"), atA, ""}, {atA, ab("A"), atB, ""}}},
		{"an appliance that stops forwarding", through, hubWorld{left: through.left, right: through.right, edit: func(s *policy.Set) { s.NetworkInterfaces[2].EnableIPForwarding = false }},
			[]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}}, []step{{atA, ab("A"), 0, "next_hop"}, {atFW, ab("A"), 0, "spoofed_source"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := hubRig(t, tt.before)
			r.play(tt.first)
			next, err := r.engine.Prepare(tt.after.policy())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Swap(next, nil); err != nil {
				t.Fatal(err)
			}
			r.play(tt.then)
		})
	}
}

func TestPacketsOfRoutedFlowsAllocateNothing(t *testing.T) {
	for name, h := range map[string]hubWorld{"both ways": {left: byFW("10.2.0.0/24"), right: byFW("10.1.0.0/24")}, "there only": {left: byFW("10.2.0.0/24")}} {
		r := hubRig(t, h)
		legs := []step{{atA, ab("S"), 0, ""}, {atFW, ab("S"), 0, ""}, {atB, ba("SA"), 0, ""}}
		if name == "both ways" {
			legs = append(legs, step{atFW, ba("SA"), 0, ""})
		}
		frames := make([][]byte, len(legs))
		for i, l := range legs {
			frames[i] = frameOf(tun.Header{}, l.packet)
		}
		w := r.engine.workers[0]
		carried := 0
		n := testing.AllocsPerRun(20, func() {
			for i, l := range legs {
				r.devices[l.from].Inject(0, frames[i])
				if err := w.carryBurst(l.from); err != nil {
					t.Fatal(err)
				}
				for _, d := range r.devices {
					carried += d.Drain(0, nil)
				}
			}
		})
		if n != 0 || carried != 21*len(legs) {
			t.Errorf("%s: %v allocations, %d of %d packets carried: %v", name, n, carried, 21*len(legs), r.engine.Drops())
		}
	}
}
