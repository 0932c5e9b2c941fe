package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// run is one world from its beginning to its end.
type run struct {
	*rig
	random   *rand.Rand
	choices  *choices
	model    *model
	plan     *plan
	timeouts conntrack.Timeouts
	limits   conntrack.Options
	recent   []*sent // to go on with
	history  []string
	packets  int
	swaps    int
	spoken   int // conversations that had to pass, and did
}

// historyLen is how much a failure tells of what was before.
const historyLen = 60

func newRun(seed uint64) (*run, error) {
	random := rand.New(rand.NewPCG(seed, 15))
	w := &run{random: random, choices: &choices{random: random, fresh: random.IntN(2) == 0}}
	seconds := func(least, most int) time.Duration {
		return time.Duration(least+random.IntN(most-least+1)) * time.Second
	}
	w.timeouts = conntrack.Timeouts{TCPSyn: seconds(3, 8), TCPEstablished: seconds(10, 40), TCPClosing: seconds(5, 20), TCPTimeWait: seconds(2, 5), TCPReset: seconds(1, 3),
		UDPOneWay: seconds(3, 8), UDPTwoWay: seconds(10, 40), ICMP: seconds(3, 8), Other: seconds(5, 20)}
	limit := pick(random, 48, 64, 128, 200, 4096)
	w.limits = conntrack.Options{Max: limit, MaxPerZone: limit/2 + random.IntN(limit/2), Timeouts: w.timeouts, Seed: [2]uint64{seed, 1}}
	fragments := fragment.Options{Max: pick(random, 16, 64, 256), Hold: pick(random, 0, 0, 8), Lifetime: 2 * time.Second}
	workers := pick(random, 1, 1, 2)
	w.plan = w.choices.plan()
	var err error
	if w.rig, err = newRig(w.plan, workers, w.limits, fragments, w.timeouts.TCPEstablished); err != nil {
		return nil, err
	}
	w.model = newModel(w.timeouts, fragments.Lifetime, w.faulty)
	w.model.plans, w.model.now = []*plan{w.plan}, w.now()
	return w, nil
}

func (w *run) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%v ", w.now())+fmt.Sprintf(format, args...))
	if len(w.history) > historyLen {
		w.history = slices.Delete(w.history, 0, len(w.history)-historyLen)
	}
}

// go takes steps.
func (w *run) steps(n int) error {
	for i := range n {
		if err := w.step(); err != nil {
			return fmt.Errorf("step %d: %w\n%s", i, err, strings.Join(w.history, "\n"))
		}
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("at the end: %w\n%s", err, strings.Join(w.history, "\n"))
	}
	return nil
}

// step does one of the things that happen.
func (w *run) step() error {
	switch k := w.random.IntN(1000); {
	case k < 20:
		return w.change()
	case k < 26:
		return w.fault()
	case k < 40:
		w.forward(time.Duration(w.random.IntN(3000)) * time.Millisecond)
	case k < 44:
		w.forward(time.Duration(1+w.random.IntN(50)) * time.Second)
	case k < 48:
		return w.converse()
	case k < 49:
		return w.crowd()
	case k < 54:
		return w.flood()
	case k < 100:
		return w.fragmented()
	case k < 120:
		return w.busy()
	default:
		return w.sequence()
	}
	return nil
}

// forward moves the clock.
func (w *run) forward(d time.Duration) {
	w.clock.Add(int64(d))
	w.model.now = w.now()
	w.note("%v pass", d)
	w.expire()
	w.model.tidy()
}

// change brings another plan into force.
func (w *run) change() error {
	next := w.choices.change(w.plan)
	if err := w.swap(next); err != nil {
		return err
	}
	w.replaced(next)
	return nil
}

func (w *run) replaced(next *plan) {
	w.model.replace(next)
	w.plan = next
	w.swaps++
	w.note("plan %d: %s", next.generated, next)
}

func (p *plan) String() string {
	var flushing []string
	for _, g := range p.groups {
		if g.FlushConnection {
			flushing = append(flushing, g.Name)
		}
	}
	return fmt.Sprintf("subnets %v, NICs %v, flushing %v, moved %v, extra %v, gateway %v, balancer %v", p.ofSubnet, p.ofNIC, flushing, p.moved, p.extra, p.gateway, p.balancer)
}

