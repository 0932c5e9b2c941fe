package intercept

import (
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The states of a port.
const (
	Attached = "attached"
	Waiting  = "waiting"  // the interface is missing
	Down     = "down"     // the interface is down or has no carrier
	Replaced = "replaced" // somebody took a filter away or put another in its place: the port may be open
)

// Status is how a port or a device of the rest does.
type Status struct {
	// Name is that of the interface, or of the device of the rest.
	Name string
	// Guest is how a port is called whose interface was found; empty: Name is it.
	Guest string
	// State is empty for a device of the rest.
	State string
	// MAC of the guest; nil: it has not spoken yet.
	MAC net.HardwareAddr
	// Passed counts frames that nsgd doesn't judge, such as ARP. CapturedOut and CapturedIn went to nsgd, from the
	// guest and to it. Delivered and SentOn are what nsgd let pass, to the guest and from it.
	Passed, CapturedOut, CapturedIn, Delivered, SentOn uint64
	// Dropped counts frames that the programs dropped, by reason.
	Dropped map[string]uint64
}

// Statuses are those of the ports and of the devices of the rest, in the order of Apply.
func (i *Interceptor) Statuses() []Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return nil
	}
	var list []Status
	for n := range i.ports {
		list = append(list, i.status(&i.ports[n]))
	}
	for n := range i.rests {
		s := Status{Name: i.rests[n].Device, Dropped: map[string]uint64{}}
		if index, there := i.indexes[s.Name]; there {
			i.count(&s, uint32(index))
		}
		list = append(list, s)
	}
	return list
}

// MAC is the one of the guest behind a port, by the port's device; nil: it has not spoken yet.
func (i *Interceptor) MAC(device string) net.HardwareAddr {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := range i.ports {
		p := &i.ports[n]
		index, attached := i.indexes[p.String()]
		var mac macEntry
		if p.Device == device && attached && i.programs != nil && i.programs.MACs.Lookup(uint32(index), &mac) == nil {
			return mac.Byte[:]
		}
	}
	return nil
}

func (i *Interceptor) status(p *Port) Status {
	s := Status{Name: p.Interface, Guest: p.Guest, State: Waiting, Dropped: map[string]uint64{}}
	l, err := i.link(p)
	if err != nil {
		return s
	}
	s.Name = l.Attrs().Name
	index := uint32(l.Attrs().Index)
	i.count(&s, index)
	var mac macEntry
	if i.programs.MACs.Lookup(index, &mac) == nil {
		s.MAC = mac.Byte[:]
	}
	switch {
	case !i.filtering(p, l):
		s.State = Replaced
	case !isUp(l):
		s.State = Down
	default:
		s.State = Attached
	}
	return s
}

// filtering tells that this run's programs are at both hooks of a port, each at its own.
func (i *Interceptor) filtering(p *Port, l netlink.Link) bool {
	there, err := filtersOf(i.handle, l)
	if err != nil {
		return false
	}
	n := 0
	for _, f := range there.ours {
		if at := slices.Index(parents[:], f.Parent); at >= 0 && i.ids[f.Id] && f.Name == p.programs()[at] {
			n++
		}
	}
	return n == len(parents)
}

func isUp(l netlink.Link) bool {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	return l.Attrs().RawFlags&up == up
}

func (i *Interceptor) count(s *Status, index uint32) {
	var each []counts
	if i.programs.Counts.Lookup(index, &each) != nil {
		return
	}
	c := sum(each)
	s.CapturedOut, s.CapturedIn, s.Delivered, s.SentOn, s.Passed, s.Dropped = c[0], c[1], c[2], c[3], c[4], c.drops()
}
