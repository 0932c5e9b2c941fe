package ask

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// behindNAT is a machine behind inbound NAT rules, from the first to the second port of each pair, that allows some ports.
func behindNAT(t *testing.T, rules [][2]uint16, allowed []ruleset.PortRange) *topology.Snapshot {
	t.Helper()
	vnet := &policy.VirtualNetwork{Name: "net", ID: "/net", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	sub := &policy.Subnet{Name: "a", ID: "/net/a", VirtualNetwork: vnet, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")},
		NetworkSecurityGroup: &ruleset.NSG{Name: "nsg", ID: "/nsg", Rules: []ruleset.Rule{{Name: "allow", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow, Protocol: ruleset.TCP,
			Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}, SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: allowed}}}}
	vnet.Subnets = []*policy.Subnet{sub}
	nic := &policy.NetworkInterface{Name: "nic", ID: "/nic", IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: netip.MustParseAddr("10.0.1.4"), Subnet: sub, Primary: true}}}
	public := &policy.PublicIPAddress{Name: "ip", ID: "/ip", SKU: policy.SKUStandard, Address: netip.MustParseAddr("198.51.100.9")}
	front := &policy.Frontend{Name: "f", ID: "/lb/f", PublicIPAddress: public, Address: public.Address}
	lb := &policy.LoadBalancer{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{front}}
	for i, r := range rules {
		lb.NATRules = append(lb.NATRules, &policy.InboundNATRule{Name: fmt.Sprint("r", i), Frontend: front, Protocol: policy.TransportTCP, First: r[0], Last: r[0], BackendPort: r[1],
			Backend: &policy.Backend{VirtualNetwork: vnet, Address: nic.IPConfigurations[0].Address}})
	}
	s, err := topology.Build(&policy.Set{VirtualNetworks: []*policy.VirtualNetwork{vnet}, NetworkSecurityGroups: []*ruleset.NSG{sub.NetworkSecurityGroup},
		NetworkInterfaces: []*policy.NetworkInterface{nic}, PublicIPAddresses: []*policy.PublicIPAddress{public}, LoadBalancers: []*policy.LoadBalancer{lb}}, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each packet is sent, and counts by the port at which it arrives: the machine behind the NAT rules is asked.
func TestPortsOfATestAreThoseAtWhichPacketsArrive(t *testing.T) {
	ports := []uint16{22, 80, 443, 2222, 8080}
	someRanges := func(r *rand.Rand) (list []ruleset.PortRange) {
		for range 1 + r.IntN(2) {
			first := ports[r.IntN(len(ports))]
			list = append(list, ruleset.PortRange{First: first, Last: max(first, ports[r.IntN(len(ports))])})
		}
		return mergedPorts(list)
	}
	count := map[string]int{}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 23))
		var rules [][2]uint16
		for _, i := range r.Perm(len(ports))[:1+r.IntN(3)] {
			rules = append(rules, [2]uint16{ports[i], ports[r.IntN(len(ports))]})
		}
		s := behindNAT(t, rules, someRanges(r))
		test := &PolicyTest{TestPackets: TestPackets{From: []string{"203.0.113.10"}, To: []string{"nic:nic"}, Services: []analysis.Service{{Protocol: packet.ProtoTCP, Ports: someRanges(r)}}},
			Expect: []ruleset.Access{ruleset.Allow, ruleset.Deny}[r.IntN(2)]}
		var except []ruleset.PortRange
		if r.IntN(2) == 0 {
			except = someRanges(r)
			test.Except = []TestPackets{{Services: []analysis.Service{{Protocol: packet.ProtoTCP, Ports: except}}}}
		}
		want := ""
		sender := s.SendersFrom(netip.MustParseAddr("203.0.113.10"))[0]
		var d verdict.Decision
		for _, rule := range rules {
			p := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr("203.0.113.10")), Dst: packet.AddrFrom(netip.MustParseAddr("198.51.100.9")),
				SrcPort: 49152, DstPort: rule[0], Proto: packet.ProtoTCP}, Segments: 1, TCPFlags: packet.SYN}
			drop := d.Decide(s, sender, &p)
			if port := d.Way.Arrives.DstPort; !inPorts(test.Services[0].Ports, port) || inPorts(except, port) {
				continue
			}
			if want == "" {
				want = TestPass
			}
			if (drop == packet.NotDropped) != (test.Expect == ruleset.Allow) {
				want = TestFail
			}
		}
		if want == "" {
			continue // nothing is sent there that arrives: the private address, which nobody reaches, is asked
		}
		count[want]++
		got := NewBetween(s, 0).Test(test)
		if got.Result != want {
			t.Fatalf("seed %d: rules %v, test %+v but %v: %+v, want %s", seed, rules, test.Services, except, got, want)
		}
		if w := got.Witness; w != nil && !slices.ContainsFunc(rules, func(rule [2]uint16) bool {
			return *w.DestinationPort == rule[0] && inPorts(test.Services[0].Ports, rule[1]) && !inPorts(except, rule[1])
		}) {
			t.Fatalf("seed %d: rules %v, test %+v but %v: packet %+v", seed, rules, test.Services, except, w)
		}
	}
	if count[TestPass] < 30 || count[TestFail] < 30 {
		t.Errorf("%v: the test says little", count)
	}
}
