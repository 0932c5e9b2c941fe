package ask

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// NextHopQuestion asks where packets go, as Azure Network Watcher's next hop does. One of
// NetworkInterface and VirtualMachine is enough. A virtual machine stands for its NIC that has
// the source address, or for its only one.
type NextHopQuestion struct {
	NetworkInterface string // name or id
	VirtualMachine   string // name or id
	Source           netip.Addr
	Destination      netip.Addr
}

// NextHop says where a NIC's packets to an address go. As in Azure the routes are those of the NIC,
// whoever has the source address. The error is about what the policy lacks.
func NextHop(s *topology.Snapshot, q NextHopQuestion) (*azure.NextHopResult, error) {
	nic, err := q.nic(s.Policy)
	if err != nil {
		return nil, err
	}
	from := s.AdmitAt(nic, q.Source)
	if from == nil {
		from = s.Endpoint(nic, Primary(nic).Address)
	}
	hop := s.NextHop(from, q.Destination)
	r := &azure.NextHopResult{NextHopType: string(hop.Type), RouteTableID: azure.SystemRoute}
	if hop.Type == policy.HopVnetLocal {
		r.NextHopType = azure.HopVirtualNetwork
	}
	if hop.Table != nil {
		r.RouteTableID = hop.Table.ID
	}
	if hop.Address.IsValid() {
		r.NextHopIPAddress = hop.Address.String()
	}
	return r, nil
}

// nic is the NIC that the question means.
func (q *NextHopQuestion) nic(set *policy.Set) (*policy.NetworkInterface, error) {
	if q.NetworkInterface == "" && q.VirtualMachine == "" {
		return nil, errors.New("a network interface or a virtual machine is needed")
	}
	if q.NetworkInterface != "" {
		nic, err := set.NetworkInterface(q.NetworkInterface)
		if err == nil && q.VirtualMachine != "" && !policy.SameVirtualMachine(q.VirtualMachine, nic.VirtualMachineID) {
			err = fmt.Errorf("network interface %q is not of virtual machine %q", nic.Name, q.VirtualMachine)
		}
		return nic, err
	}
	nics, err := set.VirtualMachine(q.VirtualMachine)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, nic := range nics {
		names = append(names, nic.Name)
		for i := range nic.IPConfigurations {
			if nic.IPConfigurations[i].Address == q.Source {
				return nic, nil
			}
		}
	}
	if len(nics) == 1 {
		return nics[0], nil
	}
	return nil, fmt.Errorf("virtual machine %q: none of its network interfaces (%s) has the address %s", q.VirtualMachine, strings.Join(names, ", "), q.Source)
}

// EffectiveRoutes lists the routes of a NIC, by name or id, as Azure's effective routes do: those of the
// system, of gateways and of the route table of its primary ipConfiguration's subnet.
func EffectiveRoutes(s *topology.Snapshot, networkInterface string) (*azure.EffectiveRouteListResult, error) {
	nic, err := s.Policy.NetworkInterface(networkInterface)
	if err != nil {
		return nil, err
	}
	from := s.Endpoint(nic, Primary(nic).Address)
	result := &azure.EffectiveRouteListResult{Value: []azure.EffectiveRoute{}}
	table := s.RouteTable(from)
	for _, r := range s.EffectiveRoutes(from) {
		shown := azure.EffectiveRoute{Source: string(r.Source), State: "Invalid", NextHopType: string(r.Type),
			AddressPrefix: []string{}, NextHopIPAddress: []string{}, DisableBGPRoutePropagation: table != nil && table.DisableGatewayRoutes}
		if r.Type == topology.HopPeering {
			shown.NextHopType = azure.HopVNetPeering
		}
		if r.Name != "" {
			shown.Name = &r.Name
		}
		if r.Active {
			shown.State = "Active"
		}
		for _, p := range r.Prefixes {
			shown.AddressPrefix = append(shown.AddressPrefix, p.String())
		}
		if r.Address.IsValid() {
			shown.NextHopIPAddress = append(shown.NextHopIPAddress, r.Address.String())
		}
		result.Value = append(result.Value, shown)
	}
	return result, nil
}
