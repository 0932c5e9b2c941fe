package fabric

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/program"
)

// Fabric is what carries packets between hosts in one network namespace. Safe for concurrent use.
type Fabric struct {
	namespace string

	mu       sync.Mutex
	handle   *netlink.Handle
	programs *programs // nil: closed
	teller   *teller
	have     *entries // what the maps hold; nil: not read yet
	adopted  bool
	// rules and elements are what the table was told last, listed is what it says since then.
	rules, elements, listed string
}

var errClosed = fmt.Errorf("fabric: %w", os.ErrClosed)

// Open loads the programs for a namespace, as tun.Do knows it. What an earlier run has left there goes on. Nothing
// changes until Apply. From then on senders whose packets don't fit are told, until Leave or Close.
func Open(namespace string) (*Fabric, error) {
	f := &Fabric{namespace: namespace}
	err := tun.Do(namespace, func() (err error) {
		if f.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		filters, err := f.earlier()
		if err != nil {
			return err
		}
		earlier, err := earlierMaps(filters)
		if err != nil {
			return err
		}
		defer closeAll(earlier)
		f.programs, err = load(earlier)
		return err
	})
	if err != nil {
		f.Leave()
		return nil, fmt.Errorf("fabric: %w", err)
	}
	return f, nil
}

// earlier finds the filters that an earlier run has left, VXLAN's first.
func (f *Fabric) earlier() (filters []*netlink.BpfFilter, err error) {
	devices, tuns, err := left(f.handle)
	if err != nil {
		return nil, err
	}
	f.adopted = len(devices) > 0
	for _, l := range slices.Concat(devices, tuns) {
		filter, _, err := filterOf(f.handle, l)
		if err != nil {
			return nil, err
		}
		if filter != nil {
			filters = append(filters, filter)
		}
	}
	return filters, nil
}

// Adopted tells that an earlier run has left a fabric here.
func (f *Fabric) Adopted() bool { return f.adopted }

// Apply makes the kernel carry what the state says, and nothing else. The TUN devices must be there. It changes only
// what differs, and may be called again at any time: what somebody else has removed comes back. A prefix that moves
// from one host to another does so at once, so that no packet goes to nobody. Whatever is not there yet is dropped.
// After an error the old entries, the new ones, or some of each are in force: never others. The next Apply goes on.
func (f *Fabric) Apply(s State) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.programs == nil {
		return errClosed
	}
	if err := tun.Do(f.namespace, func() error { return f.apply(&s) }); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	return nil
}

// begin reads what the maps hold, at the first Apply: until then an earlier run may go on.
func (f *Fabric) begin() error {
	if f.have != nil {
		return nil
	}
	teller, err := newTeller(f.namespace, f.programs)
	if err != nil {
		return err
	}
	have, err := f.programs.entries()
	if err != nil {
		teller.close()
		return err
	}
	f.have, f.teller = &have, teller
	return nil
}

func (f *Fabric) apply(s *State) error {
	if err := f.begin(); err != nil {
		return err
	}
	mtu, err := underlayMTU(f.handle, s)
	if err != nil {
		return err
	}
	links, tuns, err := f.tuns(s)
	if err != nil {
		return err
	}
	if want := wanted(s, f.have.settings[0].Device, tuns); f.told(s) && f.have.carries(&want) {
		// What takes no time comes first: with thousands of hosts the table takes longer.
		if err := errors.Join(f.programs.widen(f.have, &want), f.programs.narrow(f.have, &want)); err != nil {
			return err
		}
	}
	if err := f.shut(s); err != nil { // before there is anything to close
		return err
	}
	vxlan, err := device(f.handle, s, mtu-Overhead(s.Underlay))
	if err != nil {
		return err
	}
	want := wanted(s, uint32(vxlan.Attrs().Index), tuns)
	if err := f.programs.widen(f.have, &want); err != nil {
		return err
	}
	if err := f.programs.serve(f.have, &want); err != nil {
		return err
	}
	if err := attach(f.handle, vxlan, f.programs.Receives, "fabric_receives"); err != nil {
		return err
	}
	for _, l := range links {
		if err := attach(f.handle, l, f.programs.Sends, "fabric_sends"); err != nil {
			return err
		}
	}
	return f.programs.narrow(f.have, &want)
}

