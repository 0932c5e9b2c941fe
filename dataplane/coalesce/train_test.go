package coalesce_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/coalesce"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// whole makes the frame of a packet with a finished checksum, unmade that of one which
// its sender's kernel has left to the device.
func whole(b []byte) []byte { return append(make([]byte, tun.HeaderLen), b...) }

func unmade(b []byte) []byte {
	gsoType := uint8(tun.GSOUDPL4)
	if protocolOf(b) == packet.ProtoTCP {
		gsoType = tun.GSOTCPv4
	}
	frame := packettest.Superpacket(b, gsoType, 0)
	frame[1] = tun.GSONone
	return frame
}

func protocolOf(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[9]
	}
	return b[6]
}

func decode(t testing.TB, frame []byte) *packet.Packet {
	t.Helper()
	p := new(packet.Packet)
	if drop := new(packet.Decoder).Decode(frame[tun.HeaderLen:], 0, p); drop != packet.NotDropped {
		t.Fatalf("%v: %x", drop, frame)
	}
	return p
}

// run puts packets into trains as long as they fit, and returns what leaves.
func run(t testing.TB, frames [][]byte) [][]byte {
	t.Helper()
	var train coalesce.Train
	var sent [][]byte
	send := func() {
		packets, wire := train.Len(), train.WireLen()
		frame := bytes.Join(train.Frame(), nil)
		if got := segments(frame); len(got) != packets || len(bytes.Join(got, nil)) != wire {
			t.Fatalf("%d packets of %d bytes became %d of %d", packets, wire, len(got), len(bytes.Join(got, nil)))
		}
		sent = append(sent, frame)
	}
	for _, f := range frames {
		p := decode(t, f)
		if train.Len() > 0 {
			if train.Append(f, p) {
				continue
			}
			send()
		}
		if !train.Start(f, p) {
			sent = append(sent, f)
		}
	}
	if train.Len() > 0 {
		send()
	}
	return sent
}

// segments are the packets of a frame, with their checksums.
func segments(frame []byte) [][]byte {
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	b := bytes.Clone(frame[tun.HeaderLen:])
	size := int(h.GSOSize)
	if h.GSOType == tun.GSONone {
		if h.Flags&tun.FlagNeedsCsum == 0 {
			return [][]byte{b}
		}
		size = len(b)
	}
	return packettest.Segments(b, size)
}

// check runs frames and holds what leaves against them; it returns how many segments each
// frame that left has.
func check(t testing.TB, frames [][]byte) (lengths []int) {
	t.Helper()
	var want, got [][]byte
	for _, f := range frames {
		want = append(want, segments(f)...)
	}
	// The originals are overwritten.
	copies := make([][]byte, len(frames))
	for i, f := range frames {
		copies[i] = bytes.Clone(f)
	}
	for _, f := range run(t, copies) {
		s := segments(f)
		lengths = append(lengths, len(s))
		got = append(got, s...)
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets became %d", len(want), len(got))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d:\n got %x\nwant %x", i, len(want), got[i], want[i])
		}
	}
	return lengths
}

// stream makes n consecutive packets, each changed by change if that is not nil.
func stream(build func(packettest.Spec) []byte, base packettest.Spec, n int, change func(i int, s *packettest.Spec)) (packets [][]byte) {
	seq := base.Seq
	for i := range n {
		s := base
		s.Seq = seq
		if base.Src[0] == '1' { // IPv4; the IPv6 flow label of a flow stays
			s.ID += uint16(i)
		}
		if change != nil {
			change(i, &s)
		}
		packets = append(packets, build(s))
		seq += uint32(s.Payload)
	}
	return packets
}

