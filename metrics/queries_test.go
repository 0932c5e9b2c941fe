package metrics

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/grafana"
	"github.com/nsgd/nsgd/metrics/flowlog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// exported are the labels of what can be asked for, by metric: what a daemon exports, and
// what Prometheus adds for each target.
type exported map[string]map[string]bool

func exportedByTheDaemon(t *testing.T) exported {
	t.Helper()
	engine := traffic(t)
	recorder, err := flowlog.New(flowlog.Options{Engine: engine, Logs: []flowlog.Log{{Version: flowlog.NSG, Stdout: true}}, Stdout: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { recorder.Close() })
	families, done, err := NewGatherer(Options{Engine: engine, Version: "1.2.3", Reloads: noReloads, Also: []prometheus.Collector{recorder, Standby(func() bool { return true }), Cluster(func() ClusterState { return ClusterState{} }),
		Fabric(func() (*FabricState, error) { return &FabricState{Dropped: map[string]uint64{"forged_source": 0}}, nil })}}).Gather()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	known := exported{}
	known.add("up")
	known.add("nsgd_backend_up", "load_balancer", "probe", "backend", "port") // this policy has no load balancer; see backends_test.go
	for _, f := range families {
		known.add(f.GetName())
		for _, m := range f.Metric {
			for _, l := range m.Label {
				known[f.GetName()][l.GetName()] = true
			}
		}
	}
	return known
}

func (e exported) add(name string, labels ...string) {
	e[name] = map[string]bool{"job": true, "instance": true}
	for _, l := range labels {
		e[name][l] = true
	}
}

// check parses a query and reports metrics and labels that nothing has. Labels are those of
// every series that the query can give.
func (e exported) check(query string) (result map[string]bool, err error) {
	root, err := parser.ParseExpr(query)
	if err != nil {
		return nil, err
	}
	return e.labelsOf(root)
}

func (e exported) labelsOf(n parser.Node) (map[string]bool, error) {
	switch n := n.(type) {
	case *parser.VectorSelector:
		known, ok := e[n.Name]
		if !ok {
			return nil, fmt.Errorf("nothing exports %s", n.Name)
		}
		for _, m := range n.LabelMatchers {
			if m.Name != labels.MetricName && !known[m.Name] {
				return nil, fmt.Errorf("%s has no label %s", n.Name, m.Name)
			}
		}
		return known, nil
	case *parser.AggregateExpr:
		inner, err := e.labelsOf(n.Expr)
		if err != nil {
			return nil, err
		}
		if n.Op == parser.TOPK || n.Op == parser.BOTTOMK {
			return inner, nil
		}
		result := map[string]bool{}
		if n.Without {
			result = maps.Clone(inner)
		}
		for _, l := range n.Grouping {
			if !inner[l] {
				return nil, fmt.Errorf("%s: nothing below has a label %s", n, l)
			}
			result[l] = !n.Without
		}
		return result, nil
	case *parser.BinaryExpr:
		left, err := e.labelsOf(n.LHS)
		if err != nil {
			return nil, err
		}
		right, err := e.labelsOf(n.RHS)
		if err != nil {
			return nil, err
		}
		if m := n.VectorMatching; m != nil {
			for _, l := range m.MatchingLabels {
				if !left[l] || !right[l] {
					return nil, fmt.Errorf("%s: a side has no label %s", n, l)
				}
			}
		}
		if len(left) == 0 {
			return right, nil
		}
		return left, nil
	case *parser.Call:
		if len(n.Args) == 0 || n.Func.Name == "vector" {
			return nil, nil
		}
		return e.labelsOf(n.Args[0])
	}
	for child := range parser.ChildrenIter(n) {
		return e.labelsOf(child)
	}
	return nil, nil
}

var legendLabel = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

func TestTheDashboardAsksForWhatTheDaemonExports(t *testing.T) {
	dashboard, err := grafana.Load()
	if err != nil {
		t.Fatal(err)
	}
	known := exportedByTheDaemon(t)
	for _, q := range dashboard.All() {
		q = dashboard.Expand(q)
		result, err := known.check(q.Expr)
		if err != nil {
			t.Errorf("%s: %v", q.Expr, err)
			continue
		}
		for _, m := range legendLabel.FindAllStringSubmatch(q.Legend, -1) {
			if !result[m[1]] {
				t.Errorf("%s: the legend's %s is no label of the result", q.Expr, m[1])
			}
		}
		if q.Label != "" && !result[q.Label] {
			t.Errorf("%s has no label %s", q.Expr, q.Label)
		}
	}
}

// ruleFile is as much of a file of Prometheus' rules as is checked.
type ruleFile struct {
	Groups []struct {
		Rules []struct{ Record, Alert, Expr string }
	}
}

func TestRulesAskForWhatTheDaemonExports(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", "nsgd.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	known := exportedByTheDaemon(t)
	recorded, alerts := map[string]string{}, 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			result, err := known.check(r.Expr)
			if err != nil {
				t.Errorf("%s%s: %v", r.Record, r.Alert, err)
			}
			if r.Record != "" {
				known[r.Record], recorded[r.Record] = result, r.Expr
			} else {
				alerts++
			}
		}
	}
	if len(recorded) == 0 || alerts == 0 {
		t.Errorf("%d recording rules, %d alerts", len(recorded), alerts)
	}
}

