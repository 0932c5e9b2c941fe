package ask

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// ReasonNoWay is the reason of a policy in which the internet has no such way to an address.
const ReasonNoWay = "noWayIn"

// sideWay is a way from the internet to a target.
type sideWay struct {
	wayIn
	target *diffTarget
}

// waysIn lists the ways from the internet to network interfaces, in their order, by keys that two policies share.
func (s *diffSide) waysIn() (order []string, ways map[string]sideWay) {
	ways = map[string]sideWay{}
	all := waysIn(s.snapshot.Policy)
	for _, key := range s.order {
		t := s.targets[key]
		if t.endpoint.NetworkInterface == nil {
			continue
		}
		for _, w := range all[hostKey{t.endpoint.Subnet.VirtualNetwork, t.endpoint.Address()}] {
			way := fmt.Sprint(key, " ", w.at, w.asked, w.transport, w.ports, w.address)
			if _, known := ways[way]; !known {
				order = append(order, way)
			}
			ways[way] = sideWay{w, t}
		}
	}
	return order, ways
}

// compareWays adds what the internet reaches by ways that only one of the policies has.
func (d *differ) compareWays() {
	old, before := d.before.waysIn()
	new, after := d.after.waysIn()
	for _, key := range old {
		if _, kept := after[key]; !kept {
			w := before[key]
			d.throughWay(d.before, &w, DiffDenied)
		}
	}
	for _, key := range new {
		if _, kept := before[key]; !kept {
			w := after[key]
			d.throughWay(d.after, &w, DiffAllowed)
		}
	}
}

// throughWay adds what a policy allows by a way that the other one does not have.
func (d *differ) throughWay(side *diffSide, w *sideWay, kind string) {
	chain := side.chains.Of(w.target.endpoint, ruleset.Inbound)
	internet := side.snapshot.InternetSources()
	names := side.namesFor(w.target).With("internet", internet)
	reachable := analysis.Reach(chain.Lists, analysis.Options{MaxStates: d.options.MaxStates, Within: analysis.Packets{
		Sources: internet, Destinations: []netip.Prefix{netip.PrefixFrom(w.address, w.address.BitLen())}, Services: w.services()}})
	for i := range reachable.Allowed {
		a := &reachable.Allowed[i]
		c := DiffChange{Kind: kind, Direction: ruleset.Inbound.String(), DiffFor: w.target.names(), Way: w.text(), More: a.More, Witness: witnessOf(&a.Witness),
			Old: DiffDecision{Access: ruleset.Deny.String(), Reason: ReasonNoWay}, New: decisionOf(chain.At(a.By.Stage, a.By.Rule), a.By.Access)}
		if kind == DiffDenied {
			c.Old, c.New = c.New, c.Old
		}
		for j := range a.Boxes {
			c.Boxes = append(c.Boxes, boxOf(&a.Boxes[j], names))
		}
		d.result.Changes = append(d.result.Changes, c)
	}
	for i := range reachable.Undecided {
		u := &reachable.Undecided[i]
		rule := decisionOf(chain.At(u.Stage, u.Rule), ruleset.Deny)
		box := boxOf(&u.Box, names)
		d.result.Undecided = append(d.result.Undecided, DiffUndecided{Direction: ruleset.Inbound.String(), DiffFor: w.target.names(),
			NetworkSecurityGroup: rule.NetworkSecurityGroup, RuleName: rule.RuleName, Box: &box})
	}
}

// text names a way, with the address and port that the internet asks, as far as they are known.
func (w *wayIn) text() string {
	switch {
	case !w.public.IsValid():
		return w.what
	case w.asked == ruleset.AllPorts:
		return w.what + " at " + w.public.String()
	}
	return w.what + " at " + netip.AddrPortFrom(w.public, w.asked.First).String()
}

// services are the packets that come by a way; nil: all.
func (w *wayIn) services() (list []analysis.Service) {
	if w.transport == policy.TransportAll {
		return nil
	}
	ports := []ruleset.PortRange{w.ports}
	if w.transport.Overlaps(policy.TransportTCP) {
		list = append(list, analysis.Service{Protocol: packet.ProtoTCP, Ports: ports})
	}
	if w.transport.Overlaps(policy.TransportUDP) {
		list = append(list, analysis.Service{Protocol: packet.ProtoUDP, Ports: ports})
	}
	return list
}

// publicAt is the address that the internet asks, or the resource that will have it.
func publicAt(address netip.Addr, ids ...string) string {
	if address.IsValid() {
		return address.String()
	}
	return strings.ToLower(strings.Join(ids, " "))
}
