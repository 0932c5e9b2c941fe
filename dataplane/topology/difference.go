package topology

import (
	"reflect"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Difference says which flows may end or last otherwise under a snapshot than under an earlier one. All others go the same
// ways, are translated alike and have the same timeouts, whatever rules say of them.
type Difference struct {
	// Everything says that it may be any flow.
	Everything bool

	addresses map[packet.Addr]struct{} // of network interfaces that differ
	sieve     [sieveBits / 64]uint64   // by an address's last bits: there may be one of addresses
}

const sieveBits = 1 << 12

// None says that there is no such flow.
func (d *Difference) None() bool { return !d.Everything && len(d.addresses) == 0 }

// Has reports an address whose flows may be among them, at whichever end.
func (d *Difference) Has(a packet.Addr) bool {
	at := a.Lo % sieveBits
	if d.sieve[at/64]>>(at%64)&1 == 0 {
		return false
	}
	_, has := d.addresses[a]
	return has
}

func (d *Difference) add(a packet.Addr) {
	at := a.Lo % sieveBits
	d.sieve[at/64] |= 1 << (at % 64)
	d.addresses[a] = struct{}{}
}

// Differs compares a snapshot with an earlier one. Only network interfaces to which nothing leads by name are told
// apart from the rest: whatever else differs may concern every flow.
func (s *Snapshot) Differs(before *Snapshot) Difference {
	everything := Difference{Everything: true}
	if !reflect.DeepEqual(&s.options, &before.options) || s.BlockSMTP != before.BlockSMTP {
		return everything
	}
	policies := s.Policy.Differs(before.Policy)
	if policies.Elsewhere {
		return everything
	}
	d, nics := Difference{addresses: map[packet.Addr]struct{}{}}, policies.Interfaces
	for slot := range max(len(s.Attachments), len(before.Attachments)) {
		now, was := s.placeAt(slot), before.placeAt(slot)
		if now.same(&was) {
			continue
		}
		for _, p := range []*place{&now, &was} {
			if p.Kind != NetworkInterface && p.Kind != Vacant {
				return everything
			}
			nics[p.nic] = true // a vacant one adds nobody
		}
	}
	if len(nics) == 0 {
		return d
	}
	if s.translates != before.translates || !d.addPlain(s, nics) || !d.addPlain(before, nics) {
		return everything
	}
	return d
}

// place is what an attachment stands for.
type place struct {
	Spec            // without Place
	identity string // of the attachment
	nic      string // its id in lower case; empty: it is of another kind
}

func (s *Snapshot) placeAt(slot int) place {
	if !s.Attached(slot) {
		return place{Spec: Spec{Kind: Vacant}}
	}
	a := s.Attachments[slot]
	p := place{Spec: s.specs[slot], identity: a.identity}
	p.Place = 0 // the list's order says nothing
	if p.Kind == NetworkInterface {
		p.Reference, p.nic = "", strings.ToLower(a.id)
	}
	return p
}

func (p *place) same(other *place) bool { return reflect.DeepEqual(p, other) }

// addPlain adds the addresses of network interfaces. It reports false when one of them concerns more flows than those of its
// addresses: something leads to it, or it leads others.
func (d *Difference) addPlain(s *Snapshot, nics map[string]bool) bool {
	if s.options.Isolated || slices.ContainsFunc(s.Attachments, func(a *Attachment) bool { return a.Kind == Fabric }) {
		return false
	}
	named := s.named(s.routes())
	for _, e := range s.endpoints.nics {
		nic := e.NetworkInterface
		if !nics[strings.ToLower(nic.ID)] {
			continue
		}
		if named[e] || e.private() || len(e.floating) > 0 || nic.EnableIPForwarding || e.configuration().PublicIPAddress != nil {
			return false
		}
		d.add(e.address)
	}
	return true
}
