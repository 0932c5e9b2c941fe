package arm

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// FuzzParse checks that no document makes the reader panic, that every fault says what
// and where, and that everything in a Set keeps its promises.
func FuzzParse(f *testing.F) {
	f.Add([]byte(edge))
	f.Add([]byte(world))
	err := filepath.WalkDir("testdata", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		data, err := os.ReadFile(path)
		f.Add(data)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := Parse("fuzz.json", data)
		for _, fault := range slices.Concat(d.Faults, d.Unresolved) {
			if fault.Code == "" || fault.File != "fuzz.json" || fault.Message == "" {
				t.Fatalf("a fault says too little: %+v", fault)
			}
		}
		for _, g := range d.Set.NetworkSecurityGroups {
			for i := range g.Rules {
				checkRule(t, &g.Rules[i])
			}
			azure.Effective(g, azure.EffectiveAssociation{}, func(string) []netip.Prefix { return nil })
		}
		for _, n := range d.Set.NetworkInterfaces {
			if len(n.IPConfigurations) == 0 {
				t.Fatal("a network interface without an address")
			}
			for _, c := range n.IPConfigurations {
				if !c.Address.IsValid() || c.Subnet == nil || c.Subnet.VirtualNetwork == nil {
					t.Fatalf("a configuration without an address or network: %+v", c)
				}
			}
		}
	})
}

func checkRule(t *testing.T, r *ruleset.Rule) {
	t.Helper()
	if r.Priority < ruleset.MinPriority || r.Priority > ruleset.MaxPriority || r.Default {
		t.Fatalf("priority %d, default %v", r.Priority, r.Default)
	}
	if len(r.SourcePorts) == 0 || len(r.DestinationPorts) == 0 {
		t.Fatalf("a rule without ports: %+v", r)
	}
	for _, p := range []ruleset.Peer{r.Source, r.Destination} {
		forms := 0
		for _, set := range []bool{p.Any, p.Tag != "", len(p.Prefixes) > 0, len(p.ApplicationSecurityGroups) > 0} {
			if set {
				forms++
			}
		}
		if forms != 1 {
			t.Fatalf("a side has %d forms: %+v", forms, p)
		}
		for _, prefix := range p.Prefixes {
			if !prefix.IsValid() || prefix != prefix.Masked() {
				t.Fatalf("prefix %v", prefix)
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000} {
		var rules []string
		for i := range n {
			rules = append(rules, fmt.Sprintf(`{"name": "r%d", "properties": {"protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": %d,
				"sourcePortRange": "*", "sourcePortRanges": [], "destinationPortRange": "443", "destinationPortRanges": [], "sourceAddressPrefix": "Internet",
				"sourceAddressPrefixes": [], "destinationAddressPrefix": "*", "destinationAddressPrefixes": []}}`, i, 100+i))
		}
		data := []byte(`{"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "properties": {"securityRules": [` + strings.Join(rules, ",") + `]}}`)
		b.Run(fmt.Sprint("rules=", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if d := Parse("n.json", data); len(d.Faults) > 0 {
					b.Fatal(d.Faults)
				}
			}
		})
	}
}
