package ask

import (
	"fmt"
	"testing"
)

func BenchmarkAnalysisReachOfALargePolicy(b *testing.B) {
	for _, size := range [][2]int{{10, 2}, {10, 10}, {20, 10}, {50, 10}} {
		b.Run(fmt.Sprintf("subnets=%d,interfaces=%d", size[0], size[0]*size[1]), func(b *testing.B) {
			s := policyOfSize(b, size[0], size[1], 0)
			for b.Loop() {
				if _, err := Reach(b.Context(), s, &ReachParameters{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