func TestTrains(t *testing.T) {
	timestamps := []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("12345678")}}
	v4 := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 5000, DstPort: 53, Payload: 64, ID: 0xfffe, Flags: "A", Seq: 1<<32 - 100, Ack: 9, TCPOptions: timestamps}
	v6 := v4
	v6.Src, v6.Dst = "fd00::4", "fd00::5"
	type change = func(i int, s *packettest.Spec)
	at := func(n int, f func(s *packettest.Spec)) change {
		return func(i int, s *packettest.Spec) {
			if i == n {
				f(s)
			}
		}
	}
	for _, test := range []struct {
		name   string
		change change
		packets,
		v4only int
		tcp, udp []int // segments of each frame that leaves; nil: no such test
	}{
		{name: "consecutive packets leave as one", packets: 10, tcp: []int{10}, udp: []int{10}},
		{name: "no more than fit", packets: 70, tcp: []int{64, 6}, udp: []int{64, 6}},
		{name: "a shorter one is the last one", packets: 5, change: at(2, func(s *packettest.Spec) { s.Payload = 10 }), tcp: []int{3, 2}, udp: []int{3, 2}},
		{name: "a longer one begins another", packets: 5, change: at(2, func(s *packettest.Spec) { s.Payload = 100 }), tcp: []int{2, 2, 1}, udp: []int{2, 2, 1}},
		{name: "large ones up to 64 KiB", packets: 50, change: func(_ int, s *packettest.Spec) { s.Payload = 1400 }, tcp: []int{46, 4}, udp: []int{46, 4}},
		{name: "an empty one goes alone", packets: 3, change: at(1, func(s *packettest.Spec) { s.Payload = 0 }), tcp: []int{1, 1, 1}},
		{name: "another TTL is another train", packets: 4, change: at(2, func(s *packettest.Spec) { s.TTL = 63 }), tcp: []int{2, 1, 1}, udp: []int{2, 1, 1}},
		{name: "a gap in the sequence", packets: 4, change: func(i int, s *packettest.Spec) { s.Seq += uint32(i / 2) }, tcp: []int{2, 2}},
		{name: "a repeated segment", packets: 4, change: at(2, func(s *packettest.Spec) { s.Seq -= 64 }), tcp: []int{2, 1, 1}},
		{name: "another acknowledgement", packets: 4, change: at(3, func(s *packettest.Spec) { s.Ack++ }), tcp: []int{3, 1}},
		{name: "PSH ends a train", packets: 4, change: at(1, func(s *packettest.Spec) { s.Flags = "PA" }), tcp: []int{2, 2}},
		{name: "what has PSH first goes alone", packets: 3, change: at(0, func(s *packettest.Spec) { s.Flags = "PA" }), tcp: []int{1, 2}},
		{name: "FIN goes alone", packets: 3, change: at(1, func(s *packettest.Spec) { s.Flags = "FA" }), tcp: []int{1, 1, 1}},
		{name: "SYN goes alone", packets: 2, change: func(_ int, s *packettest.Spec) { s.Flags = "S" }, tcp: []int{1, 1}},
		{name: "other options are another train", packets: 3, change: at(1, func(s *packettest.Spec) {
			s.TCPOptions = []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("12345679")}}
		}), tcp: []int{1, 1, 1}},
	} {
		for _, family := range []struct {
			name string
			base packettest.Spec
		}{{"IPv4", v4}, {"IPv6", v6}} {
			for _, protocol := range []struct {
				name  string
				build func(packettest.Spec) []byte
				want  []int
			}{{"TCP", packettest.TCP, test.tcp}, {"UDP", packettest.UDP, test.udp}} {
				for _, checksum := range []struct {
					name string
					make func([]byte) []byte
				}{{"made", whole}, {"not made", unmade}} {
					if protocol.want == nil {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s %s, checksums %s", test.name, family.name, protocol.name, checksum.name), func(t *testing.T) {
						var frames [][]byte
						for _, b := range stream(protocol.build, family.base, test.packets, test.change) {
							frames = append(frames, checksum.make(b))
						}
						if got := check(t, frames); fmt.Sprint(got) != fmt.Sprint(protocol.want) {
							t.Errorf("segments %v, want %v", got, protocol.want)
						}
					})
				}
			}
		}
	}
}

