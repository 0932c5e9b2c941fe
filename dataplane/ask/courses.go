package ask

import (
	"encoding/binary"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// course is how a packet goes to its end, apart from the rules.
type course struct {
	legs   []courseLeg
	chosen bool
	// drop is what refuses the packet at the last leg: before its sender's rules are asked, or behind.
	drop   packet.Drop
	before bool
}

type courseLeg struct {
	src  *topology.Endpoint
	sent packet.Tuple
	way  topology.Way
	why  packet.Drop // of the way
	hop  topology.NextHop
}

// maxCourses bounds the ways of one packet: load balancers may choose again and again.
const maxCourses = 1000

// courses are all ways of a packet that src sends. more tells that there are others.
func (b *Between) courses(src *topology.Endpoint, p packet.Packet) (list []course, more bool) {
	open := []course{{legs: []courseLeg{{src: src, sent: p.Tuple}}}}
	for len(open) > 0 {
		c := open[len(open)-1]
		open = open[:len(open)-1]
		if len(list)+len(open) > maxCourses {
			return list, true
		}
		next, done := b.onward(c, p)
		more = more || len(next)+len(done) > maxCourses
		list, open = append(list, done...), append(open, next...)
	}
	return list, more
}

// onward takes the last leg of a course. next are those that go on from an appliance.
func (b *Between) onward(c course, p packet.Packet) (next, done []course) {
	s := b.snapshot
	leg := &c.legs[len(c.legs)-1]
	p.Tuple = leg.sent
	src, drop := admitted(s, leg.src, &p.Tuple)
	if drop == packet.NotDropped && len(c.legs) > MaxLegs {
		drop = packet.DropNoRoute
	}
	if drop != packet.NotDropped {
		c.drop, c.before = drop, true
		return nil, []course{c}
	}
	leg.src = src
	leg.hop = s.NextHop(leg.src, p.Dst.Netip())
	ways, _ := s.Ways(leg.src, &p.Tuple, maxCourses)
	for i := range ways {
		one := course{legs: append([]courseLeg{}, c.legs...), chosen: c.chosen || len(ways) > 1}
		var d verdict.Decision
		before, behind := d.Course(s, leg.src, &p, &ways[i])
		one.last().way, one.last().why = d.Way, ways[i].Drop
		way := &one.last().way
		switch {
		case before != packet.NotDropped:
			one.drop, one.before = before, true
		case behind != packet.NotDropped:
			one.drop = behind
		case !way.Floating && !has(way.To, &way.Arrives):
			one.legs = append(one.legs, courseLeg{src: way.To, sent: way.Arrives})
			next = append(next, one)
			continue
		}
		done = append(done, one)
	}
	return next, done
}

func (c *course) last() *courseLeg { return &c.legs[len(c.legs)-1] }

// end is the endpoint that a course leads to; nil: none.
func (c *course) end() *topology.Endpoint { return c.last().way.To }

// arrives reports that a course leads to an address of its end, whatever refuses the packet there.
func (c *course) arrives() bool {
	end := c.end()
	return end != nil && (c.last().way.Floating || has(end, &c.last().way.Arrives))
}

// reaches is whose address a packet is sent to: the end's, or the sender's own; nil: it does not get there.
func (c *course) reaches() *topology.Endpoint {
	switch {
	case c.drop == packet.DropLand:
		return c.last().src
	case c.arrives():
		return c.end()
	}
	return nil
}

// arrivesAt is the port at which packets arrive at the end; translated says that they were sent to another one.
func (c *course) arrivesAt() (port uint16, translated bool) {
	sent := c.legs[0].sent.DstPort
	if c.end() == nil {
		return sent, false
	}
	port = c.last().way.Arrives.DstPort
	return port, port != sent
}

// redirects reports that the address that is asked stands for the end.
func (c *course) redirects() bool {
	l := c.last()
	return l.way.Floating || l.way.To != nil && l.way.Arrives.Dst != l.sent.Dst
}

// dependsOnReplies reports that replies may take another way: a load balancer chooses again for them, and its choice
// decides whether they are translated back. A packet that is refused for another reason has no replies.
func (c *course) dependsOnReplies() bool {
	way := &c.last().way
	refused := c.drop != packet.NotDropped && c.drop != packet.DropAsymmetric
	return len(c.legs) > 1 && c.chosen && !refused && (way.Translated || way.Floating)
}

// sees is what the receiver of a leg sees of its packets, beside what they were sent with.
func (l *courseLeg) sees() (s analysis.Seen) {
	w := &l.way
	switch {
	case len(w.Ports) > 0:
		for _, p := range w.Ports {
			s.Sources = append(s.Sources, hostPrefix(p.Address)...)
			s.SourcePorts = append(s.SourcePorts, ruleset.PortRange{First: p.First, Last: p.Last})
		}
	case w.Arrives.Src != l.sent.Src:
		s.Sources = hostPrefix(w.Arrives.Src)
	}
	if w.Arrives.Dst != l.sent.Dst {
		s.Destinations = hostPrefix(w.Arrives.Dst)
	}
	if w.Arrives.DstPort != l.sent.DstPort {
		s.DestinationPorts = []ruleset.PortRange{{First: w.Arrives.DstPort, Last: w.Arrives.DstPort}}
	}
	return s
}

// asked are the chains of a course, in their order, and whose they are.
func (b *Between) asked(c *course) (asked []analysis.Asked, of []chainOwner) {
	add := func(e *topology.Endpoint, d ruleset.Direction, sees analysis.Seen) {
		chain := b.chain(e, d)
		asked = append(asked, analysis.Asked{Chain: chain.Lists, Sees: sees})
		of = append(of, chainOwner{e, d, chain})
	}
	for i := range c.legs {
		leg := &c.legs[i]
		last := i == len(c.legs)-1
		if last && c.before {
			break
		}
		add(leg.src, ruleset.Outbound, analysis.Seen{})
		if !last || c.drop == packet.NotDropped {
			add(leg.way.To, ruleset.Inbound, leg.sees())
		}
	}
	return asked, of
}

// chainOwner is a chain that was asked and whose it is.
type chainOwner struct {
	endpoint  *topology.Endpoint
	direction ruleset.Direction
	chain     *verdict.Chain
}

// chain is a chain on the way, once for an endpoint and direction.
func (b *Between) chain(e *topology.Endpoint, d ruleset.Direction) *verdict.Chain {
	key := chainFor{e, d}
	c := b.byEndpoint[key]
	if c == nil {
		c = b.chains.OnTheWay(e, d)
		b.byEndpoint[key] = c
	}
	return c
}

type chainFor struct {
	endpoint  *topology.Endpoint
	direction ruleset.Direction
}

// key is equal for courses whose packets can be judged together.
func (b *Between) key(c *course) string {
	var key []byte
	number := func(n uint64) { key = binary.AppendUvarint(key, n) }
	asked, _ := b.asked(c)
	for i := range asked {
		for _, list := range asked[i].Chain {
			number(b.number(list))
		}
		for _, prefixes := range [][]netip.Prefix{asked[i].Sees.Sources, asked[i].Sees.Destinations} {
			number(uint64(len(prefixes)))
			for _, p := range prefixes {
				key = append(key, p.String()...)
			}
		}
		for _, ports := range [][]ruleset.PortRange{asked[i].Sees.SourcePorts, asked[i].Sees.DestinationPorts} {
			number(uint64(len(ports)))
			for _, p := range ports {
				number(uint64(p.First)<<16 | uint64(p.Last))
			}
		}
	}
	number(uint64(len(c.legs)))
	for i := range c.legs {
		l := &c.legs[i]
		number(b.number(l.hop))
		if i > 0 {
			number(b.number(l.src))
		}
		if to := l.way.To; i == len(c.legs)-1 && to != nil {
			number(uint64(b.snapshot.KindOf(to)))
			key = append(key, bit(l.way.Floating), bit(l.way.Translated))
		}
	}
	return string(append(key, byte(c.drop), bit(c.before), bit(c.chosen)))
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// number numbers things as they come.
func (b *Between) number(of any) uint64 {
	n, known := b.numbers[of]
	if !known {
		n = uint64(len(b.numbers))
		b.numbers[of] = n
	}
	return n
}

// leg is a leg for people; via is whoever sends the packets on.
func (b *Between) leg(l *courseLeg, via *topology.Endpoint) Leg {
	var leg Leg
	if l.way.Arrives != (packet.Tuple{}) { // else the packet is refused before it has a way
		leg.Translations = explain(b.snapshot, l.src, &l.sent, &l.way)
	}
	if l.src.VirtualNetwork() != nil {
		leg.NextHop = string(l.hop.Type)
	}
	if l.hop.Table != nil {
		leg.RouteTable = l.hop.Table.Name
	}
	if l.hop.Type == policy.HopVirtualAppliance {
		leg.Appliance = l.hop.Address.String()
	}
	if via != nil {
		leg.Via = b.name(via)
	}
	return leg
}
