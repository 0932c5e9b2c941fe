package arm

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for networks, of Azure where they are not marked.
const (
	CodeInvalidAddressPrefix    = "InvalidAddressPrefixFormat" // Azure/azure-service-operator issue 997
	CodeInvalidCIDR             = "InvalidCIDRNotation"
	CodeInvalidSubnet           = "NetcfgSubnetRangeOutsideVnet"                    // MicrosoftDocs/azure-docs pull request 123869; in 2021 it was NetcfgInvalidSubnet
	CodeSubnetsOverlap          = "NetcfgSubnetRangesOverlap"                       // the same
	CodeInvalidFlowTimeout      = "VirtualNetworkInvalidFlowTimeout"                // ours
	CodeAddressSpaceOverlap     = "VirtualNetworkInvalidAddressSpace"               // ours
	CodeTooManySubnets          = "VirtualNetworkInvalidNumberOfSubnets"            // ours
	CodeTooManyPeerings         = "VirtualNetworkInvalidNumberOfPeerings"           // ours
	CodeTooManyNetworkAddresses = "VirtualNetworkInvalidNumberOfPrivateIPAddresses" // ours
	CodePrefixFromPool          = "AddressPrefixFromPool"                           // ours, in Documents.Unresolved
	CodeSubnetSize              = "SubnetInvalidPrefixLength"                       // ours
	CodeNetworkOfIPv6           = "VirtualNetworkWithoutIPv4"                       // ours
	CodeUnusableSpace           = "VirtualNetworkUnusableAddressSpace"              // ours
)

// lastWithHostBits is the last API version that was seen to take prefixes with host bits.
const lastWithHostBits = "2015-06-15"

// Azure's limits of a virtual network.
const (
	maxSubnets             = 3000
	maxPeerings            = 500
	maxAddressesPerNetwork = 65536
	minFlowTimeout         = 4 // minutes
	maxFlowTimeout         = 30
	longestIPv4Subnet      = 29 // bits
	onlyIPv6Subnet         = 64
)

// unusable are the ranges that no virtual network can have ("Azure Virtual Network FAQ").
var unusable = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("fe80::/10"),
}

func (l *loader) buildNetwork(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	v := &policy.VirtualNetwork{Name: r.name, ID: r.identity(), FlowTimeout: f.flowTimeout()}
	if location, _ := lookup(r.body, "location").(string); !isExpression(location) {
		v.Location = location
	}
	if space := f.object("addressSpace"); space != nil {
		s := &fields{l: l, file: f.file, place: f.place, apiVersion: r.apiVersion(), values: space, open: f.open}
		if v := lookup(space, "copy"); v != nil {
			s.markOpen("copy", asText(v))
		}
		v.AddressSpace = s.prefixes("addressPrefixes")
		f.because(s.cause)
	} else if !f.open["addressSpace"] && !f.withheld() {
		f.fault(CodeInvalidRequestFormat, "addressSpace", "", "a virtual network needs an address space with addressPrefixes")
	}
	v.DNSServers = f.networkDNS()
	f.checkEncryption()
	subnets := l.inner(r, subnetKind, f.objects("subnets"))
	peerings := l.inner(r, peeringKind, f.objects("virtualNetworkPeerings"))
	var places []*fields
	v.Peerings, places = l.readPeerings(peerings)
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
		for _, s := range subnets {
			l.registerOpen(s, f.cause)
		}
		return
	}
	if !l.register(r, v.ID, v, v.Name) {
		return
	}
	l.out.Set.VirtualNetworks = append(l.out.Set.VirtualNetworks, v)
	l.peerings[v] = places
	for _, s := range subnets {
		l.buildSubnet(s, v)
	}
	f.checkSpace(v, len(subnets), len(peerings))
}

func (f *fields) flowTimeout() time.Duration {
	text := f.text("flowTimeoutInMinutes")
	if text == "" {
		return 0
	}
	minutes, err := strconv.Atoi(text)
	if err != nil || minutes < minFlowTimeout || minutes > maxFlowTimeout {
		f.fault(CodeInvalidFlowTimeout, "flowTimeoutInMinutes", text, "allowed are %d to %d minutes", minFlowTimeout, maxFlowTimeout)
		return 0
	}
	return time.Duration(minutes) * time.Minute
}

