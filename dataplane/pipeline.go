package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/tun"
)

// carry walks one packet, which prepare has decoded, through the other steps of the
// pipeline; from is the attachment that it came from. It returns why the packet was
// dropped, or packet.NotDropped.
func (w *worker) carry(s *topology.Snapshot, from *topology.Attachment, g *slot) packet.Drop {
	b, p := g.frame, &g.packet
	if p.Segments == 0 { // not decoded far enough to know
		p.Segments, p.WireLen = 1, uint32(len(b)-tun.HeaderLen)
	}
	w.counters.receive(from.Index, p)
	if g.drop != packet.NotDropped {
		return g.drop
	}
	src, drop := verdict.Admit(s, from, &p.Tuple)
	if drop != packet.NotDropped {
		return drop
	}
	w.key, w.hash, w.marks = &g.key, g.hash, 0
	if p.Fragment.IsFragment() {
		return w.fragment(s, from, src, b, p)
	}
	to, drop := w.place(s, from, src, b[tun.HeaderLen:], p)
	if drop != packet.NotDropped {
		return drop
	}
	if w.marks != 0 {
		w.translate(b, p)
	}
	return w.write(to, b, p)
}

// decode reads the virtio-net header and the packet, and holds them against each
// other: a superpacket must be of the protocol that its header claims, and a checksum that is
// left to do must not change what is judged. A sender with a packet socket chooses the header.
func (w *worker) decode(b []byte, p *packet.Packet) packet.Drop {
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(b))
	size := h.GSOSize
	if h.GSOType == tun.GSONone {
		size = 0
	}
	if drop := w.decoder.Decode(b[tun.HeaderLen:], size, p); drop != packet.NotDropped {
		return drop
	}
	ok := false
	switch h.GSOType &^ tun.GSOECN {
	case tun.GSONone:
		// GSOECN by itself says nothing, and the kernel takes no such header.
		if h.GSOType == tun.GSONone && (h.Flags&tun.FlagNeedsCsum == 0 || checksumsItself(&h, p) || checksumsPayload(&h, p)) {
			return packet.NotDropped
		}
		return packet.DropOffload
	case tun.GSOTCPv4:
		ok = p.Proto == packet.ProtoTCP && p.Src.Is4()
	case tun.GSOTCPv6:
		ok = p.Proto == packet.ProtoTCP && !p.Src.Is4()
	case tun.GSOUDPL4:
		ok = p.Proto == packet.ProtoUDP
	}
	if !ok || h.GSOSize == 0 || p.Fragment.IsFragment() || p.Len != uint32(len(b)-tun.HeaderLen) ||
		h.Flags&tun.FlagNeedsCsum != 0 && !checksumsItself(&h, p) {
		return packet.DropOffload
	}
	return packet.NotDropped
}

// checksumsItself reports whether the checksum that h leaves to do is the transport
// header's own.
func checksumsItself(h *tun.Header, p *packet.Packet) bool {
	if h.CsumStart != p.HeaderLen || p.Fragment.IsFragment() {
		return false
	}
	switch p.Proto {
	case packet.ProtoTCP:
		return h.CsumOffset == 16
	case packet.ProtoUDP:
		return h.CsumOffset == 6
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return h.CsumOffset == 2
	}
	return false
}

// checksumsPayload reports whether the checksum that h leaves to do lies in what nobody
// judges, such as a tunnel's inner packet or a GRE header.
func checksumsPayload(h *tun.Header, p *packet.Packet) bool {
	return !p.Fragment.IsFragment() && uint32(h.CsumStart)+uint32(h.CsumOffset) >= uint32(p.PayloadOffset)
}