// tuns are the devices of the tunnels and their indexes, by name.
func (f *Fabric) tuns(s *State) (links []netlink.Link, indexes map[string]uint32, err error) {
	all, err := linksOf(f.handle) // one question for thousands of devices
	if err != nil {
		return nil, nil, err
	}
	byName := make(map[string]netlink.Link, len(all))
	for _, l := range all {
		byName[l.Attrs().Name] = l
	}
	indexes = make(map[string]uint32, len(s.Tunnels))
	for _, t := range s.Tunnels {
		l := byName[t.TUN]
		if l == nil || l.Type() != "tuntap" {
			return nil, nil, fmt.Errorf("tunnel %d: TUN %q: there is no TUN device of that name", t.VNI, t.TUN)
		}
		links, indexes[t.TUN] = append(links, l), uint32(l.Attrs().Index)
	}
	return links, indexes, nil
}

// Counts are what passed and what was dropped.
func (f *Fabric) Counts() (Counts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Counts{Tunnels: map[uint32]Count{}}
	if f.programs == nil {
		return c, errClosed
	}
	if f.have == nil {
		return c, nil
	}
	var vni uint32
	var perCPU []counts
	all := f.programs.Counts.Iterate()
	for all.Next(&vni, &perCPU) {
		if vni == noVNI {
			c.Unknown = count(perCPU)
		} else if _, known := f.have.tunnels[vni]; known {
			c.Tunnels[vni] = count(perCPU)
		}
	}
	err := all.Err()
	if err == nil && f.listed != "" {
		err = tun.Do(f.namespace, func() (err error) {
			c.Strangers, c.Past, err = tableCounts()
			return err
		})
	}
	if err != nil {
		return c, fmt.Errorf("fabric: counters: %w", err)
	}
	return c, nil
}

// Leave gives the descriptors back. The kernel goes on to carry what was applied: the next Open finds it.
func (f *Fabric) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handle != nil {
		f.handle.Close()
		f.handle = nil
	}
	if f.teller != nil {
		f.teller.close()
		f.teller = nil
	}
	if f.programs != nil {
		program.Close(f.programs)
		f.programs = nil
	}
}

// Close is Leave, and removes everything of the fabric's. Nobody may write to the TUN devices any more: this host would
// take it for its own.
func (f *Fabric) Close() error {
	f.Leave()
	_, err := sweep(f.namespace, true)
	return err
}

// ErrInUse: a daemon reads the devices.
var ErrInUse = errors.New("a running nsgd reads it: stop nsgd first")

// Remove removes what a fabric has left in a namespace, also one that was killed, and returns the names of devices and
// tables. It changes nothing while a daemon reads a TUN device of the fabric.
func Remove(namespace string) (removed []string, err error) { return sweep(namespace, false) }

// sweep is Remove; used: also while somebody reads the devices.
func sweep(namespace string, used bool) (removed []string, err error) {
	err = tun.Do(namespace, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		devices, tuns, err := left(h)
		if err != nil {
			return err
		}
		for _, l := range tuns {
			if !used && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 { // a TUN has a carrier while somebody has it open
				return fmt.Errorf("device %q: %w", l.Attrs().Name, ErrInUse)
			}
		}
		var errs []error
		for _, l := range devices {
			removed = append(removed, l.Attrs().Name)
			errs = append(errs, program.Gone(h.LinkDel(l)))
		}
		for _, l := range tuns {
			errs = append(errs, detach(h, l))
		}
		closed, err := open()
		if closed {
			removed = append(removed, "table inet "+table)
		}
		return errors.Join(append(errs, err)...)
	})
	if err != nil {
		return removed, fmt.Errorf("fabric: %w", err)
	}
	return removed, nil
}

// left are the fabric's devices of VXLAN, and the TUN devices with its filters.
func left(h *netlink.Handle) (devices, tuns []netlink.Link, err error) {
	links, err := linksOf(h)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range links {
		switch {
		case isOurs(l):
			devices = append(devices, l)
		case l.Type() == "tuntap":
			f, _, err := filterOf(h, l)
			if err != nil {
				return nil, nil, err
			}
			if f != nil {
				tuns = append(tuns, l)
			}
		}
	}
	return devices, tuns, nil
}
