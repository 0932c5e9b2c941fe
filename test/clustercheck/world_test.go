package clustercheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/clustertest"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/continuity"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	members  = 3
	nicCount = 10
	// healing bounds how long a cluster may take until everything is as it should be.
	healing = 5 * time.Minute
)

var hostNames = []string{"host1", "host2", "host3", "host4"}

// world is an etcd and hosts, each behind links of its own.
type world struct {
	t       testing.TB
	dir     string
	random  *rand.Rand // of the goroutine that acts
	etcd    *clustertest.Etcd
	client  *clientv3.Client
	store   *cluster.Store
	journal *journal // of what is not a host's
	hosts   []*host
	counts  map[string]int
	kept    bool // journals stay
	// wiped and emptied are when a host and etcd have last lost all.
	wiped, emptied time.Time

	// memberHeal ends what happens to members of etcd, after memberUntil; nil: nothing does.
	memberHeal  func()
	memberUntil time.Time

	background sync.WaitGroup // applies, moves, and the watch of the head

	mu       sync.Mutex
	outcomes map[string]int             // of applies; guarded by mu
	moves    map[string]int             // by outcome; guarded by mu
	texts    map[generation.Hash]string // that were applied, by bundle; guarded by mu
}

// host is a process, the links between it and etcd and from other hosts to it, and what it is to have. It belongs to the goroutine that acts.
type host struct {
	w       *world
	options hostOptions
	links   []*clustertest.Link
	wanted  []string
	process *exec.Cmd // nil: there is none
	stdin   io.WriteCloser
	log     *os.File
	// until ends what happens to it, by the acting goroutine's clock; nothing else happens to it meanwhile.
	until time.Time
	heal  func()
}

