package dataplane

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// judge asks the NSGs on the way in Azure's order: first match by priority, the first
// Deny ends it, a place without an NSG allows.
func (o *oracle) judge(from int, e *expectation) {
	dst := o.find(from, e.packet.Dst.Netip())
	if dst == nil || dst.at < 0 {
		e.drop = packet.DropNoRoute
		return
	}
	src := o.sender(from, e.packet.Src.Netip())
	e.to, e.hit = dst.at, true
	if o.platform(src, e) {
		return
	}
	for _, end := range []struct {
		end       *oracleEnd
		direction ruleset.Direction
		groups    []*ruleset.NSG
	}{{src, ruleset.Outbound, []*ruleset.NSG{src.nicGroup(), src.subnetGroup()}}, {dst, ruleset.Inbound, []*ruleset.NSG{dst.subnetGroup(), dst.nicGroup()}}} {
		asks := o.admin(end.end, end.direction, e)
		for _, group := range end.groups {
			if !asks || group == nil || e.drop != packet.NotDropped {
				continue
			}
			key := o.firstMatch(group, end.direction, &e.packet)
			e.meet(key)
			if key.Access == ruleset.Deny {
				e.drop = packet.DropRule
			}
		}
		if e.drop != packet.NotDropped {
			return
		}
	}
	if o.blockSMTP && src.subnet != nil && dst.at == enginetest.AtInternet && e.packet.Proto == packet.ProtoTCP && e.packet.DstPort == 25 {
		e.drop, e.rules = packet.DropSMTP, nil
	}
}

// sender is who an admitted packet comes from.
func (o *oracle) sender(from int, a netip.Addr) *oracleEnd {
	spec := enginetest.Specs[from]
	if spec.Kind == topology.Internet || spec.Kind == topology.Platform {
		return &oracleEnd{at: from}
	}
	if spec.Kind == topology.NetworkInterface { // which may forward for somebody else
		nic := o.nic(spec.Reference)
		return &oracleEnd{from, nic, nic.IPConfigurations[0].Subnet}
	}
	return o.find(from, a)
}

func (e *oracleEnd) nicGroup() *ruleset.NSG {
	if e.nic == nil {
		return nil
	}
	return e.nic.NetworkSecurityGroup
}

func (e *oracleEnd) subnetGroup() *ruleset.NSG {
	if e.subnet == nil {
		return nil
	}
	return e.subnet.NetworkSecurityGroup
}

// azureDefaults are the rules that every NSG ends with, as Azure's documents have them.
var azureDefaults = func() []ruleset.Rule {
	anyone, network := ruleset.Peer{Any: true}, ruleset.Peer{Tag: "VirtualNetwork"}
	rule := func(name string, priority int, d ruleset.Direction, a ruleset.Access, src, dst ruleset.Peer) ruleset.Rule {
		every := []ruleset.PortRange{{First: 0, Last: 65535}}
		return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: a, Source: src, Destination: dst, SourcePorts: every, DestinationPorts: every}
	}
	return []ruleset.Rule{
		rule("AllowVnetInBound", 65000, ruleset.Inbound, ruleset.Allow, network, network),
		rule("AllowAzureLoadBalancerInBound", 65001, ruleset.Inbound, ruleset.Allow, ruleset.Peer{Tag: "AzureLoadBalancer"}, anyone),
		rule("DenyAllInBound", 65500, ruleset.Inbound, ruleset.Deny, anyone, anyone),
		rule("AllowVnetOutBound", 65000, ruleset.Outbound, ruleset.Allow, network, network),
		rule("AllowInternetOutBound", 65001, ruleset.Outbound, ruleset.Allow, anyone, ruleset.Peer{Tag: "Internet"}),
		rule("DenyAllOutBound", 65500, ruleset.Outbound, ruleset.Deny, anyone, anyone),
	}
}()

// firstMatch is the matching rule of the lowest priority.
func (o *oracle) firstMatch(g *ruleset.NSG, d ruleset.Direction, p *packet.Packet) topology.RuleKey {
	key, _ := o.firstOf(g.Name, slices.Concat(g.Rules, azureDefaults), d, p)
	return key
}

