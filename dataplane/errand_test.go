package dataplane

import (
	"context"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
)

func TestAWorkerThatCarriesNothingIsNamed(t *testing.T) {
	r := newRigWith(t, figureOfTheSeed(), Options{Workers: 2, Flows: conntrack.Options{Max: 1024}})
	over, end := context.WithCancel(t.Context())
	end()
	if stuck := r.engine.StuckWorkers(t.Context()); !slices.Equal(stuck, []int{0, 1}) {
		t.Errorf("workers that do not run yet: %v are stuck", stuck)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	eventually(t, "all workers turn", func() bool { return r.engine.StuckWorkers(t.Context()) == nil })

	free, held := make(chan bool), make(chan bool)
	r.engine.workers[1].errands.Ask(func() { held <- true; <-free })
	<-held
	eventually(t, "the worker that waits is named alone", func() bool { return slices.Equal(r.engine.StuckWorkers(over), []int{1}) })
	close(free)
	if stuck := r.engine.StuckWorkers(t.Context()); stuck != nil {
		t.Errorf("%v are stuck though they turn again", stuck)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if stuck := r.engine.StuckWorkers(t.Context()); len(stuck) != 2 {
		t.Errorf("workers that have ended: %v are stuck", stuck)
	}
}
