package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/translate"
)

// Where a policy translates, the first packet of a flow is judged twice: by its sender's
// outbound stages as it was sent, by its receiver's inbound stages as it arrives. The flow's
// record keeps both tuples; every packet of the flow is rewritten by it, last before it is written.

// translate rewrites a packet of a flow with marks.
func (x *passage) translate() {
	if x.marks&conntrack.Translated == 0 {
		return
	}
	to := x.w.flows.Becomes(x.flow, x.direction)
	if x.relation == related {
		inner := to.Reverse()
		translate.Error(x.frame, &x.packet, &x.quote, &inner, x.complainant(&to))
		return
	}
	translate.Packet(x.frame, &x.packet, &to)
}

// translateFirst is translate for the first fragment of a datagram with key k. Later fragments may
// be quoted with the addresses that they get.
func (x *passage) translateFirst(k fragment.Key) {
	x.translate()
	if x.marks&conntrack.Translated != 0 && x.relation == inFlow {
		k.Src, k.Dst = x.packet.Src, x.packet.Dst
		x.datagram.Flow.Tuple = x.packet.Tuple
		x.w.engine.fragments.Also(&k, &x.datagram, x.w.time)
	}
}

// translateLater is translate for a later fragment.
func (x *passage) translateLater() {
	if x.marks&conntrack.Translated == 0 {
		return
	}
	to := x.w.flows.Becomes(x.flow, x.direction)
	if x.datagram.Related {
		translate.ErrorFragment(x.frame, &x.packet, x.complainant(&to), to.Dst)
		return
	}
	translate.Packet(x.frame, &x.packet, &to)
}

// complainant is the sender of an ICMP error as its receiver sees it; to is what a packet of
// the error's direction becomes. What is behind a translated address speaks with that address,
// the end itself and a router before it alike (RFC 5508 section 4.2); others speak for themselves.
func (x *passage) complainant(to *packet.Tuple) packet.Addr {
	if sent := x.w.flows.Becomes(x.flow, conntrack.Reply-x.direction); sent.Dst != to.Src {
		return to.Src
	}
	return x.packet.Src
}
