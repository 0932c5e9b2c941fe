package suggest

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

const (
	// subnetFrom is from how many addresses of a subnet on, seen with the same other end, protocol and port, a rule names the
	// subnet.
	subnetFrom = 2
	// internetFrom is the same for the internet.
	internetFrom = 9
	// manyKeys are so many sightings of a group and direction that they are not told apart address by address.
	manyKeys = 50_000
	// maxPorts is of how many ranges of ports a rule is then.
	maxPorts = 64
)

// draft is a rule while it is made: every own address with every other one.
type draft struct {
	own, remote ruleset.Peer
	protocol    ruleset.Protocol
	ports       []ruleset.PortRange // ascending
	// seen is how many different sightings it is made of. widened says that it is wider than their groups, because of a bound.
	seen    int
	widened bool
}

// item is a sighting with the peers that stand for its ends.
type item struct {
	key
	ownPeer, remotePeer ruleset.Peer
}

// drafts are the rules for sightings of a group in one direction, by group, subnet, tag and port.
func (b *builder) drafts(keys []key) []draft {
	if len(keys) > manyKeys {
		return b.coarse(keys)
	}
	items := make([]item, len(keys))
	for i, k := range keys {
		items[i] = item{k, b.member(k.own), b.other(k)}
	}
	own := func(i *item) (*ruleset.Peer, packet.Addr) { return &i.ownPeer, i.own }
	remote := func(i *item) (*ruleset.Peer, packet.Addr) { return &i.remotePeer, i.remote }
	b.widen(items, own, remote)
	b.widen(items, remote, own)
	type pair struct {
		own, remote string
		protocol    ruleset.Protocol
	}
	index := map[pair]int{}
	var list []draft
	for i := range items {
		it := &items[i]
		d := draft{own: it.ownPeer, remote: it.remotePeer, protocol: protocolOf(it.protocol), ports: []ruleset.PortRange{{First: it.port, Last: it.port}}}
		if d.protocol != ruleset.TCP && d.protocol != ruleset.UDP {
			d.ports = everyPort
		}
		p := pair{text(&d.own), text(&d.remote), d.protocol}
		at, known := index[p]
		if !known {
			at = len(list)
			index[p] = at
			list = append(list, d)
		}
		list[at].ports = append(list[at].ports, d.ports...)
		list[at].seen++
	}
	for i := range list {
		list[i].ports = ruleset.JoinPorts(list[i].ports)
	}
	return list
}

var everyPort = []ruleset.PortRange{ruleset.AllPorts}

// protocolOf is the protocol by which a rule can name a number; any where it cannot.
func protocolOf(n uint8) ruleset.Protocol {
	return map[uint8]ruleset.Protocol{packet.ProtoTCP: ruleset.TCP, packet.ProtoUDP: ruleset.UDP, packet.ProtoICMP: ruleset.ICMP, packet.ProtoICMPv6: ruleset.ICMP,
		packet.ProtoESP: ruleset.ESP, packet.ProtoAH: ruleset.AH}[n]
}

// member is the application security group of an address, the smallest one, or the address. Azure wants the groups of a rule to
// be of one virtual network.
func (b *builder) member(a packet.Addr) ruleset.Peer {
	if b.network != nil {
		if id := b.groupOf[memberKey{b.network, a}]; id != "" {
			return ruleset.Peer{ApplicationSecurityGroups: []string{id}}
		}
	}
	return host(a)
}

// other is what stands for the other end of a key by itself: its group, a tag, or its address.
func (b *builder) other(k key) ruleset.Peer {
	if b.in(b.ends[k.end], ruleset.TagAzureLoadBalancer, k.remote) {
		return ruleset.Peer{Tag: ruleset.TagAzureLoadBalancer}
	} else if tag := b.tagOf(k.remote); tag != "" && b.in(b.ends[k.end], ruleset.TagInternet, k.remote) {
		return ruleset.Peer{Tag: tag}
	}
	return b.member(k.remote)
}

