package arm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for rules of load balancers. Azure's are RulesUseSameBackendPortProtocolAndPool
// (MicrosoftDocs/azure-docs issue 94673), LoadBalancingRuleMustDisableSNAT...
// (ansible-collections/azure issue 743), MoreThanOneOutboundRule...
// (Azure/AzLoadBalancerMigration issue 10) and probably
// RulesUseSameFrontendPortProtocolAndIPConfig. The others are ours.
const (
	CodeSameFrontendPort      = "RulesUseSameFrontendPortProtocolAndIPConfig"
	CodeSameBackendPort       = "RulesUseSameBackendPortProtocolAndPool"
	CodeMustDisableSNAT       = "LoadBalancingRuleMustDisableSNATSinceSameFrontendIPConfigurationIsReferencedByOutboundRule"
	CodeSameOutboundFrontend  = "MoreThanOneOutboundRuleUsingSameFrontendIPConfigurationAndProtocolIsNotSupported"
	CodeRuleIdle              = "RuleIdleTimeoutIsOutOfRange"
	CodeInvalidBalancingRule  = "LoadBalancingRuleInvalid"
	CodeInvalidInboundNATRule = "InboundNatRuleInvalid"
	CodeInvalidOutboundRule   = "OutboundRuleInvalid"
	CodeIgnoredPort           = "FloatingIPIgnoresBackendPort" // in Documents.Warnings
	CodeBackendFamily         = "LoadBalancerBackendAddressFamilyMismatch"
)

// Azure's limits of rules.
const (
	maxRuleIdle       = 100 // minutes; documents say 30 and 100
	maxFrontendPort   = 65534
	maxOutboundPorts  = 64000 // of a frontend address
	outboundPortsStep = 8
)

// natClaim is an inbound NAT rule that names its ipConfiguration.
type natClaim struct {
	f    *fields
	rule *policy.InboundNATRule
	id   string
}

// receive puts a backend behind a NAT rule.
func (f *fields) receive(r *policy.InboundNATRule, field string, b policy.Backend) {
	switch {
	case r.Pool != nil:
		f.fault(CodeInvalidInboundNATRule, field, r.Name, "the inbound NAT rule leads to a pool, so no ipConfiguration can be behind it")
	case r.Backend != nil && (r.Backend.VirtualNetwork != b.VirtualNetwork || r.Backend.Address != b.Address):
		f.fault(CodeInvalidInboundNATRule, field, r.Name, "the inbound NAT rule leads to %s already; it can lead to one ipConfiguration", r.Backend.Address)
	default:
		r.Backend = &b
	}
}

// readRules reads the rules of a load balancer. Its other parts must be read before.
func (b *balancer) readRules() {
	for _, body := range b.f.objects("loadBalancingRules") {
		if rule, ok := b.readPart("loadBalancingRules", b.r.file, body, b.readRule).(*policy.LoadBalancingRule); ok {
			b.Rules = append(b.Rules, rule)
		}
	}
	for _, c := range b.f.l.inner(b.r, natRuleKind, b.f.objects("inboundNatRules")) {
		rule, ok := b.readPart(kindPaths[natRuleKind], c.file, c.body, b.readNATRule).(*policy.InboundNATRule)
		if ok && b.register(natRuleKind, b.childID(natRuleKind, rule.Name), rule, rule.Name) {
			b.NATRules = append(b.NATRules, rule)
		}
	}
	for _, body := range b.f.objects(kindPaths[natPoolKind]) {
		rule, ok := b.readPart(kindPaths[natPoolKind], b.r.file, body, b.readNATPool).(*policy.InboundNATRule)
		if ok && b.register(natPoolKind, b.childID(natPoolKind, rule.Name), rule, rule.Name) && !b.hasRulesOf(rule) {
			b.NATRules = append(b.NATRules, rule)
		}
	}
	for _, body := range b.f.objects("outboundRules") {
		if rule, ok := b.readPart("outboundRules", b.r.file, body, b.readOutboundRule).(*policy.OutboundRule); ok {
			b.OutboundRules = append(b.OutboundRules, rule)
		}
	}
}

// resolvePart resolves a reference to a part of the same load balancer.
func (b *balancer) resolvePart(f *fields, k kind, field, id string) any {
	of, name, given := cutLast(referredName(k, id))
	e := b.f.l.index.byID[strings.ToLower(b.childID(k, name))]
	if given && !strings.EqualFold(of, b.Name) || e != nil && e.kind != k {
		e = nil
	}
	if e != nil && e.object == nil {
		f.dependOn(e.cause, field)
		return nil
	}
	if e == nil {
		f.fault(CodeInvalidResourceReference, field, id, "the load balancer has no %s of this name; there %s", kindPaths[k], b.f.l.index.whatIs(k))
		return nil
	}
	return e.object
}

