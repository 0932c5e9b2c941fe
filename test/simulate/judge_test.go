package simulate

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// judge explains what became of a packet, and remembers what follows from it. The error says why it should
// not have been delivered. exact means that all packets before it have been judged and no later one
// was carried.
func (m *model) judge(s *sent, exact bool) error {
	if s.drop != packet.NotDropped {
		if s.arrival != nil {
			return fmt.Errorf("it is malformed: %v", s.drop)
		}
		return nil
	}
	admitted := false
	for _, p := range m.plans {
		admitted = admitted || p.admits(s.from, s.p.Src.Netip())
	}
	if !admitted {
		if s.arrival != nil {
			return errors.New("its source is spoofed")
		}
		return nil
	}
	switch {
	case s.p.Fragment.IsLater():
		return m.judgeLater(s)
	case s.p.IsICMPError():
		return m.judgeError(s)
	}
	c, err := m.judgeFlow(s, exact)
	if err == nil && s.p.Fragment.IsFragment() {
		m.remember(s, c)
	}
	return err
}

// remember notes the first fragment of a datagram.
func (m *model) remember(s *sent, c *conversation) {
	k := s.datagram()
	if s.arrival == nil {
		if c == nil || m.datagrams[k] != nil {
			return
		}
		m.datagrams[k] = &datagram{first: s, c: c, maybe: true}
		return
	}
	m.datagrams[k] = &datagram{first: s, c: c, spans: [][2]uint16{{s.p.Fragment.Start, s.p.Fragment.End}}}
}

func (s *sent) datagram() datagramKey {
	return datagramKey{s.at, s.p.Src, s.p.Dst, s.p.Fragment.ID, s.p.Fragment.Proto}
}

// judgeLater is judge for a fragment that follows its datagram's first one.
func (m *model) judgeLater(s *sent) error {
	if s.arrival == nil {
		return nil
	}
	d := m.datagrams[s.datagram()]
	switch {
	case d == nil:
		return errors.New("the first fragment of its datagram did not pass")
	case m.now-d.first.when > m.fragments:
		return errors.New("the first fragment of its datagram is forgotten")
	case d.c != nil && d.c.cut && !m.live(m.by[d.c.ends[0]]): // another one may have taken its place
		return errors.New("its conversation was cut")
	case !d.maybe && (d.first.arrival.at != s.arrival.at || d.first.arrival.p.Src != s.arrival.p.Src || d.first.arrival.p.Dst != s.arrival.p.Dst):
		return fmt.Errorf("the first fragment went another way: %v", d.first)
	}
	f := s.p.Fragment
	for _, x := range d.spans {
		if f.Start < x[1] && x[0] < f.End {
			return fmt.Errorf("it overlaps %v of its datagram", x)
		}
	}
	d.spans = append(d.spans, [2]uint16{f.Start, f.End})
	m.passed["fragment"]++
	return nil
}

// judgeError is judge for an ICMP error: it is about a live conversation, or the rules let it pass by itself.
func (m *model) judgeError(s *sent) error {
	a := s.arrival
	if a == nil {
		return nil
	}
	var about *conversation
	if s.quotes {
		if s.quoted.Fragment.IsLater() {
			for _, c := range m.all {
				for end := range c.ends {
					k := c.ends[1-end]
					if m.live(c) && c.known && k.at == s.at && k.tuple.Src == s.quoted.Dst && k.tuple.Dst == s.quoted.Src && a.at == c.ends[end].at {
						m.passed["error about a fragment"]++
						return nil
					}
				}
			}
		} else if c, end, ok := m.find(key{s.at, s.quoted.Tuple.Reverse()}); ok {
			about = c
			if other := c.ends[1-end]; !c.known || a.at == other.at && a.p.Dst == other.tuple.Src {
				m.passed["error"]++
				return m.remembered(s, c)
			}
		} else if c := m.lostQuote(s); c != nil {
			return m.remembered(s, c)
		}
	}
	for _, p := range m.plans {
		from := p.sender(s.from, s.p.Src)
		if to, ok := p.reaches(from, &s.p.Tuple, a.at, &a.p.Tuple); ok && s.p.Tuple == a.p.Tuple && p.allows(from, to, &s.p.Tuple, &a.p.Tuple, s.p.ICMPType) {
			m.passed["error by rules"]++
			return m.remembered(s, nil)
		}
	}
	return fmt.Errorf("it is about no conversation, and no rules let it pass; %v", about)
}

