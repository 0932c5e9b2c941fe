package topology

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nsgd/nsgd/ruleset"
)

// MaxRules bounds the rules that one process counts at once. Rules that reloads have removed count
// until Reclaim takes their slots back.
const MaxRules = 1 << 20

// RuleKey identifies a rule in counters: the labels of nsgd_rule_hits_total.
type RuleKey struct {
	// NetworkSecurityGroup is the NSG's name, or its resource id when the policy
	// has several of that name.
	NetworkSecurityGroup string
	Direction            ruleset.Direction
	// Rule is the name. A user rule that is named like a default one has the prefix
	// securityRules/.
	Rule   string
	Access ruleset.Access
}

// Registry gives each rule a slot, its number in flow records and counters. A rule that is removed
// and returns goes on counting where it stopped, until Reclaim has taken its slot back. Safe for
// concurrent use.
type Registry struct {
	mu        sync.Mutex
	slots     map[RuleKey]uint32
	keys      []RuleKey // the zero key where a slot is free
	gone      []uint64  // by slot: the generation in which Reclaim took it back
	free      []uint32
	version   uint64
	reclaimed uint64
	taken     func(slot uint32, k RuleKey) // nil: nobody hears
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry { return ResumeRegistry(nil, nil) }

// ResumeRegistry makes a registry of the rules that an earlier process has counted, by slot; the zero key: none. taken,
// which may be nil, hears what a slot means before anything is counted on it.
func ResumeRegistry(before []RuleKey, taken func(slot uint32, k RuleKey)) *Registry {
	r := &Registry{slots: make(map[RuleKey]uint32, len(before)), keys: slices.Clone(before), gone: make([]uint64, len(before)), taken: taken}
	for slot, k := range before {
		if _, twice := r.slots[k]; twice || k == (RuleKey{}) {
			r.keys[slot] = RuleKey{}
			r.free = append(r.free, uint32(slot))
		} else {
			r.slots[k] = uint32(slot)
		}
	}
	return r
}

// Copy is a registry of the same slots that goes its own way, for a snapshot that only answers questions.
func (r *Registry) Copy() *Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Registry{slots: maps.Clone(r.slots), keys: slices.Clone(r.keys), gone: slices.Clone(r.gone), free: slices.Clone(r.free),
		version: r.version, reclaimed: r.reclaimed}
}

// Keys returns the rules by slot, the zero key for a slot that no rule has. The slice is shared and must
// not be changed; a later change of the registry makes another one.
func (r *Registry) Keys() []RuleKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[:len(r.keys):len(r.keys)]
}

// Version changes when Keys does.
func (r *Registry) Version() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

// At is the rule that a slot meant to a packet that a generation judged. ok is false when the slot has
// been taken back since.
func (r *Registry) At(slot uint32, generation uint64) (k RuleKey, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(slot) >= len(r.keys) || r.keys[slot] == (RuleKey{}) || generation <= r.gone[slot] && r.gone[slot] > 0 {
		return RuleKey{}, false
	}
	return r.keys[slot], true
}

// Slot is the slot of a rule; ok is false for one that has none.
func (r *Registry) Slot(k RuleKey) (slot uint32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot, ok = r.slots[k]
	return slot, ok
}

// reserve gives every key a slot, or none of them when there is no room.
func (r *Registry) reserve(keys []RuleKey) ([]uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := map[RuleKey]bool{}
	for _, k := range keys {
		if _, ok := r.slots[k]; !ok {
			fresh[k] = true
		}
	}
	if len(r.slots)+len(fresh) > MaxRules {
		return nil, fmt.Errorf("topology: %d rules are counted and %d more are asked for: at most %d at once", len(r.slots), len(fresh), MaxRules)
	}
	if len(fresh) > 0 {
		r.version++
	}
	if len(fresh) > 0 && len(r.free) > 0 {
		r.keys = slices.Clone(r.keys)
	}
	slots := make([]uint32, len(keys))
	for i, k := range keys {
		slot, known := r.slots[k]
		if !known {
			slot = r.take(k)
		}
		slots[i] = slot
	}
	return slots, nil
}

// take gives a key a slot; mu is held and keys is nobody else's as far as it has free slots.
func (r *Registry) take(k RuleKey) (slot uint32) {
	if n := len(r.free); n > 0 {
		slot, r.free = r.free[n-1], r.free[:n-1]
		r.keys[slot] = k
	} else {
		slot = uint32(len(r.keys))
		r.keys, r.gone = append(r.keys, k), append(r.gone, 0)
	}
	r.slots[k] = slot
	if r.taken != nil {
		r.taken(slot, k)
	}
	return slot
}

// keepRemoved is how many removed rules keep their slots at least.
const keepRemoved = 1024

// Crowded reports that the registry holds so many rules beyond those of a snapshot that it is time to
// take slots back.
func (r *Registry) Crowded(s *Snapshot) bool {
	inForce := 0
	for i, g := range s.Groups {
		if i == 0 || s.Groups[i-1].NSG != g.NSG { // those of one NSG stand together, and have the same slots
			inForce += len(g.Inbound.Slots) + len(g.Outbound.Slots)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return crowded(len(r.slots)-inForce, inForce)
}

// crowded says when there are too many removed rules: as many as those in force, or half of what MaxRules leaves.
func crowded(removed, inForce int) bool {
	return removed > min(max(keepRemoved, inForce), (MaxRules-inForce)/2)
}

// Reclaim takes back the slots that neither of two lists marks as in use, and returns them. No packet may be
// counted on them any more. Earlier generations than the one given may have judged by them.
func (r *Registry) Reclaim(generation uint64, inUse, too []bool) (back []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = slices.Clone(r.keys)
	for slot, k := range r.keys {
		if k == (RuleKey{}) || slot < len(inUse) && inUse[slot] || slot < len(too) && too[slot] {
			continue
		}
		delete(r.slots, k)
		r.keys[slot], r.gone[slot] = RuleKey{}, generation
		back = append(back, uint32(slot))
	}
	r.free = append(r.free, back...)
	r.version++
	r.reclaimed++
	return back
}

// Current reports that no slot was taken back since a snapshot was built.
func (r *Registry) Current(s *Snapshot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.reclaimed == r.reclaimed
}

func (r *Registry) reclaims() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reclaimed
}

// slots yields the slots of a snapshot's rules.
func (s *Snapshot) slots(yield func(uint32) bool) {
	for _, g := range s.Groups {
		for _, t := range []*Table{&g.Inbound, &g.Outbound} {
			for _, slot := range t.Slots {
				if !yield(slot) {
					return
				}
			}
		}
	}
}

// MarkSlots marks the slots of a snapshot's rules. It returns the marks, longer where need be.
func (s *Snapshot) MarkSlots(marks []bool) []bool {
	for slot := range s.slots {
		if missing := int(slot) + 1 - len(marks); missing > 0 {
			marks = append(marks, make([]bool, missing)...)
		}
		marks[slot] = true
	}
	return marks
}
