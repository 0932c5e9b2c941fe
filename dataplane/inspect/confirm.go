package inspect

import (
	"errors"
	"fmt"
	"time"
)

// The shortest and the longest ReloadRequest.ConfirmWithin.
const (
	MinConfirm = time.Second
	MaxConfirm = 24 * time.Hour
)

const (
	// maxReturns is how often a return is tried that fails.
	maxReturns = 5
	// betweenReturns lies between two tries.
	betweenReturns = time.Second
)

// unconfirmed is a reload that waits for its confirmation.
type unconfirmed struct {
	*booking
	within time.Duration
	by     time.Time
	loaded time.Time // when the policy to return to was loaded
	back   func() (*Reloaded, error)
	stop   func() bool // of the timer
	failed int         // returns
}

// ErrUnconfirmed refuses a change while a reload waits for its confirmation.
var ErrUnconfirmed = errors.New("a reload waits for nsgctl confirm")

// errTakenBack is why a reload is no longer in force.
var errTakenBack = errors.New("the policy from before is in force again")

// Confirmed is the answer to a confirmation.
type Confirmed struct {
	Confirmed bool `json:"confirmed"` // false: nothing waited for it
	// Reload is the id of the reload that waited; absent when none did.
	Reload string `json:"reload,omitempty"`
}

// Confirm keeps the reload that waits for it, and a run that would have ended without it.
func (s *Service) Confirm() (*Confirmed, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	c := &Confirmed{}
	if w := s.waiting; w != nil {
		w.stop()
		s.waits(nil)
		c.Confirmed, c.Reload = true, w.id
		s.options.Log.Info("reload confirmed", "reload", w.id)
	}
	if s.options.Confirm == nil {
		return c, nil
	}
	run, err := s.options.Confirm()
	c.Confirmed = c.Confirmed || run
	return c, err
}

// ErrUpgrading refuses a change until the next process goes on.
var ErrUpgrading = errors.New("an upgrade is under way: try again once the next process goes on")

// refuseChange refuses a change while a reload waits: a return would take that back too. And while an upgrade is under
// way: the next process may have read the files already, and would not know of it. loading is held.
func (s *Service) refuseChange() error {
	if s.upgrading {
		return ErrUpgrading
	}
	w := s.waiting
	if w == nil {
		return nil
	}
	return fmt.Errorf("%w until %s (reload %s): confirm it, or wait until it is taken back", ErrUnconfirmed, w.by.Format(time.TimeOnly), w.id)
}

// wayBack leads back to what is in force now. loading is held.
func (s *Service) wayBack() func() (*Reloaded, error) {
	files, set := s.policyFiles(), s.Snapshot().Policy
	if s.options.Configuration == nil {
		return func() (*Reloaded, error) { return s.swap(files, set) }
	}
	target := s.options.Configuration.Running()
	target.Files = files
	return func() (*Reloaded, error) { return s.reach(target) }
}

// unconfirmed is a reload that leads back to what is in force now. loading is held.
func (s *Service) unconfirmed(b *booking, within time.Duration) *unconfirmed {
	return &unconfirmed{booking: b, within: within, loaded: s.Reloads().Loaded, back: s.wayBack()}
}

// wait begins to wait for the confirmation of a reload. loading is held.
func (s *Service) wait(w *unconfirmed) (by *time.Time) {
	w.by = s.options.Now().Add(w.within)
	w.stop = s.options.AfterFunc(w.within, func() { s.takeBack(w) })
	s.waits(w)
	w.log.Warn("waiting for nsgctl confirm", "within", w.within)
	return &w.by
}

// waits notes what waits for its confirmation; nil: nothing does. loading is held.
func (s *Service) waits(w *unconfirmed) {
	s.waiting = w
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloads.ConfirmBy = nil
	if w != nil {
		s.reloads.ConfirmBy = &w.by
	}
}

// takeBack returns to what was in force before a reload, unless it was confirmed. A return that fails is tried again.
func (s *Service) takeBack(w *unconfirmed) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.waiting != w {
		return
	}
	b := s.book("no confirmation", true)
	_, err := w.back()
	if w.failed++; err != nil && w.failed < maxReturns {
		b.end(fmt.Errorf("no nsgctl confirm came within %v for reload %s, and the return fails: %w", w.within, w.id, err))
		b.log.Error("the return to the policy from before fails, it is tried again", "of", w.id, "error", err)
		w.stop = s.options.AfterFunc(betweenReturns, func() { s.takeBack(w) })
		return
	}
	s.waits(nil)
	if err != nil {
		err = fmt.Errorf("no nsgctl confirm came within %v for reload %s, and it stays in force: the return failed %d times: %w", w.within, w.id, w.failed, err)
	} else {
		s.mu.Lock()
		s.reloads.Loaded = w.loaded
		s.mu.Unlock()
		err = fmt.Errorf("no nsgctl confirm came within %v for reload %s: %w", w.within, w.id, errTakenBack)
	}
	b.end(err)
	b.log.Error("reload taken back", "of", w.id, "error", err)
}

// Close ends the trial of a candidate and the wait for a confirmation: what a daemon that ends has in force does not matter any more.
func (s *Service) Close() {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.forgetTrial()
	if w := s.waiting; w != nil {
		w.stop()
		s.waits(nil)
	}
}
