// Package clustercheck is a check of clusters in Jepsen's manner. Hosts, which are processes with the real agent, and a real
// etcd of three members go through whatever can happen to them. Everybody takes down what it does, by one clock. Then the
// history is held to what must never be, and the cluster to what must be once the storm is over.
package clustercheck

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/clustertest"
	"github.com/nsgd/nsgd/dataplane/continuity"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	seedFlag = flag.Uint64("clustercheck.seed", 0, "the `seed` of the actions; 0: a fresh one. Times differ from run to run")
	timeFlag = flag.Duration("clustercheck.time", 10*time.Second, "how long the storms are in all, without the times in between")
)

const (
	// storm is how long things happen before they must come to rest.
	storm = 20 * time.Second
	// pace lies between two actions at most.
	pace = 300 * time.Millisecond
	// apart are a host that has lost its disk and an etcd that has lost all: nobody knows then who carries what.
	apart = 15 * time.Second
)

// action is something that may happen, as often as its weight says. It returns what has happened, empty: nothing could.
type action struct {
	weight int
	do     func(*world) string
}

// actions are all of them. What hosts learn to do, such as moving a network interface, gets a line here.
var actions = []action{
	{6, (*world).change},
	{6, (*world).cut},
	{6, (*world).pause},
	{4, (*world).crash},
	{2, (*world).upgrade},
	{8, (*world).policy},
	{10, (*world).move},
	{4, (*world).member},
	{1, (*world).outage},
	{1, (*world).compact},
	{1, (*world).empty},
}

// act has something happen.
func (w *world) act() {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	n := w.random.IntN(total)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			if what := a.do(w); what != "" {
				w.counts[what]++
				w.journal.add(event{Kind: happened, Text: what})
			}
			return
		}
	}
}

// within is a random time.
func (w *world) within(most time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(most)))
}

// quiet is a host to which nothing happens now; nil: there is none.
func (w *world) quiet() *host {
	var list []*host
	for _, h := range w.hosts {
		if h.heal == nil {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.random.IntN(len(list))]
}

// during has something happen to a quiet host, until heal ends it.
func (w *world) during(most time.Duration, begin func(*host) (what string, heal func())) string {
	h := w.quiet()
	if h == nil {
		return ""
	}
	what, heal := begin(h)
	w.journal.add(event{Kind: happened, Host: h.options.Name, Text: what})
	h.until, h.heal = time.Now().Add(w.within(most)), heal
	return what
}

// change has a host want other network interfaces.
func (w *world) change() string {
	w.hosts[w.random.IntN(len(w.hosts))].want(w.someNICs())
	return "configurations changed"
}

// cut changes the links of a host: all, that to one member, or the one by which network interfaces come.
func (w *world) cut() string {
	return w.during(6*time.Second, func(h *host) (string, func()) {
		s := clustertest.State(1 + w.random.IntN(int(clustertest.Slow)))
		if w.random.IntN(4) == 0 {
			h.links[w.random.IntN(len(h.links))].Set(s)
		} else {
			h.link(s)
		}
		return "links " + s.String(), func() { h.link(clustertest.Whole) }
	})
}

// pause has a host stand still, now and then for longer than its lease, and beside a cut link.
func (w *world) pause() string {
	return w.during(7*time.Second, func(h *host) (string, func()) {
		cut := w.random.IntN(4) == 0
		if cut {
			h.link(clustertest.Silent)
		}
		if h.process != nil {
			h.process.Process.Signal(syscall.SIGSTOP)
		}
		return "hosts stopped", func() {
			if cut && w.random.IntN(2) == 0 {
				h.link(clustertest.Whole)
			}
			if h.process != nil {
				h.process.Process.Signal(syscall.SIGCONT)
			}
			h.link(clustertest.Whole)
		}
	})
}

// crash kills a host; another process follows, now and then with an empty disk.
func (w *world) crash() string {
	return w.during(6*time.Second, func(h *host) (string, func()) {
		h.kill()
		if w.random.IntN(5) == 0 && time.Since(w.emptied) > apart {
			w.wiped = time.Now()
			h.wipe()
			return "hosts wiped", h.start
		}
		return "hosts killed", h.start
	})
}

// upgrade has another process follow at once.
func (w *world) upgrade() string {
	h := w.quiet()
	if h == nil || h.process == nil {
		return ""
	}
	h.end(syscall.SIGTERM)
	h.start()
	return "hosts restarted"
}

// policy applies one: a good one, one that somebody refuses or can't carry in the end, or an earlier one; now and then by
// canaries, and beside another apply.
func (w *world) policy() string {
	text := fmt.Sprint("policy ", w.random.Uint64())
	victim := hostNames[w.random.IntN(len(hostNames))]
	what, rollback, canary := "applies", false, []string(nil)
	switch w.random.IntN(6) {
	case 0:
		text, what = text+refuses(victim), "applies that a host refuses"
	case 1:
		text, what = text+fails(victim), "applies that a host fails at"
	case 2:
		rollback, what = true, "rollbacks"
	}
	if w.random.IntN(3) == 0 {
		canary, what = []string{hostNames[w.random.IntN(len(hostNames))]}, what+" by a canary"
	}
	wait, most := 300*time.Millisecond+w.within(2*time.Second), 1+w.random.IntN(len(hostNames))
	w.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if rollback {
			w.rollBack(ctx, canary, wait, most)
		} else {
			w.apply(ctx, text, canary, wait, most)
		}
	})
	return what
}

