package ask

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// need is packets that a service's subnet has to let through.
type need struct {
	direction ruleset.Direction
	peer      string // a service tag, or ownSubnet
	protocol  ruleset.Protocol
	ports     []ruleset.PortRange
}

// ownSubnet stands for the subnet's own prefixes.
const ownSubnet = "the subnet itself"

func port(numbers ...uint16) (ranges []ruleset.PortRange) {
	for _, n := range numbers {
		ranges = append(ranges, ruleset.PortRange{First: n, Last: n})
	}
	return ranges
}

var allPorts = []ruleset.PortRange{ruleset.AllPorts}

// subnetService is a service that stands in a subnet, and what it needs there.
type subnetService struct {
	name, reference string
	// adds means that the service adds the rules itself when it is created, so that a denial does no harm then.
	adds  bool
	needs []need
}

// bastionName is the name that a bastion's subnet must have.
const bastionName = "AzureBastionSubnet"

// subnetServices are the services by the type of their resources, a bastion by its subnet's name. Each reference has the
// table of ports. What is optional there is left out.
var subnetServices = map[string]subnetService{
	policy.ServiceApplicationGateway: {"Application Gateway v2", docs + "application-gateway/configuration-infrastructure#network-security-groups", false, []need{
		{ruleset.Inbound, "GatewayManager", ruleset.TCP, []ruleset.PortRange{{First: 65200, Last: 65535}}},
		{ruleset.Inbound, ruleset.TagAzureLoadBalancer, ruleset.AnyProtocol, allPorts},
		{ruleset.Outbound, ruleset.TagInternet, ruleset.TCP, port(443)}}},
	bastionName: {"Azure Bastion", docs + "bastion/bastion-nsg", false, []need{
		{ruleset.Inbound, "GatewayManager", ruleset.TCP, port(443)}, {ruleset.Inbound, ruleset.TagAzureLoadBalancer, ruleset.TCP, port(443)},
		{ruleset.Inbound, ruleset.TagVirtualNetwork, ruleset.TCP, port(8080, 5701)}, {ruleset.Outbound, ruleset.TagVirtualNetwork, ruleset.TCP, port(22, 3389)},
		{ruleset.Outbound, "AzureCloud", ruleset.TCP, port(443)}, {ruleset.Outbound, ruleset.TagVirtualNetwork, ruleset.TCP, port(8080, 5701)},
		{ruleset.Outbound, ruleset.TagInternet, ruleset.TCP, port(80)}}},
	policy.ServiceAPIManagement: {"API Management", docs + "api-management/virtual-network-reference#required-ports", false, []need{
		{ruleset.Inbound, "ApiManagement", ruleset.TCP, port(3443)}, {ruleset.Inbound, ruleset.TagAzureLoadBalancer, ruleset.TCP, port(6390)},
		{ruleset.Outbound, "Storage", ruleset.TCP, port(443)}, {ruleset.Outbound, "Sql", ruleset.TCP, port(1433)},
		{ruleset.Outbound, "AzureKeyVault", ruleset.TCP, port(443)}, {ruleset.Outbound, "AzureMonitor", ruleset.TCP, port(443, 1886)},
		{ruleset.Outbound, ruleset.TagInternet, ruleset.TCP, port(80)}}},
	policy.ServiceSQLManagedInstance: {"SQL Managed Instance", docs + "azure-sql/managed-instance/connectivity-architecture-overview", true, []need{
		{ruleset.Inbound, ruleset.TagAzureLoadBalancer, ruleset.AnyProtocol, allPorts}, {ruleset.Inbound, ownSubnet, ruleset.AnyProtocol, allPorts},
		{ruleset.Outbound, "AzureActiveDirectory", ruleset.TCP, port(443)}, {ruleset.Outbound, "OneDsCollector", ruleset.TCP, port(443)},
		{ruleset.Outbound, ownSubnet, ruleset.AnyProtocol, allPorts}}},
	policy.ServiceHDInsight: {"HDInsight", docs + "hdinsight/control-network-traffic#hdinsight-with-network-security-groups", false, []need{
		{ruleset.Inbound, "HDInsight", ruleset.TCP, port(443)}}},
	policy.ServiceAppServiceEnvironment: {"App Service Environment", docs + "app-service/environment/networking#ports-and-network-restrictions", false, []need{
		{ruleset.Inbound, ruleset.TagAzureLoadBalancer, ruleset.TCP, port(80)}}},
}

// services finds subnets whose rules shut out what a service in them needs.
func (l *linter) services() {
	for i := range l.places {
		p := &l.places[i]
		if p.endpoint == nil || p.endpoint.NetworkInterface != nil || p.endpoint.Subnet.NetworkSecurityGroup == nil {
			continue
		}
		services := slices.Clone(p.endpoint.Subnet.Services)
		if strings.EqualFold(p.endpoint.Subnet.Name, bastionName) {
			services = append(services, bastionName)
		}
		for _, service := range services {
			l.service(p, service)
		}
	}
}

// unmet is needs of a service that one rule denies.
type unmet struct {
	by    verdict.ChainRule
	needs []string
}

