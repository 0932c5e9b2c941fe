package conntrack

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/conntracktest"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// model is the flow table as a plain map of slow and obvious flows.
type model struct {
	flows     map[Key]*modelFlow // by both keys
	strict    bool
	stateless bool          // of the flows that begin from now on
	now       time.Duration // does not wrap
}

type modelFlow struct {
	conntracktest.Flow
	keys [2]Key
	next *modelFlow    // waits to take its place
	cut  time.Duration // how long it is kept after it was cut; 0: it was not
}

func (f *modelFlow) over(now time.Duration) bool {
	if f.cut > 0 {
		return now-f.Seen >= f.cut
	}
	return f.Over(now)
}

// fit reports whether a table without room may end the flow before those that somebody would miss.
func (f *modelFlow) fit() bool { return f.cut == 0 && f.Evictable() }

func (m *model) lookup(k Key) (*modelFlow, Direction) {
	f := m.flows[k]
	if f == nil || f.cut > 0 || f.Over(m.now) {
		return nil, 0
	}
	if f.keys[0] == k {
		return f, Original
	}
	return f, Reply
}

func (m *model) remove(f *modelFlow) {
	for _, k := range f.keys {
		if m.flows[k] == f {
			delete(m.flows, k)
		}
	}
}

// send is the engine's step: pass, or restart, or create.
func (m *model) send(k, reply Key, p *packet.Packet) (created bool, drop packet.Drop) {
	old, d := m.lookup(k)
	if old != nil && m.answered(old, k, p) {
		old, d = m.lookup(k)
	}
	switch {
	case old == nil:
		if f := m.flows[k]; f != nil && !f.over(m.now) && k != f.keys[Original] && !bareSYN(p.TCPFlags) {
			f.Seen = m.now
			return false, packet.DropFlowCut
		}
	case old.Succeeds(int(d), p):
		if k == old.keys[d] && reply == old.keys[1-d] {
			return m.wait(old, k, reply, p)
		}
		return false, packet.DropFlowConflict // translated otherwise now
	case !old.Restarts(int(d), p):
		return false, old.Pass(int(d), p, m.now)
	default:
		m.remove(old)
	}
	drop = conntracktest.MayCreate(p, m.strict)
	if m.stateless {
		drop = conntracktest.MayCreateStateless(p)
	}
	if drop != packet.NotDropped {
		return false, drop
	}
	if f, _ := m.lookup(reply); f != nil && f != old {
		return false, packet.DropFlowConflict
	}
	for _, k := range []Key{k, reply} {
		if f := m.flows[k]; f != nil {
			m.remove(f)
		}
	}
	f := &modelFlow{Flow: *conntracktest.Begin(p, m.now), keys: [2]Key{k, reply}}
	f.Stateless = m.stateless
	m.flows[k], m.flows[reply] = f, f
	return true, packet.NotDropped
}

// answered gives a flow that waits the place of another, if p acknowledges its SYN.
func (m *model) answered(old *modelFlow, k Key, p *packet.Packet) bool {
	next := old.next
	if p.TCPFlags&(packet.SYN|packet.ACK) != packet.SYN|packet.ACK || next == nil || next.Over(m.now) || next.keys[Original] == k || !next.Answers(p) {
		return false
	}
	m.remove(old)
	for _, k := range next.keys {
		m.flows[k] = next
	}
	return true
}

// wait has the flow that p begins wait in place of another.
func (m *model) wait(old *modelFlow, k, reply Key, p *packet.Packet) (created bool, drop packet.Drop) {
	if next := old.next; next != nil && next.keys[Original] == k && !next.Over(m.now) && next.Repeats(p) {
		return false, next.Pass(conntracktest.Original, p, m.now)
	}
	old.next = &modelFlow{Flow: *conntracktest.Begin(p, m.now), keys: [2]Key{k, reply}}
	old.next.Stateless = m.stateless
	return true, packet.NotDropped
}

