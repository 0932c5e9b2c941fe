package packet_test

import (
	"bytes"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// anatomy is a packet taken apart slowly: what its bytes say, true or not.
type anatomy struct {
	b       []byte
	version int // 0 without a byte
	header  int // length of the IPv4 header, 40 for IPv6
	total   int // length of the packet
	chain   []extension
	broken  bool // the chain leads out of the packet
	upper   byte // protocol behind the IP headers
	start   int  // offset of its header
}

// extension is one IPv6 extension header.
type extension struct {
	protocol byte
	offset   int
}

// dissect takes b apart as far as it goes.
func dissect(b []byte) (a anatomy) {
	a.b = b
	if len(b) > 0 {
		a.version = int(b[0] >> 4)
	}
	switch {
	case a.version == 4 && len(b) >= 20:
		a.header, a.total = int(b[0]&15)*4, a.u16(2)
		a.upper, a.start = b[9], a.header
	case a.version == 6 && len(b) >= 40:
		a.header, a.total = 40, 40+a.u16(4)
		a.upper, a.start = b[6], 40
		a.walk()
	}
	return a
}

// walk follows the chain of RFC 8200 section 4, with AH (RFC 4302).
func (a *anatomy) walk() {
	end := min(a.total, len(a.b))
	for bytes.IndexByte([]byte{0, 43, 44, 51, 60}, a.upper) >= 0 {
		if a.start+8 > end {
			a.broken = true
			return
		}
		a.chain = append(a.chain, extension{a.upper, a.start})
		next, units := a.b[a.start], int(a.b[a.start+1])
		switch a.upper {
		case 44:
			a.start += 8
		case 51:
			a.start += 4 * (units + 2)
		default:
			a.start += 8 * (units + 1)
		}
		a.upper = next
		if a.start > end {
			a.broken = true
			return
		}
	}
}

func (a *anatomy) u16(at int) int { return int(a.b[at])<<8 | int(a.b[at+1]) }

// whole: the length fields agree with the data and the chain with them.
func (a *anatomy) whole() bool {
	return a.header > 0 && a.header <= a.total && a.total <= len(a.b) && !a.broken
}

// has reports an extension header for which f holds.
func (a *anatomy) has(protocol byte, f func(i, at int) bool) bool {
	for i, h := range a.chain {
		if h.protocol == protocol && f(i, h.offset) {
			return true
		}
	}
	return false
}

// transport is what is behind the IP headers, of a packet that is whole.
func (a *anatomy) transport() []byte { return a.b[a.start:a.total] }

// reasons say, for each reason that Decode has, whether it holds for a packet. Several may;
// which of them Decode names is in its own tests.
var reasons = map[packet.Drop]func(*anatomy) bool{
	packet.DropTruncated: func(a *anatomy) bool {
		shortest := map[byte]int{6: 20, 17: 8, 1: 8}[a.upper]
		if a.version == 6 {
			shortest = map[byte]int{6: 20, 17: 8, 58: 8}[a.upper]
		}
		return len(a.b) == 0 || a.header == 0 && (a.version == 4 || a.version == 6) || a.broken || a.whole() && len(a.transport()) < shortest
	},
	packet.DropVersion: func(a *anatomy) bool { return len(a.b) > 0 && a.version != 4 && a.version != 6 },
	packet.DropIPv4Header: func(a *anatomy) bool {
		return a.version == 4 && len(a.b) >= 20 && (a.header < 20 || a.header > len(a.b))
	},
	packet.DropIPLength: func(a *anatomy) bool { return a.header > 0 && (a.total < a.header || a.total > len(a.b)) },
	packet.DropMappedAddress: func(a *anatomy) bool {
		mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255}
		return a.version == 6 && a.header > 0 && (bytes.HasPrefix(a.b[8:24], mapped) || bytes.HasPrefix(a.b[24:40], mapped))
	},
	packet.DropFragment: func(a *anatomy) bool {
		return a.version == 4 && a.header > 0 && a.u16(6)&0x3fff != 0 || // offset, more
			a.has(44, func(_, at int) bool { return a.u16(at+2)&0xfff9 != 0 })
	},
	packet.DropExtension: func(a *anatomy) bool {
		return a.has(0, func(i, _ int) bool { return i > 0 }) || a.broken && a.upper == 0 && len(a.chain) > 0
	},
	packet.DropExtensionLimit: func(a *anatomy) bool { return len(a.chain) > 8 || a.version == 6 && a.start > 40+1024 },
	packet.DropRoutingHeader:  func(a *anatomy) bool { return a.has(43, func(_, at int) bool { return a.b[at+2] == 0 }) },
	packet.DropTCPHeader: func(a *anatomy) bool {
		if !a.whole() || a.upper != 6 || len(a.transport()) < 20 {
			return false
		}
		offset := int(a.transport()[12]>>4) * 4
		return offset < 20 || offset > len(a.transport())
	},
	packet.DropUDPLength: func(a *anatomy) bool {
		return a.whole() && a.upper == 17 && len(a.transport()) >= 8 && (a.u16(a.start+4) < 8 || a.u16(a.start+4) > len(a.transport()))
	},
}
