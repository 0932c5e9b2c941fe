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
)

var ruleFamilies = []family{
	ruleHits: {"nsgd_rule_hits_total",
		"Verdicts by the rule: new flows that it allowed and packets that it denied."},
	rulePackets: {"nsgd_rule_packets_total",
		"Packets that the rule let pass or dropped, those of live flows included, as wire segments."},
	ruleBytes: {"nsgd_rule_bytes_total",
		"Bytes of the packets that the rule let pass or dropped, IP headers included."},
}

// rules gathers the counters of every rule of the process's life: a rule that a reload removed
// may still carry flows, and a counter must not vanish and come back. Safe for concurrent use.
type rules struct {
	engine *dataplane.Engine

	mu     sync.Mutex
	series *series // guarded by mu
}

var _ prometheus.TransactionalGatherer = (*rules)(nil)

// Gather implements prometheus.TransactionalGatherer.
func (r *rules) Gather() ([]*dto.MetricFamily, func(), error) {
	s := r.current()
	counts := r.engine.RuleCounts(len(s.elements))
	p := s.take()
	p.show(ruleHits, func(slot int) (uint64, bool) { return counts[slot].Hits, true })
	p.show(rulePackets, func(slot int) (uint64, bool) { return counts[slot].Packets, true })
	p.show(ruleBytes, func(slot int) (uint64, bool) { return counts[slot].Bytes, true })
	return p.shown, p.release, nil
}

// current are the series of every slot there is.
func (r *rules) current() *series {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Slots are only added, and never change what they count.
	if keys := r.engine.Registry().Keys(); r.series == nil || len(r.series.elements) < len(keys) {
		r.series = newSeries(ruleFamilies, ruleElements(keys))
	}
	return r.series
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
