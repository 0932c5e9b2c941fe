package ask

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// MaxLegs bounds a way from appliance to appliance. Routes can make it a circle: a packet that is
// still on its way then has none to its end.
const MaxLegs = 16

// follow decides about a packet on each leg of its way. A virtual appliance receives it and sends it
// on unchanged. The rules of an end see the addresses that the packet has there.
func follow(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) *azure.VerificationIPFlowResult {
	r := newResult()
	var d verdict.Decision
	for range MaxLegs {
		var drop packet.Drop
		if src, drop = admitted(s, src, &p.Tuple); drop != packet.NotDropped {
			refuse(r, drop)
			return r
		}
		drop = d.Decide(s, src, p)
		tell(r, s, src, p, &d)
		if drop != packet.NotDropped || d.Way.Floating || has(d.Way.To, &d.Way.Arrives) {
			refuse(r, drop)
			return r
		}
		src, p.Tuple = d.Way.To, d.Way.Arrives
	}
	refuse(r, packet.DropNoRoute)
	return r
}

// admitted is the endpoint that a packet counts as sent by when it comes from src's attachment: a
// virtual appliance sends what others have sent. Without an attachment it is src.
func admitted(s *topology.Snapshot, src *topology.Endpoint, t *packet.Tuple) (*topology.Endpoint, packet.Drop) {
	drop := verdict.Carried(t)
	switch {
	case src.Attachment < 0:
		return src, drop
	case src.Elsewhere && drop == packet.NotDropped && src.NetworkInterface != nil: // by its host
		if src = s.AdmitAt(src.NetworkInterface, t.Src.Netip()); src == nil {
			return nil, packet.DropSpoofed
		}
		return src, packet.NotDropped
	case src.Elsewhere:
		return src, drop
	}
	return verdict.Admit(s, s.Attachments[src.Attachment], t)
}

// has reports that the destination of what arrives at an endpoint is there: an address of the NIC,
// not one that the NIC forwards for.
func has(e *topology.Endpoint, arrives *packet.Tuple) bool {
	if e.Has(arrives.Dst) {
		return true
	}
	for i := range e.NetworkInterface.IPConfigurations {
		if packet.AddrFrom(e.NetworkInterface.IPConfigurations[i].Address) == arrives.Dst {
			return true
		}
	}
	return false
}
