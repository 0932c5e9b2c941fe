package intercept

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The states of a port.
const (
	Attached = "attached"
	Waiting  = "waiting"  // the interface is missing
	Down     = "down"     // the interface is down or has no carrier
	Replaced = "replaced" // somebody took a filter away or put another in its place or before it: the port may be open
)

// maxStrangers is how many strange addresses of a port are shown.
const maxStrangers = 16

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
	// Trouble says what is wrong; empty: nothing is.
	Trouble string
	// Addresses are the NIC's, Used those that it has sent from. Strangers are others that it sends from: 16 of them at
	// most, and they are forgotten when guests use many.
	Addresses, Used, Strangers []netip.Addr
	// LastOut and LastIn are when nsgd got a packet of the NIC, and the NIC one of nsgd: to two seconds, zero when
	// there was none in this run.
	LastOut, LastIn time.Time
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
	strangers := i.strangers()
	for n := range i.ports {
		list = append(list, i.status(&i.ports[n], strangers))
	}
	for n := range i.rests {
		s := Status{Name: i.rests[n].Device, Dropped: map[string]uint64{}}
		if index, there := i.indexes[s.Name]; there {
			c := i.counted(uint32(index))
			s.count(&c)
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

func (i *Interceptor) status(p *Port, strangers map[uint32][]netip.Addr) Status {
	s := Status{Name: p.Interface, Guest: p.Guest, State: Waiting, Dropped: map[string]uint64{}, Addresses: p.Addresses}
	l, err := i.link(p)
	if err != nil {
		s.setTrouble(errors.Join(i.absence(p), i.unfound[p.Guest]))
		return s
	}
	s.Name = l.Attrs().Name
	index := uint32(l.Attrs().Index)
	c := i.counted(index)
	s.count(&c)
	var mac macEntry
	if i.programs.MACs.Lookup(index, &mac) == nil {
		s.MAC = mac.Byte[:]
	}
	s.Used = i.used(p, index)
	if !p.Forwards {
		s.Strangers = slices.DeleteFunc(strangers[index], func(a netip.Addr) bool { return slices.Contains(p.Addresses, a) })
	}
	t := i.look(p, l, &c)
	s.LastOut, s.LastIn = t.lastOut, t.lastIn
	ahead := i.ahead(l)
	s.setTrouble(errors.Join(ahead, i.unfit(p, l), t.silence(p)))
	switch {
	case ahead != nil || !i.filtering(p, l):
		s.State = Replaced
	case !isUp(l):
		s.State = Down
	default:
		s.State = Attached
	}
	return s
}

func (s *Status) setTrouble(err error) {
	if err != nil {
		s.Trouble = err.Error()
	}
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

// counted is what the programs have counted at an interface or a device.
func (i *Interceptor) counted(index uint32) counts {
	var each []counts
	if i.programs.Counts.Lookup(index, &each) != nil {
		return counts{}
	}
	return sum(each)
}

func (s *Status) count(c *counts) {
	s.CapturedOut, s.CapturedIn, s.Delivered, s.SentOn, s.Passed, s.Dropped = c[capturedOut], c[capturedIn], c[delivered], c[sentOn], c[passed], c.drops()
}

// used tells which of a port's addresses its NIC has sent from.
func (i *Interceptor) used(p *Port, index uint32) (list []netip.Addr) {
	for _, a := range p.Addresses {
		var o ownerEntry
		if i.programs.Owners.Lookup(a.As16(), &o) == nil && o.Port == index && o.Used != 0 {
			list = append(list, a)
		}
	}
	return list
}

// strangers are the addresses that NICs send from without having them, by port.
func (i *Interceptor) strangers() map[uint32][]netip.Addr {
	found := map[uint32][]netip.Addr{}
	var key peerEntry
	var value uint32
	for all := i.programs.Strangers.Iterate(); all.Next(&key, &value); {
		if list := found[key.Interface]; len(list) < maxStrangers {
			found[key.Interface] = append(list, netip.AddrFrom16(key.Addr).Unmap())
		}
	}
	for _, list := range found {
		slices.SortFunc(list, netip.Addr.Compare)
	}
	return found
}