func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), random: rand.New(rand.NewPCG(seed, 0)), etcd: clustertest.New(t, members), counts: map[string]int{}, outcomes: map[string]int{}, moves: map[string]int{}, texts: map[generation.Hash]string{}}
	w.client = w.etcd.Dial(w.etcd.Endpoints()...)
	t.Cleanup(func() { w.client.Close() })
	var err error
	if w.store, err = cluster.Open(cluster.StoreOptions{Endpoints: w.etcd.Endpoints(), Prefix: cluster.DefaultPrefix}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.journal, err = openJournal(filepath.Join(w.dir, "world.journal"), ""); err != nil {
		t.Fatal(err)
	}
	dial := map[string]string{}
	for i, name := range hostNames {
		h := &host{w: w, options: hostOptions{Name: name, Underlay: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
			Cache: filepath.Join(w.dir, name), Journal: filepath.Join(w.dir, name+".journal"),
			Drift: w.random.Int64N(40_001) - 20_000, Ahead: time.Duration(w.random.Int64N(int64(48 * time.Hour)))}}
		for _, m := range w.etcd.Members {
			l := clustertest.NewLink(t, m.Client)
			h.links, h.options.Endpoints = append(h.links, l), append(h.options.Endpoints, l.Client)
		}
		comes := clustertest.FreeURL(t)
		l := clustertest.NewLink(t, comes)
		h.links, h.options.Listen, h.options.Dial = append(h.links, l), strings.TrimPrefix(comes, "http://"), dial
		dial[h.options.Underlay.String()] = strings.TrimPrefix(l.Client, "http://")
		h.log, err = os.Create(filepath.Join(w.dir, name+".log"))
		if err = errors.Join(err, os.WriteFile(h.options.Journal, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.hosts = append(w.hosts, h)
		t.Cleanup(h.kill)
	}
	for _, h := range w.hosts {
		h.want(w.someNICs())
		h.start()
	}
	watching, stop := context.WithCancel(context.Background())
	w.background.Go(func() { w.watchHead(watching) })
	t.Cleanup(func() { stop(); w.background.Wait() })
	return w
}

func (w *world) someNICs() (nics []string) {
	for n := range nicCount {
		if w.random.IntN(2) == 0 {
			nics = append(nics, fmt.Sprint("nic", n))
		}
	}
	return nics
}

func (h *host) start() {
	if h.process != nil {
		return
	}
	text, err := json.Marshal(&h.options)
	if err != nil {
		h.w.t.Fatal(err)
	}
	p := exec.Command("/proc/self/exe")
	p.Env, p.Stderr = append(os.Environ(), hostEnv+"="+string(text)), h.log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if h.stdin, err = p.StdinPipe(); err == nil {
		err = p.Start()
	}
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.process = p
	h.want(h.wanted)
}

// end has the process end by a signal. Then it carries nothing, for certain.
func (h *host) end(s syscall.Signal) {
	if h.process == nil {
		return
	}
	h.process.Process.Signal(s)
	h.process.Process.Signal(syscall.SIGCONT)
	h.process.Wait()
	h.w.journal.add(event{Kind: ended, Host: h.options.Name, PID: h.process.Process.Pid})
	h.process = nil
}

func (h *host) kill() { h.end(syscall.SIGKILL) }

// wipe has the host begin anew, as on a new disk.
func (h *host) wipe() {
	if err := os.RemoveAll(h.options.Cache); err != nil {
		h.w.t.Fatal(err)
	}
	h.w.journal.add(event{Kind: wiped, Host: h.options.Name})
}

func (h *host) want(nics []string) {
	h.wanted = nics
	if h.process != nil {
		io.WriteString(h.stdin, strings.Join(nics, " ")+"\n") // a process that ends doesn't read it
	}
}

func (h *host) link(s clustertest.State) {
	for _, l := range h.links {
		l.Set(s)
	}
}

// watchHead takes down each head that etcd has had.
func (w *world) watchHead(ctx context.Context) {
	key := cluster.DefaultPrefix + "/head"
	var from int64
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		r, err := w.client.Get(asking, key)
		cancel()
		if err != nil {
			continue
		}
		if from == 0 || r.Header.Revision < from-1 { // the first time, or it was emptied
			from = 1
		}
		watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
		for r := range w.client.Watch(watching, key, clientv3.WithRev(from), clientv3.WithProgressNotify()) {
			if r.Err() != nil {
				from = max(from, r.CompactRevision)
				break
			}
			for _, e := range r.Events {
				var head cluster.Head
				if e.Type == clientv3.EventTypeDelete || json.Unmarshal(e.Kv.Value, &head) != nil {
					continue
				}
				w.journal.add(event{Kind: headed, Generation: head.Current, Text: w.textOf(head.Bundle)})
			}
			from = r.Header.Revision + 1
		}
		stop()
	}
}

// textOf is the text of an applied bundle.
func (w *world) textOf(bundle generation.Hash) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.texts[bundle]
}

// apply applies a text and takes down what became of it. So many hosts may be missing.
func (w *world) apply(ctx context.Context, text string, canary []string, wait time.Duration, missing int) (*cluster.Applied, error) {
	b := generation.Bundle{Settings: generation.Settings{Policy: []string{"policy"}}, Files: map[string][]byte{"policy/a.json": []byte(text)}}
	packed, err := b.Pack()
	if err != nil {
		return nil, err
	}
	return w.applyWith(ctx, &cluster.ApplyOptions{Packed: packed, Canary: canary, MaxUnavailable: missing, Wait: wait}, text)
}

// rollBack applies an earlier generation again.
func (w *world) rollBack(ctx context.Context, canary []string, wait time.Duration, missing int) {
	history, err := w.store.History(ctx)
	if err != nil || len(history) < 2 || history[1].Fault != nil {
		return
	}
	text := w.textOf(history[1].Bundle)
	w.applyWith(ctx, &cluster.ApplyOptions{RollbackTo: history[1].Number, Canary: canary, MaxUnavailable: missing, Wait: wait}, text)
}

