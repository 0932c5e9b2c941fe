package ask

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// The bounds on questions about whole paths. What they leave out is told, see DiffEndToEnd.More.
const (
	mostPathChanges = 32 // of a diff
	mostPathBoxes   = 8  // of a change
	mostPathOwn     = 4  // of those that change alike
	mostPathOthers  = 16 // ends on the other side
	mostPathStates  = 50_000
)

// DiffEndToEnd tells which packets of a change get through from end to end. Both ends are known to the policy. Newly
// allowed packets are looked up in the new policy, newly denied ones in the old policy: the other policy denies them at
// the end that changed. Packets are sent to the end's own address. What a network interface forwards is left out.
type DiffEndToEnd struct {
	// Changed are packets that get through now, or that did before.
	Changed []DiffPath `json:"changed"`
	// Unchanged are packets that don't get through either way: the other end denies them, or there is no way.
	Unchanged []DiffPath `json:"unchanged"`
	// Undecided means that of some packets nothing is known.
	Undecided bool `json:"undecided,omitempty"`
	// More means that not all ends and packets were asked about.
	More bool `json:"more,omitempty"`
}

// DiffPath is packets between ends that are told apart by who decides.
type DiffPath struct {
	From []string `json:"from"`
	To   []string `json:"to"`
	// By is who denies the packets; absent of those that get through.
	By      *DiffDecision `json:"by,omitempty"`
	Boxes   []DiffBox     `json:"boxes"`
	More    bool          `json:"more,omitempty"`
	Witness DiffWitness   `json:"witness"`
}

// between are questions about paths of one policy, made when the first one is asked.
func (s *diffSide) between(maxStates int) *Between {
	if s.paths == nil {
		s.paths = NewBetween(s.snapshot, maxStates)
		var nics netipx.IPSetBuilder
		for _, e := range s.snapshot.Endpoints() {
			if e.NetworkInterface != nil {
				nics.Add(e.Address())
			}
		}
		s.nics = setOf(&nics)
	}
	return s.paths
}

// known are the addresses in some ranges that the policy has, of the first ends that are meant; more says that there are others.
func (s *diffSide) known(ranges []netipx.IPRange, most int, means func(*topology.Endpoint) bool) (set *netipx.IPSet, more bool) {
	var asked, found netipx.IPSetBuilder
	addRanges(&asked, ranges)
	in := setOf(&asked)
	for _, e := range s.snapshot.Endpoints() {
		if means != nil && !means(e) {
			continue
		}
		own := s.ownIn(e, in)
		if own == nil {
			continue
		}
		if most--; most < 0 {
			return setOf(&found), true
		}
		found.AddSet(own)
	}
	return setOf(&found), false
}

// ownIn are the addresses of an endpoint in a set; nil: none.
func (s *diffSide) ownIn(e *topology.Endpoint, set *netipx.IPSet) *netipx.IPSet {
	var b netipx.IPSetBuilder
	if e.NetworkInterface != nil {
		if !set.Contains(e.Address()) {
			return nil
		}
		b.Add(e.Address())
		return setOf(&b)
	}
	for _, p := range e.Subnet.Prefixes {
		if set.OverlapsPrefix(p) {
			b.AddPrefix(p)
		}
	}
	b.RemoveSet(s.nics)
	b.Intersect(set)
	if own := setOf(&b); len(own.Ranges()) > 0 {
		return own
	}
	return nil
}

// joins notes a target of the group's change.
func (g *diffGroup) joins(t *diffTarget) {
	if t.endpoint != nil {
		g.targets[targetKey(t.endpoint)] = true
	}
	switch {
	case t.endpoint == nil:
	case t.endpoint.NetworkInterface == nil:
		for _, p := range t.own {
			g.ends.AddPrefix(p)
		}
	default:
		g.ends.Add(t.endpoint.Address())
		g.forwards = g.forwards || t.endpoint.NetworkInterface.EnableIPForwarding
	}
}

// endToEnd follows the packets of a group's change to the other end. It is nil when the policy knows no other end.
func (d *differ) endToEnd(g *diffGroup, c *DiffChange) *DiffEndToEnd {
	side := d.before
	if c.Kind == DiffAllowed {
		side = d.after
	}
	maxStates := d.options.MaxStates
	if maxStates == 0 || maxStates > mostPathStates {
		maxStates = mostPathStates
	}
	paths := side.between(maxStates)
	out := &DiffEndToEnd{Changed: []DiffPath{}, Unchanged: []DiffPath{}, More: c.More || g.forwards}
	targets := setOf(&g.ends)
	changed := func(e *topology.Endpoint) bool { return g.targets[targetKey(e)] } // others may have the same addresses
	asked := false
	for i := range g.raw {
		if i == mostPathBoxes {
			out.More = true
			break
		}
		b := &g.raw[i]
		other := b.Destinations
		if c.Direction == ruleset.Inbound.String() {
			other = b.Sources
		}
		var at netipx.IPSetBuilder
		at.AddSet(setOf(&g.own[i]))
		at.Intersect(targets)
		own, moreOwn := side.known(setOf(&at).Ranges(), mostPathOwn, changed)
		ends, moreEnds := side.known(other, mostPathOthers, nil)
		if len(own.Ranges()) == 0 || len(ends.Ranges()) == 0 {
			continue
		}
		asked, out.More = true, out.More || moreOwn || moreEnds
		from, to := &End{Text: "own", addresses: own, means: changed}, &End{Text: "other", addresses: ends}
		if c.Direction == ruleset.Inbound.String() {
			from, to = to, from
		}
		sets, err := paths.Ask(from, to, servicesOfBox(b))
		if err != nil { // nobody can send from there, so that nothing gets through
			continue
		}
		out.Undecided = out.Undecided || len(sets.Undecided) > 0
		for j := range sets.Sets {
			out.add(&sets.Sets[j], b.SourcePorts)
		}
	}
	if !asked {
		return nil
	}
	out.Changed, out.Unchanged = merged(out.Changed), merged(out.Unchanged)
	return out
}

