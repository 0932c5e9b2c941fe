package arm

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for load balancers. Azure's are PublicIPAndLBSkuDoNotMatch
// (Azure/terraform-azurerm-loadbalancer issue 32), FrontendIPConfigHasBothSubnetAndPublicIP
// (hashicorp/terraform-provider-azurerm issue 1622) and
// FrontendIPConfigHasNoSubnetOrPublicIP (ernestio/ernest issue 480).
const (
	CodeBalancerSKU          = "PublicIPAndLBSkuDoNotMatch"
	CodeFrontendBoth         = "FrontendIPConfigHasBothSubnetAndPublicIP"
	CodeFrontendNeither      = "FrontendIPConfigHasNoSubnetOrPublicIP"
	CodePortRange            = "PortValueIsOutOfRange"
	CodeProbeInterval        = "ProbeIntervalIsOutOfRange"
	CodeProbeNumber          = "NumberOfProbesIsOutOfRange"
	CodeProbePath            = "ProbeRequestPathIsNotNull"
	CodePrivateFormat        = "InvalidPrivateIPAddressFormat"
	CodeInvalidProbe         = "LoadBalancerInvalidProbe"          // ours
	CodeInvalidBackend       = "LoadBalancerInvalidBackendAddress" // ours
	CodeDuplicateOfBalancer  = "LoadBalancerDuplicateName"         // ours
	CodeBalancerPartNotFound = "LoadBalancerPartNotInDocuments"    // ours; in Documents.Warnings
)

// Azure's limits of probes.
const (
	minProbeInterval     = 5 // seconds
	defaultProbeInterval = 15 * time.Second
)

// balancer is a load balancer that is being read.
type balancer struct {
	*policy.LoadBalancer
	f     *fields
	r     *resource
	rules map[any]*fields // the fields of each part that was read
	// network is that of the internal frontends; nil when it has none, or when it is elsewhere.
	network     *policy.VirtualNetwork
	elsewhere   bool
	toldRegions bool
	// claims are the ipConfigurations that NAT rules name.
	claims []natClaim
}

// readPart reads one part of a load balancer; nil when it has a fault or stays open.
func (b *balancer) readPart(kind, file string, body map[string]any, read func(f *fields, name string) any) any {
	name, _ := lookup(body, "name").(string)
	if name == "" {
		name, _ = lookup(body, "id").(string)
	}
	name = lastSegment(name)
	f := b.f.l.readTranslating(file, b.r.place()+"/"+kind+"/"+name, body)
	if name == "" {
		f.fault(CodeInvalidRequestFormat, "name", "", "a part of a load balancer needs a name")
		return nil
	}
	faults := len(b.f.l.out.Faults)
	part := read(f, name)
	if len(f.open) > 0 || len(b.f.l.out.Faults) > faults {
		if k := partKinds[kind]; k != otherKind { // rules that name it depend on it
			b.f.l.index.add(&entry{kind: k, id: b.childID(k, name), scope: b.r.scope(), file: file, cause: f.cause}, b.Name+"/"+name, name)
		}
		return nil
	}
	b.rules[part] = f
	return part
}

// partKinds are the kinds of the parts that rules name, by their lists.
var partKinds = map[string]kind{kindPaths[frontendKind]: frontendKind, kindPaths[probeKind]: probeKind, kindPaths[natRuleKind]: natRuleKind,
	kindPaths[natPoolKind]: natPoolKind}

func (l *loader) buildLoadBalancer(r *resource) {
	f := l.readTranslating(r.file, r.place(), r.body)
	if !f.named(r) {
		return
	}
	b := &balancer{LoadBalancer: &policy.LoadBalancer{Name: r.name, ID: r.identity()}, f: f, r: r, rules: map[any]*fields{}}
	b.SKU = f.sku(r, policy.SKUBasic, policy.SKUStandard, policy.SKUGateway)
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
		return
	}
	if !l.register(r, b.ID, b.LoadBalancer, b.Name) {
		return
	}
	for _, body := range f.objects("frontendIPConfigurations") {
		if frontend, ok := b.readPart(kindPaths[frontendKind], r.file, body, b.readFrontend).(*policy.Frontend); ok && b.register(frontendKind, frontend.ID, frontend, frontend.Name) {
			b.Frontends = append(b.Frontends, frontend)
		}
	}
	for _, body := range f.objects("probes") {
		if probe, ok := b.readPart(kindPaths[probeKind], r.file, body, b.readProbe).(*policy.HealthProbe); ok && b.register(probeKind, b.childID(probeKind, probe.Name), probe, probe.Name) {
			b.Probes = append(b.Probes, probe)
		}
	}
	for _, c := range l.inner(r, poolKind, f.objects("backendAddressPools")) {
		l.readPool(c, b, b.pool(c.name))
	}
	b.readRules()
	l.out.Set.LoadBalancers = append(l.out.Set.LoadBalancers, b.LoadBalancer)
	l.balancers = append(l.balancers, b)
}

