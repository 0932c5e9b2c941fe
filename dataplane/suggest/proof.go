package suggest

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"go4.org/netipx"
)

const (
	// maxNotAllowed bounds the sightings that a proof names.
	maxNotAllowed = 20
	// maxExact is of how many rules the exact description of what was seen may be, so that what is allowed beyond it can be told.
	maxExact = 3000
)

// Proof says what the rules of a policy do with what was seen.
type Proof struct {
	// Judged are the sightings that the verdict was asked about, each about its own end; Allowed are those that pass there. Of an
	// end whose whole internet or tag counts, all of that is asked for.
	Judged  int `json:"judged"`
	Allowed int `json:"allowed"`
	// NotAllowed are the first that don't pass.
	NotAllowed []NotAllowed `json:"notAllowed"`
	// Beyond is what the suggested groups allow that was not seen, as sets, by rule.
	Beyond []Beyond `json:"beyond"`
	// Untold are groups and directions of which too much was seen to tell what is beyond it.
	Untold []string `json:"untold"`
}

// NotAllowed is a sighting that doesn't pass.
type NotAllowed struct {
	ask.DiffFor
	Direction string          `json:"direction"`
	Packet    ask.DiffWitness `json:"packet"`
}

// Beyond is what a rule allows of a group's own ends that nothing was seen of.
type Beyond struct {
	NetworkSecurityGroup string        `json:"networkSecurityGroup"`
	Direction            string        `json:"direction"`
	RuleName             string        `json:"ruleName"`
	Boxes                []ask.DiffBox `json:"boxes"`
	// More says that there are more boxes.
	More bool `json:"more,omitempty"`
}

// Prove asks the verdict of another policy with the same ends about all that was seen, and says what groups allow beyond.
func (c *Collector) Prove(after *topology.Snapshot, groups []Group) *Proof {
	p := &Proof{NotAllowed: []NotAllowed{}, Beyond: []Beyond{}, Untold: []string{}}
	ends := map[string]*topology.Endpoint{}
	for _, e := range after.Endpoints() {
		ends[endID(e)] = e
	}
	list := make([]key, 0, len(c.keys))
	for k := range c.keys {
		list = append(list, k)
	}
	slices.SortFunc(list, key.compare)
	chains := &proofChains{snapshot: after}
	for _, k := range list {
		end := ends[endID(c.ends[k.end])]
		p.Judged++
		if end != nil && c.allowed(after, end, k.outbound, ptr(k.tuple())) && (!c.whole(k) || chains.always(c, end, k)) {
			p.Allowed++
		} else if len(p.NotAllowed) < maxNotAllowed {
			p.NotAllowed = append(p.NotAllowed, NotAllowed{ask.ForEnd(c.ends[k.end]), k.direction().String(), ask.Witness(ptr(k.tuple()))})
		}
	}
	for i := range groups {
		for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			c.beyond(p, after, ends, groups[i].NSG, d)
		}
	}
	return p
}

func ptr[T any](v T) *T { return &v }

func (k key) direction() ruleset.Direction {
	if k.outbound {
		return ruleset.Outbound
	}
	return ruleset.Inbound
}

// tuple is a packet of a key, from a port as clients take it.
func (k key) tuple() packet.Tuple {
	t := packet.Tuple{Src: k.remote, Dst: k.own, Proto: k.protocol, DstPort: k.port}
	if k.outbound {
		t.Src, t.Dst = t.Dst, t.Src
	}
	if k.protocol == packet.ProtoTCP || k.protocol == packet.ProtoUDP {
		t.SrcPort = 50000
	}
	return t
}

// proofChains are what is asked about sets of packets.
type proofChains struct {
	snapshot *topology.Snapshot
	lists    map[*topology.Table]*analysis.List
}

func (p *proofChains) list(t *topology.Table) *analysis.List {
	if p.lists == nil {
		p.lists = map[*topology.Table]*analysis.List{}
	}
	if p.lists[t] == nil {
		resolved := t.Resolved()
		rules := make([]analysis.Rule, len(resolved))
		for i := range resolved {
			rules[i] = analysis.Rule{Rule: resolved[i], Access: t.Rules[i].Access}
		}
		p.lists[t] = analysis.NewList(rules)
	}
	return p.lists[t]
}

