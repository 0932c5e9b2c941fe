package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/nsgd/nsgd/tun/steer"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Open makes the interface that c describes, in its namespace, and brings it up. It returns the
// offload level that was reached: what c asks for, or less on an older kernel. On error
// nothing is left.
func Open(c Config) (Device, Offload, error) { return runningKernel().open(c) }

func (k kernel) open(c Config) (Device, Offload, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, Off, err
	}
	if _, err := k.features(); err != nil {
		return nil, Off, c.errorf("%w", err)
	}
	if err := checkAdmin(); err != nil {
		return nil, Off, c.errorf("%w", err)
	}
	d := &kernelDevice{config: c, ns: netns.None()}
	level, err := d.open(k)
	if err != nil {
		d.Close()
		return nil, Off, c.errorf("%w", err)
	}
	return d, level, nil
}

// kernelDevice is a TUN interface, plain or with offload.
type kernelDevice struct {
	config   Config
	queues   []Queue
	arrivals *steer.Arrivals // at the queues of sparse flows; nil: there are none, or they are not counted

	mu     sync.Mutex
	ns     netns.NsHandle  // stays valid when the namespace's name is gone
	own    *identity       // the namespace that Close removes; nil: none
	handle *netlink.Handle // a socket inside the namespace; valid while inside runs
	stats  *statsSocket    // nil before open
	link   netlink.Link
	added  []netip.Prefix // added by setAddresses and still wanted
	closed bool
}

// open does all the steps. After an error, Close undoes those that were done.
func (d *kernelDevice) open(k kernel) (level Offload, err error) {
	if d.config.CreateNamespace {
		if err := d.createNamespace(); err != nil {
			return Off, err
		}
	}
	if d.config.Namespace == "" {
		d.ns, err = netns.Get()
	} else {
		d.ns, err = openNamespace(d.config.Namespace)
	}
	if err != nil {
		return Off, err
	}
	err = d.inside(func() error {
		level, err = d.openInside(k)
		return err
	})
	return level, err
}

// inside runs f on a thread inside the namespace.
func (d *kernelDevice) inside(f func() error) error {
	enter := func(f func() error) error { return doIn(d.ns, f) }
	if d.config.Namespace == "" {
		enter = elsewhere // entering it would need CAP_SYS_ADMIN, although we are there
	}
	return enter(func() error {
		var err error
		if d.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer d.handle.Close()
		return f()
	})
}

func (d *kernelDevice) createNamespace() error {
	if d.config.State != nil {
		return d.config.State.CreateNamespace(d.config.Namespace)
	}
	var created identity
	err := createNamespace(d.config.Namespace, func(id identity) error {
		created = id
		return nil
	})
	if err == nil {
		d.own = &created
	}
	return err
}

// openInside runs in inside.
func (d *kernelDevice) openInside(k kernel) (Offload, error) {
	var err error
	if d.stats, err = openStats(); err != nil {
		return Off, err
	}
	if len(d.config.Adopt) > 0 {
		return d.adopt(k)
	}
	_, err = d.index()
	isNew := err != nil
	if !isNew {
		if l, err := d.handle.LinkByName(d.config.Name); err == nil && !(d.config.Keep && l.Type() == "tuntap" && l.Attrs().Alias == KeptAlias) {
			return Off, fmt.Errorf("%w: `ip link` shows it; choose another name or remove it", ErrDeviceExists)
		}
	}
	var level Offload
	if d.queues, level, err = k.openQueues(d.config); err != nil {
		return Off, err
	}
	if err = d.steer(k, true); err != nil {
		return Off, err
	}
	if isNew {
		err = d.configureNew()
	} else if d.link, err = d.handle.LinkByName(d.config.Name); err == nil {
		err = d.configure()
	}
	if err != nil || !d.config.Keep {
		return level, err
	}
	return level, d.keep(d.queues[0].FD())
}

