package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestOpenConfiguresAndCloseLeavesNothing(t *testing.T) {
	for _, offload := range []Offload{Auto, TSO, Off} {
		for _, queues := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("%v with %d queues", offload, queues), func(t *testing.T) {
				s := newState(t)
				name := uniqueName()
				c := Config{
					Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Offload: offload, Queues: queues,
					Addresses: prefixes("10.0.1.4/24", "10.0.1.5/24", "fd00:1::4/64"), Routes: prefixes("0.0.0.0/0", "::/0"),
					MTU: 1400, TxQueueLen: 1234, Loopback: true,
				}
				// The first use opens descriptors that the runtime keeps.
				if d, _, err := Open(c); err != nil {
					t.Fatal(err)
				} else if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				before := openFiles(t)
				d, level := openDevice(t, c)
				if offload == Off && level != Off || offload == TSO && level > TSO {
					t.Errorf("level %v, asked for %v", level, offload)
				}
				if d.Name() != "eth0" || d.MTU() != 1400 || len(d.Queues()) != queues {
					t.Errorf("%q, mtu %d, %d queues", d.Name(), d.MTU(), len(d.Queues()))
				}
				checkInterface(t, name, c)
				if _, ok := d.Stats(); !ok {
					t.Error("no statistics")
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				if got := devices(t, name); !slices.Equal(got, []string{"lo"}) {
					t.Errorf("left: %v", got)
				}
				if after := openFiles(t); after > before { // fewer: what an earlier test has left is closed now
					t.Errorf("%d files open, %d before", after, before)
				}
				checkClosed(t, d)
			})
		}
	}
}

// checkInterface compares the kernel's view with c.
func checkInterface(t *testing.T, namespace string, c Config) {
	t.Helper()
	inside(t, namespace, func() error {
		link, err := netlink.LinkByName(c.Name)
		if err != nil {
			return err
		}
		a := link.Attrs()
		if a.MTU != c.MTU || a.TxQLen != c.TxQueueLen || a.Flags&net.FlagUp == 0 {
			t.Errorf("mtu %d, queue %d, flags %v", a.MTU, a.TxQLen, a.Flags)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if up := lo.Attrs().Flags&net.FlagUp != 0; up != c.Loopback {
			t.Errorf("lo up: %v", up)
		}
		if got := interfaceAddresses(t, link); !slices.Equal(got, sortedPrefixes(c.Addresses)) {
			t.Errorf("addresses %v, want %v", got, c.Addresses)
		}
		for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
			routes, err := netlink.RouteGet(net.ParseIP(address))
			if err != nil || len(routes) != 1 || routes[0].LinkIndex != a.Index {
				t.Errorf("route to %s: %v, %v", address, routes, err)
			}
		}
		return nil
	})
}

func checkClosed(t *testing.T, d Device) {
	t.Helper()
	for i, q := range d.Queues() {
		if _, err := q.Read(make([]byte, BufferLen)); err != os.ErrClosed {
			t.Errorf("queue %d: read after close: %v", i, err)
		}
		if err := q.Write(make([]byte, 100)); err != os.ErrClosed {
			t.Errorf("queue %d: write after close: %v", i, err)
		}
	}
	if _, ok := d.Stats(); ok {
		t.Error("statistics after close")
	}
	if err := d.SetAddresses(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("set addresses after close: %v", err)
	}
	if err := d.Close(); err != os.ErrClosed {
		t.Errorf("second close: %v", err)
	}
}

func inside(t testing.TB, namespace string, f func() error) {
	t.Helper()
	if err := Do(namespace, f); err != nil {
		t.Fatal(err)
	}
}

func sortedPrefixes(list []netip.Prefix) []netip.Prefix {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return list
}

func interfaceAddresses(t testing.TB, link netlink.Link) []netip.Prefix {
	t.Helper()
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Error(err)
	}
	var got []netip.Prefix
	for _, a := range list {
		got = append(got, netip.MustParsePrefix(a.IPNet.String()))
	}
	return sortedPrefixes(got)
}

