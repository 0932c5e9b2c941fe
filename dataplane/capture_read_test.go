package dataplane

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// captured is one packet of a capture; ip is nil when it is no IP packet.
type captured struct {
	at time.Time
	ip []byte
}

// linuxSLL2 is LINKTYPE_LINUX_SLL2, 276, as gopacket has it: in eight bits.
const linuxSLL2 = 276 & 0xff

// readCapture reads a pcap or pcapng file, as far as it can be read.
func readCapture(name string) (frames []captured, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	magic, err := in.Peek(4)
	if err != nil {
		return nil, err
	}
	var source interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
		LinkType() layers.LinkType
	}
	if binary.BigEndian.Uint32(magic) == 0x0a0d0d0a { // a section header, in either byte order
		source, err = pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	} else {
		source, err = pcapgo.NewReader(in)
	}
	if err != nil {
		return nil, err
	}
	for {
		data, info, err := source.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		link := source.LinkType()
		if len(info.AncillaryData) > 0 {
			if mixed, ok := info.AncillaryData[0].(layers.LinkType); ok {
				link = mixed
			}
		}
		frames = append(frames, captured{info.Timestamp, ipOf(link, data)})
	}
}

// ipOf strips the link's header, or returns nil for what is no IP packet. The IP packet may be
// as broken as it likes.
func ipOf(link layers.LinkType, b []byte) []byte {
	switch link {
	case layers.LinkTypeEthernet:
		return behindEtherType(b, 12)
	case layers.LinkTypeLinuxSLL:
		return behindEtherType(b, 14)
	case linuxSLL2:
		if len(b) > 20 {
			return behindEtherType(append(append([]byte(nil), b[:2]...), b[20:]...), 0)
		}
	case layers.LinkTypeNull, layers.LinkTypeLoop: // an address family in whoever's byte order
		if len(b) > 4 {
			return b[4:]
		}
	case layers.LinkTypeRaw, 12, 14, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
		if len(b) > 0 {
			return b
		}
	}
	return nil
}

// behindEtherType looks for an IP packet behind an EtherType and VLAN tags.
func behindEtherType(b []byte, at int) []byte {
	for ; len(b) > at+2; at += 4 {
		switch layers.EthernetType(binary.BigEndian.Uint16(b[at:])) {
		case layers.EthernetTypeIPv4, layers.EthernetTypeIPv6:
			return b[at+2:]
		case layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ:
		default:
			return nil
		}
	}
	return nil
}

func TestIPIsFoundBehindEveryLinkHeader(t *testing.T) {
	ip := syn(addr1, addr2, 80)
	with := func(header ...byte) []byte { return append(header, ip...) }
	ethernet := make([]byte, 12)
	for name, tt := range map[string]struct {
		link layers.LinkType
		b    []byte
	}{
		"Ethernet":         {layers.LinkTypeEthernet, with(append(ethernet, 8, 0)...)},
		"Ethernet, VLANs":  {layers.LinkTypeEthernet, with(append(ethernet, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0)...)},
		"Linux SLL":        {layers.LinkTypeLinuxSLL, with(append(make([]byte, 14), 8, 0)...)},
		"Linux SLL2":       {linuxSLL2, with(append([]byte{8, 0}, make([]byte, 18)...)...)},
		"BSD loopback":     {layers.LinkTypeNull, with(2, 0, 0, 0)},
		"OpenBSD loopback": {layers.LinkTypeLoop, with(0, 0, 0, 2)},
		"raw IP":           {layers.LinkTypeRaw, with()},
	} {
		if got := ipOf(tt.link, tt.b); string(got) != string(ip) {
			t.Errorf("%s: found %x", name, got)
		}
		for n := range len(tt.b) - len(ip) { // the header alone, and cut off
			if got := ipOf(tt.link, tt.b[:n]); got != nil {
				t.Errorf("%s: found %x in %d bytes", name, got, n)
			}
		}
	}
	if got := ipOf(layers.LinkTypeEthernet, append(ethernet, 8, 6, 0, 1)); got != nil {
		t.Errorf("ARP: found %x", got)
	}
}
