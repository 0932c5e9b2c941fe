package simulate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// What must pass: in a quiet world, well-behaved conversations that the rules allow, with all their answers.

// follow gives a TCP segment the numbers that come behind an earlier one, or that answer it.
func follow(b []byte, earlier *sent) {
	old := earlier.bytes[earlier.p.HeaderLen:]
	at := 40
	if b[0]>>4 == 4 {
		at = 20
	}
	seq, ack := binary.BigEndian.Uint32(old[4:]), binary.BigEndian.Uint32(old[8:])
	length := uint32(len(earlier.bytes)) - uint32(earlier.p.PayloadOffset)
	if earlier.p.TCPFlags&(packet.SYN|packet.FIN) != 0 {
		length++
	}
	if port := earlier.p.SrcPort; binary.BigEndian.Uint16(b[at:]) == port {
		binary.BigEndian.PutUint32(b[at+4:], seq+length)
		binary.BigEndian.PutUint32(b[at+8:], ack)
		return
	}
	binary.BigEndian.PutUint32(b[at+4:], ack)
	binary.BigEndian.PutUint32(b[at+8:], seq+length)
}

// talk is a conversation that must pass.
type talk struct {
	*run
	from, to int // hosts; to is known once the first packet has arrived
	opens    packet.Tuple
	answers  packet.Tuple
	seq      [2]uint32
}

// must sends a packet from an end and wants it to arrive.
func (t *talk) must(end int, flags string, payload int) error {
	host, tuple := t.from, t.opens
	if end == 1 {
		host, tuple = t.to, t.answers
	}
	kind := [2]uint8{8, 0}
	if tuple.Proto == packet.ProtoICMPv6 {
		kind = [2]uint8{128, 129}
	}
	spec := packettest.Spec{Src: tuple.Src.String(), Dst: tuple.Dst.String(), SrcPort: tuple.SrcPort, DstPort: tuple.DstPort, Flags: flags,
		Seq: t.seq[end], Ack: t.seq[1-end], Payload: payload, ICMPType: kind[end], ICMPID: tuple.SrcPort | tuple.DstPort}
	if flags == "S" {
		spec.Ack = 0
	}
	var b []byte
	switch tuple.Proto {
	case packet.ProtoTCP:
		b = packettest.TCP(spec)
	case packet.ProtoUDP:
		b = packettest.UDP(spec)
	default:
		b = packettest.ICMP(spec)
	}
	t.seq[end] += uint32(payload)
	for _, f := range flags {
		if f == 'S' || f == 'F' {
			t.seq[end]++
		}
	}
	s := t.packet(host, b)
	if err := t.carryInOrder(s); err != nil {
		return err
	}
	if s.arrival == nil {
		return fmt.Errorf("%v must arrive, and did not: the world is quiet and the rules let it begin; drops: %v\nplan: %s\n%s",
			s, t.engine.Drops(), t.plan, t.rulesOf(s))
	}
	if end == 0 && t.to < 0 {
		t.answers = s.arrival.p.Reverse()
		t.to = t.behind(s.arrival.at, s.arrival.p.Dst)
	}
	return nil
}

// converse lets two hosts talk to each other for a while.
func (w *run) converse() error {
	if err := w.quiet(); err != nil {
		return err
	}
	calm := w.calm()
	if err := w.swap(calm); err != nil {
		return err
	}
	w.replaced(calm)
	for range 40 {
		opens, from, ok := w.allowed()
		if !ok {
			continue
		}
		w.note("host %d has to reach %v", from, opens)
		return w.hold(&talk{run: w, from: from, to: -1, opens: opens}, w.disturb)
	}
	return nil
}

// calm is the plan with no group that flushes.
func (w *run) calm() *plan {
	p := *w.plan
	p.groups = slices.Clone(p.groups)
	for i := range p.groups {
		p.regroup(i, p.groups[i].Rules, false)
	}
	w.choices.plans++
	p.generated = w.choices.plans
	return &p
}

