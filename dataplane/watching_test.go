package dataplane

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
)

func (r *rig) watch(o watch.Options, filter string) *watch.Subscription {
	r.t.Helper()
	var err error
	if o.Filter, err = watch.Parse(filter); err != nil {
		r.t.Fatal(err)
	}
	s, err := r.engine.Watch(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	return s
}

// seen takes out what a subscription has, without waiting.
func seen(t testing.TB, s *watch.Subscription) []watch.Event {
	t.Helper()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	var all []watch.Event
	for {
		events := make([]watch.Event, 8)
		n, err := s.Read(over, events)
		if n == 0 {
			if err == nil {
				t.Fatal("neither events nor an error")
			}
			return all
		}
		all = append(all, events[:n]...)
	}
}

// rulesOf names an event's rules.
func (r *rig) rulesOf(e *watch.Event) (names []string) {
	keys := r.engine.Registry().Keys()
	for _, slot := range e.Rules[:e.N] {
		names = append(names, keys[slot].NetworkSecurityGroup+" "+keys[slot].Rule)
	}
	return names
}

func TestAWatcherSeesWhatBecomesOfEachPacket(t *testing.T) {
	segment := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: world, Dst: addr1, SrcPort: 40000, DstPort: 80, Flags: flags})
	}
	answer := packettest.TCP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 80, DstPort: 40000, Flags: "SA"})
	in := []string{"NSG1 AllowHttpInBound", "NSG2 AllowHttpInBound"}
	tests := []struct {
		name      string
		from      int
		packet    []byte
		to        int
		drop      packet.Drop
		standing  watch.Standing
		direction conntrack.Direction
		rules     []string
	}{
		{"a flow's first packet", internet, segment("S"), vm1, packet.NotDropped, watch.Begins, conntrack.Original, in},
		{"its answer", vm1, answer, internet, packet.NotDropped, watch.InFlow, conntrack.Reply, in},
		{"the next packet", internet, segment("A"), vm1, packet.NotDropped, watch.InFlow, conntrack.Original, in},
		{"an ICMP error about the answer", internet, unreachable(world, addr1, answer), vm1, packet.NotDropped, watch.Related, conntrack.Original, in},
		{"a packet that the subnet's NSG denies", internet, syn(world, addr1, 22), vm1, packet.DropRule, watch.NoFlow, 0, []string{"NSG1 DenyAllInBound"}},
		{"a packet that nobody asks about", vm4, syn(addr4, world, 22), internet, packet.NotDropped, watch.Begins, 0, nil},
		{"a spoofed packet", vm2, syn(addr1, addr4, 22), -1, packet.DropSpoofed, watch.NoFlow, 0, nil},
		{"a packet to nowhere", vm1, syn(addr1, "10.0.1.77", 22), -1, packet.DropNoRoute, watch.NoFlow, 0, nil},
		{"a malformed packet", vm1, segment("S")[:30], -1, packet.DropIPLength, watch.NoFlow, 0, nil},
		{"an answer without a flow", vm1, packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 9, DstPort: 9, Flags: "SA"}),
			vm4, packet.DropTCPNoSYN, watch.NoFlow, 0, nil},
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	s := r.watch(watch.Options{Snap: watch.MaxSnap}, "")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.send(tt.from, tt.packet)
			events := make([]watch.Event, 2)
			n, err := s.Read(t.Context(), events)
			if err != nil || n != 1 {
				t.Fatalf("%d events, %v", n, err)
			}
			e := &events[0]
			if int(e.From) != tt.from || int(e.To) != tt.to || e.Drop != tt.drop || e.Standing != tt.standing || e.Direction != tt.direction {
				t.Errorf("from %d to %d, %s, flow %s %s", e.From, e.To, e.Drop, e.Standing, e.Direction)
			}
			if got := r.rulesOf(e); !slices.Equal(got, tt.rules) {
				t.Errorf("rules %v, want %v", got, tt.rules)
			}
			if !bytes.Equal(s.Bytes(e), tt.packet) || int(e.Length) != len(tt.packet) {
				t.Errorf("%d bytes of %d: %x", e.Snapped, e.Length, s.Bytes(e))
			}
			if e.Time == 0 || e.Generation != 1 || e.Packet.Segments != 1 {
				t.Errorf("time %d, generation %d, %d segments", e.Time, e.Generation, e.Packet.Segments)
			}
		})
	}
	if s.Lost() != 0 {
		t.Errorf("%d lost", s.Lost())
	}
}

