package transfer

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// hostOf is a host of the seed's figure that attaches some network interfaces, and everything else behind a fabric.
type hostOf struct {
	*dataplane.Carrier
	t     testing.TB
	name  string
	set   *policy.Set
	specs []topology.Spec
	now   time.Time
}

func newHost(t testing.TB, name string, nics ...string) *hostOf {
	t.Helper()
	return newHostUnder(t, enginetest.FigureOfTheSeed(), name, nics...)
}

// newHostUnder is newHost under a policy that has the seed's figure.
func newHostUnder(t testing.TB, set *policy.Set, name string, nics ...string) *hostOf {
	t.Helper()
	h := &hostOf{t: t, name: name, set: set, now: time.Unix(1_800_000_000, 0)}
	h.specs = []topology.Spec{{Kind: topology.Fabric, Reference: h.set.VirtualNetworks[0].ID}}
	for _, nic := range nics {
		h.specs = append(h.specs, topology.Spec{Kind: topology.NetworkInterface, Reference: nic})
	}
	var err error
	if h.Carrier, err = dataplane.NewCarrier(h.set, dataplane.Options{Attachments: h.specs, Room: 16, Flows: conntrack.Options{Max: 1000}, Topology: topology.Options{Host: name}}); err != nil {
		t.Fatal(err)
	}
	h.Advance(h.now)
	return h
}

// attach attaches other network interfaces.
func (h *hostOf) attach(flows func(*topology.Snapshot), nics ...string) {
	h.t.Helper()
	specs := []topology.Spec{h.specs[0]}
	for _, nic := range nics {
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: nic})
	}
	if _, err := h.Rearrange(&dataplane.Wanted{Policy: h.set, Attachments: specs}, flows); err != nil {
		h.t.Fatal(err)
	}
}

// sends has a packet come in from a network interface; empty: from the fabric.
func (h *hostOf) sends(nic string, frame []byte) *dataplane.Carried {
	h.t.Helper()
	s, slot := h.Engine().Snapshot(), 0
	if nic != "" {
		slot = find(s, nic).Index
	}
	r := &dataplane.Carried{}
	h.Carry(h.now, slot, append(make([]byte, tun.HeaderLen), frame...), r)
	return r
}

func (h *hostOf) flows() int64 { return h.Engine().Flows().Stats().Flows }

func nicOf(set *policy.Set, n int) string { return strings.ToLower(set.NetworkInterfaces[n].ID) }

// sent is what a host sends of a network interface's flows.
func (h *hostOf) sent(nic string) []byte {
	h.t.Helper()
	d, err := Depart(h.Engine(), nic, h.name)
	if err != nil {
		h.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := d.Write(&b, nic); err != nil {
		h.t.Fatal(err)
	}
	return b.Bytes()
}

// web is a connection's SYN, and its answer.
func web(from, to string, port uint16) (syn, answer []byte) {
	spec := packettest.Spec{Src: from, Dst: to, SrcPort: port, DstPort: 80, Flags: "S"}
	back := packettest.Spec{Src: to, Dst: from, SrcPort: 80, DstPort: port, Flags: "SA"}
	return packettest.TCP(spec), packettest.TCP(back)
}

const vm1, vm2 = "10.0.1.4", "10.0.1.5"

// A connection between two machines of a host goes on when one of them leaves: each host has its end.
func TestAFlowBetweenTwoMachinesSplits(t *testing.T) {
	set := newHost(t, "a").set
	one, two := nicOf(set, 0), nicOf(set, 1)
	a, b := newHost(t, "a", one, two), newHost(t, "b", nicOf(set, 2))
	syn, answer := web(vm1, vm2, 1000)
	if r := a.sends(one, syn); r.Drop != packet.NotDropped {
		t.Fatal(r.Drop)
	}
	d, err := Depart(a.Engine(), one, "a")
	if err != nil {
		t.Fatal(err)
	}
	var wire bytes.Buffer
	if n, err := d.Write(&wire, one); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	wire.WriteString("behind")
	moves, err := Read(&wire, one, "a", 10)
	if err != nil || wire.String() != "behind" {
		t.Fatalf("%v, left %q", err, wire.String())
	}
	gone := 0
	a.attach(func(s *topology.Snapshot) { gone = d.Remain(s) }, two)
	var came Arrived
	b.attach(func(s *topology.Snapshot) { came, err = moves.Arrive(b.Engine(), s) }, nicOf(a.set, 2), one)
	if err != nil || gone != 0 || came.Flows != 1 || came.Joined != 0 || len(came.Lost) != 0 || a.flows() != 1 || b.flows() != 1 {
		t.Fatalf("%d gone, %+v, %v; %d here and %d there", gone, came, err, a.flows(), b.flows())
	}
	if r := a.sends(two, answer); r.Drop != packet.NotDropped || r.To != 0 || r.Began {
		t.Errorf("the answer: %+v", r)
	}
	if r := b.sends("", answer); r.Drop != packet.NotDropped || r.To != find(b.Engine().Snapshot(), one).Index || r.Began {
		t.Errorf("the answer there: %+v", r)
	}
	for i := range b.Engine().Flows().Flows {
		for slots := i.Slots; slots.More(); slots = slots.Rest() {
			if k, _ := b.Engine().Registry().At(slots.First(), b.Engine().Snapshot().Generation); k.Direction.String() != "Outbound" {
				t.Errorf("of the sender's end: %+v", k)
			}
		}
	}
}

// balanced has an internal load balancer at an address lead to a network interface.
func balanced(address string, backend int) *policy.Set {
	set := enginetest.FigureOfTheSeed()
	front := &policy.Frontend{Name: "front", ID: "/front", Address: netip.MustParseAddr(address), Subnet: set.VirtualNetworks[0].Subnets[0]}
	nic := set.NetworkInterfaces[backend]
	pool := &policy.BackendPool{Name: "pool", ID: "/pool", Backends: []policy.Backend{{NetworkInterface: nic, VirtualNetwork: set.VirtualNetworks[0], Address: nic.IPConfigurations[0].Address}}}
	set.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{front}, Pools: []*policy.BackendPool{pool},
		Rules: []*policy.LoadBalancingRule{{Name: "r", Frontend: front, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP, FrontendPort: 80, BackendPort: 80, IdleTimeout: time.Minute}}}}
	return set
}

