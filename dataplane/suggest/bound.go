package suggest

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset"
)

// Azure's limits are for both directions of a group: each gets half.
const (
	maxRules     = ruleset.MaxRulesPerGroup/2 - 1 // besides the one that denies the rest
	maxAddresses = ruleset.MaxAddressesPerGroup/2 - 1
	// fewRules are so many that all pairs of them can be compared.
	fewRules = 300
)

// absorbed leaves out drafts that are part of another one.
func absorbed(b *builder, list []draft) []draft {
	if len(list) > 4*fewRules {
		return list
	}
	gone := make([]bool, len(list))
	for i := range list {
		for k := range list {
			if i == k || gone[k] || gone[i] || !b.holds(&list[k], &list[i]) {
				continue
			}
			gone[i] = true
			list[k].seen += list[i].seen
		}
	}
	out := list[:0:0]
	for i := range list {
		if !gone[i] {
			out = append(out, list[i])
		}
	}
	return out
}

// holds reports that a draft allows all that another one does, also when groups and tags change.
func (b *builder) holds(d, o *draft) bool {
	return (d.protocol == o.protocol || d.protocol == ruleset.AnyProtocol) && holdsPorts(d.ports, o.ports) && b.holdsPeer(&d.own, &o.own) && b.holdsPeer(&d.remote, &o.remote)
}

func (b *builder) holdsPeer(p, o *ruleset.Peer) bool {
	switch {
	case p.Any || text(p) == text(o):
		return true
	case form(o) == "groups":
		return false // whose members may be others tomorrow
	}
	all := b.set(p)
	return !slices.ContainsFunc(b.set(o).Prefixes(), func(x netip.Prefix) bool { return !all.ContainsPrefix(x) })
}

func holdsPorts(list, others []ruleset.PortRange) bool {
	return !slices.ContainsFunc(others, func(o ruleset.PortRange) bool {
		return !slices.ContainsFunc(list, func(p ruleset.PortRange) bool { return p.First <= o.First && o.Last <= p.Last })
	})
}

// bounded makes drafts wider until there are no more than may be, and puts them in order.
func (b *builder) bounded(list []draft, most int) []draft {
	for level := range levels {
		if len(list) <= most || len(list) <= fewRules {
			break
		}
		list = slices.Clone(list)
		for i := range list {
			b.coarsen(&list[i], level)
		}
		list = joined(list)
	}
	if len(list) > most {
		list = b.reduced(slices.Clone(list), most)
	}
	for {
		if i := tooLong(list); i >= 0 {
			b.shorten(&list[i])
			list = absorbed(b, joined(list))
			continue
		}
		break
	}
	slices.SortStableFunc(list, func(x, y draft) int {
		return cmp.Or(cmp.Compare(x.protocol, y.protocol), slices.CompareFunc(x.ports, y.ports, func(p, q ruleset.PortRange) int {
			return cmp.Or(cmp.Compare(p.First, q.First), cmp.Compare(p.Last, q.Last))
		}), cmp.Compare(text(&x.remote), text(&y.remote)), cmp.Compare(text(&x.own), text(&y.own)))
	})
	return list
}

// levels are how coarse drafts become, where there are too many to compare.
const levels = 3

func (b *builder) coarsen(d *draft, level int) {
	was := *d
	switch level {
	case 0:
		d.ports = closed(d.ports, 4)
		d.remote = b.class(&d.remote)
	case 1:
		d.own = ruleset.Peer{Any: true}
	default:
		d.ports = everyPort
	}
	d.widened = d.widened || text(&was.own) != text(&d.own) || text(&was.remote) != text(&d.remote) || !slices.Equal(was.ports, d.ports)
}

// class is the tag for the addresses of a peer: VirtualNetwork, Internet or all.
func (b *builder) class(p *ruleset.Peer) ruleset.Peer {
	for _, tag := range []string{ruleset.TagVirtualNetwork, ruleset.TagInternet} {
		if t := (ruleset.Peer{Tag: tag}); p.Tag == tag || b.within(p, &t) {
			return t
		}
	}
	return ruleset.Peer{Any: true}
}

func (b *builder) within(p, in *ruleset.Peer) bool {
	all := b.set(in)
	return !slices.ContainsFunc(b.set(p).Prefixes(), func(x netip.Prefix) bool { return !all.ContainsPrefix(x) })
}

// closed closes the smallest gaps between ranges until there are few.
func closed(ports []ruleset.PortRange, most int) []ruleset.PortRange {
	if len(ports) <= most {
		return ports
	}
	gaps := make([]int, len(ports)-1) // each is behind the range of its index
	for i := range gaps {
		gaps[i] = i
	}
	slices.SortStableFunc(gaps, func(a, b int) int {
		return cmp.Compare(int(ports[b+1].First)-int(ports[b].Last), int(ports[a+1].First)-int(ports[a].Last))
	})
	kept := slices.Sorted(slices.Values(gaps[:most-1]))
	var list []ruleset.PortRange
	first := ports[0].First
	for _, i := range kept {
		list = append(list, ruleset.PortRange{First: first, Last: ports[i].Last})
		first = ports[i+1].First
	}
	return append(list, ruleset.PortRange{First: first, Last: ports[len(ports)-1].Last})
}

