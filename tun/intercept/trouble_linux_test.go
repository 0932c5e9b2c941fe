package intercept

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// program is one that returns a number.
func (r *rig) program(kind ebpf.ProgramType, answer int32) *ebpf.Program {
	r.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, answer), asm.Return()}})
	r.must(err)
	r.Cleanup(func() { p.Close() })
	return p
}

// send sends frames out of an interface.
func (r *rig) send(name string, frames ...[]byte) {
	r.Helper()
	r.must(r.trySend(name, frames...))
}

// sendDropped sends a frame that the program at egress drops.
func (r *rig) sendDropped(name string, frame []byte) {
	r.Helper()
	if err := r.trySend(name, frame); !errors.Is(err, unix.ENOBUFS) {
		r.Fatalf("sent: %v", err)
	}
}

func (r *rig) trySend(name string, frames ...[]byte) error {
	return tun.Do(r.namespace, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: r.link(name).Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// status is that of an interface.
func (r *rig) status(i *Interceptor, name string) Status {
	r.Helper()
	for _, s := range i.Statuses() {
		if s.Name == name {
			return s
		}
	}
	r.Fatalf("no status of %s", name)
	return Status{}
}

// eventually polls what the kernel or another goroutine brings about.
func (r *rig) eventually(what string, condition func() bool) {
	r.Helper()
	for deadline := time.Now().Add(90 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			r.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// read reads a packet of a TUN device.
func (r *rig) read(name string) bool {
	_, err := r.devices[name].Queues()[0].Read(make([]byte, 1<<16))
	return err == nil
}

func TestAnInterfaceThatGotAnotherNameBetweenRunsStaysClosed(t *testing.T) {
	r := newRig(t)
	first := r.open()
	r.serve(first)()
	first.Close()
	r.must(r.handle.LinkSetDown(r.link("guest1")))
	r.must(r.handle.LinkSetName(r.link("guest1"), "other"))
	waits := port1
	waits.Wait = true
	for range 2 { // what the first run has written, and what the second one has
		i := r.open()
		closes := []func(){r.device("nsgd0"), r.device("nsgd1"), r.device("nsgd-rest")}
		r.must(i.Apply([]Port{port0, waits}, []Rest{rest0}))
		if got := r.filters("other"); len(got) != 2 {
			t.Fatalf("filters %v", got)
		}
		var entry portEntry
		if err := i.programs.Ports.Lookup(uint32(r.link("other").Attrs().Index), &entry); err != nil || entry != closedPort("guest1") {
			t.Errorf("it is served: %v, %v", entry, err)
		}
		if s := r.status(i, "guest1"); s.State != Waiting || !strings.Contains(s.Trouble, `it is called "other" now`) {
			t.Errorf("status %+v", s)
		}
		for _, c := range closes {
			c()
		}
		i.Close()
	}
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	r.must(i.Apply([]Port{port0}, []Rest{rest0}))
	if got := r.filters("other"); len(got) != 0 {
		t.Errorf("its attachment is gone, and it has the filters %v", got)
	}
}

// The kernel removes qdiscs and filters of an interface that moves: nothing can keep it closed there.
func TestAnInterfaceThatMovesToAnotherNamespaceIsNamedAndClosedWhenItComesBack(t *testing.T) {
	r, other := newRig(t), newRig(t)
	other.must(other.handle.LinkDel(other.link("guest0"))) // both ends go
	i := r.open()
	r.serve(i)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var said told
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := i.Watch(ctx, func(err error) { mu.Lock(); said.tell(err); mu.Unlock() }); err != nil {
			t.Error(err)
		}
	})
	defer ended.Wait()
	defer cancel()
	const trouble = "it was moved to another network namespace"
	for range 2 {
		r.must(r.handle.LinkSetNsFd(r.link("guest1"), other.fd()))
		r.eventually("the move is seen", func() bool {
			s := r.status(i, "guest1")
			return s.State == Waiting && strings.Contains(s.Trouble, trouble)
		})
		if got := other.filters("guest1"); len(got) > 0 {
			t.Errorf("the kernel has kept the filters %v: it is not open there", got)
		}
		r.must(other.handle.LinkSetNsFd(other.link("guest1"), r.fd()))
		r.must(r.handle.LinkSetUp(r.link("guest1")))
		r.eventually("it is attached again", func() bool {
			s := r.status(i, "guest1")
			return s.State == Attached && s.Trouble == "" && len(r.filters("guest1")) == 2
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(strings.Join(said, "\n"), trouble); n != 2 {
		t.Errorf("told %d times: %q", n, said)
	}
}

// fd is the rig's namespace, until the test ends.
func (r *rig) fd() int {
	r.Helper()
	var f *os.File
	r.do(func() (err error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	r.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func TestWhatComesBeforeTheFiltersLaterIsTold(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.serve(i)
	foreign := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: r.link("guest0").Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 5, Priority: program.Priority, Protocol: unix.ETH_P_ALL},
		Fd:          r.program(ebpf.SchedCLS, 0).FD(), Name: "foreign", DirectAction: true,
	}
	tests := []struct {
		name, want string
		attach     func() (detach func() error, err error)
	}{
		{"a filter of the same priority, which the kernel puts first", "at egress a filter of priority 1, bpf, decides before nsgd", func() (func() error, error) {
			return func() error { return r.handle.FilterDel(foreign) }, r.handle.FilterAdd(foreign)
		}},
		{"a TCX program", "a TCX program sees packets before nsgd", func() (func() error, error) {
			l, err := link.AttachTCX(link.TCXOptions{Program: r.program(ebpf.SchedCLS, 0), Interface: r.link("guest0").Attrs().Index, Attach: ebpf.AttachTCXIngress})
			return func() error { return l.Close() }, err
		}},
		{"an XDP program", "an XDP program sees packets before nsgd", func() (func() error, error) {
			l, err := link.AttachXDP(link.XDPOptions{Program: r.program(ebpf.XDP, 2), Interface: r.link("guest0").Attrs().Index, Flags: link.XDPGenericMode})
			return func() error { return l.Close() }, err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var detach func() error
			var err error
			r.do(func() error { detach, err = tt.attach(); return nil })
			if errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var said told
			for range 2 {
				i.mend(said.tell)
				said.has(t, `interface "guest0": `+tt.want)
			}
			if s := r.status(i, "guest0"); s.State != Replaced || !strings.Contains(s.Trouble, tt.want) {
				t.Errorf("status %+v", s)
			}
			r.must(detach())
			i.mend(said.tell)
			said.has(t, "") // nothing more
			if s := r.status(i, "guest0"); s.State != Attached || s.Trouble != "" {
				t.Errorf("status afterwards %+v", s)
			}
		})
	}
}

// clock is the interceptor's, which stands still.
func (i *Interceptor) clock(at time.Time) (forward func(time.Duration)) {
	i.now = func() time.Time { return at }
	return func(d time.Duration) { at = at.Add(d) }
}

func TestTrafficThatDoesNotReachNsgdIsTold(t *testing.T) {
	toNsgd := ethernet(guest, router, udp(own4, far4, 1, 2))
	for name, tt := range map[string]struct {
		frame  []byte
		take   func(r *rig) (giveBack func()) // what keeps frames from nsgd
		silent bool
	}{
		"nobody reads the device": {toNsgd, func(*rig) func() { return func() {} }, true},
		"an XDP program takes the frames": {toNsgd, func(r *rig) func() {
			var x link.Link
			r.do(func() (err error) {
				x, err = link.AttachXDP(link.XDPOptions{Program: r.program(ebpf.XDP, 1), Interface: r.link("guest0").Attrs().Index, Flags: link.XDPGenericMode})
				return err
			})
			return func() { r.must(x.Close()) }
		}, true},
		"what the programs pass is no silence": {ethernetOf(guest, all, arpType, arpBy(guest, own4)), func(*rig) func() { return func() {} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			i := r.open()
			r.serve(i)
			r.must(i.Apply([]Port{port0}, []Rest{rest0})) // guest1 is the guest
			forward := i.clock(time.Unix(1000, 0))
			var said told
			frames := func() uint64 { return r.link("guest0").Attrs().Statistics.RxPackets }
			step := func(d time.Duration) {
				t.Helper()
				n := frames()
				r.send("guest1", tt.frame)
				r.eventually("the frame is counted", func() bool { return frames() > n })
				forward(d)
				i.mend(said.tell)
			}
			step(0)
			giveBack := tt.take(r)
			i.mend(said.tell) // what comes before nsgd is told at once
			said = nil
			step(20 * time.Second)
			step(9 * time.Second)
			if strings.Contains(strings.Join(said, ""), "own counter") {
				t.Errorf("told early: %q", said)
			}
			step(2 * time.Second)
			step(2 * time.Second)
			const want = `its own counter has grown for 30s or more, and no packet came to nsgd at "nsgd0"`
			if n := strings.Count(strings.Join(said, "\n"), want); n != int(truth(tt.silent)) {
				t.Errorf("told %d times: %q", n, said)
			}
			if got := strings.Contains(r.status(i, "guest0").Trouble, want); got != tt.silent {
				t.Errorf("status: %v", r.status(i, "guest0"))
			}
			giveBack()
			r.send("guest1", toNsgd)
			r.eventually("a packet arrives", func() bool { return r.read("nsgd0") })
			i.mend(said.tell)
			if s := r.status(i, "guest0"); s.Trouble != "" {
				t.Errorf("it is over, and the status is %v", s)
			}
		})
	}
}

func TestStatusShowsWhatAGuestUses(t *testing.T) {
	r := newRig(t)
	i := r.open()
	port := port0
	port.Addresses = append(slices.Clone(port.Addresses), netip.MustParseAddr("10.0.1.7"))
	r.serve(i)
	r.must(i.Apply([]Port{port}, []Rest{rest0}))
	forward := i.clock(time.Unix(1000, 0))
	if s := r.status(i, "guest0"); len(s.Used)+len(s.Strangers) > 0 || !s.LastOut.IsZero() || !s.LastIn.IsZero() {
		t.Errorf("before the first packet: %+v", s)
	}
	forward(time.Second)
	r.send("guest1", ethernet(guest, router, udp(own4, far4, 1, 2)), ethernetOf(guest, all, arpType, arpBy(guest, "10.0.1.99")),
		ethernet(guest, router, udp(others6, far6, 1, 2)), ethernet(guest, router, icmp6(link6, "ff02::2", 255, 133, "::")))
	r.eventually("the frames are seen", func() bool {
		s := r.status(i, "guest0") // the interface counts a frame before the program has seen it
		return r.link("guest0").Attrs().Statistics.RxPackets >= 4 && s.Passed > 0 && len(s.Used) > 0 && len(s.Strangers) > 1
	})
	s := r.status(i, "guest0")
	if want := []netip.Addr{port.Addresses[0]}; !slices.Equal(s.Used, want) || !slices.Equal(s.Addresses, port.Addresses) {
		t.Errorf("addresses %v, used %v, want %v", s.Addresses, s.Used, want)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.0.1.99"), netip.MustParseAddr(others6)}; !slices.Equal(s.Strangers, want) {
		t.Errorf("strangers %v, want %v", s.Strangers, want)
	}
	if !s.LastOut.Equal(time.Unix(1001, 0)) || !s.LastIn.IsZero() {
		t.Errorf("last packets %v and %v", s.LastOut, s.LastIn)
	}
	r.must(i.Apply([]Port{port}, []Rest{rest0}))
	if s := r.status(i, "guest0"); len(s.Used) != 1 {
		t.Errorf("a reload has forgotten which addresses are used: %v", s.Used)
	}
	port.Forwards = true
	r.must(i.Apply([]Port{port}, []Rest{rest0}))
	if s := r.status(i, "guest0"); len(s.Strangers) > 0 {
		t.Errorf("a NIC that forwards has the strangers %v", s.Strangers)
	}
}

// The kernel's own test of programs refuses frames whose IP header is short, so that real ones are sent.
func TestFramesThatAreTooShortAreMalformed(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.serve(i)
	r.must(i.Apply([]Port{port0}, []Rest{rest0})) // guest1 is the guest
	const type4, type6 = uint16(layers.EthernetTypeIPv4), uint16(layers.EthernetTypeIPv6)
	solicitation := icmp6(link6, "ff02::1:ff00:5", 255, 135, others6)
	for name, frame := range map[string][]byte{
		"IPv4 without a header":             ethernetOf(guest, router, type4, nil),
		"IPv4 with a part of its header":    ethernetOf(guest, router, type4, udp(own4, far4, 1, 2)[:19]),
		"IPv6 without a header":             ethernetOf(guest, router, type6, nil),
		"IPv6 with a part of its header":    ethernetOf(guest, router, type6, udp(own6, far6, 1, 2)[:39]),
		"ARP with a part of its message":    ethernetOf(guest, all, arpType, arpBy(guest, own4)[:27]),
		"ARP of another network":            ethernetOf(guest, all, arpType, append([]byte{0, 1, 8, 5}, arpBy(guest, own4)[4:]...)),
		"a solicitation without its target": ethernet(guest, router, solicitation[:len(solicitation)-1]),
	} {
		t.Run(name, func(t *testing.T) {
			before := r.status(i, "guest0").Dropped["malformed"]
			r.send("guest1", frame)
			r.eventually("the frame is dropped as malformed", func() bool { return r.status(i, "guest0").Dropped["malformed"] == before+1 })
			if r.read("nsgd0") {
				t.Error("it came to nsgd")
			}
		})
	}
	for name, frame := range map[string][]byte{
		"to the guest, IPv4 without a header":          ethernetOf(router, guest, type4, nil),
		"to the guest, IPv6 with a part of its header": ethernetOf(router, guest, type6, udp(far6, own6, 1, 2)[:39]),
	} {
		t.Run(name, func(t *testing.T) {
			before := r.status(i, "guest0").Dropped["malformed"]
			r.sendDropped("guest0", frame)
			if n := r.status(i, "guest0").Dropped["malformed"]; n != before+1 {
				t.Errorf("%d malformed frames, %d before", n, before)
			}
		})
	}
}
