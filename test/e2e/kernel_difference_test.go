package e2e

import "github.com/nsgd/nsgd/dataplane/packet"

// difference is a packet that one lane carries and the other drops, on purpose.
type difference struct {
	name   string
	reason string
	// onlyNsgd says who carries it, or more of its fragments: nsgd, or else the kernel.
	// With either it may be the one or the other.
	onlyNsgd, either bool
	// explains reports whether p is such a packet.
	explains func(p *probe) bool
}

// intended are all differences there may be. Each speaks of one kind of packet in one
// situation; a disagreement that none of them explains fails the test.
//
// Behind most of those about TCP stands one decision: nsgd, as Azure, decides by rules
// about connections and leaves it to the two ends what TCP makes of a segment, and
// drops only what no honest end could have sent; the kernel's table of states
// calls invalid whatever is not in it.
var intended = []difference{
	{
		name:     "urgent flag beside RST or SYN+ACK",
		reason:   "URG says something about data, not about the connection (RFC 9293 3.1); the kernel has only the sets with URG that it has seen",
		onlyNsgd: true,
		explains: segment(func(h *tcpHistory, p *probe) bool {
			return p.flags&packet.URG != 0 && (p.flags&packet.RST != 0 || is(p, packet.SYN|packet.ACK))
		}),
	},
	{
		name:     "FIN as the first segment of a flow",
		reason:   "a segment in mid-stream that the rules allow takes up its connection again; a FIN is one, though the kernel takes only a bare ACK",
		onlyNsgd: true,
		explains: segment(func(h *tcpHistory, p *probe) bool { return !h.live && is(p, packet.FIN|packet.ACK) }),
	},
	{
		name:     "ACK or FIN before SYN+ACK",
		reason:   "the SYN+ACK may have taken another way or been sent before a restart, and the other end answers a wrong ACK by itself (RFC 9293 3.10.7); it earns no longer life",
		onlyNsgd: true,
		explains: segment(func(h *tcpHistory, p *probe) bool {
			if !h.live || !h.syn[h.opener] || h.synack[0] || h.synack[1] {
				return false
			}
			return is(p, packet.FIN|packet.ACK) || is(p, packet.ACK) && p.side == h.opener
		}),
	},
	{
		name:   "RST by a side that has only sent its SYN",
		reason: "it has no connection to reset yet, and the RST would cut the flow's life short before the answer comes",
		explains: segment(func(h *tcpHistory, p *probe) bool {
			return unanswered(h) && p.side == h.opener && p.flags&packet.RST != 0
		}),
	},
	{
		name:     "RST without ACK in answer to a SYN",
		reason:   "an end that refuses a SYN acknowledges it, and the opener ignores a RST that does not (RFC 9293 3.10.7.3): it is a forgery",
		explains: segment(func(h *tcpHistory, p *probe) bool { return unanswered(h) && p.side != h.opener && is(p, packet.RST) }),
	},
	{
		name:     "packet behind a RST that ended a one-sided connection",
		reason:   "Azure keeps a flow for 5 s after a RST, for what is under way; the kernel does so only when both sides have spoken",
		onlyNsgd: true,
		explains: func(p *probe) bool {
			ends := is(p, packet.RST) || is(p, packet.RST|packet.ACK) || is(p, packet.FIN|packet.ACK)
			goesOn := is(p, packet.ACK) || is(p, packet.SYN|packet.ACK)
			return p.talk != nil && p.talk.tcp.forgotten && (p.kind == icmpError || p.kind == ordinary && (ends || goesOn))
		},
	},
	{
		name:     "SYN+ACK from the side that opened",
		reason:   "ends that opened at the same time send it, and any other end answers it with a RST; the flow was allowed",
		onlyNsgd: true,
		explains: segment(func(h *tcpHistory, p *probe) bool {
			return p.side == h.opener && is(p, packet.SYN|packet.ACK) && (h.heard[1-h.opener] || h.aborted || h.restarted)
		}),
	},
	{
		name:     "SYN from the side that did not open",
		reason:   "before the handshake is over it may be an opening at the same time, and later it is a new one for the rules to judge, as Azure's new SYN on an old tuple is",
		onlyNsgd: true,
		explains: segment(func(h *tcpHistory, p *probe) bool { return h.live && p.side != h.opener && is(p, packet.SYN) }),
	},
	{
		name:     "SYN on a live connection under rules that now deny it",
		reason:   "it asks for a new connection, which the new rules decide about; the kernel lets it through as part of the old one",
		explains: segment(func(h *tcpHistory, p *probe) bool { return h.live && p.side == h.opener && is(p, packet.SYN) }),
	},
	{
		name:   "SYN from the side that did not open, after a restart",
		reason: "to nsgd the new connection stands, and the rules never let that side open one; the kernel let the SYN that began it through and is still about the old one, in TIME-WAIT, which any SYN may follow",
		explains: segment(func(h *tcpHistory, p *probe) bool {
			return h.restarted && p.side != h.opener && is(p, packet.SYN)
		}),
	},
	{
		name:   "attempt without an answer under rules that now deny it",
		reason: "nobody has taken it up, so it has no more right than a new one: the rules judge it again; the kernel goes by the first judgement. A packet that is dropped for its flags has the rules asked too, and what they cut gets no answer. Where both sides ask by one identifier, answers are to the last one's request. Without ports an earlier conversation has the same tuple",
		explains: func(p *probe) bool {
			if p.talk == nil {
				return false
			}
			if p.talk.port == [2]uint16{} && !(p.talk.heard[0] && p.talk.heard[1]) {
				return true
			}
			asks := p.talk.protocol == packet.ProtoICMP || p.talk.protocol == packet.ProtoICMPv6
			return asks && p.talk.heard[p.side] || p.talk.heard[0] != p.talk.heard[1]
		},
	},
	{
		name:     "wrong transport checksum",
		reason:   "nsgd changes no bytes and leaves checksums to the end that they are for, as a switch does; the kernel's connection tracking verifies them",
		onlyNsgd: true,
		explains: func(p *probe) bool { return p.kind == wrongChecksum },
	},
	{
		name:     "last hop",
		reason:   "a virtual network is no hop: the time to live stays as it is, where a router counts it down to 0 and drops",
		onlyNsgd: true,
		explains: func(p *probe) bool { return p.kind == lastHop },
	},
	{
		name:     "land attack",
		reason:   "a packet whose source is its destination did not come from there; the router has a way back to the sender's own interface",
		explains: func(p *probe) bool { return p.kind == land },
	},
	{
		name:     "IPv6 with an IPv4-mapped address",
		reason:   "such an address is for programs, not for the wire (RFC 4942 2.2): the packet would meet the rules of the other family",
		explains: func(p *probe) bool { return p.kind == mapped },
	},
	{
		name:     "IPv6 routing header type 0",
		reason:   "RFC 5095 takes it out of IPv6; a router that is not the destination does not look at it",
		explains: func(p *probe) bool { return p.kind == routingType0 },
	},
	{
		name:     "upper protocol behind AH in IPv6",
		reason:   "to nsgd AH is an extension header over IPv6, and rules see what it protects; nftables takes AH itself for the protocol, as both do over IPv4",
		either:   true,
		explains: func(p *probe) bool { return p.kind == behindAH },
	},
	{
		name:   "ICMP message that only the kernel counts among the errors",
		reason: "source quench is no longer to be honoured (RFC 6633), a redirect is for the link it is on, and types without a meaning are no errors to nsgd (IPv4: 3, 11, 12; ICMPv6: 1 to 4)",
		explains: func(p *probe) bool {
			return p.kind == icmpError && (!p.type6 && (p.icmpType == 4 || p.icmpType == 5) || p.type6 && p.icmpType > 4)
		},
	},
	{
		name:   "ICMP error from where the quoted packet did not go",
		reason: "only hosts on the way of a packet can have anything to say about it: an error that comes out of another VM is for the ordinary rules",
		explains: func(p *probe) bool {
			return p.kind == icmpError && p.from != p.quotedTo
		},
	},
	{
		name:   "obsolete ICMP query",
		reason: "information and address mask requests are deprecated (RFC 6918) and node information queries experimental (RFC 4620): only echo and timestamp begin flows",
		explains: func(p *probe) bool {
			return p.kind == icmpOther && (!p.type6 && (p.icmpType == 15 || p.icmpType == 17) || p.type6 && p.icmpType == 139)
		},
	},
	{
		name:     "ICMP reply with another code than the request",
		reason:   "a reply belongs to its request by identifier; the code of an echo says nothing and receivers ignore it",
		onlyNsgd: true,
		explains: func(p *probe) bool { return p.kind == icmpReplyCode },
	},
	{
		name:     "fragments out of order",
		reason:   "Azure drops a fragment that overtakes the first one of its datagram, and so does nsgd without fragments.hold; the kernel puts datagrams together before it decides",
		explains: func(p *probe) bool { return p.kind == outOfOrder },
	},
	{
		name:     "fragments of an incomplete datagram",
		reason:   "nsgd passes on what it has judged, fragment by fragment; the kernel waits for the whole",
		onlyNsgd: true,
		explains: func(p *probe) bool { return p.kind == incomplete },
	},
	{
		name:     "fragments before an overlap",
		reason:   "both drop the datagram's rest; nsgd has passed on what came before the overlap, of which no receiver can make a datagram",
		onlyNsgd: true,
		explains: func(p *probe) bool { return p.kind == overlapping && p.byNsgd == partly },
	},
	{
		name:     "fragment inside of what is there already",
		reason:   "nothing says that its bytes are the same, and a filter that keeps none can't look: it counts as an overlap (RFC 5722; RFC 8200 4.5 leaves it open); the kernel, which has the bytes, ignores it",
		explains: func(p *probe) bool { return p.kind == repeated },
	},
	{
		name:     "tiny first fragment",
		reason:   "without its whole header it can't be judged (RFC 1858); the kernel judges the datagram that it has put together",
		explains: func(p *probe) bool { return p.kind == tinyFirst },
	},
}

// segment is for differences that are about an otherwise ordinary TCP segment.
func segment(explains func(h *tcpHistory, p *probe) bool) func(*probe) bool {
	return func(p *probe) bool {
		return p.kind == ordinary && p.talk != nil && p.talk.protocol == packet.ProtoTCP && explains(&p.talk.tcp, p)
	}
}

// is compares what a segment is, whatever PSH and URG say beside it.
func is(p *probe, bits uint8) bool { return p.flags&controlBits == bits }

// unanswered is a connection of which only the opener's SYN has been carried, and what
// it said after that.
func unanswered(h *tcpHistory) bool {
	return h.live && h.syn[h.opener] && !h.heard[1-h.opener]
}

// explain finds the name of an intended difference.
func explain(p *probe, byKernel, byNsgd carriage) (name string, ok bool) {
	for i := range intended {
		d := &intended[i]
		if (d.either || d.onlyNsgd == (byNsgd > byKernel)) && byNsgd != byKernel && d.explains(p) {
			return d.name, true
		}
	}
	return "", false
}
