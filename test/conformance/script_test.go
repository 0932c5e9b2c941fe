package conformance

import (
	"bytes"
	"cmp"
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

func TestTheEngineCarriesEveryScript(t *testing.T) {
	eachCase(t, func(c *Case) bool { return len(c.Script) > 0 || c.Wire }, func(t *testing.T, c *Case) {
		r := newRig(t, c)
		for _, s := range c.Steps(r.at) {
			r.step(&s)
		}
	})
}

// rig is a running engine with a memory device for each NIC, the internet and the platform. Only
// scripts move its clock.
type rig struct {
	t       *testing.T
	c       *Case
	policy  string // file
	files   *inspect.PolicyFiles
	set     *policy.Set
	engine  *dataplane.Engine
	places  []string
	devices []*tuntest.Memory
	clock   atomic.Int64
}

func newRig(t *testing.T, c *Case) *rig {
	t.Helper()
	policy, tags := onDisk(t, &c.Policy)
	r := &rig{t: t, c: c, policy: policy, files: inspect.NewPolicyFiles(tags, policy)}
	r.clock.Store(int64(time.Hour))
	set := r.load()
	r.set = set
	var specs []topology.Spec
	for _, n := range set.NetworkInterfaces {
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: n.ID})
		r.places = append(r.places, n.Name)
	}
	specs = append(specs, topology.Spec{Kind: topology.Internet}, topology.Spec{Kind: topology.Platform})
	r.places = append(r.places, "internet", "platform")
	var err error
	r.engine, err = dataplane.New(set, dataplane.Options{
		Attachments: specs, Workers: 1, Clock: func() time.Duration { return time.Duration(r.clock.Load()) },
		Flows: conntrack.Options{Max: cmp.Or(c.Daemon.MaxFlows, 1024), MaxPerZone: c.Daemon.MaxFlowsPerInterface, TCPStrict: c.Daemon.TCPStrict},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.run()
	return r
}

func (r *rig) load() *policy.Set {
	r.t.Helper()
	set, err := r.files.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	return set
}

// at is the place of an address.
func (r *rig) at(a netip.Addr) string {
	for _, n := range r.set.NetworkInterfaces {
		for i := range n.IPConfigurations {
			if n.IPConfigurations[i].Address == a {
				return n.Name
			}
		}
	}
	if slices.Contains(topology.PlatformAddresses, a) {
		return "platform"
	}
	return "internet"
}

// run lets the engine carry packets until the test ends.
func (r *rig) run() {
	var devices []tun.Device
	for _, name := range r.places {
		d, err := tuntest.NewMemory(name, 1, 16)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { d.Close() })
		r.devices, devices = append(r.devices, d), append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

func (r *rig) step(s *Step) {
	r.t.Helper()
	switch {
	case s.Packet != nil:
		if to, drop := r.send(s.Packet); to != s.Packet.To || drop != s.Packet.Drop {
			r.t.Errorf("%s\ncame out at %q, dropped under %q", s.Text, to, drop)
		}
	case s.Flows != nil:
		n := 0
		r.engine.Flows().Expire(r.engine.Now(), 0) // what timed out is no longer counted
		r.engine.Flows().Flows(func(*conntrack.FlowInfo) bool { n++; return true })
		if n != *s.Flows {
			r.t.Errorf("%d flows, want %d", n, *s.Flows)
		}
	case s.Reload != nil:
		r.reload(s.Reload)
	default:
		r.clock.Add(int64(s.Wait))
	}
}

// reload changes the policy like an operator: a new file, and the engine's own swap.
func (r *rig) reload(p *Policy) {
	r.t.Helper()
	after := *p
	if after.Base == "" {
		after.Base = r.c.Policy.Base
	}
	document, err := after.JSON()
	if err != nil {
		r.t.Fatal(err)
	}
	write(r.t, r.policy, document)
	s, err := r.engine.Prepare(r.load())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.engine.Swap(s, nil); err != nil {
		r.t.Fatal(err)
	}
}

// send carries a packet and returns where it came out, or why it was dropped.
func (r *rig) send(p *Packet) (to, drop string) {
	r.t.Helper()
	carried := r.engine.AttachmentCounts()
	dropped := r.engine.Drops()
	if !r.device(p.From).Inject(0, append(make([]byte, tun.HeaderLen), p.Bytes...)) {
		r.t.Fatal("memory device is full")
	}
	r.eventually("the packet is carried or dropped", func() bool {
		for i, c := range r.engine.AttachmentCounts() {
			if c.TransmitPackets > carried[i].TransmitPackets {
				to = r.places[i]
			}
		}
		for reason, n := range r.engine.Drops() {
			if n > dropped[reason] {
				drop = packet.Drop(reason).String()
			}
		}
		return to != "" || drop != ""
	})
	if to != "" {
		r.eventually("the packet is in the device", func() bool {
			found := false
			r.device(to).Drain(0, func(frame []byte) {
				found = true
				if !bytes.Equal(frame[tun.HeaderLen:], p.Bytes) {
					r.t.Errorf("came out of %s as %x, went in as %x", to, frame[tun.HeaderLen:], p.Bytes)
				}
			})
			return found
		})
	}
	return to, drop
}

func (r *rig) device(place string) *tuntest.Memory {
	r.t.Helper()
	for i, name := range r.places {
		if name == place {
			return r.devices[i]
		}
	}
	r.t.Fatalf("the policy has no %s; it has %v", place, r.places)
	return nil
}

func (r *rig) eventually(what string, condition func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: never (%s)", what, filepath.Base(r.policy))
		}
		<-tick.C
	}
}
