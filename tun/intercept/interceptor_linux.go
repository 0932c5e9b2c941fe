package intercept

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interceptor is the programs of one network namespace. Safe for concurrent use.
type Interceptor struct {
	namespace string
	home      os.FileInfo // of the namespace, which its name may not mean for ever
	adopted   bool

	mu       sync.Mutex
	handle   *netlink.Handle
	programs *programs
	applied  bool
	ids      map[int]bool // of the programs at interfaces
	ports    []Port
	rests    []Rest
	indexes  map[string]int // interfaces and devices that are attached, by name
	names    map[int]string // the ports of the interfaces that were attached, by index; empty: an earlier run's, not known
	attached []int          // the interfaces at which ports are served
	silent   map[int]bool   // guests' ports of bridges that no port stands for
	gone     bool           // the namespace is: see errGone
	found    map[string]int // the interfaces of ports without a name
	unfound  map[string]error
	table    string          // of nftables, as it is now; empty: not known
	moved    map[string]bool // ports' interfaces that went to another network namespace
	seen     map[string]*traffic
	told     map[string]string // what Watch has told, by interface
	now      func() time.Time
}

// errClosed: Close came first. The handle would answer for the process's own namespace.
var errClosed = errors.New("intercept: nsgd stops")

// errGone: the name of the namespace means nothing any more, or another one, such as that of a later process of the
// same number. What nsgd has open there keeps it, but nobody else is there.
var errGone = errors.New("the network namespace is gone: its interfaces are missing until nsgd starts again")

const ownNamespace = "/proc/thread-self/ns/net"

// do runs f in the namespace.
func (i *Interceptor) do(f func() error) error {
	err := tun.Do(i.namespace, func() error {
		if now, err := os.Stat(ownNamespace); err != nil || !os.SameFile(now, i.home) {
			return errors.Join(err, errGone)
		}
		return f()
	})
	if errors.Is(err, tun.ErrNoNamespace) {
		return errors.Join(errGone, err)
	}
	return err
}

// Open loads the programs for a namespace, as tun.Config names it. It takes over what an earlier run has left
// there: interfaces stay closed until Apply. It refuses a namespace where another daemon stands before interfaces.
func Open(namespace string) (*Interceptor, error) {
	i := &Interceptor{
		namespace: namespace, indexes: map[string]int{}, names: map[int]string{}, found: map[string]int{}, unfound: map[string]error{},
		moved: map[string]bool{}, seen: map[string]*traffic{}, told: map[string]string{}, now: time.Now,
	}
	err := tun.Do(namespace, func() (err error) {
		if i.home, err = os.Stat(ownNamespace); err != nil {
			return err
		}
		if i.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		if _, err := unused(i.handle); err != nil {
			return err
		}
		left, err := filtered(i.handle, nil)
		if err != nil {
			return err
		}
		shut, _ := isShut() // without nft there is none
		i.adopted = len(left) > 0 || shut
		earlier, err := earlierMaps(left)
		for _, m := range earlier {
			defer m.Close()
		}
		if err != nil {
			return err
		}
		if i.programs, err = load(earlier); err != nil {
			return err
		}
		if i.ids, err = i.programs.ids(); err != nil {
			return err
		}
		i.remember(left, earlier[prefix+"ports"])
		return i.seal()
	})
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("intercept: %w", err)
	}
	return i, nil
}

// remember notes whose the interfaces were that an earlier run has left: their names may have changed since.
func (i *Interceptor) remember(left []filteredLink, ports *ebpf.Map) {
	for _, f := range left {
		if index := f.link.Attrs().Index; !isKept(f.link) {
			i.names[index] = nameOf(ports, uint32(index))
		}
	}
}

// seal gives what nsgd sends a mark that nobody can guess, unless an earlier run has.
func (i *Interceptor) seal() error {
	var s settingsEntry
	if err := i.programs.Settings.Lookup(uint32(0), &s); err != nil || s.Mark != 0 {
		return err
	}
	var secret [4]byte
	rand.Read(secret[:])
	s.Mark = binary.NativeEndian.Uint32(secret[:]) | 1
	return i.programs.Settings.Put(uint32(0), s)
}

