package dataplane

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func TestBehindItsFenceAnEngineCarriesNothing(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	there, back := packettest.UDP(packettest.Spec{Src: addr4, Dst: addr2, SrcPort: 5000, DstPort: 6000}), packettest.UDP(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: 6000, DstPort: 5000})
	r.play([]step{{vm4, there, vm2, ""}}) // nobody fences
	r.engine.CarryUntil(r.clock + time.Second)
	r.play([]step{{vm2, back, vm4, ""}})
	r.clock += time.Second
	r.play([]step{{vm2, back, -1, "fenced"}, {vm4, there, -1, "fenced"}}) // a live flow too
	if n := r.engine.Flows().Stats().Flows; n != 1 {
		t.Errorf("%d flows: the fence ends none", n)
	}
	r.engine.CarryUntil(r.clock + time.Nanosecond)
	r.play([]step{{vm4, there, vm2, ""}})
	r.engine.CarryUntil(0)
	r.play([]step{{vm4, there, -1, "fenced"}})
}
