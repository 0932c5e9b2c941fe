package arm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// Each unknown name was compared with every tag, and its message kept, however many there were.
func TestOnlyTheFirstUnknownNamesGetAHintAndAreRemembered(t *testing.T) {
	tags := parseTags(t, "testdata/servicetags/weekly.json")
	name := func(i int) string { return fmt.Sprintf("Storage.x%d", i) }
	for i := range 3 * maxHints {
		_, problem := tags.Known(name(i))
		if hinted := strings.HasSuffix(problem, "; near is Storage"); hinted != (i < maxHints) || !strings.Contains(problem, "and not this one") {
			t.Fatalf("name %d: %q", i, problem)
		}
	}
	if len(tags.problems) != maxHints {
		t.Errorf("%d messages are kept", len(tags.problems))
	}
	if _, problem := tags.Known(strings.ToUpper(name(0))); !strings.Contains(problem, "near is Storage") {
		t.Errorf("a name that had a hint: %q", problem)
	}
}

// A group whose type had a letter too few was passed over, and no rule of it held.
func TestATypeThatIsNearlyOneOfOursIsAFault(t *testing.T) {
	for _, tt := range []struct{ name, typ, near string }{
		{"without its plural", "Microsoft.Network/networkSecurityGroup", "Microsoft.Network/networkSecurityGroups"},
		{"of a child, without its plural", "microsoft.network/NetworkSecurityGroups/securityRule", "Microsoft.Network/networkSecurityGroups/securityRules"},
		{"with a misspelt provider", "Microsoft.Netwrok/virtualNetworks", "Microsoft.Network/virtualNetworks"},
		{"in another case", "microsoft.network/NETWORKSECURITYGROUPS", ""},
		{"of another kind", "Microsoft.Network/virtualNetworkTaps", ""},
		{"of a rule for users", "Microsoft.Network/networkManagers/securityUserConfigurations", ""},
		{"of the classic network", "Microsoft.ClassicNetwork/networkSecurityGroups", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(`{"resources": [{"type": "`+tt.typ+`", "name": "n", "properties": {}}]}`))
			if tt.near == "" {
				if slices.ContainsFunc(d.Faults, func(f ruleset.Fault) bool { return f.Field == "type" }) {
					t.Errorf("faults %v", d.Faults)
				}
				return
			}
			if f := d.Faults; len(f) != 1 || f[0].Code != CodeInvalidResourceType || f[0].Value != tt.typ || f[0].Resource != "resources/n" || !strings.Contains(f[0].Message, "near is "+tt.near) {
				t.Errorf("faults %v, want near is %s", f, tt.near)
			}
		})
	}
}

// A row was allocated for each of three thousand comparisons.
func TestAComparisonAllocatesNothing(t *testing.T) {
	row := make([]int, len("storage.westeurop")+maxDistance+1)
	if n := testing.AllocsPerRun(100, func() { distance("storage.westeurop", "storage.westeurope", maxDistance, row) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The end of a comparison that can't come below the limit any more changes no result.
func TestDistanceIsThatOfTheWholeComparisonUpToTheLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	word := func() string {
		letters := make([]byte, r.IntN(8))
		for i := range letters {
			letters[i] = "ab."[r.IntN(3)]
		}
		return string(letters)
	}
	for range 5000 {
		a, b := word(), word()
		for limit := range 4 {
			row := make([]int, len(a)+limit+1)
			if got, want := distance(a, b, limit, row), min(slowDistance(a, b), limit+1); got != want {
				t.Fatalf("from %q to %q within %d: %d, want %d", a, b, limit, got, want)
			}
		}
	}
}

// slowDistance is distance without a limit, by its definition.
func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	change := slowDistance(a[1:], b[1:])
	if a[0] == b[0] {
		return change
	}
	return 1 + min(change, slowDistance(a[1:], b), slowDistance(a, b[1:]))
}

func BenchmarkHint(b *testing.B) {
	tags := &ServiceTags{tags: map[string]tag{}}
	for i := range 3000 {
		name := fmt.Sprintf("service%d.region%d", i/60, i%60)
		tags.tags[name] = tag{TagFacts: TagFacts{Name: name}}
	}
	b.ReportAllocs()
	for b.Loop() {
		tags.hint("mainframe77.regio1")
	}
}