// Adopted tells that an earlier run has left interfaces closed here, whether its maps are in use or not.
func (i *Interceptor) Adopted() bool { return i.adopted }

// Close gives the descriptors back. Interfaces stay as they are: closed, once nobody reads the devices.
func (i *Interceptor) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.handle != nil {
		i.handle.Close()
	}
	if i.programs != nil {
		i.programs.close()
		i.programs = nil
	}
}

// Guard attaches the programs to the interfaces of ports before their devices are there: nothing but what passes
// without nsgd passes from now on. Interfaces that are missing wait for Apply.
func (i *Interceptor) Guard(ports []Port) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	attached := slices.Clone(i.attached)
	for _, p := range ports {
		l, err := i.guard(&p, false)
		if err != nil && !isMissing(err) {
			return fmt.Errorf("intercept: %w", err)
		}
		if err == nil {
			attached = append(attached, l.Attrs().Index)
		}
	}
	if err := i.shut(slices.Concat(i.ports, ports), attached); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

func isMissing(err error) bool {
	var missing netlink.LinkNotFoundError
	var unfound notFoundError
	return errors.As(err, &missing) || errors.As(err, &unfound)
}

// guard attaches the programs to a port unless they are there. With verify it looks whether they are.
func (i *Interceptor) guard(p *Port, verify bool) (netlink.Link, error) {
	l, err := i.link(p)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", p, err)
	}
	if i.indexes[p.String()] == l.Attrs().Index && (!verify || i.filtering(p, l)) {
		i.names[l.Attrs().Index] = p.String()
		return l, nil
	}
	ingress, egress := i.programs.Sends, i.programs.Receives
	if p.Host {
		ingress, egress = egress, ingress
	}
	i.names[l.Attrs().Index] = p.String()
	if err := attach(i.handle, l, ingress, egress, p.programs()); err != nil {
		return nil, err
	}
	i.indexes[p.String()] = l.Attrs().Index
	delete(i.moved, p.String())
	return l, nil
}

// programs are the names of those at the port's ingress and egress.
func (p *Port) programs() [2]string {
	if p.Host {
		return [2]string{"nsgd_receives", "nsgd_sends"}
	}
	return [2]string{"nsgd_sends", "nsgd_receives"}
}

// Apply makes ports and rests what is intercepted in the namespace. Others that were are let go: they are open
// afterwards. A port whose interface is missing waits: call Apply again when it is there. All devices must be there.
// On an error what was intercepted stays intercepted.
func (i *Interceptor) Apply(ports []Port, rests []Rest) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	if err := i.apply(ports, rests); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	i.ports, i.rests, i.applied = slices.Clone(ports), slices.Clone(rests), true
	left := func(guest string, _ int) bool {
		return !slices.ContainsFunc(ports, func(p Port) bool { return p.Guest == guest })
	}
	maps.DeleteFunc(i.found, left) // another guest may be behind that port later
	maps.DeleteFunc(i.unfound, func(guest string, _ error) bool { return left(guest, 0) })
	return nil
}

// Again applies what was applied last: interfaces that only Guard has closed open. Where nothing was, what an earlier
// run has closed stays closed, and Guard's too.
func (i *Interceptor) Again() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	if i.adopted && !i.applied {
		return nil
	}
	if err := i.apply(i.ports, i.rests); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

// wanted is what the maps have to hold.
type wanted struct {
	ports   map[uint32]portEntry
	devices map[uint32]uint32
	owners  map[[16]byte]uint32
	rests   map[prefixEntry]restEntry
	macs    map[uint32]macEntry // of this host
	senders map[uint32]macEntry // until somebody sends
	deaf    []error             // interfaces that can't be attached, but hold up no other
}