func TestEveryFragmentIsSeenOnceAndWhenItIsDecided(t *testing.T) {
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Fragments: fragment.Options{Hold: 8}})
	s := r.watch(watch.Options{}, "")
	fragments := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 2, Payload: 300}), 7, 64, 64)
	inject := func(i int) {
		r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), fragments[i]...))
		if err := r.engine.workers[0].carryBurst(vm1); err != nil {
			t.Fatal(err)
		}
	}
	inject(2)
	if events := seen(t, s); len(events) != 0 {
		t.Fatalf("a fragment that waits was seen: %+v", events)
	}
	inject(0)
	inject(1)
	var starts []uint16
	for _, e := range seen(t, s) {
		starts = append(starts, e.Packet.Fragment.Start)
		standing := watch.InFlow
		if e.Packet.Fragment.Start == 0 {
			standing = watch.Begins
		}
		if e.From != vm1 || e.To != vm4 || e.Standing != standing || !slices.Equal(r.rulesOf(&e), []string{"NSG2 AllowVnetOutBound", "NSG1 AllowVnetOutBound"}) {
			t.Errorf("%+v", e)
		}
	}
	// The held one is carried behind the first, in the middle of its carrying.
	if want := []uint16{128, 0, 64}; !slices.Equal(starts, want) {
		t.Errorf("seen were %v, want %v", starts, want)
	}
}

func TestWhoWatchesTheDroppedAloneGetsNothingElse(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	dropped, all := r.watch(watch.Options{DroppedOnly: true}, ""), r.watch(watch.Options{}, "dst nic vm1-nic and nsg nsg1")
	r.send(internet, syn(world, addr1, 80))
	r.send(internet, syn(world, addr1, 22))
	r.send(internet, syn(world, addr2, 22))
	if got := seen(t, dropped); len(got) != 2 || got[0].Packet.Dst != packet.AddrFrom4([4]byte{10, 0, 1, 4}) && got[0].Packet.DstPort != 22 {
		t.Errorf("%+v", got)
	}
	if got := seen(t, all); len(got) != 2 || got[0].Packet.DstPort != 80 || got[1].Packet.DstPort != 22 {
		t.Errorf("%+v", got)
	}
}

