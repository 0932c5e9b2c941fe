package topology

import "testing"

// A policy of almost MaxRules could never be changed again if removed rules kept their slots for longer.
func TestRemovedRulesGiveBackTheirSlotsInTime(t *testing.T) {
	for _, tt := range []struct {
		name             string
		removed, inForce int
		want             bool
	}{
		{"few rules keep some removed ones", keepRemoved, 10, false},
		{"and not more", keepRemoved + 1, 10, true},
		{"as many removed ones as rules", 5_000, 5_000, false},
		{"more of them", 5_001, 5_000, true},
		{"half of the room that many rules leave", 24_288, 1_000_000, false},
		{"more than half of it", 24_289, 1_000_000, true},
		{"no room at all", 1, MaxRules, true},
		{"nothing is removed", 0, MaxRules, false},
	} {
		if got := crowded(tt.removed, tt.inForce); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
