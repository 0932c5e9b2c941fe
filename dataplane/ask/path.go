package ask

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// maxLegs bounds a way from appliance to appliance, which routes can make a circle.
const maxLegs = 16

// judgePath judges a flow on every leg of its way: at a virtual appliance it is inbound and
// outbound like anywhere else. The rules of an end see the addresses that are the flow's there.
func judgePath(s *topology.Snapshot, src *topology.Endpoint, k *packet.Tuple) *azure.VerificationIPFlowResult {
	total := &azure.VerificationIPFlowResult{Access: ruleset.Deny.String(), Reason: ReasonNoRoute, Stages: []azure.VerificationStage{}}
	sent := *k
	for range maxLegs {
		var w topology.Way
		drop := s.Way(src, &sent, &w)
		var v verdict.Verdict
		verdict.Judge(src, nil, &sent, &v)
		if byTranslation(drop) {
			r := after(total, Result(&v))
			r.Translations = append(r.Translations, explain(s, src, &sent, &w)...)
			if v.Access == ruleset.Allow {
				refuse(r, reasonOf(drop))
			}
			return r
		}
		dst := w.To
		if dst == nil { // there is a way, though nothing may be attached to its end
			break
		}
		arrives := w.Arrives
		if len(w.Ports) > 0 {
			arrives.Src = w.Ports[0].Address
			if arrives.Proto == packet.ProtoTCP || arrives.Proto == packet.ProtoUDP {
				arrives.SrcPort = w.Ports[0].First
			}
		}
		if v.Access == ruleset.Allow {
			var there verdict.Verdict
			verdict.Judge(nil, dst, &arrives, &there)
			service := v.Service
			v = v.And(&there)
			v.Service = service
		}
		r := after(total, Result(&v))
		if w.Translated || w.Floating {
			r.Translations = append(r.Translations, explain(s, src, &sent, &w)...)
		}
		switch {
		case v.Access == ruleset.Deny:
			return r
		case s.SMTPBlocked(src, dst, &sent):
			refuse(r, ReasonSMTP)
			return r
		case w.Closed:
			refuse(r, reasonOf(packet.DropClosed))
			return r
		case w.Floating, dst.Has(arrives.Dst):
			return r
		}
		total, src, sent = r, dst, arrives
	}
	total.Access, total.RuleName, total.NetworkSecurityGroup, total.Reason = ruleset.Deny.String(), "", "", ReasonNoRoute
	return total
}

// after is the result of a way so far and its next leg.
func after(total, leg *azure.VerificationIPFlowResult) *azure.VerificationIPFlowResult {
	leg.Translations = append(total.Translations, leg.Translations...)
	leg.Stages = append(total.Stages, leg.Stages...)
	if len(leg.Stages) == len(total.Stages) && len(leg.Stages) > 0 { // nobody was asked on this leg
		leg.RuleName, leg.NetworkSecurityGroup, leg.Reason = total.RuleName, total.NetworkSecurityGroup, total.Reason
	}
	return leg
}
