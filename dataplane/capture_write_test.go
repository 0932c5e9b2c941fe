package dataplane

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// The two ends of the captures that are made here.
const (
	asker4, asked4 = "192.0.2.10", "198.51.100.20"
	asker6, asked6 = "2001:db8:1::10", "2001:db8:2::20"
)

// writeCaptures makes the captures of testdata: one of each link type, and together a
// packet of every kind that the pipeline tells apart.
func writeCaptures(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ask4 := packettest.Spec{Src: asker4, Dst: asked4, SrcPort: 40000, DstPort: 80}
	ask6 := packettest.Spec{Src: asker6, Dst: asked6, SrcPort: 40000, DstPort: 443}
	ethernet := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, 0, 0)
	vlan := append(append([]byte(nil), ethernet[:12]...), 0x81, 0, 0, 7, 0, 0)
	for _, c := range []struct {
		name   string
		link   uint32
		header []byte // before each packet; its last two bytes become the EtherType, but for SLL2
		bytes  [][]byte
	}{
		{"tcp-ipv4.pcap", 1, ethernet, connection(ask4)},
		{"tcp-ipv6.pcapng", 1, vlan, connection(ask6)},
		{"dns.pcap", 101, nil, questions(ask4, ask6)},
		{"fragments.pcap", 113, make([]byte, 16), fragments(ask4, ask6)},
		{"icmp-errors.pcap", 276, make([]byte, 20), icmpErrors(ask4, ask6)},
		{"extension-headers.pcap", 0, []byte{30, 0, 0, 0}, extensionHeaders(ask6)},
		{"malformed.pcapng", 101, nil, malformed(ask4, ask6)},
	} {
		var b bytes.Buffer
		write := newCaptureWriter(t, &b, filepath.Ext(c.name), c.link)
		for i, p := range c.bytes {
			at := time.Date(2026, 1, 1, 0, 0, 0, i*1e6, time.UTC)
			write(at, linkFrame(c.link, c.header, p))
		}
		if err := os.WriteFile(filepath.Join(dir, c.name), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// linkFrame puts a link's header before an IP packet.
func linkFrame(link uint32, header, p []byte) []byte {
	b := append(append([]byte(nil), header...), p...)
	etherType := uint16(layers.EthernetTypeIPv4)
	if len(p) > 0 && p[0]>>4 == 6 {
		etherType = uint16(layers.EthernetTypeIPv6)
	}
	switch link {
	case 1, 113:
		binary.BigEndian.PutUint16(b[len(header)-2:], etherType)
	case 276:
		binary.BigEndian.PutUint16(b, etherType)
	}
	return b
}

func newCaptureWriter(t *testing.T, b *bytes.Buffer, extension string, link uint32) func(time.Time, []byte) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	info := func(at time.Time, p []byte) gopacket.CaptureInfo {
		return gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(p), Length: len(p)}
	}
	if extension == ".pcapng" {
		// A fixed interface, because the writer's own says which machine wrote it.
		w, err := pcapgo.NewNgWriterInterface(b, pcapgo.NgInterface{Name: "tap0", LinkType: layers.LinkType(link), SnapLength: 65535}, pcapgo.NgWriterOptions{})
		check(err)
		return func(at time.Time, p []byte) {
			check(w.WritePacket(info(at, p), p))
			check(w.Flush())
		}
	}
	w := pcapgo.NewWriter(b)
	check(w.WriteFileHeader(65535, layers.LinkType(link)))
	binary.LittleEndian.PutUint32(b.Bytes()[20:], link) // of which gopacket keeps eight bits
	return func(at time.Time, p []byte) { check(w.WritePacket(info(at, p), p)) }
}

// connection is a handshake, data, and a close; then a reset of another, and a scan.
func connection(ask packettest.Spec) (list [][]byte) {
	answer := answerTo(ask)
	say := func(s packettest.Spec, flags string, payload int) {
		s.Flags, s.Payload = flags, payload
		if flags == "S" || flags == "SA" {
			s.TCPOptions = []layers.TCPOption{{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 180}}}
		}
		list = append(list, packettest.TCP(s))
	}
	say(ask, "S", 0)
	say(answer, "SA", 0)
	say(ask, "A", 0)
	say(ask, "PA", 120)
	say(answer, "PA", 400)
	say(ask, "A", 0)
	say(answer, "FA", 0)
	say(ask, "FA", 0)
	say(answer, "A", 0)
	ask.SrcPort, answer.DstPort = 40001, 40001
	say(ask, "S", 0)
	say(answer, "RA", 0)
	answer.SrcPort, answer.DstPort = 50000, 3389
	for _, flags := range []string{"S", "", "FPU", "SF", "SA"} { // from who was asked, to who is inside
		say(answer, flags, 0)
	}
	return list
}