// always asks the groups of an end about the whole internet, or the whole service tag, that a key stands for.
func (p *proofChains) always(c *Collector, end *topology.Endpoint, k key) bool {
	whole := c.tagSet(c.ends[k.end], ruleset.TagInternet).Prefixes()
	if tag := c.tagOf(k.remote); tag != "" {
		whole = c.Tags[tag]
	}
	var family []netip.Prefix
	for _, x := range whole {
		if x.Addr().Is4() == k.remote.Is4() {
			family = append(family, x)
		}
	}
	own := host(k.own).Prefixes
	o := analysis.Options{Within: analysis.Packets{Sources: family, Destinations: own, Services: []analysis.Service{k.service()}}}
	if k.outbound {
		o.Within.Sources, o.Within.Destinations = own, family
	}
	var chain analysis.Chain
	for _, s := range stagesOf(end, k.direction()) {
		chain = append(chain, p.list(s.Table))
	}
	return analysis.Always(chain, ruleset.Allow, o).Holds
}

func (k key) service() analysis.Service {
	s := analysis.Service{Protocol: k.protocol}
	switch k.protocol {
	case packet.ProtoTCP, packet.ProtoUDP:
		s.Ports = []ruleset.PortRange{{First: k.port, Last: k.port}}
	case packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH:
	default:
		s.Protocol = analysis.OtherProtocols
	}
	return s
}

// beyond adds what a group allows in a direction that nothing was seen of: at each meaning that tags have, for its own ends there.
func (c *Collector) beyond(p *Proof, after *topology.Snapshot, ends map[string]*topology.Endpoint, g *ruleset.NSG, d ruleset.Direction) {
	type place struct {
		table *topology.Table
		group *topology.Group
		end   *topology.Endpoint
		own   netipx.IPSetBuilder
		keys  []key
	}
	var places []*place
	at := map[*topology.Table]*place{}
	of := map[int32]*place{}
	for i, e := range c.ends {
		end := ends[endID(e)]
		if end == nil {
			continue
		}
		for _, s := range stagesOf(end, d) {
			if !strings.EqualFold(s.Group.NSG.ID, g.ID) {
				continue
			}
			pl := at[s.Table]
			if pl == nil {
				pl = &place{table: s.Table, group: s.Group, end: end}
				at[s.Table] = pl
				places = append(places, pl)
			}
			of[int32(i)] = pl
			for _, own := range e.Judged() {
				pl.own.AddPrefix(own)
			}
		}
	}
	for k := range c.keys {
		if pl := of[k.end]; pl != nil && k.direction() == d {
			pl.keys = append(pl.keys, k)
		}
	}
	for _, pl := range places {
		slices.SortFunc(pl.keys, key.compare)
		exact, ok := c.exact(pl.keys)
		if !ok {
			p.Untold = append(p.Untold, g.Name+", "+strings.ToLower(d.String()))
			continue
		}
		own, _ := pl.own.IPSet() // only an invalid prefix is an error
		o := analysis.Options{Within: analysis.Packets{Destinations: own.Prefixes()}}
		if d == ruleset.Outbound {
			o.Within = analysis.Packets{Sources: own.Prefixes()}
		}
		answer := analysis.Compare(analysis.Chain{exact}, analysis.Chain{(&proofChains{}).list(pl.table)}, o)
		names := ask.TagNames(after, pl.end.Subnet)
		for i := range answer.Changes {
			change := &answer.Changes[i]
			if change.New.Access != ruleset.Allow {
				continue // which Judged has found too
			}
			b := Beyond{NetworkSecurityGroup: g.Name, Direction: d.String(), RuleName: pl.table.Rules[change.New.Rule].QualifiedName(), More: change.More}
			for k := range change.Boxes {
				b.Boxes = append(b.Boxes, ask.NewBox(&change.Boxes[k], names))
			}
			p.Beyond = append(p.Beyond, b)
		}
		if len(answer.Undecided) > 0 {
			p.Untold = append(p.Untold, g.Name+", "+strings.ToLower(d.String()))
		}
	}
}

