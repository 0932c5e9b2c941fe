package classifier_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

// longest is Azure's limit of prefixes and ports of a rule's side, and of members of an
// application security group.
const longest = 4000

// limits are rule sets at Azure's limits. The last rule of each denies everything.
var limits = []struct {
	name  string
	rules func(testing.TB) []classifier.Rule
}{
	{"rules=1000", func(testing.TB) []classifier.Rule { return group(1000) }},
	{"rules=4000", func(testing.TB) []classifier.Rule { return group(4000) }},
	{"rules=10/IPv6", func(testing.TB) []classifier.Rule { return overIPv6(group(10)) }},
	{"rules=4000/IPv6", func(testing.TB) []classifier.Rule { return overIPv6(group(4000)) }},
	{"rules=10/prefixes=4000 a side", func(testing.TB) []classifier.Rule { return longLists(10, 10, nested) }},
	{"rules=10/prefixes=4000 a side/IPv6", func(testing.TB) []classifier.Rule { return overIPv6(longLists(10, 10, nested)) }},
	{"rules=10/ASGs of 4000 members", func(testing.TB) []classifier.Rule { return longLists(10, 3, members) }},
	{"rules=10/ports=4000", func(testing.TB) []classifier.Rule { return withPorts(group(10), 10) }},
	{"rules=1000/prefixes=4000 a side, ports=4000", func(testing.TB) []classifier.Rule { return withPorts(longLists(1000, 8, nested), 8) }},
	{"rules=50/the largest service tags", largestTags},
}

func group(n int) []classifier.Rule { return groupRules(rand.New(rand.NewPCG(1, uint64(n))), n) }

// longLists makes n rules. Their sources and destinations come from a few different lists,
// each as long as allowed.
func longLists(n, different int, list func(*rand.Rand) []netip.Prefix) []classifier.Rule {
	r := rand.New(rand.NewPCG(11, uint64(n)))
	pick := func() func() []netip.Prefix {
		all := make([][]netip.Prefix, different)
		for i := range all {
			all[i] = list(r)
		}
		return func() []netip.Prefix { return all[r.IntN(different)] }
	}
	source, destination := pick(), pick()
	rules := group(n)
	for i := range rules[:n-1] {
		rules[i].Sources, rules[i].Destinations = source(), destination()
	}
	return rules
}

// nested makes prefixes of all sizes, close together and inside each other.
func nested(r *rand.Rand) []netip.Prefix {
	out := make([]netip.Prefix, longest)
	for i := range out {
		a := netip.AddrFrom4([4]byte{10, uint8(r.IntN(16)), uint8(r.Uint32()), uint8(r.Uint32())})
		out[i] = netip.PrefixFrom(a, 20+r.IntN(13)).Masked()
	}
	return out
}

// members makes the addresses of a few crowded subnets' NICs.
func members(r *rand.Rand) []netip.Prefix {
	out := make([]netip.Prefix, longest)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, uint8(r.IntN(64)), uint8(r.Uint32())}), 32)
	}
	return out
}

// overIPv6 turns each IPv4 prefix into one of fd00::/16, hosts into hosts.
func overIPv6(rules []classifier.Rule) []classifier.Rule {
	turn := func(list []netip.Prefix) []netip.Prefix {
		if &list[0] == &anywhere[0] {
			return list
		}
		out := make([]netip.Prefix, len(list))
		for i, p := range list {
			a := p.Addr().As4()
			b := [16]byte{0xfd, 0, a[0], a[1], a[2], 0, 0, 0, 15: a[3]}
			length := p.Bits() + 16
			if length > 40 {
				length += 80
			}
			out[i] = netip.PrefixFrom(netip.AddrFrom16(b), length).Masked()
		}
		return out
	}
	turned := map[*netip.Prefix][]netip.Prefix{}
	for i := range rules {
		for _, list := range []*[]netip.Prefix{&rules[i].Sources, &rules[i].Destinations} {
			if turned[&(*list)[0]] == nil {
				turned[&(*list)[0]] = turn(*list)
			}
			*list = turned[&(*list)[0]]
		}
	}
	return rules
}

// withPorts gives each rule one of a few lists of single ports.
func withPorts(rules []classifier.Rule, different int) []classifier.Rule {
	r := rand.New(rand.NewPCG(12, 12))
	all := make([][]ruleset.PortRange, different)
	for i := range all {
		for range longest {
			p := uint16(r.Uint32())
			all[i] = append(all[i], ruleset.PortRange{First: p, Last: p})
		}
	}
	for i := range rules[:len(rules)-1] {
		rules[i].DestinationPorts = all[i%different]
	}
	return rules
}

