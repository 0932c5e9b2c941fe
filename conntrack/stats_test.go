package conntrack

import "testing"

func TestMemoryIsWhatTheDocumentationSays(t *testing.T) {
	for _, limit := range []int{1 << 16, 1_000_000} {
		table, err := New(Options{Max: limit, Zones: 16})
		if err != nil {
			t.Fatal(err)
		}
		if each := table.Memory() / uint64(limit); each < 192 || each > 244 {
			t.Errorf("%d bytes for each of %d flows", each, limit)
		}
	}
}

func TestZonesTellTheirLimit(t *testing.T) {
	table, err := New(Options{Max: 64, MaxPerZone: 10, Zones: 2, UnlimitedZones: func(zone uint16) bool { return zone == 1 }})
	if err != nil {
		t.Fatal(err)
	}
	for zone, want := range []bool{true, false} {
		if limit, limited := table.ZoneLimit(uint16(zone)); limited != want || limited && limit != 10 {
			t.Errorf("zone %d: %d, %t", zone, limit, limited)
		}
	}
}
