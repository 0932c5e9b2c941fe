package e2e

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hopLine is a line of traceroute about a hop that answered: its number and address.
var hopLine = regexp.MustCompile(`(?m)^ *([0-9]+)  ([0-9a-f.:]+)  `)

func TestTracerouteShowsTheRouterAndTheHostBeyondAndNoHopOfTheFilter(t *testing.T) {
	start(t, labPolicy())
	routeBeyond(t)
	tests := []struct {
		name string
		args []string
	}{
		{"with datagrams", nil},
		{"with echo requests", []string{"-I"}},
		{"with opening segments", []string{"-T", "-p", "9"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				far := beyond.in(f)
				args := append([]string{"-n", "-q", "1", "-w", "10", "-m", "4"}, tt.args...)
				out, err := runOn(t, f.vm1, "traceroute", append(args, far.Address.String())...)
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				hops := map[string]string{}
				for _, m := range hopLine.FindAllStringSubmatch(out, -1) {
					hops[m[1]] = m[2]
				}
				want := map[string]string{"1": f.internet.Address.String(), "2": far.Address.String()}
				if diff := cmp.Diff(want, hops); diff != "" {
					t.Errorf("%s\n%s", diff, out)
				}
			})
		})
	}
}

func TestTracepathFindsTheMTUOfTheWay(t *testing.T) {
	start(t, labPolicy())
	routeBeyond(t)
	eachFamily(t, func(t *testing.T, f family) {
		out, err := runOn(t, f.vm1, "tracepath", "-n", "-m", "4", beyond.in(f).Address.String())
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, want := range []string{
			`(?m)^ 1: +` + regexp.QuoteMeta(f.internet.Address.String()),
			`(?m)^ 2: +` + regexp.QuoteMeta(beyond.in(f).Address.String()) + ` .*reached`,
			`pmtu ` + strconv.Itoa(beyondMTU),
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no %s in\n%s", want, out)
			}
		}
	})
}
