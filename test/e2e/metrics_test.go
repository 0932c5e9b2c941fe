package e2e

import (
	"bufio"
	"context"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// samples are the values of one scrape by name and labels, as in the text
// format but with labels in alphabetical order.
type samples map[string]float64

var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// since are the samples that have changed, with how much.
func (s samples) since(before samples) samples {
	changed := samples{}
	for name, value := range s {
		if value != before[name] {
			changed[name] = value - before[name]
		}
	}
	return changed
}

func scrape(t *testing.T) samples {
	t.Helper()
	if across != nil {
		return across.scrape(t)
	}
	return scrapeBy(t, nil)
}

// scrapeBy is scrape of a daemon that dial leads to; nil: the one of this namespace.
func scrapeBy(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error)) samples {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, metricsURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A kept connection would belong to a daemon that a test has ended since.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s", response.Status)
	}
	s := samples{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		m := sampleLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatalf("metrics: %q: %v", lines.Text(), err)
		}
		labels := map[string]string{}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			labels[pair[1]] = pair[2]
		}
		s[sampleKey(m[1], labels)] = value
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

func sampleKey(name string, labels map[string]string) string {
	var b strings.Builder
	b.WriteString(name)
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString("," + label + "=" + labels[label])
	}
	return b.String()
}

// decided is a rule's identity in metrics.
type decided struct{ group, direction, rule, access string }

// ruleCount is what a rule counted.
type ruleCount struct{ hits, packets, bytes float64 }

func (s samples) rule(d decided) ruleCount {
	labels := map[string]string{"network_security_group": d.group, "direction": d.direction, "rule": d.rule, "access": d.access}
	return ruleCount{
		hits:    s[sampleKey("nsgd_rule_hits_total", labels)],
		packets: s[sampleKey("nsgd_rule_packets_total", labels)],
		bytes:   s[sampleKey("nsgd_rule_bytes_total", labels)],
	}
}

func (s samples) drops(reason string) float64 {
	return s[sampleKey("nsgd_drops_total", map[string]string{"reason": reason})]
}

// hits is the number of verdicts of all rules of a group.
func (s samples) hits(group string) float64 {
	sum := 0.0
	for key, value := range s {
		if strings.HasPrefix(key, "nsgd_rule_hits_total,") && strings.Contains(key, ",network_security_group="+group+",") {
			sum += value
		}
	}
	return sum
}

// counts compares scrapes: what rules counted since before.
type counts struct {
	t             *testing.T
	before, after samples
}

// since scrapes after the daemon has counted everything it carried: counters of a
// burst are published at its end, so the scrape repeats until settled says so.
func since(t *testing.T, before samples, settled func(counts) bool) counts {
	t.Helper()
	c := counts{t: t, before: before}
	eventually(t, "counters settle", func() bool {
		c.after = scrape(t)
		return settled(c)
	})
	return c
}

func (c counts) rule(d decided) ruleCount {
	a, b := c.after.rule(d), c.before.rule(d)
	return ruleCount{a.hits - b.hits, a.packets - b.packets, a.bytes - b.bytes}
}

func (c counts) hits(group string) float64 { return c.after.hits(group) - c.before.hits(group) }

// deniedBy checks that a verdict of the rule, and none of the other group, was
// what stopped the traffic since before.
func deniedBy(t *testing.T, before samples, d decided, untouched string) {
	t.Helper()
	c := since(t, before, func(c counts) bool { return c.rule(d).hits > 0 })
	if untouched != "" && c.hits(untouched) != 0 {
		t.Errorf("%s decided %v times, want its counters not to move", untouched, c.hits(untouched))
	}
}
