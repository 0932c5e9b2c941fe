package arm

import (
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// loader collects resources from documents, then builds a Set of them in phases.
type loader struct {
	source    *source
	out       *Documents
	resources []*resource
	orphans   []*resource // children without a parent in the documents
	index     index
	knownTags ruleset.KnownTags
	stale     bool            // a resource that was built before is not what it was
	named     map[string]bool // the files that were given by their own names
	// endpointed are the ids, in lower case, of private endpoints that network interfaces name.
	endpointed map[string]bool

	// inSubnets are resources that are not read and stand in subnets.
	inSubnets []standing

	steps map[string]func(object map[string]any) *template.Step // of each template's file

	addresses    map[usedAddress]string     // the ipConfiguration that has it
	reserved     map[usedAddress]bool       // written down, by what is read later
	nextFree     map[usedAddress]netip.Addr // where a prefix may have free addresses, by its first
	full         map[fullSubnet]bool        // told
	dynamic      []dynamicAddress
	assigned     []*assignments // in the order of their first addresses
	addressCount map[*policy.VirtualNetwork]int
	inRegion     map[region]int
	peerings     map[*policy.VirtualNetwork][]*fields // where its Peerings stand
	publicUsers  map[*policy.PublicIPAddress]string   // the place that has it
	holders      map[netip.Addr]*policy.PublicIPAddress
	// Claims are references to resources that later phases build.
	publicClaims  []publicClaim
	gatewayClaims []gatewayClaim
	memberClaims  []memberClaim
	balancers     []*balancer
	hubs          *hubSet
	owners        map[*policy.IPConfiguration]*policy.NetworkInterface

	folders   map[string]string     // the folder of the policy that a file was found in
	absent    map[missingKey]*cause // resources that no document has
	causes    []*cause              // those that may have dependents
	depending map[string]bool       // the files of dependents
	unread    map[string]*cause     // the first link of each file whose template was not read

	places places

	values      *values
	reasons     map[string]map[string]string // why expressions stay open, by file and text
	wellSpelled map[spelled]bool             // keys that checkSpelling finds nothing about
	delegated   map[*policy.Subnet]string    // the services of delegated subnets
}

func newLoader() *loader {
	where := places{}
	return &loader{
		places: where,
		source: &source{open: readRegular, now: time.Now, seen: map[string]seenFile{}},
		steps:  map[string]func(map[string]any) *template.Step{},
		absent: map[missingKey]*cause{}, depending: map[string]bool{}, unread: map[string]*cause{},
		out:   &Documents{Set: &policy.Set{}, places: where, files: map[*ruleset.NSG]string{}, bodies: map[*ruleset.NSG]map[string]ruleBody{}, objects: map[any]ruleBody{}, unchanged: map[string]digest{}, again: map[string]*Documents{}, routes: map[*policy.RouteTable]string{}, order: map[string]int{}},
		index: newIndex(), addresses: map[usedAddress]string{}, reserved: map[usedAddress]bool{}, nextFree: map[usedAddress]netip.Addr{}, full: map[fullSubnet]bool{}, addressCount: map[*policy.VirtualNetwork]int{}, inRegion: map[region]int{},
		peerings: map[*policy.VirtualNetwork][]*fields{}, owners: map[*policy.IPConfiguration]*policy.NetworkInterface{}, publicUsers: map[*policy.PublicIPAddress]string{}, holders: map[netip.Addr]*policy.PublicIPAddress{}, folders: map[string]string{}, values: &values{}, named: map[string]bool{}, endpointed: map[string]bool{}, reasons: map[string]map[string]string{}, wellSpelled: map[spelled]bool{}, delegated: map[*policy.Subnet]string{},
	}
}

// phase is one step from the collected resources to a Set.
type phase struct {
	name string
	// needs are the kinds that must be built: the phase looks them up, or settles their claims.
	needs []kind
	// gives are the kinds that later phases may look up.
	gives []kind
	// A phase calls run once, or build for each resource of kind of, in the documents' order.
	run   func(*loader)
	of    kind
	build func(*loader, *resource)
}

// gathering and building are all phases in their order. A phase needs only kinds that
// earlier ones give. Between the two lists, a Reader decides whether it may reuse groups.
var (
	gathering = []phase{
		{name: "scale sets that Azure shows", run: (*loader).addScaleSets},
		{name: "instances of scale sets", run: (*loader).expandScaleSets},
		{name: "what else Azure shows", run: (*loader).addRuntime},
		{name: "children find their parents", run: (*loader).adopt},
		{name: "application security groups", gives: []kind{asgKind}, of: asgKind, build: (*loader).buildASG},
	}
	building = []phase{
		{name: "network security groups", needs: []kind{asgKind}, gives: []kind{groupKind}, of: groupKind, build: (*loader).buildGroup},
		{name: "rules without their group", needs: []kind{asgKind}, run: (*loader).checkOrphanRules},
		{name: "route tables", gives: []kind{routeTableKind}, of: routeTableKind, build: (*loader).buildRouteTable},
		{name: "public addresses", gives: []kind{publicAddressKind}, of: publicAddressKind, build: (*loader).buildPublicAddress},
		{name: "public prefixes", gives: []kind{publicPrefixKind}, of: publicPrefixKind, build: (*loader).buildPublicPrefix},
		{name: "NAT gateways", needs: []kind{publicAddressKind, publicPrefixKind}, gives: []kind{natGatewayKind},
			of: natGatewayKind, build: (*loader).buildNATGateway},
		{name: "networks and subnets", needs: []kind{groupKind, routeTableKind, natGatewayKind}, gives: []kind{networkKind, subnetKind},
			of: networkKind, build: (*loader).buildNetwork},
		{name: "virtual hubs", gives: []kind{hubTableKind}, run: (*loader).readHubs},
		{name: "networks at virtual hubs", needs: []kind{networkKind, hubTableKind}, run: (*loader).connectHubs},
		{name: "both ends of peerings", needs: []kind{networkKind}, run: (*loader).relatePeerings},
		{name: "network groups", needs: []kind{networkKind}, gives: []kind{networkGroupKind}, of: networkGroupKind, build: (*loader).buildNetworkGroup},
		{name: "members of network groups by policies", needs: []kind{networkKind, networkGroupKind}, of: policyKind, build: (*loader).buildPolicy},
		{name: "admin rules", needs: []kind{networkGroupKind}, gives: []kind{collectionKind}, of: collectionKind, build: (*loader).buildCollection},
		{name: "addresses of frontends", needs: []kind{subnetKind}, of: loadBalancerKind, build: (*loader).reserveAddresses},
		{name: "network interfaces", needs: []kind{groupKind, asgKind, subnetKind, publicAddressKind},
			gives: []kind{interfaceKind, configurationKind}, of: interfaceKind, build: (*loader).buildInterface},
		{name: "private endpoints", needs: []kind{asgKind, subnetKind, interfaceKind}, of: privateEndpointKind, build: (*loader).buildPrivateEndpoint},
		{name: "addresses that are not written down", needs: []kind{subnetKind, interfaceKind}, run: (*loader).assignAddresses},
		{name: "subnets that NAT gateways name", needs: []kind{natGatewayKind, subnetKind, interfaceKind}, run: (*loader).relateGateways},
		{name: "load balancers", needs: []kind{publicAddressKind, publicPrefixKind, networkKind, subnetKind, configurationKind},
			gives: []kind{loadBalancerKind, frontendKind, probeKind, poolKind, natRuleKind, natPoolKind}, of: loadBalancerKind, build: (*loader).buildLoadBalancer},
		{name: "members of pools and NAT rules", needs: []kind{poolKind, natRuleKind, natPoolKind, configurationKind}, run: (*loader).relateMembers},
		{name: "load balancers as a whole", needs: []kind{loadBalancerKind}, run: (*loader).checkBalancers},
		{name: "what public addresses name", needs: []kind{publicAddressKind, configurationKind, frontendKind}, run: (*loader).relatePublicAddresses},
		{name: "members of application security groups", needs: []kind{asgKind, groupKind, interfaceKind}, run: (*loader).checkMembers},
		{name: "services in subnets", needs: []kind{subnetKind}, run: (*loader).placeServices},
		{name: "flow logs", needs: []kind{groupKind, networkKind, subnetKind, interfaceKind}, of: flowLogKind, build: (*loader).buildFlowLog},
		{name: "addresses that were chosen", run: (*loader).warnOfAssigned},
		{name: "warnings", needs: []kind{routeTableKind, subnetKind, interfaceKind}, run: (*loader).warnOfRoutes},
	}
)

func (l *loader) run(phases []phase) {
	for i := range phases {
		l.runPhase(&phases[i])
	}
}

func (l *loader) runPhase(p *phase) {
	if p.run != nil {
		p.run(l)
		return
	}
	for _, r := range l.resources {
		switch {
		case r.kind != p.of:
		case r.like != nil:
			l.buildAlike(r, p.build)
		default:
			l.checkWithheld(r)
			p.build(l, r)
		}
	}
}

// finish builds the Set out of gathered resources.
func (l *loader) finish() *Documents {
	l.run(building)
	l.countDependents()
	l.out.sort(l.out.Faults)
	l.out.sort(l.out.Unresolved)
	l.out.sort(l.out.Warnings)
	return l.out
}

func (l *loader) fault(f ruleset.Fault) { l.out.Faults = append(l.out.Faults, f) }

// warn lists something that leaves the policy fit for use.
func (l *loader) warn(f ruleset.Fault) { l.out.Warnings = append(l.out.Warnings, f) }

func (l *loader) unresolved(f ruleset.Fault) { l.out.Unresolved = append(l.out.Unresolved, f) }