// service judges the needs of a service in a subnet: those that one rule denies are one finding.
func (l *linter) service(p *lintPlace, service string) {
	s := subnetServices[service]
	var all []*unmet
	for i := range s.needs {
		at, denied := l.unmet(p, &s.needs[i])
		if !denied {
			continue
		}
		n := slices.IndexFunc(all, func(u *unmet) bool { return u.by.Group == at.Group && u.by.Rule == at.Rule })
		if n < 0 {
			n = len(all)
			all = append(all, &unmet{by: at})
		}
		all[n].needs = append(all[n].needs, s.needs[i].String())
	}
	for _, u := range all {
		by := "the rules deny it"
		if u.by.Group != nil {
			by = u.by.Rule.Name + " of " + u.by.Group.NSG.Name + " denies it"
		}
		message := s.name + " in this subnet needs " + strings.Join(u.needs, "; ") + ": " + by + "."
		if s.adds {
			message += " The service adds such rules itself when it is created."
		}
		f := l.findAt(LintService, subnetResource(p.endpoint.Subnet), p.endpoint.Subnet, message)
		if f.Reference = s.reference; s.adds {
			f.Severity = SeverityInfo
		}
		if u.by.Group != nil {
			f.relate([]*ruleset.Rule{u.by.Rule})
		}
	}
}

// String is a need in words.
func (n *need) String() string {
	what, preposition := "everything", " from "
	if n.protocol != ruleset.AnyProtocol {
		what = strings.ToUpper(n.protocol.String()) + " " + strings.Join(texts(n.ports, analysis.PortRange), ",")
	}
	if n.direction == ruleset.Outbound {
		preposition = " to "
	}
	return what + " " + strings.ToLower(n.direction.String()) + preposition + n.peer
}

// unmet is the rule that denies a need of a subnet.
func (l *linter) unmet(p *lintPlace, n *need) (at verdict.ChainRule, denied bool) {
	peers, known := l.peersOf(p, n.peer)
	var own []netip.Prefix
	for _, prefix := range p.own {
		if prefix.Addr().Is4() {
			own = append(own, prefix)
		}
	}
	if len(peers) == 0 || len(own) == 0 {
		return at, false
	}
	packets := analysis.Packets{Sources: peers, Destinations: own}
	if n.direction == ruleset.Outbound {
		packets = analysis.Packets{Sources: own, Destinations: peers}
	}
	return l.denier(p.chains[n.direction], packets, n, known)
}

// peersOf are the IPv4 addresses of a need's peer. known is false where any of them may be meant: then they are those of the internet.
func (l *linter) peersOf(p *lintPlace, peer string) (prefixes []netip.Prefix, known bool) {
	sub := p.endpoint.Subnet
	switch peer {
	case ownSubnet:
		prefixes, known = p.own, true
	case ruleset.TagVirtualNetwork:
		prefixes, known = sub.VirtualNetwork.AddressSpace, true
	case ruleset.TagAzureLoadBalancer:
		prefixes, known = ruleset.AzureLoadBalancerPrefixes(), true
	default:
		if l.Tag != nil && peer != ruleset.TagInternet {
			prefixes, known = l.Tag(peer)
		}
		if !known {
			prefixes = l.snapshot.InternetSources()
		}
	}
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return !p.Addr().Is4() }), known
}

// denier is a rule that denies packets of a need; with all false it must deny each of them.
func (l *linter) denier(c *verdict.Chain, packets analysis.Packets, n *need, all bool) (at verdict.ChainRule, denied bool) {
	rule := classifier.Rule{Protocol: n.protocol, Sources: packets.Sources, Destinations: packets.Destinations, SourcePorts: allPorts, DestinationPorts: n.ports}
	everything := classifier.Rule{Sources: ruleset.Everywhere(), Destinations: ruleset.Everywhere(), SourcePorts: allPorts, DestinationPorts: allPorts}
	needed := analysis.NewList([]analysis.Rule{{Rule: rule, Access: ruleset.Allow}, {Rule: everything, Access: ruleset.Deny}})
	options := analysis.Options{MaxStates: l.MaxStates, Within: packets}
	if !all {
		if namesTag(c, n) || len(analysis.Reach(append(analysis.Chain{needed}, c.Lists...), options).Allowed) > 0 {
			return at, false
		}
	}
	d := analysis.Compare(analysis.Chain{needed}, append(analysis.Chain{needed}, c.Lists...), options)
	if len(d.Changes) == 0 {
		return at, false
	}
	return c.At(d.Changes[0].New.Stage-1, d.Changes[0].New.Rule), true
}

// namesTag reports a rule that allows packets of a tag whose addresses are not known.
func namesTag(c *verdict.Chain, n *need) bool {
	for stage := range c.Lists {
		for i := range c.Lists[stage].Len() {
			at := c.At(stage, i)
			if at.Group != nil && at.Rule.Access != ruleset.Deny && (strings.HasPrefix(at.Rule.Source.Tag, n.peer) || strings.HasPrefix(at.Rule.Destination.Tag, n.peer)) {
				return true
			}
		}
	}
	return false
}
