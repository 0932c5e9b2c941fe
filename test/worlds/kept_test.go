package worlds

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Worlds in testdata are shrunk ones about which opinions differed once; a file's name says why.
func TestWorldsThatDifferedOnceAgree(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %d worlds", err, len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var kept struct {
			World  world
			Tuples []tuple
			// Decided: Between leaves nothing about the tuples open.
			Decided bool
		}
		if err := json.Unmarshal(text, &kept); err != nil || len(kept.Tuples) == 0 {
			t.Fatalf("%s: %v: %d tuples", file, err, len(kept.Tuples))
		}
		b, err := kept.World.build()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i := range kept.Tuples {
			k := &kept.Tuples[i]
			x := b.engine(k)
			opinions := b.opinions(k, x)
			if len(opinions) == 0 {
				t.Errorf("%s: %s: nobody was asked", file, k)
			}
			if kept.Decided == b.undecided(k) {
				t.Errorf("%s: %s: decided by Between: %v", file, k, !kept.Decided)
			}
			for _, o := range opinions {
				if o.different {
					t.Errorf("%s: %s: engine: %s, %s: %s", file, k, x.outcome, o.who, o.says)
				}
			}
		}
	}
}
