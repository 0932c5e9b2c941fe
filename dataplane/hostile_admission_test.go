package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// parsed reads a policy of ARM resources.
func parsed(t *testing.T, text string) *policy.Set {
	t.Helper()
	d := arm.Parse("policy.json", []byte(text))
	for _, f := range d.Faults {
		t.Fatal(f.Error())
	}
	return d.Set
}

// corporate is a network with a NIC, as its owner would write it: port 22 is open to all private
// space. Its peer is not among the documents, nor is the appliance of one of its routes.
const corporate = `[
 {"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "properties": {"securityRules": [
  {"name": "corp", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "*", "sourceAddressPrefixes": ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"], "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22"}},
  {"name": "any", "properties": {"priority": 200, "direction": "Inbound", "access": "Allow", "protocol": "*", "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80"}}]}},
 {"type": "Microsoft.Network/routeTables", "name": "rt", "properties": {"routes": [
  {"name": "onprem", "properties": {"addressPrefix": "172.20.0.0/16", "nextHopType": "VirtualNetworkGateway"}},
  {"name": "partner", "properties": {"addressPrefix": "8.8.0.0/16", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.9.9"}},
  {"name": "direct", "properties": {"addressPrefix": "9.9.0.0/16", "nextHopType": "Internet"}},
  {"name": "inspected", "properties": {"addressPrefix": "4.4.0.0/16", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.2.4"}},
  {"name": "all", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.2.4"}}]}},
 {"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16", "fd00::/48"]}, "subnets": [
   {"name": "s", "properties": {"addressPrefixes": ["10.0.1.0/24", "fd00:0:0:1::/64"], "networkSecurityGroup": {"id": "g"}, "routeTable": {"id": "rt"}}},
   {"name": "fw", "properties": {"addressPrefix": "10.0.2.0/24"}}],
  "virtualNetworkPeerings": [{"name": "p", "properties": {"peeringState": "Connected", "remoteVirtualNetwork": {"id": "other"}, "remoteAddressSpace": {"addressPrefixes": ["10.7.0.0/16", "20.7.0.0/16"]}}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "vm", "properties": {"ipConfigurations": [
   {"name": "c", "properties": {"privateIPAddress": "10.0.1.4", "subnet": {"id": "v/s"}}},
   {"name": "d", "properties": {"privateIPAddress": "fd00:0:0:1::4", "subnet": {"id": "v/s"}}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "fw", "properties": {"enableIPForwarding": true, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.2.4", "subnet": {"id": "v/fw"}}}]}}
]`