// add adds packets that share a way, as far as they come from some ports; none: from all. What an address sends to
// itself never gets anywhere.
func (e *DiffEndToEnd) add(set *PathSet, sourcePorts []ruleset.PortRange) {
	if set.Reason == ReasonOf(packet.DropLand) {
		return
	}
	path := DiffPath{From: set.From, To: set.To, More: set.More}
	for i := range set.Boxes {
		b, witness := set.Boxes[i], set.Witnesses[i]
		if len(b.SourcePorts) > 0 && len(sourcePorts) > 0 {
			if b.SourcePorts = commonPorts(b.SourcePorts, sourcePorts); len(b.SourcePorts) == 0 {
				continue
			}
			if !inPorts(b.SourcePorts, witness.SrcPort) {
				witness.SrcPort = b.SourcePorts[0].First
			}
		}
		if len(path.Boxes) == 0 {
			path.Witness = witnessOf(&witness)
		}
		path.Boxes = append(path.Boxes, boxOf(&b, &analysis.Names{}))
	}
	if len(path.Boxes) == 0 {
		return
	}
	if set.Access == ruleset.Allow.String() {
		e.Changed = append(e.Changed, path)
		return
	}
	path.By = &DiffDecision{Access: set.Access, Reason: set.Reason}
	if n := len(set.Deciders); n > 0 && set.Reason == ReasonRule {
		path.By = &set.Deciders[n-1].DiffDecision
	}
	e.Unchanged = append(e.Unchanged, path)
}

func commonPorts(a, b []ruleset.PortRange) (both []ruleset.PortRange) {
	for _, x := range a {
		for _, y := range b {
			if first, last := max(x.First, y.First), min(x.Last, y.Last); first <= last {
				both = append(both, ruleset.PortRange{First: first, Last: last})
			}
		}
	}
	return both
}

// servicesOfBox are the protocols and ports of a box; nil for all.
func servicesOfBox(b *analysis.Box) (list []analysis.Service) {
	if b.Protocol == "*" {
		return nil
	}
	six := len(b.Sources) > 0 && !b.Sources[0].From().Is4() || len(b.Destinations) > 0 && !b.Destinations[0].From().Is4()
	for _, protocol := range analysis.Protocols(six) {
		name := packet.ProtocolName(protocol)
		switch {
		case protocol == analysis.OtherProtocols:
			name = "other"
		case protocol == packet.ProtoICMPv6 && !six, protocol == packet.ProtoICMP && six:
			name = strconv.Itoa(int(protocol))
		}
		if name == b.Protocol {
			list = append(list, analysis.Service{Protocol: protocol, Ports: slices.Concat(b.DestinationPorts, b.ICMPTypes)})
		}
	}
	return list
}

// merged tells paths together whose packets are alike: first those to the same ends, then those from the same ends.
func merged(paths []DiffPath) []DiffPath {
	for _, to := range []bool{true, false} {
		out := []DiffPath{}
		byKey := map[string]int{}
		for _, p := range paths {
			same := p.From
			if to {
				same = p.To
			}
			key := fmt.Sprint(same, p.By != nil, alike(p.Boxes))
			if p.By != nil {
				key += fmt.Sprint(*p.By)
			}
			at, known := byKey[key]
			if !known {
				byKey[key] = len(out)
				out = append(out, p)
				continue
			}
			o := &out[at]
			o.From, o.To = addNew(slices.Clone(o.From), p.From), addNew(slices.Clone(o.To), p.To)
			o.Boxes, o.More = append(o.Boxes, p.Boxes...), o.More || p.More
		}
		paths = out
	}
	return paths
}

// alike describes boxes without their addresses. Paths with equal descriptions are listed together.
func alike(boxes []DiffBox) (texts []string) {
	for i := range boxes {
		b := &boxes[i]
		texts = addNew(texts, []string{fmt.Sprint(b.Protocol, b.SourcePorts, b.DestinationPorts, b.ICMPTypes)})
	}
	slices.Sort(texts)
	return texts
}

// join adds what holds for the other family.
func (e *DiffEndToEnd) join(o *DiffEndToEnd) *DiffEndToEnd {
	switch {
	case e == nil:
		return o
	case o != nil:
		e.Changed, e.Unchanged = append(e.Changed, o.Changed...), append(e.Unchanged, o.Unchanged...)
		e.Changed, e.Unchanged = merged(e.Changed), merged(e.Unchanged)
		e.Undecided, e.More = e.Undecided || o.Undecided, e.More || o.More
	}
	return e
}

// askPaths asks about the whole paths of changes, in their order.
func (d *differ) askPaths() {
	if !d.options.EndToEnd {
		return
	}
	groups := make([]*diffGroup, len(d.result.Changes))
	for _, g := range d.groups {
		groups[g.change] = g
	}
	for i, g := range groups {
		c := &d.result.Changes[i]
		switch {
		case len(c.NetworkInterfaces)+len(c.Subnets) == 0:
		case i >= mostPathChanges:
			c.EndToEnd = &DiffEndToEnd{Changed: []DiffPath{}, Unchanged: []DiffPath{}, More: true}
		default:
			c.EndToEnd = d.endToEnd(g, c)
		}
	}
}
