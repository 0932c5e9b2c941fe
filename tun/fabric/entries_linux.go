package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The structs of programs.c.
type (
	address = [16]byte // IPv4 in IPv6
	network struct {
		Bits, ID uint32
		Addr     address
	}
	sender struct {
		Host   address
		Prefix network
		Flags  uint32
	}
	member struct {
		Prefix network
		Host   address
	}
	tunnel   struct{ Device, MTU uint32 }
	settings struct {
		Device, Is6 uint32
		Underlay    address
	}
)

const (
	family6 = 1 << 24
	many    = 1 // flag of sender
)

// entries are what the maps hold, or have to.
type entries struct {
	settings map[uint32]settings
	devices  map[uint32]uint32
	tunnels  map[uint32]tunnel
	routes   map[network]address
	senders  map[network]sender
	members  map[member]uint32
}

// wanted are the entries of a valid state. device is the index of VXLAN's device, tuns are those of the tunnels'.
func wanted(s *State, device uint32, tuns map[string]uint32) entries {
	e := entries{
		settings: map[uint32]settings{0: {Device: device, Is6: is6(s.Underlay), Underlay: s.Underlay.As16()}},
		devices:  map[uint32]uint32{}, tunnels: map[uint32]tunnel{}, routes: map[network]address{}, senders: map[network]sender{}, members: map[member]uint32{},
	}
	hosts := s.hostsByName()
	for n := range s.Tunnels {
		t := &s.Tunnels[n]
		e.devices[tuns[t.TUN]] = t.VNI
		e.tunnels[t.VNI] = tunnel{Device: tuns[t.TUN], MTU: uint32(t.MTU)}
		for _, r := range t.Routes {
			e.routes[networkOf(t.VNI, r.Prefix)] = hosts[r.Host].As16()
		}
		senders := map[netip.Prefix][]address{}
		for _, one := range t.Sources {
			var host address // this one
			if one.Host != "" {
				host = hosts[one.Host].As16()
			}
			senders[one.Prefix] = append(senders[one.Prefix], host)
		}
		for prefix, list := range senders {
			slices.SortFunc(list, func(a, b address) int { return slices.Compare(a[:], b[:]) })
			n := networkOf(t.VNI, prefix)
			entry := sender{Host: list[0], Prefix: n}
			for _, other := range list[1:] {
				entry.Flags = many
				e.members[member{n, other}] = 1
			}
			e.senders[n] = entry
		}
	}
	return e
}

// carries tells that the entries differ in prefixes alone.
func (e *entries) carries(want *entries) bool {
	return maps.Equal(e.settings, want.settings) && maps.Equal(e.devices, want.devices) && maps.Equal(e.tunnels, want.tunnels)
}

func is6(a netip.Addr) uint32 {
	if a.Is6() {
		return 1
	}
	return 0
}

// networkOf is a prefix as the maps have it: the family is a part of it.
func networkOf(vni uint32, p netip.Prefix) network {
	n := network{Bits: 32 + uint32(p.Bits()), ID: vni, Addr: p.Addr().As16()}
	if p.Addr().Is4() {
		n.Bits += 96
	} else {
		n.ID |= family6
	}
	return n
}

// entries reads what the maps hold.
func (p *programs) entries() (e entries, err error) {
	var errs [6]error
	e.settings, errs[0] = read[uint32, settings](p.Settings)
	e.devices, errs[1] = read[uint32, uint32](p.Devices)
	e.tunnels, errs[2] = read[uint32, tunnel](p.Tunnels)
	e.routes, errs[3] = read[network, address](p.Routes)
	e.senders, errs[4] = read[network, sender](p.Senders)
	e.members, errs[5] = read[member, uint32](p.Members)
	return e, errors.Join(errs[:]...)
}

func read[K, V comparable](m *ebpf.Map) (map[K]V, error) {
	all := map[K]V{}
	var k K
	var v V
	for i := m.Iterate(); ; {
		if !i.Next(&k, &v) {
			if err := i.Err(); err != nil {
				return all, fmt.Errorf("map %v: %w", m, err)
			}
			return all, nil
		}
		all[k] = v
	}
}