// pool finds or makes the pool of a name. A template may have a pool twice: inside the load
// balancer, and with its members as a separate resource.
func (b *balancer) pool(name string) *policy.BackendPool {
	i := slices.IndexFunc(b.Pools, func(p *policy.BackendPool) bool { return strings.EqualFold(p.Name, name) })
	if i >= 0 {
		return b.Pools[i]
	}
	p := &policy.BackendPool{Name: name, ID: b.childID(poolKind, name)}
	b.register(poolKind, p.ID, p, name)
	b.Pools = append(b.Pools, p)
	return p
}

// childID is the id of a part of the load balancer.
func (b *balancer) childID(k kind, name string) string { return b.ID + "/" + kindPaths[k] + "/" + name }

// register makes a part known to references. A repeated name is a fault.
func (b *balancer) register(k kind, id string, part any, name string) bool {
	if b.f.l.index.add(&entry{kind: k, id: id, scope: b.r.scope(), file: b.r.file, object: part}, b.Name+"/"+name, name) == nil {
		return true
	}
	b.f.fault(CodeDuplicateOfBalancer, kindPaths[k], name, "the load balancer has another one of this name")
	return false
}

// readFrontend reads a frontend IP configuration.
func (b *balancer) readFrontend(f *fields, name string) any {
	frontend := &policy.Frontend{Name: name, ID: b.childID(frontendKind, name)}
	public, prefix, subnet := f.object("publicIPAddress"), f.object("publicIPPrefix"), f.object("subnet")
	switch {
	case len(f.open) > 0:
		return nil
	case subnet != nil && (public != nil || prefix != nil):
		f.fault(CodeFrontendBoth, "subnet", asText(subnet), "Frontend IP Configuration %s must not reference both a Subnet and a Public IP Address.", f.place)
	case public != nil:
		b.publicFrontend(f, frontend)
	case prefix != nil:
		if id := f.reference("publicIPPrefix"); id != "" {
			if frontend.PublicIPPrefix, _ = f.resolveTranslating(publicPrefixKind, "publicIPPrefix", id).(*policy.PublicIPPrefix); frontend.PublicIPPrefix == nil {
				frontend.PublicIPPrefix = &policy.PublicIPPrefix{Name: lastSegment(id)}
			}
			frontend.IPv6 = frontend.PublicIPPrefix.Prefix.IsValid() && frontend.PublicIPPrefix.Prefix.Addr().Is6()
		}
	case subnet != nil:
		if id := f.reference("subnet"); id != "" {
			frontend.Subnet, _ = f.resolveTranslating(subnetKind, "subnet", id).(*policy.Subnet)
			b.internalFrontend(f, frontend)
		}
	default:
		f.fault(CodeFrontendNeither, "", "", "Frontend IP Configuration %s must reference either a Subnet or a Public IP Address.", f.place)
	}
	return frontend
}

func (b *balancer) publicFrontend(f *fields, frontend *policy.Frontend) {
	p := f.publicIP("publicIPAddress")
	if p == nil {
		return
	}
	frontend.PublicIPAddress, frontend.Address, frontend.IPv6 = p, p.Address, p.IPv6
	if p.ID == "" || b.SKU == policy.SKUGateway || p.SKU.Closed() == b.SKU.Closed() {
		return
	}
	f.fault(CodeBalancerSKU, "publicIPAddress", p.Name, "%s sku load balancer %s cannot reference %s sku publicIP %s.", b.SKU, b.Name, p.SKU, p.Name)
}

// internalFrontend reads the address of a frontend in a subnet. Nobody else may have it.
func (b *balancer) internalFrontend(f *fields, frontend *policy.Frontend) {
	const field = "privateIPAddress"
	text := f.text(field)
	frontend.IPv6 = strings.EqualFold(f.text("privateIPAddressVersion"), "IPv6")
	if frontend.Subnet != nil {
		b.network = frontend.Subnet.VirtualNetwork
	}
	switch {
	case frontend.Subnet == nil:
		f.open["subnet"], b.elsewhere = true, true // told already
		return
	case len(f.open) > 0:
		return
	case text == "":
		frontend.Address = f.l.assign(f, frontend.Subnet, 1, frontend.IPv6)
		return
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		f.fault(CodePrivateFormat, field, text, "allowed is an IPv4 or IPv6 address")
		return
	}
	frontend.Address, frontend.IPv6 = a, a.Is6()
	b.f.l.checkAddress(f, &policy.IPConfiguration{Subnet: frontend.Subnet, Address: a})
}

