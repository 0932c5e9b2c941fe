package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/nft"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge makes a bridge with ports p0, p1 and so on, whose other ends are q0, q1.
func (r *rig) bridge(name string, ports ...int) {
	r.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		r.Skip("needs nft: scripts/setup installs it")
	}
	r.must(r.handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	r.must(r.handle.LinkSetUp(r.link(name)))
	for _, n := range ports {
		port, end := fmt.Sprint("p", n), fmt.Sprint("q", n)
		r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: end}))
		r.must(r.handle.LinkSetMaster(r.link(port), r.link(name)))
		r.must(r.handle.LinkSetUp(r.link(port)))
		r.must(r.handle.LinkSetUp(r.link(end)))
	}
	for _, n := range ports { // a port forwards some time after it came up
		r.wait(func() bool { return r.link(fmt.Sprint("p", n)).Attrs().OperState == netlink.OperUp })
	}
}

func (r *rig) wait(condition func() bool) {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.Fatal("not within 10 s")
		}
	}
}

// crosses sends a frame to all from behind a port, and tells whether it comes out behind another. Where it must, it waits.
func (r *rig) crosses(from, to int, must bool) (arrived bool) {
	r.Helper()
	frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, byte(from), 0x88, 0xb5)
	frame = append(frame, make([]byte, 46)...)
	r.do(func() error {
		out, err := listen(r.link(fmt.Sprint("q", to)).Attrs().Index)
		if err != nil {
			return err
		}
		defer unix.Close(out)
		in := r.link(fmt.Sprint("q", from)).Attrs().Index
		if err := unix.Sendto(out, frame, 0, &unix.SockaddrLinklayer{Ifindex: in}); err != nil {
			return err
		}
		seen := make([]byte, 128)
		for end := time.Now().Add(patienceFor(must)); time.Now().Before(end) && !arrived; {
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(out), Events: unix.POLLIN}}, 10); n > 0 {
				n, _, _ := unix.Recvfrom(out, seen, 0)
				arrived = arrived || n > 0 && bytes.Equal(seen[:14], frame[:14])
			}
		}
		return nil
	})
	return arrived
}

// patienceFor is how long a test waits for a frame, which must come or must not.
func patienceFor(must bool) time.Duration {
	if must {
		return time.Minute
	}
	return 150 * time.Millisecond
}

func (r *rig) tables() (printed string) {
	r.Helper()
	r.do(func() (err error) {
		printed, err = nft.Run("list tables")
		return err
	})
	return printed
}

func TestWhatIsShutStaysClosedUntilAPortStandsThere(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	r.bridge("br1", 2, 3)
	if !r.crosses(0, 1, true) || !r.crosses(2, 3, true) {
		t.Fatal("nothing crosses an open bridge")
	}
	at := []Port{{Bridge: "br0", Guest: "somebody"}}
	r.must(Shut(r.namespace, at))
	if r.crosses(0, 1, false) || !r.crosses(2, 3, true) {
		t.Error("a guest's port is open, or that of a bridge that nobody named is closed")
	}
	i := r.open()
	if !i.Adopted() {
		t.Error("a start that fails would open what was closed")
	}
	i.Close()
	done, err := Detach(r.namespace)
	r.must(err)
	if !done.Tables || r.tables() != "" || !r.crosses(0, 1, true) {
		t.Errorf("detach left %q", r.tables())
	}

	r.must(Shut(r.namespace, []Port{{Interface: "p0", Shut: true}, {Interface: "p2"}}))
	if r.crosses(0, 1, false) || r.crosses(1, 0, false) || !r.crosses(2, 3, true) {
		t.Error("an interface that was named is open, or another one is closed")
	}
	if err := Shut(r.namespace, []Port{{Interface: `p0"`, Shut: true}}); err == nil || !strings.Contains(err.Error(), "letters, digits") {
		t.Errorf("a name that nft would read otherwise: %v", err)
	}
}

// A port that is called as VLAN 5 on another one stands for it: not every kernel has VLANs.
func TestTheVLANsOfAClosedInterfaceAreClosed(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1, 2)
	r.must(errors.Join(r.handle.LinkSetDown(r.link("p1")), r.handle.LinkSetName(r.link("p1"), "p0.5"), r.handle.LinkSetUp(r.link("p0.5"))))
	r.wait(func() bool { return r.link("p0.5").Attrs().OperState == netlink.OperUp })
	if !r.crosses(1, 2, true) {
		t.Fatal("nothing crosses an open bridge")
	}
	const longest = "a23456789012345" // no VLAN's name can begin with it
	r.must(Shut(r.namespace, []Port{{Interface: "p0", Shut: true}, {Interface: longest, Shut: true}}))
	if r.crosses(1, 2, false) || r.crosses(2, 1, false) {
		t.Error("a VLAN on a closed interface is open")
	}
	r.must(Shut(r.namespace, []Port{{Interface: "p2x", Shut: true}}))
	if !r.crosses(1, 2, true) {
		t.Error("one on another interface is closed")
	}
}

