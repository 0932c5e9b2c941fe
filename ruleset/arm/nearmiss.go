package arm

import (
	"cmp"
	"slices"
	"strings"
)

// maxNearMisses is how many names a hint gives.
const maxNearMisses = 3

// maxDistance is how many letters of a near name may differ.
const maxDistance = 2

// maxHints is how many unknown names get a hint: each is compared with every tag, and a
// policy whose names are all unknown has the wrong file, not slips of the pen.
const maxHints = 50

// hint says what a name in lower case was probably meant to be.
func (t *ServiceTags) hint(name string) string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	base, _, regional := strings.Cut(name, ".")
	row := make([]int, len(name)+maxDistance+1)
	for key, of := range t.tags {
		d := distance(name, key, maxDistance, row)
		if d <= maxDistance || regional && key == base {
			near = append(near, candidate{of.name, d})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range near[:min(len(near), maxNearMisses)] {
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

// distance is the number of letters to change, leave out or put in to make b of a, or
// limit+1 when it takes more than limit. It works in row, which has room for
// len(a)+limit+1.
func distance(a, b string, limit int, row []int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row = row[:len(b)+1] // of distances from a's first i letters
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
		if least > limit { // later rows have nothing smaller
			return limit + 1
		}
	}
	return min(row[len(b)], limit+1)
}
