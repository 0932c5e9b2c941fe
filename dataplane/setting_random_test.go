package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// movingNICs is how many network interfaces come and go beside two that stay, 0 and 1.
const movingNICs = 8

func movingAddress(nic int) string { return fmt.Sprintf("10.0.1.%d", 10+nic) }

func movingName(nic int) string { return fmt.Sprintf("nic%d", nic) }

// manyNICs is a subnet of network interfaces without rules of their own.
func manyNICs(n int) *policy.Set {
	v := &policy.VirtualNetwork{Name: "vnet1", ID: "/vnet/vnet1", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	sub := &policy.Subnet{Name: "Subnet1", ID: "/vnet/vnet1/Subnet1", VirtualNetwork: v, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
	v.Subnets = []*policy.Subnet{sub}
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{v}}
	for i := range n {
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: movingName(i), ID: "/nic/" + movingName(i),
			IPConfigurations: []policy.IPConfiguration{{Name: "ipconfig1", Address: netip.MustParseAddr(movingAddress(i)), Subnet: sub, Primary: true}}})
	}
	return set
}

// comings is an engine whose attachments come and go, and the plain model of who is there.
type comings struct {
	t        *testing.T
	engine   *Engine
	set      *policy.Set
	attached map[int]*tuntest.Memory // by NIC
	order    []int                   // of the NICs, as they were wanted last
	flows    map[[2]int]bool         // between NICs that both have stayed since
	sent     uint32
}

func newComings(t *testing.T, room int) *comings {
	c := &comings{t: t, set: manyNICs(2 + movingNICs), attached: map[int]*tuntest.Memory{}, order: []int{0, 1}, flows: map[[2]int]bool{}}
	var err error
	c.engine, err = New(c.set, Options{Attachments: c.specs(), Room: room, Workers: 2, Flows: conntrack.Options{Max: 4096, Timeouts: conntrack.Timeouts{UDPOneWay: time.Hour}},
		Fragments: fragment.Options{Lifetime: 1}})
	if err != nil {
		t.Fatal(err)
	}
	c.attached[0], c.attached[1] = newMemory(t, 2, 256), newMemory(t, 2, 256)
	if err := c.engine.Attach([]tun.Device{c.attached[0], c.attached[1]}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *comings) specs() (list []topology.Spec) {
	for _, nic := range c.order {
		list = append(list, topology.Spec{Kind: topology.NetworkInterface, Reference: movingName(nic)})
	}
	return list
}

// rearrange makes the engine what order and attached say.
func (c *comings) rearrange() *Arrangement {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		a, err := c.engine.Arrange(&Wanted{Policy: c.set, Attachments: c.specs()})
		if err != nil {
			if time.Now().After(deadline) { // no slot is free yet
				c.t.Fatal(err)
			}
			continue
		}
		var devices []tun.Device
		for _, nic := range c.order {
			devices = append(devices, c.attached[nic])
		}
		if err := c.engine.Rearrange(a, func(*topology.Snapshot) ([]tun.Device, error) { return devices, nil }, nil); err != nil {
			c.t.Fatal(err)
		}
		return a
	}
}

// probe sends a packet between two NICs, if the first is attached, and notes where it must come out.
func (c *comings) probe(from, to int) {
	d := c.attached[from]
	if d == nil || from == to {
		return
	}
	c.sent++
	b := numbered(from, to)
	binary.BigEndian.PutUint32(b[len(b)-4:], c.sent)
	before := c.worked()
	if !d.Inject(int(c.sent%2), b) {
		c.t.Fatal("memory device is full")
	}
	for deadline := time.Now().Add(time.Minute); c.worked() == before; runtime.Gosched() {
		if time.Now().After(deadline) {
			c.t.Fatalf("nobody reads from the device of NIC %d", from)
		}
	}
	if got := numbers(c.attached[to]); c.attached[to] != nil && !slices.Equal(got, []uint32{c.sent}) || c.attached[to] == nil && got != nil {
		c.t.Fatalf("packet %d from NIC %d to %d, attached %v: came %v", c.sent, from, to, c.attached[to] != nil, got)
	}
	if c.attached[to] != nil {
		c.flows[[2]int{from, to}] = true
	}
}

// worked counts the packets of the NICs that come and go.
func (c *comings) worked() (n uint64) {
	s, counts := c.engine.Snapshot(), c.engine.AttachmentCounts()
	for slot, a := range s.Attachments {
		if a.Kind != topology.Vacant && a.Name != movingName(0) && a.Name != movingName(1) {
			n += counts[slot].ReceivePackets
		}
	}
	return n
}

