package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/intercept"
)

// beforeInterfaces tells of each attachment whether it is in a namespace where nsgd stands before interfaces: its device
// is the NIC's behind one, or that of a part of the rest. Such a device has no address or route.
func (c *Config) beforeInterfaces() []bool {
	namespaces := map[string]bool{}
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.standsBefore() {
			namespaces[a.Netns] = true
		}
	}
	before := make([]bool, len(c.Attachments))
	for i := range c.Attachments {
		a := &c.Attachments[i]
		before[i] = a.standsBefore() || a.ofTheRest() && namespaces[a.Netns]
	}
	return before
}

// standsBefore tells that nsgd stands before the interface of the attachment's guest, or of this host.
func (a *AttachmentConfig) standsBefore() bool { return a.Interface != "" || a.Bridge != "" }

// guest is what messages call an interface without a name.
func (a *AttachmentConfig) guest() string {
	switch {
	case a.Interface != "":
		return ""
	case a.Container != "" && a.Bridge == defaultBridge:
		return "container " + a.Container
	case a.Container != "":
		return "container " + a.Container + " at " + a.Bridge
	}
	return a.Bridge + " " + a.NetworkInterface
}

func (a *AttachmentConfig) ofTheRest() bool { return a.Internet || a.Subnet != "" || a.Gateway != "" }

// namespaces with interfaces, in the order of the attachments.
func (c *Config) namespacesWithInterfaces() (list []string) {
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.standsBefore() && !slices.Contains(list, a.Netns) {
			list = append(list, a.Netns)
		}
	}
	return list
}

// ports are the interfaces in a namespace, with what the policy says of their NICs.
func (c *Config) ports(namespace string, set *policy.Set) (list []privileged.Port) {
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if !a.standsBefore() || a.Netns != namespace {
			continue
		}
		p := privileged.Port{Container: a.Container, Port: intercept.Port{
			Interface: a.Interface, Bridge: a.Bridge, Guest: a.guest(), Shut: c.ClosedAtBoot,
			Device: a.Device, Host: a.Host, Wait: a.Wait, Gateway: a.DefaultGateway,
		}}
		if nic, err := set.NetworkInterface(a.NetworkInterface); err == nil {
			p.Forwards = nic.EnableIPForwarding
			p.MAC, _ = net.ParseMAC(nic.MACAddress) // Azure's form has dashes, which this takes too
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
func (c *Config) rests(namespace string, set *policy.Set, to []*topology.Attachment) (list []intercept.Rest) {
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
			if subnet, err := set.Subnet(a.Subnet); err == nil {
				r.Prefixes = subnet.Prefixes
			}
		case a.Gateway != "":
			for _, p := range a.Prefixes {
				r.Prefixes = append(r.Prefixes, p.Prefix)
			}
		case a.Platform:
			r.Local = true
			for _, p := range to[i].Addresses {
				r.Prefixes = append(r.Prefixes, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
			}
		default:
			continue
		}
		list = append(list, r)
	}
	return list
}

// interception is what a daemon has before interfaces that exist, by network namespace. Safe for concurrent use.
type interception struct {
	log        *slog.Logger
	privileged *privileged.Client
	within     time.Duration // until the interfaces open by themselves; 0: never

	mu         sync.Mutex
	namespaces map[string]*privileged.Interceptor
	next       func() error // applies what prepare has prepared
	// stands is where nsgd stands before a NIC's guest, by the NIC's id in lower case. It needs no mu: guests ask.
	stands atomic.Pointer[map[string]standing]
}

// standing is the device of a NIC before whose guest nsgd stands.
type standing struct {
	*privileged.Interceptor
	device string
}

// mac is what a NIC's guest was seen with; nil: nothing.
func (n *interception) mac(nic *policy.NetworkInterface) net.HardwareAddr {
	all := n.stands.Load()
	if all == nil {
		return nil
	}
	if s, before := (*all)[strings.ToLower(nic.ID)]; before {
		return s.MAC(s.device)
	}
	return nil
}

// prepare closes the interfaces of a configuration before their devices open, and gives the plan their MTU. Nothing is
// let go before settle. Docker may be asked for a while, in which others find mu free.
func (n *interception) prepare(c *Config, plan []tun.Config, set *policy.Set, to []*topology.Attachment) error {
	before := c.beforeInterfaces()
	for _, namespace := range c.namespacesWithInterfaces() {
		i, err := n.interceptor(namespace)
		if err != nil {
			return err
		}
		ports := c.ports(namespace, set)
		mtu, err := i.Check(ports)
		if err != nil {
			return err
		}
		for k := range plan {
			if before[k] && plan[k].Namespace == namespace {
				plan[k].MTU = mtu
			}
		}
		if err := i.Guard(ports); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = func() error {
		var errs []error
		stands := map[string]standing{}
		for k := range c.Attachments {
			a := &c.Attachments[k]
			if !a.standsBefore() {
				continue
			}
			if nic, err := set.NetworkInterface(a.NetworkInterface); err == nil {
				stands[strings.ToLower(nic.ID)] = standing{n.namespaces[a.Netns], a.Device}
			}
		}
		n.stands.Store(&stands)
		for namespace, i := range n.namespaces {
			errs = append(errs, i.Apply(c.ports(namespace, set), c.rests(namespace, set, to)))
			// Not before: with nothing applied it would let go what an earlier run has closed.
			errs = append(errs, i.Watch())
			if err := i.Probe(); err != nil {
				n.log.Warn("guests are not asked for their MAC: those that are silent get nothing", "error", err)
			}
		}
		return errors.Join(errs...)
	}
	return nil
}

// interceptor is that of a namespace, loaded at its first use.
func (n *interception) interceptor(namespace string) (*privileged.Interceptor, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := n.namespaces[namespace]; i != nil {
		return i, nil
	}
	i, err := n.privileged.Intercept(namespace)
	if err != nil {
		return nil, err
	}
	if n.namespaces == nil {
		n.namespaces = map[string]*privileged.Interceptor{}
	}
	n.namespaces[namespace] = i
	return i, i.OpenAfter(n.within)
}

// settle gives the programs what prepare was told. Interfaces that are no longer configured open.
func (n *interception) settle() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next()
}

// undo lets the interfaces go that prepare has closed.
func (n *interception) undo() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, i := range n.namespaces {
		errs = append(errs, i.Again())
	}
	return errors.Join(errs...)
}