func (w *world) applyWith(ctx context.Context, o *cluster.ApplyOptions, text string) (*cluster.Applied, error) {
	o.Who, o.Version, o.Now, o.Kept = "check", "check", time.Now, 5
	if o.Packed != nil {
		w.mu.Lock()
		w.texts[generation.HashOf(o.Packed.Compressed)] = text
		w.mu.Unlock()
	}
	var number uint64
	o.Progress = func(line string) {
		if number == 0 {
			if _, err := fmt.Sscanf(line, "generation %d: ", &number); err == nil {
				w.journal.add(event{Kind: applying, Generation: number, Text: text, Canary: o.Canary})
			}
		}
	}
	a, err := w.store.Apply(ctx, o)
	e := event{Generation: number, Text: text}
	_, no := errors.AsType[*cluster.RefusedError](err)
	outcome := "not begun"
	switch {
	case number == 0:
		if err == nil {
			outcome = "unchanged"
		}
	case err == nil:
		e.Kind, outcome = applied, "applied"
	case no:
		e.Kind, outcome = rejected, "refused"
	default:
		e.Kind, outcome = unknown, "not known"
	}
	if e.Kind != "" {
		w.journal.add(e)
	}
	w.mu.Lock()
	w.outcomes[outcome]++
	w.mu.Unlock()
	return a, err
}

// history is what everybody has taken down.
func (w *world) history() (all []event) {
	all = readJournal(w.t, filepath.Join(w.dir, "world.journal"))
	for _, h := range w.hosts {
		all = append(all, readJournal(w.t, h.options.Journal)...)
	}
	return all
}

// holders are the hosts that carry now, by network interface.
func holders(events []event, now time.Duration) map[string]string {
	at := map[string]string{}
	for nic, list := range spansOf(events, now) {
		for _, s := range list {
			if s.end == now {
				at[nic] = s.host
			}
		}
	}
	return at
}

// logs are the ends of what the hosts have said. keep then has all of it, and where they stood.
func (w *world) logs() string {
	var b strings.Builder
	for _, h := range w.hosts {
		text, err := os.ReadFile(h.log.Name())
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "host %s, %v:\n%s\n", h.options.Name, h.wanted, text[max(0, len(text)-4000):])
		h.end(syscall.SIGQUIT)
	}
	w.keep()
	return b.String()
}

// errBehind says that hosts know of a generation beyond the head, or another one of its number, and stay with it until a
// later one.
var errBehind = errors.New("it stays until there is a later one than generation")

// settled says why the cluster is not as it should be; nil: it is.
func (w *world) settled(generation uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	v, err := w.store.View(ctx)
	if err != nil {
		return err
	}
	if v.Head == nil || v.Head.Current != generation || v.Offer != nil {
		return fmt.Errorf("head %+v and offer %+v, want generation %d", v.Head, v.Offer, generation)
	}
	events := w.history()
	slices.SortStableFunc(events, func(a, b event) int { return int(a.T - b.T) })
	now := holders(events, continuity.SinceBoot())
	wanted := map[string][]string{}
	for _, h := range w.hosts {
		record := v.Hosts[h.options.Name]
		if record != nil && (record.Committed > generation || record.Committed == generation && record.Bundle != v.Head.Bundle) {
			return fmt.Errorf("host %s: %+v: %w %d", h.options.Name, record, errBehind, generation)
		}
		if record == nil || record.Generation != generation || len(record.Faults) > 0 {
			return fmt.Errorf("host %s: %+v", h.options.Name, record)
		}
		for _, nic := range h.wanted {
			wanted[nic] = append(wanted[nic], h.options.Name)
		}
	}
	for nic, by := range wanted {
		c := v.Claims[nic]
		if !slices.Contains(by, c.Host) || v.Hosts[c.Host].Epoch != c.Epoch || now[nic] != c.Host {
			return fmt.Errorf("%s: claimed by %+v, carried by %q, wanted by %v", nic, c, now[nic], by)
		}
	}
	for nic, c := range v.Claims {
		if len(wanted[nic]) == 0 {
			return fmt.Errorf("%s: claimed by %+v, and nobody wants it", nic, c)
		}
	}
	return nil
}
