package dataplane

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

var hostileTime = flag.Duration("hostile.time", time.Second, "how long random frames are sent")

// Packets of a translated world with wrong bytes, virtio-net headers that lie, and fragments in any order:
// nothing panics, every frame is carried or counted, and nothing of them stays.
//
//	go test -race ./dataplane -run Hostile21 -hostile.time 10m
func TestHostile21RandomFrames(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := newRigWith(t, translatedFigure(), Options{Flows: conntrack.Options{Max: 4096}, Fragments: fragment.Options{Max: 64, Hold: 32}})
	g := &garbler{random: random}
	sent, carried, last := uint64(0), uint64(0), []byte(nil)
	defer func() {
		if e := recover(); e != nil {
			t.Errorf("frame %d: %x", sent, last)
			panic(e)
		}
	}()
	for end := time.Now().Add(*hostileTime); time.Now().Before(end); {
		from := random.IntN(numAttachments)
		for _, frame := range g.frames() {
			if last = frame; len(frame) <= tun.HeaderLen || !r.devices[from].Inject(0, frame) {
				continue
			}
			sent++
			if err := r.engine.workers[0].carryBurst(from); err != nil {
				t.Fatal(err)
			}
			for _, d := range r.devices {
				d.Drain(0, func(out []byte) {
					carried++
					g.keep(out[tun.HeaderLen:])
				})
			}
		}
		if random.IntN(50) == 0 {
			r.clock += time.Duration(random.IntN(3000)) * time.Millisecond
			r.engine.flows.Expire(r.engine.Now(), 100)
			r.engine.fragments.Expire(r.clock, time.Second)
		}
	}
	r.clock += time.Hour
	r.engine.flows.Expire(r.engine.Now(), 1<<20)
	r.engine.fragments.Expire(r.clock, time.Hour)
	dropped := uint64(0)
	for _, n := range r.engine.Drops() {
		dropped += n
	}
	if carried == 0 || dropped == 0 || carried+dropped < sent { // a superpacket may count as several
		t.Errorf("%d frames sent, %d carried, %d dropped", sent, carried, dropped)
	}
	if s := r.engine.flows.Stats(); s.Flows != 0 || r.engine.fragments.Datagrams() != 0 || r.engine.fragments.Held() != 0 {
		t.Errorf("%d flows, %d datagrams and %d fragments stay", s.Flows, r.engine.fragments.Datagrams(), r.engine.fragments.Held())
	}
	t.Logf("%d frames, %d carried", sent, carried)
}

// garbler makes frames out of what it has seen, and breaks them.
type garbler struct {
	random *rand.Rand
	seen   [][]byte
}

func (g *garbler) pick(list ...string) string { return list[g.random.IntN(len(list))] }

func (g *garbler) keep(b []byte) {
	if b = bytes.Clone(b); len(g.seen) < 500 {
		g.seen = append(g.seen, b)
	} else {
		g.seen[g.random.IntN(len(g.seen))] = b
	}
}

func (g *garbler) packet() []byte {
	random, address := g.random, func() string {
		return g.pick(addr1, addr2, addr3, addr4, world, world2, public1, public2, balanced, floats, shared, router)
	}
	if random.IntN(3) == 0 {
		address = func() string {
			return g.pick("fd00:0:0:1::4", "fd00:0:0:1::5", "fd00:0:0:3::4", "2001:db8::10", public16, shared6)
		}
	}
	ports := []uint16{80, 8080, uint16(40000 + random.IntN(4)), uint16(1024 + random.IntN(64512))}
	s := packettest.Spec{Src: address(), Dst: address(), SrcPort: ports[random.IntN(4)], DstPort: ports[random.IntN(3)],
		Flags: g.pick("S", "SA", "A", "PA", "FA", "R", "RA"), Payload: []int{0, 8, 100, 1400, 4000}[random.IntN(5)], ID: uint16(random.IntN(4))}
	switch n := random.IntN(5); {
	case n == 0:
		return packettest.UDP(s)
	case n == 1:
		s.ICMPType = []uint8{8, 0, 13, 128, 129}[random.IntN(5)]
		return packettest.ICMP(s)
	case n == 2 && len(g.seen) > 0:
		s.ICMPType = []uint8{3, 11, 12, 1, 2}[random.IntN(5)]
		quote := g.seen[random.IntN(len(g.seen))]
		return packettest.ICMPError(s, quote[:min(len(quote), 8+random.IntN(80))])
	case n == 3 && len(g.seen) > 0:
		return bytes.Clone(g.seen[random.IntN(len(g.seen))])
	}
	b := packettest.TCP(s)
	if b[0]>>4 == 6 && random.IntN(4) == 0 {
		b = packettest.Extend(b, packettest.Options([]uint8{0, 43, 60}[random.IntN(3)], 1+random.IntN(3)))
	}
	return b
}

func (g *garbler) frames() (frames [][]byte) {
	random, b := g.random, g.packet()
	parts := [][]byte{b}
	if sound := len(b) > 140 && b[0] == 0x45 && b[6]&0x3f == 0 && b[7] == 0; sound && random.IntN(5) == 0 {
		parts = packettest.Fragments(b, uint32(random.IntN(8)), 24+8*random.IntN(4), 8*(1+random.IntN(6)))
		random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	}
	for _, p := range parts {
		p = bytes.Clone(p)
		for range random.IntN(4) {
			p[random.IntN(min(len(p), 100))] = byte(random.Uint32())
		}
		if random.IntN(6) == 0 {
			p = p[:random.IntN(len(p)+1)]
		}
		frame := append(make([]byte, tun.HeaderLen), p...)
		if random.IntN(4) == 0 {
			h := tun.Header{Flags: uint8(random.IntN(4)), GSOType: []uint8{0, 1, 4, 5, 0x81, 3, 2}[random.IntN(7)],
				GSOSize:   []uint16{0, 1, 8, 100, 1400, 65535}[random.IntN(6)],
				CsumStart: []uint16{20, 40, 24, 28, uint16(random.IntN(200))}[random.IntN(5)], CsumOffset: []uint16{16, 6, 2, uint16(random.IntN(100))}[random.IntN(4)],
				HdrLen: uint16(random.IntN(200))}
			h.Encode((*[tun.HeaderLen]byte)(frame))
		}
		frames = append(frames, frame)
	}
	return frames
}
