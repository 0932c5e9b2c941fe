package ruleset

import (
	"cmp"
	"slices"
	"strings"
)

// maxNearMisses is the most names that a hint gives.
const maxNearMisses = 3

// maxDistance is how many letters may differ between a name and a near one.
const maxDistance = 2

// NearMiss collects the names that are nearly an unknown one.
type NearMiss struct {
	name  string // the unknown one, in lower case
	row   []int
	found []nearName
}

type nearName struct {
	name     string
	distance int
}

// NewNearMiss begins a search for names that are nearly the unknown name.
func NewNearMiss(name string) *NearMiss {
	lower := strings.ToLower(name) // which may be longer
	return &NearMiss{name: lower, row: make([]int, len(lower)+maxDistance+1)}
}

// Try collects a name if it is near. key is the name in lower case. kin collects it anyway.
func (n *NearMiss) Try(name, key string, kin bool) {
	d := distance(n.name, key, maxDistance, n.row)
	if d <= maxDistance || kin {
		n.found = append(n.found, nearName{name, d})
	}
}

// Hint is the end of a message, with the nearest name first. Empty when no name is near.
func (n *NearMiss) Hint() string {
	slices.SortFunc(n.found, func(a, b nearName) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range n.found[:min(len(n.found), maxNearMisses)] {
		names = append(names, c.name)
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "; near is " + names[0]
	}
	return "; near are " + strings.Join(names, ", ")
}

// distance is the number of letters to change, drop or insert to turn a into b; limit+1
// when that takes more than limit. It works in row, which needs room for len(a)+limit+1.
func distance(a, b string, limit int, row []int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row = row[:len(b)+1] // the distances of b's beginnings from a's first i letters
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
			least = min(least, row[j+1])
		}
		if least > limit { // no later row is below its least
			return limit + 1
		}
	}
	return min(row[len(b)], limit+1)
}