// prefixes reads a list of CIDRs without host bits.
func (f *fields) prefixes(field string) []netip.Prefix {
	texts := f.texts(field)
	var list []netip.Prefix
	for _, text := range texts {
		if text == "" { // an expression, which is listed
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6():
			f.fault(CodeInvalidAddressPrefix, field, text, "allowed is a CIDR such as 10.0.0.0/16 or fd00:1::/48")
		case p != p.Masked() && f.takesHostBits():
			list = append(list, p.Masked())
		case p != p.Masked():
			f.fault(CodeInvalidCIDR, field, text, "host bits are set; the network is %s", p.Masked())
		default:
			list = append(list, p)
		}
	}
	const pools = "ipamPoolPrefixAllocations"
	switch v, allocations := lookup(f.values, pools), f.allocations(pools); {
	case len(texts) > 0 || f.open[field] || f.open["copy"] || f.withheld():
	case allocations != nil:
		for _, a := range allocations {
			list = append(list, a.prefixes(allocatedPrefixes)...)
		}
	case matters(v, ""):
		f.markOpenBecause(CodePrefixFromPool, pools, asText(v), "Azure allocates the prefixes from a pool when it deploys: lay what it shows of the resource beside, or give it with --runtime")
	default:
		f.fault(CodeInvalidAddressPrefix, field, "", "at least one address prefix is needed")
	}
	return list
}

// allocatedPrefixes are the prefixes that a pool has given, in what Azure shows of a network or a subnet.
const allocatedPrefixes = "allocatedAddressPrefixes"

// allocations are the entries of a list of pools that have prefixes. There are none as long as one has not: the rest is not known.
func (f *fields) allocations(pools string) (list []*fields) {
	entries, _ := lookup(f.values, pools).([]any)
	for _, v := range entries {
		entry, _ := v.(map[string]any)
		if given, _ := lookup(entry, allocatedPrefixes).([]any); len(given) == 0 {
			return nil
		}
		list = append(list, &fields{l: f.l, file: f.file, place: f.place, apiVersion: f.apiVersion, values: entry, open: f.open})
	}
	return list
}

// takesHostBits reports whether the API version of the object's resource is one that takes
// prefixes with host bits.
func (f *fields) takesHostBits() bool { return f.apiVersion != "" && f.apiVersion <= lastWithHostBits }

func (l *loader) buildSubnet(r *resource, v *policy.VirtualNetwork) {
	f := l.read(r.file, r.place(), "", r.body)
	f.region = r.region()
	if !f.named(r) {
		return
	}
	f.apiVersion = r.apiVersion()
	s := &policy.Subnet{Name: r.name, ID: r.identity(), VirtualNetwork: v}
	// az writes a single prefix into both fields.
	field := "addressPrefixes"
	if len(f.objectOrList(field)) == 0 {
		field = "addressPrefix"
	}
	s.Prefixes = f.prefixes(field)
	if one := f.objectOrList("addressPrefix"); field == "addressPrefixes" && len(one) > 0 {
		for _, p := range f.prefixes("addressPrefix") {
			if !slices.Contains(s.Prefixes, p) {
				s.Prefixes = append(s.Prefixes, p)
			}
		}
	}
	if id := f.reference("networkSecurityGroup"); id != "" {
		s.NetworkSecurityGroup, _ = f.resolve(groupKind, "networkSecurityGroup", id).(*ruleset.NSG)
	}
	if id := f.reference("routeTable"); id != "" {
		s.RouteTable, _ = f.resolve(routeTableKind, "routeTable", id).(*policy.RouteTable)
	}
	s.EndpointPolicies, s.Services = f.endpointPolicies(), f.delegatedTo()
	outward := f.forTranslation()
	s.NATGateway = outward.natGateway()
	s.DisableDefaultOutbound = !outward.flag("defaultOutboundAccess", true)
	outward.readServiceEndpoints(s)
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
		return
	}
	if l.register(r, s.ID, s, s.Name, v.Name+"/"+s.Name) {
		v.Subnets = append(v.Subnets, s)
		if to := f.delegation(); to != "" {
			l.delegated[s] = to
		}
		f.checkSubnet(s, field)
		f.checkSpecial(s)
	}
}

