package intercept

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rig is a network namespace with interfaces guest0 and guest1.
type rig struct {
	testing.TB
	namespace string
	handle    *netlink.Handle
	devices   map[string]tun.Device
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	state, err := tun.OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	r := &rig{TB: t, devices: map[string]tun.Device{}, namespace: fmt.Sprintf("nsgd-test-%d-%08x", os.Getpid(), rand.Uint32())}
	if err := state.CreateNamespace(r.namespace); err != nil {
		t.Fatal(err)
	}
	r.do(func() (err error) {
		r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	t.Cleanup(r.handle.Close)
	r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "guest0"}, PeerName: "guest1"}))
	for _, name := range []string{"guest0", "guest1"} {
		r.must(r.handle.LinkSetUp(r.link(name)))
	}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) do(f func() error) {
	r.Helper()
	r.must(tun.Do(r.namespace, f))
}

func (r *rig) link(name string) netlink.Link {
	r.Helper()
	l, err := r.handle.LinkByName(name)
	r.must(err)
	return l
}

// device opens a TUN device as the daemon does. close ends its reader.
func (r *rig) device(name string) (close func()) {
	r.Helper()
	d, _, err := tun.Open(tun.Config{Name: name, Namespace: r.namespace, Keep: true})
	r.must(err)
	r.devices[name] = d
	ended := false
	close = func() {
		if !ended {
			ended = true
			d.Close()
		}
	}
	r.Cleanup(close)
	return close
}

func (r *rig) open() *Interceptor {
	r.Helper()
	i, err := Open(r.namespace)
	r.must(err)
	r.Cleanup(i.Close)
	return i
}

// filters are those of nsgd at an interface, as their names and handles.
func (r *rig) filters(name string) (list []string) {
	r.Helper()
	there, err := filtersOf(r.handle, r.link(name))
	r.must(err)
	for _, f := range there.ours {
		list = append(list, fmt.Sprint(f.Name, " ", f.Handle))
	}
	return list
}

func (r *rig) qdisc(name string) string {
	r.Helper()
	kinds, err := qdiscKinds(r.handle, r.link(name))
	r.must(err)
	return kinds[r.link(name).Attrs().Index]
}

var (
	port0 = Port{Interface: "guest0", Device: "nsgd0", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.4")}}
	port1 = Port{Interface: "guest1", Device: "nsgd1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}
	rest0 = Rest{Device: "nsgd-rest", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
)

// serve opens the devices and applies both ports.
func (r *rig) serve(i *Interceptor) (close func()) {
	r.Helper()
	var closes []func()
	for _, name := range []string{"nsgd0", "nsgd1", "nsgd-rest"} {
		closes = append(closes, r.device(name))
	}
	r.must(i.Apply([]Port{port0, port1}, []Rest{rest0}))
	return func() {
		for _, c := range closes {
			c()
		}
	}
}

func TestAnotherRunTakesOverWhatWasLearned(t *testing.T) {
	r := newRig(t)
	first := r.open()
	close := r.serve(first)
	index := uint32(r.link("guest0").Attrs().Index)
	r.must(first.programs.MACs.Put(index, macOf(guest)))
	var sealed settingsEntry
	r.must(first.programs.Settings.Lookup(uint32(0), &sealed))
	device := r.link("nsgd0").Attrs().Index
	close()
	first.Close()

	second := r.open()
	if !second.Adopted() {
		t.Error("the maps of the first run are not in use")
	}
	r.serve(second)
	var mac macEntry
	if err := second.programs.MACs.Lookup(index, &mac); err != nil || mac != macOf(guest) {
		t.Errorf("MAC %v, %v", mac, err)
	}
	if got, other := second.MAC("nsgd0"), second.MAC("nsgd1"); macOf(got) != mac || other != nil {
		t.Errorf("the guest's MAC is %v, and that of one that is silent %v", got, other)
	}
	var now settingsEntry
	if err := second.programs.Settings.Lookup(uint32(0), &now); err != nil || now.Mark != sealed.Mark || now.Mark == 0 {
		t.Errorf("mark %x, %v; the first run had %x", now.Mark, err, sealed.Mark)
	}
	if got := r.link("nsgd0").Attrs().Index; got != device {
		t.Errorf("the device is another one: %d, not %d", got, device)
	}
	if got, want := r.filters("guest0"), []string{"nsgd_sends 1", "nsgd_receives 1"}; !slices.Equal(got, want) {
		t.Errorf("filters %v, want %v", got, want)
	}
}

func TestAnInterfaceThatIsNoLongerWantedOpens(t *testing.T) {
	r := newRig(t)
	i := r.open()
	close := r.serve(i)
	close()
	r.device("nsgd0")
	r.device("nsgd-rest")
	r.must(i.Apply([]Port{port0}, []Rest{rest0}))
	if got := r.filters("guest1"); len(got) > 0 || r.qdisc("guest1") != "" {
		t.Errorf("filters %v, qdisc %q", got, r.qdisc("guest1"))
	}
	if _, err := r.handle.LinkByName("nsgd1"); !isMissing(err) {
		t.Errorf("its device is still there: %v", err)
	}
	var owner ownerEntry
	if err := i.programs.Owners.Lookup(port1.Addresses[0].As16(), &owner); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("its address belongs to %v: %v", owner, err)
	}
	if got := r.filters("guest0"); len(got) != 2 {
		t.Errorf("the other interface has the filters %v", got)
	}
}

func TestDetachLeavesWhatOthersMade(t *testing.T) {
	r := newRig(t)
	index := r.link("guest1").Attrs().Index
	r.must(r.handle.QdiscAdd(&netlink.GenericQdisc{QdiscType: program.Clsact, QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	r.do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "theirs"}, Mode: netlink.TUNTAP_MODE_TUN})
	})
	i := r.open()
	close := r.serve(i)
	if _, err := Detach(r.namespace); !errors.Is(err, ErrInUse) {
		t.Errorf("detach beside a daemon: %v, want %v", err, ErrInUse)
	}
	if _, err := Open(r.namespace); !errors.Is(err, ErrInUse) {
		t.Errorf("a second daemon: %v, want %v", err, ErrInUse)
	}
	if len(r.filters("guest0")) != 2 {
		t.Error("a refused detach has removed filters")
	}
	close()
	i.Close()
	done, err := Detach(r.namespace)
	r.must(err)
	if fmt.Sprint(done) != "{[guest0 guest1] [nsgd-rest nsgd0 nsgd1] false}" {
		t.Errorf("detached %v", done)
	}
	if r.qdisc("guest0") != "" || r.qdisc("guest1") != program.Clsact {
		t.Errorf("qdiscs %q and %q", r.qdisc("guest0"), r.qdisc("guest1"))
	}
	r.link("theirs")
}