// place finds where an admitted packet goes: as part of a live flow, or as the rules
// say. w.belongs says afterwards how a packet that is not dropped stands to the flow
// with key w.key.
func (w *worker) place(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, b []byte, p *packet.Packet) (int, packet.Drop) {
	w.belongs = toNoFlow
	if p.IsICMPError() {
		return w.icmpError(s, from, src, b, p)
	}
	to, drop, known := w.flow(s, src, p)
	switch {
	case !known:
		to, drop = w.begin(s, from, src, p)
	case to >= len(w.queues): // a far zone
		to, drop = w.detour(s, from, src, p)
	}
	w.belongs = toItsFlow
	return to, drop
}

// icmpError carries an ICMP error as part of the live flow that it quotes, or
// else as the rules for ICMP decide. It never begins, extends or changes a flow.
func (w *worker) icmpError(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, b []byte, p *packet.Packet) (int, packet.Drop) {
	var ok bool
	if w.quote, ok = packet.DecodeQuote(b, p); ok && w.quotedFlow(from, &w.quote) {
		if f, d, ok := w.flows.Lookup(w.key, w.now); ok {
			to := int(w.flows.PeerZone(f, d))
			if to >= len(w.queues) {
				to, ok = w.errorFrom(s, src, p)
			}
			if ok {
				w.belongs = toQuotedFlow
				w.follow(f, d, p)
				return to, packet.NotDropped
			}
		}
	}
	d := &w.decision
	if d.Route(s, src, &p.Tuple); d.Changed() || d.Drop == packet.DropSpoofed { // by which address is nobody's to say (RFC 5508 section 4)
		return 0, packet.DropICMPNoFlow
	}
	d.Send(p)
	if d.Receive(p) == packet.NotDropped || d.Drop == packet.DropRule {
		w.countVerdict(&d.Verdict, p)
	}
	if d.Drop != packet.NotDropped {
		return 0, d.Drop
	}
	return d.Way.To.Attachment, packet.NotDropped
}

// quotedFlow sets w.key to the flow that an answer to the quoted packet would belong
// to, if it came from where the error does: the quoted packet went there.
func (w *worker) quotedFlow(from *topology.Attachment, quoted *packet.Quote) bool {
	t := quoted.Tuple
	if quoted.Fragment.IsLater() {
		// It has no ports, but the first one of its datagram had.
		k := fragment.Key{Src: t.Src, Dst: t.Dst, ID: quoted.Fragment.ID, Proto: quoted.Fragment.Proto}
		if !w.engine.fragments.Quoted(&k, uint16(from.Index), w.time, &w.first) || !w.first.InFlow || w.first.Related {
			return false
		}
		t = w.first.Flow.Tuple
	}
	w.quoted = conntrack.Key{Tuple: t.Reverse(), Zone: uint16(from.Index)}
	w.key = &w.quoted
	return true
}

// flow carries a packet of a live flow; known is false when there is none, or
// when the packet asks for a new one in its place. In that case the flow lives on
// until commit: a packet that the rules deny must not end it.
func (w *worker) flow(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) (to int, drop packet.Drop, known bool) {
	w.restarts = false
	f, d, ok := w.flows.LookupHash(w.key, w.hash, w.now)
	if !ok {
		return 0, packet.NotDropped, false
	}
	if w.flows.Restarts(f, d, p) {
		w.restarts, w.restarted = true, f
		return 0, packet.NotDropped, false
	}
	if s.Flushed > 0 && d == conntrack.Original && w.flows.Generation(f) < s.Flushed {
		if drop, lives := w.judgeAgain(s, src, f, p); !lives {
			return 0, drop, drop != packet.NotDropped
		}
	}
	if drop := w.flows.Pass(f, d, p, w.now); drop != packet.NotDropped {
		return 0, drop, true
	}
	return w.follow(f, d, p), packet.NotDropped, true
}

// follow counts a flow's packet on the rules that allowed the flow, and says
// which attachment, or far zone, it goes to.
func (w *worker) follow(f conntrack.Flow, d conntrack.Direction, p *packet.Packet) int {
	w.countSlots(w.flows.Slots(f), 0, p)
	w.note(f, d)
	return int(w.flows.PeerZone(f, d))
}

