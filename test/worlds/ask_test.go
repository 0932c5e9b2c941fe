package worlds

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// opinion is what somebody says about a tuple; different is empty when the engine says the same.
type opinion struct {
	who       string
	says      string
	different bool
}

// onPremisesToFrontend is verify --path of what somebody on-premises sends to an internal load balancer.
const onPremisesToFrontend = "verify --path inbound, on-premises to a frontend"

// opinions asks everybody about a tuple.
func (b *built) opinions(t *tuple, x *seen) []opinion {
	return slices.Concat(b.decides(x), b.verifies(t, x), b.ownChains(t, x), b.between(t, x))
}

// verifies asks verify --path at both ends, where the question can be put.
func (b *built) verifies(t *tuple, x *seen) (list []opinion) {
	put := func(who string, q *azure.Flow) {
		o := opinion{who: who}
		r, err := ask.Verify(b.snapshot, q, true)
		if err != nil {
			o.says, o.different = err.Error(), true
		} else {
			said := outcomeOf(r)
			o.says, o.different = said.String(), said != x.outcome
		}
		list = append(list, o)
	}
	if nic := b.sender(t); nic != nil {
		put("verify --path outbound", &azure.Flow{Direction: ruleset.Outbound, Protocol: t.Proto, Local: t.Src, Remote: t.Dst,
			LocalPort: t.SrcPort, RemotePort: t.DstPort, NetworkInterface: nic.ID})
	}
	if nic, ok := b.receiver(t); ok {
		who := "verify --path inbound"
		if b.Attachments[t.From].Gateway != "" && b.frontendNetwork(t.Dst) != nil {
			who = onPremisesToFrontend
		}
		put(who, &azure.Flow{Direction: ruleset.Inbound, Protocol: t.Proto, Local: t.Dst, Remote: t.Src,
			LocalPort: t.DstPort, RemotePort: t.SrcPort, NetworkInterface: nic})
	}
	return list
}

func outcomeOf(r *azure.VerificationIPFlowResult) outcome {
	o := outcome{Access: r.Access, Reason: r.Reason}
	if r.Reason == ask.ReasonRule {
		o.Group, o.Rule = r.NetworkSecurityGroup, ruleName(r.RuleName)
	}
	return o
}

// sender is the NIC that the tuple's source is an address of; nil: none is.
func (b *built) sender(t *tuple) *policy.NetworkInterface {
	a := b.snapshot.Attachments[t.From]
	switch a.Kind {
	case topology.NetworkInterface:
		if nic, _ := b.policy.NetworkInterface(b.Attachments[t.From].NetworkInterface); b.snapshot.Endpoint(nic, t.Src) != nil {
			return nic
		}
	case topology.Subnet:
		return b.interfaceWith(b.home(t.From), t.Src)
	}
	return nil
}

// home is the virtual network that an attachment is in; nil: none.
func (b *built) home(attachment int) *policy.VirtualNetwork {
	switch a := &b.Attachments[attachment]; {
	case a.NetworkInterface != "":
		nic, _ := b.policy.NetworkInterface(a.NetworkInterface)
		return nic.IPConfigurations[0].Subnet.VirtualNetwork
	case a.Subnet != "":
		s, _ := b.policy.Subnet(a.Subnet)
		return s.VirtualNetwork
	}
	return nil
}

// receiver is the NIC that an inbound question would name, "" for an address that stands for
// others. ok is false where the question does not tell that very packet: its addresses are those
// of several, or no NIC has the destination.
func (b *built) receiver(t *tuple) (nic string, ok bool) {
	home := b.home(t.From)
	theirs := b.networksWith(t.Dst)
	if b.stands(t.Dst) && (len(theirs) < 2) {
		return "", b.meansSender(t, b.frontendNetwork(t.Dst))
	}
	var n *policy.NetworkInterface
	if n = b.interfaceWith(home, t.Dst); home == nil || n == nil {
		if len(theirs) != 1 {
			return "", false
		}
		if n = b.interfaceWith(theirs[0], t.Dst); n == nil {
			return "", false
		}
	}
	return n.ID, b.meansSender(t, n.IPConfigurations[0].Subnet.VirtualNetwork)
}

