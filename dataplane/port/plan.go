package port

import (
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Plan says which slot each wanted attachment has.
type Plan struct {
	// Slots are the places of the wanted attachments, in their order.
	Slots []int
	// Specs are the attachments by slot; vacant where none is wanted.
	Specs []topology.Spec
	// Gone has by slot of what was attached the identity of what leaves. Come has by slot what is new there. Both
	// are empty for the other slots.
	Gone, Come []string
}

// NewPlan gives the wanted attachments of a policy their slots. What is attached already keeps its slot. now are the specs by
// slot, and identity tells whose a slot is that is not vacant. free reports a vacant slot that may be used again. There are
// room slots at most; the error names the first attachment that has none.
func NewPlan(now []topology.Spec, identity func(slot int) string, wanted []topology.Spec, set *policy.Set, room int, free func(slot int) bool) (*Plan, error) {
	p := &Plan{Slots: make([]int, len(wanted)), Specs: slices.Clone(now), Gone: make([]string, len(now)), Come: make([]string, len(now))}
	stays := map[string]int{}
	for slot := range now {
		if now[slot].Kind != topology.Vacant {
			p.Gone[slot] = identity(slot)
			stays[p.Gone[slot]] = slot
			p.Specs[slot] = topology.Spec{Kind: topology.Vacant}
		}
	}
	var fresh []int
	for i, spec := range wanted {
		identity := spec.Identity(set)
		slot, ok := stays[identity]
		if !ok {
			fresh = append(fresh, i)
			continue
		}
		delete(stays, identity) // a second one of the same is a fault of the policy
		spec.Place = i + 1
		p.Slots[i], p.Specs[slot], p.Gone[slot] = slot, spec, ""
	}
	at := 0
	for _, i := range fresh {
		for at < len(now) && !free(at) {
			at++
		}
		if at == room {
			return nil, fmt.Errorf("attachment %d: %d slots are in use, or were until a moment ago: no more are reserved", i, room)
		}
		if at >= len(p.Specs) {
			p.Specs, p.Come = append(p.Specs, topology.Spec{}), append(p.Come, "")
		}
		p.Specs[at] = wanted[i]
		p.Specs[at].Place = i + 1
		p.Slots[i], p.Come[at] = at, wanted[i].Identity(set)
		at++
	}
	return p, nil
}

// Attachments are those that are wanted, in their order, of a snapshot that was built for Specs.
func (p *Plan) Attachments(s *topology.Snapshot) []*topology.Attachment {
	list := make([]*topology.Attachment, len(p.Slots))
	for i, slot := range p.Slots {
		list[i] = s.Attachments[slot]
	}
	return list
}

// Comes reports that what is wanted at a slot is not attached there now.
func (p *Plan) Comes(slot int) bool { return p.Come[slot] != "" }

// Goes reports that what is attached at a slot now is not wanted any more.
func (p *Plan) Goes(slot int) bool { return p.Gone[slot] != "" }
