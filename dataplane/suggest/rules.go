package suggest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// Group is what is suggested for one network security group.
type Group struct {
	// NSG is the group of the policy with the rules that are suggested.
	NSG *ruleset.NSG
	// Rules say where these come from.
	Rules []Rule
	// Before are how many rules the group has now, by direction.
	Before [2]int
}

// Rule is where a rule comes from.
type Rule struct {
	Name      string
	Direction ruleset.Direction
	// Seen is how many different sightings it allows: ends, the other ends, protocols and ports. 0 is one that nothing asked for.
	Seen int
	// Widened says that it allows more than the groups of what was seen, because of MaxRules or of Azure's limits.
	Widened bool
	// Kept says that the group has it already.
	Kept bool
}

// builder makes the rules of one group.
type builder struct {
	*Collector
	network  *policy.VirtualNetwork // of all ends; nil: they are in several
	subnet   *policy.Subnet         // of one end, for tags
	subnets  *bart.Table[netip.Prefix]
	groupOf  map[memberKey]string // the smallest application security group of an address
	resolved map[string]*netipx.IPSet
	names    map[string]bool // of rules, in lower case
}

// Rules suggests rules for each group of the policy in which something was seen, or with Options.Keep, that denies something. The
// error says where there is no room for rules beside those that stay.
func (c *Collector) Rules() (list []Group, err error) {
	for _, g := range c.snapshot.Policy.NetworkSecurityGroups {
		if c.Groups != nil && !slices.Contains(c.Groups, g) {
			continue
		}
		keys := [2][]key{c.sorted(g, ruleset.Inbound), c.sorted(g, ruleset.Outbound)}
		if len(keys[0])+len(keys[1]) == 0 {
			continue
		}
		b := c.builder(g)
		group := Group{NSG: &ruleset.NSG{Name: g.Name, ID: g.ID, ResourceGUID: g.ResourceGUID, Location: g.Location, FlushConnection: g.FlushConnection}}
		for i := range g.Rules {
			group.Before[g.Rules[i].Direction]++
		}
		if c.Keep {
			if err := b.keep(&group, g, keys); err != nil {
				return nil, err
			}
			if len(group.NSG.Rules) > len(g.Rules) {
				list = append(list, group)
			}
			continue
		}
		for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			drafts := joined(b.drafts(b.unmet(d, keys[d])))
			if d == ruleset.Inbound && !c.KeepDefaults && c.probed(g) {
				drafts = append(drafts, draft{own: ruleset.Peer{Any: true}, remote: ruleset.Peer{Tag: ruleset.TagAzureLoadBalancer}, ports: everyPort})
			}
			b.add(&group, d, b.bounded(absorbed(b, drafts), cmp.Or(b.MaxRules, maxRules)))
		}
		list = append(list, group)
	}
	return list, nil
}

// unmet are the keys that Azure's default rules don't allow anyway, where these stay.
func (b *builder) unmet(d ruleset.Direction, keys []key) []key {
	if !b.KeepDefaults {
		return keys
	}
	return slices.DeleteFunc(keys, func(k key) bool {
		end := b.ends[k.end]
		if b.in(end, ruleset.TagVirtualNetwork, k.own) && b.in(end, ruleset.TagVirtualNetwork, k.remote) {
			return true
		}
		if d == ruleset.Outbound {
			return b.in(end, ruleset.TagInternet, k.remote)
		}
		return b.in(end, ruleset.TagAzureLoadBalancer, k.remote)
	})
}

// probed reports that a load balancer asks an end of a group.
func (c *Collector) probed(g *ruleset.NSG) bool {
	return slices.ContainsFunc(c.snapshot.Probes(), func(p *topology.Probe) bool {
		return p.Target != nil && slices.ContainsFunc(p.Target.Inbound, func(s topology.Stage) bool { return s.Group.NSG == g })
	})
}

