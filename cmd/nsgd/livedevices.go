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

// find returns the device of a place, or nil.
func (l *liveDevices) find(namespace, name string) *liveDevice {
	for i := range l.list {
		if p := &l.list[i].plan; p.Namespace == namespace && p.Name == name {
			return &l.list[i]
		}
	}
	return nil
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
		if old := l.find(p.Namespace, p.Name); old != nil && old.lives() {
			one.device = old.device
			takeBack, err = adjust(old.device, &old.plan, &p)
		} else {
			one.device, err = l.openOne(p)
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

// openOne opens a new device, without the routes that another one in its namespace has.
func (l *liveDevices) openOne(p tun.Config) (tun.Device, error) {
	queues(&p, l.workers, len(l.list)+1, l.steer)
	p.Offload, p.Warn = l.offload, l.warn
	p.Routes = slices.DeleteFunc(slices.Clone(p.Routes), func(r netip.Prefix) bool {
		return slices.ContainsFunc(l.list, func(d liveDevice) bool {
			return d.plan.Namespace == p.Namespace && slices.Contains(d.plan.Routes, r)
		})
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
	var errs []error
	for _, old := range before {
		if !slices.ContainsFunc(next, func(d liveDevice) bool { return d.device == old.device }) {
			errs = append(errs, old.device.Close())
		}
	}
	for _, old := range before {
		errs = append(errs, l.leave(&old.plan))
	}
	for i := range next {
		routes := next[i].plan.Routes
		old := slices.IndexFunc(before, func(d liveDevice) bool { return d.device == next[i].device })
		if old < 0 || !slices.Equal(before[old].plan.Routes, routes) {
			errs = append(errs, next[i].device.SetRoutes(routes))
		}
	}
	return errors.Join(errs...)
}

// leave removes the namespace of a device that is gone, if it was made for the daemon's devices and none is left there.
func (l *liveDevices) leave(p *tun.Config) error {
	used := slices.ContainsFunc(l.list, func(d liveDevice) bool { return d.plan.Namespace == p.Namespace })
	if used || !p.CreateNamespace || l.remove == nil {
		return nil
	}
	return l.remove(p.Namespace)
}

// close closes all devices.
func (l *liveDevices) close() error {
	var devices []tun.Device
	for _, one := range l.list {
		devices = append(devices, one.device)
	}
	return closeDevices(devices)
}
