package ask

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// outwardKey is a rule that lets everything out.
type outwardKey struct {
	nsg  *ruleset.NSG
	rule string
}

// outward finds rules that let everything out to the internet, and groups that let administration of the whole network out.
func (l *linter) outward() {
	out, sideways := map[outwardKey]bool{}, map[*ruleset.NSG]bool{}
	internet := l.snapshot.InternetSources()
	for _, group := range l.alike(ruleset.Outbound) {
		chain := group[0].chains[ruleset.Outbound]
		var own []netip.Prefix
		for _, p := range group {
			if p.endpoint == nil || !l.leavesDirectly(p) {
				continue
			}
			own = append(own, p.own...)
		}
		if len(own) == 0 {
			continue
		}
		reachable := analysis.Reach(chain.Lists, analysis.Options{MaxStates: l.MaxStates, Within: analysis.Packets{Sources: own, Destinations: internet}})
		for _, boxes := range openOf(chain, reachable, ruleset.Outbound).byOwn() {
			every := everyPort(boxes.toAll(ruleset.TCP))
			if every == nil || every.widest.by.Group == nil {
				continue
			}
			by := every.widest.by
			key := outwardKey{by.Group.NSG, by.Rule.QualifiedName()}
			if out[key] {
				continue
			}
			f := l.findRule(LintOutward, by.Group.NSG, by.Rule, "This rule lets (nearly) every TCP port out to the whole internet."+otherRules(every.others))
			if out[key] = true; by.Rule.Default {
				f.Severity = SeverityInfo
			}
		}
		l.sideways(group, sideways)
	}
}

// leavesDirectly reports that packets to the internet leave by themselves, and not by an appliance or a gateway, or not at all.
func (l *linter) leavesDirectly(p *lintPlace) bool {
	if l.snapshot.NextHop(p.endpoint, documentAddresses[0]).Type != policy.HopInternet {
		return false
	}
	return p.endpoint.NetworkInterface != nil || !p.endpoint.Subnet.DisableDefaultOutbound || p.endpoint.Subnet.NATGateway != nil
}

// sideways finds groups that let SSH and RDP out to the whole virtual network.
func (l *linter) sideways(group []*lintPlace, told map[*ruleset.NSG]bool) {
	p := group[0]
	e := p.endpoint
	if e == nil || len(e.Outbound) == 0 {
		return
	}
	g := e.Outbound[len(e.Outbound)-1].Group.NSG
	if told[g] {
		return
	}
	space := e.Subnet.VirtualNetwork.AddressSpace
	reachable := analysis.Reach(p.chains[ruleset.Outbound].Lists, analysis.Options{MaxStates: l.MaxStates, Within: analysis.Packets{Sources: p.own, Destinations: space}})
	for _, port := range [...]uint16{22, 3389} {
		var b netipx.IPSetBuilder
		for i := range reachable.Allowed {
			for j := range reachable.Allowed[i].Boxes {
				box := &reachable.Allowed[i].Boxes[j]
				if hasPort(box, ruleset.TCP, port) {
					for _, r := range box.Destinations {
						b.AddRange(r)
					}
				}
			}
		}
		open := setOf(&b)
		if slices.ContainsFunc(space, func(s netip.Prefix) bool { return s.Addr().Is4() == p.own[0].Addr().Is4() && !open.ContainsPrefix(s) }) {
			return
		}
	}
	told[g] = true
	l.findAt(LintSideways, groupResource(g), g, "Machines behind this group may open SSH and RDP to every machine of virtual network "+e.Subnet.VirtualNetwork.Name+".")
}
