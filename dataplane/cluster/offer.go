package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// offerLease is how long an offer outlives who makes it.
const offerLease = 15 * time.Second

// ErrOfferLost says that an apply has no right to go on: its lease has ended, or somebody has removed it.
var ErrOfferLost = errors.New("the offer has ended: etcd was away for longer than its lease, or somebody has removed it; nothing has changed: apply again")

// ErrOffered refuses an apply beside another one.
type ErrOffered struct{ Offer }

// Error says who applies.
func (e *ErrOffered) Error() string {
	return fmt.Sprintf("%s applies generation %d since %s: one apply at a time; it ends by itself %v after its nsgctl has gone",
		e.By, e.Generation, e.Since.Format(time.TimeOnly), offerLease)
}

// Offering is the right to write: one holds it at a time, and loses it with its lease. Close it.
type Offering struct {
	store   *Store
	lease   clientv3.LeaseID
	created int64 // revision of the offer
	offer   Offer
	before  *Head
	behind  bool // hosts have seen later generations than before, or another one of its number
	stop    context.CancelFunc
}

// Begin takes the right to write the next generation. Its number is above all that anybody has seen, also after etcd has
// lost some.
func (s *Store) Begin(ctx context.Context, by string, now time.Time) (*Offering, error) {
	view, err := s.View(ctx)
	if err != nil {
		return nil, err
	}
	if view.Offer != nil {
		return nil, &ErrOffered{*view.Offer}
	}
	number, seen, behind := uint64(0), uint64(0), false
	if view.Head != nil {
		number = view.Head.Current
	}
	for _, h := range view.Hosts {
		behind = behind || h.Committed > number || view.Head != nil && h.Committed == number && h.Bundle != view.Head.Bundle && h.Bundle != (generation.Hash{})
		seen = max(seen, h.Generation, h.Committed)
	}
	newest, err := s.newest(ctx)
	if err != nil {
		return nil, err
	}
	last, err := s.last(ctx)
	if err != nil {
		return nil, err
	}
	o := &Offering{store: s, before: view.Head, behind: behind, offer: Offer{Generation: max(number, seen, newest, last) + 1, By: by, Since: now}}
	if err := o.take(ctx, view); err != nil {
		return nil, err
	}
	return o, nil
}

// newest is the highest stored number; 0: there is none.
func (s *Store) newest(ctx context.Context) (uint64, error) {
	r, err := s.page(ctx, s.keys.generations(), []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1)})
	if err != nil || len(r.Kvs) == 0 {
		return 0, err
	}
	n, _ := s.keys.parseGeneration(string(r.Kvs[0].Key))
	return n, nil
}

// last is the highest number that a manifest ever had here; 0: there is none.
func (s *Store) last(ctx context.Context) (n uint64, err error) {
	text, _, err := s.get(ctx, s.keys.last())
	if text == nil || err != nil {
		return 0, err
	}
	return n, decode(s.keys.last(), text, &n)
}

// take writes the offer, if nobody else has one and the head is as it was.
func (o *Offering) take(ctx context.Context, view *View) error {
	s := o.store
	asking, cancel := context.WithTimeout(ctx, patience)
	granted, err := s.client.Grant(asking, int64(offerLease/time.Second))
	cancel()
	if err != nil {
		return s.failed("asking for a lease", err)
	}
	o.lease = granted.ID
	r, err := s.commit(ctx, "offering", []clientv3.Cmp{
		absent(s.keys.offer()), clientv3.Compare(clientv3.ModRevision(s.keys.head()), "=", view.headRevision),
	}, clientv3.OpPut(s.keys.offer(), encode(&o.offer), clientv3.WithLease(o.lease)))
	if err == nil && r.Succeeded {
		o.created = r.Header.Revision
		renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
		o.stop = stop
		go o.renew(renewing)
		return nil
	}
	o.revoke(ctx) // also where the outcome is not known: the offer goes with its lease
	if err != nil {
		return err
	}
	if now, again := s.View(ctx); again == nil && now.Offer != nil {
		return &ErrOffered{*now.Offer}
	}
	return errors.New("somebody has changed the head meanwhile: apply again")
}

// renew keeps the lease until ctx ends. One that can't be kept ends, and the offer with it.
func (o *Offering) renew(ctx context.Context) {
	for {
		asking, cancel := context.WithTimeout(ctx, patience)
		_, err := o.store.client.KeepAliveOnce(asking, o.lease)
		cancel()
		if isLeaseGone(err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(offerLease / 5):
		}
	}
}

