package dataplane

import (
	"fmt"
	"net/netip"

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
// the other end's where that is known. It is the engine's own Judge on
// the engine's own snapshot; it counts nothing and creates no flow.
func Verify(s *topology.Snapshot, q *arm.Flow, path bool) (*arm.VerificationIPFlowResult, error) {
	nic, err := s.Policy.NetworkInterface(q.NetworkInterface)
	if err != nil {
		return nil, err
	}
	local := s.Endpoint(nic, q.Local)
	if local == nil {
		return nil, fmt.Errorf("network interface %q has no address %s; it has %s", nic.Name, q.Local, addresses(nic))
	}
	next := s.RouteFrom(local, q.Remote)
	var remote *topology.Endpoint
	if path {
		if remote = next; remote == nil {
			return &arm.VerificationIPFlowResult{Access: ruleset.Deny.String(), Reason: ReasonNoRoute,
				Stages: []arm.VerificationStage{}}, nil
		}
	}
	k := packet.Tuple{Src: packet.AddrFrom(q.Local), Dst: packet.AddrFrom(q.Remote),
		SrcPort: q.LocalPort, DstPort: q.RemotePort, Proto: q.Protocol}
	src, dst := local, remote
	if q.Direction == ruleset.Inbound {
		k, src, dst = k.Reverse(), remote, local
	}
	asClassified(&k)
	var v Verdict
	Judge(src, dst, &k, &v)
	result := v.Result()
	if q.Direction == ruleset.Outbound && v.Access == ruleset.Allow && s.SMTPBlocked(local, next, &k) {
		result.Access, result.Reason = ruleset.Deny.String(), ReasonSMTP
		result.RuleName, result.NetworkSecurityGroup = "", ""
	}
	return result, nil
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

func addresses(nic *arm.NetworkInterface) []netip.Addr {
	var list []netip.Addr
	for i := range nic.IPConfigurations {
		list = append(list, nic.IPConfigurations[i].Address)
	}
	return list
}
