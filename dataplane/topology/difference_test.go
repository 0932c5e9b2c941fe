package topology

import (
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset/arm"
)

// A backend that is detached changes the flows of a frontend's address too. One that nothing leads to changes its own alone.
func TestADetachedBackendConcernsMoreThanItsAddress(t *testing.T) {
	text := strings.ReplaceAll(sandwich(1), `"enableIPForwarding": true, `, "")
	text = strings.ReplaceAll(text, `"protocol": "All", "frontendPort": 0, "backendPort": 0`, `"protocol": "Tcp", "frontendPort": 80, "backendPort": 80`)
	d := arm.Parse("policy.json", []byte(text))
	with := func(names ...string) *Snapshot {
		var specs []Spec
		for _, name := range names {
			specs = append(specs, Spec{Kind: NetworkInterface, Reference: name})
		}
		s, err := Options{Seed: 7}.Build(d.Set, specs, NewRegistry())
		if err != nil || len(d.Faults) > 0 {
			t.Fatal(err, d.Faults)
		}
		return s
	}
	for _, tt := range []struct {
		name          string
		before, after *Snapshot
		everything    bool
	}{
		{"a backend goes", with("client", "server", "nva0"), with("client", "server"), true},
		{"a network interface that nothing leads to goes", with("client", "nva0", "server"), with("client", "nva0"), false},
	} {
		for _, pair := range [][2]*Snapshot{{tt.before, tt.after}, {tt.after, tt.before}} { // and comes
			d := pair[1].Differs(pair[0])
			if d.Everything != tt.everything || !tt.everything && (!d.Has(ip("10.0.2.4")) || d.Has(ip("10.0.1.4"))) {
				t.Errorf("%s: everything %v, its address %v, another %v", tt.name, d.Everything, d.Has(ip("10.0.2.4")), d.Has(ip("10.0.1.4")))
			}
		}
	}
}