// largestTags makes one rule to each of the 49 largest service tags. AzureCloud, with
// 13,000 prefixes, is last, since narrow tags usually come before wide ones.
func largestTags(tb testing.TB) []classifier.Rule {
	tb.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "service-tags", "ServiceTags_Public.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		tb.Skipf("the file of service tags is not there: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	type tag struct {
		Name       string
		Properties struct{ AddressPrefixes []netip.Prefix }
	}
	var file struct{ Values []tag }
	if err := json.Unmarshal(b, &file); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	slices.SortFunc(file.Values, func(a, b tag) int {
		return len(b.Properties.AddressPrefixes) - len(a.Properties.AddressPrefixes)
	})
	if n := len(file.Values[0].Properties.AddressPrefixes); n < 10000 {
		tb.Fatalf("%s: the largest tag, %s, has %d prefixes, want at least 10,000", path, file.Values[0].Name, n)
	}
	rules := group(50)
	for i := range rules[:49] {
		rules[48-i].Destinations = file.Values[i].Properties.AddressPrefixes
	}
	return rules
}

// TestTableAgreesWithLinearAtTheLimits tries few packets for each set, since Linear reads
// millions of prefixes.
func TestTableAgreesWithLinearAtTheLimits(t *testing.T) {
	for _, set := range limits {
		t.Run(set.name, func(t *testing.T) {
			rules := set.rules(t)
			table := classifier.Compile(rules)
			r := rand.New(rand.NewPCG(13, 13))
			n := 2000
			if len(rules[0].Sources) == longest {
				n = 50_000 / len(rules)
			}
			if n = min(n, 2000); testing.Short() {
				n = max(n/50, 1)
			}
			for range n {
				agree(t, rules, table, insideTuple(r, rules), edgeTuple(r, rules))
			}
			t.Logf("%d rules in %d bytes", len(rules), table.Bytes())
		})
	}
}

// BenchmarkFirstMatchRatio compares each set's lookup with that of ten rules of its family,
// and ClassBench's sets with Linear too. Bursts of lookups are timed in turn and the
// fastest bursts compared, so that other load affects all alike. More packets leave less of
// the tables in the caches.
func BenchmarkFirstMatchRatio(b *testing.B) {
	for _, packets := range []int{1024, 4096} {
		ipv4, ipv6 := burstOf(group(10), 10, packets), burstOf(overIPv6(group(10)), 10, packets)
		b.Run(fmt.Sprintf("packets=%d", packets), func(b *testing.B) {
			for _, set := range limits {
				b.Run(set.name, func(b *testing.B) {
					of := burstOf(set.rules(b), 2, packets)
					if strings.HasSuffix(set.name, "/IPv6") {
						fastest := fastestOf(b, []burst{of, ipv6, ipv4})
						b.ReportMetric(fastest[0]/fastest[1], "times-10-rules")
						b.ReportMetric(fastest[0]/fastest[2], "times-10-IPv4-rules")
						return
					}
					fastest := fastestOf(b, []burst{of, ipv4})
					b.ReportMetric(fastest[0]/fastest[1], "times-10-rules")
				})
			}
			for _, set := range classifiertest.ClassBenchSets {
				b.Run(set.Name, func(b *testing.B) {
					rules := classifiertest.ReadClassBench(b, set.Name)
					of := burstOf(rules, 2, packets)
					fastest := fastestOf(b, []burst{of, ipv4, {classifier.Linear(rules), of.tuples}})
					b.ReportMetric(fastest[0]/fastest[1], "times-10-rules")
					b.ReportMetric(fastest[2]/fastest[0], "times-faster-than-linear")
				})
			}
		})
	}
}

// burst is a classifier and packets to look up.
type burst struct {
	firstMatcher
	tuples []packet.Tuple
}

func burstOf(rules []classifier.Rule, seed uint64, packets int) burst {
	return burst{classifier.Compile(rules), traffic(rand.New(rand.NewPCG(2, seed)), rules, packets)}
}

// fastestOf runs the bursts in turn. It returns the fastest lookup of each in nanoseconds
// and reports that of the first.
func fastestOf(b *testing.B, bursts []burst) []float64 {
	fastest := make([]float64, len(bursts))
	for b.Loop() {
		for i, u := range bursts {
			for range 2 { // the first pass brings the table back into the caches
				start := time.Now()
				for j := range u.tuples {
					sink += u.FirstMatch(&u.tuples[j])
				}
				ns := float64(time.Since(start)) / float64(len(u.tuples))
				if fastest[i] == 0 || ns < fastest[i] {
					fastest[i] = ns
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(fastest[0], "ns/lookup")
	return fastest
}
