package topology

import (
	"fmt"
	"sync"

	"github.com/nsgd/nsgd/ruleset"
)

// MaxRules bounds the rules that one process counts over its life. Rules that reloads have
// removed count too.
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

// Registry gives each rule a slot, its number in flow records and counters. A slot is never
// taken back: a flow may outlive its rule, and a rule that returns goes on counting where it
// stopped. Safe for concurrent use.
type Registry struct {
	mu    sync.Mutex
	slots map[RuleKey]uint32
	keys  []RuleKey
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry { return &Registry{slots: map[RuleKey]uint32{}} }

// Keys returns the rules by slot. The slice is shared and must not be changed. Later rules are
// appended behind it.
func (r *Registry) Keys() []RuleKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[:len(r.keys):len(r.keys)]
}

// reserve gives every key a slot, or none of them when there is no room. The slots are in the
// order of the keys.
func (r *Registry) reserve(keys []RuleKey) ([]uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := map[RuleKey]bool{}
	for _, k := range keys {
		if _, ok := r.slots[k]; !ok {
			fresh[k] = true
		}
	}
	if len(r.keys)+len(fresh) > MaxRules {
		return nil, fmt.Errorf("topology: %d rules are counted and %d more are asked for: at most %d in the life of a process",
			len(r.keys), len(fresh), MaxRules)
	}
	slots := make([]uint32, len(keys))
	for i, k := range keys {
		slot, known := r.slots[k]
		if !known {
			slot = uint32(len(r.keys))
			r.slots[k] = slot
			r.keys = append(r.keys, k)
		}
		slots[i] = slot
	}
	return slots, nil
}