// fault lets a device refuse or end, or mends all of them.
func (w *run) fault() error {
	at := w.random.IntN(numAttachments)
	switch w.random.IntN(5) {
	case 0:
		if !w.devices[at].closed {
			w.note("device %d ends", at)
			return w.fail(at)
		}
	case 1, 2:
		w.note("device %d refuses", at)
		w.devices[at].refuses.Store(true)
	default:
		w.note("all devices are well")
		return w.mend()
	}
	return nil
}

// carryInOrder carries a batch of one attachment, so that the engine takes the packets one after the other, and
// judges what has become of each.
func (w *run) carryInOrder(batch ...*sent) error {
	worker := w.random.IntN(w.workers)
	late, err := w.carry(batch, func(int) int { return worker }, nil)
	w.packets += len(batch)
	for _, s := range batch {
		w.note("%v", s)
	}
	if err != nil {
		return err
	}
	order := slices.Clone(batch)
	for _, s := range batch {
		if s.arrival != nil && s.p.Fragment.IsLater() && w.model.datagrams[s.datagram()] == nil {
			order = append(slices.DeleteFunc(order, func(x *sent) bool { return x == s }), s) // it has waited for its first one
		}
	}
	for _, s := range append(order, late...) {
		if err := w.model.judge(s, true); err != nil {
			return fmt.Errorf("%v: %w\nplan: %s\n%s", s, err, w.plan, w.rulesOf(s))
		}
	}
	w.keep(batch)
	return nil
}

// rulesOf shows the rules that judge a packet.
func (w *run) rulesOf(s *sent) string {
	var b strings.Builder
	show := func(h int) {
		for _, g := range w.plan.groupsOf(h) {
			if g != nil {
				fmt.Fprintf(&b, "host %d: %s flush %v\n", h, g.Name, g.FlushConnection)
				for _, r := range g.Rules {
					fmt.Fprintf(&b, "  %d %v %v %v %v -> %v %v\n", r.Priority, r.Direction, r.Access, r.Protocol, r.Source, r.Destination, r.DestinationPorts)
				}
			}
		}
	}
	show(w.plan.sender(s.from, s.p.Src))
	if s.arrival != nil {
		for h := range firstOutside {
			if hosts[h].at == s.arrival.at {
				show(h)
			}
		}
	}
	return b.String()
}

// keep remembers some packets to go on with.
func (w *run) keep(batch []*sent) {
	for _, s := range batch {
		if s.drop != packet.NotDropped || s.p.Fragment.IsLater() || s.arrival == nil && w.random.IntN(8) > 0 {
			continue
		}
		if w.recent = append(w.recent, s); len(w.recent) > 64 {
			w.recent = slices.Delete(w.recent, 0, 1+w.random.IntN(8))
		}
	}
}

// sequence sends a few packets from one host, one after the other.
func (w *run) sequence() error {
	first := w.anything()
	if first == nil {
		return nil
	}
	batch := []*sent{first}
	for range w.random.IntN(4) {
		if s := w.anything(); s != nil && s.at == first.at {
			batch = append(batch, s)
		}
	}
	return w.carryInOrder(batch...)
}

// busy sends packets of many hosts at the same time, over all workers, perhaps while the plan changes.
func (w *run) busy() error {
	var batch []*sent
	for range 8 + w.random.IntN(40) {
		if s := w.anything(); s != nil {
			batch = append(batch, s)
		}
	}
	var next *plan
	var meanwhile func() error
	if w.random.IntN(2) == 0 {
		next = w.choices.change(w.plan)
		meanwhile = func() error { return w.swap(next) }
		w.model.plans = []*plan{w.plan, next}
	}
	start := w.random.IntN(w.workers)
	late, err := w.carry(batch, func(i int) int { return (start + i) % w.workers }, meanwhile)
	w.packets += len(batch)
	for _, s := range batch {
		w.note("at once: %v", s)
	}
	if err != nil {
		return err
	}
	if err := w.explain(append(batch, late...)); err != nil {
		return err
	}
	w.model.settled()
	if next != nil {
		w.replaced(next)
	}
	w.keep(batch)
	return nil
}