// frontendNetwork is the virtual network with an internal frontend; nil: none has the address.
func (b *built) frontendNetwork(a netip.Addr) *policy.VirtualNetwork {
	for _, lb := range b.policy.LoadBalancers {
		for _, f := range lb.Frontends {
			if f.Address == a && f.Subnet != nil {
				return f.Subnet.VirtualNetwork
			}
		}
	}
	return nil
}

// meansSender reports that the source's address tells the sender: to a receiver or a frontend in a network,
// or to a public address (nil). Where a gateway leads to everything, an address may be
// of somebody there as well.
func (b *built) meansSender(t *tuple, at *policy.VirtualNetwork) bool {
	switch from := &b.Attachments[t.From]; {
	case from.NetworkInterface != "" && b.sender(t) == nil:
		return false // an appliance sends it on for others
	case from.Platform:
		return true
	case from.Internet: // unless the address is somebody's elsewhere
		return b.gatewaysTo(t.Src) == 0 && len(b.networksWith(t.Src)) == 0 && !b.stands(t.Src) && !slices.Contains(topology.PlatformAddresses, t.Src)
	case from.Gateway != "":
		return from.Prefixes[0] == onPremises && netip.MustParsePrefix(onPremises).Contains(t.Src) && b.gatewaysTo(t.Src) == 1
	}
	if at == b.home(t.From) {
		return true
	}
	return len(b.networksWith(t.Src)) == 1 && (at == nil || b.gatewaysTo(t.Src) == 0)
}

// gatewaysTo is how many gateways lead to an address.
func (b *built) gatewaysTo(a netip.Addr) (n int) {
	for i := range b.specs {
		if slices.ContainsFunc(b.specs[i].Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			n++
		}
	}
	return n
}

// ownChains holds verify without the path, and diagnose, against the stages that the engine
// counted at that end.
func (b *built) ownChains(t *tuple, x *seen) (list []opinion) {
	if nic := b.sender(t); nic != nil {
		if stages, denied, known := sent(x); known {
			q := &azure.Flow{Direction: ruleset.Outbound, Protocol: t.Proto, Local: t.Src, Remote: t.Dst, LocalPort: t.SrcPort, RemotePort: t.DstPort, NetworkInterface: nic.ID}
			list = append(list, b.ownChain("verify outbound", q, stages, denied))
		}
		q := &azure.Flow{Direction: ruleset.Outbound, Protocol: t.Proto, Local: t.Src, Remote: t.Dst, RemotePort: t.DstPort, NetworkInterface: nic.ID}
		list = append(list, b.diagnoses("diagnose outbound", q))
	}
	last := &x.legs[len(x.legs)-1]
	if stages, denied, known := arrived(x); known {
		if nic := b.endOf(last); nic != nil && !b.forOutside(last) {
			k := last.arrives
			q := &azure.Flow{Direction: ruleset.Inbound, Protocol: t.Proto, Local: k.Dst.Netip(), Remote: k.Src.Netip(), LocalPort: k.DstPort, RemotePort: k.SrcPort, NetworkInterface: nic.ID}
			if !t.hasPorts() {
				q.LocalPort, q.RemotePort = 0, 0
			}
			list = append(list, b.ownChain("verify inbound", q, stages, denied))
			q.RemotePort = 0
			list = append(list, b.diagnoses("diagnose inbound", q))
		}
	}
	return list
}

// forOutside reports a leg on which an appliance sends on what a host outside has sent. A question takes
// that for the host's own packet, which nothing closed lets in.
func (b *built) forOutside(l *leg) bool {
	return b.Attachments[l.from].NetworkInterface != "" && b.snapshot.Foreign(l.sent.Src.Netip())
}

// endOf is the NIC that a leg has reached, at an address of its own.
func (b *built) endOf(l *leg) *policy.NetworkInterface {
	if l.floats {
		return nil
	}
	switch home := b.home(l.to); b.snapshot.Attachments[l.to].Kind {
	case topology.NetworkInterface, topology.Subnet:
		return b.interfaceWith(home, l.arrives.Dst.Netip())
	}
	return nil
}

