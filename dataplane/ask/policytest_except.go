package ask

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"go4.org/netipx"
)

// exceptions are lists that deny the packets that a question is not about; nil: none.
type exceptions struct {
	sent     *analysis.List // by the ports that packets are sent to
	arriving *analysis.List // by the ports at which they arrive
}

// exceptions finds what except leaves out. written says that the test's own receiver is an address, whose ports
// are those that packets are sent to.
func (b *Between) exceptions(except []TestPackets, written bool) (out exceptions, err error) {
	var sent, arriving []analysis.Rule
	for i := range except {
		e := &except[i]
		rule := classifier.Rule{Sources: everyAddress, Destinations: everyAddress, SourcePorts: allPorts, DestinationPorts: allPorts}
		if e.From != nil {
			from, err := b.endsOf(e.From)
			if err != nil {
				return out, err
			}
			rule.Sources = b.sentAddresses(from)
		}
		services, err := exceptServices(e.Services)
		if err != nil {
			return out, err
		}
		to, err := b.endsOf(e.To)
		if err != nil {
			return out, err
		}
		if e.To == nil {
			to = []*End{nil}
		}
		for _, end := range to {
			into := &arriving
			if end == nil && written || end != nil && end.means == nil {
				into = &sent
			}
			if end != nil {
				rule.Destinations = b.sentAddresses([]*End{end})
			}
			for _, s := range services {
				r := rule
				r.Protocol, r.DestinationPorts = s.Protocol, s.DestinationPorts
				*into = append(*into, analysis.Rule{Rule: r, Access: ruleset.Deny})
			}
		}
	}
	if sent != nil {
		out.sent = analysis.NewList(sent)
	}
	if arriving != nil {
		out.arriving = analysis.NewList(arriving)
	}
	return out, nil
}

// exceptServices are services as fields of rules; one rule for every packet where there are none.
func exceptServices(services []analysis.Service) (list []classifier.Rule, err error) {
	if services == nil {
		return []classifier.Rule{{DestinationPorts: allPorts}}, nil
	}
	for _, s := range services {
		r := classifier.Rule{Protocol: ruleProtocols[s.Protocol], DestinationPorts: s.Ports}
		if r.Protocol == ruleset.AnyProtocol {
			return nil, fmt.Errorf("except: protocol %d: allowed are TCP, UDP, ICMP, ESP and AH", s.Protocol)
		}
		if s.Ports == nil {
			r.DestinationPorts = allPorts
		}
		list = append(list, r)
	}
	return list, nil
}

// asked are the exceptions as chains that come before those of a course.
func (e *exceptions) asked(c *course) (list []analysis.Asked) {
	if e.sent != nil {
		list = append(list, analysis.Asked{Chain: analysis.Chain{e.sent}})
	}
	if e.arriving != nil {
		var sees analysis.Seen
		if port, translated := c.arrivesAt(); translated {
			sees.DestinationPorts = []ruleset.PortRange{{First: port, Last: port}}
		}
		list = append(list, analysis.Asked{Chain: analysis.Chain{e.arriving}, Sees: sees})
	}
	return list
}

// inQuestion takes the exceptions' decisions off an answer. It is false for the exceptions themselves.
func (e *exceptions) inQuestion(j *analysis.Judged) bool {
	for _, list := range []*analysis.List{e.sent, e.arriving} {
		if list == nil {
			continue
		}
		first := j.By[0]
		if j.By = j.By[1:]; first.Access == ruleset.Deny {
			return false
		}
	}
	return true
}

// ruleProtocols are the protocols of services as rules name them.
var ruleProtocols = map[uint8]ruleset.Protocol{packet.ProtoTCP: ruleset.TCP, packet.ProtoUDP: ruleset.UDP, packet.ProtoICMP: ruleset.ICMP,
	packet.ProtoICMPv6: ruleset.ICMPv6, packet.ProtoESP: ruleset.ESP, packet.ProtoAH: ruleset.AH}

// sentAddresses are the addresses of ends as packets are sent to them, or from them: their own, and the
// public ones that are theirs alone.
func (b *Between) sentAddresses(ends []*End) []netip.Prefix {
	var set netipx.IPSetBuilder
	for _, end := range ends {
		set.AddSet(end.addresses)
		if end.standing == nil {
			continue
		}
		for _, r := range end.standing.Ranges() {
			for a := r.From(); ; a = a.Next() {
				if owner := publicOwner(b.snapshot, a); owner != nil && end.means(owner) {
					set.Add(a)
				}
				if a == r.To() {
					break
				}
			}
		}
	}
	return setOf(&set).Prefixes()
}
