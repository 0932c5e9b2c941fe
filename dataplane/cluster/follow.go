package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// number is a generation's; 0: there is none.
func number(u *generation.Unpacked) uint64 {
	if u == nil {
		return 0
	}
	return u.Number
}

// fetch has a generation in the cache, from there or from etcd.
func (a *Agent) fetch(ctx context.Context, n uint64, bundle generation.Hash) (*generation.Unpacked, error) {
	for _, known := range []*generation.Unpacked{a.carrying, a.committed, a.offered} {
		if generationIs(known, n, bundle) {
			return known, nil
		}
	}
	if u, err := a.Cache.Get(n, bundle); err == nil {
		return u, nil
	}
	record, err := a.Store.Generation(ctx, n, a.Key)
	if err != nil {
		return nil, err
	}
	if record.Manifest.Bundle != bundle {
		return nil, fmt.Errorf("generation %d: its manifest is of another bundle than the head or the offer", n)
	}
	compressed, err := a.Store.Bundle(ctx, record.Manifest)
	if err != nil {
		return nil, err
	}
	return a.Cache.Put(record.Sealed, compressed)
}

// isTransient tells that the same may succeed later.
func isTransient(err error) bool {
	_, request := errors.AsType[*RequestError](err)
	return request || errors.Is(err, context.Canceled)
}

// prepare tries what is on offer, once.
func (a *Agent) prepare(ctx context.Context, view *View) {
	o := view.Offer
	if o == nil || !o.Offered {
		a.offered, a.tried = nil, 0
		if r := a.refused; r != nil && (view.Head == nil || r.Generation != view.Head.Current) {
			a.refused = nil
		}
		return
	}
	if a.tried == view.offerCreated {
		return
	}
	u, err := a.fetch(ctx, o.Generation, o.Bundle)
	if err == nil {
		if before := number(a.committed); o.Generation <= before {
			err = fmt.Errorf("generation %d is offered, and %d was current here: apply again", o.Generation, before)
		} else {
			err = a.Daemon.Try(u)
		}
	}
	if isTransient(err) {
		a.fault(fmt.Errorf("generation %d can't be prepared: %w", o.Generation, err))
		return
	}
	a.tried = view.offerCreated
	if err != nil {
		a.offered, a.refused = nil, &Refusal{o.Generation, inBrief(err)}
		a.log.Error("cluster: generation refused", "generation", o.Generation, "by", o.By, "error", err)
		return
	}
	a.offered, a.refused = u, nil
	a.log.Info("cluster: generation prepared", "generation", o.Generation, "by", o.By)
}

// follow has the daemon carry what is current, or what is on offer where this host is a canary.
func (a *Agent) follow(ctx context.Context, view *View) {
	want, err := a.current(ctx, view)
	if err != nil {
		a.fault(err)
	}
	current := want
	if o := view.Offer; a.offered != nil && o != nil && slices.Contains(o.Canary, a.Host) {
		want = a.offered
	}
	if want == nil {
		return
	}
	if !generationIs(a.carrying, want.Number, want.Bundle) {
		if err := a.carry(want, a.attached); err != nil {
			a.refused = &Refusal{want.Number, inBrief(err)}
			a.fault(fmt.Errorf("generation %d is not carried, generation %d stays: %w", want.Number, number(a.carrying), err))
			return
		}
		a.log.Info("cluster: generation carried", "generation", want.Number, "before", number(a.carrying), "by", want.Who, "message", want.Message)
		a.carrying, a.refused = want, nil
	}
	if want == current && !generationIs(a.committed, want.Number, want.Bundle) {
		if err := a.Cache.SetCurrent(want); err != nil {
			a.fault(fmt.Errorf("generation %d is not kept for the next start: %w", want.Number, err))
			return
		}
		a.committed = want
		if err := a.Cache.Tidy(a.carrying, a.committed, a.offered); err != nil {
			a.log.Warn("cluster: old generations stay in the cache", "error", err)
		}
	}
}

// current is the generation that the head names. Where etcd has forgotten what was current here, that stays.
func (a *Agent) current(ctx context.Context, view *View) (*generation.Unpacked, error) {
	head, mine := view.Head, a.committed
	switch {
	case head == nil && mine == nil:
		return nil, nil
	case head == nil:
		return mine, fmt.Errorf("etcd has no current generation any more: generation %d stays: nsgctl cluster apply brings one that is newer", mine.Number)
	case mine == nil || head.Current > mine.Number:
		u, err := a.fetch(ctx, head.Current, head.Bundle)
		if err != nil {
			if !isTransient(err) {
				a.refused = &Refusal{head.Current, inBrief(err)}
			}
			return mine, fmt.Errorf("generation %d is current and can't be had: %w", head.Current, err)
		}
		return u, nil
	case head.Current < mine.Number:
		return mine, fmt.Errorf("etcd went back to generation %d: generation %d stays: nsgctl cluster apply brings one that is newer", head.Current, mine.Number)
	case head.Bundle != mine.Bundle:
		return mine, fmt.Errorf("etcd has another generation %d than the one that was current here, which stays: nsgctl cluster apply brings one that is newer", mine.Number)
	}
	return mine, nil
}
