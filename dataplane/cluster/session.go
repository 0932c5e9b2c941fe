package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The bounds of a lease, and what it is by default.
const (
	MinLease     = 3 * time.Second
	MaxLease     = 10 * time.Minute
	DefaultLease = 10 * time.Second
)

// Forever is a moment that does not come.
const Forever = time.Duration(1<<63 - 1)

// session is a host's lease, and the fence that it gives: the moment of the host's own clock up to which it may carry.
//
// The host counts a lease's length from before a reading that has found its registration in etcd, and stops a margin earlier.
// Others wait for the whole length from when they have seen that the registration is gone. So it has stopped before anybody
// else has its network interfaces, as long as both clocks run at about the same speed, and whenever etcd ends the lease: an
// etcd whose leader was stopped ends leases that the next leader has renewed. Safe for concurrent use.
type session struct {
	store  *Store
	length time.Duration
	clock  func() time.Duration // monotonic
	fence  func(until time.Duration)
	cache  *generation.Cache // keeps the lease for the next process
	host   string
	boot   string
	told   chan struct{} // room for one; filled when the lease has come or gone

	saving sync.Mutex // one at a time; locked before mu

	mu    sync.Mutex
	nics  []string         // attached; guarded by mu
	lease clientv3.LeaseID // 0: none; guarded by mu
	epoch int64            // of the registration by this lease; 0: not registered; guarded by mu
	// epochs are those that this host has had, the newest last: claims by them are its own; guarded by mu
	epochs []int64
	until  time.Duration // what the lease allows; guarded by mu
	// fenced is where the fence stands; guarded by mu
	fenced time.Duration
	// lasted is how long the last lease would have allowed; guarded by mu
	lasted time.Duration
	open   bool  // what is attached is what is claimed; guarded by mu
	err    error // why it is not renewed; guarded by mu
}

// savedLease is what the next process of this host goes on with.
type savedLease struct {
	Host  string           `json:"host"`
	Lease clientv3.LeaseID `json:"lease"`
	Epoch int64            `json:"epoch"`
	// Epochs are those that the host has had.
	Epochs []int64 `json:"epochs"`
	// Boot and Until say how long it lasts by this machine's clock since its start.
	Boot  string        `json:"boot"`
	Until time.Duration `json:"until"`
	// NICs were attached.
	NICs []string `json:"networkInterfaces"`
}

// margin is how long before the lease's end the host stops.
func (s *session) margin() time.Duration { return max(s.length/5, 500*time.Millisecond) }

// errNoLease is why nothing is registered.
var errNoLease = errors.New("there is no lease from etcd yet")

// errLeaseEnded is why there is none now.
var errLeaseEnded = errors.New("the lease has ended: another one is asked for")

// resume goes on with the lease of the last process. If that had its network interfaces attached by this machine's
// clock, so has this one.
func (s *session) resume(saved *savedLease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease, s.epoch, s.epochs, s.nics = saved.Lease, saved.Epoch, saved.Epochs, saved.NICs
	s.until = min(saved.Until, s.clock()+s.length-s.margin()) // a shorter lease is configured now
	s.open = saved.Lease != 0 && saved.Epoch != 0 && saved.Until > s.clock()
	if !s.open {
		s.until = 0
	}
	s.fenced = s.until
	s.fence(s.until)
}

// carriesUntil is where the fence stands.
func (s *session) carriesUntil() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fenced
}

// let moves the fence. mu is held.
func (s *session) let() {
	s.fenced = s.until
	s.fence(s.until)
}

// now is the lease, the registration's epoch and how long the lease lasts.
func (s *session) now() (lease clientv3.LeaseID, epoch int64, until time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease, s.epoch, s.until, s.err
}

// registered notes the epoch of a registration by a lease.
func (s *session) registered(lease clientv3.LeaseID, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != lease {
		return
	}
	s.epoch = epoch
	if epoch != 0 && !slices.Contains(s.epochs, epoch) {
		s.epochs = append(slices.Clone(s.epochs[max(0, len(s.epochs)+1-maxEpochs):]), epoch)
	}
}

// maxEpochs bounds the registrations that a host remembers.
const maxEpochs = 16

// had reports that a registration was this host's.
func (s *session) had(epoch int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.epochs, epoch)
}

// forget drops all registrations: those of another etcd mean nothing in this one.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.epochs, s.open = 0, nil, false
}

// carry opens the fence for what a registration has claimed, unless it has gone meanwhile.
func (s *session) carry(epoch int64, nics []string) error {
	s.mu.Lock()
	changed := !s.open || !slices.Equal(s.nics, nics)
	if s.epoch == epoch && epoch != 0 {
		s.open, s.nics = true, nics
		s.let()
	}
	s.mu.Unlock()
	if !changed {
		return nil
	}
	return s.save()
}

