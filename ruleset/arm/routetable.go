package arm

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for route tables. MissingNextHopIpAddress is Azure's
// (hashicorp/terraform-provider-azurerm pull request 20365). The others are ours.
const (
	CodeMissingNextHop      = "MissingNextHopIpAddress"
	CodeInvalidNextHop      = "RouteInvalidNextHopIpAddress"
	CodeInvalidNextHopType  = "RouteInvalidNextHopType"
	CodeInvalidRoutePrefix  = "RouteInvalidAddressPrefix"
	CodeDuplicateRouteName  = "RouteTableInvalidDuplicateName"
	CodeDuplicateRoute      = "RouteTableInvalidDuplicateAddressPrefix"
	CodeTooManyRoutes       = "RouteTableInvalidNumberOfRoutes"
	CodeEverythingIsNetwork = "VirtualNetworkTagIsEverything" // in Documents.Warnings, as the next one
	CodeUnfitNextHop        = "NextHopLoadBalancerWithoutHAPorts"
)

// maxRoutes is Azure's limit of user-defined routes in a table.
const maxRoutes = 400

var nextHopTypes = []policy.NextHopType{policy.HopGateway, policy.HopVnetLocal, policy.HopInternet, policy.HopVirtualAppliance, policy.HopNone}

func (l *loader) buildRouteTable(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	t := &policy.RouteTable{Name: r.name, ID: r.identity(), DisableGatewayRoutes: f.flag("disableBgpRoutePropagation", false)}
	routes := l.inner(r, routeKind, f.objects("routes"))
	if len(routes) > maxRoutes {
		f.fault(CodeTooManyRoutes, "routes", strconv.Itoa(len(routes)), "a route table has at most %d routes", maxRoutes)
	}
	names, prefixes := map[string]bool{}, map[string]string{}
	for _, c := range routes {
		rf := l.read(c.file, c.place(), "", c.body)
		route, ok := rf.readRoute(c)
		rf.markCondition(c)
		if len(rf.open) > 0 || !ok {
			f.inherit(rf, "routes")
			continue
		}
		if name := strings.ToLower(route.Name); names[name] {
			rf.fault(CodeDuplicateRouteName, "name", route.Name, "another route of the table has this name")
		} else {
			names[name] = true
		}
		to := route.Tag
		if to == "" {
			to = route.Prefix.String()
		}
		if other, dup := prefixes[to]; dup {
			rf.fault(CodeDuplicateRoute, "addressPrefix", to, "route %q of the table is for the same addresses", other)
		}
		prefixes[to] = route.Name
		t.Routes = append(t.Routes, route)
	}
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
	} else if l.register(r, t.ID, t, t.Name) {
		l.out.Set.RouteTables = append(l.out.Set.RouteTables, t)
		l.out.routes[t] = r.file
	}
}

func (f *fields) readRoute(c *resource) (policy.Route, bool) {
	r := policy.Route{Name: c.name}
	if !f.named(c) {
		return r, false
	}
	faults := len(f.l.out.Faults)
	f.destination(&r)
	f.nextHop(&r)
	return r, len(f.l.out.Faults) == faults
}

// destination reads addressPrefix.
func (f *fields) destination(r *policy.Route) {
	const field = "addressPrefix"
	text := f.text(field)
	if text == "" {
		if !f.open[field] && !f.withheld() {
			f.fault(CodeInvalidRoutePrefix, field, "", "a route needs a CIDR or a service tag")
		}
		return
	}
	prefix, problem := ruleset.ParsePrefix(text)
	if problem == "" && strings.Contains(text, "/") {
		r.Prefix = prefix
		return
	}
	if problem == "" {
		problem = "an address without a prefix length"
	}
	if ruleset.LooksLikeTag(text) {
		tag, unknown := ruleset.RouteTag(text, f.l.knownTags)
		if unknown == "" {
			r.Tag = tag
			return
		}
		problem = unknown
	}
	f.fault(CodeInvalidRoutePrefix, field, text, "%s; allowed are a CIDR without host bits and a service tag", problem)
}