// index asks the kernel for the interface's number.
func (d *kernelDevice) index() (int, error) {
	request, err := unix.NewIfreq(d.config.Name)
	if err == nil {
		err = unix.IoctlIfreq(d.stats.fd, unix.SIOCGIFINDEX, request)
	}
	if err != nil {
		return 0, os.NewSyscallError("SIOCGIFINDEX", err)
	}
	return int(request.Uint32()), nil
}

// steer has packets find their queues. Where the kernel can't, a device that is new keeps those that are not of sparse flows.
func (d *kernelDevice) steer(k kernel, isNew bool) error {
	if d.config.Steer == 0 {
		return nil
	}
	workers := len(d.queues) / 2
	arrivals, err := k.steer(d.queues[0].FD(), workers, d.config.Steer)
	if err == nil {
		d.arrivals = arrivals
		countSparse(d.queues, arrivals)
		return nil
	}
	if d.config.Warn != nil {
		d.config.Warn(d.config.errorf("small flows wait behind large ones: %w", err))
	}
	if !isNew {
		return nil // as it is, it is steered by an earlier process
	}
	rest := d.queues[workers:]
	d.queues, d.config.Queues, d.config.Steer = d.queues[:workers], workers, 0
	return closeQueues(rest)
}

// countSparse has the queues of sparse flows, the second half, know what counts their packets; nil: nothing does.
func countSparse(queues []Queue, arrivals *steer.Arrivals) {
	if arrivals == nil {
		return
	}
	workers := len(queues) / 2
	for i, q := range queues[workers:] {
		q.(Counted).CountedBy(arrivals.Of(i))
	}
}

// keep lets the interface outlive its descriptors. The alias comes first: it tells whose the interface is.
func (d *kernelDevice) keep(fd int) error {
	if err := d.handle.LinkSetAlias(d.link, KeptAlias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	return os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
}

// Name implements Device.
func (d *kernelDevice) Name() string { return d.config.Name }

// Queues implements Device.
func (d *kernelDevice) Queues() []Queue { return d.queues }

// MTU implements Device.
func (d *kernelDevice) MTU() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.MTU
}

// SetAddresses implements Device.
func (d *kernelDevice) SetAddresses(addresses []netip.Prefix) error {
	if err := checkAddresses(addresses); err != nil {
		return err
	}
	return d.change(func() error { return d.setAddresses(slices.Clone(addresses)) })
}

// SetMTU implements Device.
func (d *kernelDevice) SetMTU(mtu int) error {
	return d.change(func() error {
		if err := checkMTU(mtu); err != nil {
			return err
		}
		if err := d.handle.LinkSetMTU(d.link, mtu); err != nil {
			return fmt.Errorf("set mtu %d: %w", mtu, err)
		}
		d.config.MTU = mtu
		return nil
	})
}

// SetRoutes implements Device.
func (d *kernelDevice) SetRoutes(routes []netip.Prefix) error {
	return d.change(func() error {
		if err := checkRoutes(routes); err != nil {
			return err
		}
		return d.replaceRoutes(slices.Clone(routes))
	})
}

// change changes the interface, inside its namespace.
func (d *kernelDevice) change(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.config.errorf("%w", os.ErrClosed)
	}
	if err := d.inside(f); err != nil {
		return d.config.errorf("%w", err)
	}
	return nil
}

// Stats implements Device.
func (d *kernelDevice) Stats() (Stats, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.stats == nil {
		return Stats{}, false
	}
	return d.stats.read(d.link.Attrs().Index)
}

// Close implements Device. The kernel removes the interface with its last descriptor, which
// may be when a Read or Write under way returns.
func (d *kernelDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return os.ErrClosed
	}
	d.closed = true
	errs := []error{closeQueues(d.queues)}
	if d.stats != nil {
		errs = append(errs, d.stats.close())
	}
	if d.ns.IsOpen() {
		errs = append(errs, d.ns.Close())
	}
	if d.own != nil {
		_, err := removeNamespace(d.config.Namespace, *d.own)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
