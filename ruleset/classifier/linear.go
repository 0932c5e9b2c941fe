package classifier

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Linear is the obvious classifier: rule after rule, prefix after prefix. It is
// the reference that Table is held against, and shares no code with it that
// decides a match.
type Linear []Rule

// FirstMatch returns the index of the first rule that matches k, or -1. It
// doesn't allocate and is safe for concurrent use.
func (l Linear) FirstMatch(k *packet.Tuple) int {
	src, dst := k.Src.Netip(), k.Dst.Netip()
	for i := range l {
		r := &l[i]
		if namesProtocol(r.Protocol, k) && contains(r.Sources, src) && contains(r.Destinations, dst) &&
			namesSourcePort(r.SourcePorts, k) && namesDestinationPort(r.DestinationPorts, k) {
			return i
		}
	}
	return -1
}

func namesProtocol(p ruleset.Protocol, k *packet.Tuple) bool {
	switch p {
	case ruleset.AnyProtocol:
		return true
	case ruleset.TCP:
		return k.Proto == packet.ProtoTCP
	case ruleset.UDP:
		return k.Proto == packet.ProtoUDP
	case ruleset.ICMP:
		if k.Src.Is4() {
			return k.Proto == packet.ProtoICMP
		}
		return k.Proto == packet.ProtoICMPv6
	case ruleset.ESP:
		return k.Proto == packet.ProtoESP
	case ruleset.AH:
		return k.Proto == packet.ProtoAH
	}
	return false
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if unmap(p).Contains(a) {
			return true
		}
	}
	return false
}

func namesSourcePort(ranges []ruleset.PortRange, k *packet.Tuple) bool {
	if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP {
		return inRanges(ranges, k.SrcPort)
	}
	return coverAll(ranges)
}

func namesDestinationPort(ranges []ruleset.PortRange, k *packet.Tuple) bool {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6:
		return inRanges(ranges, k.DstPort)
	}
	return coverAll(ranges)
}

func inRanges(ranges []ruleset.PortRange, port uint16) bool {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// coverAll reports whether every port is in one of the ranges: it asks for the
// lowest port not yet known to be covered until no range has it.
func coverAll(ranges []ruleset.PortRange) bool {
	for next := 0; next <= 65535; {
		end := -1
		for _, r := range ranges {
			if int(r.First) <= next && next <= int(r.Last) {
				end = max(end, int(r.Last))
			}
		}
		if end < 0 {
			return false
		}
		next = end + 1
	}
	return true
}
