package simulate

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// The model knows what may pass, in the slowest and plainest way. It shares packet decoding with the
// engine and nothing else: not its rules, its ways, its flows or its timeouts.

// sent is a packet that a host has sent, and what became of it.
type sent struct {
	number  uint64
	from    int // host
	at      int // its attachment
	when    time.Duration
	bytes   []byte // without a header for offload
	drop    packet.Drop
	p       packet.Packet
	quoted  packet.Quote // of an ICMP error
	quotes  bool
	garbled bool // its checksums may be wrong
	arrival *arrival
}

// arrival is a packet as it came out.
type arrival struct {
	at    int
	bytes []byte
	p     packet.Packet
}

func (s *sent) String() string {
	text := fmt.Sprintf("%v packet %d of host %d at %d: %v", s.when, s.number, s.from, s.at, s.p.Tuple)
	switch s.p.Proto {
	case packet.ProtoTCP:
		text += fmt.Sprintf(" flags %#x", s.p.TCPFlags)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		text += fmt.Sprintf(" type %d", s.p.ICMPType)
	}
	if s.quotes {
		text += fmt.Sprintf(" about %v", s.quoted.Tuple)
	}
	if f := s.p.Fragment; f.IsFragment() {
		text += fmt.Sprintf(" fragment %d of %d-%d", f.ID, f.Start, f.End)
	}
	if s.arrival != nil {
		text += fmt.Sprintf(", arrived at %d: %v", s.arrival.at, s.arrival.p.Tuple)
	}
	return text
}

// key is a tuple as it is sent from an attachment.
type key struct {
	at    int
	tuple packet.Tuple
}

// conversation is what two hosts have begun, with the rules' consent.
type conversation struct {
	ends    [2]key // what each end sends; the second one is what answers the first
	known   bool   // the second end is: else the first packet may have been lost behind the engine
	hosts   [2]int
	last    time.Duration
	spoken  [2]bool // each end has sent something that passed
	began   [2]bool // each end has sent what may have begun the engine's flow
	pending bool    // a change of rules asks to judge it again
	unsure  bool    // it was judged while one plan took another's place
	cut     bool
}

func (c *conversation) String() string {
	return fmt.Sprintf("%+v", *c)
}

// datagram is one whose first fragment has passed.
type datagram struct {
	first *sent
	c     *conversation // nil: none
	maybe bool          // it may have been lost behind the engine
	spans [][2]uint16
}

type datagramKey struct {
	at       int
	src, dst packet.Addr
	id       uint32
	proto    uint8
}

// model says what may pass.
type model struct {
	now       time.Duration
	timeouts  conntrack.Timeouts
	fragments time.Duration // how long a datagram is remembered
	plans     []*plan       // in force; two while one takes the other's place
	by        map[key]*conversation
	all       []*conversation
	ending    []*conversation // see supersede
	datagrams map[datagramKey]*datagram
	faulty    func(at int) bool // the attachment may not take all that is written
	passed    map[string]int    // what was carried, by explanation
}

func newModel(t conntrack.Timeouts, fragments time.Duration, faulty func(int) bool) *model {
	return &model{timeouts: t, fragments: fragments, by: map[key]*conversation{}, datagrams: map[datagramKey]*datagram{}, faulty: faulty, passed: map[string]int{}}
}

// --- rules

// defaults are Azure's rules at the end of every group.
var defaults = [2][]ruleset.Rule{
	ruleset.Inbound: {
		{Access: ruleset.Allow, Source: ruleset.Peer{Tag: ruleset.TagVirtualNetwork}, Destination: ruleset.Peer{Tag: ruleset.TagVirtualNetwork}},
		{Access: ruleset.Allow, Source: ruleset.Peer{Tag: ruleset.TagAzureLoadBalancer}, Destination: ruleset.Peer{Any: true}},
		{Access: ruleset.Deny, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}},
	},
	ruleset.Outbound: {
		{Access: ruleset.Allow, Source: ruleset.Peer{Tag: ruleset.TagVirtualNetwork}, Destination: ruleset.Peer{Tag: ruleset.TagVirtualNetwork}},
		{Access: ruleset.Allow, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Tag: ruleset.TagInternet}},
		{Access: ruleset.Deny, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}},
	},
}

