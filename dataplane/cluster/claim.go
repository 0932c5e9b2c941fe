package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// claimsAtOnce are the claims of one transaction: each takes up to two of 128 conditions.
const claimsAtOnce = 60

// orphan is a claim whose host has lost its registration. That host may carry by it until free, by the agent's clock.
type orphan struct {
	Claim
	free time.Duration
}

// findOrphans notes which claims have lost their host, and when that was seen.
func (a *Agent) findOrphans(view *View) {
	if a.orphansOf == view.places {
		return
	}
	known := a.orphans
	a.orphans, a.orphansOf = map[string]orphan{}, view.places
	for nic, c := range view.Claims {
		if view.Registered(&c.ClaimRecord) {
			continue
		}
		o, before := known[nic]
		if !before || o.Revision != c.Revision {
			o = orphan{c, a.Clock() + c.length()}
		}
		a.orphans[nic] = o
	}
}

// isOwn reports that an orphan is a claim of this host: nobody carries by it besides this process.
func (a *Agent) isOwn(o *orphan) bool { return o.Host == a.Host && a.session.had(o.Epoch) }

// due has the agent look again at a moment, if that is to come.
func (a *Agent) due(moment time.Duration) {
	if moment > a.Clock() && (a.orphansDue == 0 || moment < a.orphansDue) {
		a.orphansDue = moment
	}
}

// gone are conditions: an orphan is what it was, and its host is not back.
func (a *Agent) gone(nic string, o *orphan) []clientv3.Cmp {
	return []clientv3.Cmp{unchanged(a.Store.keys.claim(nic), o.Revision), other(a.Store.keys.host(o.Host), o.Epoch)}
}

// collect deletes claims of hosts that are gone, where nobody wants them: its own at once, and, as the host that registered
// first, those of others, once those who want them have had their time.
func (a *Agent) collect(ctx context.Context, view *View, epoch int64) {
	self := view.Hosts[a.Host]
	if len(a.orphans) == 0 || epoch == 0 || self == nil || self.Epoch != epoch {
		return
	}
	first := true
	for _, h := range view.Hosts {
		first = first && h.Epoch >= epoch
	}
	wanted, left := a.Daemon.NICs(), claimsAtOnce
	for _, nic := range slices.Sorted(maps.Keys(a.orphans)) {
		o := a.orphans[nic]
		_, ours := a.held[nic]
		if ours || slices.Contains(wanted, nic) || slices.Contains(a.attached, nic) {
			continue
		}
		if !a.isOwn(&o) {
			late := o.free + o.length()
			if a.due(late); !first || a.Clock() < max(late, a.calm) {
				continue
			}
		}
		conditions := append(a.gone(nic, &o), same(a.Store.keys.host(a.Host), epoch))
		if _, err := a.Store.commit(ctx, "collecting the claim of "+nic, conditions, clientv3.OpDelete(a.Store.keys.claim(nic))); err != nil {
			a.fault(err)
			return
		}
		if left--; left == 0 {
			return
		}
	}
}

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
		a.session.close()
		a.session.registered(lease, 0)
		a.fault(fmt.Errorf("another process is host %q, at %v with nsgd %s: cluster.host must differ; or it is the last process here, whose lease ends within %d s", a.Host, h.Underlay, h.Version, h.Lease))
		return 0
	}
	a.session.close()
	key := a.Store.keys.host(a.Host)
	text, _ := a.record().text()
	r, err := a.Store.commit(ctx, "registering", []clientv3.Cmp{absent(key)}, clientv3.OpPut(key, text, clientv3.WithLease(lease)))
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
	a.wroteRecord = written{text, r.Header.Revision}
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
	a.findOrphans(view)
	a.orphansDue = 0
	if epoch == 0 {
		return
	}
	var free []string
	calmed := 0
	for _, nic := range a.Daemon.NICs() {
		if _, ours := mine[nic]; ours {
			continue
		}
		o, orphaned := a.orphans[nic]
		if c, taken := view.Claims[nic]; taken && !orphaned {
			a.waiting[nic] = c.Host
			continue
		}
		if a.mustWait(view, nic) {
			a.waiting[nic] = ""
			calmed++
			continue
		}
		if orphaned && !a.isOwn(&o) && !a.mayCarry(nic) && a.Clock() < o.free { // its host may stand still, and carry when it goes on
			a.waiting[nic] = o.Host
			a.due(o.free)
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
	if calmed > 0 && view.Age != nil { // otherwise the next view says since when etcd holds anything
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
	return (a.Clock() < a.calm || view.Age == nil || !view.Age.Whole) && !a.mayCarry(nic)
}

// mayCarry tells that this host may carry a network interface by a claim that it has had: nobody else may.
func (a *Agent) mayCarry(nic string) bool {
	_, own := slices.BinarySearch(a.attached, nic)
	return own && a.Clock() < a.session.lastedUntil()
}

// claimOf is this host's claim by a registration.
func (a *Agent) claimOf(epoch int64) string {
	return encode(&ClaimRecord{a.Host, epoch, int64((a.Lease + time.Second - 1) / time.Second)})
}

// take claims network interfaces that are free or orphans, all or none.
func (a *Agent) take(ctx context.Context, epoch int64, nics ...string) bool {
	if _, now, _, _ := a.session.now(); now != epoch {
		return false
	}
	conditions := []clientv3.Cmp{same(a.Store.keys.host(a.Host), epoch)}
	var ops []clientv3.Op
	for _, nic := range nics {
		key := a.Store.keys.claim(nic)
		if o, orphaned := a.orphans[nic]; orphaned {
			conditions = append(conditions, a.gone(nic, &o)...)
		} else {
			conditions = append(conditions, absent(key))
		}
		ops = append(ops, clientv3.OpPut(key, a.claimOf(epoch)))
	}
	r, err := a.Store.commit(ctx, "claiming network interfaces", conditions, ops...)
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
		if _, err := a.Store.commit(ctx, "giving back "+nic, []clientv3.Cmp{unchanged(key, a.held[nic])}, clientv3.OpDelete(key)); err != nil {
			a.fault(err)
			return
		}
		delete(a.held, nic)
	}
}