// The internet sent from private addresses, from the peer's and from those that routes lead to, and all
// of them were let in by the default rules or by rules for private space.
func TestHostile01InternetSpoof(t *testing.T) {
	specs := []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm"}, {Kind: topology.NetworkInterface, Reference: "fw"}, {Kind: topology.Internet}}
	const vm, net = 0, 2
	for _, c := range []struct {
		name, src string
		enters    bool
	}{
		{"private space that a rule allows", "10.99.0.1", false},
		{"shared address space", "100.64.7.7", false},
		{"a peer that the policy does not hold", "10.7.0.9", false},
		{"such a peer with public addresses", "20.7.0.9", false},
		{"a route to the gateway", "172.20.0.9", false},
		{"a route to an appliance of nobody", "8.8.8.8", false},
		{"a route to the internet", "9.9.9.9", true},
		{"a route to an appliance that leads to the internet", "4.4.4.4", true},
		{"benchmarking", "198.18.0.1", false},
		{"link local", "169.254.7.7", false},
		{"IETF protocol assignments", "192.0.0.1", false},
		{"this network", "0.1.2.3", false},
		{"loopback", "127.1.2.3", false},
		{"multicast", "239.1.2.3", false},
		{"reserved", "240.0.0.1", false},
		{"the platform", "168.63.129.16", false},
		{"a member", "10.0.1.5", false},
		{"a public address, with a default route that leads to an appliance", "1.2.3.4", true},
		{"documentation", "192.0.2.9", true},
		{"documentation again", "198.51.100.9", true},
		{"and the third", "203.0.113.9", true},
		{"IPv6 documentation", "2001:db8::9", true},
		{"IPv6 global unicast", "2606:4700::1111", true},
		{"IPv6 unique local", "fd99::1", false},
		{"IPv6 site local", "fec0::1", false},
		{"IPv6 that is not assigned", "4000::1", false},
		{"IPv4-compatible", "::10.7.0.9", false},
		{"IPv4-compatible with a public address", "::1.2.3.4", false},
		{"6to4 of a public address", "2002:102:304::1", true},
		{"6to4 of private space", "2002:a63:1::1", false},
		{"6to4 of the peer", "2002:a07:9::1", false},
		{"6to4 of loopback", "2002:7f00:1::1", false},
		{"NAT64 of a public address", "64:ff9b::1.2.3.4", true},
		{"NAT64 of a member", "64:ff9b::10.0.1.4", false},
		{"NAT64 of the route to the gateway", "64:ff9b::172.20.0.9", false},
		{"NAT64 for local use", "64:ff9b:1::1.2.3.4", false},
		{"Teredo of public addresses", "2001:0:102:304:0:ffff:fefd:fcfb", true},
		{"Teredo with a private client", "2001:0:102:304:0:ffff:f5ff:fefb", false}, // 10.0.1.4
		{"Teredo with a private server", "2001:0:a00:104:0:ffff:fefd:fcfb", false},
		{"IPv6 benchmarking", "2001:2::1", false},
		{"IPv6 discard-only", "100::1", false},
		{"segment routing", "5f00::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRigWith(t, parsed(t, corporate), Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
			s := packettest.Spec{Src: c.src, Dst: "10.0.1.4", SrcPort: 40000, DstPort: 22, Flags: "S"}
			if strings.Contains(c.src, ":") {
				s.Dst, s.DstPort = "fd00:0:0:1::4", 80
			} else if c.enters {
				s.DstPort = 80
			}
			to, drop := r.send(net, packettest.TCP(s))
			if c.enters && to != vm || !c.enters && (to >= 0 || drop != "spoofed_source") {
				t.Errorf("to %d, dropped under %q", to, drop)
			}
		})
	}
}

// No attachment sends from an address that no host has, not even a NIC that forwards.
// The tag VirtualNetwork holds every prefix of a subnet's routes, whatever its next hop: so Azure's documentation
// of service tags has it. From the internet comes none of them that leads to a place of its own, and the
// others come from outside, from no member.
func TestHostile01RoutesInTheTagVirtualNetwork(t *testing.T) {
	text := strings.Replace(corporate, `{"name": "all", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.2.4"}}`,
		`{"name": "hole", "properties": {"addressPrefix": "7.7.0.0/16", "nextHopType": "None"}}, {"name": "local", "properties": {"addressPrefix": "6.6.0.0/16", "nextHopType": "VnetLocal"}}`, 1)
	specs := []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm"}, {Kind: topology.NetworkInterface, Reference: "fw"}, {Kind: topology.Internet},
		{Kind: topology.Gateway, Reference: "v", Prefixes: []netip.Prefix{netip.MustParsePrefix("11.5.0.0/16")}}}
	const vm, net = 0, 2
	r := newRigWith(t, parsed(t, text), Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
	s := r.engine.Snapshot()
	subnet, _ := s.Policy.Subnet("v/s")
	tag, _ := s.ExpandTag(subnet, ruleset.TagVirtualNetwork)
	for _, c := range []struct {
		name, src     string
		tagged, comes bool
	}{
		{"on-premises", "11.5.0.9", true, false},
		{"a peer that the policy does not hold", "20.7.0.9", true, false},
		{"a route to the gateway", "172.20.0.9", true, false},
		{"a route to an appliance of nobody", "8.8.8.8", true, false},
		{"a route to nowhere", "7.7.7.7", true, false},
		{"a route to the network", "6.6.6.6", true, false},
		{"a route to the internet", "9.9.9.9", true, true},
		{"a route to an appliance that leads to the internet", "4.4.4.4", true, true},
		{"no route", "1.2.3.4", false, true},
	} {
		a := netip.MustParseAddr(c.src)
		if got := slices.ContainsFunc(tag, func(p netip.Prefix) bool { return p.Contains(a) }); got != c.tagged {
			t.Errorf("%s: in the tag: %t", c.name, got)
		}
		src := s.Admit(s.Attachments[net], packet.AddrFrom(a))
		if (src != nil) != c.comes || src != nil && (src.Subnet != nil || src.NetworkInterface != nil || src.Attachment != net) {
			t.Errorf("%s: comes from the internet: %+v", c.name, src)
		}
		before := countOf(r.engine, "g", ruleset.Inbound, "AllowVnetInBound").Hits
		to, drop := r.send(net, packettest.TCP(packettest.Spec{Src: c.src, Dst: "10.0.1.4", SrcPort: 40000, DstPort: 443, Flags: "S"}))
		if byTag := countOf(r.engine, "g", ruleset.Inbound, "AllowVnetInBound").Hits > before; byTag != (c.tagged && c.comes) || byTag != (to == vm) {
			t.Errorf("%s: to %d, %s; by AllowVnetInBound: %t", c.name, to, drop, byTag)
		}
	}
}

