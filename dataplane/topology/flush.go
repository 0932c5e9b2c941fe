package topology

import (
	"fmt"
	"slices"
	"strings"
)

// Follow makes s the snapshot after before, which is nil for the first: it numbers it, and
// notes from when on NSGs with flushConnection ask for the flows of an endpoint to be judged
// again. Nobody else may use s yet.
func (s *Snapshot) Follow(before *Snapshot) {
	if before == nil {
		before = &Snapshot{}
	}
	generation := before.Generation + 1
	if s == before {
		s.Generation = generation
		return
	}
	s.followProbes(before)
	s.Generation, s.Flushed = generation, 0
	if !s.anyFlush() && before.Flushed == 0 && !before.anyFlush() {
		for _, e := range s.members {
			e.Flushed = 0
		}
		return
	}
	s.followGroups(before)
	s.followEndpoints(before)
}

func (s *Snapshot) anyFlush() bool {
	return slices.ContainsFunc(s.Groups, func(g *Group) bool { return g.NSG.FlushConnection })
}

// followGroups notes when each NSG with flushConnection changed last. Switching it on is a
// change.
func (s *Snapshot) followGroups(before *Snapshot) {
	old := map[place]*Group{}
	for _, g := range before.Groups {
		old[g.place()] = g
	}
	for _, g := range s.Groups {
		switch was := old[g.place()]; {
		case !g.NSG.FlushConnection:
			g.changed = 0
		case was == nil || !was.NSG.FlushConnection || !was.Inbound.same(&g.Inbound) || !was.Outbound.same(&g.Outbound):
			g.changed = uint32(s.Generation)
		default:
			g.changed = was.changed
		}
	}
}

// same reports that two tables decide alike and count on the same rules: the slot of a rule
// stands for its NSG, name and access.
func (t *Table) same(other *Table) bool {
	return t.Match == other.Match && sameList(t.Slots, other.Slots) && slices.Equal(t.platformRules, other.platformRules)
}

// followEndpoints notes for each endpoint the last change of an NSG with flushConnection on
// its way; that such an NSG was associated or removed is one too. What was due before stays
// due: flows are judged when their next packet comes.
func (s *Snapshot) followEndpoints(before *Snapshot) {
	old := make(map[string]*Endpoint, len(before.members))
	for _, e := range before.members {
		old[e.identity()] = e
	}
	for _, e := range s.members {
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

// identity is an endpoint's across snapshots.
func (e *Endpoint) identity() string {
	if e.NetworkInterface == nil {
		return strings.ToLower(e.Subnet.ID)
	}
	return fmt.Sprint(strings.ToLower(e.NetworkInterface.ID), " ", e.address)
}

// flushing are the NSGs with flushConnection on the endpoint's way, by id, and when they
// changed.
func (e *Endpoint) flushing() map[string]uint32 {
	var list map[string]uint32
	for i := range e.Inbound {
		if g := e.Inbound[i].Group; g.NSG.FlushConnection {
			if list == nil {
				list = map[string]uint32{}
			}
			list[g.place().nsg] = g.changed
		}
	}
	return list
}

// uses reports an NSG on the endpoint's way, with flushConnection or without.
func (e *Endpoint) uses(nsg string) bool {
	return slices.ContainsFunc(e.Inbound, func(st Stage) bool { return st.Group.place().nsg == nsg })
}