func (c *Collector) builder(g *ruleset.NSG) *builder {
	b := &builder{Collector: c, subnets: &bart.Table[netip.Prefix]{}, groupOf: map[memberKey]string{}, resolved: map[string]*netipx.IPSet{}, names: map[string]bool{}}
	several := false
	for _, e := range c.ends {
		if !slices.ContainsFunc(e.Inbound, func(s topology.Stage) bool { return s.Group.NSG == g }) {
			continue
		}
		if b.subnet == nil {
			b.subnet, b.network = e.Subnet, e.Subnet.VirtualNetwork
		}
		several = several || b.network != e.Subnet.VirtualNetwork
	}
	for _, own := range []bool{false, true} { // where networks overlap, its own counts
		for _, v := range c.snapshot.Policy.VirtualNetworks {
			for _, s := range v.Subnets {
				for _, p := range s.Prefixes {
					if (v == b.network) == own {
						b.subnets.Insert(p, p)
					}
				}
			}
		}
	}
	for _, nic := range c.snapshot.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			ip := &nic.IPConfigurations[i]
			k := memberKey{ip.Subnet.VirtualNetwork, packet.AddrFrom(ip.Address)}
			for _, id := range ip.ApplicationSecurityGroups {
				known := b.groupOf[k]
				size, other := len(c.members[strings.ToLower(id)]), len(c.members[strings.ToLower(known)])
				if known == "" || size < other || size == other && strings.ToLower(id) < strings.ToLower(known) {
					b.groupOf[k] = id
				}
			}
		}
	}
	if several {
		b.network = nil
	}
	return b
}

// firstPriority and lastPriority are those of the first rule, and of the one that denies the rest.
const firstPriority, lastPriority = ruleset.MinPriority, ruleset.MaxPriority

// add writes drafts as all rules of a direction, with the last one that denies the rest.
func (b *builder) add(g *Group, d ruleset.Direction, drafts []draft) {
	b.write(g, d, drafts, firstPriority, lastPriority-firstPriority)
	if b.KeepDefaults {
		return
	}
	g.NSG.Rules = append(g.NSG.Rules, ruleset.Rule{Name: "DenyOther" + d.String(), Priority: lastPriority, Direction: d, Access: ruleset.Deny,
		Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}, SourcePorts: everyPort, DestinationPorts: everyPort})
	g.Rules = append(g.Rules, Rule{Name: "DenyOther" + d.String(), Direction: d})
}

// write gives drafts their names, and so many priorities from the first one on, with gaps between them.
func (b *builder) write(g *Group, d ruleset.Direction, drafts []draft, first, priorities int) {
	step := max(1, min(10, priorities/(len(drafts)+1)))
	for i := range drafts {
		draft := &drafts[i]
		r := ruleset.Rule{Name: unique(b.names, nameOf(draft, d)), Priority: first + i*step, Direction: d, Access: ruleset.Allow, Protocol: draft.protocol,
			Source: draft.remote, Destination: draft.own, SourcePorts: everyPort, DestinationPorts: draft.ports}
		if d == ruleset.Outbound {
			r.Source, r.Destination = draft.own, draft.remote
		}
		g.NSG.Rules = append(g.NSG.Rules, r)
		g.Rules = append(g.Rules, Rule{Name: r.Name, Direction: d, Seen: draft.seen, Widened: draft.widened})
	}
}

// nameOf says what a rule allows, such as Allow_Tcp_443_from_Internet_to_web. Names have letters and digits of what
// the policy names alone.
func nameOf(d *draft, direction ruleset.Direction) string {
	from, to := &d.remote, &d.own
	if direction == ruleset.Outbound {
		from, to = to, from
	}
	parts := []string{"Allow"}
	if d.protocol != ruleset.AnyProtocol {
		parts = append(parts, d.protocol.String())
	}
	if d.protocol == ruleset.TCP || d.protocol == ruleset.UDP {
		ports := "all_ports"
		if d.ports[0] != ruleset.AllPorts {
			ports = d.ports[0].String()
		}
		if more := len(d.ports) - 1; more > 0 {
			ports += fmt.Sprintf("_and_%d_more", more)
		}
		parts = append(parts, ports)
	}
	return strings.Join(append(parts, "from", peerName(from), "to", peerName(to)), "_")
}

func peerName(p *ruleset.Peer) string {
	texts := p.Texts()
	name := texts[0]
	switch {
	case p.Any:
		return "any"
	case len(p.ApplicationSecurityGroups) > 0:
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	name = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
			return c
		}
		return '_'
	}, name)
	name = name[:min(len(name), 25)]
	if more := len(texts) - 1; more > 0 {
		name += fmt.Sprintf("_and_%d_more", more)
	}
	return name
}

// unique makes a name one that Azure takes, and that no other rule has in any case.
func unique(taken map[string]bool, name string) string {
	name = strings.TrimRight(name[:min(len(name), ruleset.MaxNameLength-5)], ".-")
	for n, try := 2, name; ; n++ {
		if key := strings.ToLower(try); !taken[key] {
			taken[key] = true
			return try
		}
		try = fmt.Sprintf("%s_%d", name, n)
	}
}