func TestProgramsThatSeePacketsFirstAreRefused(t *testing.T) {
	r := newRig(t)
	i := r.open()
	pass := func(kind ebpf.ProgramType) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
		r.must(err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	var ends []link.Link
	r.do(func() error {
		x, err := link.AttachXDP(link.XDPOptions{Program: pass(ebpf.XDP), Interface: r.link("guest0").Attrs().Index, Flags: link.XDPGenericMode})
		if err != nil {
			return err
		}
		ends = append(ends, x)
		c, err := link.AttachTCX(link.TCXOptions{Program: pass(ebpf.SchedCLS), Interface: r.link("guest1").Attrs().Index, Attach: ebpf.AttachTCXEgress})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return nil
		}
		ends = append(ends, c)
		return err
	})
	_, err := i.Check([]Port{port0, port1})
	for _, want := range []string{`interface "guest0": an XDP program`, `interface "guest1": a TCX program`}[:len(ends)] {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, end := range ends {
		r.must(end.Close())
	}
	mtu, err := i.Check([]Port{port0, port1})
	if err != nil || mtu != 1500 {
		t.Errorf("mtu %d, %v", mtu, err)
	}
}

// BenchmarkApplyOneOfAHundredPorts is what a reload costs that adds an interface to 99.
func BenchmarkApplyOneOfAHundredPorts(b *testing.B) {
	const ports = 100
	r := newRig(b)
	i := r.open()
	var list []Port
	r.device("nsgd-rest")
	for n := range ports {
		p := Port{Interface: fmt.Sprint("a", n), Device: fmt.Sprint("nsgd", n), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(n)})}}
		r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: p.Interface}, PeerName: fmt.Sprint("b", n)}))
		list = append(list, p)
	}
	for b.Loop() {
		b.StopTimer()
		for _, p := range list {
			r.device(p.Device)
		}
		r.must(i.Apply(list[:ports-1], []Rest{rest0}))
		r.device(list[ports-1].Device)
		b.StartTimer()
		_, err := i.Check(list)
		r.must(errors.Join(err, i.Guard(list), i.Apply(list, []Rest{rest0})))
	}
}

func TestAnInterfaceThatHasAnotherNameStaysClosedOverRestarts(t *testing.T) {
	r := newRig(t)
	i := r.open()
	stop := r.serve(i)
	was := r.filters("guest0")
	r.must(errors.Join(r.handle.LinkSetDown(r.link("guest0")), r.handle.LinkSetName(r.link("guest0"), "other0")))
	for n := range 3 {
		i.Close()
		stop()
		i = r.open()
		if n == 2 {
			i.names[r.link("other0").Attrs().Index] = "" // as maps of another layout say
		}
		stop = r.serve(i)
		if got := r.filters("other0"); !slices.Equal(got, was) {
			t.Fatalf("restart %d: filters %v, want %v", n+1, got, was)
		}
	}
	r.must(i.Apply([]Port{port1}, []Rest{rest0}))
	if got := r.filters("other0"); got != nil {
		t.Errorf("no attachment is left: filters %v", got)
	}
}

func TestInterfacesAreListedWhileOthersComeAndGo(t *testing.T) {
	r := newRig(t)
	veth := func(name string) *netlink.Veth {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-end"}
	}
	for n := range 30 { // one message of the kernel doesn't hold them all
		r.must(r.handle.LinkAdd(veth(fmt.Sprint("v", n))))
	}
	var other *netlink.Handle
	r.do(func() (err error) {
		other, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	defer other.Close()
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = other.LinkAdd(veth("comes"))
				_ = other.LinkDel(veth("comes"))
			}
		}
	})
	for range 500 {
		if _, err := linksOf(r.handle); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	wait.Wait()
}
