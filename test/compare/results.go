package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

// key is a figure of a benchmark.
type key struct{ name, unit string }

// side is what one tree gave: by figure, one value a round.
type side struct{ values map[key][]float64 }

// results are those of both trees.
type results struct{ base, head side }

func newResults() *results {
	return &results{side{map[key][]float64{}}, side{map[key][]float64{}}}
}

func (r *results) side(head bool) *side {
	if head {
		return &r.head
	}
	return &r.base
}

// add notes what a package's benchmarks have printed.
func (s *side) add(name, printed string) error {
	reader := benchfmt.NewReader(strings.NewReader(printed), name)
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.Result:
			for _, v := range record.Values {
				k := key{strings.TrimPrefix(name, "./") + " " + record.Name.String(), v.Unit}
				s.values[k] = append(s.values[k], v.Value)
			}
		case *benchfmt.SyntaxError:
			return fmt.Errorf("%s: %w", name, record)
		}
	}
	return reader.Err()
}

const confidence = 0.95

// print writes a line for each figure: both medians, and the median of the ratios within the rounds with its interval.
func (r *results) print(w io.Writer, base string) error {
	keys := slices.SortedFunc(maps.Keys(r.head.values), func(a, b key) int {
		if c := strings.Compare(a.unit, b.unit); c != 0 {
			return -c // sec/op first
		}
		return strings.Compare(a.name, b.name)
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "benchmark\tunit\t%s\tnow\tratio\t%.0f %% interval\t\n", base, confidence*100)
	for _, k := range keys {
		before, now := r.base.values[k], r.head.values[k]
		if len(before) == 0 {
			fmt.Fprintf(t, "%s\t%s\t-\t%s\t\t\tnew\n", k.name, k.unit, median(k.unit, now))
			continue
		}
		ratios, same := ratiosOf(before, now)
		if same && k.unit != "sec/op" {
			continue // allocations that did not change
		}
		s := benchmath.AssumeNothing.Summary(benchmath.NewSample(ratios, &benchmath.DefaultThresholds), confidence)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.3f\t%.3f to %.3f\t%s\n", k.name, k.unit, median(k.unit, before), median(k.unit, now), s.Center, s.Lo, s.Hi, judge(&s))
	}
	for k := range r.base.values {
		if _, ok := r.head.values[k]; !ok && k.unit == "sec/op" {
			fmt.Fprintf(t, "%s\t%s\t%s\t-\t\t\tgone\n", k.name, k.unit, median(k.unit, r.base.values[k]))
		}
	}
	return t.Flush()
}

// judge says whether a ratio differs from 1.
func judge(s *benchmath.Summary) string {
	switch {
	case len(s.Warnings) > 0:
		return "too few rounds to say"
	case s.Lo > 1:
		return "more"
	case s.Hi < 1:
		return "less"
	}
	return "~"
}

// ratiosOf are those within each round; same says that all values are the same number.
func ratiosOf(before, now []float64) (ratios []float64, same bool) {
	same = true
	for i := range min(len(before), len(now)) {
		same = same && before[i] == now[i]
		switch {
		case before[i] == now[i]:
			ratios = append(ratios, 1)
		case before[i] != 0:
			ratios = append(ratios, now[i]/before[i])
		}
	}
	return ratios, same
}

func median(unit string, values []float64) string {
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), confidence)
	return benchunit.Scale(s.Center, benchunit.ClassOf(unit))
}