func TestReasonsThatTheRulesNameAreReasons(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", "nsgd.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	metrics := string(render(t, newTestGatherer(t).unchecked))
	named := regexp.MustCompile(`reason!~"([^"]*)"`).FindAllStringSubmatch(string(text), -1)
	if len(named) == 0 {
		t.Fatal("no rule names a reason")
	}
	for _, m := range named {
		for _, reason := range strings.Split(m[1], "|") {
			if !strings.Contains(metrics, `reason="`+reason+`"`) {
				t.Errorf("%s is no reason", reason)
			}
		}
	}
}

func TestWhatNothingExportsIsFound(t *testing.T) {
	known := exported{}
	known.add("hits", "rule")
	for _, tt := range []struct {
		query string
		want  string
	}{
		{`sum by (rule) (rate(hits{rule="a"}[5m]))`, ""},
		{`sum(hits) / on () sum(hits) or vector(0)`, ""},
		{`topk(3, hits) and on (job) hits`, ""},
		{`sum(hitz)`, "nothing exports hitz"},
		{`hits + sum(rate(hitz[5m]))`, "nothing exports hitz"},
		{`hits{rle="a"}`, "no label rle"},
		{`sum by (rle) (hits)`, "nothing below has a label rle"},
		{`sum by (rule) (sum by (job) (hits))`, "nothing below has a label rule"},
		{`sum by (job) (hits) and on (rule) hits`, "a side has no label rule"},
		{`sum(hits`, "parse error"},
	} {
		_, err := known.check(tt.query)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.query, err, tt.want)
		}
	}
}

func TestEachAlertHasItsRunbook(t *testing.T) {
	text, err := os.ReadFile("../deploy/prometheus/nsgd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)\n`).FindAllStringSubmatch(string(text), -1)
	pages, err := filepath.Glob("../deploy/runbooks/*.md")
	if err != nil || len(pages) != len(alerts) {
		t.Errorf("%d pages for %d alerts: %v", len(pages), len(alerts), err)
	}
	for _, a := range alerts {
		if !strings.Contains(string(text), "runbook_url: https://github.com/nsgd/nsgd/blob/main/deploy/runbooks/"+a[1]+".md\n") {
			t.Errorf("%s links no runbook", a[1])
		}
		if page, err := os.ReadFile("../deploy/runbooks/" + a[1] + ".md"); err != nil || !strings.HasPrefix(string(page), "# "+a[1]+"\n") {
			t.Errorf("%s has no page: %v", a[1], err)
		}
	}
}