// sent are the stages that the engine counted at the sender's end.
func sent(x *seen) (stages []string, denied, known bool) {
	l := &x.legs[0]
	if l.drop != packet.NotDropped && l.drop != packet.DropRule {
		return nil, false, false
	}
	stages = ofDirection(l.rules, ruleset.Outbound)
	return stages, l.drop == packet.DropRule && len(stages) == len(l.rules), true
}

// arrived are those at the receiver's.
func arrived(x *seen) (stages []string, denied, known bool) {
	l := &x.legs[len(x.legs)-1]
	if !x.end {
		return nil, false, false
	}
	return ofDirection(l.rules, ruleset.Inbound), false, true
}

func ofDirection(rules []string, d ruleset.Direction) (list []string) {
	for _, r := range rules {
		if direction(r) == d.String() {
			list = append(list, r)
		}
	}
	return list
}

func direction(rule string) string {
	var group, d, name string
	fmt.Sscan(rule, &group, &d, &name)
	return d
}

// ownChain asks verify about one end.
func (b *built) ownChain(who string, q *azure.Flow, stages []string, denied bool) opinion {
	o := opinion{who: who}
	r, err := ask.Verify(b.snapshot, q, false)
	if err != nil {
		o.says, o.different = err.Error(), true
		return o
	}
	got, deny := stagesOf(r), r.Access == "Deny" && r.Reason == ask.ReasonRule
	o.says = fmt.Sprintf("%s, stages %v", outcomeOf(r), got)
	o.different = !slices.Equal(got, stages) || deny != denied
	if o.different {
		o.says += fmt.Sprintf("; the engine counted %v", stages)
	}
	return o
}

// stagesOf are a result's stages in the form of legs' rules; one NSG at two places counts once.
func stagesOf(r *azure.VerificationIPFlowResult) (list []string) {
	for i := range r.Stages {
		s := &r.Stages[i]
		list = append(list, fmt.Sprintf("%s %s %s", s.NetworkSecurityGroup, s.Direction, ruleName(s.RuleName)))
	}
	return slices.Compact(list)
}

// diagnoses holds diagnose against verify: the same question in two words.
func (b *built) diagnoses(who string, q *azure.Flow) opinion {
	o := opinion{who: who}
	want, err := ask.Verify(b.snapshot, q, false)
	if err != nil {
		o.says, o.different = "verify: "+err.Error(), true
		return o
	}
	p := azure.NetworkConfigurationDiagnosticProfile{Direction: q.Direction.String(), Protocol: strconv.Itoa(int(q.Protocol)),
		Source: q.Local.String(), Destination: q.Remote.String(), DestinationPort: strconv.Itoa(int(q.RemotePort))}
	if q.Direction == ruleset.Inbound {
		p.Source, p.Destination, p.DestinationPort = p.Destination, p.Source, strconv.Itoa(int(q.LocalPort))
	}
	response, err := ask.Diagnose(b.snapshot, &azure.NetworkConfigurationDiagnosticParameters{TargetResourceID: q.NetworkInterface, Profiles: []azure.NetworkConfigurationDiagnosticProfile{p}})
	if err != nil {
		o.says, o.different = err.Error(), true
		return o
	}
	r := &response.Results[0].NetworkSecurityGroupResult
	said := outcome{Access: r.SecurityRuleAccessResult, Reason: r.Reason}
	expected := outcomeOf(want)
	if n := len(r.EvaluatedNetworkSecurityGroups); said.Reason == "" && n > 0 {
		e := &r.EvaluatedNetworkSecurityGroups[n-1]
		said.Reason, said.Group, said.Rule = ask.ReasonRule, expected.Group, e.MatchedRule.RuleName
		if nsg := b.groupName(e.NetworkSecurityGroupID); nsg != "" {
			said.Group = nsg
		}
		said.Rule = said.Rule[1+slices.Index([]byte(said.Rule), '_'):]
	} else if said.Reason == "" {
		said.Reason = ask.ReasonNoGroup
	}
	o.says, o.different = said.String(), said != expected
	if o.different {
		o.says += "; verify without the path says " + expected.String()
	}
	return o
}

func (b *built) groupName(id string) string {
	for _, g := range b.policy.Groups() {
		if g.ID == id {
			return g.Name
		}
	}
	return ""
}