func (i *Interceptor) apply(ports []Port, rests []Rest) error {
	w := wanted{map[uint32]portEntry{}, map[uint32]uint32{}, map[[16]byte]uint32{}, map[prefixEntry]restEntry{}, map[uint32]macEntry{}, map[uint32]macEntry{}, nil}
	for _, r := range rests {
		device, err := i.rest(&r)
		if err != nil {
			return err
		}
		if !r.Local {
			w.devices[device] = 0
		}
		for _, p := range r.Prefixes {
			w.rests[entryOf(p)] = restEntry{device, truth(r.Near)}
		}
	}
	for n := range ports {
		if err := i.want(&ports[n], &w); err != nil {
			return err
		}
	}
	i.keepRenamed(&w, ports)
	if err := i.fill(&w); err != nil {
		return err
	}
	i.attached = nil
	for index, entry := range w.ports {
		if entry.Flags&flagClosed == 0 {
			i.attached = append(i.attached, int(index))
		}
	}
	slices.Sort(i.attached)
	if err := i.shut(ports, i.attached); err != nil {
		return err
	}
	return errors.Join(append(w.deaf, i.release(&w))...)
}

func truth(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// device attaches the program to a TUN device.
func (i *Interceptor) device(name string) (uint32, error) {
	l, err := i.handle.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("device %q: %w", name, err)
	}
	index := l.Attrs().Index
	if i.indexes[name] != index {
		if err := attach(i.handle, l, i.programs.Writes, nil, [2]string{"nsgd_writes"}); err != nil {
			return 0, err
		}
		i.indexes[name] = index
	}
	return uint32(index), nil
}

// rest is the index of a device of the rest.
func (i *Interceptor) rest(r *Rest) (uint32, error) {
	if !r.Local {
		return i.device(r.Device)
	}
	l, err := i.handle.LinkByName(r.Device)
	if err != nil {
		return 0, fmt.Errorf("device %q: %w", r.Device, err)
	}
	return uint32(l.Attrs().Index), nil
}

// want adds a port to what is wanted, unless its interface is missing.
func (i *Interceptor) want(p *Port, w *wanted) error {
	device, err := i.device(p.Device)
	if err != nil {
		return err
	}
	for _, near := range p.Near {
		if _, known := w.rests[entryOf(near)]; !known {
			w.rests[entryOf(near)] = restEntry{Near: 1} // no device: nobody of the subnet but its ports sends
		}
	}
	l, err := i.guard(p, true)
	var deaf deafError
	isDeaf := errors.As(err, &deaf)
	if isDeaf {
		w.deaf = append(w.deaf, deaf)
	}
	if isMissing(err) || isDeaf {
		w.devices[device] = ^uint32(0) // no interface has that index
		return nil
	}
	if err != nil {
		return err
	}
	index := uint32(l.Attrs().Index)
	w.devices[device] = index
	entry := portEntry{Device: device, Flags: truth(p.Host)*flagHost | truth(p.Forwards)*flagForwards | truth(p.Gateway)*flagGateway}
	copy(entry.Name[:], p.Interface)
	w.ports[index] = entry
	for _, a := range p.Addresses {
		w.owners[a.As16()] = index
	}
	own := macEntry{}
	copy(own.Byte[:], l.Attrs().HardwareAddr)
	w.senders[index] = own
	if p.Host {
		w.macs[index] = own
	}
	return nil
}

// fill writes the maps. Everything that is new comes before a port is served, and what is old goes at last.
func (i *Interceptor) fill(w *wanted) error {
	p := i.programs
	none := make([]counts, ebpf.MustPossibleCPU())
	for index := range w.senders {
		if err := exists(p.Counts.Update(index, none, ebpf.UpdateNoExist)); err != nil {
			return fmt.Errorf("map of counters: %w", err)
		}
		if err := exists(p.Senders.Update(index, w.senders[index], ebpf.UpdateNoExist)); err != nil {
			return fmt.Errorf("map of senders: %w", err)
		}
	}
	for index, behind := range w.devices {
		if behind != 0 {
			continue
		}
		if err := exists(p.Counts.Update(index, none, ebpf.UpdateNoExist)); err != nil {
			return fmt.Errorf("map of counters: %w", err)
		}
	}
	return errors.Join(
		put(p.MACs, w.macs), put(p.Rests, w.rests), putOwners(p.Owners, w.owners), put(p.Devices, w.devices), put(p.Ports, w.ports),
		prune(p.Rests, w.rests), prune(p.Owners, w.owners),
	)
}

