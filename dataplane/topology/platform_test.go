package topology

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

func TestServicesAreThoseOfTheDocuments(t *testing.T) {
	vm := &Endpoint{Subnet: &policy.Subnet{}, routes: &routes{}}
	forced := &Endpoint{Subnet: &policy.Subnet{}, routes: &routes{hasDefault: true}}
	for _, tt := range []struct {
		name  string
		from  *Endpoint
		proto uint8
		to    string
		want  Service
	}{
		{"DNS over UDP", vm, packet.ProtoUDP, "168.63.129.16:53", DNS},
		{"DNS over TCP", vm, packet.ProtoTCP, "168.63.129.16:53", DNS},
		{"DHCP", vm, packet.ProtoUDP, "168.63.129.16:67", DHCP},
		{"no DHCP over TCP", vm, packet.ProtoTCP, "168.63.129.16:67", NoService},
		{"the wire server", vm, packet.ProtoTCP, "168.63.129.16:80", WireServer},
		{"the wire server's other port", vm, packet.ProtoTCP, "168.63.129.16:32526", WireServer},
		{"Network Watcher", vm, packet.ProtoTCP, "168.63.129.16:8037", NetworkWatcher},
		{"IMDS", vm, packet.ProtoTCP, "169.254.169.254:80", IMDS},
		{"IMDS is not DNS's address", vm, packet.ProtoTCP, "169.254.169.254:53", NoService},
		{"another port", vm, packet.ProtoTCP, "168.63.129.16:22", NoService},
		{"ICMP", vm, packet.ProtoICMP, "168.63.129.16:80", NoService},
		{"license keys", vm, packet.ProtoTCP, "23.102.135.246:1688", LKM},
		{"license keys are nobody else's", vm, packet.ProtoTCP, "23.102.135.247:1688", NoService},
		{"no license keys under a default route", forced, packet.ProtoTCP, "23.102.135.246:1688", NoService},
		{"DNS under a default route", forced, packet.ProtoUDP, "168.63.129.16:53", DNS},
		{"nothing from outside", &Endpoint{}, packet.ProtoUDP, "168.63.129.16:53", NoService},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := netip.MustParseAddrPort(tt.to)
			k := packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr("10.0.0.4")), Dst: packet.AddrFrom(to.Addr()), SrcPort: 50000, DstPort: to.Port(), Proto: tt.proto}
			if got := tt.from.Service(&k); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestServicesAsAList(t *testing.T) {
	for _, e := range []*Endpoint{{Subnet: &policy.Subnet{}, routes: &routes{}}, {Subnet: &policy.Subnet{}, routes: &routes{hasDefault: true}}, {}} {
		listed := map[packet.Tuple]Service{}
		addresses := map[packet.Addr]bool{platformAddrs[0]: true, platformAddrs[1]: true}
		for _, end := range e.Services() {
			proto := map[ruleset.Protocol]uint8{ruleset.TCP: packet.ProtoTCP, ruleset.UDP: packet.ProtoUDP}[end.Protocol]
			listed[packet.Tuple{Dst: packet.AddrFrom(end.Address), DstPort: end.Port, Proto: proto}] = end.Service
		}
		for _, a := range lkmAddrs {
			addresses[a] = true
		}
		for a := range addresses {
			for port := range 1 << 16 {
				for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP} {
					k := packet.Tuple{Dst: a, DstPort: uint16(port), Proto: proto}
					if got := e.Service(&k); got != listed[k] {
						t.Errorf("%s port %d protocol %d: %s, the list has %s", a.Netip(), port, proto, got, listed[k])
					}
				}
			}
		}
	}
}

// License activation follows the route tables: a default route ends the allowance, other routes don't.
func TestLicenseActivationUnderRouteTables(t *testing.T) {
	for _, tt := range []struct {
		name   string
		prefix string
		want   Service
	}{
		{"a route for everything", "0.0.0.0/0", NoService},
		{"a route for half of everything", "0.0.0.0/1", LKM},
		{"a route for everything over IPv6", "::/0", LKM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := hubAndSpokes()
			spoke := set.VirtualNetworks[1].Subnets[0]
			spoke.RouteTable = &policy.RouteTable{Name: "t", ID: "/rt/t", Routes: []policy.Route{{Name: "r", Prefix: pfx(tt.prefix), Hop: policy.HopInternet}}}
			set.RouteTables = append(set.RouteTables, spoke.RouteTable)
			s, err := Build(set, nil, NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			k := packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr("10.1.1.4")), Dst: packet.AddrFrom(netip.MustParseAddr("23.102.135.246")), SrcPort: 50000, DstPort: 1688, Proto: packet.ProtoTCP}
			for nic, want := range map[int]Service{0: LKM, 2: tt.want} { // the hub's is as it was
				n := set.NetworkInterfaces[nic]
				if got := s.Endpoint(n, n.IPConfigurations[0].Address).Service(&k); got != want {
					t.Errorf("%s: got %s, want %s", n.Name, got, want)
				}
			}
		})
	}
}

func TestSubscriptionsThatBlockPort25(t *testing.T) {
	for _, tt := range []struct {
		s      Subscription
		blocks bool
	}{
		{Subscription{}, false}, {Subscription{Type: "enterprise"}, false},
		{Subscription{Type: "payg"}, true}, {Subscription{Type: "csp"}, true}, {Subscription{Type: "msdn"}, true},
		{Subscription{Type: "payg", CreatedBefore20171115: true}, false}, {Subscription{Type: "payg", SMTPExempt: true}, false},
		{Subscription{Type: "csp", CreatedBefore20171115: true}, false}, {Subscription{Type: "csp", SMTPExempt: true}, false},
	} {
		if _, err := tt.s.Check(); err != nil || tt.s.BlocksSMTP() != tt.blocks {
			t.Errorf("%+v blocks %t, %v", tt.s, tt.s.BlocksSMTP(), err)
		}
	}
	for _, s := range []Subscription{{Type: "PAYG"}, {SMTPExempt: true}, {Type: "msdn", SMTPExempt: true}, {Type: "enterprise", CreatedBefore20171115: true}} {
		if field, err := s.Check(); err == nil || field == "" {
			t.Errorf("%+v is taken", s)
		}
	}
}