// frontend reads a rule's frontend; nil when that could not be read.
func (b *balancer) frontend(f *fields) *policy.Frontend {
	const field = "frontendIPConfiguration"
	id := f.reference(field)
	if id == "" {
		if !f.open[field] && !f.withheld() {
			f.fault(CodeInvalidResourceReference, field, "", "a rule needs the id of a frontend IP configuration")
		}
		return nil
	}
	frontend, _ := b.resolvePart(f, frontendKind, field, id).(*policy.Frontend)
	return frontend
}

// pools reads the pools of a rule. In az's form, the list repeats the singular field.
func (b *balancer) pools(f *fields) (list []*policy.BackendPool) {
	ids := f.references("backendAddressPools")
	if id := f.reference("backendAddressPool"); id != "" {
		ids = append([]string{id}, ids...)
	}
	for _, id := range ids {
		if p, _ := b.resolvePart(f, poolKind, "backendAddressPool", id).(*policy.BackendPool); p != nil && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// readRule reads a load balancing rule.
func (b *balancer) readRule(f *fields, name string) any {
	r := &policy.LoadBalancingRule{Name: name, Frontend: b.frontend(f), Pools: b.pools(f)}
	r.Protocol = policy.Transport(f.oneOf("protocol", CodeInvalidBalancingRule, string(policy.TransportTCP), string(policy.TransportUDP), string(policy.TransportAll)))
	r.FrontendPort = f.port("frontendPort", CodeInvalidBalancingRule, 0, maxFrontendPort)
	r.BackendPort = r.FrontendPort
	if lookup(f.values, "backendPort") != nil {
		r.BackendPort = f.port("backendPort", CodeInvalidBalancingRule, 0, 65535)
	}
	r.Distribution = policy.DistributionDefault
	if f.text("loadDistribution") != "" {
		r.Distribution = policy.Distribution(f.oneOf("loadDistribution", CodeInvalidBalancingRule,
			string(policy.DistributionDefault), string(policy.DistributionSourceIP), string(policy.DistributionSourceIPProtocol)))
	}
	r.FloatingIP, r.TCPReset = f.flag("enableFloatingIP", false), f.flag("enableTcpReset", false)
	r.DisableOutboundSNAT = f.flag("disableOutboundSnat", false)
	r.IdleTimeout = f.idle(CodeRuleIdle, maxRuleIdle, defaultIdle)
	if id := f.reference("probe"); id != "" {
		r.Probe, _ = b.resolvePart(f, probeKind, "probe", id).(*policy.HealthProbe)
	}
	if len(f.open) > 0 || r.Frontend == nil {
		return r
	}
	every := r.Protocol == policy.TransportAll
	switch {
	case every != (r.FrontendPort == 0) || every != (r.BackendPort == 0):
		f.fault(CodeInvalidBalancingRule, "frontendPort", strconv.Itoa(int(r.FrontendPort)),
			"protocol All has frontendPort and backendPort 0, which is every port; Tcp and Udp have ports 1 to %d", maxFrontendPort)
	case every && r.Frontend.Public() && b.SKU != policy.SKUGateway:
		f.fault(CodeInvalidBalancingRule, "protocol", string(r.Protocol), "every port (HA ports) is for internal load balancers; allowed at a public frontend are Tcp and Udp")
	case every && b.SKU == policy.SKUBasic:
		f.fault(CodeInvalidBalancingRule, "protocol", string(r.Protocol), "every port (HA ports) is for load balancers of SKU Standard; this one is Basic")
	case r.FloatingIP && r.FrontendPort != r.BackendPort: // Azure takes it
		f.l.warn(f.newFault(CodeIgnoredPort, "backendPort", strconv.Itoa(int(r.BackendPort)), fmt.Sprintf("with enableFloatingIP a packet keeps its port, %d", r.FrontendPort)))
	}
	return r
}

// readNATRule reads an inbound NAT rule.
func (b *balancer) readNATRule(f *fields, name string) any {
	r := b.natRule(f, name)
	const field = "backendAddressPool"
	if id := f.reference(field); id != "" {
		r.Pool, _ = b.resolvePart(f, poolKind, field, id).(*policy.BackendPool)
		f.portRange(r)
	} else {
		r.First = f.port("frontendPort", CodeInvalidInboundNATRule, 1, maxFrontendPort)
		r.Last = r.First
	}
	if r.FloatingIP && (r.Pool != nil || r.First != r.BackendPort) && len(f.open) == 0 {
		f.l.warn(f.newFault(CodeIgnoredPort, "backendPort", strconv.Itoa(int(r.BackendPort)), "with enableFloatingIP a packet keeps its port"))
	}
	if id := f.reference("backendIPConfiguration"); id != "" && len(f.open) == 0 {
		b.claims = append(b.claims, natClaim{f, r, id})
	}
	return r
}

// natRule reads what inbound NAT rules and inbound NAT pools have in common.
func (b *balancer) natRule(f *fields, name string) *policy.InboundNATRule {
	r := &policy.InboundNATRule{Name: name, Frontend: b.frontend(f)}
	r.Protocol = policy.Transport(f.oneOf("protocol", CodeInvalidInboundNATRule, string(policy.TransportTCP), string(policy.TransportUDP)))
	r.FloatingIP, r.TCPReset, r.IdleTimeout = f.flag("enableFloatingIP", false), f.flag("enableTcpReset", false), f.idle(CodeRuleIdle, maxRuleIdle, defaultIdle)
	r.BackendPort = f.port("backendPort", CodeInvalidInboundNATRule, 1, 65535)
	return r
}

func (f *fields) portRange(r *policy.InboundNATRule) {
	before := len(f.l.out.Faults)
	r.First = f.port("frontendPortRangeStart", CodeInvalidInboundNATRule, 0, maxFrontendPort)
	r.Last = f.port("frontendPortRangeEnd", CodeInvalidInboundNATRule, 0, maxFrontendPort)
	if told := len(f.l.out.Faults) > before || len(f.open) > 0; r.Last < r.First && !told {
		f.fault(CodeInvalidInboundNATRule, "frontendPortRangeEnd", strconv.Itoa(int(r.Last)), "allowed are ports from frontendPortRangeStart (%d) on", r.First)
	}
}

// readNATPool reads an inbound NAT pool as a rule for a range of ports, each for one instance of the
// scale sets that name the pool.
func (b *balancer) readNATPool(f *fields, name string) any {
	r := b.natRule(f, name)
	r.Pool = &policy.BackendPool{Name: name, ID: b.childID(natPoolKind, name)}
	f.portRange(r)
	return r
}

// hasRulesOf reports whether the load balancer lists the rules that Azure has made of an inbound NAT
// pool. They are named POOL.INSTANCE, and hold.
func (b *balancer) hasRulesOf(pool *policy.InboundNATRule) bool {
	return slices.ContainsFunc(b.NATRules, func(r *policy.InboundNATRule) bool {
		before, _, found := strings.Cut(r.Name, ".")
		return found && strings.EqualFold(before, pool.Name) && r.Frontend == pool.Frontend
	})
}

// readOutboundRule reads an outbound rule.
func (b *balancer) readOutboundRule(f *fields, name string) any {
	r := &policy.OutboundRule{Name: name}
	r.Protocol = policy.Transport(f.oneOf("protocol", CodeInvalidOutboundRule, string(policy.TransportTCP), string(policy.TransportUDP), string(policy.TransportAll)))
	r.TCPReset, r.IdleTimeout = f.flag("enableTcpReset", false), f.idle(CodeRuleIdle, maxRuleIdle, defaultIdle)
	const frontends, pool, ports = "frontendIPConfigurations", "backendAddressPool", "allocatedOutboundPorts"
	for _, id := range f.references(frontends) {
		if frontend, _ := b.resolvePart(f, frontendKind, frontends, id).(*policy.Frontend); frontend != nil {
			if !frontend.Public() {
				f.fault(CodeInvalidOutboundRule, frontends, frontend.Name, "an outbound rule has public frontends; this one is in subnet %q", frontend.Subnet.Name)
			}
			r.Frontends = append(r.Frontends, frontend)
		}
	}
	if id := f.reference(pool); id != "" {
		r.Pool, _ = b.resolvePart(f, poolKind, pool, id).(*policy.BackendPool)
	}
	if text := f.text(ports); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxOutboundPorts || n%outboundPortsStep != 0 {
			f.fault(CodeInvalidOutboundRule, ports, text, "allowed are multiples of %d up to %d; 0: by the size of the pool", outboundPortsStep, maxOutboundPorts)
		}
		r.AllocatedPorts = n
	}
	switch {
	case len(f.open) > 0 || f.withheld():
	case r.Pool == nil && lookup(f.values, pool) == nil:
		f.fault(CodeInvalidResourceReference, pool, "", "an outbound rule needs the id of a backend address pool")
	case lookup(f.values, frontends) == nil:
		f.fault(CodeInvalidResourceReference, frontends, "", "an outbound rule needs the ids of frontend IP configurations")
	case b.SKU == policy.SKUBasic:
		f.fault(CodeInvalidOutboundRule, "", "", "outbound rules are for load balancers of SKU Standard; this one is Basic")
	}
	return r
}

func (l *loader) checkBalancers() {
	for _, b := range l.balancers {
		l.checkBalancer(b)
	}
}

// checkBalancer compares the rules of a load balancer with each other. The members of its
// pools must be known.
func (l *loader) checkBalancer(b *balancer) {
	b.checkFrontendPorts()
	b.checkBackendPorts()
	b.checkOutbound()
	for _, r := range b.Rules {
		for _, p := range r.Pools {
			for _, member := range p.Backends {
				b.checkFamily(r, r.Frontend, member)
			}
		}
	}
	for _, r := range b.NATRules {
		if r.Backend != nil {
			b.checkFamily(r, r.Frontend, *r.Backend)
		}
		if r.Pool != nil && len(r.Pool.Backends) > int(r.Last)-int(r.First)+1 {
			b.rules[r].fault(CodeInvalidInboundNATRule, "frontendPortRangeEnd", strconv.Itoa(int(r.Last)),
				"the range has fewer ports than pool %q has members: %d", r.Pool.Name, len(r.Pool.Backends))
		}
	}
}

// checkFamily reports a backend whose address family is not the frontend's.
func (b *balancer) checkFamily(rule any, frontend *policy.Frontend, member policy.Backend) {
	if frontend.Address.IsValid() && member.Address.Is6() != frontend.IPv6 {
		b.rules[rule].fault(CodeBackendFamily, "backendAddressPool", member.Address.String(), "frontend %q has %s: both are IPv4, or both IPv6", frontend.Name, frontend.Address)
	}
}

// claimedPorts are the frontend ports that a rule takes.
type claimedPorts struct {
	rule        any
	name        string
	frontend    *policy.Frontend
	protocol    policy.Transport
	first, last uint16
}

// checkFrontendPorts finds rules that want the same packets of a frontend. A rule for every
// port may stand beside others: it gets the rest.
func (b *balancer) checkFrontendPorts() {
	var all []claimedPorts
	for _, r := range b.Rules {
		all = append(all, claimedPorts{r, r.Name, r.Frontend, r.Protocol, r.FrontendPort, r.FrontendPort})
	}
	for _, r := range b.NATRules {
		all = append(all, claimedPorts{r, r.Name, r.Frontend, r.Protocol, r.First, r.Last})
	}
	for i, c := range all {
		for _, other := range all[:i] {
			if c.frontend == other.frontend && c.protocol == other.protocol && c.first <= other.last && other.first <= c.last {
				b.rules[c.rule].fault(CodeSameFrontendPort, "frontendPort", strconv.Itoa(int(max(c.first, other.first))),
					"rule %q has this port of frontend %q for protocol %s already", other.name, c.frontend.Name, c.protocol)
			}
		}
	}
}

func (b *balancer) checkBackendPorts() {
	for i, r := range b.Rules {
		for _, other := range b.Rules[:i] {
			if r.FloatingIP || other.FloatingIP || r.Protocol != other.Protocol || r.BackendPort != other.BackendPort {
				continue
			}
			for _, p := range r.Pools {
				if slices.Contains(other.Pools, p) {
					b.rules[r].fault(CodeSameBackendPort, "backendPort", strconv.Itoa(int(r.BackendPort)),
						"Load balancing rules %s and %s with floating IP disabled use the same protocol %s and backend port %d, and must not be used with the same backend address pool %s.",
						other.Name, r.Name, r.Protocol, r.BackendPort, p.Name)
				}
			}
		}
	}
}

// checkOutbound compares outbound rules with each other, with load balancing rules and with
// the number of ports.
func (b *balancer) checkOutbound() {
	for i, r := range b.OutboundRules {
		f := b.rules[r]
		for _, other := range b.OutboundRules[:i] {
			for _, frontend := range r.Frontends {
				if slices.Contains(other.Frontends, frontend) && r.Protocol.Overlaps(other.Protocol) {
					f.fault(CodeSameOutboundFrontend, "frontendIPConfigurations", frontend.Name,
						"It is not supported to have more than a single outbound rule using a frontendIPConfiguration with same or overlapping protocol: rule %s has it too", other.Name)
				}
			}
		}
		for _, rule := range b.Rules {
			if slices.Contains(r.Frontends, rule.Frontend) && !rule.DisableOutboundSNAT {
				b.rules[rule].fault(CodeMustDisableSNAT, "disableOutboundSnat", "false",
					"Load Balancing Rules %s must have disableOutboundSNAT set to true when same FrontendIPConfiguration %s is referenced by Outbound Rules %s", rule.Name, rule.Frontend.Name, r.Name)
			}
		}
		addresses := 0
		for _, frontend := range r.Frontends {
			addresses += max(1, len(frontend.Outbound()))
		}
		if wanted := r.AllocatedPorts * len(r.Pool.Backends); wanted > addresses*maxOutboundPorts {
			f.fault(CodeInvalidOutboundRule, "allocatedOutboundPorts", strconv.Itoa(r.AllocatedPorts),
				"%d backends of pool %q would have %d ports, and %d addresses have %d", len(r.Pool.Backends), r.Pool.Name, wanted, addresses, addresses*maxOutboundPorts)
		}
	}
}
