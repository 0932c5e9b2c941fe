package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// crowded is the figure with translation, and network interfaces that a reload changes: of subnet Crowd, whose attachment
// has those without one of their own, and of subnet Detour, which sends through the first of Crowd.
type crowded struct {
	addresses  []netip.Addr // of Crowd's; not valid: there is none
	forwards   []bool
	stateless  []bool
	public     int // who has a public address; -1: nobody
	guarded    []bool
	appliance  int // Detour's next hop
	timeout    time.Duration
	access     ruleset.Access
	attached   []bool
	attachedBy bool // the subnet has an attachment
}

const crowdSize = 8

func newCrowded() *crowded {
	w := &crowded{forwards: make([]bool, crowdSize), stateless: make([]bool, crowdSize), guarded: make([]bool, crowdSize), attached: make([]bool, crowdSize),
		public: -1, access: ruleset.Allow, attachedBy: true}
	for i := range crowdSize {
		w.addresses = append(w.addresses, netip.AddrFrom4([4]byte{10, 0, 9, byte(10 + i)}))
		w.attached[i] = i < crowdSize/2
	}
	w.forwards[0] = true
	return w
}

func crowdName(i int) string { return fmt.Sprintf("crowdSize%d", i) }

func (w *crowded) policy() *policy.Set {
	set := translatedFigure()
	v := set.VirtualNetworks[0]
	v.FlowTimeout = w.timeout
	set.NetworkSecurityGroups[0].Rules[0].Access = w.access
	appliance := netip.AddrFrom4([4]byte{10, 0, 9, byte(10 + w.appliance)})
	table := &policy.RouteTable{Name: "detour", ID: "/table/detour", Routes: []policy.Route{
		{Name: "crowd", Prefix: netip.MustParsePrefix("10.0.1.0/24"), Hop: policy.HopVirtualAppliance, Appliance: appliance}}}
	set.RouteTables = append(set.RouteTables, table)
	for i, name := range []string{"Crowd", "Detour"} {
		sub := &policy.Subnet{Name: name, ID: v.ID + "/" + name, VirtualNetwork: v, NetworkSecurityGroup: set.NetworkSecurityGroups[1],
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(9 + i), 0}), 24)}}
		v.Subnets = append(v.Subnets, sub)
	}
	crowdNet, detour := v.Subnets[len(v.Subnets)-2], v.Subnets[len(v.Subnets)-1]
	detour.RouteTable = table
	for i, a := range w.addresses {
		if !a.IsValid() {
			continue
		}
		nic := &policy.NetworkInterface{Name: crowdName(i), ID: "/nic/" + crowdName(i), EnableIPForwarding: w.forwards[i], DisableTCPStateTracking: w.stateless[i],
			IPConfigurations: []policy.IPConfiguration{{Name: "ip", Address: a, Subnet: crowdNet, Primary: true}}}
		if w.guarded[i] {
			nic.NetworkSecurityGroup = set.NetworkSecurityGroups[0]
		}
		if w.public == i {
			ip := &policy.PublicIPAddress{Name: "ip77", ID: "/ip/77", SKU: policy.SKUStandard, Address: netip.MustParseAddr("20.0.0.77"), IdleTimeout: 7 * time.Minute}
			set.PublicIPAddresses = append(set.PublicIPAddresses, ip)
			nic.IPConfigurations[0].PublicIPAddress = ip
		}
		set.NetworkInterfaces = append(set.NetworkInterfaces, nic)
	}
	set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: "detour", ID: "/nic/detour",
		IPConfigurations: []policy.IPConfiguration{{Name: "ip", Address: netip.MustParseAddr("10.0.10.10"), Subnet: detour, Primary: true}}})
	return set
}

func (w *crowded) specs() []topology.Spec {
	list := append(slices.Clone(figureSpecs), topology.Spec{Kind: topology.NetworkInterface, Reference: "detour"})
	if w.attachedBy {
		list = append(list, topology.Spec{Kind: topology.Subnet, Reference: "vnet1/Crowd"})
	}
	for i, is := range w.attached {
		if is && w.addresses[i].IsValid() {
			list = append(list, topology.Spec{Kind: topology.NetworkInterface, Reference: crowdName(i)})
		}
	}
	return list
}

// change changes something at random, most often of one network interface.
func (w *crowded) change(random *rand.Rand) {
	i, j := random.IntN(crowdSize), random.IntN(crowdSize)
	free := netip.AddrFrom4([4]byte{10, 0, 9, byte(10 + random.IntN(2*crowdSize))})
	switch random.IntN(16) {
	case 0, 1:
		w.addresses[i], w.addresses[j] = w.addresses[j], w.addresses[i]
	case 2, 3:
		if !slices.Contains(w.addresses, free) {
			w.addresses[i] = free
		}
	case 4, 5:
		w.addresses[i] = netip.Addr{}
	case 6, 7, 8:
		w.attached[i] = !w.attached[i]
	case 9:
		w.forwards[i] = !w.forwards[i]
	case 10:
		w.stateless[i] = !w.stateless[i]
	case 11:
		w.guarded[i] = !w.guarded[i]
	case 12:
		w.public = []int{-1, i}[random.IntN(2)]
	case 13:
		w.appliance = random.IntN(2 * crowdSize)
	case 14:
		w.timeout = time.Duration(random.IntN(3)*10) * time.Minute
	case 15:
		if random.IntN(4) == 0 {
			w.attachedBy = !w.attachedBy
		}
		w.access = ruleset.Access(random.IntN(2))
	}
}

