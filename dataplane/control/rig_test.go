package control_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// rig is a running engine on memory devices with the lab's policy, and a server and a
// client for it.
type rig struct {
	t       *testing.T
	policy  string // folder
	engine  *dataplane.Engine
	service *inspect.Service
	history *history.History
	devices []*tuntest.Memory
	broken  [5]atomic.Bool // devices that refuse addresses
	gone    [5]atomic.Bool // devices that somebody removed
	socket  string
	client  *control.Client
	server  *control.Server
	elapsed atomic.Int64                         // what the service's clock has moved on by
	cluster atomic.Pointer[inspect.ClusterHosts] // nil: there is none
	late    []func()                             // what the service wants to be called later; its lock guards them
}

var specs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "vm1-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm2-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm3-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm4-nic"},
	{Kind: topology.Internet},
}

const internet = 4 // index of its attachment

func labPolicy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lab")
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "policy")
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := newStoppedRig(t)
	r.serve()
	return r
}

// newRememberingRig is newRig with a history.
func newRememberingRig(t *testing.T) *rig {
	t.Helper()
	r := makeRig(t, true)
	r.serve()
	return r
}

// newStoppedRig is newRig before anything runs.
func newStoppedRig(t *testing.T) *rig {
	t.Helper()
	return makeRig(t, false)
}

func makeRig(t *testing.T, remembers bool) *rig {
	t.Helper()
	r := &rig{t: t, policy: labPolicy(t), socket: filepath.Join(t.TempDir(), "nsgd.sock")}
	set, err := inspect.NewPolicyFiles("", r.policy).Load()
	if err != nil {
		t.Fatal(err)
	}
	r.engine, err = dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1, Flows: conntrack.Options{Max: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	places := make([]inspect.Place, len(specs))
	var devices []tun.Device
	for i := range specs {
		d, err := tuntest.NewMemory("eth0", 1, 256)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		r.devices, devices = append(r.devices, d), append(devices, breakable{d, &r.broken[i], &r.gone[i]})
		places[i] = inspect.Place{Device: "eth0", Namespace: "ns" + string(rune('1'+i))}
	}
	places[internet].Addresses = []netip.Prefix{netip.MustParsePrefix("203.0.113.10/24")}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time {
		return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(r.elapsed.Load()))
	}
	if remembers {
		if r.history, err = history.New(history.Options{Engine: r.engine, Now: now}); err != nil {
			t.Fatal(err)
		}
	}
	r.service = inspect.NewService(inspect.Options{
		Engine: r.engine, Policy: inspect.NewPolicyFiles("", r.policy), Places: places, Version: "test", Offload: "off", Control: r.socket,
		Now: now, History: r.history, Hosts: func() (*inspect.ClusterHosts, error) {
			if known := r.cluster.Load(); known != nil {
				return known, nil
			}
			return nil, inspect.ErrNoCluster
		},
		AfterFunc: func(_ time.Duration, f func()) func() bool {
			r.late = append(r.late, f)
			return func() bool { return true } // too late, say: f is called nevertheless
		},
	})
	return r
}

// breakable refuses new addresses once broken, but takes old ones back.
type breakable struct {
	tun.Device
	broken *atomic.Bool
	gone   *atomic.Bool
}

func (b breakable) Stats() (tun.Stats, bool) {
	s, ok := b.Device.Stats()
	return s, ok && !b.gone.Load()
}

func (b breakable) SetAddresses(list []netip.Prefix) error {
	if b.broken.Swap(false) {
		return errors.New("broken")
	}
	return b.Device.SetAddresses(list)
}

// serve runs the engine and the server until the test ends.
func (r *rig) serve() {
	listener, err := control.Listen(r.socket, control.Access{})
	if err != nil {
		r.t.Fatal(err)
	}
	server := control.NewServer(r.service)
	r.server = server
	r.client = control.NewClient(r.socket)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- r.engine.Run(ctx) }()
	go func() {
		if r.history == nil {
			done <- nil
			return
		}
		done <- r.history.Run(ctx)
	}()
	go func() { done <- server.Serve(listener) }()
	r.t.Cleanup(func() {
		r.client.Close()
		cancel()
		server.Shutdown(context.Background())
		for range 3 {
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		}
	})
}

// send lets a packet come from an attachment and waits until it was carried or dropped.
func (r *rig) send(from int, p []byte) {
	r.t.Helper()
	counted := func() uint64 { return r.engine.AttachmentCounts()[from].ReceivePackets }
	before := counted()
	if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		r.t.Fatal("memory device is full")
	}
	r.eventually("the packet is counted", func() bool { return counted() > before })
}

func (r *rig) eventually(what string, condition func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("%s: never", what)
		}
	}
}

// replaceIn changes a document of the policy.
func (r *rig) replaceIn(document, old, replacement string) {
	r.t.Helper()
	file := filepath.Join(r.policy, document)
	text, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		r.t.Fatalf("%s does not contain %q", document, old)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func syn(src, dst string, port uint16) []byte {
	return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: 40000, DstPort: port, Flags: "S"})
}

func udp(src, dst string, port uint16) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 40000, DstPort: port})
}
