package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// group marks devices of the fabric from their first moment on ("nsgd"); `ip link` shows it. alias is for people.
	group = 0x6e736764
	alias = "nsgd fabric"

	attributeGPE = 27 // IFLA_VXLAN_GPE

	kind            = "vxlan"
	encapsulation   = "none" // of a device of GPE: it has no Ethernet
	addrGenModeNone = 1      // IN6_ADDR_GEN_MODE_NONE: no link-local address, and no solicitations
)

// ErrForeign: the device is somebody else's.
var ErrForeign = errors.New("is there, and nsgd has not made it: give it another name, or remove it")

// isOurs tells a device of the fabric.
func isOurs(l netlink.Link) bool { return l.Type() == kind && l.Attrs().Group == group }

// linksOf are the devices of a namespace. Where others come and go meanwhile the kernel says that the list may lack
// some: it is asked again then.
func linksOf(h *netlink.Handle) (links []netlink.Link, err error) {
	const tries = 20
	for range tries {
		if links, err = h.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return links, nil
}

// device makes VXLAN's device, unless it is there. It must run inside the namespace. mtu is the underlay's less the overhead.
func device(h *netlink.Handle, s *State, mtu int) (netlink.Link, error) {
	links, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if !isOurs(l) {
			if l.Attrs().Name == s.Device {
				return nil, fmt.Errorf("device %q %w", s.Device, ErrForeign)
			}
			continue
		}
		if v, ok := l.(*netlink.Vxlan); ok && l.Attrs().Name == s.Device && v.Port == int(s.Port) && v.FlowBased && l.Attrs().EncapType == encapsulation {
			return l, settle(h, l, mtu)
		}
		if err := h.LinkDel(l); program.Gone(err) != nil { // of an earlier state: it may hold the port
			return nil, fmt.Errorf("device %q: remove: %w", l.Attrs().Name, err)
		}
	}
	if err := create(s.Device, s.Port); err != nil {
		return nil, fmt.Errorf("device %q: %w", s.Device, err)
	}
	l, err := h.LinkByName(s.Device)
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", s.Device, err)
	}
	return l, settle(h, l, mtu)
}

// create makes a VXLAN device of GPE without a VNI of its own, in this thread's namespace. The library knows no GPE.
func create(name string, port uint16) error {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(0))
	data.AddRtAttr(nl.IFLA_VXLAN_FLOWBASED, nl.Uint8Attr(1))
	data.AddRtAttr(attributeGPE, nil)
	r.AddData(info)
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("make a device of VXLAN GPE: %w: a kernel with CONFIG_VXLAN is needed", err)
	case err != nil:
		return fmt.Errorf("make a device of VXLAN GPE: %w", err)
	}
	return nil
}

// settle gives the device its MTU, silences the kernel's IPv6 there and brings it up.
func settle(h *netlink.Handle, l netlink.Link, mtu int) error {
	is := l.Attrs()
	if is.Alias != alias {
		if err := h.LinkSetAlias(l, alias); err != nil {
			return fmt.Errorf("device %q: set alias: %w", is.Name, err)
		}
	}
	if is.MTU != mtu {
		if err := h.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("device %q: set mtu %d: %w", is.Name, mtu, err)
		}
	}
	if is.RawFlags&unix.IFF_UP != 0 {
		return nil
	}
	if path := filepath.Join("/proc/sys/net/ipv6/conf", is.Name, "disable_ipv6"); exists(path) {
		if err := h.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil {
			return fmt.Errorf("device %q: set addrgenmode none: %w", is.Name, err)
		}
		// A read-only /proc/sys, as containers often have, is no error: addrgenmode none silences the most.
		if err := os.WriteFile(path, []byte("1"), 0); err != nil && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("device %q: %w", is.Name, err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("device %q: bring up: %w", is.Name, err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// underlayMTU is that of the device which has the underlay's address.
func underlayMTU(h *netlink.Handle, s *State) (int, error) {
	family := netlink.FAMILY_V4
	if s.Underlay.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := h.AddrList(nil, family)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if !a.IP.Equal(s.Underlay.AsSlice()) {
			continue
		}
		l, err := h.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("underlay %v: %w", s.Underlay, err)
		}
		return l.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("underlay %v: no device of this host has the address: `ip address` lists them", s.Underlay)
}
