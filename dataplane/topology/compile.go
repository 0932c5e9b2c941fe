package topology

import (
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
	"golang.org/x/sync/errgroup"
)

// groupIdentity identifies a group across snapshots: by the NSG's id in lower case and the
// content of its view.
type groupIdentity struct{ nsg, view string }

func (g *Group) identity() groupIdentity { return groupIdentity{strings.ToLower(g.NSG.ID), g.view.key} }

// resolver turns rules into prefixes.
type resolver struct {
	set     *policy.Set
	quirks  bool                      // see Options.AzureQuirks
	members map[string][]netip.Prefix // ASG id in lower case -> addresses
	sides   map[string][]netip.Prefix // ASG ids as a rule lists them -> addresses of all of them
	spaces  map[string][]netip.Prefix // network group id in lower case -> address spaces
	faults  *faults
}

func newResolver(set *policy.Set, quirks bool, f *faults) *resolver {
	r := &resolver{set: set, quirks: quirks, members: map[string][]netip.Prefix{}, sides: map[string][]netip.Prefix{},
		spaces: map[string][]netip.Prefix{}, faults: f}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			for _, id := range c.ApplicationSecurityGroups {
				id = strings.ToLower(id)
				r.members[id] = append(r.members[id], host(c.Address))
			}
		}
	}
	for _, g := range set.NetworkGroups {
		var space []netip.Prefix
		for _, v := range g.Members {
			space = append(space, v.AddressSpace...)
		}
		r.spaces[strings.ToLower(g.ID)] = space
	}
	return r
}

// resolveRules turns the rules of all groups into what the classifier compiles. It takes the
// compiled tables of an earlier snapshot where they fit, and returns the others.
func resolveRules(set *policy.Set, quirks bool, groups []*Group, earlier *Snapshot, registry *Registry, f *faults) (pending []*Table) {
	r := newResolver(set, quirks, f)
	before := map[groupIdentity]*Group{}
	if earlier != nil {
		for _, g := range earlier.Groups {
			before[g.identity()] = g
		}
	}
	for _, g := range groups {
		old := before[g.identity()]
		if old == nil {
			old = &Group{view: &view{}}
		}
		// Slots stay when the labels do; another registry has other slots.
		known := old.NSG == g.NSG && old.Label == g.Label && earlier.registry == registry
		for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			t := g.table(d)
			if !r.resolveTable(g, old, d, known) {
				pending = append(pending, t)
			}
		}
	}
	return pending
}

// table is one direction of a group.
func (g *Group) table(d ruleset.Direction) *Table {
	if d == ruleset.Inbound {
		return &g.Inbound
	}
	return &g.Outbound
}

// resolveTable fills one direction of a group. compiled is false when its rules must still be
// compiled. known says that the earlier table's rules have the same labels.
func (r *resolver) resolveTable(g, oldGroup *Group, d ruleset.Direction, known bool) (compiled bool) {
	t, old := g.table(d), oldGroup.table(d)
	if oldGroup.NSG == g.NSG && old.Match != nil && r.resolvesAlike(g, oldGroup, old) { // a policy never changes after it is read
		*t = *old
		if !known {
			t.Slots = nil
		}
		return true
	}
	if oldGroup.NSG == g.NSG {
		t.Rules = old.Rules
	} else {
		t.Rules = g.NSG.Ordered(d)
	}
	if known {
		t.Slots = old.Slots
	}
	t.compiled = make([]classifier.Rule, len(t.Rules))
	var platform []int
	for i := range t.Rules {
		rule := &t.Rules[i]
		for _, p := range []*ruleset.Peer{&rule.Source, &rule.Destination} {
			if !p.Any && p.Prefixes == nil {
				t.open = append(t.open, i)
				break
			}
		}
		t.compiled[i] = r.resolved(g, oldGroup, rule)
		if narrowToService(rule, &t.compiled[i]) {
			platform = append(platform, i)
		}
	}
	t.platformTable(platform)
	if old.Match == nil || !slices.EqualFunc(t.compiled, old.compiled, func(a, b classifier.Rule) bool { return a.Equal(&b) }) {
		return false
	}
	t.Match = old.Match
	return true
}

