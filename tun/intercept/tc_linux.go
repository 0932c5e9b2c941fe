package intercept

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
)

var (
	parents = [...]uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}
	hooks   = [...]string{"ingress", "egress"}
)

// filteredLink is an interface at which nsgd has filters.
type filteredLink struct {
	link   netlink.Link
	ours   []*netlink.BpfFilter
	others int // filters of somebody else
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Priority == program.Priority && strings.HasPrefix(b.Name, prefix)
}

// linksOf are the interfaces of a namespace. Where others come and go meanwhile the kernel says that the list may lack
// some: it is asked again then.
func linksOf(h *netlink.Handle) (links []netlink.Link, err error) {
	const tries = 20
	for range tries {
		if links, err = h.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

// filtered finds the interfaces of a namespace at which nsgd has filters, but for those that are known.
func filtered(h *netlink.Handle, known func(index int) bool) ([]filteredLink, error) {
	links, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	kinds, err := qdiscKinds(h, nil)
	if err != nil {
		return nil, err
	}
	var list []filteredLink
	for _, l := range links {
		if index := l.Attrs().Index; kinds[index] == "" || known != nil && known(index) {
			continue
		}
		found, err := filtersOf(h, l)
		if err != nil {
			return nil, err
		}
		if len(found.ours) > 0 {
			list = append(list, found)
		}
	}
	return list, nil
}

// qdiscKinds are the kinds of the qdiscs at the hooks of ingress and egress, by interface: clsact or ingress. Of
// one interface, or of all: nil.
func qdiscKinds(h *netlink.Handle, of netlink.Link) (map[int]string, error) {
	all, err := h.QdiscList(of)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	kinds := map[int]string{}
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			kinds[q.Attrs().LinkIndex] = q.Type()
		}
	}
	return kinds, nil
}

func filtersOf(h *netlink.Handle, l netlink.Link) (filteredLink, error) {
	found := filteredLink{link: l}
	for _, parent := range parents {
		filters, err := h.FilterList(l, parent)
		if err != nil {
			return found, fmt.Errorf("interface %q: list filters: %w", l.Attrs().Name, err)
		}
		for _, f := range filters {
			if isOurs(f) {
				found.ours = append(found.ours, f.(*netlink.BpfFilter))
			} else {
				found.others++
			}
		}
	}
	return found, nil
}

// deafError: an interface has filters of ingress alone. What nsgd has there keeps its guest from sending anything.
type deafError struct{ error }

// otherQdisc is the fault of a qdisc that has only filters of ingress.
func otherQdisc(kind string, l netlink.Link) error {
	return fmt.Errorf("it has a qdisc %s, on which filters of egress do nothing: `tc qdisc del dev %s %s` removes it, clsact may take its place",
		kind, l.Attrs().Name, kind)
}

// attach puts programs at the interface's hooks; nil: none. What nsgd has there is replaced in place, so that no
// packet passes in between.
func attach(h *netlink.Handle, l netlink.Link, ingress, egress *ebpf.Program, name [2]string) error {
	kinds, err := qdiscKinds(h, l)
	if err != nil {
		return err
	}
	index := l.Attrs().Index
	handle := uint32(program.HandleShared)
	if kinds[index] == "" {
		if err := h.QdiscAdd(program.Qdisc(l)); err != nil {
			return fmt.Errorf("interface %q: add qdisc %s: %w", l.Attrs().Name, program.Clsact, err)
		}
		handle = program.HandleOwn
	}
	there, err := filtersOf(h, l)
	if err != nil {
		return err
	}
	if len(there.ours) > 0 {
		handle = there.ours[0].Handle
	}
	for i, p := range []*ebpf.Program{ingress, egress} {
		if p == nil {
			continue
		}
		if kind := kinds[index]; i == 1 && kind != "" && kind != program.Clsact { // the filter would take the place of ingress's
			return deafError{fmt.Errorf("interface %q: %w", l.Attrs().Name, otherQdisc(kind, l))}
		}
		f := program.Filter(l, parents[i], handle, p, name[i])
		if err := h.FilterReplace(f); err != nil {
			return fmt.Errorf("interface %q: attach %s: %w", l.Attrs().Name, name[i], err)
		}
	}
	return nil
}

// detach removes nsgd's filters, and the qdisc if nsgd made it and nobody else uses it.
func detach(h *netlink.Handle, there filteredLink) error {
	var errs []error
	own := false
	for _, f := range there.ours {
		own = own || f.Handle == program.HandleOwn
		errs = append(errs, program.Gone(h.FilterDel(f)))
	}
	if own && there.others == 0 && len(there.ours) > 0 {
		errs = append(errs, program.Gone(h.QdiscDel(program.Qdisc(there.link))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("interface %q: remove filters: %w", there.link.Attrs().Name, err)
	}
	return nil
}