func TestNobodySendsFromAddressesOfNoHost(t *testing.T) {
	set := figure(nil, nil)
	set.NetworkInterfaces[vm4].EnableIPForwarding = true
	r := newRig(t, dualStack(set), conntrack.Options{Max: 1024})
	for _, src := range []string{"0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0"} {
		for _, from := range []int{vm4, internet} {
			if to, drop := r.send(from, packettest.TCP(packettest.Spec{Src: src, Dst: addr3, SrcPort: 40000, DstPort: 80, Flags: "S"})); drop != "spoofed_source" {
				t.Errorf("from %d as %s: to %d, dropped under %q", from, src, to, drop)
			}
		}
	}
	for _, src := range []string{"::", "::1", "::10.0.1.4", "ff05::1"} {
		if to, drop := r.send(vm4, packettest.TCP(packettest.Spec{Src: src, Dst: "fd00:0:0:2::4", SrcPort: 40000, DstPort: 80, Flags: "S"})); drop != "spoofed_source" {
			t.Errorf("as %s: to %d, dropped under %q", src, to, drop)
		}
	}
}

// A gateway's prefixes may hold addresses that no host has.
func TestNobodyBehindAGatewayHasAnAddressOfNoHost(t *testing.T) {
	specs := []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm"}, {Kind: topology.Gateway, Reference: "v", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}
	r := newRigWith(t, parsed(t, corporate), Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
	for src, want := range map[string]string{"192.168.7.7": "", "0.1.2.3": "spoofed_source", "127.0.0.1": "spoofed_source", "240.0.0.1": "spoofed_source", "255.255.255.255": "spoofed_source"} {
		if to, drop := r.send(1, packettest.TCP(packettest.Spec{Src: src, Dst: "10.0.1.4", SrcPort: 40000, DstPort: 22, Flags: "S"})); drop != want || want == "" && to != 0 {
			t.Errorf("as %s: to %d, dropped under %q", src, to, drop)
		}
	}
}

// prefixes of the internet's attachment admit a private network that stands outside, and never what is
// of the policy.
func TestTheInternetsPrefixesAdmitMore(t *testing.T) {
	specs := []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm"}, {Kind: topology.NetworkInterface, Reference: "fw"}, {Kind: topology.Internet}}
	outside := topology.Options{Outside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("198.18.0.0/15")}}
	r := newRigWith(t, parsed(t, corporate), Options{Attachments: specs, Topology: outside, Flows: conntrack.Options{Max: 1024}})
	for src, want := range map[string]int{"10.99.0.1": 0, "198.18.7.7": 0, "10.0.1.9": -1, "10.7.0.9": -1, "172.16.0.9": -1, "203.0.113.9": 0} {
		if to, drop := r.send(2, packettest.TCP(packettest.Spec{Src: src, Dst: "10.0.1.4", SrcPort: 40000, DstPort: 80, Flags: "S"})); to != want {
			t.Errorf("from %s: to %d, dropped under %q", src, to, drop)
		}
	}
	for _, within := range []string{"10.0.0.0/16", "10.0.3.0/24", "10.7.1.0/24", "172.20.0.0/16", "8.8.8.0/24"} {
		outside.Outside = []netip.Prefix{netip.MustParsePrefix(within)}
		_, err := outside.Build(parsed(t, corporate), specs, topology.NewRegistry())
		if err == nil || !strings.Contains(err.Error(), "prefixes of the internet: "+within+" lies within") {
			t.Errorf("%s: %v", within, err)
		}
	}
}

