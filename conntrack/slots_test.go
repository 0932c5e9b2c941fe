package conntrack

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSlotsComeOutAsTheyWereSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range MaxSlots + 1 {
		for range 100 {
			want := make([]uint32, n)
			for i := range want {
				want[i] = []uint32{0, SlotLimit - 1, random.Uint32N(SlotLimit)}[random.IntN(3)]
			}
			got := []uint32{}
			s := MakeSlots(want...)
			for ; s.More(); s = s.Rest() {
				got = append(got, s.First())
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v came out of %v", got, want)
			}
		}
	}
}
