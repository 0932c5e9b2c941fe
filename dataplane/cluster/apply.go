package cluster

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// ApplyOptions say what to apply and how carefully.
type ApplyOptions struct {
	// Packed is the policy. With RollbackTo it is that generation's, read from etcd.
	Packed     *generation.Packed
	RollbackTo uint64
	// Who, Version and Message are told in the history.
	Who, Version, Message string
	// Key signs the manifest; nil: it is not signed.
	Key ed25519.PrivateKey
	// Canary are hosts that carry the generation before it is committed.
	Canary []string
	// MaxUnavailable is how many hosts may fail to answer. One that refuses always stops the apply.
	MaxUnavailable int
	// Wait is how long hosts may take to prepare, and again to carry.
	Wait time.Duration
	// Kept is how many generations of the past stay; 0: DefaultKept.
	Kept int
	// Now is the wall clock.
	Now func() time.Time
	// Progress is told what happens; nil: nobody is.
	Progress func(string)
}

// Applied is what an apply has done.
type Applied struct {
	Generation uint64 `json:"generation"`
	// Unchanged says that the current generation has this policy already: nothing was written.
	Unchanged bool `json:"unchanged"`
	// Hosts carry it.
	Hosts []string `json:"hosts"`
	// Missing are hosts that don't carry it yet, with why.
	Missing []string `json:"missing"`
	// Collected are the generations and chunks that were removed.
	CollectedGenerations int `json:"collectedGenerations"`
	CollectedChunks      int `json:"collectedChunks"`
}

// Apply writes a generation, has every host prepare it, commits it, and follows it until every host carries it. On an
// error before the commit the generation from before stays current, and the error names the hosts and what they say.
// When it is committed and hosts are missing at the end of Wait, the error is nil and Missing says which.
func (s *Store) Apply(ctx context.Context, o *ApplyOptions) (*Applied, error) {
	tell := o.Progress
	if tell == nil {
		tell = func(string) {}
	}
	offering, err := s.Begin(ctx, o.Who, o.Now())
	if err != nil {
		return nil, err
	}
	defer offering.Close(ctx)
	m := &generation.Manifest{Number: offering.Number(), Who: o.Who, When: o.Now().UTC().Truncate(time.Second), Version: o.Version, Message: o.Message, RollbackTo: o.RollbackTo}
	compressed, err := s.describe(ctx, o, m)
	if err != nil {
		return nil, err
	}
	if unchanged, err := s.unchanged(ctx, offering, m, o.Key != nil); err != nil {
		return nil, err
	} else if unchanged {
		return &Applied{Generation: offering.Before().Current, Unchanged: true, Hosts: []string{}, Missing: []string{}}, nil
	}
	sealed, err := m.Seal(o.Key)
	if err != nil {
		return nil, err
	}
	if err := offering.Write(ctx, m, sealed, compressed); err != nil {
		return nil, err
	}
	tell(fmt.Sprintf("generation %d: %d bytes in %d chunks", m.Number, m.Size, len(m.Chunks)))
	f := &follower{store: s, options: o, offering: offering, tell: tell}
	if err := f.prepare(ctx); err != nil {
		return nil, errors.Join(err, f.withdraw(ctx))
	}
	if err := offering.Commit(ctx, o.Now()); err != nil {
		return nil, err
	}
	tell(fmt.Sprintf("generation %d is current", m.Number))
	applied, err := f.carried(ctx)
	if err != nil {
		return nil, fmt.Errorf("generation %d is current, and who carries it is not known: %w", m.Number, err)
	}
	kept := o.Kept
	if kept == 0 {
		kept = DefaultKept
	}
	applied.CollectedGenerations, applied.CollectedChunks, err = offering.Collect(ctx, kept)
	if err != nil {
		tell(fmt.Sprintf("what nobody needs is still there: %v", err))
	}
	return applied, nil
}

// describe fills in the manifest and returns what the generation consists of.
func (s *Store) describe(ctx context.Context, o *ApplyOptions, m *generation.Manifest) ([]byte, error) {
	if o.RollbackTo == 0 {
		m.Describe(o.Packed)
		return o.Packed.Compressed, nil
	}
	old, err := s.Generation(ctx, o.RollbackTo, nil)
	if err != nil {
		return nil, err
	}
	compressed, err := s.Bundle(ctx, old.Manifest)
	if err != nil {
		return nil, err
	}
	if _, err := old.Unpack(compressed); err != nil {
		return nil, err
	}
	m.Describe(&generation.Packed{Tree: old.Tree, Compressed: compressed, Expanded: old.Expanded})
	return compressed, nil
}

