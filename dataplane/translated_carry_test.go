package dataplane

import (
	"fmt"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// outward is a packet of flow i of a worker to the internet, with what the outside sends back.
func outward(src, dst string, worker, i int, flags string) spec {
	return spec{Src: src, Dst: dst, SrcPort: flowPort(worker, i), DstPort: 53, Payload: 64, Flags: flags}
}

// opened begins a worker's flows of VM1 by its own public address.
func opened(f translatedFamily, build func(spec) []byte) func(worker int) []step {
	return func(worker int) (steps []step) {
		for i := range carryFlows {
			steps = append(steps,
				step{vm1, build(outward(f.vm1, f.world, worker, i, "S")), internet, ""},
				step{internet, build(back(outward(f.public1, f.world, worker, i, "SA"))), vm1, ""},
				step{vm1, build(outward(f.vm1, f.world, worker, i, "A")), internet, ""})
		}
		return steps
	}
}

func translatedThere(f translatedFamily, build func(spec) []byte) func(worker, i int) []byte {
	return func(worker, i int) []byte { return build(outward(f.vm1, f.world, worker, i, "A")) }
}

// twice counts what came out at an attachment, less two packets for each flow.
func twice(at int) func(*Engine) uint64 {
	return func(e *Engine) uint64 { return e.AttachmentCounts()[at].TransmitPackets - 2*e.Flows().Stats().Created }
}

// outwardParts are a datagram of VM1 to the internet in parts of 64 bytes.
func outwardParts(worker, i int) [][]byte {
	s := outward(addr1, world, worker, i%carryFlows, "")
	s.Payload = 64*(1+carryParts) - 8
	sizes := make([]int, carryParts)
	for i := range sizes {
		sizes[i] = 64
	}
	return packettest.Fragments(packettest.UDP(s), uint32(worker<<13|i), sizes...)
}

var translatedCases = []carryCase{
	{name: "translated-TCP", translates: true, from: vm1, packets: carryFlows, took: twice(internet),
		make: translatedThere(translatedFamilies[0], packettest.TCP), begin: opened(translatedFamilies[0], packettest.TCP)},
	{name: "translated-TCP-IPv6", translates: true, from: vm1, packets: carryFlows, took: twice(internet),
		make: translatedThere(translatedFamilies[1], packettest.TCP), begin: opened(translatedFamilies[1], packettest.TCP)},
	{name: "translated-UDP", translates: true, from: vm1, packets: carryFlows, took: twice(internet),
		make: translatedThere(translatedFamilies[0], packettest.UDP), begin: opened(translatedFamilies[0], packettest.UDP)},
	{name: "translated-TCP-reply", translates: true, from: internet, packets: carryFlows, took: arrived(vm1),
		make: func(worker, i int) []byte {
			return packettest.TCP(back(outward(public1, world, worker, i, "A")))
		},
		begin: opened(translatedFamilies[0], packettest.TCP)},
	{name: "translated-new-flow", translates: true, from: vm1, packets: 1 << 15, once: true,
		make: func(worker, i int) []byte {
			return packettest.UDP(spec{Src: addr1, Dst: world, SrcPort: uint16(i), DstPort: uint16(1 + worker), Payload: 64})
		},
		took: func(e *Engine) uint64 { return e.Flows().Stats().Created }},
	{name: "shared-new-flow", translates: true, from: vm4, packets: 1 << 14, once: true,
		make: func(worker, i int) []byte {
			return packettest.UDP(spec{Src: addr4, Dst: world, SrcPort: uint16(i), DstPort: uint16(1 + worker), Payload: 64})
		},
		took: func(e *Engine) uint64 { return e.Flows().Stats().Created }},
	{name: "balanced-new-flow", translates: true, from: internet, packets: 1 << 15, once: true,
		make: func(worker, i int) []byte {
			return packettest.UDP(spec{Src: []string{world, world2}[worker], Dst: balanced, SrcPort: uint16(i), DstPort: 80, Payload: 64})
		},
		// Only rules for TCP and for port 80 let it in, which is not the backends' port.
		took: func(e *Engine) uint64 { return e.Flows().Stats().Created + e.Drops()[packet.DropRule] }},
	{name: "translated-ICMP-echo", translates: true, from: vm1, packets: carryFlows, took: arrived(internet),
		make: func(worker, i int) []byte { return echo(addr1, world, 8, flowPort(worker, i)) },
		begin: func(worker int) (steps []step) {
			for i := range carryFlows {
				steps = append(steps, step{vm1, echo(addr1, world, 8, flowPort(worker, i)), internet, ""})
			}
			return steps
		}},
	{name: "translated-ICMP-error", translates: true, from: internet, packets: carryFlows, took: arrived(vm1),
		make: func(worker, i int) []byte {
			return unreachable(router, public1, packettest.UDP(outward(public1, world, worker, i, "")))
		},
		begin: opened(translatedFamilies[0], packettest.UDP)},
	{name: "translated-first-fragment", translates: true, from: vm1, packets: carryDatagrams * carryParts, once: true,
		make:  func(worker, i int) []byte { return outwardParts(worker, i)[0] },
		begin: opened(translatedFamilies[0], packettest.UDP),
		took:  func(e *Engine) uint64 { return uint64(e.Fragments().Datagrams()) }},
	{name: "translated-later-fragment", translates: true, from: vm1, packets: carryDatagrams * carryParts, once: true, took: arrived(internet),
		make: func(worker, i int) []byte {
			return outwardParts(worker, i%carryDatagrams)[1+i/carryDatagrams]
		},
		begin: func(worker int) (steps []step) {
			for d := range carryDatagrams {
				steps = append(steps, step{vm1, outwardParts(worker, d)[0], internet, ""})
			}
			return steps
		}},
	{name: "no-frontend", translates: true, from: internet, packets: carryFlows, took: dropped(packet.DropNoFrontend),
		make: func(worker, i int) []byte {
			return packettest.TCP(spec{Src: world, Dst: shared, SrcPort: flowPort(worker, i), DstPort: 22, Flags: "S"})
		}},
}

// BenchmarkSharedPort is a new flow by a NAT gateway with one address, of which so many ports are in
// use for the same destination.
func BenchmarkSharedPort(b *testing.B) {
	for _, used := range []int{0, 5_000, 60_000} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			r := newRigWith(b, translatedFigure(), carryOptions(1))
			w := r.engine.workers[0]
			frame := func(n int) []byte {
				return framed(packettest.UDP(spec{Src: addr4, Dst: world, SrcPort: uint16(n), DstPort: 53}))
			}
			send := func(frames [][]byte) {
				for _, f := range frames {
					r.devices[vm4].Inject(0, f)
				}
				if err := w.carryBurst(vm4); err != nil {
					b.Fatal(err)
				}
				r.devices[internet].Drain(0, nil)
			}
			var frames [][]byte
			for n := 1; n <= used; n++ {
				if frames = append(frames, frame(n)); len(frames) == burstPackets || n == used {
					send(frames)
					frames = frames[:0]
				}
			}
			for i := range burstPackets {
				frames = append(frames, frame(used+1+i))
			}
			var keys []conntrack.Key
			for _, f := range frames {
				keys = append(keys, conntrack.Key{Tuple: decoded(b, f).Tuple, Zone: vm4})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= burstPackets {
				send(frames)
				b.StopTimer()
				if got := r.engine.Flows().Stats().Flows; got != int64(used+burstPackets) {
					b.Fatalf("%d flows", got)
				}
				for i := range keys {
					r.engine.Flows().End(&keys[i])
				}
				b.StartTimer()
			}
		})
	}
}