// follow logs what goes on at the interfaces of every namespace, also of those to come.
func (n *interception) follow(ctx context.Context) error {
	return n.privileged.FollowInterfaces(ctx, func(e privileged.Event) {
		level := slog.LevelError
		if e.Mild {
			level = slog.LevelWarn
		}
		n.log.Log(ctx, level, "interfaces", "error", e.Text)
	})
}

// stayClosed takes back that the interfaces open by themselves.
func (n *interception) stayClosed() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.within = 0
	var errs []error
	for _, i := range n.namespaces {
		errs = append(errs, i.OpenAfter(0))
	}
	return errors.Join(errs...)
}

// statuses are for the control socket.
func (n *interception) statuses() (list []inspect.InterfaceStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, namespace := range slices.Sorted(maps.Keys(n.namespaces)) {
		for _, s := range n.namespaces[namespace].Statuses() {
			list = append(list, inspect.InterfaceStatus{
				Trouble: s.Trouble, Addresses: s.Addresses, Used: s.Used, Strangers: s.Strangers, LastOut: timeOrNil(s.LastOut), LastIn: timeOrNil(s.LastIn),
				Interface: s.Name, Guest: s.Guest, Namespace: namespace, State: s.State, MAC: s.MAC.String(), Passed: s.Passed,
				CapturedOut: s.CapturedOut, CapturedIn: s.CapturedIn, Delivered: s.Delivered, SentOn: s.SentOn, Dropped: s.Dropped,
			})
		}
	}
	return list
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// close leaves the interfaces as they are: closed, once nobody reads the devices.
func (n *interception) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, i := range n.namespaces {
		errs = append(errs, i.Close())
	}
	return errors.Join(errs...)
}

// openAgain opens the interfaces after a start that failed, but for those that an earlier run has closed, or all.
func (n *interception) openAgain(all bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for namespace, i := range n.namespaces {
		errs = append(errs, i.Close())
		if i.Adopted() && !all {
			continue
		}
		if err := n.privileged.Detach(namespace); err != nil {
			errs = append(errs, fmt.Errorf("open interfaces again: %w", err))
		}
	}
	return errors.Join(errs...)
}
