package worlds

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// between looks a tuple up among all sets of packets from everybody to everybody.
func (b *built) between(t *tuple, x *seen) []opinion {
	senders := b.snapshot.SendersFrom(t.Src)
	from := b.snapshot.Attachments[t.From]
	if len(senders) != 1 || senders[0].Attachment != t.From || t.Src == t.Dst || from.Kind == topology.NetworkInterface && b.sender(t) == nil {
		return nil
	}
	if b.sets == nil {
		q := ask.NewBetween(b.snapshot, 0)
		sets, err := q.Ask(ask.Everybody(), ask.Everybody(), nil)
		if err != nil {
			return []opinion{{who: "Between", says: err.Error(), different: true}}
		}
		b.sets = sets
	}
	o := opinion{who: "Between"}
	chosen, found, agree := false, 0, false
	for i := range b.sets.Sets {
		set := &b.sets.Sets[i]
		if !slices.ContainsFunc(set.Boxes, func(box analysis.Box) bool { return boxHas(&box, t) }) {
			continue
		}
		said := outcome{Access: set.Access, Reason: set.Reason}
		if n := len(set.Deciders); said.Reason == ask.ReasonRule {
			for n--; set.Deciders[n].RuleName == ""; n-- {
			}
			said.Group, said.Rule = set.Deciders[n].NetworkSecurityGroup, ruleName(set.Deciders[n].RuleName)
		}
		o.says += said.String() + " "
		found++
		chosen = chosen || set.Chosen
		agree = agree || said == x.outcome
	}
	agree = agree || chosen && b.undecided(t) // about another choice nothing is known
	switch {
	case found == 0 && (len(b.snapshot.SendersFrom(t.Dst)) == 0 || b.undecided(t)):
		return nil
	case found == 0:
		o.says = "nothing"
	}
	o.different = !agree || found > 1 && !chosen
	return []opinion{o}
}

func (b *built) undecided(t *tuple) bool {
	for i := range b.sets.Undecided {
		if slices.ContainsFunc(b.sets.Undecided[i].Boxes, func(box analysis.Box) bool { return boxHas(&box, t) }) {
			return true
		}
	}
	return false
}

func boxHas(b *analysis.Box, t *tuple) bool {
	k := packet.Tuple{Src: packet.AddrFrom(t.Src), Dst: packet.AddrFrom(t.Dst), SrcPort: t.SrcPort, DstPort: t.DstPort, Proto: t.Proto}
	switch {
	case t.Proto == packet.ProtoICMP && t.Src.Is4():
		k.DstPort = packet.ICMPv4EchoRequest
	case t.Proto == packet.ProtoICMPv6 && !t.Src.Is4():
		k.DstPort = packet.ICMPv6EchoRequest
	}
	return b.Has(&k)
}
