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

// Adopt takes over Config.Adopt as they are: the interface stays what it is until Configure, so that another process may
// still carry its packets. The error is ErrNotAdopted for queues that are another device's, or of another number or kind.
func Adopt(c Config) (Device, Offload, error) { return runningKernel().open(c, true) }

// Configure makes an interface that Adopt has given, also by way of HandOver, what c describes. Config.Adopt is one of
// its queues, or none where the device has them.
func Configure(device Device, c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	switch d := device.(type) {
	case *heldDevice:
		return d.configure(c)
	case *kernelDevice:
		if c.CreateNamespace && c.State != nil { // it is there, and has to be this run's
			if err := c.State.CreateNamespace(c.Namespace); err != nil {
				return err
			}
		}
		return d.change(func() error {
			d.config.MTU, d.config.TxQueueLen, d.config.Addresses, d.config.Routes, d.config.Keep = c.MTU, c.TxQueueLen, c.Addresses, c.Routes, c.Keep
			if len(c.Adopt) == 0 {
				return d.settle(d.queues[0].FD())
			}
			raw, err := c.Adopt[0].SyscallConn()
			if err != nil {
				return err
			}
			var failed error
			err = raw.Control(func(fd uintptr) { failed = d.settle(int(fd)) })
			return errors.Join(err, failed)
		})
	}
	return c.errorf("%w: a %T can't be configured", ErrConfig, device)
}

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
	if d.later {
		d.config.MTU = d.link.Attrs().MTU
		return level, nil
	}
	return level, d.settle(d.queues[0].FD())
}

// settle makes an adopted interface what Config says. fd is one of its queues.
func (d *kernelDevice) settle(fd int) error {
	if err := d.reconfigure(); err != nil {
		return err
	}
	if d.config.Keep {
		return d.keep(fd)
	}
	return os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0))
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