func TestTablesThatSomebodyRemovedComeBack(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	p := Port{Interface: "p0", Shut: true, Device: "nsgd0"}
	r.must(errors.Join(i.Guard([]Port{p}), i.Apply([]Port{p}, []Rest{rest0})))
	before := r.tables()
	r.do(func() error { _, err := nft.Run("delete table bridge " + table); return err })
	var told []error
	i.mend(func(err error) { told = append(told, err) })
	if r.tables() != before || before == "" || len(told) != 1 || !errors.Is(told[0], ErrMended) {
		t.Errorf("tables %q, before %q; told %v", r.tables(), before, told)
	}
	r.do(func() error { _, err := nft.Run("delete table bridge " + table); return err })
	i.table = "" // as a later run that finds the other table
	r.must(i.Apply(nil, []Rest{rest0}))
	if r.tables() != "" {
		t.Errorf("without ports the tables %q are left", r.tables())
	}
}

func TestTablesThatSomebodyChangedComeBack(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	p := Port{Interface: "p0", Shut: true, Device: "nsgd0"}
	r.must(errors.Join(i.Guard([]Port{p}), i.Apply([]Port{p}, []Rest{rest0})))
	listed := func() (list map[string]string) {
		r.do(func() (err error) { list, err = ourTables(); return err })
		return list
	}
	mended := func() (told []error) {
		i.mend(func(err error) { told = append(told, err) })
		return told
	}
	before := listed()
	if told := mended(); len(before) != 2 || len(told) > 0 {
		t.Fatalf("nobody changed anything: told %v, tables %v", told, before)
	}
	for _, change := range []string{
		"flush chain bridge nsgd receive", "flush table inet nsgd", "insert rule inet nsgd send accept",
		"add element bridge nsgd attached { 1 }", "delete element inet nsgd names { p0 }", "add table inet nsgd { flags dormant; }",
		"delete chain bridge nsgd send",
	} {
		t.Run(change, func(t *testing.T) {
			r.do(func() error { _, err := nft.Run(change); return err })
			told := mended()
			if now := listed(); !maps.Equal(now, before) || len(told) != 1 || !errors.Is(told[0], ErrMended) {
				t.Errorf("told %v; tables %v, want %v", told, now, before)
			}
			if again := mended(); len(again) > 0 {
				t.Errorf("told again: %v", again)
			}
		})
	}
}

