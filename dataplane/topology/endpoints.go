package topology

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// endpointSet is all endpoints of a snapshot but the gateways.
type endpointSet struct {
	networks          *networkSet
	nics              []*Endpoint // in the policy's order
	subnets           []*Endpoint // the other addresses of each subnet
	byNIC             map[endpointKey]*Endpoint
	outside, platform *Endpoint
	// services is the outside as service endpoints reach it: nothing is translated.
	services    *Endpoint
	routeTables bool // a subnet has a route table
}

type endpointKey struct {
	nic  *policy.NetworkInterface
	addr netip.Addr
}

// newEndpoints makes the endpoints of subnets and NICs with their stages. Their routes are
// still empty; fillRoutes fills them.
func newEndpoints(set *policy.Set, networks *networkSet, groups *groupSet) *endpointSet {
	s := &endpointSet{networks: networks, byNIC: map[endpointKey]*Endpoint{},
		outside: &Endpoint{Attachment: -1, routes: noRoutes()}, platform: &Endpoint{Attachment: -1, routes: noRoutes()}}
	s.services = &Endpoint{Attachment: -1, routes: s.outside.routes}
	endpoint := func(sub *policy.Subnet, nic *policy.NetworkInterface) *Endpoint {
		n := networks.of[sub.VirtualNetwork]
		s.routeTables = s.routeTables || sub.RouteTable != nil
		e := &Endpoint{NetworkInterface: nic, Subnet: sub, Attachment: -1, Established: n.vnet.FlowTimeout}
		table := sub.RouteTable
		if e.private() && !sub.EndpointPolicies.RouteTable {
			table = nil
		}
		e.routes = n.routesWith(set, sub, table, groups)
		e.setStages(groups)
		return e
	}
	for _, n := range networks.list {
		for _, sub := range n.vnet.Subnets {
			s.subnets = append(s.subnets, endpoint(sub, nil))
		}
	}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			e := endpoint(c.Subnet, nic)
			e.Stateless, e.address = nic.DisableTCPStateTracking, packet.AddrFrom(c.Address)
			s.nics = append(s.nics, e)
			s.byNIC[endpointKey{nic, c.Address.Unmap()}] = e
		}
	}
	return s
}

// all lists the endpoints that virtual networks have, NICs first.
func (s *endpointSet) all() []*Endpoint { return slices.Concat(s.nics, s.subnets) }

// routesWith makes the routes of a subnet with a route table, once for all subnets that have the same.
func (n *network) routesWith(set *policy.Set, sub *policy.Subnet, t *policy.RouteTable, groups *groupSet) *routes {
	key := n.keyOf(sub, t)
	r := n.routes[key]
	if r == nil {
		r = &routes{network: n, table: t, services: sub.ServiceEndpoints, peers: n.peersOf(sub), behindGateway: n.behindGatewayOf(sub),
			view: n.viewOf(set, sub, t, groups), hops: &bart.Table[*hop]{}}
		r.adminInbound, r.adminOutbound = groups.adminStages(n.vnet, r.view)
		r.hasDefault = t != nil && slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
			return slices.Contains(set.Prefixes(&route), everywhere[0])
		}) || (t == nil || !t.DisableGatewayRoutes) && slices.Contains(r.behindGateway, everywhere[0])
		n.routes[key] = r
	}
	return r
}

// private reports an address of a private endpoint.
func (e *Endpoint) private() bool {
	return e.NetworkInterface != nil && e.NetworkInterface.PrivateEndpointID != ""
}

// setStages sets the stages in Azure's order: inbound the subnet's NSG and then the NIC's,
// outbound the other way round. For a private endpoint the subnet's holds where the subnet says so,
// and admin rules never do.
func (e *Endpoint) setStages(groups *groupSet) {
	switch {
	case !e.private():
		e.AdminInbound, e.AdminOutbound = e.routes.adminInbound, e.routes.adminOutbound
	case !e.Subnet.EndpointPolicies.NetworkSecurityGroup:
		return
	}
	var subnet, nic *Group
	if g := e.Subnet.NetworkSecurityGroup; g != nil {
		subnet = groups.group(g, e.routes.view)
	}
	if e.NetworkInterface != nil && e.NetworkInterface.NetworkSecurityGroup != nil {
		nic = groups.group(e.NetworkInterface.NetworkSecurityGroup, e.routes.view)
	}
	if subnet != nil {
		e.Inbound = append(e.Inbound, Stage{SubnetAssociation, ruleset.Inbound, subnet, &subnet.Inbound})
	}
	if nic != nil {
		e.Inbound = append(e.Inbound, Stage{NetworkInterfaceAssociation, ruleset.Inbound, nic, &nic.Inbound})
		e.Outbound = append(e.Outbound, Stage{NetworkInterfaceAssociation, ruleset.Outbound, nic, &nic.Outbound})
	}
	if subnet != nil {
		e.Outbound = append(e.Outbound, Stage{SubnetAssociation, ruleset.Outbound, subnet, &subnet.Outbound})
	}
}

// KindOf is what an endpoint stands for: where it is attached, or would be.
func (s *Snapshot) KindOf(e *Endpoint) Kind {
	switch {
	case e.NetworkInterface != nil:
		return NetworkInterface
	case e.Subnet != nil:
		return Subnet
	case e == s.platform:
		return Platform
	case e.routes.network != nil:
		return Gateway
	}
	return Internet
}

// VirtualNetwork is the virtual network that an endpoint is in, or that a gateway is of; nil: none.
func (e *Endpoint) VirtualNetwork() *policy.VirtualNetwork {
	if e.routes.network == nil {
		return nil
	}
	return e.routes.network.vnet
}

// StandsFor reports an address that stands for others, or that is held to: a public one of the policy, or a
// frontend in a subnet.
func (s *Snapshot) StandsFor(a netip.Addr) bool {
	of := packet.AddrFrom(a)
	return s.public[of] != nil || slices.ContainsFunc(s.networks.list, func(n *network) bool { return n.frontends[of] != nil })
}
