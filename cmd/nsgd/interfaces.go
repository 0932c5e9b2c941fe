package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/intercept"
)

// beforeInterfaces tells that an attachment is in a namespace where nsgd stands before interfaces: its device is the
// NIC's behind one, or that of a part of the rest. Such a device has no address or route.
func (c *Config) beforeInterfaces(i int) bool {
	a := &c.Attachments[i]
	return a.Interface != "" || a.ofTheRest() && slices.ContainsFunc(c.Attachments, func(b AttachmentConfig) bool {
		return b.Interface != "" && b.Netns == a.Netns
	})
}

func (a *AttachmentConfig) ofTheRest() bool { return a.Internet || a.Subnet != "" || a.Gateway != "" }

// namespaces with interfaces, in the order of the attachments.
func (c *Config) namespacesWithInterfaces() (list []string) {
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.Interface != "" && !slices.Contains(list, a.Netns) {
			list = append(list, a.Netns)
		}
	}
	return list
}

// ports are the interfaces in a namespace, with what the policy says of their NICs.
func (c *Config) ports(namespace string, s *topology.Snapshot) (list []intercept.Port) {
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if a.Interface == "" || a.Netns != namespace {
			continue
		}
		p := intercept.Port{Interface: a.Interface, Device: a.Device, Host: a.Host, Wait: a.Wait}
		if nic, err := s.Policy.NetworkInterface(a.NetworkInterface); err == nil {
			p.Forwards = nic.EnableIPForwarding
			for _, ip := range nic.IPConfigurations {
				p.Addresses = append(p.Addresses, ownAddresses(&ip)...)
				p.Near = append(p.Near, ip.Subnet.Prefixes...)
			}
		}
		list = append(list, p)
	}
	return list
}

// ownAddresses are the private address, and the public one that is its alone.
func ownAddresses(ip *policy.IPConfiguration) (list []netip.Addr) {
	list = append(list, ip.Address)
	if public := ip.PublicIPAddress; public != nil && public.Address.IsValid() {
		list = append(list, public.Address)
	}
	return list
}

// rests are the devices in a namespace for what is behind no interface.
func (c *Config) rests(namespace string, s *topology.Snapshot) (list []intercept.Rest) {
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if a.Netns != namespace {
			continue
		}
		r := intercept.Rest{Device: a.Device, Near: true}
		switch {
		case a.Internet:
			r.Prefixes, r.Near = ruleset.Everywhere(), false
		case a.Subnet != "":
			if subnet, err := s.Policy.Subnet(a.Subnet); err == nil {
				r.Prefixes = subnet.Prefixes
			}
		case a.Gateway != "":
			for _, p := range a.Prefixes {
				r.Prefixes = append(r.Prefixes, p.Prefix)
			}
		case a.Platform:
			r.Local = true
			for _, p := range s.Attachments[i].Addresses {
				r.Prefixes = append(r.Prefixes, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
			}
		default:
			continue
		}
		list = append(list, r)
	}
	return list
}

// intercept closes the interfaces of the plan before their devices open. Without interfaces it does nothing.
func (d *daemon) intercept(plan []tun.Config) error {
	snapshot := d.engine.Snapshot()
	d.interceptors = map[string]*intercept.Interceptor{}
	for _, namespace := range d.config.namespacesWithInterfaces() {
		i, err := intercept.Open(namespace)
		if err != nil {
			return err
		}
		d.interceptors[namespace] = i
		d.onStop(func() error { i.Close(); return nil })
		ports := d.config.ports(namespace, snapshot)
		mtu, err := i.Check(ports)
		if err != nil {
			return err
		}
		for n := range plan {
			if d.config.beforeInterfaces(n) && plan[n].Namespace == namespace {
				plan[n].MTU = mtu
			}
		}
		if err := errors.Join(i.OpenAfter(d.confirmation.within), i.Guard(ports)); err != nil {
			return err
		}
	}
	return nil
}

// interfaceStatuses are for the control socket.
func (d *daemon) interfaceStatuses() (list []inspect.InterfaceStatus) {
	for _, namespace := range d.config.namespacesWithInterfaces() {
		statuses, err := d.interceptors[namespace].Statuses()
		if err != nil {
			d.log.Error("interfaces can't be read", "namespace", namespace, "error", err)
		}
		for _, s := range statuses {
			list = append(list, inspect.InterfaceStatus{
				Interface: s.Name, Namespace: namespace, State: s.State, MAC: s.MAC.String(), Passed: s.Passed,
				CapturedOut: s.CapturedOut, CapturedIn: s.CapturedIn, Delivered: s.Delivered, SentOn: s.SentOn, Dropped: s.Dropped,
			})
		}
	}
	return list
}

// serveInterfaces gives the programs what a policy says. Interfaces that are no longer configured open.
func (d *daemon) serveInterfaces() error {
	snapshot := d.engine.Snapshot()
	var errs []error
	for namespace, i := range d.interceptors {
		errs = append(errs, i.Apply(d.config.ports(namespace, snapshot), d.config.rests(namespace, snapshot)))
		if err := i.Probe(); err != nil {
			d.log.Warn("guests are not asked for their MAC: those that are silent get nothing", "error", err)
		}
	}
	return errors.Join(errs...)
}

// openAgain undoes intercept after a start that failed. What an earlier run has closed stays closed.
func (d *daemon) openAgain() error {
	var errs []error
	for namespace, i := range d.interceptors {
		if i.Adopted() && !d.confirmation.expired {
			continue
		}
		if _, err := intercept.Detach(namespace); err != nil {
			errs = append(errs, fmt.Errorf("open interfaces after a failed start: %w", err))
		}
	}
	return errors.Join(errs...)
}