// allowed finds a tuple that may begin a conversation.
func (w *run) allowed() (t packet.Tuple, from int, ok bool) {
	from = w.random.IntN(numHosts)
	v6 := w.random.IntN(5) == 0
	t = packet.Tuple{Src: w.plan.addr(from, v6), Dst: w.target(from, v6), SrcPort: uint16(41000 + w.random.IntN(1000)), DstPort: pick(w.random, ports...)}
	kind := uint8(8)
	switch t.Proto = pick[uint8](w.random, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP); t.Proto {
	case packet.ProtoICMP:
		if t.DstPort = 0; v6 {
			t.Proto, kind = packet.ProtoICMPv6, 128
		}
	}
	if t.Src == t.Dst || hosts[from].subnet == shared && hosts[from].nic < 0 {
		return t, 0, false // what has no NIC has no translation
	}
	if t.Dst == packet.AddrFrom(frontend) { // each backend must let it in: which one it is going to be is not known
		for h := range numBackends {
			in := t
			in.Dst, in.DstPort = w.plan.addr(h, false), backendPort
			if a, _, has := w.plan.out(from); has && hosts[from].subnet >= 0 {
				in.Src = packet.AddrFrom(a)
			}
			if to, ok := w.plan.reaches(from, &t, hosts[h].at, &in); !ok || to == from || w.plan.closed(from, to, &t, &in) || !w.plan.allows(from, to, &t, &in, kind) {
				return t, 0, false
			}
		}
		return t, from, true
	}
	for _, g := range w.plan.guesses(from, &t) {
		if to, ok := w.plan.reaches(from, &t, g.at, &g.tuple); ok && to != from && hosts[to].at != hosts[from].at && !w.plan.closed(from, to, &t, &g.tuple) && w.plan.allows(from, to, &t, &g.tuple, kind) {
			return t, from, true
		}
	}
	return t, 0, false
}

