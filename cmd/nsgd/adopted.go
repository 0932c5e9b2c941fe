package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/filewatch"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fdstore"
	"golang.org/x/sys/unix"
)

// adopted are the devices of all attachments as an earlier process has left them. So packets flow before this process
// does anything else: takes the state directory, listens, or changes a device.
type adopted struct {
	devices []tun.Device // in the attachments' order
	offload tun.Offload
	taken   []string // names of their queues in the store
}

// errAnew is why a process can't take over from one that carries packets.
var errAnew = errors.New("its queues are others now: it opens anew, once the process before has ended")

// prepare does what can be done while the process before carries packets. Where none does, packets wait: nothing here waits
// for the privileged part, which may have to start. The error is errAnew where the process before has to end first.
func (d *daemon) prepare(all *loaded) error {
	if len(d.inherited.queues) > 0 {
		var unfit string
		if d.adopted, unfit = d.adoptAll(all); unfit != "" && d.before != nil {
			return fmt.Errorf("device %s: %w", unfit, errAnew)
		}
	}
	d.reserve(all)
	return nil
}

// reserve makes the memory of the engine's flow table, if it is not there yet.
func (d *daemon) reserve(all *loaded) {
	if d.reserved == nil {
		o := all.config.engineOptions(nil)
		d.reserved, _ = dataplane.Reserve(&o) // New refuses what this refuses
	}
}

// standBy waits for the end of the process that carries packets, and takes what that has left. all is what was read before.
// Where files have changed since, it may be half of a change that nobody has asked for: they are read again.
// The error is exitStatus(0) where nobody needs this process any more.
func (d *daemon) standBy(ctx context.Context, s *fdstore.Standby, all *loaded) (*loaded, error) {
	d.reserve(all)
	debug.FreeOSMemory() // it may wait for months
	found, err := s.Await(ctx)
	if errors.Is(err, fdstore.ErrDismissed) {
		return nil, exitStatus(0) // nothing has failed
	}
	if err != nil {
		return nil, err
	}
	d.inherited.receive(found)
	d.collect = d.inherited.postponeCollection()
	files, folders := all.file.files()
	if all.file.Cluster != nil || filewatch.Changed(all.begun, append(append(files, d.path), folders...)...) { // other hosts have changed what this one carries
		return loadAll(ctx, d.path)
	}
	return all, nil
}

// adoptAll takes over the devices of all attachments, and changes none: the earlier process may still carry packets. It
// returns nil where one of them has to be opened: everything is there for that still. unfit is a device whose queues are
// there, and are others than the configuration asks for; empty: there is none.
func (d *daemon) adoptAll(all *loaded) (a *adopted, unfit string) {
	n := d.inherited
	plan, err := planDevices(all.config, all.policy, all.snapshot.Attachments)
	want, bad := tun.ParseOffload(all.config.Offload)
	if err != nil || bad != nil {
		return nil, "" // attach says so
	}
	a, whole := &adopted{}, true
	for i := range plan {
		c := &plan[i]
		queues(c, all.config.workers(), len(plan), 1) // configure steers, by the key
		c.Offload = want
		device, level, names, err := n.adopt(c, func(c tun.Config) (tun.Device, tun.Offload, error) { return tun.Adopt(c, d.privileged.Open) })
		if err != nil {
			if whole = false; errors.Is(err, tun.ErrNotAdopted) && n.has(c) {
				unfit = c.Name
			}
			continue
		}
		whole = whole && (len(a.devices) == 0 || level == a.offload)
		a.devices, a.offload = append(a.devices, device), level
		a.taken = append(a.taken, names...)
	}
	if !whole {
		n.leaveAlone(a.devices)
		return nil, unfit
	}
	return a, ""
}

// has reports that the last process has left queues of a device.
func (n *inheritance) has(c *tun.Config) bool {
	is, was := queuesOf(c.Namespace, c.Name), formerQueuesOf(c.Namespace, c.Name)
	for name := range n.queues {
		if strings.HasPrefix(name, is) || strings.HasPrefix(name, was) {
			return true
		}
	}
	return false
}

