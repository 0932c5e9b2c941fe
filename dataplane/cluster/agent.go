package cluster

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"golang.org/x/sync/errgroup"
)

// Daemon is what an agent has carry packets. It makes one call at a time.
type Daemon interface {
	// Try finds out whether this host could carry a generation with all that it attaches. Nothing changes.
	Try(*generation.Unpacked) error
	// Carry has a generation decide, with those of the host's network interfaces attached whose ids are listed. On an
	// error everything is as before.
	Carry(g *generation.Unpacked, nics []string) error
	// NICs are the ids, as NormalNIC has them, of the network interfaces that this host is to have in the generation
	// that decides, attached or not.
	NICs() []string
	// Depart is Carry with one network interface less. Once nothing can refuse any more, hand is called, and may freeze and
	// send what leaves. On hand's error everything is as before.
	Depart(g *generation.Unpacked, nics []string, nic string, hand func(Departing) error) error
	// Arrive is Carry with one network interface more, which comes from another host. Once nothing can refuse any more, take
	// is called, and may read its flows. On take's error everything is as before.
	Arrive(g *generation.Unpacked, nics []string, nic, from string, take func(Arriving) error) (Arrived, error)
}

// AgentOptions are what a host is.
type AgentOptions struct {
	Store *Store
	Cache *generation.Cache // locked
	// Host is its name. Underlay and Port are where its tunnels end; MTU asks for the underlay's.
	Host     string
	Underlay netip.Addr
	Port     uint16
	MTU      func() int
	Version  string
	// Control is where it answers nsgctl from elsewhere; see HostRecord.
	Control string
	// Internet says that it has an internet attachment, and Gateways what is behind those that it attaches; see HostRecord.
	Internet func() bool
	Gateways func() map[string][]netip.Prefix
	// InternetHosts are the others that it believes when they say they have the internet; empty: all are believed.
	InternetHosts []string
	// Health are the identities of this host's probes that are answered; nil: it sends none. Wake tells that they changed. With a
	// network interface that arrives, those that its old host says are answered are among them.
	Health func(arrives string) []string
	// Hear is told what other hosts say of their backends, when that changes; nil: nobody is.
	Hear func(*Health)
	// Lease is how long it may be away: see MinLease.
	Lease time.Duration
	// GoOn has it carry on when the lease has ended. Another host may then have the same network interfaces.
	GoOn bool
	// Key is whose generations it takes; nil: any that etcd has.
	Key ed25519.PublicKey
	// Boot names the machine's boot, to which Clock belongs; empty: nobody knows, and the last process's lease does not
	// count. Clock is monotonic, and the same in all processes.
	Boot  string
	Clock func() time.Duration
	// Fence has the host carry up to a moment of Clock and not beyond.
	Fence func(until time.Duration)
	// Start is what the daemon carries already; nil: nothing. Attached are its network interfaces.
	Start    *generation.Unpacked
	Attached []string
	Daemon   Daemon
	// Listen is where another host hands over a network interface, by TCP at the underlay's address; nil: nobody can. Dial
	// connects to another host that waits so.
	Listen func(context.Context) (net.Listener, error)
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	// Placed is told every new placement, one at a time, and again after a fault or when another policy decides; nil:
	// nobody is.
	Placed func(context.Context, *Placement) error
	Log    *slog.Logger // nil discards
}

const (
	// breath lies between two steps at least, so that many changes at once cost one step.
	breath = 20 * time.Millisecond
	// lookAgain is how often an agent looks at itself when nothing changes.
	lookAgain = 5 * time.Second
	// longestRetry lies between two tries of what the daemon refuses at most.
	longestRetry = 30 * time.Second
)

// Agent is a host of a cluster. Run it once.
type Agent struct {
	AgentOptions
	log     *slog.Logger
	watcher *watcher
	session *session
	wake    chan struct{}
	wakes   atomic.Uint64 // calls of Wake

	// What follows is of the goroutine that steps.
	carrying  *generation.Unpacked // nil: nothing
	committed *generation.Unpacked // the newest that was current; nil: none
	offered   *generation.Unpacked // the one on offer that this host can carry; nil: none
	tried     int64                // revision of the offer that offered or refused is of; 0: none
	refused   *Refusal
	attached  []string         // sorted
	held      map[string]int64 // claims of the registration heldEpoch, with their revisions
	heldEpoch int64
	heldOf    uint64 // View.places of held
	// registered is the epoch that this process has got; 0: none. The last process has left any other one.
	registered int64
	waiting    map[string]string
	orphans    map[string]orphan // claims whose host has lost its registration
	orphansOf  uint64            // View.places of orphans
	orphansDue time.Duration     // by Clock: then one of them may be taken or collected; 0: there is none
	// wroteRecord, wroteReport and wroteHealth are what etcd was given last.
	wroteRecord, wroteReport, wroteHealth written
	placement                             *Placement    // that is in force; nil: not known
	placesOf                              uint64        // View.places of placement; 0: not known
	reaches                               int           // network interfaces of others in it
	last                                  *Placement    // that was in force last; nil: none was
	healthText                            string        // of the last HealthRecord; empty: there was none
	healthLeft                            int           // backends that it leaves out
	healthWakes                           uint64        // wakes of it
	healthAt                              time.Duration // by Clock, when it was told
	healthDue                             time.Duration // by Clock, when it may be told again; 0: there is nothing to tell
	heard                                 *Health       // from the others last; nil: nothing was
	healthsOf                             uint64        // View.healths of heard
	healthIn                              *Placement    // of heard
	// longestLease is that of any host at the last step.
	longestLease time.Duration
	refusal      attempt // of the daemon
	faults       []string
	unplaced     []string      // of the faults, those of the last placement
	retry        time.Duration // 0: nothing failed
	rewinds      int           // of the watcher, that were noticed
	calm         time.Duration // by Clock: until then only own claims are renewed
	moving       moving
	returned     time.Duration // by Clock: until then others may come back, as this host has
	young        int64         // revision of the record that says that etcd holds nothing yet; 0: none
	aged         time.Duration // by Clock: then it counts as one that holds all

	mu     sync.Mutex
	status Status // guarded by mu
}

