package ask

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

const (
	branch   = "192.168.7.7" // on-premises
	frontend = "10.0.1.99"   // of an internal load balancer before VM2
)

// withBranch is the figure with an internal load balancer; its network has a gateway.
func withBranch(t *testing.T, attachments ...topology.Spec) *topology.Snapshot {
	t.Helper()
	p := figure(nil, nil)
	v := p.VirtualNetworks[0]
	front := &policy.Frontend{Name: "f", Subnet: v.Subnets[0], Address: netip.MustParseAddr(frontend)}
	pool := &policy.BackendPool{Backends: []policy.Backend{{NetworkInterface: p.NetworkInterfaces[vm2], VirtualNetwork: v, Address: netip.MustParseAddr(addr2)}}}
	p.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{front}, Pools: []*policy.BackendPool{pool},
		Rules: []*policy.LoadBalancingRule{{Frontend: front, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP, FrontendPort: 80, BackendPort: 8080}}}}
	p.NetworkInterfaces[vm3].EnableIPForwarding, p.NetworkInterfaces[vm4].EnableIPForwarding = true, true
	s, err := topology.Build(p, attachments, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyFromOnPremisesToAFrontend(t *testing.T) {
	s := withBranch(t, append(figureSpecs[:len(figureSpecs):len(figureSpecs)],
		topology.Spec{Kind: topology.Gateway, Reference: "vnet1", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}})...)
	for remote, want := range map[string]string{branch: "Allow rule", "172.16.0.1": "Deny spoofedSource"} {
		for _, path := range []bool{false, true} {
			r, err := Verify(s, &azure.Flow{Direction: ruleset.Inbound, Protocol: packet.ProtoTCP, Local: netip.MustParseAddr(frontend), LocalPort: 80,
				Remote: netip.MustParseAddr(remote), RemotePort: 5000}, path)
			if err != nil || r.Access+" "+r.Reason != want {
				t.Errorf("from %s, path %t: %+v, %v; want %s", remote, path, r, err, want)
			}
		}
	}
}

// A NIC that forwards sends for others through an attachment of its own alone, and never from an address that
// no host has.
func TestWhatANICForwards(t *testing.T) {
	s := withBranch(t, topology.Spec{Kind: topology.NetworkInterface, Reference: "vm3-nic"}, topology.Spec{Kind: topology.Subnet, Reference: "vnet1/Subnet3"},
		topology.Spec{Kind: topology.Internet})
	for _, tt := range []struct {
		nic, source string
		ok          bool
	}{
		{"vm3-nic", addr3, true}, {"vm3-nic", branch, true}, {"vm3-nic", "127.0.0.1", false}, {"vm3-nic", "240.0.0.1", false}, {"vm3-nic", "168.63.129.16", false},
		{"vm4-nic", addr4, true}, {"vm4-nic", branch, false}, {"vm4-nic", "240.0.0.1", false}, {"vm4-nic", "10.0.3.77", false},
		{"vm2-nic", addr2, true}, {"vm2-nic", branch, false}, {"vm2-nic", addr1, false},
	} {
		nic, err := s.Policy.NetworkInterface(tt.nic)
		if err != nil {
			t.Fatal(err)
		}
		if admitted := s.AdmitAt(nic, netip.MustParseAddr(tt.source)) != nil; admitted != tt.ok {
			t.Errorf("%s sends from %s: %t", tt.nic, tt.source, admitted)
		}
	}
}
