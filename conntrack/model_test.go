package conntrack

import (
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// model is the flow table as a plain map, slow and obvious: what a flow is follows
// from facts about each side, time is a number that does not wrap.
type model struct {
	flows  map[Key]*modelFlow // by both keys
	strict bool
	now    uint64
}

type modelFlow struct {
	keys           [2]Key
	seen           uint64
	sides          [2]modelSide
	reset          bool
	kind           uint8 // ICMP request type
	packets, bytes [2]uint64
}

// modelSide holds what one side is known to have done.
type modelSide struct {
	syn, mid, acked, fin, spoke bool
}

func (s modelSide) opening() bool { return s.syn && !s.acked && !s.fin }
func (s modelSide) joined() bool  { return s.mid && !s.syn && !s.acked && !s.fin }

func (f *modelFlow) state() (protocol, state string, seconds uint64) {
	a, b := f.sides[0], f.sides[1]
	switch f.keys[0].Proto {
	case packet.ProtoUDP:
		if b.spoke {
			return "udp", "two_way", 240
		}
		return "udp", "one_way", 30
	case packet.ProtoICMP:
		if b.spoke {
			return "icmp", "two_way", 30
		}
		return "icmp", "one_way", 30
	case packet.ProtoTCP:
		switch {
		case f.reset:
			return "tcp", "reset", 5
		case !b.spoke:
			return "tcp", "syn_sent", 30
		case a.fin && b.fin:
			return "tcp", "time_wait", 10
		case a.fin || b.fin:
			return "tcp", "closing", 60
		case a.acked && b.acked:
			return "tcp", "established", 240
		}
		return "tcp", "syn_sent", 30
	}
	if b.spoke {
		return "other", "two_way", 240
	}
	return "other", "one_way", 240
}

func (m *model) over(f *modelFlow) bool {
	_, _, seconds := f.state()
	return m.now-f.seen >= seconds*100
}

func (m *model) lookup(k Key) (*modelFlow, Direction) {
	f := m.flows[k]
	if f == nil || m.over(f) {
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
func (m *model) send(k Key, peer uint16, p *packet.Packet) (created bool, drop packet.Drop) {
	if f, d := m.lookup(k); f != nil {
		if !f.restarts(d, p) {
			return false, m.pass(f, d, p)
		}
		m.remove(f)
	}
	if drop := MayCreate(p, m.strict); drop != packet.NotDropped {
		return false, drop
	}
	reply := Key{k.Reverse(), peer}
	if f, _ := m.lookup(reply); f != nil {
		return false, packet.DropFlowConflict
	}
	for _, k := range []Key{k, reply} {
		if f := m.flows[k]; f != nil {
			m.remove(f)
		}
	}
	f := &modelFlow{keys: [2]Key{k, reply}, kind: p.ICMPType}
	has := func(flag uint8) bool { return p.TCPFlags&flag != 0 }
	f.sides[0] = modelSide{spoke: true, syn: has(packet.SYN), mid: !has(packet.SYN), fin: has(packet.FIN)}
	m.flows[k], m.flows[reply] = f, f
	m.credit(f, Original, p, true)
	return true, packet.NotDropped
}

func (f *modelFlow) restarts(d Direction, p *packet.Packet) bool {
	switch f.keys[0].Proto {
	case packet.ProtoTCP:
		bare := p.TCPFlags == packet.SYN
		return bare && (f.reset || f.sides[0].fin || f.sides[1].fin || f.sides[0].joined() && !f.sides[1].spoke)
	case packet.ProtoICMP:
		return p.IsICMPRequest() && (d == Reply || p.ICMPType != f.kind)
	}
	return false
}

func (m *model) credit(f *modelFlow, d Direction, p *packet.Packet, refresh bool) packet.Drop {
	if refresh {
		f.seen = m.now
	}
	f.packets[d] += uint64(p.Segments)
	f.bytes[d] += uint64(p.WireLen)
	return packet.NotDropped
}

func (m *model) pass(f *modelFlow, d Direction, p *packet.Packet) packet.Drop {
	switch f.keys[0].Proto {
	case packet.ProtoTCP:
		return m.passTCP(f, d, p)
	case packet.ProtoICMP:
		answers := map[uint8]uint8{8: 0, 13: 14}
		if d == Original && p.ICMPType != f.kind || d == Reply && p.ICMPType != answers[f.kind] {
			if p.IsICMPError() {
				return packet.DropICMPError
			}
			return packet.DropICMPNoFlow
		}
	}
	f.sides[d].spoke = true
	return m.credit(f, d, p, true)
}

func (m *model) passTCP(f *modelFlow, d Direction, p *packet.Packet) packet.Drop {
	self, other := &f.sides[d], &f.sides[1-d]
	_, state, _ := f.state()
	if MayCreate(p, false) == packet.DropTCPFlags {
		return packet.DropTCPFlags
	}
	if f.reset {
		return m.credit(f, d, p, false)
	}
	switch p.TCPFlags {
	case packet.RST, packet.RST | packet.ACK:
		if state == "time_wait" {
			return m.credit(f, d, p, false)
		}
		onlySYN := self.opening() && !other.spoke
		noAnswer := !self.spoke && other.opening() && p.TCPFlags == packet.RST
		if onlySYN || noAnswer {
			return packet.DropTCPState
		}
		f.reset = true
		return m.credit(f, d, p, true)
	case packet.SYN:
		if state == "established" {
			if d == Reply {
				return packet.DropTCPState
			}
			return m.credit(f, d, p, false)
		}
		if !self.acked {
			self.spoke, self.syn = true, true
		}
		return m.credit(f, d, p, true)
	case packet.SYN | packet.ACK:
		if !other.spoke {
			return packet.DropTCPState
		}
		if !self.acked {
			self.spoke, self.syn = true, true
		}
		other.acked = true
		return m.credit(f, d, p, true)
	}
	f.acknowledge(d)
	self.fin = self.fin || p.TCPFlags&packet.FIN != 0
	return m.credit(f, d, p, true)
}

// acknowledge: an ACK acknowledges whatever the other side sent, except that the
// first word of a side that owes an answer to a SYN acknowledges nothing.
func (f *modelFlow) acknowledge(d Direction) {
	self, other := &f.sides[d], &f.sides[1-d]
	first := !self.spoke
	self.spoke = true
	switch {
	case first && other.opening():
		self.mid = true
	case first:
		self.acked, other.acked = true, true
	case self.joined() && other.opening(), !other.spoke:
	case other.opening():
		other.acked = true
	case other.joined():
		self.acked, other.acked = true, true
	}
}

// driver turns bytes into operations on a table and its model, and compares.
type driver struct {
	t   *testing.T
	rig *rig
	m   *model
	ops []byte
	max int
}

func newDriver(t *testing.T, ops []byte) *driver {
	d := &driver{t: t, ops: ops}
	setup := d.next(4)
	d.max = []int{8, 256}[setup&1]
	d.m = &model{flows: map[Key]*modelFlow{}, strict: setup&2 != 0}
	d.rig = newRig(t, Options{Max: d.max, TCPStrict: d.m.strict, Zones: 4})
	return d
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
		switch op := d.next(32); {
		case op < 26:
			d.send()
		case op < 28:
			d.wait()
		case op < 30:
			d.rig.Expire(d.rig.now, d.next(64))
		case op == 30:
			d.end()
		default:
			d.compare()
		}
		d.rig.w.Quiesce()
	}
	d.compare()
}

func (d *driver) wait() {
	ticks := []uint64{1, 100, 499, 500, 1000, 2999, 3000, 6000, 24_000}[d.next(9)]
	d.m.now += ticks
	d.rig.now += Tick(ticks)
}

// packet draws a packet and its zones; a host is seldom found behind another zone than its own.
func (d *driver) packet() (zone, peer uint16, p *packet.Packet) {
	source, destination := d.next(3), d.next(3)
	proto := []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP}[d.next(6)]
	p = newPacket(proto, source, destination, 0, 0)
	p.Segments, p.WireLen = 1+uint32(source), 100
	switch proto {
	case packet.ProtoTCP:
		p.SrcPort, p.DstPort = uint16(source), uint16(destination)
		p.TCPFlags = []uint8{packet.SYN, packet.SYN | packet.ACK, packet.ACK, packet.ACK, packet.ACK, packet.FIN | packet.ACK,
			packet.RST, packet.RST | packet.ACK, packet.SYN | packet.FIN, 0}[d.next(10)]
	case packet.ProtoUDP:
		p.SrcPort, p.DstPort = uint16(source+d.next(3)), uint16(destination+d.next(3))
	case packet.ProtoICMP:
		p.ICMPType = []uint8{8, 0, 13, 14, 3, 5}[d.next(6)]
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

func (d *driver) send() {
	zone, peer, p := d.packet()
	k := Key{p.Tuple, zone}
	f, dir := d.m.lookup(k)
	restarts := f != nil && f.restarts(dir, p)
	if restarts {
		d.m.remove(f)
	}
	alive := map[*modelFlow]bool{}
	for _, f := range d.m.flows {
		if !d.m.over(f) {
			alive[f] = true
		}
	}
	before := d.rig.Stats()
	_, _, created, drop := d.rig.send(zone, peer, p)
	after := d.rig.Stats()
	if restarts != (after.Ended[EndRestarted] > before.Ended[EndRestarted]) {
		d.t.Fatalf("%v zone %d flags %#x: restarts %t in the model alone", p.Tuple, zone, p.TCPFlags, restarts)
	}
	if after.Refused[RefusedTable] > before.Refused[RefusedTable] {
		d.refused(alive, p)
		return
	}
	if after.Ended[EndEvicted] > before.Ended[EndEvicted] {
		d.evicted(len(alive))
	}
	wantCreated, want := d.m.send(k, peer, p)
	if drop != want || created != wantCreated {
		d.t.Fatalf("%v zone %d flags %#x type %d: created %t, drop %s; want %t, %s", p.Tuple, zone, p.TCPFlags, p.ICMPType, created, drop, wantCreated, want)
	}
}

// refused: a full table refuses only if no flow in it is fit to be evicted.
func (d *driver) refused(alive map[*modelFlow]bool, p *packet.Packet) {
	if len(alive) != d.max {
		d.t.Fatalf("%v refused with %d live flows", p.Tuple, len(alive))
	}
	for f := range alive {
		if protocol, state, _ := f.state(); state == "one_way" || state == "reset" || state == "time_wait" || state == "syn_sent" {
			d.t.Fatalf("%v refused although %v is %s %s", p.Tuple, f.keys[0], protocol, state)
		}
	}
}

// evicted follows a table that ended one flow to make room; which one is its choice.
func (d *driver) evicted(alive int) {
	gone := 0
	for k, f := range d.m.flows {
		if k != f.keys[0] || d.m.over(f) {
			continue
		}
		if found, _, ok := d.rig.w.Lookup(&k, d.rig.now); ok && d.rig.w.OriginalKey(found) == k {
			continue
		}
		if _, state, _ := f.state(); state == "established" || state == "closing" || state == "two_way" {
			d.t.Fatalf("%v was evicted in state %s", k, state)
		}
		d.m.remove(f)
		gone++
	}
	if gone != 1 || alive != d.max {
		d.t.Fatalf("%d flows evicted for one among %d", gone, alive)
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
	d.rig.End(&k)
	if f := d.m.flows[k]; f != nil {
		d.m.remove(f)
	}
}

func (d *driver) compare() {
	d.rig.Expire(d.rig.now, 0)
	n := 0
	for i := range d.rig.Flows {
		n++
		f, dir := d.m.lookup(i.Key)
		if f == nil || dir != Original {
			d.t.Fatalf("%v is not in the model", i.Key)
		}
		protocol, state, seconds := f.state()
		if i.Class.Protocol() != protocol || i.State() != state || i.Packets != f.packets || i.Bytes != f.bytes || i.ReplyKey != f.keys[1] ||
			uint64(i.ExpiresIn/TickLength) != seconds*100-(d.m.now-f.seen) {
			d.t.Fatalf("%+v; want %s %s, %d s, %+v", *i, protocol, state, seconds, *f)
		}
	}
	want := 0
	for k, f := range d.m.flows {
		if k == f.keys[0] && !d.m.over(f) {
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
	if sum != s.Flows || s.Created-ended != uint64(s.Flows) {
		d.t.Fatalf("counts disagree: %+v", s)
	}
}

func TestRandomOperationsAgreeWithAPlainMap(t *testing.T) {
	runs, length := 60, 20_000
	if testing.Short() {
		runs = 12
	}
	for seed := range runs {
		random := rand.New(rand.NewPCG(uint64(seed), 42))
		ops := make([]byte, length)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		newDriver(t, ops).run()
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
