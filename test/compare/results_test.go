package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestARatioIsToldWithItsInterval(t *testing.T) {
	r := newResults()
	for round := range 10 {
		noise := float64(100 + 50*(round%3)) // disturbs both trees alike
		for head, factor := range map[bool]float64{false: 1, true: 1.1} {
			text := fmt.Sprintf("BenchmarkSlower-2 100 %f ns/op 0 B/op 0 allocs/op\nBenchmarkSame-2 100 %f ns/op\n", noise*factor, noise)
			if head {
				text += "BenchmarkNew-2 100 5 ns/op\n"
			} else {
				text += "BenchmarkGone-2 100 5 ns/op\n"
			}
			if err := r.side(head).add("./p", text); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out strings.Builder
	if err := r.print(&out, "v1"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"p Slower-2": {"1.100", "1.100 to 1.100", "more"},
		"p Same-2":   {"1.000", "~"},
		"p New-2":    {"new"},
		"p Gone-2":   {"gone"},
	} {
		line := ""
		for l := range strings.Lines(out.String()) {
			if strings.HasPrefix(l, name+" ") {
				line = l
			}
		}
		for _, w := range want {
			if !strings.Contains(line, w) {
				t.Errorf("%s: %q lacks %q in\n%s", name, line, w, out.String())
			}
		}
	}
	if strings.Contains(out.String(), "allocs/op") {
		t.Errorf("allocations that did not change are told:\n%s", out.String())
	}
}

func TestFewRoundsSayNothing(t *testing.T) {
	r := newResults()
	for _, head := range []bool{false, true} {
		if err := r.side(head).add("./p", "BenchmarkA-2 100 5 ns/op\n"); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.print(&out, "v1"); err != nil || !strings.Contains(out.String(), "too few rounds") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestACommitIsAsked(t *testing.T) {
	for _, o := range []options{{rounds: 1}, {base: "main"}} {
		if o.check() == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