func (m *model) remembered(s *sent, c *conversation) error {
	if s.p.Fragment.IsFragment() {
		m.remember(s, c)
	}
	return nil
}

func (m *model) lostQuote(s *sent) *conversation {
	for _, c := range m.all {
		if !c.known && m.live(c) && c.ends[0].at == s.arrival.at && s.arrival.p.Dst == c.ends[0].tuple.Src {
			return c
		}
	}
	return nil
}

// judgeFlow is judge for a packet with ports, or of a protocol without.
func (m *model) judgeFlow(s *sent, exact bool) (*conversation, error) {
	k, a := key{s.at, s.p.Tuple}, s.arrival
	c, end, live := m.find(k)
	if !live {
		if c = m.lost(s); c != nil {
			end, live = 1, true
			if a != nil {
				m.settle(c, k, exact)
			}
		}
	}
	if live && !c.known && end == 0 && a != nil { // its way is seen now
		for _, p := range m.plans {
			if to, ok := p.reaches(c.hosts[0], &s.p.Tuple, a.at, &a.p.Tuple); ok {
				c.hosts[1] = to
				m.settle(c, key{a.at, a.p.Reverse()}, exact)
			}
		}
	}
	to, begins := m.begins(s)
	if live && begins {
		c.began[end] = true
	}
	if live && exact && c.pending && !c.began[1-end] && c.known && c.began[end] && s.p.TCPFlags&(packet.SYN|packet.ACK) != packet.SYN {
		// Only this end can have begun it: its packets are judged again.
		p := m.plans[0]
		other := c.ends[1-end]
		arrives := other.tuple.Reverse()
		if !p.allows(c.hosts[end], c.hosts[1-end], &k.tuple, &arrives, s.p.ICMPType) {
			c.cut = true
			if a != nil {
				return nil, fmt.Errorf("a group with flushConnection has changed, and the rules deny it now; %v", c)
			}
			return nil, nil
		}
	}
	if live && exact && c.began[end] { // it has been judged again, even if it was dropped for another reason then
		c.pending = false
	}
	if live && !exact { // whether it was judged again, and by which plan, is not known
		c.pending, c.unsure = false, len(m.plans) > 1
	}
	if a == nil {
		return m.judgeLost(s, c, end, live, begins, exact), nil
	}
	if live {
		other := c.ends[1-end]
		if a.at == other.at && a.p.Tuple == other.tuple.Reverse() {
			c.last, c.spoken[end] = m.now, true
			m.passed["conversation"]++
			return c, m.unharmed(s)
		}
	}
	if c, end := m.ended(k, a); c != nil {
		c.last, c.spoken[end] = m.now, true
		m.passed["conversation"]++
		return c, m.unharmed(s)
	}
	if !begins {
		return nil, fmt.Errorf("no rules let it pass, and it belongs to no conversation; %v", m.by[k])
	}
	m.passed["rules"]++
	answers := key{a.at, a.p.Reverse()}
	return m.begin(s, m.plans[0].sender(s.from, s.p.Src), to, &answers, exact), m.unharmed(s)
}

// begins reports that the rules let a packet begin a conversation, and names its receiver. A packet that arrived must
// have come by that way. For another one it is enough that there may be a way.
func (m *model) begins(s *sent) (to int, ok bool) {
	if !s.mayBegin() {
		return 0, false
	}
	for _, p := range m.plans {
		from := p.sender(s.from, s.p.Src)
		if a := s.arrival; a != nil {
			to, ok = p.reaches(from, &s.p.Tuple, a.at, &a.p.Tuple)
			if ok && !p.closed(from, to, &s.p.Tuple, &a.p.Tuple) && p.allows(from, to, &s.p.Tuple, &a.p.Tuple, s.p.ICMPType) {
				return to, true
			}
			continue
		}
		for _, g := range p.guesses(from, &s.p.Tuple) {
			if to, ok := p.reaches(from, &s.p.Tuple, g.at, &g.tuple); ok && !p.closed(from, to, &s.p.Tuple, &g.tuple) && p.allows(from, to, &s.p.Tuple, &g.tuple, s.p.ICMPType) {
				return to, true
			}
		}
	}
	return 0, false
}