// adopt takes over the queues of one device. The ones that this process has got stay open. The error is tun.ErrNotAdopted
// where they are others than c asks for; after any other one whoever opens the device says why it can't be.
func (n *inheritance) adopt(c *tun.Config, adopt opener) (*keptDevice, tun.Offload, []string, error) {
	if !n.fit(c) {
		return nil, tun.Off, nil, tun.ErrNotAdopted
	}
	names := queueNames(c.Namespace, c.Name, c.Queues, c.Steer != 0)
	for _, name := range names {
		f, fd, err := n.queues[name], -1, tun.ErrNotAdopted
		if f != nil {
			fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		}
		if err != nil {
			for _, f := range c.Adopt {
				f.Close()
			}
			return nil, tun.Off, nil, err
		}
		c.Adopt = append(c.Adopt, os.NewFile(uintptr(fd), name))
	}
	device, level, err := adopt(*c)
	if err != nil {
		return nil, tun.Off, nil, err
	}
	return &keptDevice{Device: device, inheritance: n, names: names}, level, names, nil
}

// leaveAlone gives back devices that were adopted in vain. The store keeps their queues.
func (n *inheritance) leaveAlone(devices []tun.Device) {
	for _, d := range devices {
		d.(*keptDevice).Device.Close() // no interface goes with it
	}
}

// carryAdopted makes the engine, and has it carry packets through the adopted devices. What is told of flows has to be
// there before.
func (d *daemon) carryAdopted(ctx context.Context, all *loaded) error {
	a, err := d.adopted, d.makeEngine(all)
	if err != nil || len(d.edits) > 0 { // with edits the attachments are others
		d.adopted = nil
		d.inherited.leaveAlone(a.devices)
		return err
	}
	for _, name := range a.taken {
		d.inherited.queues[name].Close()
		delete(d.inherited.queues, name)
	}
	d.setDevices(make([]tun.Config, len(a.devices)), a.devices, a.offload)
	if err := d.engine.Attach(a.devices); err != nil {
		return err
	}
	if err := d.record(d.stdout); err != nil {
		return err
	}
	d.carry(ctx)
	return nil
}

// configure makes the adopted devices what the configuration says.
func (d *daemon) configure(plan []tun.Config) error {
	return byNamespace(plan, func(i int) error {
		c := &plan[i]
		c.Offload = d.offload
		kept := d.devices.list[i].device.(*keptDevice)
		err := tun.Configure(kept.Device, *c)
		if errors.Is(err, tun.ErrNotAdopted) { // somebody has moved it: the next start makes another one
			err = errors.Join(err, d.inherited.forget(kept.names))
		}
		d.devices.list[i].plan = *c
		return err
	})
}

// startMemory is how much a process may take before the collector runs, while packets wait for it.
const startMemory = 1 << 30

// postponeCollection has the collector wait until resume, where packets wait: its work would take processors from the
// start, for garbage that is a few megabytes with most policies.
func (n *inheritance) postponeCollection() (resume func()) {
	if len(n.queues) == 0 {
		return func() {}
	}
	limit := debug.SetMemoryLimit(-1)
	percent := debug.SetGCPercent(-1)
	debug.SetMemoryLimit(min(limit, startMemory))
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// carry has the engine carry packets from now on, until stopCarrying.
func (d *daemon) carry(ctx context.Context) {
	carrying, halt := context.WithCancel(context.WithoutCancel(ctx))
	d.carried, d.halt = make(chan error, 1), halt
	go func() { d.carried <- d.engine.Run(carrying) }()
}

// carries waits until ctx ends, or until the engine fails.
func (d *daemon) carries(ctx context.Context) error {
	select {
	case err := <-d.carried:
		d.carried <- err
		return err
	case <-ctx.Done():
		return nil
	}
}

// stopCarrying ends what carry has begun, and returns how the engine failed before; nil: it did not.
func (d *daemon) stopCarrying() error {
	if d.halt == nil {
		return nil
	}
	d.halt()
	d.halt = nil
	return <-d.carried
}