// firstOf is firstMatch among some rules of an NSG or a rule collection.
func (o *oracle) firstOf(name string, rules []ruleset.Rule, d ruleset.Direction, p *packet.Packet) (key topology.RuleKey, found bool) {
	k := p.Tuple
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 { // rules see the type as destination port
		k.SrcPort, k.DstPort = 0, uint16(p.ICMPType)
	}
	var best *ruleset.Rule
	for i := range rules {
		r := &rules[i]
		if !namesServiceOf(r, &k) {
			continue
		}
		one := classifier.Linear{{Protocol: r.Protocol, Sources: o.asPrefixes(&r.Source, k.Src), Destinations: o.asPrefixes(&r.Destination, k.Dst),
			SourcePorts: r.SourcePorts, DestinationPorts: r.DestinationPorts}}
		if r.Direction == d && (best == nil || r.Priority < best.Priority) && one.FirstMatch(&k) == 0 {
			best = r
		}
	}
	if best == nil {
		return key, false
	}
	key = topology.RuleKey{NetworkSecurityGroup: name, Direction: d, Rule: best.Name, Access: best.Access}
	if best.Priority <= 4096 && slices.ContainsFunc(azureDefaults, func(r ruleset.Rule) bool { return r.Direction == d && r.Name == best.Name }) {
		key.Rule = "securityRules/" + best.Name // the default rule of that name counts for itself
	}
	return key, true
}

// namesServiceOf reports that the AzurePlatform tags of a rule, if any, name what has the port
// on their side.
func namesServiceOf(r *ruleset.Rule, k *packet.Tuple) bool {
	_, source := serviceAt(k.Src, k.SrcPort, k.Proto)
	_, destination := serviceAt(k.Dst, k.DstPort, k.Proto)
	return (!strings.HasPrefix(r.Source.Tag, "AzurePlatform") || r.Source.Tag == source) &&
		(!strings.HasPrefix(r.Destination.Tag, "AzurePlatform") || r.Destination.Tag == destination)
}

// asPrefixes is the part of a rule's side that can matter for one address.
func (o *oracle) asPrefixes(peer *ruleset.Peer, addr packet.Addr) []netip.Prefix {
	a := addr.Netip()
	matches := false
	network := o.inNetwork(a) || a == topology.PlatformAddresses[0]
	switch {
	case peer.Any, strings.HasPrefix(peer.Tag, "AzurePlatform"): // of which the service is known to be meant
		matches = true
	case peer.NetworkGroup != "":
		matches = o.inNetwork(a)
	case peer.AnyOf != nil:
		var all []netip.Prefix
		for i := range peer.AnyOf {
			all = append(all, o.asPrefixes(&peer.AnyOf[i], addr)...)
		}
		return all
	case peer.Tag == "VirtualNetwork":
		matches = network
	case peer.Tag == "Internet":
		matches = !o.inNetwork(a) && (a.Is4() && !within(notPublic, a) || within(globalUnicast, a))
	case peer.Tag == "AzureLoadBalancer":
		matches = a == topology.PlatformAddresses[0]
	case len(peer.ApplicationSecurityGroups) > 0:
		for _, nic := range o.set.NetworkInterfaces {
			for _, c := range nic.IPConfigurations {
				matches = matches || c.Address == a && slices.ContainsFunc(c.ApplicationSecurityGroups, func(id string) bool {
					return strings.EqualFold(id, peer.ApplicationSecurityGroups[0])
				})
			}
		}
	default:
		return peer.Prefixes
	}
	if matches {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	return nil
}

// notPublic is what Azure's Internet tag leaves out of IPv4 (azure-docs, service
// tags, and recorded effective rules), globalUnicast all that it has of IPv6.
var (
	notPublic = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/3")}
	globalUnicast = []netip.Prefix{netip.MustParsePrefix("2000::/3")}
)