// guesses are how a packet can arrive, with its own source port where one is chosen for it.
func (p *plan) guesses(from int, t *packet.Tuple) (list []key) {
	out := *t
	if a, _, ok := p.out(from); ok && hosts[from].subnet >= 0 {
		out.Src = packet.AddrFrom(a)
	}
	list = []key{{atOutside, out}}
	for i := range firstOutside {
		list = append(list, key{hosts[i].at, *t})
		in := out
		in.Dst = p.addr(i, false)
		list = append(list, key{hosts[i].at, in})
		in.DstPort = backendPort
		list = append(list, key{hosts[i].at, in})
	}
	return list
}

// judgeLost notes what a packet that did not come out may have done in the engine: its flow may live on or have
// begun, and the receiver's device may have refused it.
func (m *model) judgeLost(s *sent, c *conversation, end int, live, begins, exact bool) *conversation {
	switch {
	case live:
		if to := c.ends[1-end].at; !c.known || m.faulty(to) {
			c.last, c.spoken[end] = m.now, true
			return c
		}
		if !begins || !m.losesWay(c) {
			return nil
		}
	case !begins:
		return nil
	}
	if !m.anyFaulty() {
		return nil
	}
	return m.begin(s, m.plans[0].sender(s.from, s.p.Src), 0, nil, exact)
}

// losesWay reports that the plan which comes meanwhile ends a conversation, so that its next packet may begin another.
func (m *model) losesWay(c *conversation) bool {
	if len(m.plans) == 1 {
		return false
	}
	arrives := c.ends[1].tuple.Reverse()
	_, ok := m.plans[1].reaches(c.hosts[0], &c.ends[0].tuple, c.ends[1].at, &arrives)
	return !ok
}

func (m *model) anyFaulty() bool {
	for at := range numAttachments {
		if m.faulty(at) {
			return true
		}
	}
	return false
}

// unharmed holds the bytes that arrived to those that were sent: only translation may change anything, and
// checksums stay right.
func (m *model) unharmed(s *sent) error {
	a := s.arrival
	if a.p.Tuple == s.p.Tuple {
		if !bytes.Equal(a.bytes, s.bytes) {
			return fmt.Errorf("its bytes have changed: %x", a.bytes)
		}
		return nil
	}
	if len(a.bytes) != len(s.bytes) || !bytes.Equal(a.bytes[a.p.PayloadOffset:], s.bytes[s.p.PayloadOffset:]) {
		return fmt.Errorf("its payload has changed: %x", a.bytes)
	}
	if !s.garbled && !s.p.Fragment.IsFragment() && !checksumsHold(a.bytes, &a.p) {
		return fmt.Errorf("its checksums are wrong: %x", a.bytes)
	}
	return nil
}

// checksumsHold reports that the checksums of a whole IPv4 packet are right.
func checksumsHold(b []byte, p *packet.Packet) bool {
	if !p.Src.Is4() {
		return true
	}
	sum := func(parts ...[]byte) (s uint32) {
		for _, x := range parts {
			for i := range x {
				s += uint32(x[i]) << (8 - i%2*8)
			}
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return s
	}
	transport := b[p.HeaderLen:p.Len]
	if sum(b[:p.HeaderLen]) != 0xffff {
		return false
	}
	switch p.Proto {
	case packet.ProtoICMP:
		return sum(transport) == 0xffff
	case packet.ProtoTCP, packet.ProtoUDP:
		return sum(b[12:20], []byte{0, p.Proto, byte(len(transport) >> 8), byte(len(transport))}, transport) == 0xffff
	}
	return true
}