func TestAFilterKnowsTheNamesOfTheNextPolicy(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	if f, _ := watch.Parse("rule Added"); f != nil {
		if _, err := r.engine.Watch(watch.Options{Filter: f}); err == nil {
			t.Error("a rule that is not there was found")
		}
	}
	s := r.watch(watch.Options{}, "nsg NSG1")
	next, err := r.engine.Prepare(figure([]ruleset.Rule{anyRule("Added", 100, ruleset.Inbound, ruleset.Deny)}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Swap(next, nil); err != nil {
		t.Fatal(err)
	}
	r.send(internet, syn(world, addr1, 80))
	if got := seen(t, s); len(got) != 1 || r.rulesOf(&got[0])[0] != "NSG1 Added" || got[0].Generation != 2 {
		t.Errorf("%+v", got)
	}
}

func TestWatchersAreBoundedAndLeave(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	var all []*watch.Subscription
	for range watch.MaxWatchers {
		all = append(all, r.watch(watch.Options{Events: 4}, ""))
	}
	if _, err := r.engine.Watch(watch.Options{}); err != watch.ErrWatchers {
		t.Errorf("one more: %v", err)
	}
	for range 6 {
		r.send(internet, syn(world, addr1, 80))
	}
	for _, s := range all {
		if got := seen(t, s); len(got) != 4 || s.Lost() != 2 {
			t.Errorf("%d seen and %d lost of 6 in a ring for 4", len(got), s.Lost())
		}
		s.Close()
		s.Close()
		if _, err := s.Read(t.Context(), make([]watch.Event, 1)); err != watch.ErrClosed {
			t.Errorf("read after Close: %v", err)
		}
	}
	if r.engine.watchers.Now() != nil {
		t.Error("somebody watches still")
	}
}

func TestWatchingAllocatesNothing(t *testing.T) {
	runs := 100
	if testing.Short() {
		runs = 10
	}
	for i := range carryCases {
		c := &carryCases[i]
		t.Run(c.name, func(t *testing.T) {
			r := c.rig(t, figureOfTheSeed(), 1)
			s := r.watch(watch.Options{Snap: 128, Events: 64}, "tcp or udp or icmp or not nsg NSG1")
			d := r.judge(64)
			f := newFeeder(r, c)
			f.carry(16)
			if n := testing.AllocsPerRun(runs, func() { f.carry(1) }); n != 0 {
				t.Errorf("%v allocations in a burst of %d packets", n, burstPackets)
			}
			f.check()
			if len(seen(t, s)) != 64 || s.Lost() == 0 {
				t.Errorf("%d lost", s.Lost())
			}
			if n := d.Read(make([]watch.Decided, 128)); n > 64 || n == 64 && d.Lost() == 0 {
				t.Errorf("%d are judged again, %d lost", n, d.Lost())
			}
		})
	}
}

func (r *rig) judge(packets int) *watch.Decisions {
	r.t.Helper()
	d, err := r.engine.Judge(packets)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(d.Close)
	return d
}

// Who judges packets again gets those that began a flow and those that the policy dropped, as they were sent.
func TestWhoJudgesAgainGetsWhatThePolicyHasDecided(t *testing.T) {
	const room = 1 << 12
	for i := range carryCases {
		c := &carryCases[i]
		t.Run(c.name, func(t *testing.T) {
			r := c.rig(t, figureOfTheSeed(), 1)
			f := newFeeder(r, c)
			s, d := r.watch(watch.Options{DecidedOnly: true, Events: room}, ""), r.judge(room)
			f.carry(8)
			judgedAsSeen(t, s, d)
		})
	}
	t.Run("a record at each end", func(t *testing.T) {
		r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
		s, d := r.watch(watch.Options{DecidedOnly: true, Events: room}, ""), r.judge(room)
		r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}})
		if n := judgedAsSeen(t, s, d); n != 2 {
			t.Errorf("%d were decided about", n)
		}
	})
}

// judgedAsSeen wants the same packets in decisions and in a subscription to what is decided, and counts them.
func judgedAsSeen(t *testing.T, s *watch.Subscription, d *watch.Decisions) int {
	t.Helper()
	var want []watch.Event
	for _, e := range seen(t, s) {
		if e.Drop == packet.NotDropped || e.Drop.OfPolicy() {
			want = append(want, e)
		}
	}
	got := make([]watch.Decided, len(want)+1)
	got = got[:d.Read(got)]
	if !slices.EqualFunc(got, want, func(d watch.Decided, e watch.Event) bool {
		return d.Packet.Tuple == e.Packet.Tuple && d.Packet.TCPFlags == e.Packet.TCPFlags && d.From == e.From && d.Drop == e.Drop && d.Generation == e.Generation
	}) {
		t.Errorf("%d are judged again, %d were decided about", len(got), len(want))
	}
	return len(got)
}

// Flow logs need to know where a packet would have gone: the address that it was sent to leads elsewhere.
func TestAPacketThatIsDeniedBehindAPublicAddressIsSeenWhereItWouldHaveArrived(t *testing.T) {
	rules := []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, ruleset.Allow), anyRule("no", 100, ruleset.Inbound, ruleset.Deny)}
	r := newRig(t, translating(dualStack(figure(rules, rules))), conntrack.Options{Max: 1024})
	s := r.watch(watch.Options{DroppedOnly: true}, "verdict deny")
	for _, tt := range []struct {
		from, to     int
		dst, arrives string
	}{{internet, vm1, public1, addr1}, {vm2, vm1, public1, addr1}} {
		src := map[int]string{internet: world, vm2: addr2}[tt.from]
		r.refuses(tt.from, packettest.TCP(spec{Flags: "S", Src: src, Dst: tt.dst, SrcPort: 40000, DstPort: 80}), packet.DropRule)
		events := seen(t, s)
		if len(events) != 1 || int(events[0].To) != tt.to || !events[0].Translated || events[0].Arrives.Dst.String() != tt.arrives {
			t.Errorf("to %s from %d: %+v", tt.dst, tt.from, events)
		}
	}
}