// objectOrList is a field's raw value as a list.
func (f *fields) objectOrList(field string) []any {
	switch v := lookup(f.values, field).(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		if v == "" {
			return nil
		}
		return []any{v}
	}
}

// checkSubnet checks that a subnet is inside its network's address space, and has a size that Azure takes.
func (f *fields) checkSubnet(s *policy.Subnet, field string) {
	for _, p := range s.Prefixes {
		switch {
		case p.Addr().Is4() && p.Bits() > longestIPv4Subnet:
			f.fault(CodeSubnetSize, field, p.String(), "the smallest IPv4 subnet is a /%d", longestIPv4Subnet)
		case p.Addr().Is6() && p.Bits() != onlyIPv6Subnet:
			f.fault(CodeSubnetSize, field, p.String(), "an IPv6 prefix of a subnet is a /%d", onlyIPv6Subnet)
		}
		inside := func(space netip.Prefix) bool { return space.Bits() <= p.Bits() && space.Contains(p.Addr()) }
		if len(s.VirtualNetwork.AddressSpace) > 0 && !slices.ContainsFunc(s.VirtualNetwork.AddressSpace, inside) {
			f.fault(CodeInvalidSubnet, field, p.String(), "the prefix is outside the address space of virtual network %q: %s",
				s.VirtualNetwork.Name, listedPrefixes(s.VirtualNetwork.AddressSpace))
		}
	}
}

func listedPrefixes(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return ruleset.Listed(texts)
}

// checkSpace checks a network as a whole.
func (f *fields) checkSpace(v *policy.VirtualNetwork, subnets, peerings int) {
	if subnets > maxSubnets {
		f.fault(CodeTooManySubnets, "subnets", strconv.Itoa(subnets), "a virtual network has at most %d subnets", maxSubnets)
	}
	if peerings > maxPeerings {
		f.fault(CodeTooManyPeerings, "virtualNetworkPeerings", strconv.Itoa(peerings), "a virtual network has at most %d peerings", maxPeerings)
	}
	for _, p := range v.AddressSpace {
		inside := func(all netip.Prefix) bool { return all.Bits() <= p.Bits() && all.Contains(p.Addr()) }
		if slices.ContainsFunc(unusable, inside) {
			f.fault(CodeUnusableSpace, "addressPrefixes", p.String(), "no virtual network can have addresses of %s", listedPrefixes(unusable))
		}
	}
	if len(v.AddressSpace) > 0 && !slices.ContainsFunc(v.AddressSpace, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		f.fault(CodeNetworkOfIPv6, "addressPrefixes", listedPrefixes(v.AddressSpace), "a virtual network needs an IPv4 prefix too")
	}
	overlapping(v.AddressSpace, func(p, other netip.Prefix) {
		f.fault(CodeAddressSpaceOverlap, "addressPrefixes", p.String(), "the prefix overlaps %s of the same address space", other)
	})
	owners := map[netip.Prefix]*policy.Subnet{}
	var all []netip.Prefix
	for _, s := range v.Subnets {
		for _, p := range s.Prefixes {
			if other := owners[p]; other != nil {
				f.overlap(s, p, other, p)
				continue
			}
			owners[p] = s
			all = append(all, p)
		}
	}
	overlapping(all, func(p, other netip.Prefix) { f.overlap(owners[p], p, owners[other], other) })
}

func (f *fields) overlap(s *policy.Subnet, p netip.Prefix, other *policy.Subnet, otherPrefix netip.Prefix) {
	at := *f
	at.place += "/subnets/" + s.Name
	at.fault(CodeSubnetsOverlap, "addressPrefix", p.String(), "the prefix overlaps %s of subnet %q in the same virtual network",
		otherPrefix, other.Name)
}

// overlapping calls report for every prefix that lies inside another one of the list.
func overlapping(list []netip.Prefix, report func(p, outer netip.Prefix)) {
	sorted := slices.SortedFunc(slices.Values(list), netip.Prefix.Compare)
	outer := 0
	for i := 1; i < len(sorted); i++ {
		if sorted[outer].Overlaps(sorted[i]) {
			report(sorted[i], sorted[outer])
			continue
		}
		outer = i
	}
}
