package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

const (
	port   = 4790
	red    = 100 // VNIs, which are those of TUNs of that name
	blue   = 200
	tunMTU = 1400
)

// underlay are hosts on one link, each a namespace.
type underlay struct {
	testing.TB
	hosts  []*host // h1, h2, ...
	bridge string  // the namespace of the link

	gathered atomic.Uint32 // packets of streams
}

// host is one with the NICs 10.0.N.4 and fd00:db8:1:N::4 in both networks.
type host struct {
	*underlay
	number    int
	namespace string
	address   netip.Addr
	handle    *netlink.Handle
	fabric    *Fabric
	queues    map[string]tun.Queue
	devices   map[string]tun.Device
}

var families = []struct {
	name    string
	address string // of hosts, by their number
	bits    int
}{{"IPv4", "192.168.99.%d", 24}, {"IPv6", "fd99::%d", 64}}

// newUnderlay makes n hosts with addresses of a family. mtu 0 is the smallest that takes tunMTU.
func newUnderlay(t testing.TB, n int, address string, mtu int) *underlay {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if mtu == 0 {
		mtu = tunMTU + Overhead(netip.MustParseAddr(fmt.Sprintf(address, 1)))
	}
	state, err := tun.OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	u := &underlay{TB: t, bridge: uniqueName()}
	u.must(state.CreateNamespace(u.bridge))
	link, home := u.handleIn(u.bridge), namespaceOf(t, u.bridge)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "link", MTU: mtu}}
	u.must(link.LinkAdd(bridge))
	u.must(link.LinkSetUp(bridge))
	for i := 1; i <= n; i++ {
		h := &host{underlay: u, number: i, namespace: uniqueName(), address: netip.MustParseAddr(fmt.Sprintf(address, i)), queues: map[string]tun.Queue{}, devices: map[string]tun.Device{}}
		u.must(state.CreateNamespace(h.namespace))
		h.handle = u.handleIn(h.namespace)
		name := fmt.Sprint("port", i)
		u.must(h.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ul", MTU: mtu}, PeerName: name, PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(home)}))
		far, err := link.LinkByName(name)
		u.must(err)
		u.must(link.LinkSetMaster(far, bridge))
		u.must(link.LinkSetUp(far))
		near, err := h.handle.LinkByName("ul")
		u.must(err)
		bits := 24
		flags := 0
		if h.address.Is6() {
			bits, flags = 64, unix.IFA_F_NODAD
		}
		u.must(h.handle.LinkSetIP6AddrGenMode(near, addrGenModeNone)) // a link-local address would come later
		u.must(h.handle.LinkSetUp(near))
		h.eventually("the link", "up", func() string {
			l, err := h.handle.LinkByName("ul")
			u.must(err)
			return l.Attrs().OperState.String()
		})
		lo, err := h.handle.LinkByName("lo")
		u.must(err)
		u.must(h.handle.LinkSetUp(lo))
		// By itself the kernel would send from the first address, or from the last one with IPv6.
		for _, a := range []netip.Addr{netip.MustParseAddr(fmt.Sprintf(address, i+100)), h.address, netip.MustParseAddr(fmt.Sprintf(address, i+200))} {
			u.must(h.handle.AddrAdd(near, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: flags}))
		}
		u.hosts = append(u.hosts, h)
	}
	return u
}

func uniqueName() string { return fmt.Sprintf("nsgd-test-%d-%08x", os.Getpid(), rand.Uint32()) }

func namespaceOf(t testing.TB, name string) int {
	t.Helper()
	ns, err := netns.GetFromName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return int(ns)
}

func (u *underlay) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

func (u *underlay) handleIn(namespace string) (h *netlink.Handle) {
	u.Helper()
	u.must(tun.Do(namespace, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	u.Cleanup(h.Close)
	return h
}

func (h *host) do(f func() error) {
	h.Helper()
	h.must(tun.Do(h.namespace, f))
}

// run runs a command in the host's namespace.
func (h *host) run(command ...string) (printed string) {
	h.Helper()
	h.do(func() error {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		printed = string(out)
		if err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, out)
		}
		return nil
	})
	return printed
}

// device opens a TUN device as the daemon does.
func (h *host) device(name string) {
	h.Helper()
	d, _, err := tun.Open(tun.Config{Name: name, Namespace: h.namespace, MTU: tunMTU})
	h.must(err)
	h.devices[name], h.queues[name] = d, d.Queues()[0]
	h.Cleanup(func() { d.Close() })
}

func (h *host) open() {
	h.Helper()
	f, err := Open(h.namespace)
	h.must(err)
	h.fabric = f
	h.Cleanup(func() { f.Close() })
}

func (h *host) name() string { return fmt.Sprint("h", h.number) }