// hold is the conversation: opened, carried on while others disturb, and closed.
func (w *run) hold(t *talk, disturb func(*talk) error) error {
	t.seq = [2]uint32{w.random.Uint32(), w.random.Uint32()}
	between := func(err error) error {
		if err == nil {
			err = disturb(t)
		}
		return err
	}
	w.spoken++
	if t.opens.Proto != packet.ProtoTCP {
		for i := range 2 + w.random.IntN(4) {
			if err := t.must(0, "", tail+i); err != nil {
				return err
			}
			if err := between(t.must(1, "", tail+2*i)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, x := range []struct {
		end   int
		flags string
	}{{0, "S"}, {1, "SA"}, {0, "A"}} {
		if err := t.must(x.end, x.flags, tail); err != nil {
			return err
		}
	}
	for range w.random.IntN(6) {
		if err := between(t.must(w.random.IntN(2), "PA", tail+w.random.IntN(500))); err != nil {
			return err
		}
	}
	first := w.random.IntN(2)
	for _, x := range []struct {
		end   int
		flags string
	}{{first, "FA"}, {1 - first, "A"}, {1 - first, "PA"}, {1 - first, "FA"}, {first, "A"}} {
		if err := t.must(x.end, x.flags, tail); err != nil {
			return err
		}
	}
	return nil
}

// disturb is what must not touch a conversation: rules that change without flushConnection, time, and packets of
// others who claim to be one of the two.
func (w *run) disturb(t *talk) error {
	switch w.random.IntN(7) {
	case 0:
		if len(w.plan.groups) == 0 {
			return nil
		}
		p := *w.plan
		p.groups = slices.Clone(p.groups)
		p.regroup(w.random.IntN(len(p.groups)), w.choices.rules(), false)
		w.choices.plans++
		p.generated = w.choices.plans
		if err := w.swap(&p); err != nil {
			return err
		}
		w.replaced(&p)
	case 1:
		least := min(w.timeouts.TCPEstablished, w.timeouts.UDPTwoWay)
		if t.opens.Proto == packet.ProtoICMP || t.opens.Proto == packet.ProtoICMPv6 {
			least = w.timeouts.ICMP
		}
		w.forward(time.Duration(w.random.Int64N(int64(least - 100*time.Millisecond))))
	case 2, 3:
		h := w.random.IntN(numHosts)
		if at := hosts[h].at; at == hosts[t.from].at || at == hosts[t.to].at {
			return nil
		}
		tuple := pick(w.random, t.opens, t.answers, t.opens.Reverse(), t.answers.Reverse())
		if w.plan.admits(h, tuple.Src.Netip()) {
			return nil
		}
		b := w.segment(tuple, pick(w.random, "R", "RA", "S", "FA", "A"), 8, 0)
		return w.carryInOrder(w.packet(h, b))
	case 4, 5:
		return w.blind(t)
	}
	return nil
}

// blind sends a segment from the attachment of one of the two, with its address, by somebody who does not see their
// sequence numbers. It may pass, and must neither end the conversation nor take its place.
func (w *run) blind(t *talk) error {
	if t.opens.Proto != packet.ProtoTCP {
		return nil
	}
	end := w.random.IntN(2)
	host, tuple := t.from, t.opens
	if end == 1 {
		host, tuple = t.to, t.answers
	}
	b := w.segment(tuple, pick(w.random, "R", "RA", "FA", "S", "A"), 0, 0)
	header := 40
	if tuple.Src.Is4() {
		header = 20
	}
	const far = 1 << 20 // beyond every window
	binary.BigEndian.PutUint32(b[header+4:], t.seq[end]+far+uint32(w.random.Int64N(1<<31-2*far)))
	return w.carryInOrder(w.packet(host, b))
}

// crowd fills the table from some NICs; others must get flows all the same.
func (w *run) crowd() error {
	if w.limits.Max > 1000 {
		return nil
	}
	if err := w.quiet(); err != nil {
		return err
	}
	open := openPlan()
	w.choices.plans++
	open.generated = w.choices.plans
	if err := w.swap(open); err != nil {
		return err
	}
	w.replaced(open)
	answered := w.random.IntN(2) == 0
	port := uint16(1000)
	push := func(n int) error {
		for range n {
			var batch []*sent
			from := w.random.IntN(numBackends)
			for range 8 {
				port++
				t := packet.Tuple{Src: open.addr(from, false), Dst: packet.AddrFrom(hosts[firstOutside].v4), SrcPort: port, DstPort: 53, Proto: packet.ProtoUDP}
				batch = append(batch, w.packet(from, w.segment(t, "", 0, 0)))
			}
			if err := w.carryInOrder(batch...); err != nil {
				return err
			}
			if !answered {
				continue
			}
			var answers, again []*sent // so that none is a question with one answer
			for _, s := range batch {
				if a := s.arrival; a != nil {
					answers = append(answers, w.packet(firstOutside, w.segment(a.p.Reverse(), "", 0, 0)))
					again = append(again, w.packet(from, w.segment(s.p.Tuple, "", 0, 0)))
				}
			}
			if len(answers) == 0 {
				continue
			}
			if err := w.carryInOrder(answers...); err != nil {
				return err
			}
			if err := w.carryInOrder(again...); err != nil {
				return err
			}
		}
		return nil
	}
	w.note("three hosts fill the table")
	if err := push(2 * w.limits.Max / 8); err != nil {
		return err
	}
	from, to := firstPublic, firstPublic+1
	t := packet.Tuple{Src: open.addr(from, false), Dst: open.addr(to, false), SrcPort: 42000, DstPort: 80, Proto: packet.ProtoTCP}
	err := w.hold(&talk{run: w, from: from, to: -1, opens: t}, func(*talk) error { return push(1) })
	if err != nil {
		return err
	}
	next := w.choices.plan()
	if err := w.swap(next); err != nil {
		return err
	}
	w.replaced(next)
	return nil
}

// whole holds that the quiet table has room for all flows that it is made for: no record, no place and no
// translation was lost.
func (w *run) whole() error {
	open := openPlan()
	w.choices.plans++
	open.generated = w.choices.plans
	if err := w.swap(open); err != nil {
		return err
	}
	w.replaced(open)
	n := min(w.limits.MaxPerZone, 400)
	t := packet.Tuple{Src: open.addr(0, false), Dst: packet.AddrFrom(hosts[firstOutside].v4), DstPort: 53, Proto: packet.ProtoUDP}
	for i := range n {
		t.SrcPort = uint16(2000 + i)
		s := w.packet(0, w.segment(t, "", 0, 0))
		if err := w.carryInOrder(s); err != nil {
			return err
		}
		if s.arrival == nil {
			return fmt.Errorf("flow %d of %d does not find room in an empty table: %v", i, n, w.engine.Drops())
		}
	}
	if flows := w.engine.Flows().Stats().Flows; flows != int64(n) {
		return fmt.Errorf("%d flows live, want %d", flows, n)
	}
	return nil
}