// echo are the types of ICMP that begin flows: of others nothing is seen.
var echo = map[uint8]uint16{packet.ProtoICMP: packet.ICMPv4EchoRequest, packet.ProtoICMPv6: packet.ICMPv6EchoRequest}

// exact is what was seen as a list of rules that allow it and nothing else.
func (c *Collector) exact(keys []key) (l *analysis.List, ok bool) {
	type part struct {
		own, remote *netipx.IPSet
		protocol    uint8
		ports       []ruleset.PortRange
	}
	// The other ends of each end, protocol and port; then the ports with the same other ends; then the ends.
	type service struct {
		own      packet.Addr
		protocol uint8
		port     uint16
		outbound bool
	}
	remotes := map[service]*netipx.IPSetBuilder{}
	var order []service
	for _, k := range keys {
		if protocolOf(k.protocol) == ruleset.AnyProtocol {
			continue // which rules cannot name: what allows it is beyond
		}
		s := service{k.own, k.protocol, k.port, k.outbound}
		b := remotes[s]
		if b == nil {
			b = &netipx.IPSetBuilder{}
			remotes[s] = b
			order = append(order, s)
		}
		b.Add(k.remote.Netip())
		if c.whole(k) {
			if tag := c.tagOf(k.remote); tag != "" {
				b.AddSet(setOf(c.Tags[tag]))
			} else {
				b.AddSet(c.tagSet(c.ends[k.end], ruleset.TagInternet))
			}
		}
	}
	var parts []part
	index := map[string]int{}
	outbound := false
	for _, s := range order {
		set, _ := remotes[s].IPSet() // only an invalid prefix is an error
		outbound = s.outbound
		id := s.own.String() + " " + string(rune(s.protocol)) + " " + prefixText(set)
		if i, known := index[id]; known {
			parts[i].ports = append(parts[i].ports, ruleset.PortRange{First: s.port, Last: s.port})
			continue
		}
		index[id] = len(parts)
		parts = append(parts, part{setOf(host(s.own).Prefixes), set, s.protocol, []ruleset.PortRange{{First: s.port, Last: s.port}}})
	}
	index = map[string]int{}
	var rules []analysis.Rule
	for _, pt := range parts {
		r := analysis.Rule{Rule: classifier.Rule{Protocol: protocolOf(pt.protocol), Sources: pt.remote.Prefixes(), Destinations: pt.own.Prefixes(), SourcePorts: everyPort, DestinationPorts: everyPort}, Access: ruleset.Allow}
		if pt.protocol == packet.ProtoTCP || pt.protocol == packet.ProtoUDP {
			r.DestinationPorts = ruleset.JoinPorts(pt.ports)
		}
		if t := echo[pt.protocol]; t > 0 {
			r.DestinationPorts = []ruleset.PortRange{{First: t, Last: t}}
		}
		own := &r.Destinations
		if outbound {
			r.Sources, r.Destinations, own = r.Destinations, r.Sources, &r.Sources
		}
		id := string(rune(pt.protocol)) + portsText(r.DestinationPorts) + prefixText(pt.remote)
		if i, known := index[id]; known {
			other := &rules[i].Destinations
			if outbound {
				other = &rules[i].Sources
			}
			*other = append(*other, *own...)
			continue
		}
		index[id] = len(rules)
		rules = append(rules, r)
	}
	if len(rules) > maxExact {
		return nil, false
	}
	rules = append(rules, analysis.Rule{Rule: classifier.Rule{Sources: ruleset.Everywhere(), Destinations: ruleset.Everywhere(), SourcePorts: everyPort, DestinationPorts: everyPort}, Access: ruleset.Deny})
	return analysis.NewList(rules), true
}

func prefixText(s *netipx.IPSet) string {
	var b strings.Builder
	for _, p := range s.Prefixes() {
		b.WriteString(p.String() + " ")
	}
	return b.String()
}

func portsText(ports []ruleset.PortRange) string {
	var b strings.Builder
	for _, p := range ports {
		b.WriteString(p.String() + " ")
	}
	return b.String()
}