// What is closed by its public address was open by its private one.
func TestHostile11PrivateFromInternet(t *testing.T) {
	type public struct {
		sku     policy.SKU
		address string // empty: not known
	}
	standard, basic, unknown := &public{policy.SKUStandard, "198.51.100.4"}, &public{policy.SKUBasic, "198.51.100.4"}, &public{policy.SKUStandard, ""}
	for _, c := range []struct {
		name     string
		public   *public // of VM4
		other    bool    // the policy gives VM1 a public address
		balanced bool    // VM4 is behind a Standard load balancer
		guarded  bool    // VM4 has an NSG
		reach    bool
		want     [3]string // by the public address, the private one, the load balancer's
	}{
		{"the lab, without any public address", nil, false, false, false, false, [3]string{"no_route", "", "no_route"}},
		{"another one has a public address", nil, true, false, false, false, [3]string{"no_route", "no_route", "no_route"}},
		{"and the configuration lets private addresses be reached", nil, true, false, false, true, [3]string{"no_route", "", "no_route"}},
		{"a Standard address", standard, false, false, false, false, [3]string{"closed", "no_route", "no_route"}},
		{"a Standard address, private addresses are reached", standard, false, false, false, true, [3]string{"closed", "closed", "no_route"}},
		{"a Standard address that is not known", unknown, false, false, false, false, [3]string{"no_route", "no_route", "no_route"}},
		{"one that is not known, private addresses are reached", unknown, false, false, false, true, [3]string{"no_route", "closed", "no_route"}},
		{"a Standard address with an NSG", standard, false, false, true, true, [3]string{"", "", "no_route"}},
		{"a Basic address", basic, false, false, false, true, [3]string{"", "", "no_route"}},
		{"behind a Standard load balancer", nil, false, true, false, true, [3]string{"no_route", "closed", "closed"}},
		{"behind it, with a Basic address of its own", basic, false, true, false, true, [3]string{"closed", "closed", "closed"}},
		{"behind it, with an NSG", basic, false, true, true, true, [3]string{"", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := figure(nil, []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)})
			give := func(nic int, of *public) {
				ip := &policy.PublicIPAddress{Name: "ip", ID: "/ip/ip", SKU: of.sku, IdleTimeout: 4 * time.Minute}
				if of.address != "" {
					ip.Address = netip.MustParseAddr(of.address)
				}
				p.PublicIPAddresses = append(p.PublicIPAddresses, ip)
				p.NetworkInterfaces[nic].IPConfigurations[0].PublicIPAddress = ip
			}
			if c.public != nil {
				give(vm4, c.public)
			}
			if c.other {
				give(vm1, &public{policy.SKUStandard, "198.51.100.1"})
			}
			if c.guarded {
				p.NetworkInterfaces[vm4].NetworkSecurityGroup = p.NetworkSecurityGroups[1]
			}
			if c.balanced {
				vnet := p.VirtualNetworks[0]
				f := &policy.Frontend{Name: "f", Address: netip.MustParseAddr("198.51.100.80")}
				f.PublicIPAddress = &policy.PublicIPAddress{Name: "lb", ID: "/ip/lb", SKU: policy.SKUStandard, Address: f.Address}
				pool := &policy.BackendPool{Name: "p", Backends: []policy.Backend{{NetworkInterface: p.NetworkInterfaces[vm4], VirtualNetwork: vnet, Address: netip.MustParseAddr(addr4)}}}
				p.PublicIPAddresses = append(p.PublicIPAddresses, f.PublicIPAddress)
				p.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{f}, Pools: []*policy.BackendPool{pool},
					Rules: []*policy.LoadBalancingRule{{Name: "r", Frontend: f, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP, FrontendPort: 22, BackendPort: 22}}}}
			}
			r := newRigWith(t, p, Options{Topology: topology.Options{ReachPrivate: c.reach}, Flows: conntrack.Options{Max: 1024}})
			r.rewrites = true
			for i, dst := range []string{"198.51.100.4", addr4, "198.51.100.80"} {
				to, drop := r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: dst, SrcPort: 40000 + uint16(i), DstPort: 22, Flags: "S"}))
				if want := c.want[i]; drop != want || (want == "") != (to == vm4) {
					t.Errorf("to %s: to %d, dropped under %q; want %q", dst, to, drop, want)
				}
			}
			if to, drop := r.send(vm3, packettest.TCP(packettest.Spec{Src: addr3, Dst: addr4, SrcPort: 40000, DstPort: 22, Flags: "S"})); to != vm4 {
				t.Errorf("from within, to the private address: to %d, dropped under %q", to, drop)
			}
		})
	}
}

