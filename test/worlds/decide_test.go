package worlds

import (
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
)

// decides holds the decision itself against what the engine did, leg by leg: the reason, who
// receives the packet and how it arrives, and the rules, in their order. It decides about packets of no
// flow: one that comes to an appliance again, in a circle, is of the flow that the appliance knows.
func (b *built) decides(x *seen) (list []opinion) {
	for i := range x.legs {
		l := &x.legs[i]
		if i > 0 && i == len(x.legs)-1 && x.outcome.Reason == "noRoute" && l.drop != packet.DropNoRoute {
			break // the end of a circle
		}
		var d verdict.Decision
		src, drop := verdict.Admit(b.snapshot, b.snapshot.Attachments[l.from], &l.sent.Tuple)
		if drop == packet.NotDropped {
			drop = d.Decide(b.snapshot, src, &l.sent)
		}
		rules := rulesOf(&d.Verdict)
		o := opinion{who: "Decide", says: fmt.Sprintf("leg %d: %s by %v", i+1, drop, rules), different: drop != l.drop}
		switch drop {
		case packet.NotDropped:
			to := d.Way.To.Attachment
			o.says += fmt.Sprintf(", to %d as %s", to, d.Way.Arrives)
			o.different = o.different || to != l.to || d.Way.Arrives != l.arrives || !slices.Equal(rules, l.rules) || (d.Verdict.Service != topology.NoService) != l.service
		case packet.DropRule:
			o.different = o.different || !slices.Equal(rules, l.rules)
		}
		list = append(list, o)
	}
	return list
}

// rulesOf are a verdict's rules in the form of legs'. One NSG at two places of an end counts once.
func rulesOf(v *verdict.Verdict) (list []string) {
	for i := range v.N {
		st := &v.Stages[i]
		list = append(list, fmt.Sprintf("%s %s %s", st.Stage.Group.Label, st.Stage.Direction, st.SecurityRule().Name))
	}
	return slices.Compact(list)
}
