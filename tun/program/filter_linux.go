package program

import (
	"errors"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Priority makes nsgd's filters the first ones of their hook.
const Priority = 1

// Handles of filters say who made the clsact qdisc, so that what was there before stays.
const (
	HandleOwn    = 1 // nsgd made it
	HandleShared = 2 // it was there
)

// Clsact is the kind of qdisc that has hooks for filters of ingress and egress.
const Clsact = "clsact"

// Qdisc is the clsact qdisc of an interface.
func Qdisc(l netlink.Link) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: Clsact, QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// Filter is a filter that runs a program on each frame of a hook: parent is netlink.HANDLE_MIN_INGRESS or HANDLE_MIN_EGRESS.
func Filter(l netlink.Link, parent, handle uint32, p *ebpf.Program, name string) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: parent, Handle: handle, Priority: Priority, Protocol: unix.ETH_P_ALL},
		Fd:          p.FD(), Name: name, DirectAction: true,
	}
}

// Gone takes for done what somebody else did before, or what ended with its interface.
func Gone(err error) error {
	if slices.ContainsFunc([]error{unix.ENOENT, unix.ENODEV, unix.EINVAL}, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}
