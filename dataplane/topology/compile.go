package topology

import (
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"golang.org/x/sync/errgroup"
)

// place identifies a group across snapshots: by the NSG's id in lower case, and the
// content of its view.
type place struct{ nsg, view string }

func (g *Group) place() place { return place{strings.ToLower(g.NSG.ID), g.view.key} }

// resolveGroups turns the rules of all groups, in the policy's order, into what the
// classifier compiles, and takes from an earlier snapshot what is compiled already.
func (b *builder) resolveGroups(earlier *Snapshot) {
	groups := map[place]*Group{}
	if earlier != nil {
		for _, g := range earlier.Groups {
			groups[g.place()] = g
		}
	}
	for _, g := range b.s.Groups {
		old := groups[g.place()]
		if old == nil {
			old = &Group{view: &view{}}
		}
		// Numbers stay when their labels do; another registry has other numbers.
		known := old.NSG == g.NSG && old.Label == g.Label && earlier.registry == b.s.registry
		b.resolveTable(g, old, &g.Inbound, &old.Inbound, ruleset.Inbound, known)
		b.resolveTable(g, old, &g.Outbound, &old.Outbound, ruleset.Outbound, known)
	}
}

// resolveTable fills all of a table but what it has to compile. known says that the
// earlier table's rules have the same labels.
func (b *builder) resolveTable(g, oldGroup *Group, t, old *Table, d ruleset.Direction, known bool) {
	if oldGroup.NSG == g.NSG {
		t.Rules = old.Rules // nothing in a policy changes after it is read
	} else {
		t.Rules = g.NSG.Ordered(d)
	}
	if known {
		t.Slots = old.Slots
	}
	t.compiled = make([]classifier.Rule, len(t.Rules))
	var platform []int
	for i := range t.Rules {
		r := &t.Rules[i]
		t.compiled[i] = classifier.Rule{
			Protocol:         r.Protocol,
			Sources:          b.resolve(g, oldGroup, r, "source", &r.Source),
			Destinations:     b.resolve(g, oldGroup, r, "destination", &r.Destination),
			SourcePorts:      r.SourcePorts,
			DestinationPorts: r.DestinationPorts,
		}
		if narrowToService(r, &t.compiled[i]) {
			platform = append(platform, i)
		}
	}
	t.platformTable(platform)
	if old.Match != nil && slices.EqualFunc(t.compiled, old.compiled, func(a, b classifier.Rule) bool { return a.Equal(&b) }) {
		t.Match = old.Match
		return
	}
	b.pending = append(b.pending, t)
}

// sameList compares contents; of one and the same memory it need not read them.
func sameList[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

var everywhere = ruleset.Everywhere()

// resolve turns one side of a rule into prefixes.
func (b *builder) resolve(g, old *Group, r *ruleset.Rule, side string, p *ruleset.Peer) []netip.Prefix {
	switch {
	case p.Any:
		return everywhere
	case p.Tag != "":
		prefixes, ok := b.expandTag(g.view, old.view, p.Tag)
		if !ok {
			b.fail("network security group %q, rule %q: %sAddressPrefix %q: no tag of that name is known; known without a service tag file are %s",
				g.NSG.Name, r.Name, side, p.Tag, ruleset.BuiltInTags)
		}
		return prefixes
	case len(p.ApplicationSecurityGroups) > 0:
		return b.groupAddresses(p.ApplicationSecurityGroups)
	case p.NetworkGroup != "":
		return b.spaces[strings.ToLower(p.NetworkGroup)]
	case p.AnyOf != nil:
		var all []netip.Prefix
		p.Each(func(one *ruleset.Peer) { all = append(all, b.resolve(g, old, r, side, one)...) })
		return all
	}
	return p.Prefixes
}

// groupAddresses are the members of application security groups: one list for all
// rules that name the same ones.
func (b *builder) groupAddresses(ids []string) []netip.Prefix {
	key := strings.ToLower(strings.Join(ids, "\n"))
	prefixes, ok := b.sides[key]
	if !ok {
		for _, id := range ids {
			members := b.members[strings.ToLower(id)]
			if len(members) == 0 && len(ids) > 1 && b.options.AzureQuirks {
				prefixes = nil
				break
			}
			prefixes = append(prefixes, members...)
		}
		b.sides[key] = prefixes
	}
	return prefixes
}

// expandTag resolves a service tag in a view, once. An expansion that is as it was in
// the earlier snapshot is the earlier one.
func (b *builder) expandTag(v, old *view, tag string) ([]netip.Prefix, bool) {
	if prefixes, ok := v.tags[tag]; ok {
		return prefixes, true
	}
	prefixes, ok := b.s.tagPrefixes(v, tag)
	if !ok {
		return nil, false
	}
	if before := old.tags[tag]; sameList(before, prefixes) {
		prefixes = before
	}
	v.tags[tag] = prefixes
	return prefixes, true
}

// tagPrefixes are what a tag stands for in a view.
func (s *Snapshot) tagPrefixes(v *view, tag string) ([]netip.Prefix, bool) {
	switch tag {
	case ruleset.TagVirtualNetwork:
		return v.virtualNetwork, true
	case ruleset.TagInternet:
		return ruleset.InternetPrefixes(v.virtualNetwork), true
	case ruleset.TagAzureLoadBalancer:
		return ruleset.AzureLoadBalancerPrefixes(), true
	case ruleset.TagPlatformDNS, ruleset.TagPlatformIMDS, ruleset.TagPlatformLKM:
		return ruleset.PlatformServiceOf(tag).Addresses, true
	}
	prefixes, ok := s.Policy.ServiceTags[tag]
	return prefixes, ok
}

// compile compiles what no earlier snapshot has, on all cores.
func (b *builder) compile() {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, t := range b.pending {
		group.Go(func() error {
			t.Match = classifier.Compile(t.compiled)
			return nil
		})
	}
	group.Wait() // none of them fails
}

// defaultNames are the names of the default rules in lower case, by direction.
var defaultNames = func() (names [2]map[string]bool) {
	for d := range names {
		names[d] = map[string]bool{}
	}
	for _, r := range ruleset.DefaultRules() {
		names[r.Direction][strings.ToLower(r.Name)] = true
	}
	return names
}()

// ruleLabel names a rule in counters. A user rule may bear a default rule's name,
// and would share its counters.
func ruleLabel(r *ruleset.Rule) string {
	if !r.Default && defaultNames[r.Direction][strings.ToLower(r.Name)] {
		return r.QualifiedName()
	}
	return r.Name
}

// assignSlots numbers the rules whose numbers are not known from an earlier snapshot.
func (b *builder) assignSlots(registry *Registry) error {
	var keys []RuleKey
	each := func(f func(g *Group, t *Table)) {
		for _, g := range b.s.Groups {
			for _, t := range []*Table{&g.Inbound, &g.Outbound} {
				if t.Slots == nil {
					f(g, t)
				}
			}
		}
	}
	each(func(g *Group, t *Table) {
		for i := range t.Rules {
			r := &t.Rules[i]
			keys = append(keys, RuleKey{NetworkSecurityGroup: g.Label, Direction: r.Direction, Rule: ruleLabel(r), Access: r.Access})
		}
	})
	slots, err := registry.reserve(keys)
	if err != nil {
		return err
	}
	each(func(_ *Group, t *Table) {
		t.Slots, slots = slots[:len(t.Rules):len(t.Rules)], slots[len(t.Rules):]
	})
	return nil
}
