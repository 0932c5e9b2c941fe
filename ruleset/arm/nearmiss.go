package arm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// maxNearMisses is how many names a hint gives.
const maxNearMisses = 3

// maxDistance is how many letters of a near name may differ.
const maxDistance = 2

// maxHints is how many unknown names get a hint: each is compared with every tag, and a
// policy whose names are all unknown has the wrong file, not slips of the pen.
const maxHints = 50

// maxCompared is how many names of a policy an unknown one is compared with: a batch of
// questions may hold thousands of unknown ones.
const maxCompared = 2000

// hint says what a tag's name in lower case was probably meant to be.
func (t *ServiceTags) hint(name string) string {
	near := newNearest(name)
	base, _, regional := strings.Cut(name, ".")
	for key, of := range t.tags {
		near.try(of.Name, key, regional && key == base)
	}
	for _, builtIn := range ruleset.BuiltInTagNames() {
		near.try(builtIn, strings.ToLower(builtIn), false)
	}
	return near.hint()
}

// nearType reports a resource of no type that is read, but nearly of one.
func (l *loader) nearType(file string, body map[string]any, parent *resource) {
	t := typeOf(body)
	if parent != nil && !strings.Contains(t, "/") {
		t = provider + parent.kind.typePath() + "/" + t
	}
	near := newNearest(t)
	for path, k := range kinds {
		near.try("Microsoft.Network/"+k.spelled(), provider+path, false)
	}
	if hint := near.hint(); hint != "" {
		name, _ := lookup(body, "name").(string)
		l.fault(ruleset.Fault{
			Code: CodeInvalidResourceType, File: file, Resource: "resources/" + name, Field: "type", Value: ruleset.Clip(asText(lookup(body, "type"))),
			Message: "there is no such type" + hint,
		})
	}
}

// nearest collects the names that differ from one in a few letters.
type nearest struct {
	name  string // in lower case
	row   []int
	found []nearName
}

type nearName struct {
	name     string
	distance int
}

func newNearest(name string) *nearest {
	return &nearest{name: strings.ToLower(name), row: make([]int, len(name)+maxDistance+1)}
}

// try takes a name, and its form in lower case, when it is near enough or kin.
func (n *nearest) try(name, key string, kin bool) {
	d := distance(n.name, key, maxDistance, n.row)
	if d <= maxDistance || kin {
		n.found = append(n.found, nearName{name, d})
	}
}

// hint says the nearest names, the nearest first; empty when there are none.
func (n *nearest) hint() string {
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
