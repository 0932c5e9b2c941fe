package suggest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// part is sightings that one rule of a group denies: rules that allow them come before it.
type part struct {
	before int // the denying rule's priority; those of default rules are above all others
	keys   []key
}

// denied are the sightings that a group's rules deny in a direction, by the rule that does, those of the first rule first.
func (b *builder) denied(g *ruleset.NSG, d ruleset.Direction, keys []key) (parts []part) {
	for _, k := range keys {
		before, is := b.deniedBy(g, d, k)
		if !is {
			continue
		}
		i, known := slices.BinarySearchFunc(parts, before, func(p part, before int) int { return cmp.Compare(p.before, before) })
		if !known {
			parts = slices.Insert(parts, i, part{before: before})
		}
		parts[i].keys = append(parts[i].keys, k)
	}
	return parts
}

// deniedBy is the priority of a group's rule that denies a sighting.
func (b *builder) deniedBy(g *ruleset.NSG, d ruleset.Direction, k key) (priority int, denied bool) {
	p := firstPacket(k.tuple())
	var scratch packet.Tuple
	for _, s := range stagesOf(b.ends[k.end], d) {
		if s.Group.NSG != g {
			continue
		}
		if i := s.Table.Match.FirstMatch(p.Classification(&p.Tuple, &scratch)); s.Table.Rules[i].Access == ruleset.Deny {
			return min(s.Table.Rules[i].Priority, lastPriority+1), true
		}
	}
	return 0, false
}

// keep adds to a group's own rules those that allow what these deny. The error says that no priority is free for them.
func (b *builder) keep(group *Group, g *ruleset.NSG, keys [2][]key) error {
	for i := range g.Rules {
		group.NSG.Rules = append(group.NSG.Rules, g.Rules[i])
		group.Rules = append(group.Rules, Rule{Name: g.Rules[i].Name, Direction: g.Rules[i].Direction, Kept: true})
		b.names[strings.ToLower(g.Rules[i].Name)] = true
	}
	for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
		left := min(cmp.Or(b.MaxRules, maxRules), ruleset.MaxRulesPerGroup-len(group.NSG.Rules))
		for _, p := range b.denied(g, d, keys[d]) {
			drafts := absorbed(b, joined(b.drafts(p.keys)))
			first, free := gap(group.NSG.Rules, d, p.before, drafts)
			if free > 0 && left > 0 {
				drafts = b.bounded(drafts, min(left, free))
				if at, _ := gap(group.NSG.Rules, d, p.before, drafts); at != first { // wider ones meet what the others don't
					free = 0
				}
			}
			if free == 0 || left < 1 {
				return fmt.Errorf("network security group %s, %s: no rule can be added before the one of priority %d: no priority is free there, or there are as many rules as may be", g.Name, strings.ToLower(d.String()), p.before)
			}
			left -= len(drafts)
			b.write(group, d, drafts, first, free)
		}
	}
	slices.SortStableFunc(group.NSG.Rules, func(x, y ruleset.Rule) int {
		return cmp.Or(cmp.Compare(x.Direction, y.Direction), cmp.Compare(x.Priority, y.Priority))
	})
	place := map[string]int{}
	for i := range group.NSG.Rules {
		place[group.NSG.Rules[i].Name] = i
	}
	slices.SortFunc(group.Rules, func(x, y Rule) int { return cmp.Compare(place[x.Name], place[y.Name]) })
	return nil
}

// gap is the last gap between the priorities of a direction's rules that ends before a priority: its first one, and how many are
// free. None is where drafts would be before another rule that denies some of what they allow.
func gap(rules []ruleset.Rule, d ruleset.Direction, before int, drafts []draft) (first, free int) {
	used, denies := map[int]bool{}, map[int]bool{}
	for i := range rules {
		r := &rules[i]
		if r.Direction == d {
			used[r.Priority] = true
			denies[r.Priority] = r.Access == ruleset.Deny && slices.ContainsFunc(drafts, func(x draft) bool { return x.meets(r) })
		}
	}
	end := min(before, lastPriority+1) - 1
	for end >= firstPriority && used[end] {
		if denies[end] {
			return 0, 0
		}
		end--
	}
	for first = end; first >= firstPriority && !used[first]; first-- {
	}
	return first + 1, end - first
}

// meets reports that a packet may be both of a draft and of a rule, today or tomorrow: tags and groups change.
func (d *draft) meets(r *ruleset.Rule) bool {
	own, remote := &r.Destination, &r.Source
	if r.Direction == ruleset.Outbound {
		own, remote = remote, own
	}
	ports := slices.ContainsFunc(d.ports, func(p ruleset.PortRange) bool {
		return slices.ContainsFunc(r.DestinationPorts, func(q ruleset.PortRange) bool { return p.First <= q.Last && q.First <= p.Last })
	})
	return ports && (d.protocol == r.Protocol || d.protocol == ruleset.AnyProtocol || r.Protocol == ruleset.AnyProtocol) && mayMeet(&d.own, own) && mayMeet(&d.remote, remote)
}

// mayMeet reports that an address may be of two peers.
func mayMeet(p, o *ruleset.Peer) bool {
	return len(p.Prefixes) == 0 || len(o.Prefixes) == 0 ||
		slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return slices.ContainsFunc(o.Prefixes, x.Overlaps) })
}
