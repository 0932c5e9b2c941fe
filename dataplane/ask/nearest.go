package ask

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// NearestRule is the rule of the denying group that comes nearest to allowing a packet.
type NearestRule struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	RuleName             string `json:"ruleName"`
	Priority             int    `json:"priority"`
	// Fields are those that do not hold for the packet. Where all hold, the rule stands behind the one that
	// denies, and the field is priority.
	Fields []NearestField `json:"fields"`
}

// NearestField is a field of a rule that does not hold.
type NearestField struct {
	// Name is protocol, source, sourcePort, destination, destinationPort (of ICMP the type), or priority.
	Name string `json:"name"`
	// Is are the rule's values, Wanted is the packet's.
	Is     []string `json:"is"`
	Wanted string   `json:"wanted"`
}

// nearest finds the rule nearest to allowing a packet that the last stage denies: of those that allow, the one
// with the fewest fields that fail, and of these the first. It is nil when the group allows nothing.
func nearest(d *verdict.Decision, p *packet.Packet) (best *NearestRule) {
	denied := &d.Verdict.Stages[d.Verdict.N-1]
	sees := &p.Tuple
	if denied.Stage.Direction == ruleset.Inbound {
		sees = &d.Way.Arrives
	}
	var scratch packet.Tuple
	k := p.Classification(sees, &scratch)
	table := denied.Stage.Table
	for i := range table.Rules {
		r := &table.Rules[i]
		if r.Access == ruleset.Deny {
			continue
		}
		fields := failing(r, &table.Resolved()[i], k)
		if len(fields) == 0 {
			fields = []NearestField{{"priority", []string{fmt.Sprint(r.Priority)}, fmt.Sprintf("below %d", denied.SecurityRule().Priority)}}
		}
		if best == nil || len(fields) < len(best.Fields) {
			best = &NearestRule{NetworkSecurityGroup: denied.Stage.Group.NSG.Name, RuleName: r.QualifiedName(), Priority: r.Priority, Fields: fields}
		}
	}
	return best
}

// failing are the fields of a rule that do not hold for a packet.
func failing(r *ruleset.Rule, resolved *classifier.Rule, k *packet.Tuple) (fields []NearestField) {
	any := classifier.Rule{Sources: everyAddress, Destinations: everyAddress, SourcePorts: everyPorts, DestinationPorts: everyPorts}
	check := func(name string, alone classifier.Rule, is []string, wanted string) {
		if classifier.Linear([]classifier.Rule{alone}).FirstMatch(k) < 0 {
			fields = append(fields, NearestField{name, is, wanted})
		}
	}
	alone := any
	alone.Protocol = resolved.Protocol
	check("protocol", alone, []string{r.Protocol.String()}, packet.ProtocolName(k.Proto))
	alone = any
	alone.Sources = resolved.Sources
	check("source", alone, r.Source.Texts(), k.Src.String())
	alone = any
	alone.SourcePorts = resolved.SourcePorts
	check("sourcePort", alone, texts(r.SourcePorts, analysis.PortRange), portText(k, k.SrcPort))
	alone = any
	alone.Destinations = resolved.Destinations
	check("destination", alone, r.Destination.Texts(), k.Dst.String())
	alone = any
	alone.DestinationPorts = resolved.DestinationPorts
	check("destinationPort", alone, texts(r.DestinationPorts, analysis.PortRange), portText(k, k.DstPort))
	return fields
}

var everyPorts = []ruleset.PortRange{ruleset.AllPorts}

// portText is a packet's port, or that the protocol has none.
func portText(k *packet.Tuple, port uint16) string {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		return fmt.Sprint(port)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return fmt.Sprintf("type %d", port)
	}
	return "no port"
}

func hostPrefix(a packet.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(a.Netip(), a.Netip().BitLen())}
}
