package intercept

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/program"
)

// Detached is what Detach has removed in one namespace.
type Detached struct {
	// Interfaces are open now, Devices were removed.
	Interfaces, Devices []string
	// Tables says that those of nft were there, which close interfaces that come.
	Tables bool
}

// ErrInUse: a daemon reads the devices.
var ErrInUse = errors.New("a running nsgd reads it: stop nsgd first")

// isKept tells that a link is a TUN device that tun made to outlive its process.
func isKept(l netlink.Link) bool {
	_, isTun := l.(*netlink.Tuntap)
	return isTun && l.Attrs().Alias == tun.KeptAlias
}

// Detach opens every interface of a namespace before which nsgd stands, and removes nsgd's devices there. It
// finds them by themselves. It changes nothing while a daemon reads a device.
func Detach(namespace string) (Detached, error) {
	var done Detached
	err := tun.Do(namespace, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		return done.remove(h)
	})
	if err != nil {
		return done, fmt.Errorf("intercept: %w", err)
	}
	return done, nil
}

// unused are nsgd's devices in a namespace. It fails while a daemon reads one.
func unused(h *netlink.Handle) (kept []netlink.Link, err error) {
	links, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if !isKept(l) {
			continue
		}
		if l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 { // a TUN has a carrier while somebody has it open
			return nil, fmt.Errorf("device %q: %w", l.Attrs().Name, ErrInUse)
		}
		kept = append(kept, l)
	}
	return kept, nil
}

func (d *Detached) remove(h *netlink.Handle) error {
	kept, err := unused(h)
	if err != nil {
		return err
	}
	there, err := filtered(h, nil)
	if err != nil {
		return err
	}
	var errs []error
	d.Tables, err = open()
	errs = append(errs, err)
	for _, f := range there {
		if isKept(f.link) {
			continue
		}
		errs = append(errs, detach(h, f))
		d.Interfaces = append(d.Interfaces, f.link.Attrs().Name)
	}
	for _, l := range kept {
		errs = append(errs, program.Gone(h.LinkDel(l)))
		d.Devices = append(d.Devices, l.Attrs().Name)
	}
	slices.Sort(d.Interfaces)
	slices.Sort(d.Devices)
	return errors.Join(errs...)
}
