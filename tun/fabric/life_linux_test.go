package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
)

// stream sends numbered datagrams from a TUN until stop is called, which tells how many there were.
func (h *host) stream(name, dst string) (stop func() uint32) {
	h.Helper()
	end, sent := make(chan bool), make(chan uint32)
	go func() {
		packet := append(make([]byte, tun.HeaderLen), udp(h.nic4(), dst, 7)...)
		ended := func() bool {
			select {
			case <-end:
				return true
			default:
				return false
			}
		}
		for n := uint32(0); ; n++ {
			if ended() {
				sent <- n
				return
			}
			binary.BigEndian.PutUint32(packet[tun.HeaderLen+28:], n)
			if err := h.queues[name].Write(packet); err != nil {
				h.Errorf("write: %v", err)
				<-end
				sent <- n
				return
			}
			for pause := 50 * time.Microsecond; ; pause = time.Millisecond { // no queue holds more than these
				time.Sleep(pause)
				if n < h.gathered.Load()+500 || ended() {
					break
				}
			}
		}
	}()
	return func() uint32 {
		close(end)
		n := <-sent
		for late := time.Now().Add(patience); h.gathered.Load() < n && time.Now().Before(late); {
			time.Sleep(time.Millisecond)
		}
		return n
	}
}

// gather reads numbers of a stream until stop is called, which returns how often each came.
func (h *host) gather(name string) (stop func() map[uint32]int) {
	end, result := make(chan bool), make(chan map[uint32]int)
	q := h.queues[name]
	go func() {
		got, buf, ending := map[uint32]int{}, make([]byte, tun.BufferLen), false
		for {
			n, err := q.Read(buf)
			if err == nil {
				if n >= tun.HeaderLen+32 {
					h.gathered.Add(1)
					got[binary.BigEndian.Uint32(buf[tun.HeaderLen+28:])]++
				}
				continue
			}
			if !errors.Is(err, tun.ErrAgain) || ending {
				result <- got
				return
			}
			select {
			case <-end:
				ending = true // what waits is read yet
			default:
			}
			unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 20)
		}
	}()
	return func() map[uint32]int {
		close(end)
		return <-result
	}
}

// NIC m moves between two hosts while somebody sends to it: each packet goes to one of them.
func TestANICMovesWithoutAPacketToNobody(t *testing.T) {
	u := newUnderlay(t, 3, families[0].address, 1500)
	u.serve()
	from, h2, h3 := u.hosts[0], u.hosts[1], u.hosts[2]
	const nic = "10.0.7.4"
	state := func(holder string) State {
		s := from.state()
		for i := range s.Tunnels {
			s.Tunnels[i].Routes = append(s.Tunnels[i].Routes, Route{prefixOf(nic), holder})
			s.Tunnels[i].Sources = append(s.Tunnels[i].Sources, Source{prefixOf(nic), holder})
		}
		return s
	}
	u.must(from.fabric.Apply(state("h2")))
	at2, at3 := h2.gather("red"), h3.gather("red")
	sent := from.stream("red", nic)
	for i := range 40 {
		u.must(from.fabric.Apply(state([]string{"h3", "h2"}[i%2])))
	}
	n := sent()
	got2, got3 := at2(), at3()
	for i := range n {
		if times := got2[i] + got3[i]; times != 1 {
			t.Fatalf("packet %d of %d came %d times", i, n, times)
		}
	}
	if len(got2) == 0 || len(got3) == 0 {
		t.Errorf("%d came to h2, %d to h3", len(got2), len(got3))
	}
	t.Logf("%d packets: %d to h2, %d to h3", n, len(got2), len(got3))
}

