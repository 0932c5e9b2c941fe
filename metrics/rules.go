package metrics

import (
	"sync"

	"github.com/nsgd/nsgd/dataplane"
	counters "github.com/nsgd/nsgd/dataplane/counter"
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

const (
	// maxAllRules is how many rules are shown whether they have counted or not.
	maxAllRules = 100_000
	// maxCountedRules is how many are shown at most of more than that: of those that have counted. So many take 200 MB of text
	// and 400 MB of memory.
	maxCountedRules = 500_000
)

// rules gathers the counters of every rule of the policy, and of removed rules that have counted
// something. A removed rule may still have flows, and a counter must not vanish and come back. Its series
// go when the engine forgets the rule. Of very many rules, only those are shown that have counted. Safe for concurrent use.
type rules struct {
	engine *dataplane.Engine
	all    int // see maxAllRules

	mu         sync.Mutex
	series     []*series // of version, see withNew; guarded by mu
	version    uint64    // of the registry; guarded by mu
	shown      int       // slots that have series; guarded by mu
	has        []bool    // by slot: it is among them; guarded by mu
	named      []bool    // by slot: a rule has it; never changed; guarded by mu
	inForce    []bool    // by slot, of the policy of generation; never changed; guarded by mu
	generation uint64    // guarded by mu
}

var _ prometheus.TransactionalGatherer = (*rules)(nil)

// ruleReading is what a scrape has of the rules, by slot.
type ruleReading struct {
	named, inForce []bool
	counts         []counters.Rule
	last           []int64
}

// counted reports that a slot has a rule that has counted something.
func (r *ruleReading) counted(slot int) bool {
	return r.named[slot] && (r.counts[slot].Hits > 0 || r.counts[slot].Packets > 0)
}

// Gather implements prometheus.TransactionalGatherer.
func (r *rules) Gather() ([]*dto.MetricFamily, func(), error) {
	registry := r.engine.Registry()
	version := registry.Version()
	s, n := r.current(version)
	for now := registry.Version(); now != version; now = registry.Version() { // a slot may have got another rule
		version = now
		s, n = r.current(version)
	}
	counts := n.counts
	shown := func(slot int) bool {
		return n.named[slot] && slot < len(n.inForce) && n.inForce[slot] || n.counted(slot)
	}
	p := takeAll(s)
	p.show(ruleHits, func(slot int) (float64, bool) { return float64(counts[slot].Hits), shown(slot) })
	p.show(rulePackets, func(slot int) (float64, bool) { return float64(counts[slot].Packets), shown(slot) })
	p.show(ruleBytes, func(slot int) (float64, bool) { return float64(counts[slot].Bytes), shown(slot) })
	p.show(ruleLastHit, func(slot int) (float64, bool) { return unixSeconds(n.last[slot]), n.named[slot] && n.last[slot] > 0 })
	return p.shown, p.release, nil
}

// current reads the counters, and returns the series of the slots that are shown.
func (r *rules) current(version uint64) ([]*series, ruleReading) {
	snapshot := r.engine.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := r.engine.Registry().Keys()
	if r.series == nil || r.version < version {
		r.series, r.version, r.shown = nil, version, 0
		r.named, r.has = make([]bool, len(keys)), make([]bool, len(keys))
		for slot, k := range keys {
			r.named[slot] = k != topology.RuleKey{}
		}
	}
	if r.generation < snapshot.Generation {
		r.inForce, r.generation = snapshot.MarkSlots(nil), snapshot.Generation
	}
	n := ruleReading{r.named, r.inForce, r.engine.Counters().Rules(len(r.named)), r.engine.Counters().LastHits(len(r.named))}
	var fresh []int
	for slot := range r.named {
		if !r.has[slot] && (len(r.named) <= r.all || n.counted(slot) && r.shown < maxCountedRules) {
			r.has[slot], fresh = true, append(fresh, slot)
			r.shown++
		}
	}
	if r.series == nil || len(fresh) > 0 {
		r.series = withNew(r.series, ruleElements(keys, fresh))
	}
	return r.series, n
}

// withNew adds elements to some series, which stay as they are for other scrapes: the longest first, each more than twice
// as long as the next. So an element moves to other series a few times, however many elements come one by one.
func withNew(all []*series, elements []element) []*series {
	n := len(all)
	for n > 0 && len(all[n-1].elements) <= 2*len(elements) {
		n--
		elements = append(elements, all[n].elements...)
	}
	return append(all[:n:n], newSeries(ruleFamilies, elements))
}

func ruleElements(keys []topology.RuleKey, slots []int) []element {
	elements := make([]element, len(slots))
	pairs := labelPairs{}
	for i, slot := range slots {
		k := &keys[slot]
		elements[i] = element{slot, []*dto.LabelPair{
			pairs.pair("access", k.Access.String()),
			pairs.pair("direction", k.Direction.String()),
			pairs.pair("network_security_group", k.NetworkSecurityGroup),
			pairs.pair("rule", k.Rule),
		}}
	}
	return elements
}