// widen writes what is new or differs, but lets no packet in or out yet. Longer prefixes come first, so that no packet
// meets the new entry of a shorter one in between.
func (p *programs) widen(have, want *entries) error {
	longest := func(a, b network) int { return cmp.Compare(b.Bits, a.Bits) }
	return errors.Join(
		write(p.Settings, have.settings, want.settings, nil),
		write(p.Members, have.members, want.members, nil),
		write(p.Senders, have.senders, want.senders, longest),
		write(p.Routes, have.routes, want.routes, longest),
		p.count(want),
	)
}

// serve makes tunnels and their devices those that are wanted: packets pass from now on, and others no more.
func (p *programs) serve(have, want *entries) error {
	return errors.Join(
		write(p.Tunnels, have.tunnels, want.tunnels, nil),
		write(p.Devices, have.devices, want.devices, nil),
		remove(p.Devices, have.devices, want.devices, nil),
		remove(p.Tunnels, have.tunnels, want.tunnels, nil),
	)
}

// narrow removes what is no longer wanted. Shorter prefixes come first, so that no packet falls back to an old one.
func (p *programs) narrow(have, want *entries) error {
	shortest := func(a, b network) int { return cmp.Compare(a.Bits, b.Bits) }
	return errors.Join(
		remove(p.Routes, have.routes, want.routes, shortest),
		remove(p.Senders, have.senders, want.senders, shortest),
		remove(p.Members, have.members, want.members, nil),
		p.forget(want),
	)
}

// write makes a map hold what is wanted, and notes it in have. Each entry changes at once.
func write[K, V comparable](m *ebpf.Map, have, want map[K]V, order func(a, b K) int) error {
	var keys []K
	for k, v := range want {
		if old, known := have[k]; !known || old != v {
			keys = append(keys, k)
		}
	}
	if order != nil {
		slices.SortFunc(keys, order)
	}
	for _, k := range keys {
		if err := put(m, k, want[k], ebpf.UpdateAny); err != nil {
			return err
		}
		have[k] = want[k]
	}
	return nil
}

// put writes an entry. The kernel takes memory of a small stock, which it fills beside: when that is empty it says so.
func put(m *ebpf.Map, key, value any, flags ebpf.MapUpdateFlags) (err error) {
	const tries, pause = 200, 5 * time.Millisecond
	for range tries {
		if err = m.Update(key, value, flags); !errors.Is(err, unix.ENOMEM) {
			break
		}
		time.Sleep(pause)
	}
	if err != nil {
		return fmt.Errorf("map %v: %w", m, err)
	}
	return nil
}

// remove takes out of a map what is not wanted, and out of have.
func remove[K, V comparable](m *ebpf.Map, have, want map[K]V, order func(a, b K) int) error {
	var keys []K
	for k := range have {
		if _, known := want[k]; !known {
			keys = append(keys, k)
		}
	}
	if order != nil {
		slices.SortFunc(keys, order)
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %v: %w", m, err)
		}
		delete(have, k)
	}
	return nil
}

// count gives each tunnel its counters, and those without a tunnel theirs.
func (p *programs) count(want *entries) error {
	none := make([]counts, ebpf.MustPossibleCPU())
	vnis := append(slices.Collect(maps.Keys(want.tunnels)), noVNI)
	for _, vni := range vnis {
		if err := put(p.Counts, vni, none, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return err
		}
	}
	return nil
}

// forget removes the counters of networks that are gone.
func (p *programs) forget(want *entries) error {
	var old []uint32
	for vni := any(nil); ; {
		var next uint32
		err := p.Counts.NextKey(vni, &next)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("map of counters: %w", err)
		}
		if _, known := want.tunnels[next]; !known && next != noVNI {
			old = append(old, next)
		}
		vni = next
	}
	for _, vni := range old {
		if err := p.Counts.Delete(vni); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map of counters: %w", err)
		}
	}
	return nil
}
