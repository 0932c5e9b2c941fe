package main

import (
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

func TestFlowsShowWhatArrivesWhereSomethingIsTranslated(t *testing.T) {
	plain := inspect.Flow{Protocol: "TCP", Source: "10.0.0.4", SourcePort: 5000, Destination: "10.0.0.5", DestinationPort: 80, State: "established"}
	translated, floating := plain, plain
	translated.Translated = &inspect.FlowTuple{Source: "198.51.100.1", SourcePort: 1024, Destination: "10.0.0.5", DestinationPort: 80}
	floating.DeliveredTo = "10.0.0.9"
	for name, tt := range map[string]struct {
		flows []inspect.Flow
		want  []string
	}{
		"none": {[]inspect.Flow{plain}, []string{
			"PROTOCOL  SOURCE         DESTINATION  STATE        IDLE  SENT  RECEIVED  RULE",
			"TCP       10.0.0.4:5000  10.0.0.5:80  established  0s    0     0         -"}},
		"some": {[]inspect.Flow{plain, translated, floating}, []string{
			"PROTOCOL  SOURCE         DESTINATION  ARRIVES AS                        STATE",
			"TCP       10.0.0.4:5000  10.0.0.5:80  -                                 established",
			"TCP       10.0.0.4:5000  10.0.0.5:80  198.51.100.1:1024 > 10.0.0.5:80   established",
			"TCP       10.0.0.4:5000  10.0.0.5:80  the same, at 10.0.0.9             established"}},
	} {
		var b strings.Builder
		if err := flowsTable(&b, &inspect.FlowList{Flows: tt.flows}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		for i, want := range tt.want {
			got := strings.Join(strings.Fields(lines[i]), " ")
			if want = strings.Join(strings.Fields(want), " "); !strings.HasPrefix(got, want) {
				t.Errorf("%s: line %d is %q, want %q", name, i+1, got, want)
			}
		}
	}
}
