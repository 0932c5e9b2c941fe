package analysis_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// serviceTags reads Microsoft's file of service tags. Without the file it makes some up: AzureCloud with as many
// prefixes as the real one, each of them in one region and in some services.
func serviceTags(tb testing.TB) map[string][]netip.Prefix {
	tb.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "service-tags", "ServiceTags_Public.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return madeUpTags()
	}
	if err != nil {
		tb.Fatal(err)
	}
	var file struct {
		Values []struct {
			Name       string
			Properties struct{ AddressPrefixes []netip.Prefix }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	tags := map[string][]netip.Prefix{}
	for _, v := range file.Values {
		tags[v.Name] = v.Properties.AddressPrefixes
	}
	return tags
}

func madeUpTags() map[string][]netip.Prefix {
	r := rand.New(rand.NewPCG(9, 9))
	tags := map[string][]netip.Prefix{}
	add := func(name string, p netip.Prefix) { tags[name] = append(tags[name], p) }
	regions := strings.Fields("eastus eastus2 westus westus2 centralus northeurope westeurope uksouth francecentral germanywestcentral japaneast")
	for i := range 13_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i / 64), byte(i % 64 * 4), 0}), 23+r.IntN(6))
		if i%4 == 0 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x26, 3, 0x10, 0x30, byte(i >> 8), byte(i), 0, 0}), 56+r.IntN(4))
		}
		region := regions[r.IntN(len(regions))]
		add("AzureCloud", p)
		add("AzureCloud."+region, p)
		for _, service := range []string{"Storage", "Sql", "AzureMonitor"} {
			if r.IntN(6) == 0 {
				add(service, p)
				add(service+"."+region, p)
			}
		}
	}
	return tags
}

// rulesOfTags are a group of 400 rules from and to tags, the regions' before those of the whole cloud.
func rulesOfTags(tb testing.TB) []analysis.Rule {
	tags := serviceTags(tb)
	var regional, global []string
	for name := range tags {
		service, region, _ := strings.Cut(name, ".")
		switch {
		case !slices.Contains([]string{"AzureCloud", "Storage", "Sql", "AzureMonitor"}, service):
		case region == "":
			global = append(global, name)
		default:
			regional = append(regional, name)
		}
	}
	slices.Sort(regional)
	slices.Sort(global)
	r := rand.New(rand.NewPCG(10, 10))
	rules := make([]analysis.Rule, 400, 401)
	for i := range rules {
		names := regional
		if i >= 300 {
			names = global
		}
		rule := denyAll
		rule.Access, rule.Protocol = ruleset.Access(min(1, r.IntN(4))), ruleset.TCP
		from, to := tags[names[r.IntN(len(names))]], tags[names[r.IntN(len(names))]]
		switch r.IntN(4) {
		case 0:
			rule.Sources = from
		case 1:
			rule.Destinations = to
		default:
			rule.Sources, rule.Destinations = from, to
		}
		if port := uint16(443 + r.IntN(20)*10); r.IntN(8) > 0 {
			rule.DestinationPorts = []ruleset.PortRange{{First: port, Last: port + 5}}
		}
		if r.IntN(8) == 0 {
			rule.Protocol = ruleset.AnyProtocol
		}
		rules[i] = rule
	}
	return append(rules, denyAll)
}

func BenchmarkAnalysisTags(b *testing.B) {
	rules := rulesOfTags(b)
	list := func(rules []analysis.Rule) analysis.Chain { return analysis.Chain{analysis.NewList(rules)} }
	b.Run("Compare", func(b *testing.B) {
		for seed := uint64(0); b.Loop(); seed++ {
			d := analysis.Compare(list(rules), list(threeEdits(rand.New(rand.NewPCG(seed, 7)), rules)), analysis.Options{})
			b.ReportMetric(float64(len(d.Undecided)), "undecided")
		}
	})
	b.Run("Reach", func(b *testing.B) {
		for b.Loop() {
			r := analysis.Reach(list(rules), analysis.Options{})
			b.ReportMetric(float64(len(r.Allowed)), "allowed")
			b.ReportMetric(float64(len(r.Undecided)), "undecided")
		}
	})
	b.Run("Roles", func(b *testing.B) {
		for b.Loop() {
			analysis.Roles(analysis.NewList(rules), analysis.Options{})
		}
	})
}