func answerTo(s packettest.Spec) packettest.Spec {
	s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
	return s
}

// questions are DNS over UDP, pings and their answers, one of which nobody asked for.
func questions(asks ...packettest.Spec) (list [][]byte) {
	for i, ask := range asks {
		ask.DstPort, ask.Payload = 53, 33
		answer := answerTo(ask)
		answer.Payload = 120
		list = append(list, packettest.UDP(ask), packettest.UDP(answer))
		request, reply := []uint8{8, 128}[i], []uint8{0, 129}[i]
		for _, id := range []uint16{1, 2} {
			ask.ICMPType, ask.ICMPID = request, id
			answer.ICMPType, answer.ICMPID = reply, id
			if id == 1 {
				list = append(list, packettest.ICMP(ask))
			}
			list = append(list, packettest.ICMP(answer))
		}
	}
	return append(list, packettest.UDP(packettest.Spec{Src: asker4, Dst: "224.0.0.251", SrcPort: 5353, DstPort: 5353}),
		packettest.ICMP(packettest.Spec{Src: "fe80::1", Dst: "ff02::2", ICMPType: 133}))
}

// fragments are datagrams in pieces: in order, out of order, with one missing, overlapping.
func fragments(asks ...packettest.Spec) (list [][]byte) {
	for i, ask := range asks {
		ask.Payload, ask.DstPort = 200, 53
		for id, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2}, {0, 1, 1}} {
			pieces := packettest.Fragments(packettest.UDP(ask), uint32(10*i+id), 80, 80)
			for _, n := range order {
				list = append(list, pieces[n])
			}
		}
		list = append(list, packettest.Fragments(packettest.TCP(ask), 9, 16)...)
	}
	return list
}

// icmpErrors are errors about a datagram that was sent and about one that was not, from a router.
func icmpErrors(asks ...packettest.Spec) (list [][]byte) {
	for i, ask := range asks {
		ask.Payload = 40
		router := packettest.Spec{Src: []string{"198.51.100.1", "2001:db8:2::1"}[i], Dst: ask.Src}
		other := ask
		other.SrcPort = 41000
		sent, unsent := packettest.UDP(ask), packettest.UDP(other)
		list = append(list, sent)
		for _, kind := range [][]uint8{{3, 11, 12}, {1, 2, 3, 4}}[i] {
			router.ICMPType = kind
			list = append(list, packettest.ICMPError(router, sent), packettest.ICMPError(router, unsent[:48]))
		}
	}
	return list
}

func extensionHeaders(ask packettest.Spec) [][]byte {
	ask.DstPort, ask.Payload = 53, 8
	p := packettest.UDP(ask)
	ah := packettest.Extension{Protocol: packet.ProtoAH, Bytes: append([]byte{0, 4}, make([]byte, 22)...)}
	many := make([]packettest.Extension, 9)
	for i := range many {
		many[i] = packettest.Options(60, 1)
	}
	return [][]byte{p,
		packettest.Extend(p, packettest.Options(0, 1)),
		packettest.Extend(p, packettest.Options(0, 1), packettest.Options(43, 3), packettest.Options(60, 2)),
		packettest.Extend(p, ah),
		packettest.Extend(p, packettest.FragmentHeader(0, false, 7)),
		packettest.Extend(p, many...),
		packettest.Extend(p, packettest.Options(60, 1), packettest.Options(0, 1)),
		packettest.Extend(p, packettest.Extension{Protocol: 43, Bytes: make([]byte, 8)}),
		packettest.Extend(p, packettest.Extension{Protocol: 253, Bytes: make([]byte, 8)}),
		packettest.Extend(packettest.Raw(ask, 59)),
	}
}

// malformed is each packet cut off at every place where a header could end, and with each byte
// of its headers turned round.
func malformed(asks ...packettest.Spec) (list [][]byte) {
	for _, ask := range asks {
		ask.Flags = "S"
		for _, whole := range [][]byte{packettest.TCP(ask), packettest.UDP(ask)} {
			for n := 1; n < len(whole); n += 9 {
				list = append(list, whole[:n])
			}
			for i := 0; i < len(whole); i += 2 {
				damaged := append([]byte(nil), whole...)
				damaged[i] = ^damaged[i]
				list = append(list, damaged)
			}
		}
	}
	return list
}
