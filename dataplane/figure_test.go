package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// The attachments of the figure, by index.
const (
	vm1 = iota
	vm2
	vm3
	vm4
	internet
	numAttachments
)

const (
	addr1 = "10.0.1.4"
	addr2 = "10.0.1.5"
	addr3 = "10.0.2.4"
	addr4 = "10.0.3.4"
	world = "203.0.113.10"
)

var figureSpecs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "vm1-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm2-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm3-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm4-nic"},
	{Kind: topology.Internet},
}

// allowHTTP is the rule of the figure.
func allowHTTP() ruleset.Rule {
	return ruleset.Rule{Name: "AllowHttpInBound", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow,
		Protocol: ruleset.TCP, Source: ruleset.Peer{Tag: ruleset.TagInternet}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}}}
}

// anyRule is a rule for everything.
func anyRule(name string, priority int, d ruleset.Direction, a ruleset.Access) ruleset.Rule {
	return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: a,
		Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
}

// figure is the seed's figure with the given rules in NSG1 and NSG2.
func figure(rules1, rules2 []ruleset.Rule) *arm.Set {
	nsg1 := &ruleset.NSG{Name: "NSG1", ID: "/nsg/NSG1", Rules: rules1}
	nsg2 := &ruleset.NSG{Name: "NSG2", ID: "/nsg/NSG2", Rules: rules2}
	vnet := &arm.VirtualNetwork{Name: "vnet1", ID: "/vnet/vnet1", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	subnet := func(name, prefix string, g *ruleset.NSG) *arm.Subnet {
		s := &arm.Subnet{Name: name, ID: vnet.ID + "/" + name, VirtualNetwork: vnet, NetworkSecurityGroup: g,
			Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
		vnet.Subnets = append(vnet.Subnets, s)
		return s
	}
	s1 := subnet("Subnet1", "10.0.1.0/24", nsg1)
	s2 := subnet("Subnet2", "10.0.2.0/24", nil)
	s3 := subnet("Subnet3", "10.0.3.0/24", nil)
	nic := func(name, addr string, s *arm.Subnet, g *ruleset.NSG) *arm.NetworkInterface {
		return &arm.NetworkInterface{Name: name, ID: "/nic/" + name, NetworkSecurityGroup: g,
			IPConfigurations: []arm.IPConfiguration{{Name: "ipconfig1", Address: netip.MustParseAddr(addr), Subnet: s, Primary: true}}}
	}
	return &arm.Set{
		NetworkSecurityGroups: []*ruleset.NSG{nsg1, nsg2},
		VirtualNetworks:       []*arm.VirtualNetwork{vnet},
		NetworkInterfaces: []*arm.NetworkInterface{
			nic("vm1-nic", addr1, s1, nsg2), nic("vm2-nic", addr2, s1, nil),
			nic("vm3-nic", addr3, s2, nsg2), nic("vm4-nic", addr4, s3, nil),
		},
	}
}

func figureOfTheSeed() *arm.Set {
	return figure([]ruleset.Rule{allowHTTP()}, []ruleset.Rule{allowHTTP()})
}

// rig is an engine on memory devices with a clock that the test moves.
type rig struct {
	t        testing.TB
	engine   *Engine
	devices  []*tuntest.Memory
	clock    time.Duration
	rewrites bool // the policy translates: send does not hold the bytes
}

func newRig(t testing.TB, policy *arm.Set, flows conntrack.Options) *rig {
	t.Helper()
	return newRigWith(t, policy, Options{Flows: flows})
}

func newRigWith(t testing.TB, policy *arm.Set, o Options) *rig {
	t.Helper()
	r := &rig{t: t, clock: time.Hour}
	o.Flows.Seed = [2]uint64{1, 2}
	if o.Attachments == nil {
		o.Attachments = figureSpecs
	}
	o.Workers, o.Clock = max(o.Workers, 1), func() time.Duration { return r.clock }
	var err error
	r.engine, err = New(policy, o)
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	for range o.Attachments {
		d := newMemory(t, o.Workers, 256)
		r.devices = append(r.devices, d)
		devices = append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	return r
}

// send carries one packet from an attachment and returns where it came out, or
// -1 and why it did not.
func (r *rig) send(from int, p []byte) (to int, drop string) {
	r.t.Helper()
	before := r.engine.Drops()
	if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		r.t.Fatal("memory device is full")
	}
	if err := r.engine.workers[0].burst(from); err != nil {
		r.t.Fatal(err)
	}
	to = -1
	for i, d := range r.devices {
		d.Drain(0, func(frame []byte) {
			if to >= 0 {
				r.t.Errorf("came out at %d and %d", to, i)
			}
			if string(frame[tun.HeaderLen:]) != string(p) && !r.rewrites {
				r.t.Error("the packet's bytes were changed")
			}
			to = i
		})
	}
	for reason, n := range r.engine.Drops() {
		if n > before[reason] {
			if drop != "" || to >= 0 {
				r.t.Fatalf("carried or dropped twice: to %d, %s", to, drop)
			}
			drop = dropName(reason)
		}
	}
	if to < 0 && drop == "" {
		r.t.Fatal("neither carried nor dropped under a reason")
	}
	return to, drop
}

// count is a rule's counters.
func (r *rig) count(nsg string, d ruleset.Direction, rule string) RuleCount {
	return countOf(r.engine, nsg, d, rule)
}

func countOf(e *Engine, nsg string, d ruleset.Direction, rule string) RuleCount {
	keys := e.Registry().Keys()
	for i, c := range e.RuleCounts(len(keys)) {
		if k := keys[i]; k.NetworkSecurityGroup == nsg && k.Direction == d && k.Rule == rule {
			return c
		}
	}
	return RuleCount{}
}

func newMemory(t testing.TB, queues, capacity int) *tuntest.Memory {
	t.Helper()
	d, err := tuntest.NewMemory("mem", queues, capacity, tuntest.WithSlotLen(8192))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
