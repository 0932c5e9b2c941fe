// Package ask answers questions about packets that nobody has sent: verify, with and without the
// path, diagnose and next hop. It finds out which packet is meant and says in Azure's words what
// package verdict decides about it. Nothing is counted, and no flow begins.
package ask

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// The reasons of a verify result. Any other is a drop's name in nsgd_drops_total, in camel case:
// noRoute, smtpBlocked, closed.
const (
	ReasonRule    = "rule"                   // a rule of the named NSG decided
	ReasonNoGroup = "noNetworkSecurityGroup" // no NSG on the way: allowed
	// ReasonPlatform: a service of the platform, which only a rule that names it can deny.
	// Azure's IP flow verify may say Deny for it; this is what happens.
	ReasonPlatform = "platform"
)

// ReasonOf is a drop's reason in the form of verify's reasons: no_outbound is noOutbound.
func ReasonOf(drop packet.Drop) string {
	if drop == packet.DropRule {
		return ReasonRule
	}
	words := strings.Split(drop.String(), "_")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// Verify says what would happen to the first packet of a new flow of a NIC. Without path it asks the
// NIC's own chain, as Azure's IP flow verify does. With path it follows the packet to its end: by the
// chains of virtual appliances on the way and of the other end, where that is known.
//
// The addresses may be those that the outside sees: a public IP, or the frontend of a load balancer.
// The rules of the NIC see its private address, and the result tells what changes on the way.
func Verify(s *topology.Snapshot, q *azure.Flow, path bool) (*azure.VerificationIPFlowResult, error) {
	p := firstPacket(q)
	if q.Direction == ruleset.Inbound {
		return verifyInbound(s, q, &p, path)
	}
	src, err := sendingEnd(s, q, &p.Tuple)
	switch {
	case err != nil:
		return nil, err
	case path:
		return follow(s, src, &p), nil
	}
	var d verdict.Decision
	drop := d.Sends(s, src, &p)
	r := newResult()
	tell(r, s, src, &p, &d)
	refuse(r, drop)
	return r, nil
}

// verifyInbound is Verify for what a NIC receives; p is as the remote end sends it.
func verifyInbound(s *topology.Snapshot, q *azure.Flow, p *packet.Packet, path bool) (*azure.VerificationIPFlowResult, error) {
	to, err := receivingEnd(s, q, p)
	if err != nil {
		return nil, err
	}
	if path {
		src := to.sender(s, q)
		if src == nil {
			r := newResult()
			refuse(r, noSender(s, q))
			return r, nil
		}
		if c := behindPublic(src, q.Remote); c != nil {
			p.Src = packet.AddrFrom(c.Address) // which is what it sends from
		}
		switch {
		case to.entered:
			p.SrcPort = to.port
		case slices.Contains(topology.PlatformAddresses, q.Remote):
			p.SrcPort = s.ProbePort(to.way.To, q.Local, p.SrcPort)
		}
		return follow(s, src, p), nil
	}
	r := newResult()
	if to.drop != packet.NotDropped {
		refuse(r, to.drop)
		return r, nil
	}
	arrives := *p
	arrives.Tuple = to.way.Arrives
	var d verdict.Decision
	drop := d.Receives(s, &to.way, &arrives)
	tell(r, s, nil, p, &d)
	refuse(r, drop)
	return r, nil
}

// noSender is why nothing comes from a remote address: nobody can have it, or the receiver's
// network has no way to whoever has it.
func noSender(s *topology.Snapshot, q *azure.Flow) packet.Drop {
	if s.Foreign(q.Remote) && admitters(s, packet.AddrFrom(q.Remote)) == nil {
		return packet.DropSpoofed
	}
	return packet.DropNoRoute
}

// firstPacket is what the sender of a question's flow sends first: of TCP a SYN, of ICMP an echo
// request. ICMP over IPv6 and ICMPv6 over IPv4 are to the decoder protocols without a message type.
func firstPacket(q *azure.Flow) packet.Packet {
	p := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(q.Local), Dst: packet.AddrFrom(q.Remote),
		SrcPort: q.LocalPort, DstPort: q.RemotePort, Proto: q.Protocol}, Segments: 1}
	if q.Direction == ruleset.Inbound {
		p.Tuple = p.Reverse()
	}
	asFirst(&p)
	return p
}

// asFirst makes a packet with a question's tuple one that begins a flow.
func asFirst(p *packet.Packet) {
	switch {
	case p.Proto == packet.ProtoTCP:
		p.TCPFlags = packet.SYN
		return
	case p.Proto == packet.ProtoUDP:
		return
	case p.Proto == packet.ProtoICMP && p.Src.Is4():
		p.ICMPType = packet.ICMPv4EchoRequest
	case p.Proto == packet.ProtoICMPv6 && !p.Src.Is4():
		p.ICMPType = packet.ICMPv6EchoRequest
	}
	p.SrcPort, p.DstPort = 0, 0
}

// newResult allows: nobody was asked yet.
func newResult() *azure.VerificationIPFlowResult {
	return &azure.VerificationIPFlowResult{Access: ruleset.Allow.String(), Reason: ReasonNoGroup, Stages: []azure.VerificationStage{}}
}

// tell adds to a result what was decided about a packet that src sends, or that arrives when src is
// nil. The last stage names the result: the denying one, or the last that allowed.
func tell(r *azure.VerificationIPFlowResult, s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet, d *verdict.Decision) {
	v := &d.Verdict
	for i := range v.N {
		st := &v.Stages[i]
		rule := st.SecurityRule()
		nsg := st.Stage.Group.NSG
		r.RuleName, r.RuleID, r.NetworkSecurityGroup, r.Reason = rule.QualifiedName(), nsg.RuleID(rule), nsg.Name, ReasonRule
		r.Stages = append(r.Stages, azure.VerificationStage{NetworkSecurityGroup: r.NetworkSecurityGroup, RuleName: r.RuleName,
			Association: st.Stage.Association.String(), Direction: st.Stage.Direction.String(), Access: rule.Access.String(), Priority: rule.Priority})
	}
	if v.Service != topology.NoService {
		r.PlatformService = v.Service.String()
		r.Reason = ReasonPlatform
	}
	r.Translations = append(r.Translations, explain(s, src, &p.Tuple, &d.Way)...)
}

// refuse makes a result a denial. Only a rule's denial names the rule.
func refuse(r *azure.VerificationIPFlowResult, drop packet.Drop) {
	if drop == packet.NotDropped {
		return
	}
	r.Access, r.Reason = ruleset.Deny.String(), ReasonOf(drop)
	if drop != packet.DropRule {
		r.RuleName, r.RuleID, r.NetworkSecurityGroup = "", "", ""
	}
}
