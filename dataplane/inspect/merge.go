package inspect

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// merge adds up the pairs of several buckets. Numbers of rules and attachments that mean others by now become none, so
// that what remains has the names of the policy in force.
type merge struct {
	snapshot *topology.Snapshot
	registry *topology.Registry
	keys     []topology.RuleKey
	pairs    map[history.Key]*history.Sums
}

// merged adds up what each yields and take takes.
func (s *Service) merged(each func(func(*history.Pair)), take func(*history.Key) bool) *merge {
	e := s.options.Engine
	m := &merge{snapshot: e.Snapshot(), registry: e.Registry(), pairs: map[history.Key]*history.Sums{}}
	m.keys = m.registry.Keys()
	each(func(p *history.Pair) {
		k := p.Key
		if !m.known(k.Slot, k.Generation) {
			k.Slot = conntrack.NoSlot
		}
		k.From, k.To = m.attached(k.From, k.Generation), m.attached(k.To, k.Generation)
		k.Generation = 0
		if !take(&k) {
			return
		}
		sums := m.pairs[k]
		if sums == nil {
			sums = &history.Sums{}
			m.pairs[k] = sums
		}
		sums.Add(&p.Sums)
	})
	return m
}

// known reports that a slot still is the rule that it was to a generation. Services of the platform are always known.
func (m *merge) known(slot uint32, generation uint64) bool {
	if slot == conntrack.NoSlot || topology.ServiceOfSlot(slot) != topology.NoService {
		return true
	}
	_, ok := m.registry.At(slot, generation)
	return ok
}

// attached is an attachment's index, or -1 where another one has that by now.
func (m *merge) attached(index int32, generation uint64) int32 {
	if index >= 0 && m.snapshot.NameSince(int(index), generation) == "" {
		return -1
	}
	return index
}

func (m *merge) attachment(index int32) string {
	if index < 0 || int(index) >= len(m.snapshot.Attachments) {
		return ""
	}
	return m.snapshot.Attachments[index].Name
}

func (m *merge) rule(slot uint32) (k topology.RuleKey, ok bool) {
	if int64(slot) >= int64(len(m.keys)) || m.keys[slot] == (topology.RuleKey{}) {
		return k, false
	}
	return m.keys[slot], true
}