// driver turns bytes into operations on a table and its model, and compares.
type driver struct {
	t   *testing.T
	rig *rig
	m   *model
	ops []byte
	max int
	// zoneMax holds for zones 0 and 1.
	zoneMax int
	met     [packet.NumDrops]int // packets by what became of them
	images  *memory
	notes   int // Options.NotesPerFlow
	lost    [NumLosses]int
	// fruitless are the ticks of the last refusals: by zone, and of the table under noZone.
	fruitless map[uint16]Tick
}

func newDriver(t *testing.T, ops []byte) *driver {
	d := &driver{t: t, ops: ops, fruitless: map[uint16]Tick{}, images: &memory{}}
	setup := d.next(16)
	d.max, d.zoneMax = []int{4, 256}[setup&1], []int{256, 3}[setup>>2&1]
	d.m = &model{flows: map[Key]*modelFlow{}, strict: setup&2 != 0}
	d.rig = newRig(t, d.options())
	d.rig.established = []time.Duration{0, 10 * time.Minute}[setup>>3]
	return d
}

func (d *driver) options() Options {
	return Options{Max: d.max, TCPStrict: d.m.strict, Zones: 4, MaxPerZone: d.zoneMax, NotesPerFlow: d.notes, Images: d.images,
		UnlimitedZones: func(zone uint16) bool { return zone > 1 }}
}

// restart puts the next process's table into the place of this one, which ends without a word. With other notes
// its image has another size.
func (d *driver) restart() {
	d.notes = 8 * d.next(2)
	next := newRig(d.t, d.options())
	a := next.Adoption()
	if a.Refused != nil || a.Lost[LostDamaged]+a.Lost[LostDouble]+a.Lost[LostZone]+a.Lost[LostRoom] > 0 {
		d.t.Fatalf("%+v", a)
	}
	for i, n := range a.Lost {
		d.lost[i] += n
	}
	d.rig.Table, d.rig.w = next.Table, next.w
	clear(d.fruitless)
	for _, f := range d.m.flows {
		f.next = nil
	}
	d.compare()
}

// next is a number below n out of the operations, 0 when they are used up.
func (d *driver) next(n int) int {
	if len(d.ops) == 0 {
		return 0
	}
	b := d.ops[0]
	d.ops = d.ops[1:]
	return int(b) % n
}

func (d *driver) run() {
	for step := 0; len(d.ops) > 0; step++ {
		switch op := d.next(128); {
		case op < 104:
			d.send()
		case op < 112:
			d.wait()
		case op < 116:
			d.rig.Expire(d.rig.now, d.next(64))
		case op < 120:
			d.change()
		case op < 124:
			d.end()
		case op == 124:
			d.restart()
		default:
			d.compare()
		}
		d.rig.w.Quiesce()
	}
	d.compare()
}

func (d *driver) wait() {
	ticks := []uint32{1, 100, 499, 500, 1000, 2999, 3000, 6000, 24_000}[d.next(9)]
	d.m.now += time.Duration(ticks) * TickLength
	d.rig.now += Tick(ticks)
}

// translate draws how the packet arrives, should it begin a flow.
func (d *driver) translate(p *packet.Packet) {
	d.rig.marks, d.rig.arrives = []Marks{0, 0, Translated, Resets}[d.next(4)], p.Tuple
	if d.rig.marks&Translated == 0 {
		return
	}
	a := &d.rig.arrives
	if a.Src = host(3); !p.Dst.Is4() {
		a.Src = host6(3)
	}
	switch p.Proto { // those that answers are drawn with
	case packet.ProtoTCP:
		a.SrcPort = 3
	case packet.ProtoUDP:
		a.SrcPort = uint16(3 + d.next(3))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		a.SrcPort = uint16(d.next(2))
	}
	if d.next(8) == 7 && p.Dst.Is4() {
		a.Dst = host(d.next(3)) // and the other end has not got the address that it is asked by
	}
}

