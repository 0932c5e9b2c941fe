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
// something. A removed rule may still have flows, and a counter must not vanish and come back. Its series
// go when the engine forgets the rule. Safe for concurrent use.
type rules struct {
	engine *dataplane.Engine

	mu         sync.Mutex
	series     *series // of version; guarded by mu
	version    uint64  // of the registry; guarded by mu
	named      []bool  // by slot: a rule has it; never changed; guarded by mu
	inForce    []bool  // by slot, of the policy of generation; never changed; guarded by mu
	generation uint64  // guarded by mu
}

var _ prometheus.TransactionalGatherer = (*rules)(nil)

// Gather implements prometheus.TransactionalGatherer.
func (r *rules) Gather() ([]*dto.MetricFamily, func(), error) {
	registry := r.engine.Registry()
	version := registry.Version()
	s, named, inForce := r.current(version)
	counts, last := r.engine.Counters().Rules(len(s.elements)), r.engine.Counters().LastHits(len(s.elements))
	for now := registry.Version(); now != version; now = registry.Version() { // a slot may have got another rule
		version = now
		s, named, inForce = r.current(version)
		counts, last = r.engine.Counters().Rules(len(s.elements)), r.engine.Counters().LastHits(len(s.elements))
	}
	shown := func(slot int) bool {
		return named[slot] && (slot < len(inForce) && inForce[slot] || counts[slot].Hits > 0 || counts[slot].Packets > 0)
	}
	p := s.take()
	p.show(ruleHits, func(slot int) (float64, bool) { return float64(counts[slot].Hits), shown(slot) })
	p.show(rulePackets, func(slot int) (float64, bool) { return float64(counts[slot].Packets), shown(slot) })
	p.show(ruleBytes, func(slot int) (float64, bool) { return float64(counts[slot].Bytes), shown(slot) })
	p.show(ruleLastHit, func(slot int) (float64, bool) { return unixSeconds(last[slot]), named[slot] && last[slot] > 0 })
	return p.shown, p.release, nil
}

// current returns the series of every slot, which slots have a rule, and which the policy has.
func (r *rules) current(version uint64) (*series, []bool, []bool) {
	snapshot := r.engine.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.series == nil || r.version < version {
		keys := r.engine.Registry().Keys()
		r.series, r.version, r.named = newSeries(ruleFamilies, ruleElements(keys)), version, make([]bool, len(keys))
		for slot, k := range keys {
			r.named[slot] = k != topology.RuleKey{}
		}
	}
	if r.generation < snapshot.Generation {
		r.inForce, r.generation = snapshot.MarkSlots(nil), snapshot.Generation
	}
	return r.series, r.named, r.inForce
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
