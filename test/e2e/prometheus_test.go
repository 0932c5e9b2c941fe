package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/deploy/grafana"
)

// prometheus is a real server that scrapes the lab.
type prometheus struct {
	t       *testing.T
	address string
}

const prometheusConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
- job_name: nsgd
  static_configs: [{targets: ["127.0.0.1:9646"]}]
`

var listeningOn = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// startPrometheus serves on a port that the kernel chooses, with the rules of deploy/prometheus.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: scripts/setup installs it", err)
	}
	rules, err := filepath.Abs("../../deploy/prometheus/nsgd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, prometheusConfig, rules), 0o644); err != nil {
		t.Fatal(err)
	}
	log := newOutput()
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			cmd.Process.Kill()
			t.Errorf("Prometheus did not end within %v", patience)
		}
		if t.Failed() {
			t.Logf("Prometheus:\n%s", log)
		}
	})
	p := &prometheus{t: t}
	eventually(t, "Prometheus listens", func() bool {
		select {
		case <-exited:
			t.Fatalf("Prometheus ended: %v\n%s", cmd.ProcessState, log)
		default:
		}
		if m := listeningOn.FindStringSubmatch(log.String()); m != nil {
			p.address = m[1]
		}
		return p.address != ""
	})
	eventually(t, "Prometheus has scraped the daemon twice", func() bool {
		counted, err := p.query(`count_over_time(nsgd_build_info[10m]) >= 2`)
		return err == nil && len(counted) == 1
	})
	return p
}

// get asks the API and returns its data.
func (p *prometheus) get(path string, values url.Values, data any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error string
		Warnings      []string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return fmt.Errorf("%s: %s %s %q", response.Status, answer.Status, answer.Error, answer.Warnings)
	}
	return nil
}

// query answers with a vector, keyed as a scrape is, without the target's labels.
func (p *prometheus) query(expr string) (samples, error) {
	var data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.get("/api/v1/query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	s := samples{}
	for _, r := range data.Result {
		name := r.Metric["__name__"]
		for _, target := range []string{"__name__", "job", "instance"} {
			delete(r.Metric, target)
		}
		value, err := strconv.ParseFloat(r.Value[1].(string), 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", expr, err)
		}
		s[sampleKey(name, r.Metric)] = value
	}
	return s, nil
}

func (p *prometheus) mustQuery(expr string) samples {
	p.t.Helper()
	s, err := p.query(expr)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// answers waits until an expression has the wanted answer: where a scrape takes too long, there is none for a while.
func (p *prometheus) answers(expr string, fault func(samples) string) {
	p.t.Helper()
	last := ""
	defer func() {
		if last != "" {
			p.t.Logf("%s: %s", expr, last)
		}
	}()
	eventually(p.t, "Prometheus answers "+expr, func() bool {
		last = fault(p.mustQuery(expr))
		return last == ""
	})
}

// only are the samples of one metric, with another name for it.
func (s samples) only(metric, name string) samples {
	some := samples{}
	for key, value := range s {
		if rest, ok := strings.CutPrefix(key, metric+","); ok {
			some[name+","+rest] = value
		}
	}
	return some
}

// Counted packets in equal counters out, here through a server that scrapes, keeps and answers.
func TestPrometheusAnswersWithTheDaemonsCounters(t *testing.T) {
	d := start(t, labPolicy())
	serveTCP(t, vm3, 80)
	p := startPrometheus(t)
	before := scrape(t)

	const connections, sent, denied = 5, 30, 40
	for range connections {
		mustConnect(t, internet, vm3, 80)
	}
	from, to := bindUDP(t, vm3, 0), bindUDP(t, vm4, 0)
	send(t, from, address(to), sent, 100)
	receive(t, to, sent)
	send(t, bindUDP(t, internet, 0), address(bindUDP(t, vm3, 0)), denied, 64)
	c := since(t, before, func(c counts) bool {
		return c.rule(deniedIn(nsg2)).hits >= denied && c.after.drops("rule_deny") >= denied && c.rule(allowedIn(nsg2)).hits >= connections &&
			c.rule(decided{nsg2, "Outbound", "AllowVnetOutBound", "Allow"}).hits >= 1
	})

	for _, metric := range []string{"nsgd_rule_hits_total", "nsgd_rule_packets_total", "nsgd_rule_bytes_total", "nsgd_drops_total"} {
		var diff string
		eventually(t, "Prometheus has the daemon's "+metric, func() bool {
			// Kernels may send by themselves between the two.
			diff = cmp.Diff(scrape(t).only(metric, metric), p.mustQuery(metric))
			return diff == ""
		})
	}
	moved := samples{}
	for key, value := range c.after.only("nsgd_rule_hits_total", "") {
		if more := value - c.before.only("nsgd_rule_hits_total", "")[key]; more > 0 {
			moved[key] = more
		}
	}
	if n := moved[sampleKey("", map[string]string{"network_security_group": nsg2, "direction": "Inbound", "rule": "DenyAllInBound", "access": "Deny"})]; n != denied || len(moved) < 3 {
		t.Errorf("moved: %v", moved)
	}
	p.answers(`nsgd_rule_hits_total - min_over_time(nsgd_rule_hits_total[10m]) > 0`, func(s samples) string { return cmp.Diff(moved, s) })
	p.answers(`rate(nsgd_rule_hits_total[10m]) > 0`, func(rates samples) string {
		if len(rates) != len(moved) {
			return fmt.Sprintf("rates %v, want those of %v", rates, moved)
		}
		for key := range moved {
			if rates[key] == 0 {
				return "no rate of " + key
			}
		}
		return ""
	})
	p.answers(`sum by (reason) (nsgd_drops_total{reason="rule_deny"})`, func(s samples) string {
		if got := s[",reason=rule_deny"]; got != denied {
			return fmt.Sprintf("%v denied, want %d", got, denied)
		}
		return ""
	})
	neverHit(t, p)
	lastHits(t, p, moved)
	t.Run("every query of the dashboard is answered", func(t *testing.T) { askDashboard(t, p) })
	t.Run("every rule of deploy/prometheus is evaluated", func(t *testing.T) { healthyRules(t, p) })
	t.Run("a daemon that has gone raises an alert", func(t *testing.T) {
		d.stop(syscall.SIGTERM)
		eventually(t, "NsgdDown is pending", func() bool {
			return len(p.mustQuery(`ALERTS{alertname="NsgdDown",alertstate="pending"}`)) == 1
		})
	})
}

// neverHit compares the rules without a hit with those that nsgctl lists.
func neverHit(t *testing.T, p *prometheus) {
	t.Helper()
	var list struct {
		Rules []struct{ NetworkSecurityGroup, Direction, Name, Access string }
	}
	if out := nsgctl(t, "rules", "--unused", "-o", "json"); json.Unmarshal([]byte(out), &list) != nil {
		t.Fatalf("nsgctl rules printed %q", out)
	}
	want := samples{}
	for _, r := range list.Rules {
		want[sampleKey("nsgd_rule_hits_total", map[string]string{"network_security_group": r.NetworkSecurityGroup,
			"direction": r.Direction, "rule": r.Name, "access": r.Access})] = 0
	}
	if len(want) == 0 {
		t.Error("nsgctl knows no rule without a hit")
	}
	p.answers("nsgd_rule_hits_total == 0", func(s samples) string { return cmp.Diff(want, s) })
}

// lastHits checks that the rules that decided, and no other, did so just now.
func lastHits(t *testing.T, p *prometheus, moved samples) {
	t.Helper()
	p.answers("time() - nsgd_rule_last_hit_timestamp_seconds", func(ages samples) string {
		if len(ages) != len(moved) {
			return fmt.Sprintf("last hits of %v, want those of %v", ages, moved)
		}
		for key, age := range ages {
			if moved[key] == 0 || age < -1 || age > 3600 {
				return fmt.Sprintf("%s was hit %v s ago", key, age)
			}
		}
		return ""
	})
}

func askDashboard(t *testing.T, p *prometheus) {
	dashboard, err := grafana.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, q := range panel.Queries {
			expr := dashboard.Expand(q).Expr
			// One host without load balancers has nothing of these; that they are asked for at all is what counts.
			elsewhere := strings.Contains(expr, "nsgd_cluster_") || strings.Contains(expr, "nsgd_fabric_") || strings.Contains(expr, "nsgd_backend_up")
			p.answers(expr, func(s samples) string {
				if len(s) == 0 && !elsewhere {
					return panel.Title + ": nothing answers"
				}
				return ""
			})
		}
	}
	for _, q := range dashboard.Annotations {
		p.mustQuery(dashboard.Expand(q).Expr)
	}
	for name, v := range dashboard.Variables {
		v = dashboard.Expand(v)
		var values []string
		eventually(t, "variable "+name+" has values", func() bool {
			err := p.get("/api/v1/label/"+v.Label+"/values", url.Values{"match[]": {v.Expr}}, &values)
			return err == nil && len(values) > 0
		})
	}
}

func healthyRules(t *testing.T, p *prometheus) {
	var health map[string]string
	eventually(t, "every rule is evaluated", func() bool {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := p.get("/api/v1/rules", nil, &data); err != nil {
			t.Fatal(err)
		}
		health = map[string]string{}
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				health[r.Name] = r.Health
				if r.LastError != "" {
					t.Fatalf("%s: %s", r.Name, r.LastError)
				}
			}
		}
		for name := range maps.Keys(health) {
			if health[name] != "ok" {
				return false
			}
		}
		return len(health) > 0
	})
	p.answers("instance:nsgd_flows:ratio", func(s samples) string {
		if len(s) != 1 {
			return fmt.Sprintf("recorded: %v", s)
		}
		return ""
	})
}
