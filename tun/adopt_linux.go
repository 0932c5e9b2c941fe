package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// adopt takes over Config.Adopt, inside the namespace. It fails with ErrNotAdopted, and the queues are closed, where they
// are not those of the device that Config describes.
func (d *kernelDevice) adopt(k kernel) (level Offload, err error) {
	if !d.owns(d.config.Adopt) {
		for _, f := range d.config.Adopt {
			f.Close()
		}
		return Off, ErrNotAdopted
	}
	for _, f := range d.config.Adopt {
		fd, err := takeOver(f)
		if err != nil {
			return Off, err
		}
		if d.config.Offload == Off {
			d.queues = append(d.queues, &plainQueue{descriptor: descriptor{fd: fd}})
		} else {
			d.queues = append(d.queues, &offloadQueue{descriptor: descriptor{fd: fd}})
		}
	}
	if d.config.Offload != Off {
		if level, err = k.raise(d.queues, d.config.Offload.ladder()); err != nil {
			return Off, err
		}
		if level == Off {
			return Off, fmt.Errorf("%w: it takes no offload any more", ErrNotAdopted)
		}
	}
	if err := d.reconfigure(); err != nil {
		return Off, err
	}
	if d.config.Keep {
		return level, d.keep()
	}
	return level, os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(d.queues[0].FD(), unix.TUNSETPERSIST, 0))
}

// owns reports that files are all queues of the device that Config describes, in this thread's namespace.
func (d *kernelDevice) owns(files []*os.File) bool {
	if len(files) != d.config.Queues {
		return false
	}
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return false
		}
		ok := false
		if err := raw.Control(func(fd uintptr) { ok = d.ownsQueue(int(fd)) }); err != nil || !ok {
			return false
		}
	}
	var err error
	d.link, err = d.handle.LinkByName(d.config.Name)
	return err == nil && d.link.Type() == "tuntap"
}

func (d *kernelDevice) ownsQueue(fd int) bool {
	request, err := unix.NewIfreq(d.config.Name)
	if err != nil {
		return false
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, request); err != nil || request.Name() != d.config.Name {
		return false
	}
	flags := request.Uint16()
	if flags&unix.IFF_TUN == 0 || flags&unix.IFF_NO_PI == 0 || (flags&unix.IFF_VNET_HDR != 0) != (d.config.Offload != Off) || (flags&unix.IFF_MULTI_QUEUE != 0) != d.config.multiQueue() {
		return false
	}
	ns, err := unix.IoctlRetInt(fd, unix.TUNGETDEVNETNS) // Linux 5.2
	if err != nil {
		return false
	}
	defer unix.Close(ns)
	var theirs, ours unix.Stat_t
	return unix.Fstat(ns, &theirs) == nil && unix.Fstat(int(d.ns), &ours) == nil && theirs.Ino == ours.Ino && theirs.Dev == ours.Dev
}

// reconfigure makes an adopted interface what Config says. What is so already is left alone, so that nobody notices.
func (d *kernelDevice) reconfigure() error {
	if err := d.size(); err != nil {
		return err
	}
	var err error
	if d.added, err = d.addresses(netlink.FAMILY_ALL); err != nil {
		return err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := d.handle.RouteList(d.link, family)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if family == netlink.FAMILY_V6 {
				to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if r.Dst != nil {
				to = prefixOf(r.Dst)
			}
			if r.Protocol == unix.RTPROT_KERNEL || slices.ContainsFunc(d.config.Routes, func(p netip.Prefix) bool { return p.Masked() == to }) {
				continue
			}
			if err := d.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove route %v: %w", r.Dst, err)
			}
		}
	}
	if err := d.handle.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return d.setAddresses(d.config.Addresses)
}
