package inspect

import (
	"context"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// maxExplainedFlows is how many live flows are listed for one kind of packets.
const maxExplainedFlows = 5

// Explained is what ask.Explain says, and what the running engine adds: each rule's counters, and live flows.
type Explained struct {
	Paths []ExplainedPath `json:"paths"`
	// More means that further kinds of packets are left out.
	More      bool                 `json:"more,omitempty"`
	Undecided []ask.ReachUndecided `json:"undecided"`
}

// ExplainedPath is one kind of packets.
type ExplainedPath struct {
	ask.Explanation
	// Live is how many flows of these packets are alive; Flows are some of them. Both are absent in an answer
	// without a daemon.
	Live  *int   `json:"live,omitempty"`
	Flows []Flow `json:"flows,omitempty"`
}

// ExplainedBy gives an answer about a policy the form of one about a daemon.
func ExplainedBy(r *ask.ExplainResult) *Explained {
	x := &Explained{Paths: make([]ExplainedPath, len(r.Paths)), More: r.More, Undecided: r.Undecided}
	for i := range r.Paths {
		x.Paths[i].Explanation = r.Paths[i]
	}
	return x
}

// Explain says what becomes of packets between two ends under the running policy.
func (s *Service) Explain(ctx context.Context, q *ask.ExplainParameters) (*Explained, error) {
	e := s.options.Engine
	snapshot := e.Snapshot()
	asked, err := s.Asked()
	if err != nil {
		return nil, err
	}
	result, err := ask.Explain(ctx, asked, q)
	if err != nil {
		return nil, err
	}
	x := ExplainedBy(result)
	keys := e.Registry().Keys()
	counts := e.Counters().Rules(len(keys))
	for i := range x.Paths {
		x.Paths[i].Live = new(int)
		for j := range x.Paths[i].Legs {
			stages := x.Paths[i].Legs[j].Stages
			for k := range stages {
				if slot := int(stages[k].Slot); slot < len(counts) {
					stages[k].Counters = &RuleCounters{Hits: counts[slot].Hits, Packets: counts[slot].Packets, Bytes: counts[slot].Bytes}
				}
			}
		}
	}
	e.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		k := asRulesSee(&f.Key.Tuple)
		for i := range x.Paths {
			p := &x.Paths[i]
			if !p.Has(&k) {
				continue
			}
			if *p.Live++; len(p.Flows) < maxExplainedFlows {
				p.Flows = append(p.Flows, DescribeFlow(e, snapshot, keys, f))
			}
		}
		return true
	})
	return x, nil
}

// asRulesSee is the first packet of a flow with a tuple. A flow of ICMP has begun with an echo request, as far as its
// key tells.
func asRulesSee(t *packet.Tuple) packet.Tuple {
	p := packet.Packet{Tuple: *t, ICMPType: packet.ICMPv4EchoRequest}
	if t.Proto == packet.ProtoICMPv6 {
		p.ICMPType = packet.ICMPv6EchoRequest
	}
	var scratch packet.Tuple
	return *p.Classification(t, &scratch)
}