// together is the least draft that allows what both do.
func (b *builder) together(x, y *draft) draft {
	d := draft{own: b.both(&x.own, &y.own), remote: b.both(&x.remote, &y.remote), protocol: x.protocol, ports: ruleset.JoinPorts(slices.Concat(x.ports, y.ports)), seen: x.seen + y.seen, widened: true}
	if x.protocol != y.protocol {
		d.protocol, d.ports = ruleset.AnyProtocol, everyPort
	}
	if form(&d.own) != "" && form(&d.remote) != "" && form(&d.own) != "groups" && form(&d.remote) != "groups" && form(&d.own) != form(&d.remote) {
		d.remote = ruleset.Peer{Any: true} // a rule's addresses are of one family
	}
	return d
}

// both is the least peer that stands for two.
func (b *builder) both(x, y *ruleset.Peer) ruleset.Peer {
	if u, ok := union(x, y); ok {
		return u
	}
	class, other := b.class(x), b.class(y)
	if text(&class) == text(&other) {
		return class
	}
	return ruleset.Peer{Any: true}
}

// volume is how many packets a draft allows, so that two can be compared.
func (b *builder) volume(d *draft) float64 {
	size := func(p *ruleset.Peer) (n float64) {
		prefixes := p.Prefixes
		if len(prefixes) == 0 {
			prefixes = b.set(p).Prefixes()
		}
		for _, x := range prefixes {
			n += sizeOf(x)
		}
		return max(n, 1e-9)
	}
	n := 0.0
	for _, p := range d.ports {
		n += float64(p.Last) - float64(p.First) + 1
	}
	if d.protocol == ruleset.AnyProtocol {
		n *= 8
	}
	return size(&d.own) * size(&d.remote) * n
}

// pairing is two drafts as one, and how much that allows beyond them.
type pairing struct {
	one  draft
	cost float64
}

// reduced makes one of those two drafts with which the least is allowed beyond them, until there are as few as may be.
func (b *builder) reduced(list []draft, most int) []draft {
	left := len(list)
	volumes, gone := make([]float64, left), make([]bool, left)
	best := make([]pairing, left) // of each with a later one
	with := make([]int, left)
	pair := func(i, k int) pairing {
		x, y := &list[i], &list[k]
		d := b.together(x, y)
		cost := b.volume(&d) - volumes[i] - volumes[k]
		return pairing{d, cost}
	}
	find := func(i int) {
		best[i].cost = math.Inf(1)
		for k := i + 1; k < len(list); k++ {
			if gone[k] {
				continue
			}
			if p := pair(i, k); p.cost < best[i].cost {
				best[i], with[i] = p, k
			}
		}
	}
	for i := range list {
		volumes[i] = b.volume(&list[i])
	}
	for i := range list {
		find(i)
	}
	for left > max(most, 1) {
		at := -1
		for i := range list {
			if !gone[i] && (at < 0 || best[i].cost < best[at].cost) {
				at = i
			}
		}
		one, changed := best[at].one, map[int]bool{at: true, with[at]: true}
		gone[with[at]] = true
		left--
		list[at], volumes[at] = one, b.volume(&one)
		for k := range list {
			if !gone[k] && k != at && left > 1 && b.holds(&one, &list[k]) {
				list[at].seen += list[k].seen
				gone[k], changed[k] = true, true
				left--
			}
		}
		for i := range list {
			switch {
			case gone[i]:
			case i == at || changed[with[i]]:
				find(i)
			case i < at:
				if p := pair(i, at); p.cost < best[i].cost {
					best[i], with[i] = p, at
				}
			}
		}
	}
	out := list[:0:0]
	for i := range list {
		if !gone[i] {
			out = append(out, list[i])
		}
	}
	return out
}

// tooLong is the draft with the longest list, where all together have more addresses or ports than may be; else -1.
func tooLong(list []draft) (at int) {
	addresses, ports, longest := [2]int{}, 0, 0
	at = -1
	for i := range list {
		d := &list[i]
		addresses[0] += len(d.own.Prefixes)
		addresses[1] += len(d.remote.Prefixes)
		ports += len(d.ports)
		if n := max(len(d.own.Prefixes), len(d.remote.Prefixes), len(d.ports)); n > longest {
			at, longest = i, n
		}
	}
	if addresses[0] <= maxAddresses && addresses[1] <= maxAddresses && ports <= maxAddresses {
		return -1
	}
	return at
}

// shorten makes the longest list of a draft shorter, and the draft wider.
func (b *builder) shorten(d *draft) {
	d.widened = true
	switch n := max(len(d.own.Prefixes), len(d.remote.Prefixes), len(d.ports)); n {
	case len(d.ports):
		d.ports = closed(d.ports, max(1, n/2))
	case len(d.remote.Prefixes):
		d.remote = b.class(&d.remote)
	default:
		d.own = ruleset.Peer{Any: true}
	}
}
