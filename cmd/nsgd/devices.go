package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// planDevices says which device each attachment needs; Queues and Offload are
// left to openDevices. to are the attachments of a policy, in the configuration's order.
func planDevices(c *Config, set *policy.Set, to []*topology.Attachment) ([]tun.Config, error) {
	taken := map[string]map[netip.Prefix]bool{}
	plan, before := make([]tun.Config, len(c.Attachments)), c.beforeInterfaces()
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if taken[a.Netns] == nil {
			taken[a.Netns] = map[netip.Prefix]bool{}
		}
		if a.fabric != nil {
			plan[i] = tun.Config{Name: a.Device, MTU: a.MTU}
			continue
		}
		if before[i] {
			plan[i] = tun.Config{Name: a.Device, Namespace: a.Netns, MTU: a.MTU, Keep: true}
			continue
		}
		addresses := inspect.DeviceAddresses(to[i], a.addresses())
		plan[i] = tun.Config{
			Name: a.Device, Namespace: a.Netns, CreateNamespace: a.Create, Loopback: a.Create,
			Addresses: addresses, MTU: a.MTU, Routes: routes(a, set, addresses, taken[a.Netns]),
		}
		for _, p := range addresses {
			if p.Addr().Is6() && a.MTU != 0 && a.MTU < tun.MinMTU6 {
				return nil, fmt.Errorf("attachments[%d].mtu: %d: the network interface has an IPv6 address, which needs %d or more", i, a.MTU, tun.MinMTU6)
			}
		}
	}
	return plan, nil
}

// addresses are the configured ones.
func (a *AttachmentConfig) addresses() []netip.Prefix {
	var list []netip.Prefix
	for _, p := range a.Addresses {
		list = append(list, p.Prefix)
	}
	return list
}

// places tells the control service what the configuration says about devices.
func (c *Config) places() []inspect.Place {
	places := make([]inspect.Place, len(c.Attachments))
	for i := range c.Attachments {
		a := &c.Attachments[i]
		places[i] = inspect.Place{Number: i, Device: a.Device, Namespace: a.Netns, MTU: a.MTU, Addresses: a.addresses(), DHCP: a.answers()}
		for _, p := range a.Prefixes {
			places[i].Prefixes = append(places[i].Prefixes, p.Prefix)
		}
	}
	return places
}

// opener is tun.Open in the privileged part, or a test's.
type opener func(tun.Config) (tun.Device, tun.Offload, error)

// queues gives one of so many devices a queue for each worker, and one for the sparse flows of each where the kernel and
// the limit of descriptors allow so many. steer is the key of who chooses among them.
func queues(c *tun.Config, workers, devices int, steer uint64) {
	if c.Queues = workers; 2*workers <= tun.MaxQueues && uint64(devices*descriptorsOf(2*workers)+otherDescriptors) <= maxDescriptors() {
		c.Queues, c.Steer = 2*workers, steer
	}
}

// otherDescriptors are for all but devices: connections, logs, slabs.
const otherDescriptors = 1000

// descriptorsOf is how many descriptors a device with so many queues takes at most, with its counters: a restart has the
// queues twice for a moment.
func descriptorsOf(queues int) int { return 2*queues + 1 }

// maxDescriptors is how many descriptors this process may have.
func maxDescriptors() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil { // it can't fail
		return 0
	}
	return limit.Cur
}

// steer is the key by which packets find their queues. It is the same in the processes that follow one another.
func (d *daemon) steer() uint64 {
	n := d.inherited
	if n.steering == 0 {
		n.steering = n.kept.Seed(rand.Uint64) | 1
	}
	return n.steering
}

// warn tells what works less well with devices, once for all devices.
func (d *daemon) warn(err error) {
	_, what, _ := strings.Cut(err.Error(), `": `) // behind the device's name
	if _, told := d.warned.LoadOrStore(what, true); !told {
		d.log.Warn("devices", "warning", err)
	}
}

// openDevices opens every device at one common level of offload: every device must take a
// superpacket that another one gave. When the kernel gives some devices a lower level, the others
// are opened again at that level.
func openDevices(open opener, plan []tun.Config, want tun.Offload) ([]tun.Device, tun.Offload, error) {
	devices, levels := make([]tun.Device, len(plan)), make([]tun.Offload, len(plan))
	err := byNamespace(plan, func(i int) (err error) {
		plan[i].Offload = want
		if devices[i], levels[i], err = open(plan[i]); err != nil {
			devices[i] = nil
		}
		return err
	})
	if err != nil {
		return nil, want, errors.Join(err, closeDevices(devices))
	}
	common := want
	if len(levels) > 0 {
		common = slices.Min(levels)
	}
	for i := range plan {
		if levels[i] == common {
			continue
		}
		err := devices[i].Close()
		if err == nil {
			plan[i].Offload = common
			devices[i], levels[i], err = open(plan[i])
		}
		if err == nil && levels[i] != common {
			err = fmt.Errorf("device %s: offload %v was asked for, the kernel gave %v", plan[i].Name, common, levels[i])
		}
		if err != nil {
			return nil, common, errors.Join(fmt.Errorf("attachments[%d]: %w", i, err), closeDevices(devices))
		}
	}
	return devices, common, nil
}

// namespacesAtOnce is how many namespaces get devices at a time: the kernel makes one device at a time, but while it does
// the rest of the work for others goes on.
const namespacesAtOnce = 4

// byNamespace calls f for each device of a plan. Those of one namespace come one after the other in the plan's order, since
// the kernel prefers the routes of the first; several namespaces go on at a time. It stops at errors, and returns the one
// of the first attachment.
func byNamespace(plan []tun.Config, f func(i int) error) error {
	members, order := map[string][]int{}, []string{}
	for i := range plan {
		namespace := plan[i].Namespace
		if members[namespace] == nil {
			order = append(order, namespace)
		}
		members[namespace] = append(members[namespace], i)
	}
	var failed atomic.Bool
	errs := make([]error, len(plan))
	var group errgroup.Group
	group.SetLimit(namespacesAtOnce)
	for _, namespace := range order {
		group.Go(func() error {
			for _, i := range members[namespace] {
				if failed.Load() {
					break
				}
				if err := f(i); err != nil {
					errs[i] = fmt.Errorf("attachments[%d]: %w", i, err)
					failed.Store(true)
				}
			}
			return nil
		})
	}
	group.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// closingAtOnce is how many devices close at a time. The kernel waits for all processors at each, for several at once.
const closingAtOnce = 32

// closeDevices closes what was opened; nil entries were not.
func closeDevices(devices []tun.Device) error {
	errs := make([]error, len(devices))
	var group errgroup.Group
	group.SetLimit(closingAtOnce)
	for i, d := range devices {
		if d != nil {
			group.Go(func() error { errs[i] = d.Close(); return nil })
		}
	}
	group.Wait()
	return errors.Join(errs...)
}