func TestATableOfSomebodyElsesStays(t *testing.T) {
	const theirs = "table inet nsgd {\n\tchain theirs {\n\t}\n}\n"
	r := newRig(t)
	r.bridge("br0", 0)
	r.do(func() error { _, err := nft.Run(theirs); return err })
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	at := []Port{{Interface: "p0", Shut: true, Device: "nsgd0"}}
	for name, err := range map[string]error{"guard": i.Guard(at), "apply": i.Apply(at, []Rest{rest0}), "shut": Shut(r.namespace, at)} {
		if !errors.Is(err, nft.ErrTheirs) || !strings.Contains(fmt.Sprint(err), "table inet nsgd of nft") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	r.must(i.Apply(nil, []Rest{rest0})) // no port needs a table
	r.do(func() error {
		removed, err := open() // as a detach does
		now, gone := nft.Run("list table inet nsgd")
		if removed || now != theirs {
			t.Errorf("it is %q now, removed: %v", now, removed)
		}
		return errors.Join(err, gone)
	})
}

func TestTheRulesTellBridgesApart(t *testing.T) {
	c := closed{names: []string{"tap1"}, bridges: []string{"br0"}}
	for _, tt := range []struct {
		family       string
		tellsBridges bool
		want         string
	}{
		{"bridge", true, "    meta iif @attached accept\n    meta iifname \"tap1.*\" drop\n    meta iifname @names drop\n    meta ibrname @bridges meta iifkind { \"veth\", \"tun\" } drop\n"},
		{"bridge", false, "    meta oif @attached accept\n    meta oifname \"tap1.*\" drop\n    meta oifname @names drop\n    meta oifkind { \"veth\", \"tun\" } drop\n"},
		{"inet", true, "    meta oif @attached accept\n    meta oifname \"tap1.*\" drop\n    meta oifname @names drop\n  }\n"},
	} {
		if got := c.rules(tt.family, []int{3, 7}, tt.tellsBridges); !strings.Contains(got, tt.want) || !strings.Contains(got, "elements = { 3, 7 }") {
			t.Errorf("%s lacks\n%s", got, tt.want)
		}
	}
}

func TestANamespaceOfTheSameNameIsAnother(t *testing.T) {
	r := newRig(t)
	i := r.open()
	r.must(i.do(func() error { return nil }))
	state, err := tun.OpenState(t.TempDir())
	r.must(err)
	defer state.Close()
	r.must(exec.Command("ip", "netns", "del", r.namespace).Run())
	if err := i.do(func() error { return nil }); !errors.Is(err, errGone) {
		t.Errorf("error %v, want %v", err, errGone)
	}
	r.must(state.CreateNamespace(r.namespace))
	if err := i.do(func() error { return nil }); !errors.Is(err, errGone) {
		t.Errorf("another namespace of that name: error %v, want %v", err, errGone)
	}
	r.must(state.RemoveNamespace(r.namespace))
}

// Bridges hand frames to groups of their own, such as LLDP's, to the host as coming from the port itself.
func TestAClosedGuestReachesThisHostByNoGroupOfBridges(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0)
	r.must(r.handle.AddrAdd(r.link("br0"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 1, 1), Mask: net.CIDRMask(24, 32)}}))
	var host net.PacketConn
	r.do(func() (err error) {
		host, err = net.ListenPacket("udp4", "10.0.1.1:7")
		return err
	})
	defer host.Close()
	arrives := func(group byte, must bool) bool {
		out := gopacket.NewSerializeBuffer()
		ethernet := &layers.Ethernet{SrcMAC: r.link("q0").Attrs().HardwareAddr, DstMAC: net.HardwareAddr{1, 0x80, 0xc2, 0, 0, group}, EthernetType: layers.EthernetTypeIPv4}
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(10, 0, 1, 4), DstIP: net.IPv4(10, 0, 1, 1)}
		udp := &layers.UDP{SrcPort: 7, DstPort: 7}
		r.must(udp.SetNetworkLayerForChecksum(ip))
		r.must(gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ethernet, ip, udp))
		r.do(func() error {
			fd, err := listen(r.link("q0").Attrs().Index)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, out.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: r.link("q0").Attrs().Index})
		})
		host.SetReadDeadline(time.Now().Add(patienceFor(must)))
		_, _, err := host.ReadFrom(make([]byte, 8))
		return err == nil
	}
	const others, lldp = 3, 14 // the bridge has a hook for the others
	if !arrives(others, true) || !arrives(lldp, true) {
		t.Fatal("nothing arrives at an open bridge")
	}
	for _, p := range []Port{{Bridge: "br0", Guest: "somebody"}, {Interface: "p0", Shut: true}} {
		r.must(Shut(r.namespace, []Port{p}))
		if arrives(others, false) || arrives(lldp, false) {
			t.Errorf("%s: a closed guest reaches this host", &p)
		}
	}
}

func TestAClosedGuestTeachesTheBridgeNoMACOfOthers(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	victim := net.HardwareAddr{2, 9, 9, 9, 9, 9}
	learned := func() (at []int) {
		frame := slices.Concat([]byte{1, 0x80, 0xc2, 0, 0, 14}, victim, []byte{0x88, 0xb5}, make([]byte, 46))
		end := r.link("q0").Attrs().Index
		r.do(func() error {
			fd, err := listen(end)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: end})
		})
		list, err := r.handle.NeighList(0, unix.AF_BRIDGE)
		r.must(err)
		for _, n := range list {
			if bytes.Equal(n.HardwareAddr, victim) {
				at = append(at, n.LinkIndex)
			}
		}
		return at
	}
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	list := []Port{{Bridge: "br0", Guest: "vm1", Wait: true, Device: "nsgd0"}}
	r.must(errors.Join(i.Guard(list), i.Apply(list, []Rest{rest0})))
	if at := learned(); len(at) > 0 {
		t.Errorf("it is learned at %v", at)
	}
	r.must(r.handle.LinkSetNoMaster(r.link("p1")))
	r.must(i.shut(list, nil))
	if r.filters("p1") != nil || r.filters("p0") == nil {
		t.Errorf("filters %v of a port that left, and %v", r.filters("p1"), r.filters("p0"))
	}
	r.must(i.Apply(nil, []Rest{rest0}))
	if r.filters("p0") != nil || r.tables() != "" {
		t.Errorf("no attachment is left: filters %v", r.filters("p0"))
	}
	r.eventually("an open guest teaches the bridge", func() bool { return len(learned()) == 1 })
}