// readProbe reads a health probe.
func (b *balancer) readProbe(f *fields, name string) any {
	p := &policy.HealthProbe{Name: name, Interval: defaultProbeInterval, Threshold: 1}
	p.Protocol = f.oneOf("protocol", CodeInvalidProbe, "Tcp", "Http", "Https")
	if p.Protocol == "Https" && b.SKU == policy.SKUBasic {
		f.fault(CodeInvalidProbe, "protocol", p.Protocol, "allowed with a load balancer of SKU Basic are Tcp and Http")
	}
	p.Port = f.port("port", CodeInvalidProbe, 1, 65535)
	p.Path = f.text("requestPath")
	if http := p.Protocol == "Http" || p.Protocol == "Https"; http && !f.open["requestPath"] {
		switch {
		case p.Path == "":
			f.fault(CodeInvalidProbe, "requestPath", p.Path, "a probe of protocol %s needs a path", p.Protocol)
		case p.Path[0] != '/': // Azure takes it and asks for it below the root
			p.Path = "/" + p.Path
		}
	}
	if p.Path != "" && p.Protocol == "Tcp" {
		f.fault(CodeProbePath, "requestPath", p.Path, "a probe of protocol Tcp has no path")
	}
	const interval = "intervalInSeconds"
	if text := f.text(interval); text != "" {
		seconds := f.number(interval, text, CodeProbeInterval, minProbeInterval, math.MaxInt32, "seconds")
		p.Interval = time.Duration(seconds) * time.Second
	}
	for _, field := range []string{"numberOfProbes", "probeThreshold"} {
		if text := f.text(field); text != "" {
			p.Threshold = f.number(field, text, CodeProbeNumber, 1, 100, "probes")
		}
	}
	return p
}

// oneOf reads one of the allowed words, in any case. Empty when the field is open or faulty.
func (f *fields) oneOf(field, code string, allowed ...string) string {
	text := f.text(field)
	for _, word := range allowed {
		if strings.EqualFold(word, text) {
			return word
		}
	}
	if !f.open[field] && !f.withheld() {
		f.fault(code, field, text, "allowed are %s", strings.Join(allowed, ", "))
	}
	return ""
}

// port reads a port number. The field is mandatory.
func (f *fields) port(field, code string, least, most int) uint16 {
	text := f.text(field)
	switch {
	case f.open[field] || f.withheld():
		return 0
	case text == "":
		f.fault(code, field, "", "allowed are ports %d to %d", least, most)
		return 0
	}
	return uint16(f.number(field, text, CodePortRange, least, most, "ports"))
}

// number is a field's text as a whole number of a range. Of any other text it is the nearest one.
func (f *fields) number(field, text, code string, least, most int, what string) int {
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil:
		f.fault(CodeInvalidRequestFormat, field, text, "allowed are %d to %d %s", least, most, what)
	case int(n) < least || int(n) > most:
		f.fault(code, field, text, "allowed are %d to %d %s", least, most, what)
	}
	return max(least, min(int(n), most))
}

// readPool reads the members that the pool's own document lists.
func (l *loader) readPool(c *resource, b *balancer, pool *policy.BackendPool) {
	f := l.readTranslating(c.file, b.r.place()+"/"+kindPaths[poolKind]+"/"+c.name, c.body)
	network, named := f.network()
	for _, id := range f.references("backendIPConfigurations") {
		f.join(pool, "backendIPConfigurations", id)
	}
	for _, body := range f.objects("loadBalancerBackendAddresses") {
		a := l.readTranslating(c.file, f.place+"/loadBalancerBackendAddresses/"+lastSegment(asText(lookup(body, "name"))), body)
		if id := a.reference("networkInterfaceIPConfiguration"); id != "" {
			a.join(pool, "networkInterfaceIPConfiguration", id)
			continue
		}
		if a.object("loadBalancerFrontendIPConfiguration") != nil {
			b.crossRegion(a)
			continue
		}
		if own, given := a.network(); given {
			a.joinAddress(pool, own, b)
		} else if network != nil || !named {
			a.joinAddress(pool, cmp.Or(network, b.network), b)
		}
	}
}

// crossRegion tells once that backends in other regions are passed over.
func (b *balancer) crossRegion(f *fields) {
	if !b.toldRegions {
		b.toldRegions = true
		f.l.warn(b.f.newFault(CodeNotTranslated, kindPaths[poolKind], "", "its backends are frontends of other load balancers: cross-region load balancing is not simulated, and nothing is translated to them"))
	}
}

