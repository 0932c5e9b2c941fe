package ask

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// placeNames name the places of one end in one family.
type placeNames struct {
	end      string // the end's own text
	snapshot *topology.Snapshot
	places   []place
	family   []int            // the places of the family
	order    []string         // the names of these, each once; without those of which the end has a part only
	byName   map[string][]int // of the family: the places
	tags     []tagSet
}

// tagSet is the addresses of a tag that the end has on the internet.
type tagSet struct {
	name string
	set  *netipx.IPSet
}

func (b *Between) names(end *End, places []place, six bool) *placeNames {
	n := &placeNames{end: end.Text, snapshot: b.snapshot, places: places, byName: map[string][]int{}}
	var internet netipx.IPSetBuilder
	for i := range places {
		p := &places[i]
		if p.address().Is6() != six {
			continue
		}
		n.family = append(n.family, i)
		if p.name == "" || end.given && !b.complete(end, p, six) {
			continue
		}
		if n.byName[p.name] == nil {
			n.order = append(n.order, p.name)
		}
		n.byName[p.name] = append(n.byName[p.name], i)
		if b.snapshot.KindOf(p.endpoint) == topology.Internet {
			addRanges(&internet, p.ranges)
		}
	}
	tags := append([]string{ruleset.TagInternet}, slices.Sorted(maps.Keys(b.snapshot.Policy.ServiceTags))...)
	for _, tag := range tags {
		prefixes, _ := b.snapshot.ExpandTag(nil, tag)
		set := intersection(&internet, prefixes)
		if len(set.Ranges()) > 0 {
			n.tags = append(n.tags, tagSet{"tag:" + tag, set})
		}
	}
	return n
}

// complete reports that an end has all addresses of whoever a place is of.
func (b *Between) complete(end *End, p *place, six bool) bool {
	return !slices.ContainsFunc(b.classes, func(c senderClass) bool {
		return slices.Contains(c.senders, p.endpoint) && c.Address().Is6() == six && !slices.Equal(within(c.Ranges, end.addresses), c.Ranges)
	})
}

func intersection(b *netipx.IPSetBuilder, prefixes []netip.Prefix) *netipx.IPSet {
	both := b.Clone()
	both.Intersect(setOfPrefixes(prefixes))
	return setOf(both)
}

// of names what a row has: by the end's text where it has all of it, by names of those that it has wholly, by
// tags of which it has all that the end has on the internet, and by addresses.
func (n *placeNames) of(list []held) []string {
	names, rest := n.named(list)
	return append(names, texts(rest.Ranges(), analysis.AddressRange)...)
}

// text is the same for people: addresses of the internet may be all of it, or of a tag, except some.
func (n *placeNames) text(list []held) string {
	names, rest := n.named(list)
	plain := texts(rest.Ranges(), analysis.AddressRange)
	whole := slices.Clone(n.tags)
	for _, name := range n.order {
		if n.snapshot.KindOf(n.places[n.byName[name][0]].endpoint) == topology.Internet {
			var b netipx.IPSetBuilder
			for _, i := range n.byName[name] {
				addRanges(&b, n.places[i].ranges)
			}
			whole = append(whole, tagSet{name, setOf(&b)})
		}
	}
	best := plain
	for _, w := range whole {
		var but netipx.IPSetBuilder
		but.AddSet(w.set)
		but.RemoveSet(rest)
		if but := texts(setOf(&but).Ranges(), analysis.AddressRange); cover(w.set, rest) == everything && 0 < len(but) && len(but) < len(best) {
			best, plain = but, []string{w.name + " except " + ruleset.Listed(but)}
		}
	}
	return ruleset.Listed(append(names, plain...))
}

// named are the names of what a row has, and the addresses that have none.
func (n *placeNames) named(list []held) (names []string, rest *netipx.IPSet) {
	has := map[int][]netipx.IPRange{}
	for _, h := range list {
		has[h.place] = h.ranges
	}
	whole := map[string]bool{}
	lacks := func(i int) bool { return !slices.Equal(has[i], n.places[i].ranges) }
	for _, name := range n.order {
		whole[name] = !slices.ContainsFunc(n.byName[name], lacks)
	}
	var left netipx.IPSetBuilder
	for _, h := range list {
		if !whole[n.places[h.place].name] {
			addRanges(&left, h.ranges)
		}
	}
	if names = n.grouped(whole); len(n.order) != 1 && !slices.ContainsFunc(n.family, lacks) {
		return []string{n.end}, &netipx.IPSet{}
	}
	rest = setOf(&left)
	for i := range n.tags {
		if t := &n.tags[i]; cover(rest, t.set) == everything {
			names = append(names, t.name)
			left.RemoveSet(t.set)
			rest = setOf(&left)
		}
	}
	return names, rest
}

// grouped are the names of what is there wholly. A subnet stands for its network interfaces where all of
// them are there.
func (n *placeNames) grouped(whole map[string]bool) (names []string) {
	subnetOf := func(name string) *topology.Endpoint { return n.places[n.byName[name][0]].endpoint }
	complete := func(name string) bool {
		sub := subnetOf(name).Subnet
		return sub != nil && !slices.ContainsFunc(n.order, func(other string) bool { return subnetOf(other).Subnet == sub && !whole[other] }) &&
			slices.ContainsFunc(n.order, func(other string) bool {
				return subnetOf(other).Subnet == sub && n.snapshot.KindOf(subnetOf(other)) == topology.Subnet
			})
	}
	for _, name := range n.order {
		switch kind := n.snapshot.KindOf(subnetOf(name)); {
		case !whole[name]:
		case kind == topology.Subnet && complete(name):
			names = append(names, "subnet:"+name)
		case kind == topology.Subnet:
			names = append(names, "rest of "+name)
		case kind != topology.NetworkInterface || !complete(name):
			names = append(names, name)
		}
	}
	return names
}