// coarse are the rules where so much was seen that it can't be told apart address by address: of subnets and of the internet.
func (b *builder) coarse(keys []key) []draft {
	type pair struct {
		own, remote int32
		protocol    ruleset.Protocol
	}
	var peers []ruleset.Peer
	ids := map[string]int32{}
	id := func(k key, a packet.Addr, p ruleset.Peer) int32 {
		if within, ok := b.placeOf(k, a); ok && len(p.Prefixes) > 0 {
			if p = (ruleset.Peer{Tag: ruleset.TagInternet}); within.IsValid() {
				p = ruleset.Peer{Prefixes: []netip.Prefix{within}}
			}
		}
		t := text(&p)
		n, known := ids[t]
		if !known {
			n = int32(len(peers))
			ids[t], peers = n, append(peers, p)
		}
		return n
	}
	type found struct {
		ports [1 << 10]uint64
		seen  int
	}
	pairs := map[pair]*found{}
	var order []pair
	for _, k := range keys {
		p := pair{id(k, k.own, b.member(k.own)), id(k, k.remote, b.other(k)), protocolOf(k.protocol)}
		of := pairs[p]
		if of == nil {
			of = &found{}
			pairs[p], order = of, append(order, p)
		}
		of.ports[k.port/64] |= 1 << (k.port % 64)
		of.seen++
	}
	list := make([]draft, 0, len(order))
	for _, p := range order {
		of := pairs[p]
		d := draft{own: peers[p.own], remote: peers[p.remote], protocol: p.protocol, ports: everyPort, seen: of.seen, widened: true}
		if p.protocol == ruleset.TCP || p.protocol == ruleset.UDP {
			var ports []ruleset.PortRange
			for word, set := range of.ports {
				for ; set != 0; set &= set - 1 {
					port := uint16(word*64 + bits.TrailingZeros64(set))
					ports = append(ports, ruleset.PortRange{First: port, Last: port})
				}
			}
			d.ports = closed(ruleset.JoinPorts(ports), maxPorts)
		}
		list = append(list, d)
	}
	return list
}

func host(a packet.Addr) ruleset.Peer {
	addr := a.Netip()
	return ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}
}

// widen names the subnet, the internet or the tag where several addresses of it have the same other end, protocol and port.
func (b *builder) widen(items []item, side, other func(*item) (*ruleset.Peer, packet.Addr)) {
	type group struct {
		other    string
		within   netip.Prefix // of a subnet; invalid: the internet
		protocol uint8
		port     uint16
	}
	groups := map[group][]int{}
	addresses := map[group]map[packet.Addr]bool{}
	for i := range items {
		peer, a := side(&items[i])
		if len(peer.Prefixes) == 0 {
			continue
		}
		within, ok := b.placeOf(items[i].key, a)
		if !ok {
			continue
		}
		otherPeer, _ := other(&items[i])
		g := group{text(otherPeer), within, items[i].protocol, items[i].port}
		groups[g] = append(groups[g], i)
		if addresses[g] == nil {
			addresses[g] = map[packet.Addr]bool{}
		}
		addresses[g][a] = true
	}
	for g, members := range groups {
		wide, from := ruleset.Peer{Prefixes: []netip.Prefix{g.within}}, subnetFrom
		if !g.within.IsValid() {
			wide, from = ruleset.Peer{Tag: ruleset.TagInternet}, internetFrom
		}
		whole := slices.ContainsFunc(members, func(i int) bool { return !g.within.IsValid() && b.whole(items[i].key) })
		if len(addresses[g]) < from && !whole {
			continue
		}
		for _, i := range members {
			peer, _ := side(&items[i])
			*peer = wide
		}
	}
}

// placeOf is the prefix of the subnet that an address is in, or an invalid one for the internet.
func (b *builder) placeOf(k key, a packet.Addr) (within netip.Prefix, ok bool) {
	if within, found := b.subnets.Lookup(a.Netip()); found {
		return within, true
	}
	return netip.Prefix{}, b.in(b.ends[k.end], ruleset.TagInternet, a)
}

// text is the same for peers that are the same.
func text(p *ruleset.Peer) string { return strings.ToLower(strings.Join(p.Texts(), " ")) }

