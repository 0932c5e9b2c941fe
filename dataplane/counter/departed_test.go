package counter

import (
	"fmt"
	"testing"
)

func TestTheCountersOfThoseThatAreGoneAreBounded(t *testing.T) {
	var d Departed
	for i := range maxDeparted + 2 {
		d.Keep(fmt.Sprint(i), Tally{Cells: make([]*Cell, 1)})
	}
	if len(d.tallies) != maxDeparted || len(d.order) != maxDeparted || d.Take("0").Cells != nil || d.Take("2").Cells == nil || len(d.order) != maxDeparted-1 {
		t.Errorf("%d of %d are kept", len(d.tallies), maxDeparted)
	}
}
