package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// FuzzPipeline feeds frames to an engine of one worker. Each takes a byte for the
// attachment and the clock's step, two for its length, and its own bytes, virtio-net
// header included. Whatever they are, each frame is carried unchanged or dropped
// under one reason.
func FuzzPipeline(f *testing.F) {
	frame := func(from byte, h tun.Header, p []byte) []byte {
		b := binary.BigEndian.AppendUint16([]byte{from}, uint16(tun.HeaderLen+len(p)))
		b = append(b, make([]byte, tun.HeaderLen)...)
		h.Encode((*[tun.HeaderLen]byte)(b[3:]))
		return append(b, p...)
	}
	spec := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 80, Flags: "S", Payload: 9, ICMPType: 8}
	back := packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 80, DstPort: 1, Flags: "SA", Payload: 9}
	for _, h := range []tun.Header{{}, {GSOType: tun.GSOTCPv4, GSOSize: 4}, {GSOType: tun.GSOUDPL4, GSOSize: 4}, {GSOType: 255, GSOSize: 1}} {
		f.Add(append(frame(vm1, h, packettest.TCP(spec)), frame(vm4, h, packettest.TCP(back))...))
		f.Add(append(frame(vm1, h, packettest.UDP(spec)), frame(vm4|0x80, h, packettest.UDP(back))...))
		f.Add(append(frame(vm1, h, packettest.ICMP(spec)), frame(vm4, h, packettest.ICMP(back))...))
		f.Add(append(frame(internet, h, syn(world, addr1, 80)), frame(internet, h, syn(world, addr1, 81))...))
	}
	f.Add(append(frame(vm1, tun.Header{}, packettest.UDP(spec)),
		frame(vm4, tun.Header{}, unreachable(addr4, addr1, packettest.UDP(spec)))...))
	r := newRig(f, figureOfTheSeed(), conntrack.Options{Max: 64, MaxPerZone: 32})
	w := r.engine.workers[0]
	f.Fuzz(func(t *testing.T, script []byte) {
		r.engine.Flows().Flush()
		for len(script) > 3 {
			from := int(script[0]&0x7f) % numAttachments
			r.clock += time.Duration(script[0]>>7) * 20 * time.Second
			n := min(int(binary.BigEndian.Uint16(script[1:])), len(script)-3)
			b := script[3 : 3+n]
			script = script[3+n:]
			if !r.devices[from].Inject(0, b) {
				continue // shorter than a header or longer than a slot
			}
			sent, dropped := figures(r.engine)
			if err := w.burst(from); err != nil {
				t.Fatal(err)
			}
			out := 0
			for _, d := range r.devices {
				out += d.Drain(0, func(frame []byte) {
					if string(frame) != string(b) {
						t.Errorf("%x came out as %x", b, frame)
					}
				})
			}
			sentAfter, droppedAfter := figures(r.engine)
			segments := sentAfter.ReceivePackets - sent.ReceivePackets
			switch {
			case segments < 1:
				t.Errorf("%x was not counted", b)
			case out == 1 && droppedAfter == dropped && sentAfter.TransmitPackets-sent.TransmitPackets == segments &&
				sentAfter.TransmitBytes-sent.TransmitBytes == sentAfter.ReceiveBytes-sent.ReceiveBytes:
			case out == 0 && droppedAfter == dropped+1 && sentAfter.TransmitPackets == sent.TransmitPackets:
			default:
				t.Errorf("%x came out %d times, %d drops, from %+v to %+v", b, out, droppedAfter-dropped, sent, sentAfter)
			}
		}
	})
}

// figures sums the attachments' counters and the drops.
func figures(e *Engine) (sum AttachmentCount, dropped uint64) {
	for _, c := range e.AttachmentCounts() {
		sum.ReceivePackets += c.ReceivePackets
		sum.ReceiveBytes += c.ReceiveBytes
		sum.TransmitPackets += c.TransmitPackets
		sum.TransmitBytes += c.TransmitBytes
	}
	for _, n := range e.Drops() {
		dropped += n
	}
	return sum, dropped
}

// TestNoPacketAllocatesWhateverItsBytes sends packets of a few hosts and ports with
// random damage, so that they meet every step of the pipeline and every reason
// to drop but those of the topology.
func TestNoPacketAllocatesWhateverItsBytes(t *testing.T) {
	const packets = 1 << 14
	random := rand.New(rand.NewPCG(1, 2))
	addresses := []string{addr1, addr2, addr3, addr4, world}
	flags := []string{"S", "SA", "A", "PA", "FA", "R", "RA", "SF"}
	var frames [packets][]byte
	for i := range frames {
		from := random.IntN(len(addresses))
		s := packettest.Spec{Src: addresses[from], Dst: addresses[random.IntN(len(addresses))],
			SrcPort: uint16(80 + random.IntN(2)), DstPort: uint16(80 + random.IntN(2)), Flags: flags[random.IntN(len(flags))],
			ICMPType: []uint8{0, 3, 8, 13, 14}[random.IntN(5)], Payload: random.IntN(32)}
		p := []func(packettest.Spec) []byte{packettest.TCP, packettest.UDP, packettest.ICMP}[random.IntN(3)](s)
		if random.IntN(4) == 0 {
			p[random.IntN(len(p))] ^= 1 << random.IntN(8)
		}
		h := tun.Header{}
		if random.IntN(8) == 0 {
			h = tun.Header{GSOType: []uint8{tun.GSOTCPv4, tun.GSOUDPL4, 99}[random.IntN(3)], GSOSize: uint16(random.IntN(8))}
		}
		frames[i] = append(append([]byte{byte(from)}, make([]byte, tun.HeaderLen)...), p...)
		h.Encode((*[tun.HeaderLen]byte)(frames[i][1:]))
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 16, MaxPerZone: 8})
	w := r.engine.workers[0]
	next, sent := 0, uint64(0)
	run := func() {
		for range packets / 8 {
			f := frames[next%packets]
			next++
			r.clock += 100 * time.Millisecond
			if r.devices[f[0]].Inject(0, f[1:]) {
				sent++
			}
			if err := w.burst(int(f[0])); err != nil {
				t.Fatal(err)
			}
			for _, d := range r.devices {
				sent -= uint64(d.Drain(0, nil))
			}
		}
	}
	if n := testing.AllocsPerRun(15, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, dropped := figures(r.engine); dropped != sent {
		t.Errorf("%d dropped, %d not carried", dropped, sent)
	}
	drops := r.engine.Drops()
	for d := packet.NotDropped + 1; d < packet.NumDrops; d++ {
		switch d {
		case packet.DropMappedAddress, packet.DropExtension, packet.DropExtensionLimit, packet.DropRoutingHeader, packet.DropTransmit, packet.DropFlowConflict, packet.DropKernelNoise, packet.DropICMPError, packet.DropFlowRate,
			packet.DropFragmentTooLong, packet.DropFragmentTiny, packet.DropFragmentOverlap, packet.DropFragmentGaps, packet.DropFragmentLimit:
			// IPv6 alone, a device's refusal, overlapping networks, no rate set, conntrack asked without the
			// pipeline, fragments of one datagram
			continue
		}
		if drops[d] == 0 {
			t.Errorf("no packet was dropped under %s", d)
		}
	}
}
