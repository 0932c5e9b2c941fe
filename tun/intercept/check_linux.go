package intercept

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
)

// Check says what would defeat the programs at the interfaces of ports, each fault with its interface. mtu is the
// MTU that the interfaces share; 0: none is there.
func (i *Interceptor) Check(ports []Port) (mtu int, err error) {
	i.search(ports)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return 0, errClosed
	}
	if i.gone && len(ports) > 0 {
		return 0, fmt.Errorf("intercept: namespace %q: %w", i.namespace, errGone)
	}
	var faults []error
	seen := map[int]string{}
	owners := map[netip.Addr]string{}
	first := ""
	fail := func(p *Port, format string, args ...any) {
		faults = append(faults, fmt.Errorf("intercept: interface %q: %w", p, fmt.Errorf(format, args...)))
	}
	for n := range ports {
		p := &ports[n]
		for _, a := range p.Addresses {
			if other, twice := owners[a]; twice && other != p.String() {
				fail(p, "%s is the address of %q too, and what one sends would go on at the other: put them into different network namespaces", a, other)
			}
			owners[a] = p.String()
		}
		l, err := i.link(p)
		refused := errors.Is(err, os.ErrPermission) // waiting would not help
		if isMissing(err) && p.Wait && !refused {
			continue
		}
		if isMissing(err) && p.Interface == "" && !refused {
			fail(p, "%w; with wait: true nsgd starts without it", err)
			continue
		}
		if isMissing(err) && !refused {
			fail(p, "no such interface: `ip link` lists those that are there; with wait: true nsgd starts without it")
			continue
		}
		if err != nil {
			fail(p, "%w", err)
			continue
		}
		if name := l.Attrs().Name; p.Interface != "" && name != p.Interface {
			fail(p, "that is an alternative name: use %q", name) // messages of the kernel have that one
		}
		index := l.Attrs().Index
		if other, twice := seen[index]; twice {
			fail(p, "it is %q, which another attachment has", other)
		}
		seen[index] = p.String()
		standing := i.indexes[p.String()] == index && slices.ContainsFunc(i.ports, func(now Port) bool { return now.String() == p.String() && !now.Host })
		if p.Host || !standing { // a policy may take an address from this host
			for _, fault := range i.check(p, l) {
				fail(p, "%w", fault)
			}
		}
		switch m := l.Attrs().MTU; {
		case mtu == 0:
			mtu, first = m, p.String()
		case m != mtu:
			fail(p, "mtu %d: %q has %d: nsgd carries packets between them whole, so one MTU is needed", m, first, mtu)
		}
	}
	return mtu, errors.Join(faults...)
}

func (i *Interceptor) check(p *Port, l netlink.Link) []error {
	a := l.Attrs()
	faults := []error{i.checkKind(p, l), i.checkFilters(l), checkXDP(l), i.checkMulti(a.Index)}
	if p.Host {
		faults = append(faults, i.checkAddresses(p, l), i.checkAbove(l))
	}
	return slices.DeleteFunc(faults, func(err error) bool { return err == nil })
}

// checkKind refuses interfaces that don't carry what their attachment means.
func (i *Interceptor) checkKind(p *Port, l netlink.Link) error {
	a := l.Attrs()
	if err := checkEthernet(l); err != nil {
		return err
	}
	if l.Type() == "bridge" && !p.Host {
		return errors.New("it is a bridge, and its ports talk past it: name the guest's port, or set host: true for this host's own traffic")
	}
	if a.MasterIndex == 0 {
		return nil
	}
	master, err := i.handle.LinkByIndex(a.MasterIndex)
	if err != nil {
		return fmt.Errorf("its master: %w", err)
	}
	kind := master.Type()
	if kind == "bond" || kind == "team" || p.Host && kind == "bridge" {
		return fmt.Errorf("it is a port of the %s %q, which has the traffic: name that", kind, master.Attrs().Name)
	}
	return nil
}

// checkEthernet refuses interfaces whose packets the programs would take for frames.
func checkEthernet(l netlink.Link) error {
	if encap := l.Attrs().EncapType; encap != "ether" {
		return fmt.Errorf("it is of the kind %q, link type %s: an Ethernet interface is needed", l.Type(), encap)
	}
	return nil
}