// packet draws a packet and its zones; a host is seldom found behind another zone than its own.
func (d *driver) packet() (zone, peer uint16, p *packet.Packet) {
	source, destination := d.next(3), d.next(4) // the last one is where translated packets seem to come from
	proto := []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoTCP}[d.next(8)]
	p = newPacket(proto, source, destination, 0, 0)
	if proto == packet.ProtoICMPv6 || d.next(16) == 15 {
		p.Src, p.Dst = host6(source), host6(destination)
	}
	p.Segments, p.WireLen = 1+uint32(source), 100
	switch proto {
	case packet.ProtoTCP:
		p.SrcPort, p.DstPort = uint16(source), uint16(destination)
		number(p, []uint8{packet.SYN, packet.SYN | packet.ACK, packet.ACK, packet.ACK, packet.ACK, packet.FIN | packet.ACK,
			packet.RST, packet.RST | packet.ACK, packet.SYN | packet.FIN, 0}[d.next(10)]|uint8(d.next(8))<<6&0xc0) // ECE and CWR mean nothing to a flow
		d.numbers(p)
	case packet.ProtoUDP:
		p.SrcPort, p.DstPort = uint16(source+d.next(3)), uint16(destination+d.next(3))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		p.ICMPType = []uint8{8, 0, 13, 14, 3, 5}[d.next(6)]
		if proto == packet.ProtoICMPv6 {
			p.ICMPType = []uint8{128, 129, 128, 129, 1, 135}[d.next(6)]
		}
		if id := uint16(d.next(2)); p.IsICMPRequest() {
			p.SrcPort = id
		} else {
			p.DstPort = id
		}
	}
	zone, peer = uint16(source), uint16(destination)
	if d.next(32) == 31 {
		zone = 3
	}
	return zone, peer, p
}

// edges are by how much numbers are off: at, before and behind the edges of all windows that packets offer.
var edges = []uint32{0, 1, 2, 3, 99, 100, 101, 200, 32_767, 65_534, 65_535, 65_536, 65_999, 66_000, 66_001, 131_070, 131_071,
	1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<24 - 1, 1 << 24, 1<<24 + 1, 1 << 30, 1<<31 - 1, 1 << 31}

// numbers draws what one packet in two has besides flags: data, other numbers, options.
func (d *driver) numbers(p *packet.Packet) {
	off := func(n *uint32) {
		by := edges[d.next(len(edges))]
		if d.next(2) == 1 {
			by = -by
		}
		*n += by
	}
	switch d.next(16) {
	case 0:
		p.Len += 100
	case 1:
		p.Len += uint32(edges[d.next(11)])
	case 2:
		off(&p.Seq)
	case 3:
		off(&p.Ack)
	case 4:
		off(&p.Seq)
		off(&p.Ack)
	case 5:
		p.Window = uint16(edges[d.next(9)])
	case 6:
		p.WindowScale = uint8(d.next(16))
	case 7:
		p.SACKed = edges[d.next(12)]
	}
}

// waiting is how many flows wait in the table, and forgets those in the model that the table has evicted.
func (d *driver) waiting() (n int) {
	waits := map[Key]bool{}
	for i := range d.rig.Flows {
		if i.Waits {
			n++
			waits[i.Key] = true
		}
	}
	for _, f := range d.m.flows {
		if f.next != nil && !waits[f.next.keys[0]] {
			f.next = nil
		}
	}
	return n
}