// explain judges packets in any order in which all of them are explained.
func (w *run) explain(batch []*sent) error {
	for _, s := range batch {
		if s.arrival == nil { // what it may have done comes first: it explains others
			if err := w.model.judge(s, false); err != nil {
				return fmt.Errorf("%v: %w", s, err)
			}
		}
	}
	left := slices.DeleteFunc(slices.Clone(batch), func(s *sent) bool { return s.arrival == nil })
	for len(left) > 0 {
		var last error
		n := len(left)
		left = slices.DeleteFunc(left, func(s *sent) bool {
			err := w.model.judge(s, false)
			if err != nil {
				last = fmt.Errorf("%v: %w\nplan: %s\n%s", s, err, w.plan, w.rulesOf(s))
			}
			return err == nil
		})
		if len(left) == n {
			return last
		}
	}
	return nil
}

var ports = []uint16{80, 80, 80, 443, 53, 8080, 9000, 22}

// anything makes a packet that somebody may send, well meant or not.
func (w *run) anything() *sent {
	switch k := w.random.IntN(100); {
	case k < 35:
		return w.fresh()
	case k < 75:
		return w.goOn()
	case k < 82:
		return w.spoofed()
	case k < 90:
		return w.errorAbout()
	case k < 95:
		return w.garbled()
	}
	return w.odd()
}

// target is an address that a host may want to reach.
func (w *run) target(from int, v6 bool) packet.Addr {
	h := w.random.IntN(numHosts)
	switch k := w.random.IntN(10); {
	case v6 || k < 6:
		return w.plan.addr(h, v6)
	case k < 8:
		return packet.AddrFrom(publicOf(pick(w.random, firstPublic, firstPublic+1, sometimes)))
	case k < 9:
		return packet.AddrFrom(frontend)
	}
	return packet.AddrFrom(pick(w.random, gatewayOf[behindGateway], gatewayOf[twin], hosts[mover].v4, movedTo))
}

// segment makes the bytes of a packet.
func (w *run) segment(t packet.Tuple, flags string, icmpType uint8, payload int) []byte {
	s := packettest.Spec{Src: t.Src.String(), Dst: t.Dst.String(), SrcPort: t.SrcPort, DstPort: t.DstPort, Flags: flags,
		Seq: w.random.Uint32(), Ack: w.random.Uint32(), Payload: tail + payload, ID: uint16(w.random.Uint32()), TTL: uint8(2 + w.random.IntN(200))}
	switch t.Proto {
	case packet.ProtoTCP:
		return packettest.TCP(s)
	case packet.ProtoUDP:
		return packettest.UDP(s)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.ICMPType, s.ICMPID = icmpType, t.SrcPort|t.DstPort
		return packettest.ICMP(s)
	}
	return packettest.Raw(s, t.Proto)
}

// fresh is a packet between two hosts that may not know of each other.
func (w *run) fresh() *sent {
	from, v6 := w.random.IntN(numHosts), w.random.IntN(5) == 0
	t := packet.Tuple{Src: w.plan.addr(from, v6), Dst: w.target(from, v6), SrcPort: uint16(40000 + w.random.IntN(12)), DstPort: pick(w.random, ports...)}
	t.Proto = pick[uint8](w.random, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoGRE)
	flags, kind := "S", uint8(8)
	switch t.Proto {
	case packet.ProtoTCP:
		flags = pick(w.random, "S", "S", "S", "S", "A", "PA", "SA", "R", "RA", "FA", "F", "SF", "", "UPF")
	case packet.ProtoICMP:
		if t.DstPort = 0; v6 {
			t.Proto, kind = packet.ProtoICMPv6, 128
		}
	case packet.ProtoGRE:
		t.SrcPort, t.DstPort = 0, 0
	}
	if t.Src == t.Dst {
		return nil
	}
	return w.packet(from, w.segment(t, flags, kind, w.random.IntN(64)))
}

