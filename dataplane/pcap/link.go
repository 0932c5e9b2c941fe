package pcap

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// LinkType is the header that a packet begins with, as in the registry of the tcpdump group.
type LinkType uint16

// The link types that can be read.
const (
	Null          LinkType = 0 // an address family in the byte order of the capturing machine
	Ethernet      LinkType = 1
	Raw           LinkType = 101
	Loop          LinkType = 108 // as Null, in network byte order
	LinuxCooked   LinkType = 113 // SLL
	IPv4          LinkType = 228
	IPv6          LinkType = 229
	LinuxCooked2  LinkType = 276 // SLL2
	rawOfBSD      LinkType = 12  // some files have it, against the registry
	rawOfOpenBSD  LinkType = 14
	etherTypeIPv4          = 0x0800
	etherTypeIPv6          = 0x86dd
)

// String is the type's usual name.
func (l LinkType) String() string {
	switch l {
	case Null:
		return "null"
	case Ethernet:
		return "Ethernet"
	case Raw, rawOfBSD, rawOfOpenBSD:
		return "raw IP"
	case Loop:
		return "loop"
	case LinuxCooked:
		return "Linux SLL"
	case LinuxCooked2:
		return "Linux SLL2"
	case IPv4:
		return "raw IPv4"
	case IPv6:
		return "raw IPv6"
	}
	return fmt.Sprintf("link type %d", uint16(l))
}

// Content is what a packet holds.
type Content uint8

// The contents.
const (
	IP          Content = iota
	NotIP               // such as ARP
	Cut                 // captured too short to tell
	UnknownLink         // of a link type that is not read
)

// IP finds the IP packet: the bytes that were captured of it, and how many there were. length
// may exceed the IP packet, because Ethernet pads short ones. The IP packet itself is not checked.
func (p *Packet) IP() (captured []byte, length int, content Content) {
	at, content := ipOffset(p.Link, p.Data)
	if content != IP {
		return nil, 0, content
	}
	if at >= len(p.Data) {
		return nil, 0, Cut
	}
	return p.Data[at:], p.Length - at, IP
}

// families are the numbers of AF_INET and of AF_INET6 of BSD, macOS, Windows and Linux.
var families = []uint32{2, 10, 23, 24, 28, 30}

// ipOffset is the length of the link layer's header.
func ipOffset(link LinkType, b []byte) (int, Content) {
	switch link {
	case Ethernet:
		return behindEtherType(b, 12)
	case LinuxCooked:
		return behindEtherType(b, 14)
	case LinuxCooked2:
		if len(b) < 2 {
			return 0, Cut
		}
		if etherType := binary.BigEndian.Uint16(b); isTag(etherType) {
			return behindTag(b, 20)
		} else if !isIP(etherType) {
			return 0, NotIP
		}
		return 20, IP
	case Null, Loop:
		if len(b) < 4 {
			return 0, Cut
		}
		if !slices.Contains(families, binary.BigEndian.Uint32(b)) && !slices.Contains(families, binary.LittleEndian.Uint32(b)) {
			return 0, NotIP
		}
		return 4, IP
	case Raw, rawOfBSD, rawOfOpenBSD, IPv4, IPv6:
		return 0, IP
	}
	return 0, UnknownLink
}

func isIP(etherType uint16) bool { return etherType == etherTypeIPv4 || etherType == etherTypeIPv6 }

// isTag reports an EtherType of a VLAN tag: 802.1Q, 802.1ad, and the older QinQ.
func isTag(etherType uint16) bool {
	return etherType == 0x8100 || etherType == 0x88a8 || etherType == 0x9100
}

// behindTag finds IP behind the VLAN tag at an offset.
func behindTag(b []byte, at int) (int, Content) { return behindEtherType(b, at+2) }

// behindEtherType finds IP behind the EtherType at an offset and any VLAN tags.
func behindEtherType(b []byte, at int) (int, Content) {
	for ; len(b) >= at+2; at += 4 {
		if etherType := binary.BigEndian.Uint16(b[at:]); isIP(etherType) {
			return at + 2, IP
		} else if !isTag(etherType) {
			return 0, NotIP
		}
	}
	return 0, Cut
}
