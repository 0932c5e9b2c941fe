package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// confirmation is what `nsgd run --confirm` asks for: without nsgctl confirm in time the interfaces open again. The
// programs at the interfaces keep the time too, so that a daemon that was killed or hangs locks nobody out.
type confirmation struct {
	within  time.Duration // 0: none is asked for
	given   chan struct{}
	waiting atomic.Bool
	expired bool // set before the daemon stops
}

var errUnconfirmed = errors.New("no nsgctl confirm came in time: the interfaces are open again")

// awaitConfirmation ends the daemon when the confirmation doesn't come.
func (d *daemon) awaitConfirmation(ctx context.Context) error {
	if d.confirmation.within == 0 {
		return nil
	}
	d.log.Warn("waiting for nsgctl confirm", "within", d.confirmation.within)
	timer := time.NewTimer(d.confirmation.within)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-d.confirmation.given:
		d.log.Info("confirmed")
	case <-timer.C:
		if !d.confirmation.waiting.Swap(false) {
			return nil // it came just now
		}
		d.confirmation.expired = true
		return fmt.Errorf("--confirm %v: %w", d.confirmation.within, errUnconfirmed)
	}
	return nil
}

// confirmed keeps the run.
func (d *daemon) confirmed() (waited bool, err error) {
	if !d.confirmation.waiting.Swap(false) {
		return false, nil
	}
	close(d.confirmation.given)
	var errs []error
	for _, i := range d.interceptors {
		errs = append(errs, i.OpenAfter(0))
	}
	return true, errors.Join(errs...)
}