// move moves a network interface to another host that wants it: every other time between hosts to which nothing happens when it
// is asked for, since few moves with one that is cut off or stopped get far.
func (w *world) move() string {
	var wants []cluster.MoveOptions
	calm, some := map[string]bool{}, w.random.IntN(2) == 0
	for _, h := range w.hosts {
		if calm[h.options.Name] = some || h.heal == nil; !calm[h.options.Name] {
			continue
		}
		for _, nic := range h.wanted {
			wants = append(wants, cluster.MoveOptions{NIC: nic, To: h.options.Name, By: "check", WithoutFlows: w.random.IntN(4) == 0, Wait: time.Second + w.within(8*time.Second), Now: time.Now})
		}
	}
	w.random.Shuffle(len(wants), func(i, j int) { wants[i], wants[j] = wants[j], wants[i] })
	w.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for i := range wants {
			outcome := w.moveOne(ctx, calm, &wants[i])
			if outcome == "" {
				continue
			}
			w.mu.Lock()
			w.moves[outcome]++
			w.mu.Unlock()
			return
		}
	})
	return "moves asked for"
}

// moveOne asks for a move between some hosts and says what has become of it; empty: there can't be one now.
func (w *world) moveOne(ctx context.Context, calm map[string]bool, o *cluster.MoveOptions) string {
	v, err := w.store.View(ctx)
	if err != nil {
		return "not begun"
	}
	c, claimed := v.Claims[o.NIC]
	from, to := v.Hosts[c.Host], v.Hosts[o.To]
	if !claimed || !calm[c.Host] || from == to || from == nil || to == nil || from.Generation != to.Generation || v.Moves[o.NIC] != nil {
		return ""
	}
	_, err = w.store.Move(ctx, o)
	w.journal.add(event{Kind: happened, Text: fmt.Sprintf("a move of %s to %s: %v", o.NIC, o.To, err)})
	failed, known := errors.AsType[*cluster.MoveError](err)
	switch {
	case err == nil:
		return "moved"
	case known:
		return kindOf(failed)
	}
	return "etcd did not answer"
}

// particulars are what differs between failures of one kind.
var particulars = []struct {
	are  *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`"?\bhost[0-9]+\b"?`), "HOST"},
	{regexp.MustCompile(`\bnic[0-9]+\b`), "NIC"},
	{regexp.MustCompile(`[0-9][0-9.:]*[a-zµ]*`), "N"},
}

// kindOf is why a move has failed, without names and numbers.
func kindOf(e *cluster.MoveError) string {
	text := e.Error()
	for _, p := range particulars {
		text = p.are.ReplaceAllString(text, p.name)
	}
	return text
}

// member has a member of etcd die or stand still for a while. The others go on.
func (w *world) member() string {
	if w.memberHeal != nil {
		return ""
	}
	m := w.etcd.Members[w.random.IntN(members)]
	if w.random.IntN(2) == 0 {
		if leader := w.etcd.Leader(); leader != nil {
			m = leader
		}
	}
	w.memberUntil = time.Now().Add(w.within(6 * time.Second))
	if w.random.IntN(2) == 0 {
		m.Kill()
		w.memberHeal = m.Start
		return "members of etcd killed"
	}
	m.Stop()
	w.memberHeal = m.Continue
	return "members of etcd stopped"
}

// outage has all of etcd die, or stand still.
func (w *world) outage() string {
	if w.memberHeal != nil {
		return ""
	}
	w.memberUntil = time.Now().Add(w.within(5 * time.Second))
	if w.random.IntN(2) == 0 {
		w.etcd.Kill()
		w.memberHeal = func() {
			for _, m := range w.etcd.Members {
				m.Start()
			}
		}
		return "all of etcd killed"
	}
	for _, m := range w.etcd.Members {
		m.Stop()
	}
	w.memberHeal = func() {
		for _, m := range w.etcd.Members {
			m.Continue()
		}
	}
	return "all of etcd stopped"
}

func (w *world) compact() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r, err := w.client.Get(ctx, "x")
	if err == nil {
		_, err = w.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		return ""
	}
	return "compactions"
}