func TestSetAddressesMovesBetweenSetsAndLeavesStrangers(t *testing.T) {
	s := newState(t)
	name := uniqueName()
	d, _ := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Routes: prefixes("0.0.0.0/0", "::/0")})
	const foreign = "172.16.0.9/30"
	inside(t, name, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		address, err := netlink.ParseAddr(foreign)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, address)
	})
	steps := []struct {
		name string
		set  []netip.Prefix
	}{
		{"none to two of one network", prefixes("10.0.0.4/24", "10.0.0.5/24")},
		{"the same again", prefixes("10.0.0.4/24", "10.0.0.5/24")},
		{"the primary goes and its secondary stays", prefixes("10.0.0.5/24")},
		{"IPv6 comes", prefixes("10.0.0.5/24", "fd00::5/64", "fd00::6/128")},
		{"the prefix length changes", prefixes("10.0.0.5/16", "fd00::5/64")},
		{"IPv6 goes", prefixes("10.0.0.5/16")},
		{"all go", nil},
		{"IPv6 alone", prefixes("fd00::5/64")},
		{"a stranger's address is adopted", prefixes(foreign)},
		{"and let go without being removed", nil},
	}
	for _, step := range steps {
		if err := d.SetAddresses(step.set); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		inside(t, name, func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			want := slices.Clone(step.set)
			if !slices.Contains(want, netip.MustParsePrefix(foreign)) {
				want = append(want, netip.MustParsePrefix(foreign))
			}
			if got := interfaceAddresses(t, link); !slices.Equal(got, sortedPrefixes(want)) {
				t.Errorf("%s: addresses %v, want %v", step.name, got, want)
			}
			ipv6 := slices.ContainsFunc(step.set, isIPv6)
			for address, routed := range map[string]bool{"192.0.2.1": true, "2001:db8::1": ipv6} {
				_, err := netlink.RouteGet(net.ParseIP(address))
				if (err == nil) != routed {
					t.Errorf("%s: route to %s: %v", step.name, address, err)
				}
			}
			return nil
		})
	}
	if err := d.SetAddresses(prefixes("10.0.0.1/24", "10.0.0.1/25")); !errors.Is(err, ErrConfig) {
		t.Errorf("one address twice: %v", err)
	}
}

func TestADeviceNameInUse(t *testing.T) {
	for _, queues := range []int{1, 2} {
		for _, offload := range []Offload{Auto, Off} {
			s := newState(t)
			c := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Queues: queues, Offload: offload}
			openDevice(t, c)
			_, _, err := Open(c)
			if !errors.Is(err, ErrDeviceExists) || !strings.Contains(err.Error(), c.Namespace) || !strings.Contains(err.Error(), "eth0") {
				t.Errorf("%v, %d queues: got %v, want ErrDeviceExists with the place", offload, queues, err)
			}
			if got := devices(t, c.Namespace); len(got) != 2 {
				t.Errorf("the first device is gone: %v", got)
			}
		}
	}
}

func TestARouteThatAnotherInterfaceHasIsNamed(t *testing.T) {
	s := newState(t)
	c := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Routes: prefixes("192.0.2.0/24")}
	openDevice(t, c)
	c.Name = "eth1"
	_, _, err := Open(c)
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "192.0.2.0/24") {
		t.Errorf("got %v", err)
	}
	if got := devices(t, c.Namespace); !slices.Equal(got, []string{"eth0", "lo"}) {
		t.Errorf("devices: %v", got)
	}
}

func TestADeviceRemovesTheNamespaceThatItMadeWithoutAState(t *testing.T) {
	needRoot(t)
	name := uniqueName()
	d, _ := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true})
	if !namespaceExists(name) {
		t.Fatal("not made")
	}
	if err := d.Close(); err != nil || namespaceExists(name) {
		t.Errorf("close: %v", err)
	}
	// A step that fails after the namespace was made takes it along.
	_, _, err := Open(Config{Name: "lo", Namespace: name, CreateNamespace: true})
	if !errors.Is(err, ErrDeviceExists) || namespaceExists(name) {
		t.Errorf("failed open: %v; namespace there: %v", err, namespaceExists(name))
	}
}

func TestADeviceInTheOwnNamespace(t *testing.T) {
	needRoot(t)
	name := "ng" + uniqueName()[len(uniqueName())-8:]
	d, _ := openDevice(t, Config{Name: name})
	if _, err := net.InterfaceByName(name); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName(name); err == nil {
		t.Error("still there")
	}
}