// NewAgent makes a host from what the last process has left. It fences at once.
func NewAgent(o AgentOptions) (*Agent, error) {
	if err := CheckHost(o.Host); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if o.Lease < MinLease || o.Lease > MaxLease {
		return nil, fmt.Errorf("lease: %v: allowed are %v to %v", o.Lease, MinLease, MaxLease)
	}
	a := &Agent{AgentOptions: o, log: o.Log, watcher: newWatcher(o.Store, false), wake: make(chan struct{}, 1), carrying: o.Start, committed: o.Start,
		attached: slices.Sorted(slices.Values(o.Attached)), held: map[string]int64{}, waiting: map[string]string{}}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	fence := o.Fence
	if o.GoOn {
		o.Fence(Forever)
		fence = func(time.Duration) {}
	}
	a.session = &session{store: o.Store, length: o.Lease, clock: o.Clock, fence: fence, cache: o.Cache, host: o.Host, boot: o.Boot, told: make(chan struct{}, 1)}
	if err := a.beginMoving(); err != nil {
		return nil, err
	}
	saved, err := readLease(o.Cache, o.Host, o.Boot)
	if err != nil {
		a.log.Warn("cluster", "error", err)
	}
	a.session.resume(saved)
	return a, nil
}

// Run is the host until ctx ends. The lease is left to the process that follows.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { a.watcher.run(ctx); return nil })
	group.Go(func() error { a.session.run(ctx); return nil })
	group.Go(func() error { a.run(ctx); return nil })
	return group.Wait()
}

// Wake has the agent look at what the daemon is to have, and which backends answer: after a reload, say. Safe for concurrent use.
func (a *Agent) Wake() {
	a.wakes.Add(1)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) run(ctx context.Context) {
	defer a.shut()
	for {
		a.step(ctx)
		if a.moving.hurry {
			a.moving.hurry = false
			continue
		}
		if a.retry == 0 {
			a.retry = firstWait
		}
		wait := lookAgain
		if len(a.faults) > 0 {
			wait = a.retry
			a.retry = min(2*a.retry, longestRetry)
		} else {
			a.retry = firstWait
		}
		for _, moment := range []time.Duration{a.calm, a.returned, a.aged, a.healthDue, a.orphansDue} { // claims, places and health wait for just that
			if left := moment - a.Clock(); left > 0 {
				wait = min(wait, left)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(breath):
		}
		select {
		case <-ctx.Done():
			return
		case <-a.watcher.changed:
		case <-a.session.told:
			a.watcher.look() // a lease also goes where etcd has forgotten it
		case <-a.wake:
		case <-time.After(wait):
		}
	}
}

// step brings the host nearer to what etcd says, from whatever it is now.
func (a *Agent) step(ctx context.Context) {
	before := a.faults
	a.faults = nil
	view, rewinds, lost := a.watcher.now()
	switch {
	case lost != nil:
		a.fault(fmt.Errorf("without etcd: %w", lost))
	case view != nil:
		a.notice(view, rewinds)
		epoch := a.register(ctx, view)
		a.age(ctx, view, epoch)
		a.prepare(ctx, view)
		a.follow(ctx, view)
		a.tellHealth(ctx, epoch)
		a.claim(ctx, view, epoch)
		a.settleClaims(ctx, epoch)
		a.attach(epoch)
		a.release(ctx, epoch)
		a.collect(ctx, view, epoch)
		a.answer(ctx, view, epoch)
		a.tell(ctx, epoch)
		a.welcome(ctx, epoch)
		a.place(ctx, view)
		a.hearHealth(view)
	}
	a.keepStatus(view, lost)
	if !slices.Equal(before, a.faults) {
		for _, fault := range a.faults {
			a.log.Warn("cluster", "fault", fault)
		}
		if len(a.faults) == 0 {
			a.log.Info("cluster: as it should be", "generation", number(a.carrying), "networkInterfaces", len(a.attached))
		}
	}
}

// fault notes what is wrong. The step goes on, and is made again.
func (a *Agent) fault(err error) {
	if len(a.faults) < maxFaults {
		a.faults = append(a.faults, inBrief(err))
	}
}

// notice sees that etcd has forgotten what it held. Whoever has network interfaces by the state from before may carry
// on until the end of their lease. Nobody else takes them until then.
func (a *Agent) notice(view *View, rewinds int) {
	_, epoch, _, _ := a.session.now()
	older := epoch > view.Revision && epoch != a.registered // than what the last process has left
	if a.rewinds == rewinds && !older {
		return
	}
	a.rewinds, a.registered = rewinds, 0
	a.held, a.heldEpoch, a.heldOf = map[string]int64{}, 0, 0 // epochs come again
	a.wroteRecord, a.wroteReport, a.wroteHealth = written{}, written{}, written{}
	a.moving.forget()
	a.orphans, a.orphansOf = nil, 0
	a.session.forget()
	longest := max(a.Lease, a.longestLease)
	a.calm = a.Clock() + longest
	a.log.Warn("cluster: etcd went back to an earlier state, or is another one: claims of others wait", "for", longest, "revision", view.Revision)
}