// without notes for the next process that a network interface is not attached any more, before it is so.
func (s *session) without(nic string) error {
	s.mu.Lock()
	s.nics = slices.DeleteFunc(slices.Clone(s.nics), func(other string) bool { return other == nic })
	s.mu.Unlock()
	return s.save()
}

// close ends that what is attached is what is claimed: what the fence allows already stays, as the lease does.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
}

// renewed notes a lease that lasts so long from when it was asked for, by a registration that was there later than that.
func (s *session) renewed(lease clientv3.LeaseID, asked, length time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = nil
	if s.lease != lease {
		s.lease, s.epoch, s.open = lease, 0, false
		s.tell()
	}
	if s.until = asked + min(length, s.length) - s.margin(); s.open {
		s.let()
	}
}

// gone notes that the lease has ended, and closes the fence: somebody may have ended it before its time.
func (s *session) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == 0 {
		return
	}
	s.lasted = s.until
	s.lease, s.epoch, s.open, s.until = 0, 0, false, 0
	s.let()
	s.tell()
}

// lastedUntil is when the lease would have ended that was lost last, or when this one ends.
func (s *session) lastedUntil() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.lasted, s.fenced)
}

func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.tell()
	}
	s.err = err
}

func (s *session) tell() {
	select {
	case s.told <- struct{}{}:
	default:
	}
}

// run keeps a lease until ctx ends. It does not give the lease back: the next process goes on with it.
func (s *session) run(ctx context.Context) {
	wait, again := time.Duration(0), firstWait
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := s.renew(ctx)
		if err == nil {
			err = s.save()
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait, again = s.length/5, firstWait
		case errors.Is(err, errLeaseEnded): // etcd answers
			s.fail(err)
			wait, again = 0, firstWait
		default:
			s.fail(err)
			wait, again = again, min(2*again, s.length/5)
		}
	}
}

// renew grants a lease or keeps the one that there is.
func (s *session) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(patience, s.length/2))
	defer cancel()
	lease, epoch, _, _ := s.now()
	asked := s.clock()
	if lease == 0 {
		r, err := s.store.client.Grant(ctx, int64(s.length/time.Second))
		if err != nil {
			return s.store.failed("asking for a lease", err)
		}
		s.renewed(r.ID, asked, time.Duration(r.TTL)*time.Second)
		return nil
	}
	// Not KeepAlive: its channel does not tell when a keepalive was sent, and closes though the lease lives.
	r, err := s.store.client.KeepAliveOnce(ctx, lease)
	if isLeaseGone(err) {
		s.gone()
		return errLeaseEnded
	}
	if err != nil {
		return s.store.failed("renewing the lease", err)
	}
	if r.TTL < int64(s.length/time.Second) { // the last process was configured with a shorter one
		if _, err := s.store.client.Revoke(ctx, lease); err != nil && !isLeaseGone(err) {
			return s.store.failed("giving back a shorter lease", err)
		}
		s.gone()
		return errLeaseEnded
	}
	if epoch != 0 {
		if err := s.store.isRegistered(ctx, s.host, epoch); err != nil {
			return err
		}
	}
	s.renewed(lease, asked, time.Duration(r.TTL)*time.Second)
	return nil
}

// save notes the lease for the next process.
func (s *session) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	saved := savedLease{Host: s.host, Lease: s.lease, Epoch: s.epoch, Epochs: s.epochs, Boot: s.boot, Until: s.until, NICs: s.nics}
	if !s.open {
		saved.Until = 0
	}
	s.mu.Unlock()
	text, err := json.Marshal(&saved)
	if err == nil {
		err = s.cache.SaveLease(text)
	}
	if err != nil {
		return fmt.Errorf("the lease is not kept for the next process: %w", err)
	}
	return nil
}

// readLease is what the last process of this host has noted.
func readLease(cache *generation.Cache, host, boot string) (*savedLease, error) {
	text, err := cache.Lease()
	saved := &savedLease{}
	if err == nil && text != nil {
		err = json.Unmarshal(text, saved)
	}
	if err != nil {
		return &savedLease{}, fmt.Errorf("the lease of the last process: %w", err)
	}
	if saved.Host != host {
		return &savedLease{}, nil
	}
	if saved.Boot != boot || boot == "" { // another clock, or nobody knows
		saved.Until = 0
	}
	return saved, nil
}

// LastNICs are the network interfaces that the last process of this host had attached and this one may attach at once:
// those that its lease allows still, or any where the host goes on without one. until is when it has to stop carrying.
func LastNICs(cache *generation.Cache, host, boot string, now time.Duration, goOn bool) (nics []string, until time.Duration, err error) {
	saved, err := readLease(cache, host, boot)
	switch {
	case err != nil:
		return nil, 0, err
	case goOn:
		return saved.NICs, Forever, nil
	case saved.Until <= now:
		return nil, 0, nil
	}
	return saved.NICs, saved.Until, nil
}

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
