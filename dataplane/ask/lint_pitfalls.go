package ask

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
)

func subnetResource(s *policy.Subnet) string {
	return "virtualNetworks/" + s.VirtualNetwork.Name + "/subnets/" + s.Name
}

// denial is what one rule shuts out.
type denial struct {
	rule    *verdict.StageVerdict
	what    string
	victims []string
	witness *LintWitness
}

// denials are by rule and what they shut out, in the order in which they were found.
type denials struct {
	byKey map[string]*denial
	order []*denial
}

// add judges a packet, and notes the rule that denies it.
func (d *denials) add(v *verdict.Verdict, drop packet.Drop, what, victim string, witness *LintWitness) {
	if drop != packet.DropRule {
		return
	}
	last := &v.Stages[v.N-1]
	key := fmt.Sprintf("%p %s %s", last.Stage.Group.NSG, last.SecurityRule().QualifiedName(), what)
	if d.byKey == nil {
		d.byKey = map[string]*denial{}
	}
	one := d.byKey[key]
	if one == nil {
		stage := *last
		one = &denial{rule: &stage, what: what, witness: witness}
		d.byKey[key] = one
		d.order = append(d.order, one)
	}
	one.victims = addNew(one.victims, []string{victim})
}

// probes finds rules that shut out the health probes of load balancers.
func (l *linter) probes() {
	var found denials
	for _, lb := range l.snapshot.Policy.LoadBalancers {
		for _, r := range lb.Rules {
			if r.Probe == nil {
				continue
			}
			for _, pool := range r.Pools {
				for i := range pool.Backends {
					l.probe(&found, lb, r.Probe, &pool.Backends[i])
				}
			}
		}
	}
	for _, d := range found.order {
		f := l.findRule(LintProbe, d.rule.Stage.Group.NSG, d.rule.SecurityRule(), "This rule shuts out "+d.what+" of "+ruleset.Listed(d.victims)+": the backend counts as down.")
		f.Witness = d.witness
	}
}

func (l *linter) probe(found *denials, lb *policy.LoadBalancer, probe *policy.HealthProbe, b *policy.Backend) {
	if b.NetworkInterface == nil {
		return
	}
	e := l.snapshot.Endpoint(b.NetworkInterface, b.Address)
	if e == nil {
		return
	}
	i := slices.IndexFunc(ruleset.AzureLoadBalancerPrefixes(), func(p netip.Prefix) bool { return p.Addr().Is4() == b.Address.Is4() })
	p := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(ruleset.AzureLoadBalancerPrefixes()[i].Addr()), Dst: packet.AddrFrom(b.Address),
		SrcPort: 49152, DstPort: probe.Port, Proto: packet.ProtoTCP}, Segments: 1}
	asFirst(&p)
	way := topology.Way{To: e, Arrives: p.Tuple}
	var d verdict.Decision
	drop := d.Receives(l.snapshot, &way, &p)
	what := fmt.Sprintf("health probe %s (TCP %d) of load balancer %s", probe.Name, probe.Port, lb.Name)
	found.add(&d.Verdict, drop, what, b.NetworkInterface.Name, &LintWitness{NetworkInterface: b.NetworkInterface.Name, Direction: ruleset.Inbound.String(),
		Access: ruleset.Deny.String(), DiffWitness: witnessOf(&p.Tuple)})
}

// platformNames are the services that rules can shut out, in words.
var platformNames = map[string]string{ruleset.TagPlatformDNS: "Azure's DNS", ruleset.TagPlatformIMDS: "the instance metadata service",
	ruleset.TagPlatformLKM: "Azure's key management service: Windows can't be activated"}