func TestWhatATrainWouldChangeGoesAlone(t *testing.T) {
	base := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 5000, DstPort: 53, Payload: 64}
	for _, test := range []struct {
		name  string
		spoil func(b []byte) // each packet of three
	}{
		{"a wrong UDP checksum", func(b []byte) { b[20+6]++ }},
		{"no UDP checksum", func(b []byte) { b[20+6], b[20+7] = 0, 0 }},
		{"a wrong IPv4 checksum", func(b []byte) { b[10]++ }},
		{"an identification that does not count up", func(b []byte) {
			binary.BigEndian.PutUint16(b[4:], 7)
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], ^packettest.Sum(b[:20]))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var frames [][]byte
			for _, b := range stream(packettest.UDP, base, 3, nil) {
				test.spoil(b)
				frames = append(frames, whole(b))
			}
			if got := check(t, frames); len(got) != 3 {
				t.Errorf("segments %v", got)
			}
		})
	}
	t.Run("an unmade checksum over another pseudo-header", func(t *testing.T) {
		var frames [][]byte
		for _, b := range stream(packettest.UDP, base, 3, nil) {
			frames = append(frames, unmade(b))
			frames[len(frames)-1][tun.HeaderLen+20+6]++
		}
		for i, f := range run(t, frames) {
			if !bytes.Equal(f, frames[i]) {
				t.Errorf("packet %d was changed", i)
			}
		}
	})
	v4 := base
	v4.Flags = "A"
	// The virtio-net header may say that no checksum needs a look.
	for _, test := range []struct {
		name   string
		starts bool
		pair   func() [][]byte
	}{
		{"fragments", false, func() (pair [][]byte) {
			for _, b := range stream(packettest.TCP, v4, 2, nil) {
				pair = append(pair, whole(packettest.Fragments(b, 0, 64)[0]))
			}
			return pair
		}},
		{"UDP without checksums", false, func() (pair [][]byte) {
			for _, b := range stream(packettest.UDP, base, 2, nil) {
				b[20+6], b[20+7] = 0, 0
				pair = append(pair, whole(b))
			}
			return pair
		}},
		{"superpackets of one segment", false, func() (pair [][]byte) {
			for _, b := range stream(packettest.TCP, v4, 2, nil) {
				pair = append(pair, packettest.Superpacket(b, tun.GSOTCPv4, 1000))
			}
			return pair
		}},
		{"another window", true, func() (pair [][]byte) {
			for i, b := range stream(packettest.TCP, v4, 2, nil) {
				b[20+14] = byte(i)
				pair = append(pair, whole(b))
			}
			return pair
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var train coalesce.Train
			pair := test.pair()
			for _, frame := range pair {
				frame[0] |= tun.FlagDataValid
			}
			if got := train.Start(pair[0], decode(t, pair[0])); got != test.starts {
				t.Fatalf("begins a train: %t", got)
			}
			if test.starts && train.Append(pair[1], decode(t, pair[1])) {
				t.Error("they were put together")
			}
		})
	}
	t.Run("two flows", func(t *testing.T) {
		b := stream(packettest.UDP, base, 1, nil)
		base.SrcPort, base.ID = 5001, 1
		b = append(b, stream(packettest.UDP, base, 1, nil)...)
		if got := check(t, [][]byte{whole(b[0]), whole(b[1])}); len(got) != 2 {
			t.Errorf("segments %v", got)
		}
	})
}

// FuzzTrainsChangeNoPacket makes a flow's packets of the input's numbers. Each can differ from the one
// before in any way that matters. Some get a spoilt byte.
func FuzzTrainsChangeNoPacket(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(seed), []byte{0, 0, 0, 40, 0, 0, 200, 0})
	}
	f.Fuzz(func(t *testing.T, seed uint64, kind uint8, moves []byte) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Flags: "A", Payload: 1 + int(kind/8)*40, Seq: uint32(seed), ID: uint16(seed)}
		build, frame := packettest.UDP, whole
		if kind&1 != 0 {
			s.Src, s.Dst = "fd00::4", "fd00::5"
		}
		if kind&2 != 0 {
			build = packettest.TCP
		}
		if kind&4 != 0 {
			frame = unmade
		}
		var frames [][]byte
		for _, m := range moves[:min(len(moves), 100)] {
			p := s
			switch m >> 3 {
			case 1:
				p.Payload = r.IntN(s.Payload + 1)
			case 2:
				p.Flags = []string{"PA", "FA", "A", "SA", "RA", "UA"}[m&7%6]
			case 3:
				s.Ack++
			case 4:
				s.Seq++
			case 5:
				s.ID++
			case 6:
				p.TTL = m
			case 7:
				s.DstPort ^= 1
			}
			b := frame(build(p))
			if m >= 250 { // not the addresses' family, the lengths or the protocol: it would not decode
				b[tun.HeaderLen+[]int{1, 5, 8, 10, 11}[r.IntN(5)]] ^= 1 << (m & 7)
			}
			if new(packet.Decoder).Decode(b[tun.HeaderLen:], 0, new(packet.Packet)) == packet.NotDropped {
				frames = append(frames, b)
			}
			s.Seq += uint32(p.Payload)
			if kind&1 == 0 {
				s.ID++
			}
		}
		check(t, frames)
	})
}

func BenchmarkTrain(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("packets=%d", n), func(b *testing.B) {
			base := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 5000, DstPort: 53, Payload: 64}
			var frames [][]byte
			var packets []*packet.Packet
			for _, p := range stream(packettest.UDP, base, n, nil) {
				frames = append(frames, unmade(p))
				packets = append(packets, decode(b, frames[len(frames)-1]))
			}
			first := bytes.Clone(frames[0])
			var t coalesce.Train
			b.ReportAllocs()
			for b.Loop() {
				copy(frames[0], first)
				t.Start(frames[0], packets[0])
				for i := 1; i < n; i++ {
					if !t.Append(frames[i], packets[i]) {
						b.Fatal("refused")
					}
				}
				t.Frame()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
		})
	}
}