// A translated flow leads to its backend's new attachment before the snapshot decides that has it. Its packets pass meanwhile.
func TestAFlowGoesOnWhileItsBackendArrives(t *testing.T) {
	const front = "10.0.1.100"
	set := balanced(front, 1)
	one, two, three := nicOf(set, 0), nicOf(set, 1), nicOf(set, 2)
	for name, here := range map[string][]string{"in a new slot": {one}, "in the slot of one that has left": {one, three}} {
		t.Run(name, func(t *testing.T) {
			a, b := newHostUnder(t, balanced(front, 1), "a", here...), newHostUnder(t, balanced(front, 1), "b", two)
			a.attach(nil, one)
			a.now = a.now.Add(time.Minute) // a slot is taken again
			a.Advance(a.now)
			b.Advance(a.now)
			b.now = a.now
			syn, _ := web(vm1, front, 1000)
			if r := a.sends(one, syn); r.Drop != packet.NotDropped || r.To != 0 {
				t.Fatal(r.Drop, r.To)
			}
			arrives, answer := web(vm1, vm2, 1000)
			if r := b.sends("", arrives); r.Drop != packet.NotDropped || !r.Began {
				t.Fatal(r.Drop)
			}
			if r := b.sends(two, answer); r.Drop != packet.NotDropped {
				t.Fatal(r.Drop)
			}
			if r := a.sends("", answer); r.Drop != packet.NotDropped {
				t.Fatal(r.Drop)
			}
			moves, err := Read(bytes.NewReader(b.sent(two)), two, "b", 10)
			if err != nil {
				t.Fatal(err)
			}
			more := packettest.TCP(packettest.Spec{Src: vm1, Dst: front, SrcPort: 1000, DstPort: 80, Flags: "A"})
			var meanwhile *dataplane.Carried
			var came Arrived
			a.attach(func(s *topology.Snapshot) {
				if came, err = moves.Arrive(a.Engine(), s); err != nil {
					return
				}
				meanwhile = a.sends(one, more)
				if meanwhile.InFlow && a.Info(meanwhile.Flow).Generation != 0 { // an NSG with flushConnection may have changed
					t.Error("it counts as judged by the snapshot before")
				}
			}, one, two)
			if err != nil || came.Joined != 1 {
				t.Fatalf("%+v, %v", came, err)
			}
			to := find(a.Engine().Snapshot(), two).Index
			for i, r := range []*dataplane.Carried{meanwhile, a.sends(one, more)} {
				if r.Drop != packet.NotDropped || r.To != to || r.Began {
					t.Errorf("packet %d: %s, to %d, want %d; began a flow: %v", i+1, r.Drop, r.To, to, r.Began)
				}
			}
		})
	}
}

// What another host says of a flow does not speak for an end of this one.
func TestATransferDoesNotSpeakForAnotherEnd(t *testing.T) {
	a := newHost(t, "a")
	one, two := nicOf(a.set, 0), nicOf(a.set, 1)
	a = newHost(t, "a", one, two)
	syn, answer := web(vm1, vm2, 1000)
	a.sends(one, syn)
	moves, err := Read(bytes.NewReader(a.sent(one)), one, "a", 10)
	if err != nil {
		t.Fatal(err)
	}
	b := newHost(t, "b", two) // which has never heard of the connection
	b.attach(func(s *topology.Snapshot) { moves.Arrive(b.Engine(), s) }, two, one)
	if r := b.sends(two, answer); r.Drop == packet.NotDropped {
		t.Errorf("an answer to what was never sent here passes: %+v", r)
	}
}

