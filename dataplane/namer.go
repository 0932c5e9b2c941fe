package dataplane

import (
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Namer finds the names behind the numbers of events, for one reader.
type Namer struct {
	engine   *Engine
	snapshot *topology.Snapshot
	keys     []topology.RuleKey
	rules    map[uint32]*ruleset.Rule // of snapshot, by slot
}

// NewNamer makes a namer for an engine's events.
func (e *Engine) NewNamer() *Namer { return &Namer{engine: e} }

func (n *Namer) refresh() {
	s := n.engine.Snapshot()
	if s == n.snapshot {
		return
	}
	n.snapshot, n.keys, n.rules = s, n.engine.registry.Keys(), map[uint32]*ruleset.Rule{}
	for _, g := range s.Groups {
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i, slot := range t.Slots {
				n.rules[slot] = &t.Rules[i]
			}
		}
	}
}

// Attachment is an attachment's name; empty for -1.
func (n *Namer) Attachment(index int32) string {
	n.refresh()
	if index < 0 || int(index) >= len(n.snapshot.Attachments) {
		return ""
	}
	return n.snapshot.Attachments[index].Name
}

// Stages are the rules of an event, in the order in which they were asked, and the service of the platform for
// which the packet passed. They are named as the policy in force has them: a rule that has gone from it
// since has no priority, and where an NSG stands no more, there is no association.
func (n *Namer) Stages(e *watch.Event) ([]azure.VerificationStage, topology.Service) {
	n.refresh()
	stages, service := make([]azure.VerificationStage, 0, e.N), topology.NoService
	sender, receiver := n.ends(e)
	for _, slot := range e.Rules[:e.N] {
		if s := topology.ServiceOfSlot(slot); s != topology.NoService {
			service = s
			continue
		}
		if int(slot) >= len(n.keys) { // registered since
			n.keys = n.engine.registry.Keys()
		}
		k := &n.keys[slot]
		named := azure.VerificationStage{NetworkSecurityGroup: k.NetworkSecurityGroup, Direction: k.Direction.String(),
			RuleName: k.Rule, Access: k.Access.String()}
		if rule := n.rules[slot]; rule != nil {
			named.RuleName, named.Priority = rule.QualifiedName(), rule.Priority
		}
		list := &sender
		if k.Direction == ruleset.Inbound {
			list = &receiver
		}
		named.Association = associate(list, k.NetworkSecurityGroup)
		stages = append(stages, named)
	}
	slices.SortStableFunc(stages, func(a, b azure.VerificationStage) int {
		return order(a.Direction) - order(b.Direction)
	})
	return stages, service
}

func order(direction string) int {
	if direction == ruleset.Outbound.String() {
		return 0
	}
	return 1
}

// ends are the stages of both ends of the event's packet, or of its flow's first one.
func (n *Namer) ends(e *watch.Event) (sender, receiver []topology.Stage) {
	s := n.snapshot
	src, dst := e.Packet.Src, e.Packet.Dst
	if e.Translated {
		dst = e.Arrives.Dst
	}
	var from, to *topology.Endpoint
	if e.From >= 0 && int(e.From) < len(s.Attachments) {
		from = s.Admit(s.Attachments[e.From], src)
	}
	if e.To >= 0 && int(e.To) < len(s.Attachments) {
		to = s.Admit(s.Attachments[e.To], dst)
	}
	if (e.Standing == watch.InFlow || e.Standing == watch.Related) && e.Direction == conntrack.Reply {
		from, to = to, from
	}
	if from != nil {
		sender = append(slices.Clone(from.AdminOutbound), from.Outbound...)
	}
	if to != nil {
		receiver = append(slices.Clone(to.AdminInbound), to.Inbound...)
	}
	return sender, receiver
}

// associate takes the next stage of an NSG out of the list, and says where it stands.
func associate(list *[]topology.Stage, group string) string {
	for i := range *list {
		if stage := &(*list)[i]; stage.Group.Label == group {
			*list = (*list)[i+1:]
			return stage.Association.String()
		}
	}
	return ""
}
