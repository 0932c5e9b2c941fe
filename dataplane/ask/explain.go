package ask

import (
	"context"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// ExplainParameters ask what becomes of packets from one end to another, and why.
type ExplainParameters struct {
	// From is an end, see EndForms, and To a target, see TargetForm.
	From string `json:"from"`
	To   string `json:"to"`
	// MaxStates bounds the work; 0: the default. See analysis.Options.
	MaxStates int `json:"maxStates,omitempty"`
}

// MaxExplained is how many kinds of packets are explained.
const MaxExplained = 50

// ExplainResult explains all packets between two ends that begin a flow, by kinds.
type ExplainResult struct {
	Paths []Explanation `json:"paths"`
	// More means that further kinds are left out.
	More      bool             `json:"more,omitempty"`
	Undecided []ReachUndecided `json:"undecided"`
}

// Explanation is packets that take alike ways and that the same rules decide, and one of them step by step.
type Explanation struct {
	// From and To name who sends, and for whom the packets are.
	From []string `json:"from"`
	To   []string `json:"to"`
	// Access, Reason, RuleName and NetworkSecurityGroup are those of verify.
	Access               string `json:"access"`
	Reason               string `json:"reason"`
	RuleName             string `json:"ruleName"`
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	// Chosen means that a load balancer leads some of the packets to others.
	Chosen bool `json:"chosen,omitempty"`
	// Boxes are the packets. Example is the one that Legs and Nearest are about.
	Boxes   []DiffBox      `json:"boxes"`
	Example DiffWitness    `json:"example"`
	Legs    []ExplainedLeg `json:"legs"`
	// Nearest is the rule that comes nearest to allowing the example where a rule denies it; absent without one.
	Nearest *NearestRule `json:"nearest,omitempty"`

	set *PathSet
}

// ExplainedLeg is a part of the way.
type ExplainedLeg struct {
	// Sender and Receiver are a network interface, a subnet as vnet/subnet, a gateway, internet or platform.
	// The receiver is empty where nobody is reached.
	Sender   string `json:"sender"`
	Receiver string `json:"receiver"`
	// NextHop is the type of the route, as in next-hop; empty outside virtual networks.
	NextHop string `json:"nextHop"`
	// RouteTable and NextHopAddress are those of a user-defined route.
	RouteTable     string              `json:"routeTable,omitempty"`
	NextHopAddress string              `json:"nextHopAddress,omitempty"`
	Translations   []azure.Translation `json:"translations,omitempty"`
	Stages         []ExplainedStage    `json:"stages"`
	// PlatformService is the service of the platform that the packets ask for.
	PlatformService string `json:"platformService,omitempty"`
}

// ExplainedStage is a rule that was asked.
type ExplainedStage struct {
	azure.VerificationStage
	// Counters are absent in an answer without a daemon.
	Counters *RuleCounters `json:"counters,omitempty"`
	// Slot is the rule's in the daemon's counters.
	Slot uint32 `json:"-"`
}

// RuleCounters are nsgd_rule_{hits,packets,bytes}_total of a rule.
type RuleCounters struct {
	Hits    uint64 `json:"hits"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Explain says for all packets from one end to another what becomes of them: routes, translation, each rule that
// decides, and for a denial the nearest rule that would have allowed it. It ends with the context's error when the
// context does.
func Explain(ctx context.Context, s *topology.Snapshot, q *ExplainParameters) (*ExplainResult, error) {
	switch {
	case q.From == "":
		return nil, fmt.Errorf("from: it is missing: allowed are %s", EndForms)
	case q.To == "":
		return nil, fmt.Errorf("to: it is missing: allowed is %s", TargetForm)
	}
	query, sets, open, err := between(ctx, s, &ReachParameters{From: q.From, To: q.To, MaxStates: q.MaxStates})
	if err != nil {
		return nil, err
	}
	r := &ExplainResult{Paths: []Explanation{}, Undecided: open}
	unassigned := len(open) > len(sets.Undecided)
	for i := range sets.Sets {
		set := &sets.Sets[i]
		switch {
		case set.course.drop == packet.DropICMPNoFlow && len(sets.Sets) > 1:
			continue // answers and errors, which belong to other flows
		case unassigned && slices.ContainsFunc(set.to, func(to place) bool { return query.hides(set.course, &to) }):
			continue // the internet will ask the address that Azure chooses
		case len(r.Paths) == MaxExplained:
			r.More = true
		default:
			r.Paths = append(r.Paths, query.explained(set))
		}
	}
	return r, nil
}

func (q *betweenQuery) explained(set *PathSet) Explanation {
	b := q.Between
	x := Explanation{From: set.From, To: set.To, Access: set.Access, Reason: set.Reason, Chosen: set.Chosen, Boxes: []DiffBox{},
		Example: witnessOf(&set.Witnesses[0]), Legs: []ExplainedLeg{}, set: set}
	six := !set.Witnesses[0].Src.Is4()
	senders, receivers := q.names(q.from, q.sources, six), q.names(q.to, q.destinations, six)
	for i := range set.Boxes {
		box := boxOf(&set.Boxes[i], &analysis.Names{})
		box.SourceText = senders.text(heldOf(set.from, set.Boxes[i].Sources))
		if !set.course.redirects() {
			box.DestinationText = receivers.text(heldOf(set.to, set.Boxes[i].Destinations))
		}
		x.Boxes = append(x.Boxes, box)
	}
	p := packetOf(&set.Witnesses[0])
	c := b.courseOf(set, &p)
	for i := range c.legs {
		leg := &c.legs[i]
		shown := ExplainedLeg{Sender: b.name(leg.src), Stages: []ExplainedStage{}}
		if leg.way.To != nil {
			shown.Receiver = b.name(leg.way.To)
		}
		told := b.leg(leg, nil)
		shown.NextHop, shown.RouteTable, shown.NextHopAddress, shown.Translations = told.NextHop, told.RouteTable, told.Appliance, told.Translations
		if c.before && i == len(c.legs)-1 {
			x.Legs = append(x.Legs, shown)
			break
		}
		var d verdict.Decision
		p.Tuple = leg.sent
		drop := d.DecideBy(b.snapshot, leg.src, &p, &topology.Taken{Way: leg.way, Drop: leg.why})
		shown.take(&d)
		x.Legs = append(x.Legs, shown)
		if n := len(shown.Stages); n > 0 && x.Reason == ReasonRule {
			x.RuleName, x.NetworkSecurityGroup = shown.Stages[n-1].RuleName, shown.Stages[n-1].NetworkSecurityGroup
		}
		if drop == packet.DropRule {
			x.Nearest = nearest(&d, &p)
			break
		}
	}
	return x
}

// Has reports whether a packet, as its sender sends it, is one of the explained.
func (x *Explanation) Has(k *packet.Tuple) bool {
	return slices.ContainsFunc(x.set.Boxes, func(b analysis.Box) bool { return b.Has(k) })
}

// take adds the rules that were asked.
func (l *ExplainedLeg) take(d *verdict.Decision) {
	for i := range d.Verdict.N {
		st := &d.Verdict.Stages[i]
		rule := st.SecurityRule()
		l.Stages = append(l.Stages, ExplainedStage{Slot: st.Slot(), VerificationStage: azure.VerificationStage{
			NetworkSecurityGroup: st.Stage.Group.NSG.Name, Association: st.Stage.Association.String(), Direction: st.Stage.Direction.String(),
			RuleName: rule.QualifiedName(), Access: rule.Access.String(), Priority: rule.Priority}})
	}
	if d.Verdict.Service != topology.NoService {
		l.PlatformService = d.Verdict.Service.String()
	}
}

// packetOf is a packet that rules see as k, and that begins a flow.
func packetOf(k *packet.Tuple) packet.Packet {
	p := packet.Packet{Tuple: *k, Segments: 1}
	asFirst(&p)
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 {
		p.ICMPType = uint8(k.DstPort)
	}
	if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP {
		p.SrcPort, p.DstPort = k.SrcPort, k.DstPort
	}
	return p
}

// courseOf is the course of a set for one of its packets.
func (b *Between) courseOf(set *PathSet, p *packet.Packet) course {
	want := b.key(set.course)
	for i := range set.from {
		if len(heldOf(set.from[i:i+1], rangesOf(hostPrefix(p.Src)))) == 0 {
			continue
		}
		courses, _ := b.courses(set.from[i].endpoint, *p)
		for j := range courses {
			if b.key(&courses[j]) == want {
				return courses[j]
			}
		}
	}
	return *set.course
}

func undecided(sets *PathSets) []ReachUndecided {
	list := []ReachUndecided{}
	for i := range sets.Undecided {
		u := &sets.Undecided[i]
		one := ReachUndecided{From: u.From, To: u.To, Why: u.Why, Boxes: []DiffBox{}}
		for j := range u.Boxes {
			one.Boxes = append(one.Boxes, boxOf(&u.Boxes[j], &analysis.Names{}))
		}
		list = append(list, one)
	}
	return list
}
