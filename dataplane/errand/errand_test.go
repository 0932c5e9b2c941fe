package errand

import (
	"context"
	"slices"
	"testing"
)

func TestQuestionsThatOverlapShareAPulse(t *testing.T) {
	var d Desks
	woken := make(chan bool, 200)
	for range 2 {
		desk := &Desk{Wake: func() { woken <- true }}
		desk.Change(func() bool { return true })
		d.Each = append(d.Each, desk)
	}
	over, end := context.WithCancel(t.Context())
	end()
	if stuck := d.Stuck(over); !slices.Equal(stuck, []int{0, 1}) {
		t.Errorf("%v are stuck", stuck)
	}
	before := d.pulse
	for range 100 {
		d.Stuck(over)
	}
	if d.pulse != before {
		t.Error("each question leaves an errand with a goroutine that is stuck")
	}
	for range d.Each {
		<-woken
	}
	for _, desk := range d.Each {
		desk.Do()
	}
	if stuck := d.Stuck(over); len(stuck) != 2 && stuck != nil {
		t.Errorf("%v are stuck", stuck)
	}
	if d.pulse == before {
		t.Error("a pulse that has ended is shared")
	}
}

func TestErrandsAreDoneAtOnceByWhoAsksWhereNothingRuns(t *testing.T) {
	desk := &Desk{Wake: func() { t.Error("nothing is to be woken") }}
	did := 0
	desk.Ask(func() { did++ })
	if did != 1 {
		t.Error("the errand was not done")
	}
	desk.Wake = func() {}
	desk.Change(func() bool { return true })
	desk.Ask(func() { did++ })
	if did != 1 || !desk.Asked() {
		t.Error("the caller did the errand of a goroutine that runs")
	}
	desk.Stop()
	if did != 2 || desk.Asked() {
		t.Error("an errand was left when the goroutine stopped")
	}
	desk.Ask(func() { did++ })
	if did != 3 {
		t.Error("an errand for a goroutine that has stopped was not done")
	}
}
