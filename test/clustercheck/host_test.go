package clustercheck

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/continuity"
)

// hostEnv has this program be a host: a process with the real agent, whose daemon writes down what it would carry.
const hostEnv = "NSGD_CLUSTERCHECK_HOST"

// hostOptions are what a host is.
type hostOptions struct {
	Name      string
	Endpoints []string
	Underlay  netip.Addr
	Cache     string
	Journal   string
	// Listen is where it waits for network interfaces from other hosts, and Dial leads to where others do, by underlay.
	Listen string
	Dial   map[string]string
	// Drift is how much faster its clock runs, in millionths, and Ahead by how much it is ahead.
	Drift int64
	Ahead time.Duration
}

func TestMain(m *testing.M) {
	if text := os.Getenv(hostEnv); text != "" {
		if err := runHost(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// daemon is a cluster.Daemon that carries nothing, and says when it would.
type daemon struct {
	*hostOptions
	journal *journal

	mu   sync.Mutex
	nics []string // that it is to have; guarded by mu
}

// now is the host's clock, and machine this machine's at a moment of it.
func (o *hostOptions) now() time.Duration {
	t := continuity.SinceBoot()
	return t + t/1_000_000*time.Duration(o.Drift) + o.Ahead
}

func (o *hostOptions) machine(t time.Duration) time.Duration {
	switch {
	case t == cluster.Forever:
		return t
	case t <= o.Ahead:
		return 0
	}
	return time.Duration(float64(t-o.Ahead) / (1 + float64(o.Drift)/1e6))
}

// runHost is a host until it is told to end.
func runHost(text string) error {
	d := &daemon{hostOptions: &hostOptions{}}
	if err := json.Unmarshal([]byte(text), d.hostOptions); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	if d.journal, err = openJournal(d.Journal, d.Name); err != nil {
		return err
	}
	cache, err := generation.OpenCache(d.Cache, nil)
	if err != nil {
		return err
	}
	defer cache.Close()
	if err := cache.Lock(); err != nil {
		return err
	}
	d.journal.add(event{Kind: started})
	store, err := cluster.Open(cluster.StoreOptions{Endpoints: d.Endpoints, Prefix: cluster.DefaultPrefix})
	if err != nil {
		return err
	}
	defer store.Close()
	commands := bufio.NewScanner(os.Stdin)
	if !commands.Scan() { // what it is to have
		return nil
	}
	d.wants(commands.Text())
	o := cluster.AgentOptions{
		Store: store, Cache: cache, Host: d.Name, Underlay: d.Underlay, Port: 4790, Version: "check", Lease: cluster.MinLease,
		Boot: "boot", Clock: d.now, Fence: d.fence, Daemon: d, Listen: d.listen, Dial: d.dial, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if o.Start, err = cache.Current(); err != nil {
		return err
	}
	if o.Start != nil { // as nsgd does
		if o.Attached, _, err = cluster.LastNICs(cache, d.Name, o.Boot, d.now(), false); err != nil {
			return err
		}
		if err := d.Carry(o.Start, o.Attached); err != nil {
			return err
		}
	}
	agent, err := cluster.NewAgent(o)
	if err != nil {
		return err
	}
	go func() {
		for commands.Scan() {
			d.wants(commands.Text())
			agent.Wake()
		}
		stop() // whoever has started it is gone
	}()
	return agent.Run(ctx)
}

func (d *daemon) wants(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nics = strings.Fields(text)
}

func (d *daemon) fence(until time.Duration) {
	d.journal.add(event{Kind: fencing, Until: d.machine(until)})
	d.journal.add(event{Kind: fenced, Until: d.machine(until)})
}

// refuses is in the text of a policy that a host can't try, and fails in one that it can try and not carry.
func refuses(host string) string { return "<can't:" + host + ">" }
func fails(host string) string   { return "<fails:" + host + ">" }

func (d *daemon) text(g *generation.Unpacked) (string, error) {
	text, err := os.ReadFile(filepath.Join(g.Folder, "policy/a.json"))
	return string(text), err
}

// Try implements cluster.Daemon.
func (d *daemon) Try(g *generation.Unpacked) error {
	text, err := d.text(g)
	if err == nil && strings.Contains(text, refuses(d.Name)) {
		err = fmt.Errorf("%s can't", d.Name)
	}
	return err
}

// Carry implements cluster.Daemon.
func (d *daemon) Carry(g *generation.Unpacked, nics []string) error {
	text, err := d.text(g)
	if err != nil {
		return err
	}
	e := event{Kind: carrying, Generation: g.Number, Text: text, NICs: slices.Clone(nics)}
	d.journal.add(e)
	if strings.Contains(text, fails(d.Name)) {
		e.Kind = refused
		d.journal.add(e)
		return fmt.Errorf("%s fails", d.Name)
	}
	e.Kind = carried
	d.journal.add(e)
	return nil
}

// NICs implements cluster.Daemon.
func (d *daemon) NICs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.nics)
}

func (d *daemon) listen(ctx context.Context) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", d.Listen)
}

func (d *daemon) dial(ctx context.Context, address string) (net.Conn, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	var c net.Dialer
	return c.DialContext(ctx, "tcp", d.Dial[at.Addr().String()])
}

// Depart implements cluster.Daemon.
func (d *daemon) Depart(g *generation.Unpacked, nics []string, nic string, hand func(cluster.Departing) error) error {
	text, err := d.text(g)
	if err != nil {
		return err
	}
	err = hand(&handed{d, nics})
	e := event{Kind: carried, Generation: g.Number, Text: text, NICs: slices.Clone(nics)}
	if err != nil {
		e.NICs = append(e.NICs, nic)
	}
	d.journal.add(e)
	return err
}

// Arrive implements cluster.Daemon.
func (d *daemon) Arrive(g *generation.Unpacked, nics []string, _, _ string, take func(cluster.Arriving) error) (cluster.Arrived, error) {
	if err := take(&handed{d, nics}); err != nil {
		return cluster.Arrived{}, err
	}
	return cluster.Arrived{}, d.Carry(g, nics)
}

// handed is a network interface that goes or comes. nics are those that stay meanwhile.
type handed struct {
	*daemon
	nics []string
}

// flowsOfOne stand for the flows of a network interface.
const flowsOfOne = "flows"

// Freeze implements cluster.Departing.
func (h *handed) Freeze() { h.journal.add(event{Kind: frozen, NICs: slices.Clone(h.nics)}) }

// Write implements cluster.Departing. Many flows take their time.
func (h *handed) Write(w io.Writer) (int, error) {
	time.Sleep(rand.N(300 * time.Millisecond))
	return io.WriteString(w, flowsOfOne)
}

// Read implements cluster.Arriving. Now and then it does not understand them.
func (h *handed) Read(r io.Reader) error {
	text := make([]byte, len(flowsOfOne))
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	if rand.IntN(8) == 0 || string(text) != flowsOfOne {
		return fmt.Errorf("%q is not understood", text)
	}
	return nil
}