// platform finds rules that shut out services of the platform.
func (l *linter) platform() {
	var found denials
	for i := range l.places {
		e := l.places[i].endpoint
		if e == nil || e.NetworkInterface == nil || !e.Address().Is4() {
			continue
		}
		for _, tag := range []string{ruleset.TagPlatformDNS, ruleset.TagPlatformIMDS, ruleset.TagPlatformLKM} {
			s := ruleset.PlatformServiceOf(tag)
			for _, a := range s.Addresses {
				p := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(e.Address()), Dst: packet.AddrFrom(a.Addr()), SrcPort: 49152, DstPort: s.Port, Proto: packet.ProtoTCP}, Segments: 1}
				if tag == ruleset.TagPlatformDNS {
					p.Proto = packet.ProtoUDP
				}
				asFirst(&p)
				var d verdict.Decision
				drop := d.AskSender(l.snapshot, e, &p)
				found.add(&d.Verdict, drop, platformNames[tag], e.NetworkInterface.Name, &LintWitness{NetworkInterface: e.NetworkInterface.Name,
					Direction: ruleset.Outbound.String(), Access: ruleset.Deny.String(), DiffWitness: witnessOf(&p.Tuple)})
			}
		}
	}
	for _, d := range found.order {
		f := l.findRule(LintPlatform, d.rule.Stage.Group.NSG, d.rule.SecurityRule(), "This rule shuts out "+d.what+". It holds for "+ruleset.Listed(d.victims)+".")
		f.Witness = d.witness
	}
}

// unguarded are subnets where no NSG may stand, or that Azure guards itself.
var unguarded = []string{"GatewaySubnet", "AzureFirewallSubnet", "AzureFirewallManagementSubnet", "RouteServerSubnet", bastionName}

// subnets finds subnets without an NSG, and private endpoints that the subnet's NSG does not hold for.
func (l *linter) subnets() {
	bare, endpoints, interfaces := map[*policy.Subnet]bool{}, map[*policy.Subnet][]string{}, map[*policy.Subnet]int{}
	for _, nic := range l.snapshot.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			sub := nic.IPConfigurations[i].Subnet
			if nic.PrivateEndpointID != "" {
				endpoints[sub] = addNew(endpoints[sub], []string{nic.PrivateEndpointID[strings.LastIndexByte(nic.PrivateEndpointID, '/')+1:]})
				continue
			}
			interfaces[sub]++
			bare[sub] = bare[sub] || nic.NetworkSecurityGroup == nil
		}
	}
	for _, v := range l.snapshot.Policy.VirtualNetworks {
		for _, sub := range v.Subnets {
			g := sub.NetworkSecurityGroup
			switch {
			case g == nil && (bare[sub] || interfaces[sub] == 0) && !slices.ContainsFunc(unguarded, func(name string) bool { return strings.EqualFold(name, sub.Name) }):
				l.findAt(LintBareSubnet, subnetResource(sub), sub, "No network security group stands before this subnet: everything within the virtual network reaches it.")
			case g != nil && len(endpoints[sub]) > 0 && !sub.EndpointPolicies.NetworkSecurityGroup:
				l.findAt(LintPrivateEndpoint, subnetResource(sub), sub, g.Name+" does not hold for private endpoint "+ruleset.Listed(endpoints[sub])+
					": privateEndpointNetworkPolicies of the subnet is not Enabled or NetworkSecurityGroupEnabled.")
			}
		}
	}
}

// both finds network interfaces with an NSG of their own in a subnet that has one too.
func (l *linter) both() {
	type pair struct{ nic, subnet *ruleset.NSG }
	found, order := map[pair][]string{}, []pair(nil)
	for _, nic := range l.snapshot.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			p := pair{nic.NetworkSecurityGroup, nic.IPConfigurations[i].Subnet.NetworkSecurityGroup}
			if p.nic == nil || p.subnet == nil {
				continue
			}
			if found[p] == nil {
				order = append(order, p)
			}
			found[p] = addNew(found[p], []string{nic.Name})
		}
	}
	for _, p := range order {
		l.findAt(LintBoth, groupResource(p.nic), p.nic, "Two groups judge each packet of "+ruleset.Listed(found[p])+": this one, and "+p.subnet.Name+" of the subnet. Both must allow it.")
	}
}

