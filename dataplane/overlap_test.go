package dataplane

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// twin is a network whose address space every other one has as well, with a balanced backend.
const twin = `
 {"type": "Microsoft.Network/virtualNetworks", "name": "vN", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "g"}}}]}},
 {"type": "Microsoft.Network/publicIPAddresses", "name": "ipN", "sku": {"name": "Standard"}, "properties": {"ipAddress": "198.51.100.N"}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "nicN", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.1.4", "subnet": {"id": "vN/s"}, "loadBalancerBackendAddressPools": [{"id": "lbN/p"}]}}]}},
 {"type": "Microsoft.Network/loadBalancers", "name": "lbN", "sku": {"name": "Standard"}, "properties": {
   "frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "ipN"}}}], "backendAddressPools": [{"name": "p"}],
   "probes": [{"name": "alive", "properties": {"protocol": "Tcp", "port": 80}}],
   "loadBalancingRules": [{"name": "web", "properties": {"frontendIPConfiguration": {"id": "lbN/f"}, "backendAddressPool": {"id": "lbN/p"}, "probe": {"id": "lbN/alive"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 80, "disableOutboundSnat": true}}]}}`

// Probes of backends with one address in several networks reached none of them, so that none came up.
func TestProbesReachTheirBackendInOverlappingNetworks(t *testing.T) {
	const networks = 3
	text := `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "properties": {"securityRules": [
	 {"name": "web", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80"}}]}}`
	var specs []topology.Spec
	for n := range networks {
		text += "," + strings.NewReplacer("vN", fmt.Sprint("v", n), "ipN", fmt.Sprint("ip", n), "nicN", fmt.Sprint("nic", n), "lbN", fmt.Sprint("lb", n), "100.N", fmt.Sprint("100.", n)).Replace(twin)
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: fmt.Sprint("nic", n)})
	}
	specs = append(specs, topology.Spec{Kind: topology.Internet}, topology.Spec{Kind: topology.Platform})
	r := newRigWith(t, parsed(t, text+"]"), Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
	r.rewrites = true
	s := r.engine.Snapshot()
	probes := s.Probes()
	if len(probes) != networks {
		t.Fatalf("%d probes", len(probes))
	}
	for i, p := range probes {
		if p.Shares != networks || p.Share != i {
			t.Errorf("probe %d has share %d of %d", i, p.Share, p.Shares)
		}
		for port := uint16(50000); port < 50012; port++ {
			if int(port)%p.Shares != p.Share {
				continue
			}
			syn := packettest.Spec{Src: "168.63.129.16", Dst: "10.0.1.4", SrcPort: port, DstPort: 80, Flags: "S"}
			if to, drop := r.send(networks+1, packettest.TCP(syn)); to != i {
				t.Errorf("probe %d from port %d: to %d, dropped under %q", i, port, to, drop)
			}
			answer := back(syn)
			answer.Flags = "SA"
			if to, drop := r.send(i, packettest.TCP(answer)); to != networks+1 {
				t.Errorf("the answer to probe %d: to %d, dropped under %q", i, to, drop)
			}
		}
		p.Set(false)
		client := packettest.Spec{Src: world, Dst: fmt.Sprint("198.51.100.", i), SrcPort: 40000, DstPort: 80, Flags: "S"}
		if to, drop := r.send(networks, packettest.TCP(client)); drop != "no_backend" {
			t.Errorf("a client of network %d while its backend is down: to %d, dropped under %q", i, to, drop)
		}
		p.Set(true)
		if to, drop := r.send(networks, packettest.TCP(client)); to != i {
			t.Errorf("a client of network %d: to %d, dropped under %q", i, to, drop)
		}
		q := &azure.Flow{Direction: ruleset.Inbound, Protocol: packet.ProtoTCP, NetworkInterface: fmt.Sprint("nic", i),
			Local: netip.MustParseAddr("10.0.1.4"), LocalPort: 80, Remote: topology.PlatformAddresses[0], RemotePort: 50000}
		if answer, err := ask.Verify(s, q, true); err != nil || answer.Access != "Allow" {
			t.Errorf("verify of a probe to nic%d: %+v, %v", i, answer, err)
		}
	}
}

// The prober follows a policy before it is in force. What it finds out meanwhile was lost, and read while it was written.
func TestWhatAProbeFindsWhilePoliciesChangeHandsHolds(t *testing.T) {
	text := strings.NewReplacer("vN", "v0", "ipN", "ip0", "nicN", "nic0", "lbN", "lb0", "100.N", "100.0").Replace(twin)
	set := parsed(t, `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "g"},`+text+"]")
	r := newRigWith(t, set, Options{Flows: conntrack.Options{Max: 1024},
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "nic0"}, {Kind: topology.Internet}}})
	next, err := r.engine.Prepare(set)
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan struct{})
	if err := r.engine.Swap(next, func(s *topology.Snapshot) error {
		go func() { s.Probes()[0].Set(false); close(found) }()
		<-found
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if r.engine.Snapshot().Probes()[0].Up() {
		t.Error("the backend counts as up")
	}
}
