package dataplane

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// twinNetworks have the same addresses. Two network interfaces are in one of them, and a third one is in the first.
func twinNetworks(network int) *policy.Set {
	set := &policy.Set{}
	for _, name := range []string{"blue", "green"} {
		v := &policy.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
		v.Subnets = []*policy.Subnet{{Name: "s", ID: v.ID + "/s", VirtualNetwork: v, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
	}
	for i, at := range []int{network, network, 0} {
		name := "nic" + string(rune('0'+i))
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: name, ID: "/nic/" + name, IPConfigurations: []policy.IPConfiguration{
			{Name: "ip", Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(11 + i)}), Subnet: set.VirtualNetworks[at].Subnets[0], Primary: true}}})
	}
	return set
}

// Both network interfaces lead to the same subnet, which was compared for the first one: the second one seemed to stay.
func TestFlowsOfEachNetworkInterfaceThatMovesEnd(t *testing.T) {
	var specs []topology.Spec
	for _, nic := range twinNetworks(0).NetworkInterfaces {
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: nic.ID})
	}
	r := newRigWith(t, twinNetworks(0), Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
	for i, src := range []string{"10.0.0.11", "10.0.0.12"} {
		r.send(i, packettest.UDP(packettest.Spec{Src: src, Dst: "10.0.0.13", SrcPort: 1000, DstPort: 53}))
		if to, drop := r.send(2, packettest.UDP(packettest.Spec{Src: "10.0.0.13", Dst: src, SrcPort: 53, DstPort: 1000})); to != i {
			t.Fatalf("an answer to %s: %d, %v", src, to, drop)
		}
	}
	s, err := r.engine.Prepare(twinNetworks(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Swap(s, nil); err != nil {
		t.Fatal(err)
	}
	if n := r.engine.Flows().Stats().Flows; n != 0 {
		t.Errorf("%d flows live on between networks that are not connected", n)
	}
}
