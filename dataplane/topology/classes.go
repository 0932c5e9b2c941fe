package topology

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"go4.org/netipx"
)

// AddressClass is addresses of one family that a policy does not tell apart, but by its rules: what is sent
// to them, and what they send, takes ways that differ in the address alone. Two things are left to each
// packet: what a load balancer chooses, and whether an IPv6 address embeds an IPv4 address that the
// internet cannot have.
type AddressClass struct {
	Ranges []netipx.IPRange // in ascending order
	// Alike is equal, and not 0, for classes that differ only in which network interface has the one address:
	// what passes between two of them passes between any two.
	Alike int
}

// Address is one of the addresses.
func (c *AddressClass) Address() netip.Addr { return ExampleOf(c.Ranges) }

// ExampleOf is an address of some ranges of a class: the first one, or one that embeds an IPv4 address that the
// internet has.
func ExampleOf(ranges []netipx.IPRange) netip.Addr {
	for _, e := range embedding {
		if !e.prefix.Contains(ranges[0].From()) {
			continue
		}
		for _, r := range ranges {
			if r.Contains(e.example) {
				return e.example
			}
		}
	}
	return ranges[0].From()
}

// embedding are the ranges of addresses that embed an IPv4 address, see boundary.admits, with one that embeds
// an address for documents.
var embedding = []struct {
	prefix  netip.Prefix
	example netip.Addr
}{
	{netip.MustParsePrefix("2002::/16"), netip.MustParseAddr("2002:cb00:710a::1")},
	{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParseAddr("64:ff9b::cb00:710a")},
	{netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParseAddr("64:ff9b:1::cb00:710a")},
	{netip.MustParsePrefix("2001::/32"), netip.MustParseAddr("2001:0:cb00:710a::34ff:8ef5")},
}

// AddressClasses divides all addresses, IPv4 first, by whatever Way, Admit and the questions about senders
// look up.
func (s *Snapshot) AddressClasses() []AddressClass {
	c := &divider{snapshot: s, bordered: map[netip.Prefix]bool{}, ids: map[any]uint64{}, byKey: map[string]int{}}
	c.collect()
	slices.SortFunc(c.borders, netip.Addr.Compare)
	c.borders = slices.Compact(c.borders)
	for i, first := range c.borders {
		last := netipx.PrefixLastIP(everywhere[0])
		if !first.Is4() {
			last = netipx.PrefixLastIP(everywhere[1])
		}
		if i+1 < len(c.borders) && c.borders[i+1].Is4() == first.Is4() {
			last = c.borders[i+1].Prev()
		}
		c.add(netipx.IPRangeFrom(first, last))
	}
	l := newLikeness(c)
	for i := range c.classes {
		of := &c.classes[i]
		a := of.Address()
		if senders := s.SendersFrom(a); len(senders) == 1 && senders[0].Address() == a && len(of.Ranges) == 1 && of.Ranges[0].To() == a {
			of.Alike = l.number(senders[0])
		}
	}
	return c.classes
}

// divider finds the classes of addresses.
type divider struct {
	snapshot *Snapshot
	routes   []*routes
	bordered map[netip.Prefix]bool
	borders  []netip.Addr // where a class may begin
	ids      map[any]uint64
	key      []byte
	byKey    map[string]int // index in classes
	classes  []AddressClass
}

func (c *divider) border(prefixes ...netip.Prefix) {
	for _, p := range prefixes {
		p = p.Masked()
		if c.bordered[p] { // networks at a hub share thousands of routes
			continue
		}
		c.bordered[p] = true
		c.borders = append(c.borders, p.Addr())
		if next := netipx.PrefixLastIP(p).Next(); next.IsValid() {
			c.borders = append(c.borders, next)
		}
	}
}

func (c *divider) address(addresses ...packet.Addr) {
	for _, a := range addresses {
		c.border(host(a.Netip()))
	}
}

// reservedBlocks are those that package packet tells apart, see packet.Addr.
var reservedBlocks = func() (list []netip.Prefix) {
	for _, text := range []string{"0.0.0.0/0", "::/0", "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "224.0.0.0/24", "240.0.0.0/4", "255.255.255.255/32",
		"::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"} {
		list = append(list, netip.MustParsePrefix(text))
	}
	for scope := range uint8(16) { // of any flags
		for flags := range uint8(16) {
			a := netip.AddrFrom16([16]byte{0xff, flags<<4 | scope})
			list = append(list, netip.PrefixFrom(a, 16))
		}
	}
	return list
}()

// collect lists the routes, and all prefixes at which an answer may change.
func (c *divider) collect() {
	s := c.snapshot
	c.border(reservedBlocks...)
	for _, e := range embedding {
		c.border(e.prefix)
	}
	c.address(platformAddrs[:]...)
	c.routes = s.routes()
	for p := range s.boundary.refused.All() {
		c.border(p)
	}
	for p := range s.byAddress.All() {
		c.border(p)
	}
	for a := range s.public {
		c.address(a)
	}
	for a := range s.shared {
		c.address(a)
	}
	for _, n := range s.networks.list {
		for p := range n.hosts.All() {
			c.border(p)
		}
		for a := range n.frontends {
			c.address(a)
		}
		c.border(n.vnet.AddressSpace...)
		c.border(n.behindOwn...)
		c.border(n.notBehind...)
		for i := range n.peers {
			c.border(n.peers[i].space...)
		}
	}
	for _, r := range c.routes {
		for p := range r.hops.All() {
			c.border(p)
		}
	}
	for _, e := range s.endpoints.subnets {
		for a := range e.closedAt {
			c.address(a)
		}
	}
}

