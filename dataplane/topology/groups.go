package topology

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// view is what tags mean in some subnets: all subnets with the same VirtualNetwork tag.
type view struct {
	key            string         // the prefixes of VirtualNetwork; equal views of any snapshot have equal keys
	virtualNetwork []netip.Prefix // the tag of that name
	// tags are the expansions of the tags that rules name. All rules share one slice a tag,
	// so that compiling does a tag's work only once.
	tags map[string][]netip.Prefix
}

type groupKey struct {
	nsg  *ruleset.NSG
	view *view
}

// groupSet makes the groups that stages refer to: one for each NSG and view.
type groupSet struct {
	set    *policy.Set
	labels map[*ruleset.NSG]string
	groups map[groupKey]*Group
	views  map[string]*view
	list   []*Group // in the order of their making
}

func newGroupSet(set *policy.Set) *groupSet {
	return &groupSet{set: set, labels: GroupLabels(set), groups: map[groupKey]*Group{}, views: map[string]*view{}}
}

// GroupLabels names NSGs and rule collections in metrics: by name, or by id where a name is
// not unique. A collection's name has slashes, which no NSG's name can have.
func GroupLabels(set *policy.Set) map[*ruleset.NSG]string {
	groups := set.Groups()
	labels := uniqueNames(groups, func(g *ruleset.NSG) (name, id string) { return g.Name, g.ID })
	byGroup := make(map[*ruleset.NSG]string, len(groups))
	for i, g := range groups {
		byGroup[g] = labels[i]
	}
	return byGroup
}

// uniqueNames names each element by its name, or by its id where several share the name in
// any case. An element without an id keeps its name.
func uniqueNames[E any](list []E, of func(E) (name, id string)) []string {
	count := map[string]int{}
	for _, e := range list {
		name, _ := of(e)
		count[strings.ToLower(name)]++
	}
	unique := make([]string, len(list))
	for i, e := range list {
		name, id := of(e)
		if unique[i] = name; count[strings.ToLower(name)] > 1 && id != "" {
			unique[i] = id
		}
	}
	return unique
}

// view makes the view of a VirtualNetwork tag once.
func (s *groupSet) view(virtualNetwork []netip.Prefix) *view {
	var key strings.Builder
	for _, p := range virtualNetwork {
		key.WriteString(p.String())
		key.WriteByte(' ')
	}
	v := s.views[key.String()]
	if v == nil {
		v = &view{key: key.String(), virtualNetwork: virtualNetwork, tags: map[string][]netip.Prefix{}}
		s.views[v.key] = v
	}
	return v
}

// group makes the group of an NSG in a view once. resolveRules fills it.
func (s *groupSet) group(nsg *ruleset.NSG, v *view) *Group {
	key := groupKey{nsg, v}
	g := s.groups[key]
	if g == nil {
		g = &Group{NSG: nsg, Label: s.labels[nsg], view: v}
		s.groups[key] = g
		s.list = append(s.list, g)
	}
	return g
}

// adminStages are the stages of a virtual network's rule collections, one stage a collection
// in the policy's order. They stand before the NSGs of all subnets with the view.
func (s *groupSet) adminStages(vnet *policy.VirtualNetwork, v *view) (inbound, outbound []Stage) {
	for _, c := range s.set.AdminCollections {
		if !slices.Contains(c.Networks, vnet) {
			continue
		}
		g := s.group(c.Rules, v)
		inbound = append(inbound, Stage{NetworkManagerAssociation, ruleset.Inbound, g, &g.Inbound})
		outbound = append(outbound, Stage{NetworkManagerAssociation, ruleset.Outbound, g, &g.Outbound})
	}
	return inbound, outbound
}

// complete adds the NSGs and rule collections that nothing uses, so that they are checked and
// can be shown. It returns all groups in the policy's order.
func (s *groupSet) complete() []*Group {
	used := map[*ruleset.NSG]bool{}
	for _, g := range s.list {
		used[g.NSG] = true
	}
	order := map[*ruleset.NSG]int{}
	for i, nsg := range s.set.Groups() {
		order[nsg] = i
		if !used[nsg] {
			s.group(nsg, s.view(ruleset.VirtualNetworkPrefixes(nil)))
		}
	}
	slices.SortStableFunc(s.list, func(x, y *Group) int { return order[x.NSG] - order[y.NSG] })
	return s.list
}