func (o *Offering) revoke(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	o.store.client.Revoke(late, o.lease) // else it ends by itself
}

// Close gives the right back. An offer that was not committed is withdrawn.
func (o *Offering) Close(ctx context.Context) {
	o.stop()
	o.revoke(ctx)
}

// Number is the generation's.
func (o *Offering) Number() uint64 { return o.offer.Generation }

// Before is the head when the offering began; nil: there was none.
func (o *Offering) Before() *Head { return o.before }

// Write stores the generation. Earlier ones that were offered and never committed go.
func (o *Offering) Write(ctx context.Context, m *generation.Manifest, sealed, compressed []byte) error {
	if err := o.store.write(ctx, o, m, sealed, compressed); err != nil {
		return err
	}
	o.offer.Bundle = m.Bundle
	return nil
}

// Offer has every host prepare the generation, and the canaries carry it.
func (o *Offering) Offer(ctx context.Context, canary []string) error {
	next := o.offer
	next.Offered, next.Canary = true, canary
	key, text := o.store.keys.offer(), encode(&next)
	err := o.store.under(ctx, o, "offering", nil, func(ctx context.Context) (bool, error) {
		there, _, err := o.store.get(ctx, key)
		return string(there) == text, err
	}, clientv3.OpPut(key, text, clientv3.WithLease(o.lease)))
	if err == nil {
		o.offer = next
	}
	return err
}

// Commit makes the generation the current one.
func (o *Offering) Commit(ctx context.Context, now time.Time) error {
	s := o.store
	head := encode(&Head{Current: o.offer.Generation, Bundle: o.offer.Bundle, By: o.offer.By, When: now})
	return s.under(ctx, o, "committing", nil, func(ctx context.Context) (bool, error) {
		there, _, err := s.get(ctx, s.keys.head())
		return string(there) == head, err
	}, clientv3.OpPut(s.keys.head(), head))
}

// whyNot is why a transaction under an offer did not take place.
func (s *Store) whyNot(ctx context.Context, o *Offering) error {
	r, err := s.page(ctx, s.keys.offer(), nil)
	if err != nil {
		return err
	}
	if len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != o.created {
		return ErrOfferLost
	}
	return errors.New("somebody else writes beside this apply, without an offer: apply again")
}

// MinKept and MaxKept bound how many generations of the past stay.
const (
	MinKept, MaxKept = 2, 1000
	DefaultKept      = 20
)

// Collect removes what nobody needs: generations of the past beyond kept, those that were never committed, and chunks
// of no generation. Only who holds the offer writes, so no apply is under way beside it.
func (o *Offering) Collect(ctx context.Context, kept int) (generations, chunks int, err error) {
	s := o.store
	history, err := s.History(ctx)
	if err != nil {
		return 0, 0, err
	}
	needed, unread := map[string]bool{}, false
	stays := 0
	for _, g := range history {
		// A number between the last head and this generation was offered and never committed.
		orphan := g.Number > o.offer.Generation || o.before != nil && g.Number > o.before.Current && g.Number < o.offer.Generation
		if !orphan && stays < kept {
			stays++
			unread = unread || g.Fault != nil
			for _, h := range g.Chunks {
				needed[s.keys.chunk(h)] = true
			}
			continue
		}
		if err := o.remove(ctx, s.keys.generation(g.Number)); err != nil {
			return generations, chunks, err
		}
		generations++
	}
	if unread { // nobody knows which chunks it needs
		return generations, 0, nil
	}
	var spare []string
	err = s.each(ctx, s.keys.chunks(), clientv3.GetPrefixRangeEnd(s.keys.chunks()), 0, nil, func(kv *mvccpb.KeyValue) {
		if !needed[string(kv.Key)] {
			spare = append(spare, string(kv.Key))
		}
	}, clientv3.WithKeysOnly())
	for batch := range slices.Chunk(spare, 64) {
		if err == nil {
			err = o.remove(ctx, batch...)
			chunks += len(batch)
		}
	}
	return generations, chunks, err
}

// remove deletes keys while the offer stands.
func (o *Offering) remove(ctx context.Context, list ...string) error {
	var ops []clientv3.Op
	for _, key := range list {
		ops = append(ops, clientv3.OpDelete(key))
	}
	return o.store.under(ctx, o, "removing what nobody needs", nil, func(ctx context.Context) (bool, error) {
		there, _, err := o.store.get(ctx, list[len(list)-1])
		return there == nil, err
	}, ops...)
}
