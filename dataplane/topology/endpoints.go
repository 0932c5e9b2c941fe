package topology

import (
	"net/netip"
	"slices"

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
	routeTables       bool // a subnet has a route table
}

type endpointKey struct {
	nic  *policy.NetworkInterface
	addr netip.Addr
}

// newEndpoints makes the endpoints of subnets and NICs with their stages. Their routes are
// still empty; fillRoutes fills them.
func newEndpoints(set *policy.Set, networks *networkSet, groups *groupSet) *endpointSet {
	s := &endpointSet{networks: networks, byNIC: map[endpointKey]*Endpoint{},
		outside: &Endpoint{Attachment: -1, routes: &routes{}}, platform: &Endpoint{Attachment: -1, routes: &routes{}}}
	endpoint := func(sub *policy.Subnet, nic *policy.NetworkInterface) *Endpoint {
		n := networks.of[sub.VirtualNetwork]
		s.routeTables = s.routeTables || sub.RouteTable != nil
		e := &Endpoint{NetworkInterface: nic, Subnet: sub, Attachment: -1, Established: n.vnet.FlowTimeout,
			routes: n.routesWith(set, sub.RouteTable, groups)}
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

// routesWith makes the routes of a network's subnets with a route table once.
func (n *network) routesWith(set *policy.Set, t *policy.RouteTable, groups *groupSet) *routes {
	r := n.routes[t]
	if r == nil {
		r = &routes{network: n, table: t, view: groups.view(ruleset.VirtualNetworkPrefixes(n.virtualNetworkTag(set, t)))}
		r.adminInbound, r.adminOutbound = groups.adminStages(n.vnet, r.view)
		r.hasDefault = t != nil && slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
			return slices.Contains(set.Prefixes(&route), everywhere[0])
		}) || (t == nil || !t.DisableGatewayRoutes) && slices.Contains(n.behindGateway, everywhere[0])
		n.routes[t] = r
	}
	return r
}

// setStages sets the stages in Azure's order: inbound the subnet's NSG and then the NIC's,
// outbound the other way round.
func (e *Endpoint) setStages(groups *groupSet) {
	e.AdminInbound, e.AdminOutbound = e.routes.adminInbound, e.routes.adminOutbound
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