func (h *host) nic4() string { return fmt.Sprintf("10.0.%d.4", h.number) }
func (h *host) nic6() string { return fmt.Sprintf("fd00:db8:1:%d::4", h.number) }

func prefixOf(a string) netip.Prefix {
	addr := netip.MustParseAddr(a)
	return netip.PrefixFrom(addr, addr.BitLen())
}

// state is what the host carries: both networks of all hosts.
func (h *host) state() State {
	s := State{Underlay: h.address, Port: port, Device: "vx"}
	for _, other := range h.hosts {
		if other != h {
			s.Hosts = append(s.Hosts, Host{other.name(), other.address})
		}
	}
	for _, t := range []Tunnel{{VNI: red, TUN: "red", MTU: tunMTU}, {VNI: blue, TUN: "blue", MTU: tunMTU}} {
		for _, other := range h.hosts {
			for _, nic := range []string{other.nic4(), other.nic6()} {
				if other == h {
					t.Sources = append(t.Sources, Source{prefixOf(nic), ""})
					continue
				}
				t.Routes = append(t.Routes, Route{prefixOf(nic), other.name()})
				t.Sources = append(t.Sources, Source{prefixOf(nic), other.name()})
			}
		}
		s.Tunnels = append(s.Tunnels, t)
	}
	return s
}

// serve applies the state on all hosts.
func (u *underlay) serve() {
	u.Helper()
	for _, h := range u.hosts {
		h.device("red")
		h.device("blue")
		h.open()
		u.must(h.fabric.Apply(h.state()))
	}
}

// send has nsgd of the host write a packet to a TUN.
func (h *host) send(name string, packet []byte) {
	h.Helper()
	h.must(h.queues[name].Write(append(make([]byte, tun.HeaderLen), packet...)))
}

const patience = time.Minute

// receive is the next packet that nsgd of the host reads from a TUN.
func (h *host) receive(name string) []byte {
	h.Helper()
	_, packet := h.receiveFrame(name)
	return packet
}

func (h *host) receiveFrame(name string) (head tun.Header, packet []byte) {
	h.Helper()
	q := h.queues[name]
	buf := make([]byte, tun.BufferLen)
	for end := time.Now().Add(patience); ; {
		n, err := q.Read(buf)
		if err == nil {
			head.Decode((*[tun.HeaderLen]byte)(buf))
			return head, buf[tun.HeaderLen:n]
		}
		if !errors.Is(err, tun.ErrAgain) {
			h.Fatal(err)
		}
		if time.Now().After(end) {
			counts, err := h.fabric.Counts()
			h.Fatalf("%s: nothing came to %s: %+v, %v", h.name(), name, counts, err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 100)
	}
}

// arrives checks that a packet passes from one host to another, and is the next to do so.
func (h *host) arrives(to *host, name string, packet []byte) {
	h.Helper()
	h.send(name, packet)
	if got := to.receive(name); !bytes.Equal(got, packet) {
		h.Fatalf("%s to %s by %s: got %x, want %x", h.name(), to.name(), name, got, packet)
	}
}

// dropped are the drops of a tunnel, as text; vni 0: of none.
func (h *host) dropped(vni uint32) string {
	h.Helper()
	c, err := h.fabric.Counts()
	h.must(err)
	if vni == 0 {
		return fmt.Sprint(c.Unknown.Dropped)
	}
	return fmt.Sprint(c.Tunnels[vni].Dropped)
}

// udp is a datagram that its port tells from others.
func udp(src, dst string, port uint16) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 1111, DstPort: port, Payload: 32})
}

// outer sends a packet of VXLAN GPE from a namespace's own sockets to a host, as who forges would.
func (h *host) outer(to netip.Addr, vni uint32, inner []byte) {
	h.Helper()
	head := []byte{0x0c, 0, 0, 1, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
	if inner[0]>>4 == 6 {
		head[3] = 2
	}
	h.do(func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.address, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(append(head, inner...))
		return err
	})
}

// settles is what the kernel sets some time after a device is up.
var settles = regexp.MustCompile(`qdisc \w+ state \w+|qdisc \w+ 0: dev \S+ root .*`)

// listing is what the tools list of a namespace, without what changes by itself.
func (h *host) listing() string {
	h.Helper()
	var b strings.Builder
	for _, command := range []string{
		"ip -d -o link", "ip -o address", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all",
		"tc qdisc", "tc filter show dev ul ingress", "nft list ruleset", "ip neigh show nud permanent",
	} {
		fmt.Fprintf(&b, "%s:\n%s", command, settles.ReplaceAllString(h.run(strings.Fields(command)...), ""))
	}
	for _, line := range strings.Split(h.run("sysctl", "-a", "--pattern", `^net\.(ipv4|ipv6|core)\.`), "\n") {
		if !strings.Contains(line, "stable_secret") {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}