// goOn is a packet that follows an earlier one or answers it, or tries to look so.
func (w *run) goOn() *sent {
	if len(w.recent) == 0 {
		return w.fresh()
	}
	s := pick(w.random, w.recent...)
	from, t := s.from, s.p.Tuple
	kind := s.p.ICMPType
	if a := s.arrival; a != nil && w.random.IntN(3) > 0 {
		t = a.p.Reverse()
		from = w.behind(a.at, t.Src)
		switch kind {
		case 8:
			kind = 0
		case 128:
			kind = 129
		case 0:
			kind = 8
		case 129:
			kind = 128
		}
	}
	if s.p.IsICMPError() {
		return nil
	}
	flags := pick(w.random, "S", "SA", "SA", "A", "A", "A", "PA", "PA", "FA", "R", "RA")
	b := w.segment(t, flags, kind, w.random.IntN(64))
	if t.Proto == packet.ProtoTCP && w.random.IntN(3) > 0 { // with numbers that fit
		follow(b, s)
	}
	return w.packet(from, b)
}

// behind is a host at an attachment, the one with an address if there is one.
func (w *run) behind(at int, a packet.Addr) int {
	var list []int
	for h := range hosts {
		if hosts[h].at == at {
			if w.plan.addr(h, false) == a || w.plan.addr(h, true) == a {
				return h
			}
			list = append(list, h)
		}
	}
	return list[w.random.IntN(len(list))]
}

// spoofed is a packet with somebody else's source.
func (w *run) spoofed() *sent {
	s := w.fresh()
	if len(w.recent) > 0 && w.random.IntN(2) == 0 { // of a conversation
		r := pick(w.random, w.recent...)
		b := slices.Clone(r.bytes)
		if r.garbled || r.p.Fragment.IsFragment() {
			return nil
		}
		return w.packet(w.random.IntN(numHosts), b)
	}
	if s == nil {
		return nil
	}
	return w.packet(w.random.IntN(numHosts), slices.Clone(s.bytes))
}

// errorAbout is an ICMP error about an earlier packet, from whoever received it or from another.
func (w *run) errorAbout() *sent {
	if len(w.recent) == 0 {
		return nil
	}
	s := pick(w.random, w.recent...)
	quote, t, from := s.bytes, s.p.Tuple, w.random.IntN(numHosts)
	if a := s.arrival; a != nil {
		quote, t = a.bytes, a.p.Tuple
		if w.random.IntN(3) > 0 {
			from = w.behind(a.at, t.Dst)
		}
	}
	src := w.plan.addr(from, !t.Src.Is4())
	if w.random.IntN(3) == 0 {
		src = t.Dst
	}
	spec := packettest.Spec{Src: src.String(), Dst: t.Src.String(), ICMPType: 3, ICMPCode: 4}
	if !t.Src.Is4() {
		spec.ICMPType, spec.ICMPCode = 1, 4
	}
	if w.random.IntN(10) == 0 { // about what it has not sent
		spec.Dst = w.plan.addr(w.random.IntN(numHosts), !t.Src.Is4()).String()
	}
	return w.packet(from, packettest.ICMPError(spec, append(slices.Clone(quote), make([]byte, tail)...)))
}

// garbled is a packet with some wrong bits.
func (w *run) garbled() *sent {
	s := w.fresh()
	if w.random.IntN(2) == 0 {
		s = w.goOn()
	}
	if s == nil {
		return nil
	}
	for range 1 + w.random.IntN(3) {
		s.bytes[w.random.IntN(min(48, len(s.bytes)-tail))] ^= 1 << w.random.IntN(8)
	}
	s.garbled = true
	s.decode(&w.decoder)
	if s.quotes || s.drop == packet.NotDropped && int(s.p.PayloadOffset) > len(s.bytes)-tail {
		return nil // its number may lie in a header, which translation changes
	}
	return s
}

// odd is a packet that no virtual network carries, or hardly.
func (w *run) odd() *sent {
	s := w.fresh()
	if s == nil || !s.p.Src.Is4() {
		return nil
	}
	b := slices.Clone(s.bytes)
	switch w.random.IntN(4) {
	case 0: // land
		copy(b[16:20], b[12:16])
	case 1: // broadcast or multicast
		copy(b[16:20], pick(w.random, []byte{255, 255, 255, 255}, []byte{224, 0, 0, 5}, []byte{239, 1, 2, 3}))
	case 2:
		copy(b[12:16], pick(w.random, []byte{0, 0, 0, 0}, []byte{127, 0, 0, 1}, []byte{224, 0, 0, 5}))
	case 3:
		copy(b[16:20], pick(w.random, []byte{10, 1, 9, 9}, []byte{10, 200, 0, 1}, []byte{192, 168, 0, 1}))
	}
	s.bytes = b
	complete(b)
	s.garbled = true
	s.decode(&w.decoder)
	return s
}