// begin decides about a packet without a flow, and records the flow that it begins.
func (w *worker) begin(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, p *packet.Packet) (int, packet.Drop) {
	d := &w.decision
	if drop := d.Route(s, src, &p.Tuple); drop != packet.NotDropped {
		return 0, drop
	}
	known := s.Routed() && !d.Changed() && w.knownThere(d.Way.To, p)
	if !known {
		d.MayBegin(p, w.strict)
	}
	if d.Send(p) != packet.NotDropped {
		return 0, w.denied(p)
	}
	if known || d.Apart {
		return w.beginApart(s, from, src, p)
	}
	if d.Way.Ports != nil {
		return w.beginShared(s, from, p)
	}
	if d.Receive(p) != packet.NotDropped {
		return 0, w.denied(p)
	}
	return w.commit(s, from, p)
}

// denied counts a rule's denial, and says why the packet is dropped.
func (w *worker) denied(p *packet.Packet) packet.Drop {
	if w.decision.Drop == packet.DropRule {
		w.countVerdict(&w.decision.Verdict, p)
	}
	return w.decision.Drop
}

// commit records the flow that every stage allowed, in place of one that the
// packet restarts.
func (w *worker) commit(s *topology.Snapshot, from *topology.Attachment, p *packet.Packet) (int, packet.Drop) {
	w.decision.Record(&w.init, p.Proto, w.engine.options.TranslationIdle)
	return w.enter(s, from, &w.decision.Verdict, p)
}

// enter records the flow of w.init.
func (w *worker) enter(s *topology.Snapshot, from *topology.Attachment, v *verdict.Verdict, p *packet.Packet) (int, packet.Drop) {
	init := &w.init
	if drop := w.flows.MayBegin(w.key.Zone, init.ReplyZone, w.now); drop != packet.NotDropped {
		return 0, drop
	}
	if w.restarts {
		w.flows.End(w.restarted, conntrack.EndRestarted)
	}
	f, d, created, drop := w.flows.Insert(w.key, init, p, w.now)
	if !created {
		w.flows.NotBegun(w.key.Zone, init.ReplyZone)
		if drop == packet.NotDropped { // another worker was first: an ordinary packet of its flow
			return w.follow(f, d, p), packet.NotDropped
		}
		return 0, drop
	}
	// A reload can overtake a burst. It looks for flows to end after it has
	// published its snapshot, so looking for a newer one after the flow is in the
	// table leaves no flow that neither of the two has seen.
	if newer := w.engine.snapshot.Load(); newer != s {
		w.flows.Withdraw(f, p)
		w.flows.NotBegun(w.key.Zone, init.ReplyZone)
		return w.beginAgain(newer, from.Index, p)
	}
	w.countVerdict(v, p)
	w.note(f, conntrack.Original)
	return int(init.ReplyZone), packet.NotDropped
}

// beginAgain decides a flow's first packet by a newer snapshot than its burst's.
func (w *worker) beginAgain(s *topology.Snapshot, attachment int, p *packet.Packet) (int, packet.Drop) {
	from := s.Attachments[attachment]
	src, drop := verdict.Admit(s, from, &p.Tuple)
	if drop != packet.NotDropped {
		return 0, drop
	}
	return w.begin(s, from, src, p)
}

// countVerdict counts a verdict and its packet on every rule that took part.
func (w *worker) countVerdict(v *verdict.Verdict, p *packet.Packet) {
	w.countSlots(v.Slots(), 1, p)
}

// countSlots counts a packet on the rules of slots, and hits. A NIC can have its subnet's
// NSG, whose rule then decides two stages, one after the other; it still counts
// what was sent, once.
func (w *worker) countSlots(slots conntrack.Slots, hits uint64, p *packet.Packet) {
	last, all := conntrack.NoSlot, slots
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if slot != last {
			w.counters.rule(slot, hits, p)
		}
		last = slot
	}
	if w.sight.watchers != nil {
		w.noteSlots(all, hits)
	}
}