// sortedRoutes are the routes of a network's subnets, in the subnets' order.
func (n *network) sortedRoutes() (list []*routes) {
	for _, sub := range n.vnet.Subnets {
		if r := n.routesOf(sub); !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	for _, r := range n.routes { // those of private endpoints
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// id adds to the key which of several things an address leads to.
func (c *divider) id(of any) {
	id, known := c.ids[of]
	if !known {
		id = uint64(len(c.ids))
		c.ids[of] = id
	}
	c.key = binary.AppendUvarint(c.key, id)
}

func (c *divider) add(r netipx.IPRange) {
	a := r.From()
	if a.Is4In6() {
		return // such an address belongs to IPv4
	}
	c.describe(a, c.owner)
	at, known := c.byKey[string(c.key)]
	if !known {
		at = len(c.classes)
		c.byKey[string(c.key)] = at
		c.classes = append(c.classes, AddressClass{})
	}
	of := &c.classes[at]
	if n := len(of.Ranges); n > 0 && of.Ranges[n-1].To().Next() == r.From() {
		of.Ranges[n-1] = netipx.IPRangeFrom(of.Ranges[n-1].From(), r.To())
		return
	}
	of.Ranges = append(of.Ranges, r)
}

// describe makes the key of an address: all that a look-up finds for it. owner adds who has the address.
func (c *divider) describe(a netip.Addr, owner func(e *Endpoint, ok bool)) {
	s, of := c.snapshot, packet.AddrFrom(a)
	c.key = c.key[:0]
	c.id(a.Is4())
	for _, is := range []bool{of.IsMulticast(), of.IsLinkLocalMulticast(), of.IsBroadcast(), of.IsLinkLocal(), of.IsUnspecified(), of.IsReserved(),
		IsPlatform(of), s.boundary.refused.Contains(a)} {
		c.id(is)
	}
	for _, e := range embedding {
		c.id(e.prefix.Contains(a))
	}
	c.id(s.public[of])
	c.id(slices.IndexFunc(platformAddrs[:], func(p packet.Addr) bool { return p == of }))
	if len(s.shared[of]) > 0 {
		c.id(of)
	}
	owner(s.byAddress.Lookup(a))
	for _, n := range s.networks.list {
		c.describeIn(n, a, owner)
	}
	c.id(c) // the networks end here
	for _, r := range c.routes {
		h, _ := r.hops.Lookup(a)
		c.id(h)
	}
}

// describeIn adds to the key what a network has of an address; nothing where it has none of it.
func (c *divider) describeIn(n *network, a netip.Addr, owner func(e *Endpoint, ok bool)) {
	of := packet.AddrFrom(a)
	e, ok := n.hosts.Lookup(a)
	f, in, own, not := n.frontends[of], contain(n.vnet.AddressSpace, a), contain(n.behindOwn, a), contain(n.notBehind, a)
	if !ok && f == nil && !in && !own && !not && !slices.ContainsFunc(n.peers, func(p peer) bool { return contain(p.space, a) }) {
		return
	}
	c.id(n)
	owner(e, ok)
	c.id(e != nil && e.closedAt[of])
	c.id(f)
	c.id(in)
	c.id(own)
	c.id(not)
	for i := range n.peers {
		c.id(contain(n.peers[i].space, a))
	}
}

func (c *divider) owner(e *Endpoint, ok bool) {
	c.id(ok)
	c.id(e)
}

// SendersFrom are the endpoints of networks, gateways, the platform and the outside that may send from an
// address. Appliances, which send on what others have sent, are not among them.
func (s *Snapshot) SendersFrom(a netip.Addr) (list []*Endpoint) {
	src := packet.AddrFrom(a)
	if IsPlatform(src) {
		return []*Endpoint{s.platform}
	}
	for _, n := range s.networks.list {
		if contain(n.vnet.AddressSpace, a) {
			if e := n.member(src); e != nil {
				list = append(list, e)
			}
		}
		if n.gateway != nil {
			if e := s.behind(n, src); e != nil {
				list = append(list, e)
			}
		}
	}
	if e := s.external(src); e != nil {
		list = append(list, e)
	}
	return list
}

// FrontendPorts are the destination ports of TCP and UDP at which what an address leads to may change: where
// a rule of a load balancer begins or ends, in ascending order.
func (s *Snapshot) FrontendPorts(a netip.Addr) (borders []uint16) {
	of := packet.AddrFrom(a)
	add := func(f *frontend) {
		if f == nil {
			return
		}
		for i := range f.rules {
			borders = append(borders, f.rules[i].borders()...)
		}
	}
	add(s.public[of])
	for _, n := range s.networks.list {
		add(n.frontends[of])
	}
	slices.Sort(borders)
	return slices.Compact(borders)
}

// borders are the first ports of the parts in which a rule leads to the same.
func (r *frontendRule) borders() (list []uint16) {
	end := int(r.last)
	if r.perPort { // one backend a port
		end = min(int(r.first)+len(r.backends)-1, end)
	}
	list = append(list, r.first)
	if r.perPort {
		for p := int(r.first) + 1; p <= end; p++ {
			list = append(list, uint16(p))
		}
		if end < int(r.last) {
			list = append(list, uint16(end+1))
		}
	}
	if r.last < 65535 {
		list = append(list, r.last+1)
	}
	return list
}