func isPeer(p *ruleset.Peer, a netip.Addr) bool {
	inside := space4.Contains(a) || space6.Contains(a)
	switch {
	case p.Any:
		return true
	case p.Tag == ruleset.TagVirtualNetwork:
		return inside
	case p.Tag == ruleset.TagInternet:
		return !inside && !a.IsPrivate()
	}
	return slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
}

func hasPort(list []ruleset.PortRange, port uint16) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(r ruleset.PortRange) bool { return r.First <= port && port <= r.Last })
}

// groupAllows goes through the rules of a group, one after the other.
func groupAllows(g *ruleset.NSG, d ruleset.Direction, t *packet.Tuple, icmpType uint8) bool {
	var rules []*ruleset.Rule
	for i := range g.Rules {
		if g.Rules[i].Direction == d {
			rules = append(rules, &g.Rules[i])
		}
	}
	slices.SortFunc(rules, func(a, b *ruleset.Rule) int { return a.Priority - b.Priority })
	for i := range defaults[d] {
		rules = append(rules, &defaults[d][i])
	}
	port, sport := t.DstPort, t.SrcPort
	icmp := t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6
	if icmp {
		port, sport = uint16(icmpType), 0
	}
	for _, r := range rules {
		ofProtocol := r.Protocol == ruleset.AnyProtocol || r.Protocol == ruleset.TCP && t.Proto == packet.ProtoTCP ||
			r.Protocol == ruleset.UDP && t.Proto == packet.ProtoUDP || r.Protocol == ruleset.ICMP && icmp
		if ofProtocol && isPeer(&r.Source, t.Src.Netip()) && isPeer(&r.Destination, t.Dst.Netip()) &&
			hasPort(r.SourcePorts, sport) && hasPort(r.DestinationPorts, port) {
			return r.Access == ruleset.Allow
		}
	}
	return false
}

// allows reports that every group on the way lets a packet pass: as it was sent, and as it arrives.
func (p *plan) allows(from, to int, sent, arrives *packet.Tuple, icmpType uint8) bool {
	for _, g := range p.groupsOf(from) {
		if g != nil && !groupAllows(g, ruleset.Outbound, sent, icmpType) {
			return false
		}
	}
	for _, g := range p.groupsOf(to) {
		if g != nil && !groupAllows(g, ruleset.Inbound, arrives, icmpType) {
			return false
		}
	}
	return true
}

// --- ways

// admits reports that a host at an attachment may have an address.
func (p *plan) admits(from int, a netip.Addr) bool {
	h := &hosts[from]
	switch {
	case h.subnet < 0:
		return !space4.Contains(a) && !space6.Contains(a) && !a.IsPrivate() && !p.isPublic(a) && !a.IsLoopback()
	case h.subnet == shared:
		return subnetPrefixes[shared][0].Contains(a) || subnetPrefixes[shared][1].Contains(a)
	}
	return a == p.v4(from) || a == h.v6
}

// sender is the host at the sender's attachment that has an address: behind one of a subnet there are several.
func (p *plan) sender(from int, a packet.Addr) int {
	if hosts[from].subnet == shared {
		for i := firstShared; i < firstTwin; i++ {
			if packet.AddrFrom(hosts[i].v4) == a || packet.AddrFrom(hosts[i].v6) == a {
				return i
			}
		}
		return firstTwin - 1 // like anybody there without a NIC
	}
	return from
}

func (p *plan) isPublic(a netip.Addr) bool {
	if a == gatewayOf[behindGateway] && p.gateway || a == gatewayOf[twin] || a == frontend && p.balancer {
		return true
	}
	for i := range firstOutside {
		if x, ok := p.public(i); ok && x == a {
			return true
		}
	}
	return false
}

// member is the host of a network with an address.
func (p *plan) member(network int, a packet.Addr) (int, bool) {
	for i := range firstOutside {
		if hosts[i].network() == network && (p.addr(i, false) == a || p.addr(i, true) == a) {
			return i, true
		}
	}
	return 0, false
}