// unchanged reports that the current generation has the same policy, and a signature if one is wanted.
func (s *Store) unchanged(ctx context.Context, offering *Offering, m *generation.Manifest, signed bool) (bool, error) {
	head := offering.Before()
	if head == nil || offering.behind { // what hosts have seen beyond the head must be overtaken
		return false, nil
	}
	now, err := s.Generation(ctx, head.Current, nil)
	if err != nil {
		return false, nil // it is to be replaced all the more
	}
	return now.Tree == m.Tree && (!signed || generation.IsSigned(now.Sealed)), nil
}

// follower waits for hosts.
type follower struct {
	store    *Store
	options  *ApplyOptions
	offering *Offering
	tell     func(string)
}

// RefusedError says that hosts can't carry a generation, and why.
type RefusedError struct {
	Generation uint64
	// Faults are HOST: WHY.
	Faults []string
}

// Error lists the faults.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("generation %d is refused, and the one from before stays current:\n%s", e.Generation, strings.Join(e.Faults, "\n"))
}

// prepare offers the generation and waits until all hosts could carry it, and the canaries do.
func (f *follower) prepare(ctx context.Context) error {
	n := f.offering.Number()
	if err := f.offering.Offer(ctx, nil); err != nil {
		return err
	}
	prepared := func(h *Host) bool { return h.Offer == f.offering.created && h.Prepared == n || h.Generation == n }
	missing, err := f.until(ctx, nil, prepared)
	if err != nil {
		return err
	}
	if len(missing) > f.options.MaxUnavailable {
		return &RefusedError{n, append([]string{fmt.Sprintf("%d hosts have not prepared it within %v, %d may fail to", len(missing), f.options.Wait, f.options.MaxUnavailable)}, missing...)}
	}
	for _, one := range missing {
		f.tell("goes on without " + one)
	}
	if len(f.options.Canary) == 0 {
		return nil
	}
	if err := f.offering.Offer(ctx, f.options.Canary); err != nil {
		return err
	}
	missing, err = f.until(ctx, f.options.Canary, func(h *Host) bool { return h.Generation == n })
	if err == nil && len(missing) > 0 {
		err = &RefusedError{n, append([]string{fmt.Sprintf("canaries do not carry it within %v", f.options.Wait)}, missing...)}
	}
	if err == nil {
		f.tell("carried by " + strings.Join(f.options.Canary, ", "))
	}
	return err
}

// carried waits until all hosts carry the generation.
func (f *follower) carried(ctx context.Context) (*Applied, error) {
	n := f.offering.Number()
	missing, err := f.until(ctx, nil, func(h *Host) bool { return h.Generation == n })
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		missing, err = refused.Faults, nil
	}
	if err != nil {
		return nil, err
	}
	a := &Applied{Generation: n, Hosts: []string{}, Missing: append([]string{}, missing...)}
	view, err := f.store.View(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(view.Hosts)) {
		if view.Hosts[name].Generation == n {
			a.Hosts = append(a.Hosts, name)
		}
	}
	return a, nil
}

// until waits for hosts, all if none is named. Those that are missing at the end of the wait are returned, each with
// what is known of it. A host that refuses ends the wait with a *RefusedError.
func (f *follower) until(ctx context.Context, names []string, done func(*Host) bool) (missing []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWatcher(f.store, true)
	go w.run(ctx)
	end := time.NewTimer(f.options.Wait)
	defer end.Stop()
	n := f.offering.Number()
	for {
		view, _, lost := w.now()
		if view != nil {
			refused := []string{}
			missing = missing[:0]
			for _, name := range slices.Sorted(maps.Keys(view.Hosts)) {
				h := view.Hosts[name]
				if r := h.Refused; r != nil && r.Generation == n && h.Offer == f.offering.created {
					refused = append(refused, name+": "+r.Fault)
				}
				if len(names) == 0 && !done(h) {
					missing = append(missing, name+lateness(h))
				}
			}
			for _, name := range names {
				if h := view.Hosts[name]; h == nil {
					missing = append(missing, name+": there is no such host alive")
				} else if !done(h) {
					missing = append(missing, name+lateness(h))
				}
			}
			if len(refused) > 0 {
				return nil, &RefusedError{n, refused}
			}
			if len(missing) == 0 {
				return nil, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-end.C:
			if view == nil {
				return nil, fmt.Errorf("hosts can't be followed: %w", lost)
			}
			return missing, nil
		case <-w.changed:
		}
	}
}

// lateness is what a host that is missing says.
func lateness(h *Host) string {
	text := fmt.Sprintf(": it carries generation %d", h.Generation)
	if len(h.Faults) > 0 {
		text += ": " + strings.Join(h.Faults, "; ")
	}
	return text
}

// withdraw takes the generation back. Its number is not used again.
func (f *follower) withdraw(ctx context.Context) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := f.offering.remove(late, f.store.keys.generation(f.offering.Number())); err != nil && !errors.Is(err, ErrOfferLost) {
		return fmt.Errorf("it is not taken out of the history: %w", err)
	}
	return nil
}
