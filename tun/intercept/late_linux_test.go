package intercept

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// libvirt limits a machine's bandwidth by a qdisc ingress, on which filters of egress are taken and do nothing.
func TestAnInterfaceThatComesWithAQdiscIngressIsClosedAndOthersAreServed(t *testing.T) {
	r := newRig(t)
	i := r.open()
	for _, name := range []string{"nsgd0", "nsgd1", "nsgd-rest"} {
		r.device(name)
	}
	first, second := port0, port1
	first.Interface, second.Interface = "late0", "late1"
	r.must(i.Apply([]Port{first, second}, []Rest{rest0}))
	r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "late0"}, PeerName: "late1"}))
	r.must(r.handle.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: r.link("late0").Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}))
	var told []error
	i.changed(nil, func(err error) { told = append(told, err) })
	if len(told) != 1 || !strings.Contains(told[0].Error(), `"late0": it has a qdisc ingress`) || errors.Is(told[0], ErrMended) {
		t.Errorf("told %v", told)
	}
	if got, want := r.filters("late0"), []string{"nsgd_sends 2", "nsgd_sends 2"}; !slices.Equal(got, want) {
		t.Errorf("filters %v, want %v", got, want)
	}
	var entry portEntry
	for name, want := range map[string]bool{"late0": false, "late1": true} {
		index := r.link(name).Attrs().Index
		if served := i.programs.Ports.Lookup(uint32(index), &entry) == nil && entry.Flags&flagClosed == 0; served != want || slices.Contains(i.attached, index) != want {
			t.Errorf("%s is served: %v, want %v", name, served, want)
		}
	}
	r.must(i.Apply([]Port{second}, []Rest{rest0}))
	if got := r.filters("late0"); got != nil || r.qdisc("late0") != "ingress" {
		t.Errorf("no attachment is left: filters %v, qdisc %q", got, r.qdisc("late0"))
	}
}

// The programs would read the first bytes of its packets as a header of Ethernet, and let through what looks like no IP.
func TestAnInterfaceThatComesWithoutEthernetIsClosed(t *testing.T) {
	r := newRig(t)
	i := r.open()
	for _, name := range []string{"nsgd0", "nsgd-rest"} {
		r.device(name)
	}
	late := port0
	late.Interface, late.Host = "late0", true
	r.must(i.Apply([]Port{late}, []Rest{rest0}))
	r.do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "late0"}, Mode: netlink.TUNTAP_MODE_TUN})
	})
	var told []error
	i.changed(nil, func(err error) { told = append(told, err) })
	if len(told) == 0 || !strings.Contains(told[0].Error(), `"late0": it is of the kind "tuntap", link type none: an Ethernet interface is needed: it is closed`) {
		t.Errorf("told %v", told)
	}
	index := r.link("late0").Attrs().Index
	var entry portEntry
	if err := i.programs.Ports.Lookup(uint32(index), &entry); err != nil || entry != closedPort("late0") || len(r.filters("late0")) != 2 || slices.Contains(i.attached, index) {
		t.Errorf("it is served: %+v, error %v, filters %v", entry, err, r.filters("late0"))
	}
}

func TestWhatAStartRefusesIsToldOfAnInterfaceThatComesLater(t *testing.T) {
	r := newRig(t)
	i := r.open()
	for _, name := range []string{"nsgd0", "nsgd-rest"} {
		r.device(name)
	}
	late := port0
	late.Interface, late.Host = "late0", true
	r.must(i.Apply([]Port{late}, []Rest{rest0}))
	r.must(r.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "late0", MTU: 1400}, PeerName: "late1"}))
	r.must(r.handle.AddrAdd(r.link("late0"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 9), Mask: net.CIDRMask(24, 32)}}))
	above := r.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "above", ParentIndex: r.link("late0").Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	if errors.Is(above, unix.EOPNOTSUPP) {
		r.Skip("needs a kernel with macvlan")
	}
	r.must(above)
	var told []error
	i.changed(nil, func(err error) { told = append(told, err) })
	shown := r.status(i, "late0").Trouble
	for _, want := range []string{`mtu 1400: nsgd's device "nsgd0" has 1500`, "it has the address 192.0.2.9", `the macvlan "above" stands on it`} {
		if !strings.Contains(fmt.Sprint(told), want) || !strings.Contains(shown, want) {
			t.Errorf("told %v, status %q: want %s", told, shown, want)
		}
	}
	r.must(r.handle.LinkDel(r.link("above")))
	r.must(r.handle.LinkSetMTU(r.link("late0"), 1500))
	if shown = r.status(i, "late0").Trouble; strings.Contains(shown, "mtu") || strings.Contains(shown, "above") {
		t.Errorf("it is over, and status says %q", shown)
	}
}
