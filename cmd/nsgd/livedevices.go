package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/tun"
)

// liveDevices are the devices of a daemon that runs, by their places.
type liveDevices struct {
	open    opener
	offload tun.Offload
	workers int
	steer   uint64
	warn    func(error)
	remove  func(namespace string) error // removes one that was made for devices; nil: none is made
	list    []liveDevice
}

// liveDevice is a device with what was planned for it.
type liveDevice struct {
	plan   tun.Config
	device tun.Device
}

// place tells a device, or a route, from those of the same name elsewhere.
type place struct{ namespace, name string }

// places are the devices by their places, and the routes that they have.
func (l *liveDevices) places() (devices map[place]*liveDevice, routes map[place]bool) {
	devices, routes = make(map[place]*liveDevice, len(l.list)), map[place]bool{}
	for i := range l.list {
		p := &l.list[i].plan
		devices[place{p.Namespace, p.Name}] = &l.list[i]
		for _, r := range p.Routes {
			routes[place{p.Namespace, r.String()}] = true
		}
	}
	return devices, routes
}

// lives is false for a device that somebody has removed.
func (d *liveDevice) lives() bool {
	_, ok := d.device.Stats()
	return ok
}

// equip opens the devices that a plan lacks, and gives those that stay their MTU and their addresses. Devices that the
// plan does not have stay until Settle. So do routes: until then another device may have them.
func (l *liveDevices) equip(plan []tun.Config) (*inspect.Equipment, error) {
	next := make([]liveDevice, 0, len(plan))
	devices, routes := l.places()
	var undo []func() error
	back := func() error {
		var errs []error
		for _, one := range slices.Backward(undo) {
			errs = append(errs, one())
		}
		return errors.Join(errs...)
	}
	for i, p := range plan {
		one := liveDevice{plan: p}
		var takeBack func() error
		var err error
		if old := devices[place{p.Namespace, p.Name}]; old != nil && old.lives() {
			one.device = old.device
			takeBack, err = adjust(old.device, &old.plan, &p)
		} else {
			one.device, err = l.openOne(p, len(plan), routes)
			if err == nil {
				takeBack = one.device.Close
			}
		}
		if takeBack != nil {
			undo = append(undo, takeBack)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attachments[%d]: %w", i, err), back())
		}
		next = append(next, one)
	}
	e := &inspect.Equipment{Undo: back, Settle: func() error { return l.settle(next) }}
	for _, one := range next {
		e.Devices = append(e.Devices, one.device)
	}
	return e, nil
}

// opened are the names of planned devices that were not there before.
func (l *liveDevices) opened(plan []tun.Config, devices []tun.Device) map[string]bool {
	had, names := make(map[tun.Device]bool, len(l.list)), map[string]bool{}
	for i := range l.list {
		had[l.list[i].device] = true
	}
	for i, d := range devices {
		if !had[d] {
			names[plan[i].Name] = true
		}
	}
	return names
}

// openOne opens a new device of so many, without the routes that another one in its namespace has: taken.
func (l *liveDevices) openOne(p tun.Config, devices int, taken map[place]bool) (tun.Device, error) {
	queues(&p, l.workers, devices, l.steer)
	p.Offload, p.Warn = l.offload, l.warn
	p.Routes = slices.DeleteFunc(slices.Clone(p.Routes), func(r netip.Prefix) bool {
		return taken[place{p.Namespace, r.String()}]
	})
	d, level, err := l.open(p)
	if err != nil {
		return nil, err
	}
	if l.offload == tun.Auto { // there was none to learn it from
		l.offload = level
	}
	if level != l.offload {
		return nil, errors.Join(fmt.Errorf("device %s: the others have offload %v, the kernel gave %v", p.Name, l.offload, level), d.Close())
	}
	return d, nil
}

// adjust gives a device that stays another MTU and other addresses. undo is nil when nothing has changed.
func adjust(d tun.Device, was, is *tun.Config) (undo func() error, err error) {
	mtu, addresses := d.MTU(), !slices.Equal(was.Addresses, is.Addresses)
	wanted := is.MTU
	if wanted == 0 {
		wanted = tun.DefaultMTU
	}
	if mtu == wanted && !addresses {
		return nil, nil
	}
	undo = func() error {
		var errs []error
		if mtu != wanted {
			errs = append(errs, d.SetMTU(mtu))
		}
		if addresses {
			errs = append(errs, d.SetAddresses(was.Addresses))
		}
		return errors.Join(errs...)
	}
	if mtu != wanted {
		err = d.SetMTU(wanted)
	}
	if err == nil && addresses {
		err = d.SetAddresses(is.Addresses)
	}
	return undo, err
}

// settle closes the devices that are not wanted any more, with the namespaces that were made for them, and gives the
// others the routes that those had.
func (l *liveDevices) settle(next []liveDevice) error {
	before := l.list
	l.list = next
	stays, used := map[tun.Device]bool{}, map[string]bool{}
	for i := range next {
		stays[next[i].device], used[next[i].plan.Namespace] = true, true
	}
	routed := map[tun.Device][]netip.Prefix{}
	var errs []error
	for i := range before {
		old := &before[i]
		if routed[old.device] = old.plan.Routes; !stays[old.device] {
			errs = append(errs, old.device.Close())
		}
	}
	for i := range before {
		if p := &before[i].plan; !used[p.Namespace] && p.CreateNamespace && l.remove != nil {
			used[p.Namespace] = true
			errs = append(errs, l.remove(p.Namespace))
		}
	}
	for i := range next {
		device, routes := next[i].device, next[i].plan.Routes
		if had, stayed := routed[device]; !stayed || !slices.Equal(had, routes) {
			errs = append(errs, device.SetRoutes(routes))
		}
	}
	return errors.Join(errs...)
}

// close closes all devices.
func (l *liveDevices) close() error {
	var devices []tun.Device
	for _, one := range l.list {
		devices = append(devices, one.device)
	}
	return closeDevices(devices)
}
