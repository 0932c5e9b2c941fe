package inspect

import (
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// namer finds the names behind the numbers of events. It belongs to one goroutine.
type namer struct {
	engine   *dataplane.Engine
	snapshot *topology.Snapshot
	rules    map[uint32]*ruleset.Rule // of snapshot, by slot
}

func (n *namer) refresh() {
	s := n.engine.Snapshot()
	if s == n.snapshot {
		return
	}
	n.snapshot, n.rules = s, map[uint32]*ruleset.Rule{}
	for _, g := range s.Groups {
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i, slot := range t.Slots {
				n.rules[slot] = &t.Rules[i]
			}
		}
	}
}

// attachment is the name of an attachment that an event met; empty for -1.
func (n *namer) attachment(index int32, e *watch.Event) string {
	n.refresh()
	return n.snapshot.NameSince(int(index), e.Generation)
}

// stages are the rules of an event, the sender's end first, each end's in the order in which they
// were asked, and the service of the platform for which the packet passed. They are named as
// the policy in force has them. A rule that the policy lacks by now has no priority, and an NSG
// that stands nowhere any more has no association.
func (n *namer) stages(e *watch.Event) ([]azure.VerificationStage, topology.Service) {
	n.refresh()
	stages, service := make([]azure.VerificationStage, 0, e.N), topology.NoService
	sender, receiver := n.endStages(e)
	for _, slot := range e.Rules[:e.N] {
		if s := topology.ServiceOfSlot(slot); s != topology.NoService {
			service = s
			continue
		}
		k, ok := n.engine.Registry().At(slot, e.Generation)
		if !ok { // removed and forgotten since
			continue
		}
		named := azure.VerificationStage{NetworkSecurityGroup: k.NetworkSecurityGroup, Direction: k.Direction.String(),
			RuleName: k.Rule, Access: k.Access.String()}
		if rule := n.rules[slot]; rule != nil {
			named.RuleName, named.Priority = rule.QualifiedName(), rule.Priority
		}
		list := &sender
		if k.Direction == ruleset.Inbound {
			list = &receiver
		}
		named.Association = takeAssociation(list, k.NetworkSecurityGroup)
		stages = append(stages, named)
	}
	slices.SortStableFunc(stages, func(a, b azure.VerificationStage) int {
		return senderFirst(a.Direction) - senderFirst(b.Direction)
	})
	return stages, service
}

func senderFirst(direction string) int {
	if direction == ruleset.Outbound.String() {
		return 0
	}
	return 1
}

// endStages are the stages of both ends of an event's packet. Of a reply they are those of the
// flow's first packet.
func (n *namer) endStages(e *watch.Event) (sender, receiver []topology.Stage) {
	s := n.snapshot
	src, dst := e.Packet.Src, e.Packet.Dst
	if e.Translated {
		dst = e.Arrives.Dst
	}
	var from, to *topology.Endpoint
	if s.NameSince(int(e.From), e.Generation) != "" {
		from = s.Admit(s.Attachments[e.From], src)
	}
	if s.NameSince(int(e.To), e.Generation) != "" {
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

// takeAssociation says where the next stage of an NSG stands, and drops the list up to it.
func takeAssociation(list *[]topology.Stage, group string) string {
	for i := range *list {
		if stage := &(*list)[i]; stage.Group.Label == group {
			*list = (*list)[i+1:]
			return stage.Association.String()
		}
	}
	return ""
}