func TestWithoutAnIPv6AddressTheKernelSaysNothing(t *testing.T) {
	s := newState(t)
	d, _ := openDevice(t, Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Addresses: prefixes("10.0.0.4/24")})
	inside(t, d.(*kernelDevice).config.Namespace, func() error {
		for _, key := range []string{"disable_ipv6", "accept_ra", "router_solicitations"} {
			path := filepath.Join("/proc/sys/net/ipv6/conf/eth0", key)
			text, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				return nil // the kernel has no IPv6, and nothing to say
			}
			want := map[string]string{"disable_ipv6": "1", "accept_ra": "0", "router_solicitations": "0"}[key]
			if got := strings.TrimSpace(string(text)); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %s", key, got, err, want)
			}
		}
		return nil
	})
}

func TestTheOffloadLadderTakesWhatTheKernelGrants(t *testing.T) {
	needRoot(t)
	refuse := func(refused ...uint32) func(int, uint32) error {
		return func(fd int, mask uint32) error {
			if slices.Contains(refused, mask) {
				return unix.EINVAL
			}
			return setOffload(fd, mask)
		}
	}
	without := func(flag uint32) func() (uint32, error) {
		return func() (uint32, error) {
			flags, err := tunFeatures(tunPath)
			return flags &^ flag, err
		}
	}
	all := without(0)
	tests := []struct {
		name   string
		kernel kernel
		ask    Offload
		want   Offload
	}{
		{"a kernel before 6.2 has no USO", kernel{features: all, setOffload: refuse(usoMask)}, Auto, TSO},
		{"one that refuses every mask gets a plain device", kernel{features: all, setOffload: refuse(usoMask, tsoMask)}, Auto, Off},
		{"TSO refused where it was asked for", kernel{features: all, setOffload: refuse(tsoMask)}, TSO, Off},
		{"no virtio-net header at all", kernel{features: without(unix.IFF_VNET_HDR), setOffload: refuse()}, Auto, Off},
		{"off asks nothing", kernel{features: all, setOffload: func(int, uint32) error { t.Error("asked"); return nil }}, Off, Off},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, level, err := test.kernel.open(Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, Queues: 2, Offload: test.ask})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			_, plain := d.Queues()[1].(*plainQueue)
			if level != test.want || plain != (level == Off) || len(d.Queues()) != 2 {
				t.Errorf("level %v, want %v; plain queues: %v", level, test.want, plain)
			}
		})
	}
	t.Run("any other refusal is an error", func(t *testing.T) {
		k := kernel{features: all, setOffload: func(int, uint32) error { return unix.EPERM }}
		_, _, err := k.open(Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true})
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("several queues without multi-queue are an error", func(t *testing.T) {
		k := kernel{features: without(unix.IFF_MULTI_QUEUE), setOffload: refuse()}
		_, _, err := k.open(Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, Queues: 2})
		if !errors.Is(err, ErrConfig) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAMachineWithoutTUN(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tun")
	k := kernel{features: func() (uint32, error) { return tunFeatures(path) }}
	_, _, err := k.open(Config{Name: "eth0"})
	if !errors.Is(err, ErrNoTUN) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("missing: got %v, want ErrNoTUN with what to do", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.open(Config{Name: "eth0"}); !errors.Is(err, ErrNoTUN) {
		t.Errorf("another file in its place: got %v, want ErrNoTUN", err)
	}
}

func TestAUserWithoutPrivilege(t *testing.T) {
	needRoot(t)
	done := make(chan error)
	go func() {
		// Capabilities belong to the thread, which ends with this goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		err := unix.Capget(&header, &sets[0])
		sets[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err = errors.Join(err, unix.Capset(&header, &sets[0])); err == nil {
			_, _, err = Open(Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true})
		}
		done <- err
	}()
	err := <-done
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("got %v, want a permission error that says what is needed", err)
	}
}

func TestQueuesOfARemovedInterfaceEnd(t *testing.T) {
	for _, offload := range []Offload{Auto, Off} {
		t.Run(offload.String(), func(t *testing.T) {
			s := newState(t)
			name := uniqueName()
			d, _ := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Offload: offload})
			p := newPoller(t, d.Queues())
			inside(t, name, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
			q := d.Queues()[0]
			if _, err := q.Read(make([]byte, BufferLen)); err != os.ErrClosed {
				t.Errorf("read: %v", err)
			}
			if err := q.Write(make([]byte, 100)); err != os.ErrClosed {
				t.Errorf("write: %v", err)
			}
			if ready, _, err := p.Wait(0, nil, nil); err != nil || !slices.Equal(ready, []int{0}) {
				t.Errorf("the poller must report it: %v, %v", ready, err)
			}
			if err := p.Remove(0); err != nil {
				t.Error(err)
			}
			if ready, _, _ := p.Wait(0, nil, nil); len(ready) != 0 {
				t.Errorf("after Remove: %v", ready)
			}
			if _, ok := d.Stats(); ok {
				t.Error("statistics of nothing")
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestQueuesRefuseFramesThatAreNone(t *testing.T) {
	needRoot(t)
	for _, offload := range []Offload{Auto, Off} {
		d, level := openDevice(t, Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, Offload: offload})
		q := d.Queues()[0]
		for _, n := range []int{0, HeaderLen, BufferLen + 1} {
			if err := q.Write(make([]byte, n)); err != ErrFrame {
				t.Errorf("%v: write of %d bytes: %v", level, n, err)
			}
		}
		if _, err := q.Read(make([]byte, HeaderLen)); err != ErrFrame {
			t.Errorf("%v: read into a header's room: %v", level, err)
		}
		if err := q.Write(make([]byte, 100)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%v: a packet of IP version 0: %v, want the kernel's EINVAL", level, err)
		}
		if level != Off {
			continue
		}
		frame := make([]byte, HeaderLen+60)
		(&Header{GSOType: GSOTCPv4, GSOSize: 20}).Encode((*[HeaderLen]byte)(frame))
		if err := q.Write(frame); err != ErrFrame {
			t.Errorf("a superpacket without what its header promises: %v", err)
		}
		(&Header{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 39}).Encode((*[HeaderLen]byte)(frame))
		if err := q.Write(frame); err != ErrFrame {
			t.Errorf("a checksum outside the packet: %v", err)
		}
	}
}

func TestIproute2SeesTheDevice(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal("needs iproute2, which scripts/setup installs: ", err)
	}
	s := newState(t)
	name := uniqueName()
	openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Queues: 2, Addresses: prefixes("10.0.0.4/24")})
	out, err := exec.Command(ip, "netns", "exec", name, ip, "-d", "addr", "show", "dev", "eth0").CombinedOutput()
	for _, want := range []string{"10.0.0.4/24", "UP", "persist off", "multi_queue", "pi off"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: want %q in\n%s", err, want, out)
		}
	}
}

func TestSuperpacketsThatTheKernelRefusesArriveInPieces(t *testing.T) {
	needRoot(t)
	name := uniqueName()
	d, level := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, Addresses: prefixes("fd00::4/64"), Loopback: true})
	if level < TSO {
		t.Fatalf("level %v: this kernel has no offload", level)
	}
	q := d.Queues()[0]
	var receiver *net.UDPConn
	err := Do(name, func() (err error) {
		receiver, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP("fd00::4")})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	port := uint16(receiver.LocalAddr().(*net.UDPAddr).Port)
	const size, segments = 100, 3
	p := packettest.UDP(packettest.Spec{Src: "fd00::5", Dst: "fd00::4", SrcPort: 9, DstPort: port, Payload: size * segments})
	frame := packettest.Superpacket(p, GSOUDPL4, size)
	for i := range refusals + 4 {
		// Headers longer than the packet: EINVAL.
		spoiled := slices.Clone(frame)
		var h Header
		h.Decode((*[HeaderLen]byte)(spoiled))
		h.HdrLen = 0xffff
		h.Encode((*[HeaderLen]byte)(spoiled))
		if i%2 == 0 {
			err = q.WriteParts([][]byte{spoiled[:100], spoiled[100:200], spoiled[200:]})
		} else {
			err = q.Write(spoiled)
		}
		if err != nil {
			t.Fatalf("superpacket %d: %v", i, err)
		}
		buf := make([]byte, 2000)
		for range segments {
			receiver.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := receiver.Read(buf); err != nil || n != size {
				t.Fatalf("superpacket %d: a datagram of %d bytes, %v", i, n, err)
			}
		}
		if got := q.Offload(); i < refusals-1 && got != level || i >= refusals-1 && got != TSO {
			t.Fatalf("after %d refusals the queue takes %v", i+1, got)
		}
	}
}
