package arm

import (
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A phase that looks up a kind of a later phase would report good references as broken.
func TestPhasesNeedOnlyWhatEarlierOnesGive(t *testing.T) {
	given := uint64(0)
	set := func(kinds []kind) (bits uint64) {
		for _, k := range kinds {
			bits |= 1 << k
		}
		return bits
	}
	phases := slices.Concat(gathering, building)
	for _, p := range phases {
		if missing := set(p.needs) &^ given; missing != 0 {
			t.Errorf("%s: no earlier phase gives %s", p.name, kind(bits.TrailingZeros64(missing)).typeName())
		}
		given |= set(p.gives)
	}
	documents := [][]byte{[]byte(world), []byte(edge), []byte(adminDocument(adminRule("r", "")))}
	for _, pattern := range []string{"testdata/*/*.json", "../../deploy/lab/*/*.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			documents = append(documents, data)
		}
	}
	used := make([]uint64, len(phases))
	for _, data := range documents {
		l := newLoader()
		l.readValues(Deployment{})
		document, err := parseDocument(data)
		value, _ := l.evaluate("test.json", document, nil)
		l.document("test.json", value, err)
		for i := range phases {
			l.index.asked = 0
			l.runPhase(&phases[i])
			used[i] |= l.index.asked
		}
	}
	for i, p := range phases {
		if hidden := used[i] &^ set(p.needs); hidden != 0 {
			t.Errorf("%s: looks up %s, which its line does not say", p.name, kind(bits.TrailingZeros64(hidden)).typeName())
		}
	}
}