func (d *driver) send() {
	zone, peer, p := d.packet()
	k := Key{p.Tuple, zone}
	d.rig.Expire(d.rig.now, 0)
	waiting := d.waiting()
	f, dir := d.m.lookup(k)
	restarts := f != nil && f.Restarts(int(dir), p)
	succeeds := f != nil && f.Succeeds(int(dir), p)
	d.translate(p)
	reply := Key{k.Reverse(), peer}
	if d.rig.marks&Translated != 0 {
		reply.Tuple = d.rig.arrives.Reverse()
	}
	if restarts {
		d.m.remove(f)
	}
	alive := map[*modelFlow]bool{}
	for _, f := range d.m.flows {
		if !f.over(d.m.now) {
			alive[f] = true
		}
	}
	old, _, _, _ := d.rig.find(&k, d.rig.w.Hash(&k))
	before := d.rig.Stats()
	_, _, created, drop := d.rig.send(zone, peer, p)
	after := d.rig.Stats()
	tight := len(alive)+waiting >= d.max || len(d.touching(alive, zone))+waiting >= d.zoneMax || len(d.touching(alive, peer))+waiting >= d.zoneMax
	victims := d.victims(alive, zone, peer)
	for f := range alive {
		if f.cut > 0 && !d.there(f) && f != d.m.flows[k] && f != d.m.flows[reply] {
			if !tight || waiting == 0 && !victims[f] && !d.crowded(alive, zone, 2) && !d.crowded(alive, peer, 2) {
				d.t.Fatalf("%v was cut, and is forgotten though there is room", f.keys[0])
			}
			d.m.remove(f)
			delete(alive, f)
			waiting++ // it was evicted, which nobody counts
		}
	}
	if restarts && after.Ended[EndRestarted] == before.Ended[EndRestarted] {
		d.t.Fatalf("%v zone %d flags %#x: restarts %t in the model alone", p.Tuple, zone, p.TCPFlags, restarts)
	}
	if n := after.Ended[EndEvicted] - before.Ended[EndEvicted]; n > 0 {
		if succeeds && created {
			f.next = nil // what waited already may have made room for its own repetition
		}
		if now, _, _, _ := d.rig.find(&k, d.rig.w.Hash(&k)); succeeds && created && now != old {
			d.m.remove(f) // it made room for the one that was to wait
			delete(alive, f)
			waiting++
			n--
		}
		d.evicted(alive, waiting, int(n), [2]Key{k, reply})
	}
	if after.Refused[RefusedTable] > before.Refused[RefusedTable] {
		d.refused(alive, waiting, d.max, p, noZone, d.victims(alive, zone, peer))
		return
	}
	if after.Refused[RefusedZone] > before.Refused[RefusedZone] {
		which, full := zone, d.touching(alive, zone)
		if !d.limited(zone) || len(full)+waiting < d.zoneMax {
			which, full = peer, d.touching(alive, peer)
			if !d.limited(peer) {
				d.t.Fatalf("%v zones %d, %d: refused for a zone without a limit", p.Tuple, zone, peer)
			}
		}
		victims := map[*modelFlow]bool{}
		for f := range full {
			if f.fit() || f.cut > 0 && d.crowded(full, which, 0) {
				victims[f] = true
			}
		}
		d.refused(full, waiting, d.zoneMax, p, which, victims)
		d.fruitless[zone], d.fruitless[peer] = d.rig.now, d.rig.now // where both are full, it may have been either
		return
	}
	wantCreated, want := d.m.send(k, reply, p)
	if wantCreated {
		began := d.m.flows[k]
		if began.next != nil {
			began = began.next
		}
		if began.Translated = d.rig.marks&Translated != 0; d.rig.established > 0 {
			began.Established = d.rig.established
		}
	}
	d.met[drop]++
	if drop != want || created != wantCreated {
		d.t.Fatalf("%v zone %d flags %#x type %d: created %t, drop %s; want %t, %s", p.Tuple, zone, p.TCPFlags, p.ICMPType, created, drop, wantCreated, want)
	}
}

// there reports whether the table has the flow still.
func (d *driver) there(f *modelFlow) bool {
	k := f.keys[0]
	found, _, _, ok := d.rig.find(&k, d.rig.w.Hash(&k))
	return ok && d.rig.w.OriginalKey(found) == k
}

func (d *driver) limited(zone uint16) bool { return zone <= 1 }

func (d *driver) touching(flows map[*modelFlow]bool, zone uint16) map[*modelFlow]bool {
	some := map[*modelFlow]bool{}
	for f := range flows {
		if f.keys[0].Zone == zone || f.keys[1].Zone == zone {
			some[f] = true
		}
	}
	return some
}

const noZone = 99

// refused: a full table or zone refuses only if no flow in it is fit to be evicted, or if none was
// earlier in the same tick. A search may miss the few that are fit among more than evictLook.
func (d *driver) refused(alive map[*modelFlow]bool, waiting, limit int, p *packet.Packet, zone uint16, victims map[*modelFlow]bool) {
	if len(alive) > limit || len(alive)+waiting < limit {
		d.t.Fatalf("%v refused with %d live flows at a limit of %d", p.Tuple, len(alive), limit)
	}
	before, ok := d.fruitless[zone]
	for f := range victims {
		if len(alive) <= evictLook && waiting == 0 && (!ok || before != d.rig.now) {
			protocol, state, _ := f.State()
			d.t.Fatalf("%v refused although %v is %s %s", p.Tuple, f.keys[0], protocol, state)
		}
	}
	d.fruitless[zone] = d.rig.now
}

