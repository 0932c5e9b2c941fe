package verdict

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Where several hosts share a policy, each judges the ends that are attached to it. The sender's host asks the
// sender's stages and says all else that can refuse a packet: routes, translation, closed addresses, port 25 and
// answers that would not be translated back. The receiver's host asks the receiver's stages. A host with the
// internet translates for those without, and refuses what it cannot translate.

// Arrive is Route for a packet that src, elsewhere, has sent to an endpoint of this host.
func (d *Decision) Arrive(s *topology.Snapshot, src, to *topology.Endpoint, sent *packet.Tuple) {
	d.begin(s, src, sent.Src)
	d.Way = topology.Way{To: to, Arrives: *sent}
	d.arrived = true
}

// here is taken for what this host takes of a way: the whole, or the part as far as the host with the internet.
func (d *Decision) here(why packet.Drop, sent *packet.Tuple) packet.Drop {
	if s := d.snapshot; s.HandsOff(d.source, &d.Way) {
		if why == packet.DropNoRoute && d.Way.To != nil {
			why = packet.NotDropped // the receiver may be attached to a host that this one does not know
		}
		d.whole, d.handed = d.Way, true
		if d.taken(why); d.Drop != packet.NotDropped {
			return d.Drop
		}
		d.Way = topology.Way{To: s.Outside(), Arrives: *sent, Outward: true}
	} else if d.taken(why) != packet.NotDropped || d.fault != packet.NotDropped {
		return d.Drop
	}
	if d.Exit() < 0 {
		d.Drop = packet.DropNoRoute
	}
	return d.Drop
}

// judged is the way by which the packet is judged: the whole one.
func (d *Decision) judged() *topology.Way {
	if d.handed {
		return &d.whole
	}
	return &d.Way
}

// Exit is the attachment of this host by which the packet leaves; -1: none leads to the receiver. Way.To is not nil.
func (d *Decision) Exit() int { return d.snapshot.Exit(d.source, &d.Way) }

// Rewrites reports that this host translates the packet, or delivers it to a backend as it is.
func (d *Decision) Rewrites() bool { return d.Way.Translated || d.Way.Floating }

// othersKnow reports that only another host can know whether the packet belongs to a flow: an appliance here, which
// may see one direction alone, forwards it there, or gets it from there.
func (d *Decision) othersKnow(p *packet.Packet) bool {
	if d.Way.To == nil {
		return false
	}
	if d.arrived {
		return !d.Way.To.Has(p.Dst)
	}
	return d.Way.To.Elsewhere && d.snapshot.Routed() && !d.source.Has(p.Src)
}

// RouteFrom is Route for a packet that was read from an attachment. From a fabric it finds who has sent the packet, and
// takes it to an end of this host, or through its internet: nothing goes from one other host to another as it is.
func (d *Decision) RouteFrom(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, sent *packet.Tuple) packet.Drop {
	if !from.FromFabric() {
		return d.Route(s, src, sent)
	}
	if from.Outlet() {
		return d.goOut(s, s.SenderBeyond(from, src, s.Outside(), sent), sent)
	}
	to := from.Receiver(sent.Dst)
	if to == nil {
		d.begin(s, src, sent.Src)
		d.Way, d.Drop = topology.Way{Arrives: *sent}, packet.DropNoRoute
		return d.Drop
	}
	d.Arrive(s, s.SenderBeyond(from, src, to, sent), to, sent)
	return d.Drop
}

// goOut takes what another host sends to the internet of this one: an endpoint's own packets by its way, so that they
// are translated, and what an appliance has forwarded as it is.
func (d *Decision) goOut(s *topology.Snapshot, src *topology.Endpoint, sent *packet.Tuple) packet.Drop {
	if !src.Has(sent.Src) {
		d.begin(s, src, sent.Src)
		d.Way = topology.Way{To: s.Outside(), Arrives: *sent, Outward: true}
		if s.Public(sent.Dst) {
			d.Drop = packet.DropNoOutbound
		}
		return d.Drop
	}
	if d.Route(s, src, sent); d.Drop == packet.NotDropped && !d.Refused() && !d.Way.Outward {
		d.Drop = packet.DropNoRoute
	}
	return d.Drop
}

// senderJudged reports that another host has judged what the sender sends.
func (d *Decision) senderJudged() bool { return d.Here && d.source.Elsewhere }

// Source is the endpoint that has sent the packet.
func (d *Decision) Source() *topology.Endpoint { return d.source }
