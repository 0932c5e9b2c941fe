package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addrGenModeNone (IN6_ADDR_GEN_MODE_NONE) keeps the kernel from giving the interface a
// link-local address. Without that address it does not solicit routers.
const addrGenModeNone = 1

// configure runs inside the namespace once the interface is there.
func (d *kernelDevice) configure() error {
	if err := d.size(); err != nil {
		return err
	}
	if err := d.silenceIPv6(); err != nil {
		return err
	}
	if err := d.bringUp(); err != nil {
		return err
	}
	return d.setAddresses(d.config.Addresses)
}

// configureNew is configure for an interface that this device has made. There may be thousands: so it asks the kernel for
// nothing that a new interface can't have, since the answer would list the whole namespace, and sets at once what it can.
func (d *kernelDevice) configureNew() error {
	index, err := d.index()
	if err != nil {
		return err
	}
	d.link = &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: d.config.Name, Index: index}}
	speaksIPv6 := d.config.MTU >= MinMTU6 && d.hasIPv6() // the kernel ends IPv6 below that
	if err := d.sizeNew(speaksIPv6); err != nil {
		return err
	}
	if speaksIPv6 {
		if err := d.switchOffIPv6(); err != nil {
			return err
		}
	}
	if err := d.bringUp(); err != nil {
		return err
	}
	return d.setNewAddresses()
}

// sizeNew does what size does, and the first step of silenceIPv6 if the interface speaks IPv6, in one request.
func (d *kernelDevice) sizeNew(speaksIPv6 bool) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(d.link.Attrs().Index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(d.config.MTU))))
	request.AddData(nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(d.config.TxQueueLen))))
	if speaksIPv6 {
		families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenModeNone))
		request.AddData(families)
	}
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set mtu %d, transmit queue length %d and addrgenmode none: %w", d.config.MTU, d.config.TxQueueLen, err)
	}
	return nil
}

// bringUp brings the interface up, and the loopback interface before it.
func (d *kernelDevice) bringUp() error {
	if d.config.Loopback {
		if err := d.loopbackUp(); err != nil {
			return err
		}
	}
	if err := d.withoutQdisc(); err != nil {
		return err
	}
	if err := d.handle.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

// setNewAddresses is setAddresses for an interface that has neither address nor route.
func (d *kernelDevice) setNewAddresses() error {
	ipv6 := slices.ContainsFunc(d.config.Addresses, isIPv6)
	if ipv6 {
		if err := d.enableIPv6(true); err != nil {
			return err
		}
	}
	for _, p := range d.config.Addresses {
		if err := d.add(p); err != nil {
			return err
		}
	}
	if err := d.awaitIPv6(d.config.Addresses); err != nil {
		return err
	}
	return d.addRoutes(ipv6)
}

// withoutQdisc has the kernel make no queueing discipline when the interface comes up. Packets wait in the device's own
// queues. The kernel's default would hold three more of that length for each of the 256 queues that a device may have:
// 100 MB of its memory at 16,384 packets. What somebody has set stays.
func (d *kernelDevice) withoutQdisc() error {
	err := d.handle.QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: d.link.Attrs().Index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue"})
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EOPNOTSUPP) { // a kernel may have no queueing disciplines
		return fmt.Errorf("set noqueue: %w", err)
	}
	return nil
}

// size gives the interface its MTU and the length of its queues.
func (d *kernelDevice) size() error {
	if is := d.link.Attrs(); is.MTU != d.config.MTU {
		if err := d.handle.LinkSetMTU(d.link, d.config.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", d.config.MTU, err)
		}
	}
	if is := d.link.Attrs(); is.TxQLen != d.config.TxQueueLen {
		if err := d.handle.LinkSetTxQLen(d.link, d.config.TxQueueLen); err != nil {
			return fmt.Errorf("set transmit queue length %d: %w", d.config.TxQueueLen, err)
		}
	}
	return nil
}