func numbers(d *tuntest.Memory) (list []uint32) {
	if d == nil {
		return nil
	}
	for _, frame := range d.Collect() {
		list = append(list, binary.BigEndian.Uint32(frame[len(frame)-4:]))
	}
	return list
}

// step changes what is attached at random.
func (c *comings) step(random *rand.Rand) {
	nic := 2 + random.IntN(movingNICs)
	other := 2 + random.IntN(movingNICs)
	switch d := c.attached[nic]; {
	case d == nil:
		c.attached[nic] = newMemory(c.t, 2, 64)
		c.order = slices.Insert(c.order, random.IntN(len(c.order)+1), nic)
	case random.IntN(4) == 0: // another device
		c.attached[nic] = newMemory(c.t, 2, 64)
	case random.IntN(4) == 0 && c.attached[other] != nil: // they change places
		c.attached[nic], c.attached[other] = c.attached[other], d
	case random.IntN(4) == 0 && c.attached[other] == nil: // its device is another's from now on
		c.leave(nic)
		c.attached[other] = d
		c.order = append(c.order, other)
	default:
		c.leave(nic)
	}
	for of, d := range c.attached { // what came and went is not asked for again
		if of > 1 {
			d.Drain(0, nil)
			d.Drain(1, nil)
		}
	}
}

func (c *comings) leave(nic int) {
	delete(c.attached, nic)
	c.order = slices.DeleteFunc(c.order, func(other int) bool { return other == nic })
	for ends := range c.flows {
		if ends[0] == nic || ends[1] == nic {
			delete(c.flows, ends)
		}
	}
}

// checkFlows compares the flows of those that come and go.
func (c *comings) checkFlows() {
	c.t.Helper()
	got := map[[2]int]bool{}
	s := c.engine.Snapshot()
	c.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		from, _ := c.engine.Room().Attachment(f.Key.Zone)
		to, _ := c.engine.Room().Attachment(f.ReplyKey.Zone)
		var ends [2]int
		fmt.Sscanf(s.Attachments[from].Name, "nic%d", &ends[0])
		fmt.Sscanf(s.Attachments[to].Name, "nic%d", &ends[1])
		if movingAddress(ends[0]) != f.Key.Src.Netip().String() || movingAddress(ends[1]) != f.Key.Dst.Netip().String() {
			c.t.Fatalf("flow %v to %v between the slots of NICs %v", f.Key.Src.Netip(), f.Key.Dst.Netip(), ends)
		}
		if ends != [2]int{0, 1} {
			got[ends] = true
		}
		return true
	})
	if fmt.Sprint(got) != fmt.Sprint(c.flows) {
		c.t.Fatalf("flows between %v, want %v", got, c.flows)
	}
}

// stream sends packets from NIC 0 to 1, a few under way at a time, until stop. It returns how many were sent and came.
func (c *comings) stream(from, to *tuntest.Memory, stop *atomic.Bool) (sent, came int) {
	const underWay = 32
	b := numbered(0, 1)
	var deadline time.Time // for those under way
	for ; ; runtime.Gosched() {
		for sent-came < underWay && !stop.Load() {
			if !from.Inject(sent%2, b) {
				c.t.Error("the stream's device is full")
				return sent, came
			}
			sent++
		}
		came += to.Drain(0, nil) + to.Drain(1, nil)
		if sent == came && stop.Load() {
			return sent, came
		}
		if stop.Load() && time.Now().After(deadline) {
			return sent, came
		}
		if !stop.Load() {
			deadline = time.Now().Add(time.Minute)
		}
	}
}

func TestAttachmentsComeAndGoUnderTraffic(t *testing.T) {
	steps := 150
	if testing.Short() {
		steps = 50
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	c := newComings(t, 2+movingNICs+4) // so that slots are used again
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.engine.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var stop atomic.Bool
	var sent, came int
	streams := make(chan struct{})
	from, to := c.attached[0], c.attached[1]
	go func() {
		defer close(streams)
		sent, came = c.stream(from, to, &stop)
	}()
	for range steps {
		c.step(random)
		if a := c.rearrange(); len(a.Snapshot.Attachments) > 2+movingNICs+4 {
			t.Fatalf("%d slots", len(a.Snapshot.Attachments))
		}
		for range 4 {
			c.probe(2+random.IntN(movingNICs), 2+random.IntN(movingNICs))
		}
		c.checkFlows()
	}
	stop.Store(true)
	<-streams
	cancel()
	running.Wait()
	if sent != came || sent == 0 {
		t.Errorf("of %d packets between the two that stay %d came", sent, came)
	}
	t.Logf("%d packets beside %d changes", sent, steps)
}
