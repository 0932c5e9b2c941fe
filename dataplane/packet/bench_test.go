package packet_test

import (
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func BenchmarkDecode(b *testing.B) {
	timestamps := []layers.TCPOption{{OptionType: 1}, {OptionType: 1},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}
	for _, bb := range []struct {
		name  string
		bytes []byte
	}{
		{"IPv4-TCP", packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: "A", Payload: 64})},
		{"IPv4-TCP-timestamps", packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: "A", Payload: 64, TCPOptions: timestamps})},
		{"IPv4-UDP", packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Payload: 64})},
		{"IPv6-UDP", packettest.UDP(packettest.Spec{Src: "fd00::4", Dst: "fd00::5", Payload: 64})},
		{"IPv4-ICMP", packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var d packet.Decoder
			var p packet.Packet
			b.ReportAllocs()
			for b.Loop() {
				if d.Decode(bb.bytes, 0, &p) != packet.NotDropped {
					b.Fatal("dropped")
				}
			}
		})
	}
}
