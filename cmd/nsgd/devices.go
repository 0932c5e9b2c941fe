package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
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

// queues gives a device a queue for each worker, and one for the sparse flows of each where the kernel allows so many.
func queues(c *tun.Config, workers int) {
	if c.Queues = workers; 2*workers <= tun.MaxQueues {
		c.Queues, c.Steer = 2*workers, true
	}
}

// openDevices opens every device at one common level of offload: every device must take a
// superpacket that another one gave. When the kernel gives some devices a lower level, the others
// are opened again at that level.
func openDevices(open opener, plan []tun.Config, want tun.Offload) ([]tun.Device, tun.Offload, error) {
	devices, levels := make([]tun.Device, len(plan)), make([]tun.Offload, len(plan))
	common := want
	for i := range plan {
		plan[i].Offload = want
		var err error
		if devices[i], levels[i], err = open(plan[i]); err != nil {
			return nil, want, errors.Join(fmt.Errorf("attachments[%d]: %w", i, err), closeDevices(devices[:i]))
		}
		if i == 0 || levels[i] < common {
			common = levels[i]
		}
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

// closeDevices closes what was opened; nil entries were not.
func closeDevices(devices []tun.Device) error {
	var errs []error
	for _, d := range devices {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}
