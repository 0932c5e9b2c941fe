package dataplane

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// maxLegs bounds a way from appliance to appliance, which routes can make a circle.
const maxLegs = 16

// judgePath judges a flow on every leg of its way: at a virtual appliance it is inbound and
// outbound like anywhere else.
func judgePath(s *topology.Snapshot, src *topology.Endpoint, k *packet.Tuple) *arm.VerificationIPFlowResult {
	total := &arm.VerificationIPFlowResult{Access: ruleset.Deny.String(), Reason: ReasonNoRoute, Stages: []arm.VerificationStage{}}
	for range maxLegs {
		dst, _ := s.Route(src, k.Src, k.Dst)
		if dst == nil { // there is a way, though nothing may be attached to its end
			break
		}
		var v Verdict
		Judge(src, dst, k, &v)
		r := v.Result()
		blocked := v.Access == ruleset.Allow && s.SMTPBlocked(src, dst, k)
		r.Stages = append(total.Stages, r.Stages...)
		if len(r.Stages) == len(total.Stages) && len(r.Stages) > 0 { // nobody was asked on this leg
			r.RuleName, r.NetworkSecurityGroup, r.Reason = total.RuleName, total.NetworkSecurityGroup, total.Reason
		}
		if blocked {
			blockSMTP(r)
		}
		if blocked || v.Access == ruleset.Deny || dst.Has(k.Dst) {
			return r
		}
		total, src = r, dst
	}
	total.Access, total.RuleName, total.NetworkSecurityGroup, total.Reason = ruleset.Deny.String(), "", "", ReasonNoRoute
	return total
}

// NextHop answers what Azure Network Watcher's next hop does: where a NIC's packets to an
// address go.
func NextHop(s *topology.Snapshot, nic *arm.NetworkInterface, source, destination netip.Addr) (*arm.NextHopResult, error) {
	from := s.Endpoint(nic, source)
	if from == nil {
		return nil, fmt.Errorf("network interface %q has no address %s; it has %s", nic.Name, source, addresses(nic))
	}
	hop := s.NextHop(from, destination)
	r := &arm.NextHopResult{NextHopType: string(hop.Type), RouteTableID: arm.SystemRoute}
	if hop.Table != nil {
		r.RouteTableID = hop.Table.ID
	}
	if hop.Address.IsValid() {
		r.NextHopIPAddress = hop.Address.String()
	}
	return r, nil
}