// unfit says what a start refuses and has come since: nothing was asked before an interface came, or changed.
func (i *Interceptor) unfit(p *Port, l netlink.Link) error {
	faults := []error{i.checkKind(p, l)}
	if p.Host {
		faults = append(faults, i.checkAddresses(p, l), i.checkAbove(l))
	}
	mtu := l.Attrs().MTU
	if device, err := i.handle.LinkByName(p.Device); err == nil && device.Attrs().MTU != mtu {
		faults = append(faults, fmt.Errorf("mtu %d: nsgd's device %q has %d, and larger packets are lost: one MTU is needed, then `nsgctl reload`",
			mtu, p.Device, device.Attrs().MTU))
	}
	return errors.Join(faults...)
}

// checkFilters refuses what would decide before nsgd's filters, or keep them from working.
func (i *Interceptor) checkFilters(l netlink.Link) error {
	kinds, err := qdiscKinds(i.handle, l)
	if err != nil {
		return err
	}
	if kind := kinds[l.Attrs().Index]; kind == "" {
		return nil
	} else if kind != program.Clsact {
		return otherQdisc(kind, l)
	}
	for n, parent := range parents {
		filters, err := i.handle.FilterList(l, parent)
		if err != nil {
			return fmt.Errorf("list filters: %w", err)
		}
		for _, f := range filters {
			if !isOurs(f) && f.Attrs().Priority <= program.Priority {
				return fmt.Errorf("at %s a filter of priority %d decides before nsgd: give it one above %d",
					hooks[n], f.Attrs().Priority, program.Priority)
			}
		}
	}
	return nil
}

// ahead says what has come before nsgd's filters since they were attached.
func (i *Interceptor) ahead(l netlink.Link) error {
	faults := []error{checkXDP(l), i.checkMulti(l.Attrs().Index)}
	for n, parent := range parents {
		filters, err := i.handle.FilterList(l, parent)
		if err != nil {
			continue // the interface has just gone
		}
		for _, f := range filters {
			if c := f.Attrs().Chain; c != nil && *c != 0 {
				continue // only a filter of chain 0 leads there
			}
			if b, ok := f.(*netlink.BpfFilter); !ok || !i.ids[b.Id] {
				faults = append(faults, fmt.Errorf("at %s a filter of priority %d, %s, decides before nsgd, and the interface may be open: `tc filter del` removes it",
					hooks[n], f.Attrs().Priority, f.Type()))
			}
			break
		}
	}
	return errors.Join(faults...)
}

func checkXDP(l netlink.Link) error {
	if x := l.Attrs().Xdp; x != nil && x.Attached {
		return errors.New("an XDP program sees packets before nsgd: `ip link set dev NAME xdp off` removes it")
	}
	return nil
}

// checkMulti refuses TCX programs, which come before filters.
func (i *Interceptor) checkMulti(index int) error {
	return i.do(func() error {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			there, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
			if err != nil {
				return nil // an older kernel has none
			}
			if len(there.Programs) > 0 {
				return errors.New("a TCX program sees packets before nsgd: `bpftool net` shows whose it is")
			}
		}
		return nil
	})
}

// checkAddresses refuses addresses of this host that the policy doesn't have: their traffic would be cut.
func (i *Interceptor) checkAddresses(p *Port, l netlink.Link) error {
	list, err := i.handle.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var faults []error
	for _, a := range list {
		addr, ok := toAddr(a.IP)
		if ok && !addr.IsLinkLocalUnicast() && !slices.Contains(p.Addresses, addr) {
			faults = append(faults, fmt.Errorf("it has the address %s, which the network interface doesn't have in the policy: allowed are %v", addr, p.Addresses))
		}
	}
	return errors.Join(faults...)
}

// checkAbove refuses interfaces over this one, whose frames the programs would drop.
func (i *Interceptor) checkAbove(l netlink.Link) error {
	all, err := linksOf(i.handle)
	if err != nil {
		return err
	}
	for _, other := range all {
		if slices.Contains([]string{"vlan", "macsec", "macvlan", "ipvlan", "macvtap", "ipvtap"}, other.Type()) && other.Attrs().ParentIndex == l.Attrs().Index {
			return fmt.Errorf("the %s %q stands on it and would be cut off", other.Type(), other.Attrs().Name)
		}
	}
	return nil
}