// exists takes for done what is there already.
func exists(err error) error {
	if errors.Is(err, ebpf.ErrKeyExist) {
		return nil
	}
	return err
}

func put[K, V comparable](m *ebpf.Map, entries map[K]V) error {
	for k, v := range entries {
		var now V
		if m.Lookup(k, &now) == nil && now == v {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("map %v: %w", m, err)
		}
	}
	return nil
}

// putOwners is put that leaves what the programs have noted at an address.
func putOwners(m *ebpf.Map, owners map[[16]byte]uint32) error {
	for a, port := range owners {
		var now ownerEntry
		if m.Lookup(a, &now) == nil && now.Port == port {
			continue
		}
		if err := m.Put(a, ownerEntry{Port: port}); err != nil {
			return fmt.Errorf("map %v: %w", m, err)
		}
	}
	return nil
}

// prune removes the entries that are not wanted.
func prune[K comparable, V any](m *ebpf.Map, wanted map[K]V) error {
	var old []K
	var k K
	var v []byte
	for all := m.Iterate(); all.Next(&k, &v); {
		if _, keep := wanted[k]; !keep {
			old = append(old, k)
		}
	}
	for _, k := range old {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %v: %w", m, err)
		}
	}
	return nil
}

// keepRenamed closes interfaces that have another name than their port, which is wanted: the guest is still there. The
// map of ports has the port's name, so that another run closes them too. One without may be that of any missing port.
func (i *Interceptor) keepRenamed(w *wanted, ports []Port) {
	there := len(w.ports)
	for index, name := range i.names {
		_, served := w.ports[uint32(index)]
		if served || name != "" && !slices.ContainsFunc(ports, func(p Port) bool { return p.String() == name }) || name == "" && there == len(ports) {
			continue
		}
		if _, err := i.handle.LinkByIndex(index); isMissing(err) {
			delete(i.names, index)
			continue
		}
		w.ports[uint32(index)] = closedPort(name)
	}
}

// release lets interfaces go that are not wanted any more.
func (i *Interceptor) release(w *wanted) error {
	there, err := filtered(i.handle, func(index int) bool {
		_, port := w.ports[uint32(index)]
		_, device := w.devices[uint32(index)]
		return port || device || i.silent[index]
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range there {
		errs = append(errs, detach(i.handle, f))
		delete(i.indexes, f.link.Attrs().Name)
		delete(i.names, f.link.Attrs().Index)
		if isKept(f.link) {
			errs = append(errs, gone(i.handle.LinkDel(f.link)))
		}
	}
	p := i.programs
	errs = append(errs, prune(p.Ports, w.ports), prune(p.Devices, w.devices), prune(p.MACs, w.ports), prune(p.Senders, w.ports))
	keep := map[uint32]bool{}
	for index := range w.ports {
		keep[index] = true
	}
	for index := range w.devices {
		keep[index] = true
	}
	return errors.Join(append(errs, prune(p.Counts, keep))...)
}

// OpenAfter opens every interface of the namespace after a time, whatever happens to this process; 0 takes that back.
func (i *Interceptor) OpenAfter(d time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	var s settingsEntry
	if err := i.programs.Settings.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	s.OpenAfter = 0
	if d > 0 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return fmt.Errorf("intercept: clock: %w", err)
		}
		s.OpenAfter = uint64(now.Nano()) + uint64(d)
	}
	if err := i.programs.Settings.Put(uint32(0), s); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

// forget lets a guest have another MAC: its interface has gone down.
func (i *Interceptor) forget(index uint32) error {
	err := i.programs.MACs.Delete(index)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
