package dataplane

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
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
)

// Verify answers what would happen to a new flow of a NIC. Without path it
// evaluates the NIC's own chain, as Azure's IP flow verify does; with path also
// those of the other end, where that is known, and of virtual appliances on the way. It is the engine's own Judge on
// the engine's own snapshot; it counts nothing and creates no flow.
func Verify(s *topology.Snapshot, q *arm.Flow, path bool) (*arm.VerificationIPFlowResult, error) {
	local, err := localEnd(s, q)
	if err != nil {
		return nil, err
	}
	k := packet.Tuple{Src: packet.AddrFrom(q.Local), Dst: packet.AddrFrom(q.Remote),
		SrcPort: q.LocalPort, DstPort: q.RemotePort, Proto: q.Protocol}
	src, dst := local, (*topology.Endpoint)(nil)
	if q.Direction == ruleset.Inbound {
		k, src, dst = k.Reverse(), nil, local
	}
	asClassified(&k)
	if path {
		if src == nil {
			src = s.Sender(local, q.Remote)
		}
		if src == nil {
			return &arm.VerificationIPFlowResult{Access: ruleset.Deny.String(), Reason: ReasonNoRoute, Stages: []arm.VerificationStage{}}, nil
		}
		return judgePath(s, src, &k), nil
	}
	var v Verdict
	Judge(src, dst, &k, &v)
	result := v.Result()
	if q.Direction == ruleset.Outbound && v.Access == ruleset.Allow && s.SMTPBlocked(local, s.RouteFrom(local, q.Remote), &k) {
		blockSMTP(result)
	}
	return result, nil
}

func blockSMTP(r *arm.VerificationIPFlowResult) {
	r.Access, r.Reason, r.RuleName, r.NetworkSecurityGroup = ruleset.Deny.String(), ReasonSMTP, "", ""
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
func (v *Verdict) Result() *arm.VerificationIPFlowResult {
	r := &arm.VerificationIPFlowResult{Access: v.Access.String(), Reason: ReasonNoGroup, Stages: make([]arm.VerificationStage, 0, v.N)}
	for i := range v.N {
		st := &v.Stages[i]
		rule := st.SecurityRule()
		r.Stages = append(r.Stages, arm.VerificationStage{
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
