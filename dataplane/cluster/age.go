package cluster

import (
	"context"
	"crypto/rand"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// age has etcd say whether it holds every claim by which somebody may carry. One that was emptied does not: whoever saw
// that waits, and this tells those who come later. The longest lease after the first host came to it, it does.
//
// A host that has carried nothing yet takes an etcd that says nothing for a new one: no cluster waits at its beginning.
func (a *Agent) age(ctx context.Context, view *View, epoch int64) {
	key := a.Store.keys.age()
	switch now := a.Clock(); {
	case epoch == 0 || view.Age != nil && view.Age.Whole:
		a.young, a.aged = 0, 0
	case view.Age == nil:
		first := &Age{ID: rand.Text(), Whole: a.committed == nil && now >= a.calm}
		if r, err := a.Store.commit(ctx, "saying since when etcd holds anything", []clientv3.Cmp{absent(key)}, clientv3.OpPut(key, encode(first))); err != nil {
			a.fault(err)
		} else if r.Succeeded {
			view.Age = first
		}
	case a.young != view.ageCreated:
		a.young, a.aged = view.ageCreated, now+max(a.Lease, a.longestLease)
	case now >= a.aged:
		a.aged = now + time.Second // until the view says so
		if _, err := a.Store.commit(ctx, "saying that etcd holds everything", []clientv3.Cmp{same(key, a.young)}, clientv3.OpPut(key, encode(&Age{view.Age.ID, true}))); err != nil {
			a.fault(err)
		}
	}
}
