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

// Adopt takes over Config.Adopt as they are, without any privilege: packets flow, and the interface stays what it is
// until Configure, so that another process may still carry its packets. That the queues are in Config.Namespace is for
// Configure to find out, which calls open: Open, in a process that may change interfaces. Before Configure the device has no
// counters and can't be changed. The error is ErrNotAdopted for queues that are another device's, or of another number or kind.
func Adopt(c Config, open func(Config) (Device, Offload, error)) (Device, Offload, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, Off, err
	}
	d := &heldDevice{config: c, open: open}
	d.config.Adopt = nil
	queues, level, err := runningKernel().adoptQueues(&c)
	if d.queues, d.level = queues, level; err != nil {
		return nil, Off, errors.Join(c.errorf("%w", err), closeQueues(queues))
	}
	return d, level, nil
}

// Configure makes the interface of a device that Adopt has given what c describes. The error is ErrNotAdopted where the
// device is not the one of c.Namespace.
func Configure(device Device, c Config) error {
	if d, ok := device.(*heldDevice); ok {
		return d.configure(c)
	}
	return c.errorf("%w: a %T can't be configured", ErrConfig, device)
}

// adoptQueues takes over the queues of c.Adopt, as far as they themselves tell whose they are. After an error the caller
// closes those that it gets.
func (k kernel) adoptQueues(c *Config) (queues []Queue, level Offload, err error) {
	if !c.owns(c.Adopt) {
		for _, f := range c.Adopt {
			f.Close()
		}
		return nil, Off, ErrNotAdopted
	}
	for _, f := range c.Adopt {
		fd, err := takeOver(f)
		if err != nil {
			return queues, Off, err
		}
		if c.Offload == Off {
			queues = append(queues, &plainQueue{descriptor: descriptor{fd: fd}})
		} else {
			queues = append(queues, &offloadQueue{descriptor: descriptor{fd: fd}})
		}
	}
	if c.Offload != Off {
		if level, err = k.raise(queues, c.Offload.ladder()); err != nil {
			return queues, Off, err
		}
		if level == Off {
			return queues, Off, fmt.Errorf("%w: it takes no offload any more", ErrNotAdopted)
		}
	}
	return queues, level, nil
}

// adopt takes over Config.Adopt, inside the namespace. It fails with ErrNotAdopted, and the queues are closed, where they
// are not those of the device that Config describes.
func (d *kernelDevice) adopt(k kernel) (level Offload, err error) {
	if !d.isHere() {
		for _, f := range d.config.Adopt {
			f.Close()
		}
		return Off, ErrNotAdopted
	}
	if d.queues, level, err = k.adoptQueues(&d.config); err != nil {
		return Off, err
	}
	if err := d.steer(k, false); err != nil {
		return Off, err
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

// owns reports that files are all queues of a device that Config describes, in some namespace.
func (c *Config) owns(files []*os.File) bool {
	if len(files) != c.Queues {
		return false
	}
	return all(files, c.ownsQueue)
}

func all(files []*os.File, is func(fd int) bool) bool {
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return false
		}
		ok := false
		if err := raw.Control(func(fd uintptr) { ok = is(int(fd)) }); err != nil || !ok {
			return false
		}
	}
	return true
}

func (c *Config) ownsQueue(fd int) bool {
	request, err := unix.NewIfreq(c.Name)
	if err != nil {
		return false
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, request); err != nil || request.Name() != c.Name {
		return false
	}
	flags := request.Uint16()
	return flags&unix.IFF_TUN != 0 && flags&unix.IFF_NO_PI != 0 && (flags&unix.IFF_VNET_HDR != 0) == (c.Offload != Off) && (flags&unix.IFF_MULTI_QUEUE != 0) == c.multiQueue()
}

// isHere reports that the queues of Config.Adopt belong to the interface of that name in this thread's namespace.
func (d *kernelDevice) isHere() bool {
	if !all(d.config.Adopt, d.inNamespace) {
		return false
	}
	var err error
	d.link, err = d.handle.LinkByName(d.config.Name)
	return err == nil && d.link.Type() == "tuntap"
}

func (d *kernelDevice) inNamespace(queue int) bool {
	ns, err := unix.IoctlRetInt(queue, unix.TUNGETDEVNETNS) // Linux 5.2
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