// victims are the flows that a full table may end for one between two zones. One that has no zone with
// a share, or none that has less than it, only gets what nobody misses of those that have theirs.
func (d *driver) victims(alive map[*modelFlow]bool, zone, peer uint16) map[*modelFlow]bool {
	busy := 0
	for z := uint16(0); d.limited(z); z++ {
		if z == zone || z == peer || len(d.touching(alive, z)) > 0 {
			busy++
		}
	}
	share := d.max / max(busy, 1)
	has := func(z uint16) bool { return d.limited(z) && len(d.touching(alive, z)) >= share }
	above := func(a, b uint16) bool {
		return !d.limited(a) && !d.limited(b) || has(a) || has(b)
	}
	some := map[*modelFlow]bool{}
	for f := range alive {
		over := above(f.keys[0].Zone, f.keys[1].Zone)
		crowded := false
		for _, k := range f.keys {
			crowded = crowded || f.cut > 0 && d.crowded(alive, k.Zone, 0) && (!d.limited(f.keys[0].Zone) && !d.limited(f.keys[1].Zone) || has(k.Zone))
		}
		if over && (f.fit() || crowded || !above(zone, peer)) {
			some[f] = true
		}
	}
	return some
}

// crowded reports whether flows that were cut take more of a zone than they may, once less of its flows are gone.
func (d *driver) crowded(alive map[*modelFlow]bool, zone uint16, less int) bool {
	touching, cuts := d.touching(alive, zone), 0
	for f := range touching {
		if f.cut > 0 {
			cuts++
		}
	}
	return 4*cuts > len(touching)-less
}

// evicted follows a table that ended flows to make room, one for the table and one
// for each zone at most; which ones is its choice.
func (d *driver) evicted(alive map[*modelFlow]bool, waiting, n int, begins [2]Key) {
	zone, peer := begins[0].Zone, begins[1].Zone
	full := 0
	victims := map[*modelFlow]bool{}
	if len(alive)+waiting >= d.max {
		full++
		victims = d.victims(alive, zone, peer)
	}
	zones := []uint16{zone}
	if peer != zone {
		zones = append(zones, peer)
	}
	for _, z := range zones {
		if d.limited(z) && len(d.touching(alive, z))+waiting >= d.zoneMax {
			full++
		}
	}
	gone, replaced := 0, 0
	for f := range alive {
		k := f.keys[0]
		if d.there(f) {
			continue
		}
		if _, state, _ := f.State(); waiting == 0 && f.cut == 0 && !f.fit() && !victims[f] {
			d.t.Fatalf("%v was evicted in state %s", k, state)
		}
		if gone++; f.cut > 0 && (f == d.m.flows[begins[0]] || f == d.m.flows[begins[1]]) {
			replaced++ // by the new flow, which has a key of it
		}
		d.m.remove(f)
		delete(alive, f)
	}
	d.waiting()
	if gone-replaced > n || gone+waiting < n || n > full {
		d.t.Fatalf("%d flows evicted, %d are gone, %d limits reached", n, gone, full)
	}
}

// change has flows that begin from now on with or without states, and gives a live one
// another lifetime.
func (d *driver) change() {
	d.m.stateless = d.next(4) == 3
	d.rig.stateless = d.m.stateless
	zone, _, p := d.packet()
	k := Key{p.Tuple, zone}
	lifetime := time.Duration(4+d.next(27)) * time.Minute
	if f, _ := d.m.lookup(k); f != nil {
		d.rig.SetEstablished(&k, lifetime, d.rig.now)
		f.Established = lifetime
	}
}

