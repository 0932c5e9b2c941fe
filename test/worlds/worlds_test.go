package worlds

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
)

var (
	tuplesFlag = flag.Int("worlds.tuples", 0, "how many tuples of random worlds to try; 0: 20,000, or 5,000 with -short")
	seedFlag   = flag.Uint64("worlds.seed", 0, "repeats a run; 0: a new one")
)

const tuplesPerWorld = 40

func TestWorlds(t *testing.T) {
	seed, n := *seedFlag, *tuplesFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	if n == 0 {
		if n = 20_000; testing.Short() {
			n = 5_000
		}
	}
	t.Logf("-worlds.seed=%d", seed)
	kinds := map[string]int{}
	first := map[string]string{}
	tuples, refused, different := 0, 0, 0
	outcomes := map[string]int{}
	asked := map[string]int{}
	for i := uint64(0); tuples < n; i++ {
		r := rand.New(rand.NewPCG(seed, i))
		w := generate(r)
		b, err := w.build()
		if err != nil {
			refused++
			continue
		}
		tr := newTraffic(r, b)
		for range tuplesPerWorld {
			k := tr.next()
			x := b.engine(&k)
			tuples++
			outcomes[x.Access+" "+x.Reason]++
			any := false
			for _, o := range b.opinions(&k, x) {
				asked[o.who]++
				if o.different {
					any = true
					kind := kindOf(x, &o)
					kinds[kind]++
					if first[kind] == "" {
						less, moved := shrink(w, k, func(w *world, k tuple) bool { return has(w, k, kind) })
						b2, _ := less.build()
						x2 := b2.engine(&moved)
						for _, o2 := range b2.opinions(&moved, x2) {
							if kindOf(x2, &o2) == kind {
								o = o2
							}
						}
						first[kind] = fmt.Sprintf("world %d: %s: engine %s, %s\n        %s", i, moved.String(), x2.outcome, o.says, less)
					}
				}
			}
			if any {
				different++
			}
		}
	}
	var list []string
	for k := range kinds {
		list = append(list, k)
	}
	sort.Slice(list, func(i, j int) bool { return kinds[list[i]] > kinds[list[j]] })
	for _, k := range list {
		t.Logf("%5d %s\n      %s", kinds[k], k, first[k])
	}
	t.Logf("%d tuples, %d worlds refused, %d differ; outcomes %v; asked %v", tuples, refused, different, outcomes, asked)
}

func kindOf(x *seen, o *opinion) string {
	return fmt.Sprintf("%-22s engine %s (%d legs): %s", o.who, short(x.outcome.String()), min(len(x.legs), 2), short(o.says))
}

func has(w *world, k tuple, kind string) bool {
	b, err := w.build()
	if err != nil {
		return false
	}
	x := b.engine(&k)
	for _, o := range b.opinions(&k, x) {
		if o.different && kindOf(x, &o) == kind {
			return true
		}
	}
	return false
}

func short(s string) string {
	var a, b, c string
	fmt.Sscan(s, &a, &b, &c)
	return a + " " + b
}
