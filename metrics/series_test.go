package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// reference shows rules the slow way: constant metrics that a registry checks and sorts. counted leaves out rules that have
// counted nothing.
type reference struct {
	engine  *dataplane.Engine
	counted bool
}

func (r reference) Describe(chan<- *prometheus.Desc) {}

func (r reference) Collect(out chan<- prometheus.Metric) {
	keys := r.engine.Registry().Keys()
	last := r.engine.Counters().LastHits(len(keys))
	for slot, n := range r.engine.Counters().Rules(len(keys)) {
		k := keys[slot]
		if n.Packets == 0 && (r.counted || !r.hasRule(k)) {
			continue
		}
		for family, value := range []float64{ruleHits: float64(n.Hits), rulePackets: float64(n.Packets), ruleBytes: float64(n.Bytes),
			ruleLastHit: unixSeconds(last[slot])} {
			kind := prometheus.CounterValue
			if family == ruleLastHit {
				kind = prometheus.GaugeValue
				if n.Hits == 0 {
					continue
				}
			}
			d := prometheus.NewDesc(ruleFamilies[family].name, ruleFamilies[family].help,
				[]string{"network_security_group", "direction", "rule", "access"}, nil)
			out <- prometheus.MustNewConstMetric(d, kind, value, k.NetworkSecurityGroup, k.Direction.String(), k.Rule, k.Access.String())
		}
	}
}

// hasRule reports whether the policy in force has a rule.
func (r reference) hasRule(k topology.RuleKey) bool {
	for _, g := range r.engine.Snapshot().Groups {
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i := range t.Rules {
				if rule := &t.Rules[i]; g.Label == k.NetworkSecurityGroup && rule.Direction == k.Direction && rule.Name == k.Rule {
					return true
				}
			}
		}
	}
	return false
}

// withGroups is the policy with n more NSGs, whose rules sort before and behind those of "web".
func withGroups(n int) *policy.Set {
	set := testPolicy()
	for i := range n {
		r := set.NetworkSecurityGroups[0].Rules[0]
		r.Name = fmt.Sprintf("Allow\"%d\"", i)
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, &ruleset.NSG{
			Name: fmt.Sprintf("%c\\%d", 'a'+i%26, i), ID: fmt.Sprintf("/nsg/%d", i), Rules: []ruleset.Rule{r}})
	}
	return set
}

func reload(t testing.TB, engine *dataplane.Engine, set *policy.Set) {
	t.Helper()
	s, err := engine.Prepare(set)
	if err == nil {
		err = engine.Swap(s, nil)
	}
	if err != nil {
		t.Error(err)
	}
}

// sameSeries holds what a registry shows after a reload against the reference.
func sameSeries(t *testing.T, groups int, slow prometheus.Gatherer, quick prometheus.TransactionalGatherer) {
	t.Helper()
	families, done, err := quick.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := render(t, gathered(families).Gather)
	done()
	if diff := cmp.Diff(string(render(t, slow.Gather)), string(got)); diff != "" {
		t.Errorf("%d groups (-registry +got)\n%s", groups, diff)
	}
}

func TestRulesAreShownAsARegistryWouldAfterReloadsThatAddAndRemoveThem(t *testing.T) {
	engine := traffic(t)
	slow := prometheus.NewPedanticRegistry()
	slow.MustRegister(reference{engine: engine})
	quick := prometheus.NewMultiTRegistry(&rules{engine: engine, all: maxAllRules})
	for _, groups := range []int{0, 30, 1, 31, 31} {
		reload(t, engine, withGroups(groups))
		sameSeries(t, groups, slow, quick)
	}
}

// Several scrapes at once, on pages of their own, while reloads add rules and publish new
// attachments: each is whole and valid, and no rule that has counted goes.
func TestScrapesDuringReloadsAreWhole(t *testing.T) {
	engine := traffic(t)
	g := newEngineGatherer(Options{Engine: engine, Reloads: noReloads})
	reloads, scrapes := make(chan struct{}), sync.WaitGroup{}
	for range 3 {
		scrapes.Go(func() {
			for last := false; !last; {
				select {
				case <-reloads:
					last = true
				default:
				}
				families, done, err := g.Gather()
				if err != nil {
					t.Error(err)
				}
				text := string(render(t, prometheus.Gatherers{gathered(families)}.Gather))
				done()
				n := strings.Count(text, "\nnsgd_rule_hits_total{")
				if n == 0 || strings.Count(text, "\nnsgd_rule_bytes_total{") != n {
					t.Errorf("%d rules", n)
				}
				if !strings.Contains(text, `rule="AllowHttp"} 40`) || strings.Count(text, "\nnsgd_attachment_tun_dropped_total{") != 2 {
					t.Error("counts are missing:\n", text)
				}
			}
		})
	}
	for i := range 40 {
		reload(t, engine, withGroups(i))
	}
	close(reloads)
	scrapes.Wait()
}

