package worlds

import (
	"slices"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
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
	protocol := packet.ProtocolName(t.Proto)
	switch {
	case (t.Proto == packet.ProtoICMP) != t.Src.Is4() && (t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6) && (t.Proto == packet.ProtoICMPv6) == t.Src.Is4():
		protocol = strconv.Itoa(int(t.Proto))
	case !slices.Contains([]string{"TCP", "UDP", "ICMP", "ICMPv6", "ESP", "AH"}, protocol):
		protocol = "other"
	}
	if b.Protocol != "*" && b.Protocol != protocol {
		return false
	}
	holds := func(ranges []netipx.IPRange, src bool) bool {
		return slices.ContainsFunc(ranges, func(r netipx.IPRange) bool {
			if src {
				return r.Contains(t.Src)
			}
			return r.Contains(t.Dst)
		})
	}
	number := func(ranges []ruleset.PortRange, n uint16) bool {
		return slices.ContainsFunc(ranges, func(r ruleset.PortRange) bool { return r.First <= n && n <= r.Last })
	}
	switch {
	case !holds(b.Sources, true) || !holds(b.Destinations, false):
		return false
	case t.hasPorts():
		return number(b.SourcePorts, t.SrcPort) && number(b.DestinationPorts, t.DstPort)
	case b.Protocol == "ICMP":
		return number(b.ICMPTypes, packet.ICMPv4EchoRequest)
	case b.Protocol == "ICMPv6":
		return number(b.ICMPTypes, packet.ICMPv6EchoRequest)
	}
	return true
}
