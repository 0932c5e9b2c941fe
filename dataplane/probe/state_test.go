package probe

import (
	"errors"
	"testing"
)

func TestAStateChangesByItsThreshold(t *testing.T) {
	silent := errors.New("no answer")
	refused := refusal{errors.New("HTTP status 503")}
	type step struct {
		err         error
		up, changed bool
	}
	tests := []struct {
		name      string
		threshold int
		steps     []step
	}{
		{"the first answer is enough", 3, []step{{nil, true, true}}},
		{"the first silence is enough", 3, []step{{silent, false, true}}},
		{"silence takes an instance down at the threshold", 2,
			[]step{{nil, true, true}, {silent, true, false}, {silent, false, true}, {silent, false, false}}},
		{"answers bring it back at the threshold", 2,
			[]step{{silent, false, true}, {nil, false, false}, {nil, true, true}, {nil, true, false}}},
		{"an answer between begins the row anew", 2,
			[]step{{nil, true, true}, {silent, true, false}, {nil, true, false}, {silent, true, false}, {silent, false, true}}},
		{"a refusal takes it down at once", 5, []step{{nil, true, true}, {refused, false, true}}},
		{"a threshold of none is one of one", 0, []step{{nil, true, true}, {silent, false, true}, {nil, true, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s state
			for i, step := range tt.steps {
				if changed := s.book(step.err, tt.threshold); changed != step.changed || s.up != step.up {
					t.Fatalf("outcome %d (%v): up %t, changed %t; want %t, %t", i+1, step.err, s.up, changed, step.up, step.changed)
				}
			}
		})
	}
}