// nextHop reads nextHopType, and the address that type VirtualAppliance needs.
func (f *fields) nextHop(r *policy.Route) {
	const field, addressField = "nextHopType", "nextHopIpAddress"
	text, address := f.text(field), f.text(addressField)
	i := slices.IndexFunc(nextHopTypes, func(t policy.NextHopType) bool { return strings.EqualFold(string(t), text) })
	if i < 0 {
		if !f.open[field] && !f.withheld() {
			f.fault(CodeInvalidNextHopType, field, text, "allowed are VirtualNetworkGateway, VnetLocal, Internet, VirtualAppliance and None")
		}
		return
	}
	r.Hop = nextHopTypes[i]
	switch {
	case f.open[addressField]:
	case r.Hop != policy.HopVirtualAppliance && r.Hop != policy.HopNone && address != "":
		f.fault(CodeInvalidNextHop, addressField, address, "an address is for nextHopType VirtualAppliance, and None takes one; this one is %s", r.Hop)
	case r.Hop == policy.HopVirtualAppliance && address == "":
		f.fault(CodeMissingNextHop, addressField, "", "NextHopIpAddress cannot be Null or Empty in route %s when NextHopType is VirtualAppliance.", r.Name)
	case address != "":
		a, err := netip.ParseAddr(address)
		switch {
		case err != nil || a.Zone() != "" || a.Is4In6():
			f.fault(CodeInvalidNextHop, addressField, address, "allowed is the IPv4 or IPv6 address of a network interface")
		case r.Prefix.IsValid() && r.Prefix.Addr().Is4() != a.Is4():
			f.fault(CodeInvalidNextHop, addressField, address, "the address is not of the family of %s", r.Prefix)
		default:
			r.Appliance = a
		}
	}
}

// warnOfRoutes warns of default routes in subnets with an NSG: they make the tag VirtualNetwork mean
// every address. It warns of load balancers that can be no next hops, too.
func (l *loader) warnOfRoutes() {
	guarded := map[*policy.Subnet]bool{}
	for _, n := range l.out.Set.NetworkInterfaces {
		for i := range n.IPConfigurations {
			s := n.IPConfigurations[i].Subnet
			guarded[s] = guarded[s] || n.NetworkSecurityGroup != nil
		}
	}
	var warnings ruleset.Faults
	for _, v := range l.out.Set.VirtualNetworks {
		for _, s := range v.Subnets {
			if s.RouteTable != nil && (guarded[s] || s.NetworkSecurityGroup != nil) {
				warnings = append(warnings, l.routeWarnings(s)...)
			}
			warnings = append(warnings, l.unfitHops(s)...)
		}
	}
	l.out.sort(warnings)
	l.out.Warnings = append(l.out.Warnings, warnings...)
}

// unfitHops warns of next hops that are load balancers without a rule for every port.
func (l *loader) unfitHops(s *policy.Subnet) (warnings ruleset.Faults) {
	if s.RouteTable == nil {
		return nil
	}
	for i := range s.RouteTable.Routes {
		r := &s.RouteTable.Routes[i]
		for _, lb := range l.out.Set.LoadBalancers {
			j := slices.IndexFunc(lb.Frontends, func(f *policy.Frontend) bool {
				return f.Subnet != nil && f.Address == r.Appliance && (f.Subnet.VirtualNetwork == s.VirtualNetwork || s.VirtualNetwork.Peering(f.Subnet.VirtualNetwork) != nil)
			})
			if j < 0 || slices.ContainsFunc(lb.Rules, func(rule *policy.LoadBalancingRule) bool {
				return rule.Frontend == lb.Frontends[j] && rule.Protocol == policy.TransportAll
			}) {
				continue
			}
			warnings = append(warnings, ruleset.Fault{
				Code: CodeUnfitNextHop, File: l.out.routes[s.RouteTable],
				Resource: kindPaths[routeTableKind] + "/" + s.RouteTable.Name + "/" + kindPaths[routeKind] + "/" + r.Name,
				Field:    "nextHopIpAddress", Value: r.Appliance.String(),
				Message: "the next hop is load balancer " + lb.Name + ", whose frontend has no rule for every port (protocol All): here the route leads nowhere",
			})
		}
	}
	return warnings
}

func (l *loader) routeWarnings(s *policy.Subnet) (warnings ruleset.Faults) {
	for i := range s.RouteTable.Routes {
		r := &s.RouteTable.Routes[i]
		if !r.Prefix.IsValid() || r.Prefix.Bits() > 0 {
			continue
		}
		warnings = append(warnings, ruleset.Fault{
			Code: CodeEverythingIsNetwork, File: l.out.routes[s.RouteTable],
			Resource: kindPaths[routeTableKind] + "/" + s.RouteTable.Name + "/" + kindPaths[routeKind] + "/" + r.Name,
			Field:    "addressPrefix", Value: r.Prefix.String(),
			Message: "in subnet " + s.VirtualNetwork.Name + "/" + s.Name + " the tag VirtualNetwork stands for every address of this family: AllowVnetInBound and AllowVnetOutBound allow everything there, and Internet stands for nothing",
		})
	}
	return warnings
}