// What is closed by one of a NIC's addresses is closed by the others too, and a backend that is given by its
// address is closed though the policy has no NIC with it.
func TestHostile11TheOtherNamesOfWhatIsClosed(t *testing.T) {
	const second, bare, front = "10.0.3.44", "10.0.3.77", "198.51.100.80"
	specs := append(figureSpecs[:len(figureSpecs):len(figureSpecs)], topology.Spec{Kind: topology.Subnet, Reference: "vnet1/Subnet3"})
	for _, c := range []struct {
		name    string
		public  bool // VM4's second ipConfiguration has a public address
		backend string
		guarded bool
		sku     policy.SKU
		closed  []string
		reached []string
	}{
		{"the second ipConfiguration has a Standard address", true, "", false, policy.SKUStandard, []string{addr4, second}, []string{bare}},
		{"a Basic one", true, "", false, policy.SKUBasic, nil, []string{addr4, second, bare}},
		{"the NIC is a backend by its second address", false, second, false, policy.SKUStandard, []string{addr4, second, front}, []string{bare}},
		{"a backend that is no NIC", false, bare, false, policy.SKUStandard, []string{bare, front}, []string{addr4, second}},
		{"with an NSG", false, bare, true, policy.SKUStandard, nil, []string{addr4, second, bare, front}},
		{"of a Basic load balancer", false, bare, false, policy.SKUBasic, nil, []string{addr4, second, bare, front}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := figure([]ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}, nil)
			nic, vnet := p.NetworkInterfaces[vm4], p.VirtualNetworks[0]
			nic.IPConfigurations = append(nic.IPConfigurations, policy.IPConfiguration{Name: "second", Subnet: nic.IPConfigurations[0].Subnet, Address: netip.MustParseAddr(second)})
			if c.guarded {
				vnet.Subnets[2].NetworkSecurityGroup = p.NetworkSecurityGroups[0]
			}
			ip := &policy.PublicIPAddress{Name: "ip", ID: "/ip/ip", SKU: c.sku, Address: netip.MustParseAddr(front), IdleTimeout: 4 * time.Minute}
			p.PublicIPAddresses = []*policy.PublicIPAddress{ip}
			if c.public {
				nic.IPConfigurations[1].PublicIPAddress = ip
			} else {
				f := &policy.Frontend{Name: "f", Address: ip.Address, PublicIPAddress: ip}
				pool := &policy.BackendPool{Name: "p", Backends: []policy.Backend{{VirtualNetwork: vnet, Address: netip.MustParseAddr(c.backend)}}}
				p.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: c.sku, Frontends: []*policy.Frontend{f}, Pools: []*policy.BackendPool{pool},
					Rules: []*policy.LoadBalancingRule{{Name: "r", Frontend: f, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP, FrontendPort: 22, BackendPort: 22}}}}
			}
			r := newRigWith(t, p, Options{Attachments: specs, Topology: topology.Options{ReachPrivate: true}, Flows: conntrack.Options{Max: 1024}})
			r.rewrites = true
			for i, dst := range append(append([]string(nil), c.closed...), c.reached...) {
				want := ""
				if i < len(c.closed) {
					want = "closed"
				}
				to, drop := r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: dst, SrcPort: 40000 + uint16(i), DstPort: 22, Flags: "S"}))
				if drop != want || (want == "") != (to >= 0) {
					t.Errorf("to %s: to %d, dropped under %q; want %q", dst, to, drop, want)
				}
			}
		})
	}
}

