package intercept

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
)

// told gathers what is told.
type told []string

func (l *told) tell(err error) { *l = append(*l, err.Error()) }

func (l *told) has(t *testing.T, want string) {
	t.Helper()
	if len(*l) != 1 || !strings.Contains((*l)[0], want) {
		t.Errorf("told %q, want one with %s", *l, want)
	}
}

func TestAnInterfaceWithAnotherNameStaysClosed(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.serve(i)
	r.must(r.handle.LinkSetDown(r.link("guest1")))
	r.must(r.handle.LinkSetName(r.link("guest1"), "other"))
	var said told
	i.changed(&linkChange{Link: r.link("other")}, said.tell)
	said.has(t, `interface "guest1": it is called "other" now`)
	if got := r.filters("other"); len(got) != 2 {
		t.Errorf("filters %v", got)
	}
	var entry portEntry
	if err := i.programs.Ports.Lookup(uint32(r.link("other").Attrs().Index), &entry); err != nil || entry != closedPort("guest1") {
		t.Errorf("it is still served: %v, %v", entry, err)
	}
	r.must(i.Apply([]Port{port0}, []Rest{rest0}))
	if got := r.filters("other"); len(got) != 0 {
		t.Errorf("its attachment is gone, and it has the filters %v", got)
	}
}

func TestFiltersThatSomebodyTookAwayComeBack(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.serve(i)
	there, err := filtersOf(r.handle, r.link("guest0"))
	r.must(err)
	r.must(detach(r.handle, there))
	var said told
	i.mend(said.tell)
	said.has(t, `interface "guest0": somebody changed nsgd's filters`)
	if got := r.filters("guest0"); len(got) != 2 {
		t.Errorf("filters %v", got)
	}
	i.mend(said.tell)
	said.has(t, "") // nothing more
	r.must(r.handle.LinkDel(r.link("guest0")))
	r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "guest0"}, PeerName: "guest1"}))
	i.mend(said.tell)
	said.has(t, "") // one that has just come is no fault
	if got := r.filters("guest0"); len(got) != 2 {
		t.Errorf("filters of one that has come: %v", got)
	}
}

func TestAnInterfaceThatGotAnotherNameMeanwhileIsClosedBeforeDevicesOpen(t *testing.T) {
	r := newRig(t)
	first := r.open()
	stop := r.serve(first)
	first.Close()
	stop()
	r.must(r.handle.LinkSetDown(r.link("guest1")))
	r.must(r.handle.LinkSetName(r.link("guest1"), "other"))
	next := r.open()
	r.must(next.Guard([]Port{port0, port1}))
	var entry portEntry
	if err := next.programs.Ports.Lookup(uint32(r.link("other").Attrs().Index), &entry); err != nil || entry != closedPort("guest1") {
		t.Errorf("it is still served: %v, %v", entry, err)
	}
}

func TestAPortThatBecomesThisHostsHasItsProgramsSwapped(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.serve(i)
	host := port0
	host.Host = true
	r.must(i.Guard([]Port{host, port1}))
	r.must(i.Apply([]Port{host, port1}, []Rest{rest0}))
	if got, want := r.filters("guest0"), []string{"nsgd_receives 1", "nsgd_sends 1"}; !slices.Equal(got, want) {
		t.Errorf("filters %v, want %v", got, want)
	}
}

func TestWhatAnotherVersionHasClosedCountsAsClosed(t *testing.T) {
	r := newRig(t)
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, drop), asm.Return()}})
	r.must(err)
	defer other.Close()
	r.must(attach(r.handle, r.link("guest0"), other, other, [2]string{"nsgd_sends", "nsgd_receives"}))
	i := r.open()
	if !i.Adopted() {
		t.Error("a start that fails would open it")
	}
	r.must(i.Guard([]Port{port0, port1}))
	r.must(i.Again())
	if got := r.filters("guest0"); len(got) != 2 {
		t.Errorf("a reload that was refused has opened it: filters %v", got)
	}
	var said told
	i.changed(nil, said.tell)
	i.mend(said.tell)
	if got := r.filters("guest0"); len(got) != 2 {
		t.Errorf("who watches before something was applied has opened it: filters %v, %v", got, said)
	}
}

func TestAClosedInterceptorTouchesNothing(t *testing.T) {
	r := newRig(t)
	i := r.open()
	i.Close()
	_, checked := i.Check(nil)
	for _, err := range []error{checked, i.Guard(nil), i.Apply(nil, nil), i.Again(), i.OpenAfter(0)} {
		if !errors.Is(err, errClosed) {
			t.Errorf("error %v, want %v", err, errClosed)
		}
	}
	r.must(i.Probe())
}

func TestAnAddressIsBehindOneInterface(t *testing.T) {
	r := newRig(t)
	i := r.open()
	twice := port1
	twice.Addresses = []netip.Addr{port0.Addresses[0]}
	_, err := i.Check([]Port{port0, twice})
	if want := `interface "guest1": 10.0.1.4 is the address of "guest0" too`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAReloadThatWouldCutThisHostOffIsRefused(t *testing.T) {
	r := newRig(t)
	address, err := netlink.ParseAddr("10.0.1.4/24")
	r.must(err)
	r.must(r.handle.AddrAdd(r.link("guest0"), address))
	i := r.open()
	close := r.serve(i)
	defer close()
	host := port0
	host.Host = true
	_, err = i.Check([]Port{host, port1})
	r.must(err)
	r.must(i.Apply([]Port{host, port1}, []Rest{rest0}))
	host.Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.7")}
	_, err = i.Check([]Port{host, port1})
	if want := `interface "guest0": it has the address 10.0.1.4, which the network interface doesn't have in the policy`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAnAlternativeNameIsRefused(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.must(r.handle.LinkAddAltName(r.link("guest0"), "enp0s0"))
	other := port0
	other.Interface = "enp0s0"
	_, err := i.Check([]Port{other})
	if want := `interface "enp0s0": that is an alternative name: use "guest0"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestLostMessagesOfTheKernelCostNoDescriptors(t *testing.T) {
	r := newRig(t)
	i := r.open()
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan error, 64)
	ended := make(chan error, 1)
	go func() { ended <- i.Watch(ctx, func(err error) { told <- err }) }()
	lose := func() {
		i.mu.Lock() // as long as this lasts nobody reads
		for n := range 1500 {
			up := r.handle.LinkSetUp
			if n%2 == 0 {
				up = r.handle.LinkSetDown
			}
			r.must(up(r.link("guest0")))
		}
		i.mu.Unlock()
		<-told
	}
	sockets := func() (n int) {
		list, err := os.ReadDir("/proc/self/fd")
		r.must(err)
		for _, f := range list {
			if to, _ := os.Readlink("/proc/self/fd/" + f.Name()); strings.HasPrefix(to, "socket:") {
				n++
			}
		}
		return n
	}
	before := sockets()
	for range 4 {
		lose()
	}
	r.wait(func() bool { return sockets() <= before+1 }) // that of Watch may not have been open before
	stop()
	r.must(<-ended)
}
