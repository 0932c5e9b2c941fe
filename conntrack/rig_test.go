package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// rig is a table with one worker and a clock, and does with packets what the
// engine does, with rules that allow everything.
type rig struct {
	*Table
	t   testing.TB
	w   *Worker
	now Tick
	// established is Init.Established of the flows that send creates.
	established time.Duration
	stateless   bool // Init.Stateless of them
	marks       Marks
	arrives     packet.Tuple // Init.Arrives of them, when there are marks
}

// packetLen is the wire length of every packet of these tests.
const packetLen = 100

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	if o.Seed == [2]uint64{} {
		o.Seed = [2]uint64{1, 2}
	}
	if o.Max == 0 {
		o.Max = 1024
	}
	if o.Zones == 0 {
		o.Zones = 8
	}
	table, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	// A start shortly before the wrap lets every test cross it.
	return &rig{Table: table, t: t, w: table.Worker(0), now: ^Tick(0) - 500}
}

func (r *rig) wait(d time.Duration) { r.now += Tick(d / TickLength) }

// send carries a packet that came in on zone and goes to peer.
func (r *rig) send(zone, peer uint16, p *packet.Packet) (f Flow, d Direction, created bool, drop packet.Drop) {
	k := Key{p.Tuple, zone}
	if f, d, ok := r.w.Lookup(&k, r.now); ok {
		if r.w.Accepts(f, d, p, r.now) {
			f, d, _ = r.w.Lookup(&k, r.now)
		}
		succeeds := r.w.Succeeds(f, d, p)
		if !succeeds && !r.w.Restarts(f, d, p) {
			return f, d, false, r.w.Pass(f, d, p, r.now)
		}
		if drop := r.w.MayBegin(zone, peer, r.now); drop != packet.NotDropped {
			return 0, 0, false, drop
		}
		r.w.NotBegun(zone, peer)
		if !succeeds {
			r.w.End(f, EndRestarted)
		}
	}
	if r.w.Barred(&k, Reply, p, r.now) {
		return 0, 0, false, packet.DropFlowCut
	}
	drop = MayCreate(p, r.Strict())
	if r.stateless {
		drop = MayCreateStateless(p)
	}
	if drop != packet.NotDropped {
		return 0, 0, false, drop
	}
	init := Init{Slots: MakeSlots(1), Generation: 7, ReplyZone: peer, Established: r.established, Stateless: r.stateless, Marks: r.marks, Arrives: &r.arrives}
	if drop := r.w.MayBegin(zone, peer, r.now); drop != packet.NotDropped {
		return 0, 0, false, drop
	}
	if f, d, created, drop = r.w.Insert(&k, &init, p, r.now); created {
		r.w.Count(f, d, p)
	} else {
		r.w.NotBegun(zone, peer)
	}
	return f, d, created, drop
}

func (r *rig) create(zone, peer uint16, p *packet.Packet) Flow {
	r.t.Helper()
	f, _, created, drop := r.send(zone, peer, p)
	if !created {
		r.t.Fatalf("%v: no flow created: %s", p.Tuple, drop)
	}
	return f
}

// state is that of the live flow that the original packet p belongs to, or "none".
func (r *rig) state(zone uint16, p *packet.Packet) string {
	k := Key{p.Tuple, zone}
	f, _, ok := r.w.Lookup(&k, r.now)
	if !ok {
		return "none"
	}
	return r.w.Class(f).State()
}

// recycle lets everything that ended become reusable.
func (r *rig) recycle() {
	for range 4 {
		r.w.Quiesce()
		r.Expire(r.now, 0)
	}
}

func host(n int) packet.Addr {
	return packet.AddrFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func host6(n int) packet.Addr { return packet.Addr{Hi: 0xfd00 << 48, Lo: uint64(n)} }

func newPacket(proto uint8, source, destination int, sport, dport uint16) *packet.Packet {
	return &packet.Packet{
		Tuple:    packet.Tuple{Src: host(source), Dst: host(destination), SrcPort: sport, DstPort: dport, Proto: proto},
		Segments: 1, WireLen: packetLen, Len: packetLen,
	}
}

// tcp is a segment from host 1 to host 2; reversed gives the other direction's. Both sides begin with
// sequence number 0 and send nothing but flags.
func tcp(flags string) *packet.Packet {
	p := newPacket(packet.ProtoTCP, 1, 2, 40000, 80)
	number(p, tcpFlags(flags))
	return p
}

// number makes p a segment without data of sides that both begin with sequence number 0.
func number(p *packet.Packet, flags uint8) {
	p.TCPFlags, p.Window, p.PayloadOffset = flags, 65535, uint16(p.Len)
	if flags&packet.SYN == 0 {
		p.Seq = 1
	}
	if flags&packet.ACK != 0 {
		p.Ack = 1
	}
}

func udp(sport uint16) *packet.Packet { return newPacket(packet.ProtoUDP, 1, 2, sport, 53) }

// echo is an ICMP message of a type with an identifier where packet.Decode puts it.
func echo(icmpType uint8, id uint16) *packet.Packet {
	p := newPacket(packet.ProtoICMP, 1, 2, id, 0)
	p.ICMPType = icmpType
	return p
}

func reversed(p *packet.Packet) *packet.Packet {
	q := *p
	q.Tuple = p.Reverse()
	return &q
}

func tcpFlags(letters string) (flags uint8) {
	for _, l := range letters {
		flags |= map[rune]uint8{'F': packet.FIN, 'S': packet.SYN, 'R': packet.RST, 'P': packet.PSH, 'A': packet.ACK, 'U': packet.URG}[l]
	}
	return flags
}
