package intercept

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
)

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
	if err := checkEthernet(l); err != nil { // it has come since the start, and the programs would take its packets for frames
		w.deaf = append(w.deaf, fmt.Errorf("interface %q: %w: it is closed", p, err))
		w.devices[device], w.ports[index] = ^uint32(0), closedPort(p.Interface)
		return nil
	}
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

// closeRenamed closes interfaces that have got another name than their port since an earlier run has served them: what
// their guests send would wait in the devices that open next.
func (i *Interceptor) closeRenamed(ports []Port) error {
	for index, name := range i.names {
		if name == "" || !slices.ContainsFunc(ports, func(p Port) bool { return p.Interface == name }) {
			continue
		}
		l, err := i.handle.LinkByIndex(index)
		if isMissing(err) || err == nil && l.Attrs().Name == name {
			continue
		}
		if err == nil {
			err = i.programs.Ports.Update(uint32(index), closedPort(name), ebpf.UpdateExist)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("close interface %q: %w", name, err)
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
			errs = append(errs, program.Gone(i.handle.LinkDel(f.link)))
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