// reaches reports that a packet which from sends as one tuple may arrive at an attachment as another,
// whatever the rules say, and at which host. Nothing may: it is the way that is in question.
func (p *plan) reaches(from int, sent *packet.Tuple, at int, arrives *packet.Tuple) (to int, ok bool) {
	src, dst := &hosts[from], sent.Dst.Netip()
	if arrives.Proto != sent.Proto {
		return 0, false
	}
	if src.subnet >= 0 && (space4.Contains(dst) || space6.Contains(dst)) {
		to, ok = p.member(src.network(), sent.Dst)
		if subnetPrefixes[shared][0].Contains(dst) || subnetPrefixes[shared][1].Contains(dst) {
			if !ok && src.network() == 0 { // nobody, but behind the subnet's attachment
				to, ok = firstTwin-1, true
			}
		}
		return to, ok && at == hosts[to].at && *arrives == *sent
	}
	want := *sent
	switch {
	case p.isPublic(dst):
		found := false
		for i := range firstOutside {
			a, has := p.public(i)
			backend := dst == frontend && i < numBackends && sent.Proto == packet.ProtoTCP && sent.DstPort == frontendPort
			if (has && a == dst || backend) && at == hosts[i].at && arrives.Dst == p.addr(i, false) {
				to, found = i, true
				want.Dst = arrives.Dst
				if backend {
					want.DstPort = backendPort
				}
			}
		}
		if !found {
			return 0, false
		}
	case at == atOutside && src.subnet >= 0:
		to = firstOutside
	default: // the internet reaches no private address, and does not carry for itself
		return 0, false
	}
	if src.subnet >= 0 {
		a, own, has := p.out(from)
		if !has || !sent.Src.Is4() {
			return 0, false
		}
		want.Src = packet.AddrFrom(a)
		if !own {
			want.SrcPort = arrives.SrcPort
		}
	}
	return to, want == *arrives
}

// closed reports that a host lets nothing in by a public address, because no group judges it.
func (p *plan) closed(from, to int, sent, arrives *packet.Tuple) bool {
	return hosts[to].subnet >= 0 && sent.Dst != arrives.Dst && p.groupsOf(to) == [2]*ruleset.NSG{}
}

// mayBegin reports that a packet can be the first of a conversation.
func (s *sent) mayBegin() bool {
	switch s.p.Proto {
	case packet.ProtoTCP:
		switch s.p.TCPFlags & (packet.SYN | packet.ACK | packet.RST | packet.FIN) {
		case packet.SYN, packet.ACK, packet.FIN | packet.ACK:
			return true
		}
		return false
	case packet.ProtoICMP:
		return s.p.ICMPType == 8 || s.p.ICMPType == 13
	case packet.ProtoICMPv6:
		return s.p.ICMPType == 128
	}
	return true
}

// --- conversations

// life is how long a conversation may be silent.
func (m *model) life(c *conversation) time.Duration {
	answered, t := c.spoken[0] && c.spoken[1], m.timeouts
	switch proto := c.ends[0].tuple.Proto; {
	case proto == packet.ProtoTCP && !answered:
		return t.TCPSyn
	case proto == packet.ProtoTCP:
		return max(t.TCPSyn, t.TCPEstablished, t.TCPClosing)
	case proto == packet.ProtoUDP && !answered && c.known && c.ends[0].tuple == c.ends[1].tuple.Reverse():
		return t.UDPOneWay
	case proto == packet.ProtoUDP:
		return max(t.UDPTwoWay, t.TCPEstablished) // a translated one has its translation's
	case proto == packet.ProtoICMP || proto == packet.ProtoICMPv6:
		return t.ICMP
	}
	return t.Other
}

// live reports that a conversation is not over. The engine's clock counts in hundredths of a second.
func (m *model) live(c *conversation) bool {
	return c != nil && !c.cut && m.now-c.last < m.life(c)+2*conntrack.TickLength
}

// find is the live conversation that a packet belongs to, and which end has sent it.
func (m *model) find(k key) (c *conversation, end int, ok bool) {
	if c = m.by[k]; !m.live(c) {
		return nil, 0, false
	}
	if c.ends[0] == k {
		return c, 0, true
	}
	return c, 1, true
}

// lost finds a conversation whose first packet may have been lost behind the engine, and that an end answers.
func (m *model) lost(s *sent) *conversation {
	for _, c := range m.all {
		if c.known || !m.live(c) {
			continue
		}
		answered := s.p.Tuple.Reverse()
		for _, p := range m.plans {
			if to, ok := p.reaches(c.hosts[0], &c.ends[0].tuple, s.at, &answered); ok &&
				(s.arrival == nil || s.arrival.at == c.ends[0].at && s.arrival.p.Tuple == c.ends[0].tuple.Reverse()) {
				c.hosts[1] = to
				return c
			}
		}
	}
	return nil
}

