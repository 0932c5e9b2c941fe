package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// claimsAtOnce are the claims of one transaction: each takes one of 128 operations.
const claimsAtOnce = 60

// register has the host's name belong to its lease. The result is the epoch of the registration; 0: there is none.
func (a *Agent) register(ctx context.Context, view *View) (epoch int64) {
	lease, epoch, _, failed := a.session.now()
	if lease == 0 {
		if failed == nil {
			failed = errNoLease
		}
		a.fault(failed)
		return 0
	}
	h := view.Hosts[a.Host]
	switch {
	case epoch != 0 && (view.Revision < epoch || h != nil && h.Epoch == epoch):
		return epoch
	case h != nil && h.lease == lease:
		a.session.registered(lease, h.Epoch)
		return h.Epoch
	case h != nil:
		a.session.registered(lease, 0)
		a.fault(fmt.Errorf("another process is host %q, at %v with nsgd %s: cluster.host must differ; or it is the last process here, whose lease ends within %d s", a.Host, h.Underlay, h.Version, h.Lease))
		return 0
	}
	a.session.close()
	key := a.Store.keys.host(a.Host)
	r, err := a.Store.commit(ctx, "registering", []clientv3.Cmp{absent(key)}, clientv3.OpPut(key, a.record().text(), clientv3.WithLease(lease)))
	switch {
	case isLeaseGone(err):
		a.session.gone()
		fallthrough
	case err != nil:
		a.fault(err)
		return 0
	case !r.Succeeded: // another process was first: the next view names it
		a.session.registered(lease, 0)
		a.fault(fmt.Errorf("host %q: somebody has registered it just now", a.Host))
		return 0
	}
	a.session.registered(lease, r.Header.Revision)
	if a.last != nil { // it was away for longer than its lease, and others may have been, too
		a.returned = a.Clock() + max(a.Lease, a.longestLease)
	}
	a.registered = r.Header.Revision
	a.log.Info("cluster: registered", "host", a.Host, "epoch", r.Header.Revision)
	return r.Header.Revision
}

// claim finds out which network interfaces this host has, and claims those that are free.
func (a *Agent) claim(ctx context.Context, view *View, epoch int64) {
	mine := a.mine(view, epoch)
	a.held, a.heldEpoch, a.heldOf = mine, epoch, view.places
	clear(a.waiting)
	if epoch == 0 {
		return
	}
	var free []string
	calmed := 0
	for _, nic := range a.Daemon.NICs() {
		if _, ours := mine[nic]; ours {
			continue
		}
		if c, taken := view.Claims[nic]; taken {
			a.waiting[nic] = c.Host
			continue
		}
		if a.mustWait(view, nic) {
			a.waiting[nic] = ""
			calmed++
			continue
		}
		free = append(free, nic)
	}
	slices.Sort(free)
	for batch := range slices.Chunk(free, claimsAtOnce) {
		if !a.take(ctx, epoch, batch...) {
			for _, nic := range batch {
				if len(batch) > 1 && !a.take(ctx, epoch, nic) {
					a.waiting[nic] = ""
				}
			}
		}
	}
	if calmed > 0 {
		a.fault(fmt.Errorf("etcd has forgotten what it held: %d network interfaces are claimed once no other host can carry them any more", calmed))
	}
}

// mine are the claims of this host, with their revisions.
func (a *Agent) mine(view *View, epoch int64) map[string]int64 {
	if epoch == a.heldEpoch && view.places == a.heldOf { // no claim has changed
		return a.held
	}
	mine := map[string]int64{}
	for nic, c := range view.Claims {
		if c.Host == a.Host && c.Epoch == epoch && epoch != 0 && view.Revision >= a.moving.left[nic] {
			mine[nic] = c.Revision
		}
	}
	maps.DeleteFunc(a.moving.left, func(_ string, revision int64) bool { return view.Revision >= revision })
	if epoch == a.heldEpoch {
		for nic, revision := range a.held {
			if revision > view.Revision { // the view is older than the claim
				mine[nic] = revision
			}
		}
	}
	return mine
}

// mustWait tells that somebody else may carry a network interface by a claim that etcd has forgotten.
func (a *Agent) mustWait(view *View, nic string) bool {
	now := a.Clock()
	if now >= a.calm && view.Age != nil && view.Age.Whole {
		return false
	}
	_, own := slices.BinarySearch(a.attached, nic)
	return !own || now >= a.session.lastedUntil()
}

// take claims network interfaces, all or none.
func (a *Agent) take(ctx context.Context, epoch int64, nics ...string) bool {
	lease, now, _, _ := a.session.now()
	if now != epoch {
		return false
	}
	conditions := []clientv3.Cmp{same(a.Store.keys.host(a.Host), epoch)}
	var ops []clientv3.Op
	for _, nic := range nics {
		key := a.Store.keys.claim(nic)
		conditions = append(conditions, absent(key))
		ops = append(ops, clientv3.OpPut(key, encode(&ClaimRecord{a.Host, epoch}), clientv3.WithLease(lease)))
	}
	r, err := a.Store.commit(ctx, "claiming network interfaces", conditions, ops...)
	if isLeaseGone(err) {
		a.session.gone()
	}
	if err != nil { // if it took place, the view will say so
		a.fault(err)
		return true
	}
	if r.Succeeded {
		for _, nic := range nics {
			a.held[nic] = r.Header.Revision
		}
	}
	return r.Succeeded
}

// attach has the daemon attach the network interfaces that this host has claimed, and no others. Then it may carry.
func (a *Agent) attach(epoch int64) {
	if epoch == 0 {
		return // the fence closes by itself
	}
	var want []string
	for _, nic := range a.Daemon.NICs() {
		_, ours := a.held[nic]
		_, unsettled := a.moving.unsettled[nic]
		_, own := slices.BinarySearch(a.attached, nic)
		switch {
		case !ours || unsettled:
		case !own && a.Clock() < a.calm: // by a claim from before etcd went back: another host may have taken it since
			a.waiting[nic] = ""
		default:
			want = append(want, nic)
		}
	}
	slices.Sort(want)
	if a.carrying != nil && !slices.Equal(want, a.attached) {
		if err := a.carry(a.carrying, want); err != nil {
			a.fault(fmt.Errorf("network interfaces stay as they are attached: %w", err))
			if missing := slices.DeleteFunc(slices.Clone(a.attached), func(nic string) bool { _, ours := a.held[nic]; return ours }); len(missing) > 0 {
				a.session.close() // of others now
			}
			return
		}
		a.log.Info("cluster: network interfaces attached", "now", len(want), "before", len(a.attached))
		a.attached = want
	}
	if err := a.session.carry(epoch, a.attached); err != nil {
		a.fault(err)
	}
}

// release gives back claims of network interfaces that this host does not have any more, once they are detached.
func (a *Agent) release(ctx context.Context, epoch int64) {
	if epoch == 0 {
		return
	}
	wanted := a.Daemon.NICs()
	for _, nic := range slices.Sorted(maps.Keys(a.held)) {
		if slices.Contains(wanted, nic) || slices.Contains(a.attached, nic) {
			continue
		}
		key := a.Store.keys.claim(nic)
		if _, err := a.Store.commit(ctx, "giving back "+nic, []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", encode(&ClaimRecord{a.Host, epoch}))}, clientv3.OpDelete(key)); err != nil {
			a.fault(err)
			return
		}
		delete(a.held, nic)
	}
}
