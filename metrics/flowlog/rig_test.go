package flowlog

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// The attachments of the rig, by index.
const (
	vmA = iota // NSG at its subnet and at its NIC
	vmB        // no NSG
	internet
)

const (
	addrA = "10.0.1.4"
	addrB = "10.0.2.4"
	world = "203.0.113.10"

	shop   = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/shop/providers/Microsoft.Network/"
	macA   = "000D3AF87856"
	guidOK = "0a1b2c3d-0000-4000-8000-00000000000f"
)

func rules(allow, deny string) []ruleset.Rule {
	one := func(name string, priority int, d ruleset.Direction, a ruleset.Access, p ruleset.Protocol, port uint16) ruleset.Rule {
		return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: a, Protocol: p,
			Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: port, Last: port}}}
	}
	return []ruleset.Rule{
		one(allow, 100, ruleset.Inbound, ruleset.Allow, ruleset.TCP, 80), one("dns", 110, ruleset.Inbound, ruleset.Allow, ruleset.UDP, 53),
		one(deny, 120, ruleset.Outbound, ruleset.Deny, ruleset.UDP, 666),
	}
}

// policy is a network with two subnets; allow and deny are the names of rules of NIC A's NSG.
func testPolicy(allow, deny string) *policy.Set {
	subnetNSG := &ruleset.NSG{Name: "subnet-nsg", ID: shop + "networkSecurityGroups/subnet-nsg", Rules: rules("web", "no-evil")}
	nicNSG := &ruleset.NSG{Name: "nic-nsg", ID: shop + "networkSecurityGroups/nic-nsg", ResourceGUID: guidOK, Rules: rules(allow, deny)[:2]}
	vnet := &policy.VirtualNetwork{Name: "net", ID: shop + "virtualNetworks/net", Location: "North Europe",
		AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	front := &policy.Subnet{Name: "front", ID: vnet.ID + "/subnets/front", VirtualNetwork: vnet, NetworkSecurityGroup: subnetNSG,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
	back := &policy.Subnet{Name: "back", ID: vnet.ID + "/subnets/back", VirtualNetwork: vnet, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}}
	vnet.Subnets = []*policy.Subnet{front, back}
	nic := func(name, address, mac string, s *policy.Subnet, g *ruleset.NSG) *policy.NetworkInterface {
		return &policy.NetworkInterface{Name: name, ID: shop + "networkInterfaces/" + name, NetworkSecurityGroup: g, MACAddress: mac,
			IPConfigurations: []policy.IPConfiguration{{Name: "ip", Address: netip.MustParseAddr(address), Subnet: s, Primary: true}}}
	}
	return &policy.Set{NetworkSecurityGroups: []*ruleset.NSG{subnetNSG, nicNSG}, VirtualNetworks: []*policy.VirtualNetwork{vnet},
		NetworkInterfaces: []*policy.NetworkInterface{nic("a", addrA, "00-0d-3a-f8-78-56", front, nicNSG), nic("b", addrB, "", back, nil)}}
}

// rig is an engine on memory devices with a Recorder. The test moves the clock and drives the
// Recorder.
type rig struct {
	t        testing.TB
	engine   *dataplane.Engine
	recorder *Recorder
	devices  []*tuntest.Memory
	clock    atomic.Int64 // time.Duration
	start    time.Time
	received uint64
	queued   [3][][]byte // by attachment, see flush
	stopped  func()
	rand     *rand.Rand
}

func newRig(t testing.TB, start time.Time, logs ...Log) *rig {
	return newRigWith(t, start, Options{Logs: logs})
}

func newRigWith(t testing.TB, start time.Time, o Options) *rig {
	t.Helper()
	return newRigOf(t, start, o, 4096)
}

// newRigOf is newRigWith for a flow table of that many flows.
func newRigOf(t testing.TB, start time.Time, o Options, maxFlows int) *rig {
	t.Helper()
	r := &rig{t: t, start: start, rand: rand.New(rand.NewPCG(1, 2))}
	flows := conntrack.Options{Max: maxFlows, Timeouts: conntrack.Timeouts{UDPOneWay: 3 * time.Minute}}
	var kept *continuity.Store
	var err error
	if o.Slabs != nil {
		if kept, err = continuity.Open(o.Slabs, time.Now()); err != nil {
			t.Fatal(err)
		}
		flows.NotesPerFlow = NotesPerFlow
		r.clock.Store(clockOf(t, o.Slabs).Load())
	}
	r.engine, err = dataplane.New(testPolicy("web", "no-evil"), dataplane.Options{
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "a"}, {Kind: topology.NetworkInterface, Reference: "b"}, {Kind: topology.Internet}},
		Workers:     1, Flows: flows, Clock: r.now, Continuity: kept,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.received = r.carried()
	var devices []tun.Device
	for range 3 {
		d, err := tuntest.NewMemory("eth0", 1, 256, tuntest.WithSlotLen(2048))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		r.devices, devices = append(r.devices, d), append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	o.Engine, o.Now = r.engine, func() time.Time { return r.start.Add(r.now()) }
	if r.recorder, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	r.stopped = func() {
		r.stopped = func() {}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { r.stopped() })
	return r
}

func (r *rig) now() time.Duration { return time.Duration(r.clock.Load()) }

func (r *rig) wait(d time.Duration) { r.clock.Add(int64(d)) }

// send lets the engine carry packets from an attachment.
func (r *rig) send(from int, packets ...[]byte) {
	if r == nil {
		return
	}
	r.t.Helper()
	for _, p := range packets {
		if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
			r.t.Fatal("memory device is full")
		}
		r.received++
	}
	eventually(r.t, "the engine has carried what was sent", func() bool { return r.carried() == r.received })
	for _, d := range r.devices {
		d.Drain(0, nil)
	}
}

// carried counts what the engine has received, in earlier processes too.
func (r *rig) carried() (packets uint64) {
	for _, a := range r.engine.AttachmentCounts() {
		packets += a.ReceivePackets
	}
	return packets
}

// flush sends the queued packets, one attachment after the other. A nil rig sends nothing.
func (r *rig) flush() {
	if r == nil {
		return
	}
	r.t.Helper()
	for from, packets := range r.queued {
		for len(packets) > 0 {
			n := min(len(packets), 100)
			r.send(from, packets[:n]...)
			packets = packets[n:]
		}
		r.queued[from] = r.queued[from][:0]
	}
}

// reload puts another policy in place.
func (r *rig) reload(p *policy.Set) {
	r.t.Helper()
	s, err := r.engine.Prepare(p)
	if err == nil {
		err = r.engine.Swap(s, nil)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// minute does the work of an interval.
func (r *rig) minute() {
	r.engine.Flows().Expire(r.engine.Now(), 1<<20)
	r.recorder.drain()
	r.recorder.takeDenied()
	r.recorder.walk(false, func() {})
}

// end stops the engine and the recorder.
func (r *rig) end() {
	r.t.Helper()
	r.stopped()
	if err := r.recorder.Close(); err != nil {
		r.t.Error(err)
	}
}

// leave stops the engine and leaves all to the next rig of these slabs.
func (r *rig) leave() {
	r.t.Helper()
	r.stopped()
	if err := r.recorder.Leave(); err != nil {
		r.t.Error(err)
	}
}

// eventually polls a condition until it holds or a generous deadline has passed.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("not: " + what)
		}
	}
}