// settle notes the second end of a conversation.
func (m *model) settle(c *conversation, k key, exact bool) {
	if c.known && c.ends[1] == k {
		return
	}
	if old := m.by[k]; old != nil && old != c {
		m.supersede(old, exact)
	}
	c.ends[1], c.known = k, true
	m.by[k] = c
}

// supersede ends a conversation whose place another one takes. Among packets that were carried at once its last
// ones may be judged later.
func (m *model) supersede(c *conversation, exact bool) {
	if exact {
		c.cut = true
	} else if m.live(c) {
		m.ending = append(m.ending, c)
	}
}

// ended finds a conversation that has ended within the packets that were carried at once.
func (m *model) ended(k key, a *arrival) (*conversation, int) {
	for _, c := range m.ending {
		for end, other := range []key{c.ends[1], c.ends[0]} {
			if c.known && c.ends[end] == k && other.at == a.at && other.tuple == a.p.Reverse() {
				return c, end
			}
		}
	}
	return nil, 0
}

// settled ends what has ended within the packets that were carried at once.
func (m *model) settled() {
	for _, c := range m.ending {
		c.cut = true
	}
	m.ending = nil
}

// begin notes a conversation that the rules have let begin; answers nil: how it arrives is not known.
func (m *model) begin(s *sent, from, to int, answers *key, exact bool) *conversation {
	k := key{s.at, s.p.Tuple}
	if old := m.by[k]; old != nil {
		m.supersede(old, exact)
	}
	c := &conversation{hosts: [2]int{from, to}, last: m.now, unsure: len(m.plans) > 1}
	c.ends[0] = k
	c.spoken[0], c.began[0] = true, true
	m.by[k] = c
	m.all = append(m.all, c)
	if answers != nil {
		m.settle(c, *answers, exact)
	}
	return c
}

// tidy forgets what is over.
func (m *model) tidy() {
	m.all = slices.DeleteFunc(m.all, func(c *conversation) bool {
		if m.live(c) {
			return false
		}
		for _, k := range c.ends {
			if m.by[k] == c {
				delete(m.by, k)
			}
		}
		return true
	})
	for k, d := range m.datagrams {
		if m.now-d.first.when > m.fragments+time.Second {
			delete(m.datagrams, k)
		}
	}
}

// replace makes a plan follow another: what has lost its way ends, and what a group with flushConnection has
// to judge is judged again.
func (m *model) replace(next *plan) {
	old := m.plans[0]
	m.plans = []*plan{next}
	var due [numHosts]bool
	for h := range firstOutside {
		due[h] = flushes(old, next, h)
	}
	for _, c := range m.all {
		if c.cut {
			continue
		}
		if !next.admits(c.hosts[0], c.ends[0].tuple.Src.Netip()) {
			c.cut = true
			continue
		}
		if !c.unsure && (due[c.hosts[0]] || c.known && due[c.hosts[1]]) {
			c.pending = true
		}
		c.unsure = false
		if c.known {
			arrives := c.ends[1].tuple.Reverse()
			if _, ok := next.reaches(c.hosts[0], &c.ends[0].tuple, c.ends[1].at, &arrives); !ok {
				c.cut = true
			}
		}
	}
}

// flushes reports that a change asks to judge a host's flows again, beyond doubt.
func flushes(old, next *plan, h int) bool {
	before, after := old.groupsOf(h), next.groupsOf(h)
	for _, g := range after {
		if g == nil || !g.FlushConnection {
			continue
		}
		was := (*ruleset.NSG)(nil)
		for _, b := range before {
			if b != nil && b.ID == g.ID {
				was = b
			}
		}
		if was == nil || !was.FlushConnection || !slices.EqualFunc(was.Rules, g.Rules, sameRule) {
			return true
		}
	}
	return slices.ContainsFunc(before[:], func(b *ruleset.NSG) bool {
		return b != nil && b.FlushConnection && !slices.ContainsFunc(after[:], func(g *ruleset.NSG) bool { return g != nil && g.ID == b.ID })
	})
}

// sameRule is false only for rules that decide something differently.
func sameRule(a, b ruleset.Rule) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