// resolved is a rule with the prefixes of both its sides.
func (r *resolver) resolved(g, old *Group, rule *ruleset.Rule) classifier.Rule {
	return classifier.Resolved(rule, r.resolve(g, old, rule, "source", &rule.Source), r.resolve(g, old, rule, "destination", &rule.Destination))
}

// resolvesAlike reports that all rules of an earlier table of the same NSG stand for the same prefixes. It looks only at those
// that name something.
func (r *resolver) resolvesAlike(g, oldGroup *Group, old *Table) bool {
	faults := len(*r.faults)
	for _, i := range old.open {
		now := r.resolved(g, oldGroup, &old.Rules[i])
		narrowToService(&old.Rules[i], &now)
		if !now.Equal(&old.compiled[i]) {
			*r.faults = (*r.faults)[:faults] // who resolves all rules finds them in their order
			return false
		}
	}
	return true
}

// sameList compares contents. It does not read them where both lists are the same memory.
func sameList[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// resolve turns one side of a rule into prefixes.
func (r *resolver) resolve(g, old *Group, rule *ruleset.Rule, side string, p *ruleset.Peer) []netip.Prefix {
	switch {
	case p.Any:
		return everywhere
	case p.Tag != "":
		prefixes, ok := r.expandTag(g.view, old.view, p.Tag)
		if !ok {
			r.faults.add("network security group %q, rule %q: %sAddressPrefix %q: no tag of that name is known; known without Microsoft's service tag file are %s",
				g.NSG.Name, rule.Name, side, p.Tag, ruleset.BuiltInTags)
		}
		return prefixes
	case len(p.ApplicationSecurityGroups) > 0:
		return r.addressesOf(p.ApplicationSecurityGroups)
	case p.NetworkGroup != "":
		return r.spaces[strings.ToLower(p.NetworkGroup)]
	case p.AnyOf != nil:
		var all []netip.Prefix
		p.Each(func(one *ruleset.Peer) { all = append(all, r.resolve(g, old, rule, side, one)...) })
		return all
	}
	return p.Prefixes
}

// addressesOf are the members of application security groups. All rules that name the same
// groups share one list.
func (r *resolver) addressesOf(ids []string) []netip.Prefix {
	key := strings.ToLower(strings.Join(ids, "\n"))
	prefixes, ok := r.sides[key]
	if !ok {
		for _, id := range ids {
			members := r.members[strings.ToLower(id)]
			if len(members) == 0 && len(ids) > 1 && r.quirks {
				prefixes = nil
				break
			}
			prefixes = append(prefixes, members...)
		}
		r.sides[key] = prefixes
	}
	return prefixes
}

// expandTag resolves a service tag in a view once. It returns the earlier snapshot's slice
// where that has the same prefixes.
func (r *resolver) expandTag(v, old *view, tag string) ([]netip.Prefix, bool) {
	if prefixes, ok := v.tags[tag]; ok {
		return prefixes, true
	}
	prefixes, ok := tagPrefixes(r.set, v, tag)
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
func tagPrefixes(set *policy.Set, v *view, tag string) ([]netip.Prefix, bool) {
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
	prefixes, ok := set.ServiceTags[tag]
	return prefixes, ok
}

// compile compiles the tables that no earlier snapshot has, on all cores.
func compile(pending []*Table) {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, t := range pending {
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

// ruleLabel names a rule in counters. A user rule with a default rule's name gets a prefix;
// otherwise the two would share their counters.
func ruleLabel(r *ruleset.Rule) string {
	if !r.Default && defaultNames[r.Direction][strings.ToLower(r.Name)] {
		return r.QualifiedName()
	}
	return r.Name
}

// assignSlots gives slots to the rules that have none from an earlier snapshot.
func assignSlots(groups []*Group, registry *Registry) error {
	var keys []RuleKey
	each := func(f func(g *Group, t *Table)) {
		for _, g := range groups {
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