// followed are the live flows, and how long each lasts.
func followed(e *Engine, lasts func(*conntrack.FlowInfo) (time.Duration, bool)) map[conntrack.Key]time.Duration {
	all := map[conntrack.Key]time.Duration{}
	e.flows.Flows(func(f *conntrack.FlowInfo) bool {
		if d, stays := lasts(f); stays {
			all[f.Key] = d
		}
		return true
	})
	return all
}

// After each reload those flows live, and last as long, that would if each had been looked at.
func TestAReloadLooksAtEachFlowThatCanHaveChanged(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 7))
	worlds, steps := 6, 60
	if testing.Short() {
		worlds = 2
	}
	var narrow, ended, ofAll int
	for range worlds {
		w := newCrowded()
		r := newRigWith(t, w.policy(), Options{Attachments: w.specs(), Room: 40, Flows: conntrack.Options{Max: 1 << 14}})
		r.rewrites = true
		devices := map[string]*tuntest.Memory{}
		for slot, a := range r.engine.Snapshot().Attachments {
			devices[a.Identity()] = r.devices[slot]
		}
		for range steps {
			w.converse(r, devices, random)
			w.change(random)
			a, err := r.engine.Arrange(&Wanted{Policy: w.policy(), Attachments: w.specs()})
			if err != nil {
				t.Fatal(err)
			}
			old := r.engine.Snapshot()
			var want map[conntrack.Key]time.Duration
			if err := r.engine.Rearrange(a, func(s *topology.Snapshot) (list []tun.Device, _ error) {
				want = followed(r.engine, func(f *conntrack.FlowInfo) (time.Duration, bool) {
					if !r.engine.room.Stays(old, s, f) {
						return 0, false
					}
					if f.Class.Cut() { // it lasts as long as it would have
						return f.Established, true
					}
					return r.engine.flows.Established(r.engine.room.Established(s, f, 0)), true
				})
				for _, at := range a.Attachments(s) {
					if devices[at.Identity()] == nil {
						devices[at.Identity()] = newMemory(t, 1, 256)
					}
					list = append(list, devices[at.Identity()])
				}
				return list, nil
			}, nil); err != nil {
				t.Fatal(err)
			}
			before := r.engine.Flows().Stats()
			got := followed(r.engine, func(f *conntrack.FlowInfo) (time.Duration, bool) { return f.Established, true })
			for k, lasts := range want {
				if got[k] != lasts {
					t.Errorf("a flow from %v in zone %d to %v lasts %v after a reload, want %v", k.Src.Netip(), k.Zone, k.Dst.Netip(), got[k], lasts)
				}
			}
			if len(got) != len(want) || t.Failed() {
				t.Fatalf("%+v: %d flows after a reload, want %d", w, len(got), len(want))
			}
			ofAll += len(want)
			if d := r.engine.Snapshot().Differs(old); !d.Everything && !d.None() {
				narrow++
				ended += int(before.Ended[conntrack.EndFlushed])
			}
			r.clock += time.Hour // slots are free again
			for _, w := range r.engine.workers {
				w.flows.Quiesce()
			}
			r.engine.flows.Mark()
			r.clock -= time.Hour
		}
	}
	t.Logf("%d of %d reloads looked at some flows alone; %d flows were followed", narrow, worlds*steps, ofAll)
	if narrow < worlds*steps/8 || ended == 0 || ofAll < worlds*steps*20 {
		t.Errorf("%d reloads looked at some flows alone, %d flows ended, %d were followed: too few", narrow, ended, ofAll)
	}
}

// converse has everybody send to everybody else.
func (w *crowded) converse(r *rig, devices map[string]*tuntest.Memory, random *rand.Rand) {
	type host struct {
		address string
		at      string
	}
	s := r.engine.Snapshot()
	var hosts []host
	for _, a := range s.Attachments {
		switch {
		case a.Kind == topology.NetworkInterface:
			hosts = append(hosts, host{a.Addresses[0].Addr().String(), a.Identity()})
		case a.Kind == topology.Subnet:
			for i := range 2 * crowdSize {
				hosts = append(hosts, host{fmt.Sprintf("10.0.9.%d", 10+i), a.Identity()})
			}
		case a.Kind == topology.Internet:
			hosts = append(hosts, host{world, a.Identity()}, host{"11.1.1.1", a.Identity()})
		}
	}
	for range 40 {
		from, to := hosts[random.IntN(len(hosts))], hosts[random.IntN(len(hosts))].address
		if random.IntN(4) == 0 {
			to = []string{public1, public2, balanced, "20.0.0.77"}[random.IntN(4)]
		}
		slot := slices.IndexFunc(s.Attachments, func(a *topology.Attachment) bool { return a.Identity() == from.at && a.Kind != topology.Vacant })
		if to == from.address || !devices[from.at].Inject(0, framed(packettest.UDP(packettest.Spec{Src: from.address, Dst: to,
			SrcPort: uint16(1000 + random.IntN(4)), DstPort: []uint16{53, 80}[random.IntN(2)]}))) {
			continue
		}
		if err := r.engine.workers[0].carryBurst(slot); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, d := range devices {
		d.Drain(0, nil)
	}
}