// silenceIPv6 stops what the kernel would send by itself and no policy mentions: router
// solicitations and multicast reports. A kernel without IPv6 is silent already.
func (d *kernelDevice) silenceIPv6() error {
	if !d.hasIPv6() {
		return nil
	}
	if err := d.handle.LinkSetIP6AddrGenMode(d.link, addrGenModeNone); err != nil {
		return fmt.Errorf("set addrgenmode none: %w", err)
	}
	return d.switchOffIPv6()
}

// switchOffIPv6 switches IPv6 off until there is an address. From then on nobody is asked for a router.
func (d *kernelDevice) switchOffIPv6() error {
	for _, key := range []string{"accept_ra", "router_solicitations"} {
		if err := d.writeIPv6(key, "0"); err != nil {
			return err
		}
	}
	return d.enableIPv6(false)
}

func (d *kernelDevice) hasIPv6() bool {
	_, err := os.Stat(d.ipv6Path("disable_ipv6"))
	return err == nil
}

func (d *kernelDevice) ipv6Path(key string) string {
	return filepath.Join("/proc/sys/net/ipv6/conf", d.config.Name, key)
}

// writeIPv6 sets a sysctl of the interface. A read-only /proc/sys, as containers often have,
// is no error: addrgenmode none silences the most.
func (d *kernelDevice) writeIPv6(key, value string) error {
	err := os.WriteFile(d.ipv6Path(key), []byte(value), 0)
	if errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// enableIPv6 switches IPv6 on the interface; without it the kernel has nothing to say.
func (d *kernelDevice) enableIPv6(on bool) error {
	if on {
		return d.writeIPv6("disable_ipv6", "0")
	}
	return d.writeIPv6("disable_ipv6", "1")
}

// loopbackUp brings up lo, unless it is up.
func (d *kernelDevice) loopbackUp() error {
	request, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(d.stats.fd, unix.SIOCGIFFLAGS, request)
	}
	if err == nil && request.Uint16()&unix.IFF_UP == 0 {
		request.SetUint16(request.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(d.stats.fd, unix.SIOCSIFFLAGS, request)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// setAddresses runs inside the namespace. It adds before it removes, so that a host whose prefix
// changes always has an address. It adds again afterwards: with an IPv4 address the kernel also
// removes the ones that it counts as secondary to it.
func (d *kernelDevice) setAddresses(wanted []netip.Prefix) error {
	if slices.ContainsFunc(wanted, isIPv6) {
		if err := d.enableIPv6(true); err != nil {
			return err
		}
	}
	if err := d.addMissing(wanted); err != nil {
		return err
	}
	for _, p := range slices.Clone(d.added) {
		if slices.Contains(wanted, p) {
			continue
		}
		err := d.handle.AddrDel(d.link, &netlink.Addr{IPNet: ipNet(p)})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // it is gone already
			return fmt.Errorf("remove address %v: %w", p, err)
		}
		d.added = slices.DeleteFunc(d.added, func(q netip.Prefix) bool { return q == p })
	}
	if err := d.addMissing(wanted); err != nil {
		return err
	}
	if err := d.awaitIPv6(wanted); err != nil {
		return err
	}
	return d.setRoutes()
}

// ipv6Patience bounds awaitIPv6. The kernel usually takes milliseconds; its work queue waits while others change networks.
const ipv6Patience = 30 * time.Second

// awaitIPv6 waits until the namespace takes packets for its IPv6 addresses. The kernel lists an
// address before a work queue makes it usable; until then it drops packets for it.
func (d *kernelDevice) awaitIPv6(wanted []netip.Prefix) error {
	end := time.Now().Add(ipv6Patience)
	for _, p := range wanted {
		if !isIPv6(p) {
			continue
		}
		local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: ipNet(netip.PrefixFrom(p.Addr(), 128))}
		for {
			found, err := d.handle.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
			if err != nil {
				return fmt.Errorf("list local routes: %w", err)
			}
			if len(found) > 0 {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("address %v: the kernel has not made it usable for %v", p, ipv6Patience)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// addMissing adds what the interface lacks and remembers it in added.
func (d *kernelDevice) addMissing(wanted []netip.Prefix) error {
	present, err := d.addresses(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, p := range wanted {
		if slices.Contains(present, p) {
			continue
		}
		if err := d.add(p); err != nil {
			return err
		}
	}
	return nil
}

// add adds an address and remembers it in added.
func (d *kernelDevice) add(p netip.Prefix) error {
	address := &netlink.Addr{IPNet: ipNet(p)}
	if isIPv6(p) {
		// Nobody else is on the link. Without the flag the address would be tentative,
		// and so unusable, for a second.
		address.Flags = unix.IFA_F_NODAD
	}
	if err := d.handle.AddrAdd(d.link, address); err != nil {
		return fmt.Errorf("add address %v: %w", p, err)
	}
	if !slices.Contains(d.added, p) {
		d.added = append(d.added, p)
	}
	return nil
}

// addresses lists the interface's addresses.
func (d *kernelDevice) addresses(family int) ([]netip.Prefix, error) {
	list, err := d.handle.AddrList(d.link, family)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var prefixes []netip.Prefix
	for _, a := range list {
		if p := prefixOf(a.IPNet); p.IsValid() {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

// setRoutes adds the configured routes that are missing. The kernel drops an interface's routes
// with its last address, and all IPv6 routes with disable_ipv6. Without IPv6 addresses IPv6 is
// switched off here.
func (d *kernelDevice) setRoutes() error {
	addresses, err := d.addresses(netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	ipv6 := len(addresses) > 0
	if !ipv6 && d.hasIPv6() {
		if err := d.enableIPv6(false); err != nil {
			return err
		}
	}
	return d.addRoutes(ipv6)
}

// addRoutes adds the configured routes that are missing, those of IPv6 where the interface speaks that.
func (d *kernelDevice) addRoutes(ipv6 bool) error {
	for _, p := range d.config.Routes {
		if isIPv6(p) && !ipv6 {
			continue
		}
		if err := d.setRoute(p.Masked()); err != nil {
			return fmt.Errorf("add route %v: %w", p, err)
		}
	}
	return nil
}

// replaceRoutes removes the configured routes that are not wanted any more, and adds what is missing.
func (d *kernelDevice) replaceRoutes(wanted []netip.Prefix) error {
	for _, p := range d.config.Routes {
		if slices.Contains(wanted, p) {
			continue
		}
		route, _ := d.route(p.Masked())
		if err := d.handle.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) { // it is gone already
			return fmt.Errorf("remove route %v: %w", p, err)
		}
	}
	d.config.Routes = wanted
	return d.setRoutes()
}

func (d *kernelDevice) route(p netip.Prefix) (route *netlink.Route, family int) {
	route = &netlink.Route{LinkIndex: d.link.Attrs().Index, Dst: ipNet(p), Scope: netlink.SCOPE_LINK}
	if isIPv6(p) {
		route.Scope = netlink.SCOPE_UNIVERSE
		return route, netlink.FAMILY_V6
	}
	return route, netlink.FAMILY_V4
}

func (d *kernelDevice) setRoute(p netip.Prefix) error {
	route, family := d.route(p)
	present := func() (bool, error) {
		list, err := d.handle.RouteListFiltered(family, route, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		return len(list) > 0, err
	}
	if family == netlink.FAMILY_V6 { // the kernel would take a second one, of another metric than its own has
		if there, err := present(); err != nil || there {
			return err
		}
	}
	err := d.handle.RouteAdd(route)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if there, listed := present(); listed != nil || there {
		return listed
	}
	return fmt.Errorf("another interface has that route: %w", err)
}

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

func prefixOf(n *net.IPNet) netip.Prefix {
	ip, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
