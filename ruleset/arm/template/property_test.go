package template

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomList has few different elements, so that lists share some.
func randomList(r *rand.Rand) []any {
	list := make([]any, r.IntN(8))
	for i := range list {
		switch r.IntN(3) {
		case 0:
			list[i] = number(r.IntN(4))
		case 1:
			list[i] = string(rune('a' + r.IntN(3)))
		default:
			list[i] = []any{number(r.IntN(2))}
		}
	}
	return list
}

func call2(t *testing.T, name string, args ...any) []any {
	t.Helper()
	f := frame{scope: &scope{engine: &engine{budget: newBudget(t.Context())}}}
	v, err := functions[name].call(f, args)
	if err != nil {
		t.Fatal(err)
	}
	return v.([]any)
}

func subset(a, b []any) bool {
	return !slices.ContainsFunc(a, func(v any) bool {
		return !slices.ContainsFunc(b, func(w any) bool { return equal(v, w) })
	})
}

func unique(list []any) bool {
	for i, v := range list {
		if slices.ContainsFunc(list[:i], func(w any) bool { return equal(v, w) }) {
			return false
		}
	}
	return true
}

func TestLawsOfSets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a, b, c := randomList(r), randomList(r), randomList(r)
		all, common := call2(t, "union", a, b), call2(t, "intersection", a, b)
		same := func(law string, x, y []any) {
			t.Helper()
			if !subset(x, y) || !subset(y, x) {
				t.Fatalf("%s: %v and %v of %v, %v, %v", law, x, y, a, b, c)
			}
		}
		if !unique(all) || !unique(common) {
			t.Fatalf("an element twice: %v, %v", all, common)
		}
		if !subset(a, all) || !subset(b, all) || !subset(common, a) || !subset(common, b) {
			t.Fatalf("union %v, intersection %v of %v and %v", all, common, a, b)
		}
		same("union commutes", all, call2(t, "union", b, a))
		same("intersection commutes", common, call2(t, "intersection", b, a))
		same("union associates", call2(t, "union", all, c), call2(t, "union", a, call2(t, "union", b, c)))
		same("absorption", call2(t, "intersection", a, all), call2(t, "union", a))
		same("distribution", call2(t, "intersection", c, all), call2(t, "union", call2(t, "intersection", c, a), call2(t, "intersection", c, b)))
		if n := r.IntN(10); len(call2(t, "take", a, number(n)))+len(call2(t, "skip", a, number(n))) != len(a) {
			t.Fatalf("take and skip of %d do not make %v", n, a)
		}
	}
}

func TestTextsComeBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	alphabet := []rune("a, 'ä%&+/=\\\"{}世")
	for range 2000 {
		runes := make([]rune, r.IntN(12))
		for i := range runes {
			runes[i] = alphabet[r.IntN(len(alphabet))]
		}
		s := string(runes)
		f := frame{scope: &scope{engine: &engine{budget: newBudget(t.Context())}}}
		for _, pair := range [][2]string{{"base64", "base64tostring"}, {"uricomponent", "uricomponenttostring"}, {"datauri", "datauritostring"}} {
			there, err := functions[pair[0]].call(f, []any{s})
			if err != nil {
				t.Fatal(err)
			}
			back, err := functions[pair[1]].call(f, []any{there})
			if err != nil || back != s {
				t.Errorf("%s of %q and back: %q, %v", pair[0], s, back, err)
			}
		}
		parts := call2(t, "split", s, ",")
		if joined, err := functions["join"].call(f, []any{parts, ","}); err != nil || joined != s {
			t.Errorf("split and join of %q: %q, %v", s, joined, err)
		}
	}
}

// Fields of another case were each searched among all, so that comparing two objects of
// 60,000 fields took hours. This test never ends with a quadratic comparison.
func TestComparingGreatObjectsIsLinear(t *testing.T) {
	a, b := map[string]any{}, map[string]any{}
	for i := range 200_000 {
		a[fmt.Sprintf("k%d", i)], b[fmt.Sprintf("K%d", i)] = true, true
	}
	f := frame{scope: &scope{engine: &engine{budget: newBudget(t.Context())}}}
	if !equal(a, b) {
		t.Error("not equal")
	}
	for _, name := range []string{"union", "intersection"} {
		if v, err := functions[name].call(f, []any{a, b}); err != nil || len(v.(map[string]any)) != len(a) {
			t.Errorf("%s: %d fields, %v", name, len(v.(map[string]any)), err)
		}
	}
}

func TestAFoldedObjectFindsFieldsAsAWalkDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	name := func() string { return string("aAbB"[r.IntN(4)]) }
	for range 2000 {
		o := map[string]any{}
		for i := range r.IntN(6) {
			o[name()+name()] = i
		}
		f := folded(o)
		for range 4 {
			n := name() + name()
			got, ok := f.field(n)
			want, has := field(o, n)
			if got != want || ok != has {
				t.Fatalf("%q of %v: %v %v, want %v %v", n, o, got, ok, want, has)
			}
		}
	}
}