// form is the same for peers that one rule can list together; empty where it can't list several.
func form(p *ruleset.Peer) string {
	switch {
	case len(p.ApplicationSecurityGroups) > 0:
		return "groups"
	case len(p.Prefixes) > 0 && p.Prefixes[0].Addr().Is4():
		return "IPv4"
	case len(p.Prefixes) > 0:
		return "IPv6"
	}
	return ""
}

// union lists two peers of a form together; ok is false where a rule can't.
func union(a, b *ruleset.Peer) (u ruleset.Peer, ok bool) {
	switch f := form(a); {
	case text(a) == text(b):
		return *a, true
	case f == "" || f != form(b):
		return u, false
	case f == "groups":
		u.ApplicationSecurityGroups = slices.Clone(a.ApplicationSecurityGroups)
		for _, id := range b.ApplicationSecurityGroups {
			if !slices.ContainsFunc(u.ApplicationSecurityGroups, func(o string) bool { return strings.EqualFold(o, id) }) {
				u.ApplicationSecurityGroups = append(u.ApplicationSecurityGroups, id)
			}
		}
		slices.SortFunc(u.ApplicationSecurityGroups, func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
		return u, len(u.ApplicationSecurityGroups) <= ruleset.MaxASGsPerSide
	}
	u.Prefixes = setOf(slices.Concat(a.Prefixes, b.Prefixes)).Prefixes()
	return u, true
}

// joined makes one of drafts that differ in one end alone, as long as there are such. Nothing becomes wider.
func joined(list []draft) []draft {
	for before := len(list) + 1; len(list) < before; {
		before = len(list)
		list = along(list, func(d *draft) *ruleset.Peer { return &d.own }, func(d *draft) *ruleset.Peer { return &d.remote })
		list = along(list, func(d *draft) *ruleset.Peer { return &d.remote }, func(d *draft) *ruleset.Peer { return &d.own })
		list = byPorts(list)
	}
	return list
}

// along joins drafts that differ in one end.
func along(list []draft, end, other func(*draft) *ruleset.Peer) (out []draft) {
	index := map[string]int{}
	for i := range list {
		d := &list[i]
		k := fmt.Sprintf("%s|%d|%v|%s|%s", text(other(d)), d.protocol, d.ports, form(end(d)), form(other(d)))
		if form(end(d)) == "" {
			k += "|" + text(end(d))
		}
		at, known := index[k]
		if known {
			if u, ok := union(end(&out[at]), end(d)); ok {
				*end(&out[at]) = u
				out[at].seen += d.seen
				out[at].widened = out[at].widened || d.widened
				continue
			}
		}
		index[k] = len(out)
		out = append(out, *d)
	}
	return out
}

// byPorts joins drafts that differ in their ports.
func byPorts(list []draft) (out []draft) {
	index := map[string]int{}
	for i := range list {
		d := &list[i]
		k := fmt.Sprintf("%s|%d|%s", text(&d.own), d.protocol, text(&d.remote))
		if at, known := index[k]; known {
			out[at].ports = ruleset.JoinPorts(slices.Concat(out[at].ports, d.ports))
			out[at].seen += d.seen
			out[at].widened = out[at].widened || d.widened
			continue
		}
		index[k] = len(out)
		out = append(out, *d)
	}
	return out
}

type memberKey struct {
	network *policy.VirtualNetwork
	address packet.Addr
}

// set is what a peer stands for.
func (b *builder) set(p *ruleset.Peer) *netipx.IPSet {
	k := text(p)
	if s := b.resolved[k]; s != nil {
		return s
	}
	prefixes := p.Prefixes
	switch {
	case p.Any:
		prefixes = ruleset.Everywhere()
	case p.Tag != "" && ruleset.IsBuiltInTag(p.Tag):
		prefixes, _ = b.snapshot.ExpandTag(b.subnet, p.Tag)
	case p.Tag != "":
		prefixes = b.Tags[p.Tag]
	}
	for _, id := range p.ApplicationSecurityGroups {
		prefixes = append(prefixes, b.members[strings.ToLower(id)]...)
	}
	s := setOf(prefixes)
	b.resolved[k] = s
	return s
}
