package topology

import (
	"fmt"
	"slices"
	"strings"
)

// Follow makes s the snapshot after before; before is nil for the first. It numbers s, takes
// over the states of probes, and notes since when NSGs with flushConnection ask to judge an
// endpoint's flows again. Nothing else may use s yet.
func (s *Snapshot) Follow(before *Snapshot) {
	if before == nil {
		before = &Snapshot{endpoints: &endpointSet{}}
	}
	generation := before.Generation + 1
	if s == before {
		s.Generation = generation
		return
	}
	s.followProbes(before)
	s.Generation, s.Flushed = generation, 0
	s.followAttachments(before)
	if !s.anyFlush() && before.Flushed == 0 && !before.anyFlush() {
		for _, e := range s.endpoints.all() {
			e.Flushed = 0
		}
		return
	}
	s.followGroups(before)
	s.followEndpoints(before)
}

// followAttachments notes since when each index belongs to its attachment. A vacant one keeps the name of what was
// there, for those who tell of the past.
func (s *Snapshot) followAttachments(before *Snapshot) {
	for i, a := range s.Attachments {
		a.Since = s.Generation
		if i >= len(before.Attachments) {
			continue
		}
		switch was := before.Attachments[i]; {
		case a.Kind == Vacant:
			a.Name = was.Name
			fallthrough
		case was.identity == a.identity:
			a.Since = was.Since
		}
	}
}

// Attached reports that something is attached at an index. Nothing is where an attachment has left, or comes with a later
// snapshot.
func (s *Snapshot) Attached(index int) bool {
	return index < len(s.Attachments) && s.Attachments[index].Kind != Vacant
}

// NameSince is the name of the attachment at an index that a packet of a generation met; empty when it is not known.
func (s *Snapshot) NameSince(index int, generation uint64) string {
	if index < 0 || index >= len(s.Attachments) || s.Attachments[index].Since > generation {
		return ""
	}
	return s.Attachments[index].Name
}

func (s *Snapshot) anyFlush() bool {
	return slices.ContainsFunc(s.Groups, func(g *Group) bool { return g.NSG.FlushConnection })
}

// followGroups notes when each NSG with flushConnection changed last. To switch it on is a
// change.
func (s *Snapshot) followGroups(before *Snapshot) {
	old := map[groupIdentity]*Group{}
	for _, g := range before.Groups {
		old[g.identity()] = g
	}
	for _, g := range s.Groups {
		switch was := old[g.identity()]; {
		case !g.NSG.FlushConnection:
			g.changed = 0
		case was == nil || !was.NSG.FlushConnection || !was.Inbound.decidesLike(&g.Inbound) || !was.Outbound.decidesLike(&g.Outbound):
			g.changed = uint32(s.Generation)
		default:
			g.changed = was.changed
		}
	}
}

// decidesLike reports that two tables decide alike and count for the same rules. A rule's slot
// stands for its NSG, name and access.
func (t *Table) decidesLike(other *Table) bool {
	return t.Match == other.Match && sameList(t.Slots, other.Slots) && slices.Equal(t.platformRules, other.platformRules)
}

// followEndpoints notes for each endpoint the last change of an NSG with flushConnection that
// judges it. To associate or remove such an NSG is a change. What was due before stays due,
// because flows are judged when their next packet comes.
func (s *Snapshot) followEndpoints(before *Snapshot) {
	members := before.endpoints.all()
	old := make(map[string]*Endpoint, len(members))
	for _, e := range members {
		old[e.identity()] = e
	}
	for _, e := range s.endpoints.all() {
		was := old[e.identity()]
		if was == nil {
			was = &Endpoint{}
		}
		e.Flushed = was.Flushed
		now, then := e.flushing(), was.flushing()
		for p, changed := range now {
			if _, had := then[p]; !had {
				changed = uint32(s.Generation)
			}
			e.Flushed = max(e.Flushed, changed)
		}
		for p := range then {
			if _, has := now[p]; !has && !e.uses(p) {
				e.Flushed = uint32(s.Generation)
			}
		}
		s.Flushed = max(s.Flushed, e.Flushed)
	}
}

// identity identifies an endpoint across snapshots.
func (e *Endpoint) identity() string {
	if e.NetworkInterface == nil {
		return strings.ToLower(e.Subnet.ID)
	}
	return fmt.Sprint(strings.ToLower(e.NetworkInterface.ID), " ", e.address)
}

// flushing are the NSGs with flushConnection that judge the endpoint, by id, and when they
// changed.
func (e *Endpoint) flushing() map[string]uint32 {
	var list map[string]uint32
	for i := range e.Inbound {
		if g := e.Inbound[i].Group; g.NSG.FlushConnection {
			if list == nil {
				list = map[string]uint32{}
			}
			list[g.identity().nsg] = g.changed
		}
	}
	return list
}

// uses reports that an NSG judges the endpoint, with flushConnection or without.
func (e *Endpoint) uses(nsg string) bool {
	return slices.ContainsFunc(e.Inbound, func(st Stage) bool { return st.Group.identity().nsg == nsg })
}