// A policy with public addresses has private ones that the internet does not reach, though no public
// address is known yet.
func TestHostile11PublicAddressesThatAreNotKnown(t *testing.T) {
	unknown := &policy.PublicIPAddress{Name: "ip", ID: "/ip/ip", SKU: policy.SKUStandard, IdleTimeout: 4 * time.Minute}
	for name, edit := range map[string]func(*policy.Set){
		"a public address that nobody has": func(p *policy.Set) { p.PublicIPAddresses = []*policy.PublicIPAddress{unknown} },
		"one of a NIC, not among the documents": func(p *policy.Set) {
			p.NetworkInterfaces[vm1].IPConfigurations[0].PublicIPAddress = &policy.PublicIPAddress{}
		},
		"a prefix":      func(p *policy.Set) { p.PublicIPPrefixes = []*policy.PublicIPPrefix{{Name: "p", ID: "/p"}} },
		"a NAT gateway": func(p *policy.Set) { p.NATGateways = []*policy.NATGateway{{Name: "n", ID: "/n", Unknown: true}} },
		"a load balancer's frontend": func(p *policy.Set) {
			p.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{{Name: "f", PublicIPAddress: unknown}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := figure(nil, nil)
			edit(p)
			r := newRig(t, p, conntrack.Options{Max: 64})
			if to, drop := r.send(internet, syn(world, addr4, 22)); to >= 0 || drop != packet.DropNoRoute.String() {
				t.Errorf("to %d, dropped under %q", to, drop)
			}
		})
	}
}

// strangers are two networks that are not peered, with an NSG of default rules in the second.
const strangers = `[
 {"type": "Microsoft.Network/networkSecurityGroups", "name": "g"},
 {"type": "Microsoft.Network/virtualNetworks", "name": "v1", "properties": {"addressSpace": {"addressPrefixes": ["SPACE.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "SPACE.1.0/24"}}]}},
 {"type": "Microsoft.Network/virtualNetworks", "name": "v2", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.2.0/24", "networkSecurityGroup": {"id": "g"}}}]}},
 {"type": "Microsoft.Network/publicIPAddresses", "name": "ipb", "sku": {"name": "Standard"}, "properties": {"ipAddress": "198.51.100.4"}},
 {"type": "Microsoft.Network/publicIPAddresses", "name": "ipa", "sku": {"name": "Standard"}, "properties": {"ipAddress": "198.51.100.5"}},
 {"type": "Microsoft.Network/publicIPAddresses", "name": "ipf", "sku": {"name": "Standard"}, "properties": {"ipAddress": "198.51.100.6"}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "a", "properties": {"enableIPForwarding": FORWARDS, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "SENDER", "subnet": {"id": "v1/s"}OWN}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "b", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.2.4", "subnet": {"id": "v2/s"}, "publicIPAddress": {"id": "ipb"}}}]}},
 {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
   "frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "ipf"}}}],
   "backendAddressPools": [{"name": "p", "properties": {"loadBalancerBackendAddresses": [{"name": "b", "properties": {"ipAddress": "10.0.2.4", "virtualNetwork": {"id": "v2"}}}]}}],
   "loadBalancingRules": [{"name": "r", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "protocol": "Tcp", "frontendPort": 22, "backendPort": 22, "disableOutboundSnat": true}}]}}
]`

