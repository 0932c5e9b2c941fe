package conntrack

import "github.com/nsgd/nsgd/dataplane/packet"

// MayCreate says whether a packet without a flow can begin one if the rules allow it. Otherwise
// it returns why the packet is dropped before any rule is asked. strict is Options.TCPStrict.
func MayCreate(p *packet.Packet, strict bool) packet.Drop {
	switch p.Proto {
	case packet.ProtoTCP:
		return mayCreateTCP(p.TCPFlags, strict)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if p.IsICMPRequest() {
			return packet.NotDropped
		}
		return packet.DropICMPNoFlow // an error too, which belongs to another protocol's flow
	}
	return packet.NotDropped
}

func mayCreateTCP(flags uint8, strict bool) packet.Drop {
	switch {
	case impossibleTCP(flags):
		return packet.DropTCPFlags
	case bareSYN(flags):
		return packet.NotDropped
	case flags&(packet.SYN|packet.RST) != 0 || strict:
		return packet.DropTCPNoSYN
	}
	return packet.NotDropped
}

// MayCreateStateless is MayCreate for a flow with Init.Stateless: SYN+ACK, RST and segments
// in mid-stream begin one as a SYN does.
func MayCreateStateless(p *packet.Packet) packet.Drop {
	switch {
	case p.Proto != packet.ProtoTCP:
		return MayCreate(p, false)
	case impossibleTCP(p.TCPFlags):
		return packet.DropTCPFlags
	}
	return packet.NotDropped
}

// icmpReply is the type that answers a request type.
func icmpReply(request uint8) uint8 {
	switch request {
	case packet.ICMPv4EchoRequest:
		return packet.ICMPv4EchoReply
	case packet.ICMPv4TimestampRequest:
		return packet.ICMPv4TimestampReply
	}
	return packet.ICMPv6EchoReply
}

// allowsICMP refuses messages of another kind than the rules allowed. Rules see the ICMP
// type, the key doesn't: with identifier 0 a request has the key of the opposite flow's reply.
func (r *record) allowsICMP(d Direction, p *packet.Packet) packet.Drop {
	want := r.icmpType
	if d == Reply {
		want = icmpReply(want)
	}
	if p.ICMPType == want {
		return packet.NotDropped
	}
	return packet.DropICMPNoFlow
}
