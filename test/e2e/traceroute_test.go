package e2e

import (
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/deploy/lab"
)

// hopLine is a line of traceroute about a hop that answered: its number and address.
var hopLine = regexp.MustCompile(`(?m)^ *([0-9]+)  ([0-9a-f.:]+)  `)

// traceroute fails the test unless the hops from a host to an address are those of want, by their numbers.
// In one of some hundred runs traceroute does not see answers that a capture shows on its device: it has three tries.
func traceroute(t *testing.T, from lab.Host, to string, want map[string]string, args ...string) {
	t.Helper()
	args = append([]string{"-n", "-q", "1", "-w", "10", "-m", "4"}, append(args, to)...)
	for tries := 1; ; tries++ {
		before := scrape(t)
		out, err := runOn(t, from, "traceroute", args...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		hops := map[string]string{}
		for _, m := range hopLine.FindAllStringSubmatch(out, -1) {
			hops[m[1]] = m[2]
		}
		diff := cmp.Diff(want, hops)
		if diff == "" {
			return
		}
		if counted := scrape(t).since(before); tries == 3 {
			t.Fatalf("%s\n%s\ncounted meanwhile: %v", diff, out, counted)
		}
	}
}

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
				far := beyond.in(f).Address.String()
				traceroute(t, f.vm1, far, map[string]string{"1": f.internet.Address.String(), "2": far}, tt.args...)
			})
		})
	}
}

func TestTracepathFindsTheMTUOfTheWay(t *testing.T) {
	start(t, labPolicy())
	routeBeyond(t)
	eachFamily(t, func(t *testing.T, f family) {
		tracepath(t, f.vm1, f.internet.Address, beyond.in(f).Address)
	})
}

// tracepath fails the test unless it finds the first hop, the host and the MTU of the way.
func tracepath(t *testing.T, from lab.Host, first, to netip.Addr) {
	t.Helper()
	out, err := runOn(t, from, "tracepath", "-n", "-m", "4", to.String())
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// tracepath may take a late answer for that of the next hop, and then counts the far host as the third.
	for _, want := range []string{
		`(?m)^ 1: +` + regexp.QuoteMeta(first.String()),
		`(?m)^ [23]: +` + regexp.QuoteMeta(to.String()) + ` .*reached`,
		`pmtu ` + strconv.Itoa(beyondMTU),
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}