// A private source that left untranslated was taken for a member of the receiver's own network.
func TestHostile16UnpeeredByPublicIP(t *testing.T) {
	const own = `, "publicIPAddress": {"id": "ipa"}`
	for _, c := range []struct {
		name, space, sender, own, forwards string
		src                                string
		want                               string // with default rules
	}{
		{"an own way out, with overlapping address spaces", "10.0", "10.0.1.4", own, "false", "10.0.1.4", "rule_deny"},
		{"an own way out", "10.1", "10.1.1.4", own, "false", "10.1.1.4", "rule_deny"},
		{"no way out, with overlapping address spaces", "10.0", "10.0.1.4", "", "false", "10.0.1.4", "no_outbound"},
		{"no way out", "10.1", "10.1.1.4", "", "false", "10.1.1.4", "no_outbound"},
		{"a forwarding NIC as itself", "10.1", "10.1.1.4", own, "true", "10.1.1.4", "rule_deny"},
		{"a forwarding NIC as a member of the receiver's network", "10.1", "10.1.1.4", own, "true", "10.0.2.9", "no_outbound"},
		{"a forwarding NIC as the receiver", "10.1", "10.1.1.4", own, "true", "10.0.2.4", "no_outbound"},
		{"a forwarding NIC as a neighbour of its own", "10.1", "10.1.1.4", own, "true", "10.1.1.9", "no_outbound"},
		{"a forwarding NIC as the internet", "10.1", "10.1.1.4", own, "true", "203.0.113.77", "no_outbound"},
		{"a forwarding NIC as the receiver's public address", "10.1", "10.1.1.4", own, "true", "198.51.100.6", "no_outbound"},
		{"a forwarding NIC as the platform", "10.1", "10.1.1.4", own, "true", "168.63.129.16", "spoofed_source"},
		{"a forwarding NIC as itself, without a way out", "10.1", "10.1.1.4", "", "true", "10.1.1.4", "no_outbound"},
	} {
		text := strings.NewReplacer("SPACE", c.space, "SENDER", c.sender, "OWN", c.own, "FORWARDS", c.forwards).Replace(strangers)
		for _, dst := range []string{"198.51.100.4", "198.51.100.6"} {
			t.Run(c.name+" to "+dst, func(t *testing.T) {
				r := newRigWith(t, parsed(t, text), Options{Flows: conntrack.Options{Max: 1024}, Attachments: []topology.Spec{
					{Kind: topology.NetworkInterface, Reference: "a"}, {Kind: topology.NetworkInterface, Reference: "b"}, {Kind: topology.Internet}}})
				r.rewrites = true
				if c.src == dst {
					return
				}
				to, drop := r.send(0, packettest.TCP(packettest.Spec{Src: c.src, Dst: dst, SrcPort: 40000, DstPort: 22, Flags: "S"}))
				if to >= 0 || drop != c.want {
					t.Errorf("to %d, dropped under %q; want %q", to, drop, c.want)
				}
				if n := countOf(r.engine, "g", ruleset.Inbound, "AllowVnetInBound"); n.Packets > 0 {
					t.Errorf("counted as a member of the network: %+v", n)
				}
			})
		}
	}
}