func (d *driver) end() {
	if d.next(8) == 0 {
		d.rig.Flush()
		clear(d.m.flows)
		return
	}
	zone, _, p := d.packet()
	k := Key{p.Tuple, zone}
	if f, _, ok := d.rig.w.Lookup(&k, d.rig.now); ok && d.next(2) == 1 {
		d.rig.w.Cut(f, d.rig.now)
		if f, _ := d.m.lookup(k); f.Proto == packet.ProtoTCP || f.Proto == packet.ProtoUDP {
			_, _, f.cut = f.State()
			f.Seen, f.next = d.m.now, nil
			return
		}
	} else {
		d.rig.End(&k)
	}
	if f := d.m.flows[k]; f != nil {
		d.m.remove(f)
	}
}

func (d *driver) compare() {
	d.rig.Expire(d.rig.now, 0)
	n := 0
	for i := range d.rig.Flows {
		if i.Waits || i.Class.Cut() {
			continue
		}
		n++
		f, dir := d.m.lookup(i.Key)
		if f == nil || dir != Original {
			d.t.Fatalf("%v is not in the model", i.Key)
		}
		protocol, state, lifetime := f.State()
		if i.Class.Protocol() != protocol || i.State() != state || i.Packets != f.Packets || i.Bytes != f.Bytes || i.ReplyKey != f.keys[1] || i.Marks&Translated != 0 != f.Translated ||
			i.ExpiresIn != lifetime-(d.m.now-f.Seen) {
			d.t.Fatalf("%+v; want %s %s, %v, %+v", *i, protocol, state, lifetime, *f)
		}
	}
	want := 0
	for k, f := range d.m.flows {
		if k == f.keys[0] && f.cut == 0 && !f.Over(d.m.now) {
			want++
		}
	}
	s := d.rig.Stats()
	if n != want || s.Flows > int64(d.max) || s.Flows < int64(n) {
		d.t.Fatalf("%d flows, %d in the model; %+v", n, want, s)
	}
	var sum int64
	for _, c := range s.Live {
		sum += c
	}
	ended := uint64(0)
	for _, c := range s.Ended {
		ended += c
	}
	cut := s.Live[ClassTCPCut] + s.Live[ClassUDPCut]
	if sum != s.Flows || s.Created-ended != uint64(s.Flows-cut) {
		d.t.Fatalf("counts disagree: %+v", s)
	}
}

func TestRandomOperationsAgreeWithAPlainMap(t *testing.T) {
	runs, length := 60, 20_000
	if testing.Short() {
		runs = 16
	}
	var sum driver
	var ended [NumEndCauses]uint64
	var refused [NumRefusals]uint64
	for seed := range runs {
		random := rand.New(rand.NewPCG(uint64(seed), 42))
		ops := make([]byte, length)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		d := newDriver(t, ops)
		d.run()
		for i, n := range d.met {
			sum.met[i] += n
		}
		for i, n := range d.lost {
			sum.lost[i] += n
		}
		s := d.rig.Stats()
		for i, n := range s.Ended {
			ended[i] += n
		}
		for i, n := range s.Refused {
			refused[i] += n
		}
	}
	// What the operations never reach is not tested, however many there are.
	for cause, n := range ended {
		if n == 0 && EndCause(cause) != EndMoved { // which has tests of its own
			t.Errorf("no flow ended: %s", EndCause(cause))
		}
	}
	for why, n := range refused {
		if n == 0 && Refusal(why) != RefusedRate { // which has tests of its own
			t.Errorf("no flow was refused: %s", Refusal(why))
		}
	}
	if sum.lost[LostWaiting] == 0 {
		t.Error("no flow waited at a restart")
	}
	for _, drop := range []packet.Drop{packet.NotDropped, packet.DropTCPFlags, packet.DropTCPNoSYN,
		packet.DropICMPNoFlow, packet.DropFlowConflict, packet.DropTCPState, packet.DropFlowCut} {
		if sum.met[drop] == 0 {
			t.Errorf("no packet came to %s", drop)
		}
	}
}

func FuzzOperations(f *testing.F) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 8 {
		ops := make([]byte, 600)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) < 1<<14 {
			newDriver(t, ops).run()
		}
	})
}
