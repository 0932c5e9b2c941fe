package fabric

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Filters of the fabric are at ingress.

// filterOf is the fabric's filter at a link; nil: none. others is the number of other filters there.
func filterOf(h *netlink.Handle, l netlink.Link) (ours *netlink.BpfFilter, others int, err error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := h.FilterList(l, parent)
		if err != nil {
			return nil, 0, fmt.Errorf("device %q: list filters: %w", l.Attrs().Name, err)
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, prefix) {
				ours = b
			} else {
				others++
			}
		}
	}
	return ours, others, nil
}

// attach puts a program at a link's ingress. One of the fabric that is there is replaced in place, so that no packet
// passes in between.
func attach(h *netlink.Handle, l netlink.Link, p *ebpf.Program, name string) error {
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("program %s: %w", name, err)
	}
	there, _, err := filterOf(h, l)
	if err != nil {
		return err
	}
	handle := uint32(program.HandleShared)
	if there != nil {
		if id, ok := info.ID(); ok && there.Id == int(id) {
			return nil
		}
		handle = there.Handle
	} else if err := h.QdiscAdd(program.Qdisc(l)); err == nil {
		handle = program.HandleOwn
	} else if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("device %q: add qdisc %s: %w", l.Attrs().Name, program.Clsact, err)
	}
	f := program.Filter(l, netlink.HANDLE_MIN_INGRESS, handle, p, name)
	if err := h.FilterReplace(f); err != nil {
		return fmt.Errorf("device %q: attach %s: %w", l.Attrs().Name, name, err)
	}
	return nil
}

// detach removes the fabric's filter, and the qdisc if the fabric made it and nobody else uses it.
func detach(h *netlink.Handle, l netlink.Link) error {
	f, others, err := filterOf(h, l)
	if err != nil || f == nil {
		return err
	}
	errs := []error{program.Gone(h.FilterDel(f))}
	if f.Handle == program.HandleOwn && others == 0 {
		errs = append(errs, program.Gone(h.QdiscDel(program.Qdisc(l))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("device %q: remove filters: %w", l.Attrs().Name, err)
	}
	return nil
}
