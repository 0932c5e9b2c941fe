package ruleset

import (
	"math/rand/v2"
	"testing"
)

// A row was allocated for each of three thousand comparisons.
func TestAComparisonAllocatesNothing(t *testing.T) {
	row := make([]int, len("storage.westeurop")+maxDistance+1)
	if n := testing.AllocsPerRun(100, func() { distance("storage.westeurop", "storage.westeurope", maxDistance, row) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Ending a comparison early changes no result.
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

// slowDistance is the definition of distance, without a limit.
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

// The unknown name grows in lower case: each byte that is no UTF-8 becomes three.
func TestANameThatIsNoUTF8HasNoNearOnes(t *testing.T) {
	near := NewNearMiss("\xff\xff")
	for _, name := range []string{"nic", "web-1", "abcdefgh"} {
		near.Try(name, name, false)
	}
	if hint := near.Hint(); hint != "" {
		t.Errorf("Hint() = %q, want none", hint)
	}
}