func TestElementsAndFamiliesWithoutAValueAreLeftOut(t *testing.T) {
	pairs := labelPairs{}
	s := newSeries([]family{{name: "a_total", help: "A."}, {name: "b_total", help: "B."}}, []element{
		{0, []*dto.LabelPair{pairs.pair("l", "y")}}, {1, []*dto.LabelPair{pairs.pair("l", "x")}}})
	const header = "# HELP a_total A.\n# TYPE a_total counter\n"
	for _, test := range []struct {
		name  string
		known map[int]uint64
		want  string
	}{
		{"all", map[int]uint64{0: 10, 1: 11}, header + "a_total{l=\"x\"} 11\na_total{l=\"y\"} 10\n"},
		{"one", map[int]uint64{0: 20}, header + "a_total{l=\"y\"} 20\n"},
		{"none", nil, ""},
		{"all again", map[int]uint64{0: 30, 1: 31}, header + "a_total{l=\"x\"} 31\na_total{l=\"y\"} 30\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := s.take()
			defer p.release()
			p.show(0, func(i int) (float64, bool) { n, ok := test.known[i]; return float64(n), ok })
			p.show(1, func(int) (float64, bool) { return 0, false })
			if got := string(render(t, gathered(p.shown).Gather)); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

func TestAttachmentsOfOneNameAreToldApart(t *testing.T) {
	var list []*topology.Attachment
	for _, name := range []string{"nic", "nic#3", "nic", "nic"} {
		list = append(list, &topology.Attachment{Name: name})
	}
	var names []string
	for _, e := range attachmentElements(list) {
		names = append(names, *e.labels[0].Value)
	}
	if diff := cmp.Diff([]string{"nic", "nic#3", "nic#2", "nic#3#3"}, names); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// gathered is a prometheus.Gatherer of what was gathered before.
type gathered []*dto.MetricFamily

func (g gathered) Gather() ([]*dto.MetricFamily, error) { return g, nil }

func TestAPageIsOneScrapesAtATime(t *testing.T) {
	s := newSeries(ruleFamilies, nil)
	first, second := s.take(), s.take()
	if first == second {
		t.Error("two scrapes have one page")
	}
	first.release()
	if third := s.take(); third != first || s.take() == first {
		t.Error("a released page is not given to one scrape")
	}
}

// Each rule that first counted had all series of up to 500,000 rules made anew.
func TestFewSeriesMoveForEachNewRule(t *testing.T) {
	const rules = 1 << 12
	var all []*series
	moved := 0
	for i := range rules {
		before := slices.Clone(all)
		all = withNew(all, []element{{index: i}})
		total := 0
		for n, s := range all {
			total += len(s.elements)
			if n > 0 && 2*len(s.elements) >= len(all[n-1].elements) {
				t.Fatalf("%d elements follow %d", len(s.elements), len(all[n-1].elements))
			}
			if n >= len(before) || before[n] != s {
				moved += len(s.elements)
			}
		}
		if total != i+1 {
			t.Fatalf("%d elements of %d", total, i+1)
		}
	}
	if most := 12 * rules; moved > most { // each at most once for each power of two
		t.Errorf("%d elements moved, want at most %d", moved, most)
	}
}

// Of very many rules those are shown that have counted, from then on.
func TestOfManyRulesThoseAreShownThatHaveCounted(t *testing.T) {
	engine := traffic(t)
	slow := prometheus.NewPedanticRegistry()
	slow.MustRegister(reference{engine: engine, counted: true})
	quick := prometheus.NewMultiTRegistry(&rules{engine: engine, all: 1})
	for _, groups := range []int{0, 0, 30, 31, 1, 31} {
		reload(t, engine, withGroups(groups))
		set := engine.Counters()[0]
		for slot := groups; slot < len(engine.Registry().Keys()); slot += 7 {
			set.Add(uint32(slot), 1, 1, 40)
		}
		set.Flush()
		sameSeries(t, groups, slow, quick)
	}
}

func TestARuleThatAReloadRemovedIsShownOnlyIfItHasCounted(t *testing.T) {
	engine := traffic(t)
	shown := func() string {
		families, done, err := prometheus.NewMultiTRegistry(&rules{engine: engine, all: maxAllRules}).Gather()
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		return string(render(t, gathered(families).Gather))
	}
	bare := testPolicy()
	bare.NetworkSecurityGroups[0].Rules = nil
	for _, step := range []struct {
		set            *policy.Set
		counted, never bool
	}{{withGroups(1), true, true}, {bare, true, false}, {withGroups(1), true, true}} {
		reload(t, engine, step.set)
		text := shown()
		// With the line's end: the time of the last hit begins with a 1 too.
		if got := strings.Contains(text, `rule="AllowHttp"} 1`+"\n"); got != step.counted {
			t.Errorf("AllowHttp is shown: %t\n%s", got, text)
		}
		if got := strings.Contains(text, `network_security_group="a\\0",rule="Allow\"0\""}`); got != step.never {
			t.Errorf("a rule that never met a packet is shown: %t\n%s", got, text)
		}
	}
}