// fragmented sends a datagram in fragments: in order or not, with gaps, overlaps and forged ones.
func (w *run) fragmented() error {
	s := w.fresh()
	if w.random.IntN(3) == 0 {
		s = w.goOn()
	}
	if s == nil || s.drop != packet.NotDropped || s.p.Fragment.IsFragment() {
		return nil
	}
	header := 40
	if s.p.Src.Is4() {
		header = 20
	}
	b := append(slices.Clone(s.bytes), make([]byte, 120)...)
	if header == 20 {
		b[2], b[3] = byte(len(b)>>8), byte(len(b))
	} else {
		b[4], b[5] = byte((len(b)-40)>>8), byte(len(b)-40)
	}
	id, rest := w.random.Uint32(), b[header:]
	var cut [][]byte
	for offset := 0; offset < len(rest); {
		n := min(40+8*w.random.IntN(4), len(rest)-offset)
		if len(rest)-offset-n < 2*tail {
			n = len(rest) - offset
		}
		at := offset
		if w.random.IntN(12) == 0 {
			at = max(0, offset-8)
		}
		of := id
		if w.random.IntN(8) == 0 { // another datagram of the two
			of++
		}
		cut = append(cut, packettest.FragmentAt(b[:header], rest[offset:offset+n], of, at, offset+n < len(rest)))
		offset += n
	}
	if w.random.IntN(3) == 0 {
		w.random.Shuffle(len(cut), func(i, j int) { cut[i], cut[j] = cut[j], cut[i] })
	}
	if w.random.IntN(3) == 0 {
		i := w.random.IntN(len(cut))
		cut = slices.Delete(cut, i, i+1)
	}
	for len(cut) > 0 {
		n := 1 + w.random.IntN(len(cut))
		var batch []*sent
		for _, f := range cut[:n] {
			x := w.packet(s.from, f)
			x.garbled = true
			batch = append(batch, x)
		}
		if cut = cut[n:]; len(batch) > 0 {
			if err := w.carryInOrder(batch...); err != nil {
				return err
			}
		}
		if len(cut) > 0 && w.random.IntN(4) == 0 {
			switch w.random.IntN(3) {
			case 0:
				w.forward(time.Duration(w.random.IntN(3000)) * time.Millisecond)
			case 1:
				if err := w.change(); err != nil {
					return err
				}
			default:
				if err := w.sequence(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// flood sends many packets that begin something, from one host.
func (w *run) flood() error {
	from := w.random.IntN(numHosts)
	dst := w.target(from, false)
	t := packet.Tuple{Src: w.plan.addr(from, false), Dst: dst, DstPort: pick(w.random, ports...), Proto: pick[uint8](w.random, packet.ProtoTCP, packet.ProtoUDP)}
	if t.Src == t.Dst {
		return nil
	}
	for range 1 + w.random.IntN(12) {
		var batch []*sent
		for range 20 {
			t.SrcPort = uint16(w.random.IntN(65536))
			batch = append(batch, w.packet(from, w.segment(t, "S", 0, 0)))
		}
		if err := w.carryInOrder(batch...); err != nil {
			return err
		}
	}
	return nil
}

// longest is more than any timeout.
func (w *run) longest() time.Duration { return 2 * time.Minute }

// quiet waits until everything is over, with devices that are well.
func (w *run) quiet() error {
	if err := w.mend(); err != nil {
		return err
	}
	w.forward(w.longest())
	w.recent = w.recent[:0]
	return w.leaks()
}

// end holds that nothing is left and that the counters add up.
func (w *run) end() error {
	if err := w.quiet(); err != nil {
		return err
	}
	if err := w.whole(); err != nil {
		return err
	}
	if err := w.quiet(); err != nil {
		return err
	}
	counted, inForce := w.rules()
	if most := 2048 + 4*inForce; counted > most {
		return fmt.Errorf("%d rules are counted while %d are in force", counted, inForce)
	}
	if counted < 1024 { // nothing was forgotten
		return w.denials()
	}
	return nil
}