// network is the virtual network that a pool or an address in a pool names; nil when it is
// not in the documents. named is false when the fields name none.
func (f *fields) network() (v *policy.VirtualNetwork, named bool) {
	if id := f.reference("virtualNetwork"); id != "" {
		v, _ = f.resolveTranslating(networkKind, "virtualNetwork", id).(*policy.VirtualNetwork)
		return v, true
	}
	if id := f.reference("subnet"); id != "" {
		if s, _ := f.resolveTranslating(subnetKind, "subnet", id).(*policy.Subnet); s != nil {
			v = s.VirtualNetwork
		}
		return v, true
	}
	return nil, false
}

// configuration finds an ipConfiguration of a network interface. When it was not read, that
// is told with what follows.
func (f *fields) configuration(field, id, follows string) *policy.IPConfiguration {
	e, _ := f.l.index.resolve(configurationKind, id, f.file)
	switch {
	case e == nil:
		f.l.warn(f.newFault(CodeBalancerPartNotFound, field, id, "the network interface is not in the documents: "+follows))
	case e.object == nil:
		at := *f
		at.translating, at.open = true, map[string]bool{}
		at.dependOn(e.cause, field)
	default:
		return e.object.(*policy.IPConfiguration)
	}
	return nil
}

// join puts an ipConfiguration into a pool that lists it. An ipConfiguration that the
// documents do not have is left out with a warning.
func (f *fields) join(pool *policy.BackendPool, field, id string) {
	if c := f.configuration(field, id, "the pool is without it"); c != nil {
		addBackend(pool, policy.Backend{NetworkInterface: f.l.owners[c], VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address})
	}
}

// joinAddress puts an address of a virtual network into a pool.
func (f *fields) joinAddress(pool *policy.BackendPool, network *policy.VirtualNetwork, b *balancer) {
	const field = "ipAddress"
	text := f.text(field)
	if len(f.open) > 0 {
		return
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6():
		f.fault(CodeInvalidIPAddress, field, text, "allowed is an IPv4 or IPv6 address")
	case network == nil && (b.elsewhere || f.cause != nil): // told already
	case network == nil:
		f.fault(CodeInvalidBackend, field, text, "the virtual network of the address is needed: virtualNetwork or subnet of the address or of the pool")
	case !slices.ContainsFunc(network.Subnets, func(s *policy.Subnet) bool {
		return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}):
		f.fault(CodeInvalidBackend, field, text, "the address is in no subnet of virtual network %q", network.Name)
	default:
		addBackend(pool, policy.Backend{VirtualNetwork: network, Address: a})
	}
}

// addBackend puts a backend into the pool once.
func addBackend(p *policy.BackendPool, b policy.Backend) {
	same := func(other policy.Backend) bool {
		return other.VirtualNetwork == b.VirtualNetwork && other.Address == b.Address
	}
	if !slices.ContainsFunc(p.Backends, same) {
		p.Backends = append(p.Backends, b)
	}
}

// memberClaim is an ipConfiguration that names a pool, an inbound NAT rule or an inbound NAT pool.
type memberClaim struct {
	f     *fields
	nic   *policy.NetworkInterface
	index int // of the ipConfiguration
	kind  kind
	field string
	id    string
}

// claimMemberships reads which pools, inbound NAT rules and inbound NAT pools an ipConfiguration names. unknown
// reports whether the document leaves a pool open.
func (f *fields) claimMemberships(n *policy.NetworkInterface, index int) (unknown bool) {
	for _, names := range []struct {
		kind  kind
		field string
	}{{poolKind, "loadBalancerBackendAddressPools"}, {natRuleKind, "loadBalancerInboundNatRules"}, {natPoolKind, "loadBalancerInboundNatPools"}} {
		for _, id := range f.references(names.field) {
			f.l.memberClaims = append(f.l.memberClaims, memberClaim{f, n, index, names.kind, names.field, id})
		}
	}
	return f.open["loadBalancerBackendAddressPools"]
}

// relateMembers puts ipConfigurations into the pools and behind the NAT rules that they
// name, and then behind the NAT rules that name them.
func (l *loader) relateMembers() {
	for _, claim := range l.memberClaims {
		c := &claim.nic.IPConfigurations[claim.index]
		member := policy.Backend{NetworkInterface: claim.nic, VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address}
		switch part := claim.f.resolveTranslating(claim.kind, claim.field, claim.id).(type) {
		case *policy.BackendPool:
			addBackend(part, member)
		case *policy.InboundNATRule:
			if claim.kind == natPoolKind {
				addBackend(part.Pool, member)
				break
			}
			claim.f.receive(part, claim.field, member)
		case nil:
			c.UnknownPools = c.UnknownPools || claim.kind == poolKind
		}
	}
	for _, b := range l.balancers {
		for _, claim := range b.claims {
			const field = "backendIPConfiguration"
			if c := claim.f.configuration(field, claim.id, "nothing is translated by the rule"); c != nil {
				claim.f.receive(claim.rule, field, policy.Backend{NetworkInterface: l.owners[c], VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address})
			}
		}
	}
}