// empty has etcd lose all that it held.
func (w *world) empty() string {
	if w.memberHeal != nil || time.Since(w.wiped) < apart {
		return ""
	}
	w.emptied = time.Now()
	w.etcd.Kill()
	w.journal.add(event{Kind: forgot})
	w.etcd.Forget()
	return "etcd emptied"
}

// heals ends what has lasted long enough; all: everything.
func (w *world) heals(all bool) {
	for _, h := range w.hosts {
		if h.heal != nil && (all || time.Now().After(h.until)) {
			h.heal()
			h.heal = nil
			w.journal.add(event{Kind: happened, Host: h.options.Name, Text: "healed"})
		}
	}
	if w.memberHeal != nil && (all || time.Now().After(w.memberUntil)) {
		w.memberHeal()
		w.memberHeal = nil
		w.journal.add(event{Kind: happened, Text: "etcd healed"})
	}
}

// rages has things happen for a time, and then everything be whole.
func (w *world) rages(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(w.within(pace)) {
		w.heals(false)
		w.act()
	}
	w.heals(true)
}

// rests waits until everything is as it should be.
func (w *world) rests() {
	w.t.Helper()
	w.etcd.Await()
	err := fmt.Errorf("nothing was applied")
	var generation uint64
	for end := time.Now().Add(healing); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if generation == 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			a, failed := w.apply(ctx, fmt.Sprint("rest ", w.random.Uint64()), nil, 10*time.Second, 0)
			cancel()
			if err = failed; err != nil {
				continue
			}
			generation = a.Generation
		}
		if err = w.settled(generation); err == nil {
			return
		}
		if errors.Is(err, errBehind) { // the first apply after etcd was emptied was before any host came
			generation = 0
		}
	}
	w.t.Errorf("not at rest within %v: %v\n%s", healing, err, w.logs())
}

func TestAStorm(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	w := newWorld(t, seed)
	w.rests()
	for left := *timeFlag; left > 0 && !t.Failed(); left -= storm {
		w.rages(min(left, storm))
		w.rests()
		w.judge(fmt.Sprintf("seed %d, %v left", seed, left))
	}
	if t.Failed() {
		t.Logf("again: go test ./test/clustercheck -run 'TestAStorm$' -clustercheck.seed=%d -clustercheck.time=%v", seed, *timeFlag)
	}
}

// The one case that every run has: whoever holds network interfaces stands still for longer than its lease, and another
// host that wants them gets them meanwhile.
func TestAHostThatStoodStillCarriesNothing(t *testing.T) {
	w := newWorld(t, 1)
	for _, h := range w.hosts[1:] {
		h.want(nil)
	}
	holder, other := w.hosts[0], w.hosts[1]
	holder.want([]string{"nic0"})
	w.rests()
	other.want([]string{"nic0"})
	holder.process.Process.Signal(syscall.SIGSTOP)
	w.carries("nic0", other)
	holder.process.Process.Signal(syscall.SIGCONT)
	w.rests()
	w.carries("nic0", other)
	w.judge("a host stood still")
}

// carries waits until a host may carry a network interface.
func (w *world) carries(nic string, h *host) {
	w.t.Helper()
	for end := time.Now().Add(healing); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		events := readJournal(w.t, h.options.Journal)
		if holders(events, continuity.SinceBoot())[nic] == h.options.Name {
			return
		}
	}
	w.t.Fatalf("host %s never carries %s\n%s", h.options.Name, nic, w.logs())
}

// judge holds the history until now to what must never be.
func (w *world) judge(when string) {
	w.t.Helper()
	f := check(w.history(), continuity.SinceBoot())
	for _, fault := range f.faults {
		w.t.Error(fault)
	}
	if len(f.faults) > 0 {
		w.keep()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%s: %d events; %d times a host had a network interface, %d went to another host, the nearest after %v; %d times a policy was carried", when, f.events, f.spans, f.handovers, f.nearest, f.carried)
	w.t.Logf("what happened: %s", counted(w.counts))
	w.t.Logf("applies: %s", counted(w.outcomes))
	w.t.Logf("moves: %s", counted(w.moves))
}

// keep has journals and logs stay, for whoever looks for the cause.
func (w *world) keep() {
	if w.kept {
		return
	}
	w.kept = true
	to, err := os.MkdirTemp("", "clustercheck-")
	if err != nil {
		w.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "*.*"))
	for _, file := range files {
		text, failed := os.ReadFile(file)
		err = errors.Join(err, failed, os.WriteFile(filepath.Join(to, filepath.Base(file)), text, 0o600))
	}
	w.t.Logf("journals and logs are in %s: %v", to, err)
}

func counted(counts map[string]int) string {
	var list []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s %d", what, counts[what]))
	}
	return strings.Join(list, ", ")
}
