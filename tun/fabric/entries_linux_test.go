package fabric

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/tun/program"
)

// A reader of the map finds the old host of a prefix or the new one, at any moment.
func TestAnEntryChangesAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	p, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close(p)
	key := networkOf(red, prefixOf("10.0.1.4"))
	have := map[network]address{}
	move := func(holder byte) {
		if err := write(p.Routes, have, map[network]address{key: {holder}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	move(0)
	done, missed := make(chan bool), make(chan int)
	go func() {
		misses := 0
		for {
			select {
			case <-done:
				missed <- misses
				return
			default:
			}
			var holder address
			if p.Routes.Lookup(key, &holder) != nil {
				misses++
			}
		}
	}()
	for i := range 20_000 {
		move(byte(i + 1))
	}
	close(done)
	if n := <-missed; n > 0 {
		t.Errorf("%d times the prefix had no host", n)
	}
}

// More networks than the maps hold come and go.
func TestNetworksComeAndGo(t *testing.T) {
	u := newUnderlay(t, 1, families[0].address, 1500)
	h := u.hosts[0]
	h.open()
	state := func(first, tunnels int) State {
		s := State{Underlay: h.address, Port: port, Device: "vx"}
		for i := range tunnels {
			s.Tunnels = append(s.Tunnels, Tunnel{VNI: uint32(first + i), TUN: "red", MTU: tunMTU})
		}
		return s
	}
	device := uint32(1)
	if err := h.fabric.Apply(state(1, 0)); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		s := state(1+round*MaxTunnels, MaxTunnels)
		want := wanted(&s, device, map[string]uint32{"red": 1})
		want.devices = map[uint32]uint32{}
		for i := range s.Tunnels {
			want.devices[uint32(1000+i)] = s.Tunnels[i].VNI
		}
		f := h.fabric
		for _, err := range []error{f.programs.widen(f.have, &want), f.programs.serve(f.have, &want), f.programs.narrow(f.have, &want)} {
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		is, err := f.programs.entries()
		u.must(err)
		if diff := cmp.Diff(want, is, cmp.AllowUnexported(entries{}, network{}, sender{}, member{}, tunnel{}, settings{})); diff != "" {
			t.Fatalf("round %d: %s", round, diff)
		}
	}
}
