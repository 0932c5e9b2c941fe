// Package ask answers questions that need no packet: verify, diagnose and next hop.
package ask

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// The reasons of a verify result.
const (
	ReasonRule    = "rule"                   // a rule of the named NSG decided
	ReasonNoGroup = "noNetworkSecurityGroup" // no NSG on the way: allowed
	ReasonNoRoute = "noRoute"                // with the path: the virtual network has no way to the remote address
	// ReasonPlatform: a service of the platform, which no rule but one that names it can
	// deny. Azure's IP flow verify may say Deny for it; this is what happens.
	ReasonPlatform = "platform"
	// ReasonSMTP: rules allow it, the subscription does not.
	ReasonSMTP = "smtpBlocked"
	// Of translation, as nsgd_drops_total has them: closed (a Standard address, and no NSG),
	// noFrontend, noBackend, hairpin and noOutbound.
)

// Verify answers what would happen to a new flow of a NIC. Without path it
// evaluates the NIC's own chain, as Azure's IP flow verify does; with path also
// those of the other end, where that is known, and of virtual appliances on the way. It is the engine's own Judge on
// the engine's own snapshot; it counts nothing and creates no flow.
//
// The addresses may be those that the outside sees: a public IP, or the frontend of a load balancer.
// The rules of the NIC see its private address, and the result tells what changes on the way.
func Verify(s *topology.Snapshot, q *azure.Flow, path bool) (*azure.VerificationIPFlowResult, error) {
	k := packet.Tuple{Src: packet.AddrFrom(q.Local), Dst: packet.AddrFrom(q.Remote),
		SrcPort: q.LocalPort, DstPort: q.RemotePort, Proto: q.Protocol}
	if q.Direction == ruleset.Inbound {
		k = k.Reverse()
		asClassified(&k)
		return verifyInbound(s, q, &k, path)
	}
	asClassified(&k)
	local, err := sendingEnd(s, q, &k)
	if err != nil {
		return nil, err
	}
	if path {
		return judgePath(s, local, &k), nil
	}
	var v verdict.Verdict
	verdict.Judge(local, nil, &k, &v)
	var w topology.Way
	drop := s.Way(local, &k, &w)
	result := Result(&v)
	if w.Translated || w.Floating {
		result.Translations = explain(s, local, &k, &w)
	}
	switch {
	case v.Access == ruleset.Deny:
	case s.SMTPBlocked(local, w.To, &k):
		refuse(result, ReasonSMTP)
	case drop == packet.DropNoOutbound:
		refuse(result, reasonOf(drop))
	}
	return result, nil
}

// verifyInbound is Verify for what a NIC receives; k is the flow as it is sent to the local address.
func verifyInbound(s *topology.Snapshot, q *azure.Flow, k *packet.Tuple, path bool) (*azure.VerificationIPFlowResult, error) {
	in, err := receivingEnd(s, q, k)
	if err != nil {
		return nil, err
	}
	if path {
		src := in.sender(s, q)
		if src == nil {
			return &azure.VerificationIPFlowResult{Access: ruleset.Deny.String(), Reason: ReasonNoRoute, Stages: []azure.VerificationStage{}}, nil
		}
		if p := behindPublic(src, q.Remote); p != nil {
			k.Src = packet.AddrFrom(p.Address) // which is what it sends from
		}
		return judgePath(s, src, k), nil
	}
	reason := ReasonNoRoute
	if byTranslation(in.drop) {
		reason = reasonOf(in.drop)
	}
	if byTranslation(in.drop) || in.way.To == nil {
		r := Result(&verdict.Verdict{})
		refuse(r, reason)
		return r, nil
	}
	var v verdict.Verdict
	verdict.Judge(nil, in.way.To, &in.way.Arrives, &v)
	result := Result(&v)
	if in.entered {
		result.Translations = explain(s, nil, k, &in.way)
		if in.way.Closed {
			refuse(result, reasonOf(packet.DropClosed))
		}
	}
	return result, nil
}

// refuse makes it a denial that no rule has given.
func refuse(r *azure.VerificationIPFlowResult, reason string) {
	r.Access, r.Reason, r.RuleName, r.NetworkSecurityGroup = ruleset.Deny.String(), reason, "", ""
}

// asClassified gives a tuple of a question the form that packets have: for
// ICMP the message is an echo request. ICMP over IPv6 and ICMPv6 over IPv4 are to
// the decoder protocols without ports.
func asClassified(k *packet.Tuple) {
	switch {
	case k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP:
	case k.Proto == packet.ProtoICMP && k.Src.Is4():
		k.SrcPort, k.DstPort = 0, packet.ICMPv4EchoRequest
	case k.Proto == packet.ProtoICMPv6 && !k.Src.Is4():
		k.SrcPort, k.DstPort = 0, packet.ICMPv6EchoRequest
	default:
		k.SrcPort, k.DstPort = 0, 0
	}
}

// Result explains the verdict in the form of nsgctl verify.
func Result(v *verdict.Verdict) *azure.VerificationIPFlowResult {
	r := &azure.VerificationIPFlowResult{Access: v.Access.String(), Reason: ReasonNoGroup, Stages: make([]azure.VerificationStage, 0, v.N)}
	for i := range v.N {
		st := &v.Stages[i]
		rule := st.SecurityRule()
		r.Stages = append(r.Stages, azure.VerificationStage{
			NetworkSecurityGroup: st.Stage.Group.NSG.Name,
			Association:          st.Stage.Association.String(),
			Direction:            st.Stage.Direction.String(),
			RuleName:             rule.QualifiedName(),
			Access:               rule.Access.String(),
			Priority:             rule.Priority,
		})
		// The last stage evaluated names the result: the denying one, or the last that allowed.
		r.RuleName, r.NetworkSecurityGroup, r.Reason = rule.QualifiedName(), st.Stage.Group.NSG.Name, ReasonRule
	}
	if v.Service != topology.NoService {
		r.PlatformService = v.Service.String()
		if v.Access == ruleset.Allow {
			r.Reason = ReasonPlatform
		}
	}
	return r
}