// groups finds groups without gaps between priorities, and groups that nobody uses.
func (l *linter) groups() {
	set := l.snapshot.Policy
	unused := unusedGroups(l.snapshot)
	for _, g := range set.NetworkSecurityGroups {
		for _, d := range directions {
			var tight []string
			rules := g.Ordered(d)
			for i := 1; i < len(rules) && !rules[i].Default; i++ {
				if a, b := &rules[i-1], &rules[i]; b.Priority == a.Priority+1 {
					tight = append(tight, fmt.Sprintf("%s (%d) and %s (%d)", a.Name, a.Priority, b.Name, b.Priority))
				}
			}
			if len(tight) > 0 {
				l.findAt(LintGaps, groupResource(g), g, "No rule fits between "+ruleset.Listed(tight)+", "+strings.ToLower(d.String())+".").Direction = d.String()
			}
		}
		if unused[strings.ToLower(g.ID)] != nil && len(set.NetworkInterfaces)+len(set.VirtualNetworks) > 0 {
			l.findAt(LintUnusedGroup, groupResource(g), g, "No subnet and no network interface of these documents has this group.")
		}
	}
	members, named := map[string]bool{}, map[string]bool{}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			for _, id := range nic.IPConfigurations[i].ApplicationSecurityGroups {
				members[strings.ToLower(id)] = true
			}
		}
	}
	for _, g := range set.NetworkSecurityGroups {
		for i := range g.Rules {
			for _, id := range slices.Concat(g.Rules[i].Source.ApplicationSecurityGroups, g.Rules[i].Destination.ApplicationSecurityGroups) {
				named[strings.ToLower(id)] = true
			}
		}
	}
	for _, a := range set.ApplicationSecurityGroups {
		switch id := strings.ToLower(a.ID); {
		case !named[id]:
			l.findAt(LintUnusedASG, "applicationSecurityGroups/"+a.Name, a, "No rule names this application security group.")
		case !members[id]:
			l.findAt(LintUnusedASG, "applicationSecurityGroups/"+a.Name, a, "No network interface is in this application security group.")
		}
	}
}

// words finds rules that Azure understands otherwise than people mean them.
func (l *linter) words(rules []*lintRule) {
	const narrow = 100 // ports: a rule for more is not about mail
	for _, r := range rules {
		mail := slices.ContainsFunc(r.rule.DestinationPorts, func(p ruleset.PortRange) bool { return p.First <= 25 && 25 <= p.Last && p.Last-p.First < narrow })
		public := slices.ContainsFunc(r.resolved.Destinations, func(p netip.Prefix) bool { return slices.ContainsFunc(documentAddresses, p.Contains) })
		if mail && public && r.decides && r.direction == ruleset.Outbound && r.rule.Access == ruleset.Allow && (r.rule.Protocol == ruleset.TCP || r.rule.Protocol == ruleset.AnyProtocol) {
			l.findRule(LintMail, r.nsg, r.rule, "This rule allows TCP 25 to the internet, which Azure itself blocks in most subscriptions.")
		}
		for _, side := range []*ruleset.Peer{&r.rule.Source, &r.rule.Destination} {
			side.Each(func(p *ruleset.Peer) {
				if p.Tag == "AzureCloud" && r.rule.Access != ruleset.Deny {
					l.findRule(LintEveryRegion, r.nsg, r.rule, "This rule names AzureCloud, the public addresses of every region and of every customer.")
				}
			})
		}
	}
}

// shut finds groups that let nothing in.
func (l *linter) shut() {
	told := map[*ruleset.NSG]bool{}
	for _, group := range l.alike(ruleset.Inbound) {
		chain := group[0].chains[ruleset.Inbound]
		var at verdict.ChainRule
		for stage := range chain.Lists {
			for i := range chain.Lists[stage].Len() {
				if r := chain.At(stage, i); r.Group != nil && at.Group == nil && !r.Rule.Default && r.Rule.Access == ruleset.Deny && isEverything(r.Resolved) {
					at = r
				}
			}
		}
		if at.Group == nil || told[at.Group.NSG] || len(analysis.Reach(chain.Lists, analysis.Options{MaxStates: l.MaxStates}).Allowed) > 0 {
			continue
		}
		told[at.Group.NSG] = true
		l.findRule(LintShut, at.Group.NSG, at.Rule, "Behind this rule nothing comes in: not from the virtual network, and no health probe.")
	}
}

func isEverything(r *classifier.Rule) bool {
	everywhere := func(p []netip.Prefix) bool {
		return slices.ContainsFunc(p, func(p netip.Prefix) bool { return p.Bits() == 0 })
	}
	every := func(r []ruleset.PortRange) bool { return slices.Contains(r, ruleset.AllPorts) }
	return r.Protocol == ruleset.AnyProtocol && everywhere(r.Sources) && everywhere(r.Destinations) && every(r.SourcePorts) && every(r.DestinationPorts)
}