func partOf(kind byte, text string) []byte {
	var b bytes.Buffer
	writePart(&b, kind, []byte(text))
	return b.Bytes()
}

func TestATransferIsReadAsAWhole(t *testing.T) {
	a := newHost(t, "a")
	one := nicOf(a.set, 0)
	a = newHost(t, "a", one, nicOf(a.set, 1))
	for port := range uint16(5) {
		syn, _ := web(vm1, vm2, 1000+port)
		a.sends(one, syn)
	}
	whole := a.sent(one)
	for name, tt := range map[string]struct {
		text      []byte
		nic, host string
		most      int
		want      string
	}{
		"all is well":             {whole, one, "a", 5, ""},
		"cut":                     {whole[:len(whole)-1], one, "a", 5, "it ends early"},
		"more than may come":      {whole, one, "a", 4, "allowed are 1 to 4 flows"},
		"of another one":          {whole, "other", "a", 5, `wanted is "other"`},
		"from another host":       {whole, one, "c", 5, `from "c"`},
		"a part of another kind":  {[]byte("X\x00\x00\x00\x00"), one, "a", 5, "part 'X'"},
		"a part that is too long": {[]byte("I\xff\xff\xff\xff"), one, "a", 5, "of 4294967295 bytes"},
		"a head of more zones than an engine has": {partOf(partHead, `{"zones":[`+strings.Repeat("{},", maxList)+`{}]}`), one, "a", 5, "more than 65536"},
		"a head of more rules than flows have":    {partOf(partHead, `{"rules":[`+strings.Repeat("{},", maxList)+`{}]}`), one, "a", 5, "more than 65536"},
		"no rules":                                {partOf(partHead, `{"rules":7}`), one, "a", 5, "transfer: head: 7: an array is needed"},
		"no flows in an image":                    {append([]byte("I\x00\x00\x00\x04"), "none"...), one, "a", 5, "has no head"},
	} {
		_, err := Read(bytes.NewReader(tt.text), tt.nic, tt.host, tt.most)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// Whoever sends a transfer can't break the engine, and brings flows of that network interface alone.
func FuzzTransfer(f *testing.F) {
	a := newHost(f, "a")
	one, two, three := nicOf(a.set, 0), nicOf(a.set, 1), nicOf(a.set, 2)
	a = newHost(f, "a", one, two)
	for port := range uint16(3) {
		syn, answer := web(vm1, vm2, 1000+port)
		a.sends(one, syn)
		a.sends(two, answer)
		syn, _ = web(vm2, vm1, 2000+port)
		a.sends(two, syn)
	}
	whole := a.sent(one)
	at := bytes.LastIndex(whole, []byte(`{"networkInterface"`))
	f.Add(whole[at:], uint64(0), uint8(0))
	f.Add(whole[at:], uint64(1), uint8(20))
	var h Head
	if err := json.Unmarshal(whole[at:], &h); err != nil {
		f.Fatal(err)
	}
	for _, kind := range []Kind{Own, Far, Near, Internet, Elsewhere, Left, "none"} {
		other := h
		other.Zones = nil
		for i, z := range h.Zones {
			if z.Kind != Own || i%2 == 1 {
				z.Kind, z.Host = kind, "b"
			}
			other.Zones = append(other.Zones, z)
		}
		text, _ := json.Marshal(&other)
		f.Add(text, uint64(2), uint8(0))
	}
	f.Fuzz(func(t *testing.T, head []byte, seed uint64, damage uint8) {
		text := bytes.Clone(whole[:at-5])
		random := rand.New(rand.NewPCG(seed, 1))
		for range damage {
			text[5+random.IntN(len(text)-5)] = byte(random.Uint32())
		}
		var wire bytes.Buffer
		wire.Write(text)
		writePart(&wire, partHead, head)
		moves, err := Read(&wire, one, "a", 100)
		if err != nil {
			return
		}
		b := newHost(t, "b", two, three)
		var came Arrived
		b.attach(func(s *topology.Snapshot) { came, err = moves.Arrive(b.Engine(), s) }, two, three, one)
		if err != nil {
			return
		}
		slot := uint16(find(b.Engine().Snapshot(), one).Index)
		n := 0
		for i := range b.Engine().Flows().Flows {
			if n++; i.Key.Zone != slot && i.ReplyKey.Zone != slot {
				t.Errorf("a flow of somebody else: %+v", i)
			}
		}
		if n > came.Flows {
			t.Errorf("%d flows, said are %+v", n, came)
		}
		syn, _ := web(vm1, vm2, 9999)
		if r := b.sends(one, syn); r.Drop != packet.NotDropped {
			t.Errorf("a new connection: %s", r.Drop)
		}
	})
}
