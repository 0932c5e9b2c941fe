package packet_test

import (
	"bytes"
	"slices"

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
	// Of a fragment, whose zero value is a whole packet: where in its datagram it begins, whether
	// more follow, where its part begins, and how many bytes before that the datagram counts.
	offset, part, before int
	more                 bool
}

func (a *anatomy) isFragment() bool { return a.more || a.offset > 0 }

// fragment is what Decode is to say of the packet's place in its datagram.
func (a *anatomy) fragment(payload int) (f packet.Fragment) {
	if !a.isFragment() {
		return f
	}
	f = packet.Fragment{Start: uint16(a.offset), End: uint16(a.offset + a.total - a.part), More: a.more}
	if a.version == 4 {
		f.ID, f.Proto = uint32(a.u16(4)), a.b[9]
	} else {
		f.ID = uint32(a.u16(a.part-4))<<16 | uint32(a.u16(a.part-2))
	}
	if a.offset == 0 {
		f.HeaderEnd = uint16(payload - a.part)
	}
	return f
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
		a.offset, a.more = a.u16(6)%(1<<13)*8, b[6]>>5&1 == 1
		a.part, a.before = a.header, a.header
	case a.version == 6 && len(b) >= 40:
		a.header, a.total = 40, 40+a.u16(4)
		a.upper, a.start = b[6], 40
		a.walk()
	}
	return a
}

// shortest is the length of the smallest header of the upper protocol, if it has one that is looked at.
func (a *anatomy) shortest() int {
	if a.version == 4 {
		return map[byte]int{6: 20, 17: 8, 1: 8}[a.upper]
	}
	return map[byte]int{6: 20, 17: 8, 58: 8}[a.upper]
}

// tcpOffset is the length of a TCP header that is there; ok is false of any other packet.
func (a *anatomy) tcpOffset() (length int, ok bool) {
	if !a.whole() || a.offset > 0 || a.upper != 6 || len(a.transport()) < 20 {
		return 0, false
	}
	return int(a.transport()[12]>>4) * 4, true
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
			if a.part == 0 {
				a.part, a.before = a.start, a.start-8-40
				a.offset, a.more = a.u16(a.start-6)/8*8, a.b[a.start-5]&1 == 1
			}
			if a.offset > 0 { // what follows is of the middle of the datagram
				a.upper = next
				return
			}
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

// options walks IPv4 options up to a source route, or one that can't be walked.
func (a *anatomy) options() (routed, broken bool) {
	for at := 20; a.version == 4 && a.header <= len(a.b) && at < a.header && a.b[at] != 0; {
		switch {
		case a.b[at] == 131 || a.b[at] == 137:
			return true, false
		case a.b[at] == 1:
			at++
		case at+1 >= a.header || a.b[at+1] < 2 || at+int(a.b[at+1]) > a.header:
			return false, true
		default:
			at += int(a.b[at+1])
		}
	}
	return false, false
}

// reasons say, for each reason that Decode has, whether it holds for a packet. Several may;
// which of them Decode names is in its own tests.
var reasons = map[packet.Drop]func(*anatomy) bool{
	packet.DropTruncated: func(a *anatomy) bool {
		return len(a.b) == 0 || a.header == 0 && (a.version == 4 || a.version == 6) ||
			!a.isFragment() && (a.broken || a.whole() && len(a.transport()) < a.shortest())
	},
	packet.DropVersion: func(a *anatomy) bool { return len(a.b) > 0 && a.version != 4 && a.version != 6 },
	packet.DropIPv4Header: func(a *anatomy) bool {
		_, broken := a.options()
		return a.version == 4 && len(a.b) >= 20 && (a.header < 20 || a.header > len(a.b) || broken)
	},
	packet.DropSourceRoute: func(a *anatomy) bool {
		routed, _ := a.options()
		return routed
	},
	packet.DropIPLength: func(a *anatomy) bool { return a.header > 0 && (a.total < a.header || a.total > len(a.b)) },
	packet.DropMappedAddress: func(a *anatomy) bool {
		mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255}
		return a.version == 6 && a.header > 0 && (bytes.HasPrefix(a.b[8:24], mapped) || bytes.HasPrefix(a.b[24:40], mapped))
	},
	packet.DropExtension: func(a *anatomy) bool {
		second := func(protocol byte) bool {
			first := slices.IndexFunc(a.chain, func(h extension) bool { return h.protocol == protocol })
			return a.has(protocol, func(i, _ int) bool { return i > first }) || a.broken && a.upper == protocol && first >= 0
		}
		return a.has(0, func(i, _ int) bool { return i > 0 }) || a.broken && a.upper == 0 && len(a.chain) > 0 || second(44)
	},
	packet.DropExtensionLimit: func(a *anatomy) bool { return len(a.chain) > 8 || a.version == 6 && a.start > 40+1024 },
	packet.DropRoutingHeader: func(a *anatomy) bool {
		return a.has(43, func(_, at int) bool { return a.b[at+2] == 0 || a.b[at+2] != 2 && a.b[at+3] != 0 })
	},
	packet.DropTCPHeader: func(a *anatomy) bool {
		length, ok := a.tcpOffset()
		return ok && (length < 20 || length > len(a.transport()) && !a.isFragment())
	},
	packet.DropUDPLength: func(a *anatomy) bool {
		if !a.whole() || a.offset > 0 || a.upper != 17 || len(a.transport()) < 8 {
			return false
		}
		length := a.u16(a.start + 4)
		return length < 8 || length > len(a.transport()) && !a.more // a first fragment's is the datagram's
	},
	packet.DropFragmentLength: func(a *anatomy) bool {
		return a.isFragment() && (a.total == a.part || a.more && (a.total-a.part)%8 != 0)
	},
	packet.DropFragmentTooLong: func(a *anatomy) bool { return a.isFragment() && a.before+a.offset+a.total-a.part > 65_535 },
	packet.DropFragmentTiny: func(a *anatomy) bool {
		if !a.isFragment() || a.offset > 0 {
			return false
		}
		length, ok := a.tcpOffset()
		return a.broken || a.whole() && len(a.transport()) < a.shortest() || ok && length > len(a.transport())
	},
	packet.DropFragmentHeader: func(a *anatomy) bool {
		return a.offset > 0 && a.offset < map[byte]int{6: 20, 17: 8, 1: 8, 58: 8}[a.upper]
	},
}
