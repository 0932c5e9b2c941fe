package metrics

import (
	"sync"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The families of a rule, by their place in ruleFamilies.
const (
	ruleHits = iota
	rulePackets
	ruleBytes
	ruleLastHit
)

var ruleFamilies = []family{
	ruleHits: {name: "nsgd_rule_hits_total",
		help: "Verdicts by the rule: new flows that it allowed and packets that it denied."},
	rulePackets: {name: "nsgd_rule_packets_total",
		help: "Packets that the rule let pass or dropped, those of live flows included, as wire segments."},
	ruleBytes: {name: "nsgd_rule_bytes_total",
		help: "Bytes of the packets that the rule let pass or dropped, IP headers included."},
	ruleLastHit: {name: "nsgd_rule_last_hit_timestamp_seconds", gauge: true,
		help: "When the rule gave its last verdict; absent for a rule that has given none."},
}

// rules gathers the counters of every rule of the policy, and of removed rules that have counted
// something. A removed rule may still have flows, and a counter must not vanish and come back.
// Safe for concurrent use.
type rules struct {
	engine *dataplane.Engine

	mu         sync.Mutex
	series     *series // guarded by mu
	inForce    []bool  // by slot, of the policy of generation; never changed; guarded by mu
	generation uint64  // guarded by mu
}

var _ prometheus.TransactionalGatherer = (*rules)(nil)

// Gather implements prometheus.TransactionalGatherer.
func (r *rules) Gather() ([]*dto.MetricFamily, func(), error) {
	s, inForce := r.current()
	counts, last := r.engine.RuleCounts(len(s.elements)), r.engine.RuleLastHits(len(s.elements))
	shown := func(slot int) bool {
		return slot < len(inForce) && inForce[slot] || counts[slot].Hits > 0 || counts[slot].Packets > 0
	}
	p := s.take()
	p.show(ruleHits, func(slot int) (float64, bool) { return float64(counts[slot].Hits), shown(slot) })
	p.show(rulePackets, func(slot int) (float64, bool) { return float64(counts[slot].Packets), shown(slot) })
	p.show(ruleBytes, func(slot int) (float64, bool) { return float64(counts[slot].Bytes), shown(slot) })
	p.show(ruleLastHit, func(slot int) (float64, bool) { return unixSeconds(last[slot]), last[slot] > 0 })
	return p.shown, p.release, nil
}

// current returns the series of every slot, and which slots the policy has.
func (r *rules) current() (*series, []bool) {
	snapshot := r.engine.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	// Slots are only added, and never get another rule.
	if keys := r.engine.Registry().Keys(); r.series == nil || len(r.series.elements) < len(keys) {
		r.series = newSeries(ruleFamilies, ruleElements(keys))
	}
	if r.generation < snapshot.Generation {
		r.inForce, r.generation = slotsOf(snapshot), snapshot.Generation
	}
	return r.series, r.inForce
}

// slotsOf marks the slots of a policy's rules.
func slotsOf(s *topology.Snapshot) []bool {
	var marks []bool
	for _, g := range s.Groups {
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for _, slot := range t.Slots {
				if missing := int(slot) + 1 - len(marks); missing > 0 {
					marks = append(marks, make([]bool, missing)...)
				}
				marks[slot] = true
			}
		}
	}
	return marks
}

func ruleElements(keys []topology.RuleKey) []element {
	elements := make([]element, len(keys))
	pairs := labelPairs{}
	for slot := range keys {
		k := &keys[slot]
		elements[slot] = element{slot, []*dto.LabelPair{
			pairs.pair("access", k.Access.String()),
			pairs.pair("direction", k.Direction.String()),
			pairs.pair("network_security_group", k.NetworkSecurityGroup),
			pairs.pair("rule", k.Rule),
		}}
	}
	return elements
}
