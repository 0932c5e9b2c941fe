package packet_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestEveryDropHasItsOwnNameAndDescription(t *testing.T) {
	seen := map[string]bool{}
	for d := packet.NotDropped; d < packet.NumDrops; d++ {
		for _, text := range []string{d.String(), d.Description()} {
			if text == "" || seen[text] {
				t.Errorf("reason %d: %q is empty or taken", d, text)
			}
			seen[text] = true
		}
		if strings.HasSuffix(d.Description(), ".") {
			t.Errorf("%s: the description ends with a full stop", d)
		}
	}
	if got := packet.NumDrops.String(); got != "unknown" {
		t.Errorf("a value that is no reason is %q", got)
	}
}

func TestSetsOfDrops(t *testing.T) {
	for _, tt := range []struct {
		name string
		is   func(packet.Drop) bool
		want []packet.Drop
	}{
		{"of translation", packet.Drop.OfTranslation, []packet.Drop{
			packet.DropClosed, packet.DropNoFrontend, packet.DropNoBackend, packet.DropHairpin, packet.DropNoOutbound, packet.DropSNATExhausted,
		}},
		{"of backends", packet.Drop.OfBackends, []packet.Drop{packet.DropNoRoute, packet.DropNoBackend, packet.DropHairpin}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []packet.Drop
			for d := packet.NotDropped; d < packet.NumDrops; d++ {
				if tt.is(d) {
					got = append(got, d)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// The alert NsgdUnexpectedDrops leaves out what is expected; the rules file can't ask Drop.
func TestTheAlertLeavesOutWhatIsExpected(t *testing.T) {
	text, err := os.ReadFile("../../deploy/prometheus/nsgd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`nsgd_drops:rate5m\{reason!~"([^"]*)"\}`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the alert is not there")
	}
	got := strings.Split(string(m[1]), "|")
	var want []string
	for d := packet.NotDropped; d < packet.NumDrops; d++ {
		if d.Expected() {
			want = append(want, d.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the alert leaves out\n%s, expected are\n%s", strings.Join(got, "|"), strings.Join(want, "|"))
	}
}