// Tunnels, hosts and prefixes come and go beside a stream, and another run takes over: it loses nothing.
func TestAStreamDoesNotNoticeWhatChangesBesideIt(t *testing.T) {
	u := newUnderlay(t, 3, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	less := func(h *host) State { // red alone, with its first route
		s := h.state()
		s.Tunnels = s.Tunnels[:1]
		s.Tunnels[0].Routes = s.Tunnels[0].Routes[:1]
		return s
	}
	at := to.gather("red")
	sent := from.stream("red", to.nic4())
	for range 10 {
		for _, h := range []*host{from, to} {
			u.must(h.fabric.Apply(less(h)))
			u.must(h.fabric.Apply(h.state()))
			h.fabric.Leave() // this run ends
			next, err := Open(h.namespace)
			u.must(err)
			if !next.Adopted() {
				t.Fatal("the next run found nothing")
			}
			h.fabric = next
			u.must(next.Apply(h.state()))
		}
	}
	n, got := sent(), at()
	for i := range n {
		if got[i] != 1 {
			t.Fatalf("packet %d of %d came %d times", i, n, got[i])
		}
	}
	c, err := to.fabric.Counts()
	u.must(err)
	if c.Tunnels[red].Received != uint64(n) {
		t.Errorf("counted %d, want %d: a run begins where the one before it ended", c.Tunnels[red].Received, n)
	}
	for _, h := range []*host{from, to} {
		h.fabric.Close()
	}
}

func TestWhatAKilledRunLeftIsRemoved(t *testing.T) {
	u := newUnderlay(t, 1, families[0].address, 1500)
	h := u.hosts[0]
	before := h.listing()
	h.device("red")
	h.device("blue")
	h.open()
	u.must(h.fabric.Apply(h.state()))
	during := h.listing()
	if removed, err := Remove(h.namespace); !errors.Is(err, ErrInUse) {
		t.Errorf("while nsgd runs: got %v, %v", removed, err)
	}
	if diff := cmp.Diff(during, h.listing()); diff != "" {
		t.Errorf("while nsgd runs: %s", diff)
	}
	h.fabric.Leave() // as the kernel closes what a killed process had open
	for _, d := range h.devices {
		d.Close()
	}
	removed, err := Remove(h.namespace)
	if diff := cmp.Diff([]string{"vx", "table inet nsgd_fabric"}, removed); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	if diff := cmp.Diff(before, h.listing()); diff != "" {
		t.Errorf("it left: %s", diff)
	}
	if removed, err := Remove(h.namespace); len(removed) > 0 || err != nil {
		t.Errorf("again: got %v, %v", removed, err)
	}
}

func TestAnotherNameOrPortTakesTheOldOnesPlace(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	for _, change := range []func(*State){
		func(s *State) { s.Device = "vy" },
		func(s *State) { s.Port = 4791 },
	} {
		for _, h := range u.hosts {
			s := h.state()
			change(&s)
			u.must(h.fabric.Apply(s))
		}
		from.arrives(to, "red", udp(from.nic4(), to.nic4(), 1))
		links, err := linksOf(from.handle)
		u.must(err)
		ours := 0
		for _, l := range links {
			if isOurs(l) {
				ours++
			}
		}
		if ours != 1 {
			t.Errorf("%d devices of VXLAN", ours)
		}
	}
}

// The internet's hosts all send from 0.0.0.0/0; a NIC's own address stays its host's.
func TestAPrefixOfSeveralHosts(t *testing.T) {
	u := newUnderlay(t, 4, families[0].address, 1500)
	u.serve()
	to := u.hosts[0]
	state := func(hosts ...string) State {
		s := to.state()
		for i := range s.Tunnels {
			for _, host := range hosts {
				for _, all := range []string{"0.0.0.0/0", "::/0"} {
					s.Tunnels[i].Sources = append(s.Tunnels[i].Sources, Source{netip.MustParsePrefix(all), host})
				}
			}
		}
		return s
	}
	for _, h := range u.hosts[1:] {
		s := h.state()
		for i := range s.Tunnels {
			s.Tunnels[i].Routes = append(s.Tunnels[i].Routes, Route{netip.MustParsePrefix("0.0.0.0/0"), "h1"}, Route{netip.MustParsePrefix("::/0"), "h1"})
		}
		u.must(h.fabric.Apply(s))
	}
	drops := uint64(0)
	for _, holders := range [][]string{{"h2", "h3"}, {"h3", "h4"}, {"h4"}, {"h2", "h3", "h4"}, {}} {
		u.must(to.fabric.Apply(state(holders...)))
		for _, h := range u.hosts[1:] {
			may := false
			for _, holder := range holders {
				may = may || holder == h.name()
			}
			for _, packet := range [][]byte{udp("203.0.113.9", to.nic4(), 1), udp("2001:db8::9", to.nic6(), 1)} {
				if may {
					h.arrives(to, "red", packet)
					continue
				}
				drops++
				h.send("red", packet)
				to.eventually(fmt.Sprint(h.name(), " beside ", holders), fmt.Sprint(drops), func() string { return fmt.Sprint(to.drops(red)) })
			}
		}
		u.hosts[1].arrives(to, "red", udp(u.hosts[1].nic4(), to.nic4(), 2))
	}
}

// drops is the number of all drops of a tunnel.
func (h *host) drops(vni uint32) (all uint64) {
	h.Helper()
	c, err := h.fabric.Counts()
	h.must(err)
	for _, n := range c.Tunnels[vni].Dropped {
		all += n
	}
	return all
}

func TestATUNThatWasMadeAnewIsTheTunnels(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	to.devices["red"].Close()
	if err := to.fabric.Apply(to.state()); err == nil || !strings.Contains(err.Error(), `tunnel 100: TUN "red"`) {
		t.Errorf("without the device: %v", err)
	}
	from.send("red", udp(from.nic4(), to.nic4(), 9)) // to nobody
	from.arrives(to, "blue", udp(from.nic4(), to.nic4(), 1))
	to.device("red")
	u.must(to.fabric.Apply(to.state()))
	from.arrives(to, "red", udp(from.nic4(), to.nic4(), 2))
	to.arrives(from, "red", udp(to.nic4(), from.nic4(), 2))
}

// A tunnel ends: its TUN is still there, but nothing comes or goes.
func TestATunnelThatEndedCarriesNothing(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	s := to.state()
	s.Tunnels = s.Tunnels[:1]
	u.must(to.fabric.Apply(s))
	from.send("blue", udp(from.nic4(), to.nic4(), 9))
	to.eventually("to the TUN", "map[unknown_vni:1]", func() string { return to.dropped(0) })
	before := to.received()
	to.send("blue", udp(to.nic4(), from.nic4(), 9))
	to.arrives(from, "red", udp(to.nic4(), from.nic4(), 1))
	u.must(to.fabric.Apply(to.state()))
	to.arrives(from, "blue", udp(to.nic4(), from.nic4(), 2)) // and nothing before
	from.arrives(to, "blue", udp(from.nic4(), to.nic4(), 2))
	if got := to.received(); got != before {
		t.Errorf("the host took a packet: %s, before %s", got, before)
	}
}
