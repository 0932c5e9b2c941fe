package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// betweenQuery is one question while it is answered.
type betweenQuery struct {
	*Between
	from, to              *End
	arriving              bool // the services have the ports at which packets arrive, not those that they are sent to
	sentToo               bool // with arriving: packets that are sent to such a port are asked about as well
	except                exceptions
	sources, destinations []place
	groups                map[string]*pathGroup
	order                 []*pathGroup
	known                 map[pairKind][]pairWay
	pairsAsked            int // those of known, and what places send to themselves
	pairs                 int // all of them
	states                int // that are left for all judgements, see statesOfQuestion
}

// pathGroup is packets that take alike ways: their rules are asked together.
type pathGroup struct {
	course   course
	services []analysis.Service
	why      string // it is not decided
	hidden   bool   // see hides
	rows     []groupRow
}

// groupRow is the destinations of one source, by their indexes.
type groupRow struct {
	source       int
	destinations []int
}

// pair finds the ways from one place to another, and to those beside it. A way that reaches one of these is its alone.
func (q *betweenQuery) pair(i, j int, services []analysis.Service) {
	beside := q.destinations[j].beside
	for _, w := range q.waysOfPair(i, j, services) {
		if n := slices.Index(beside, w.to); n >= 0 {
			q.group(w.key, w.why, &w.course, w.services, i, j+n)
			continue
		}
		for n := range max(1, len(beside)) {
			q.group(w.key, w.why, &w.course, w.services, i, j+n)
		}
		q.pairs += max(0, len(beside)-1)
	}
}

// ways are those from one place to another, and to those beside it: a packet of each part of the services is asked about.
func (q *betweenQuery) ways(i, j int, services []analysis.Service) (list []pairWay) {
	q.pairsAsked++
	src, dst := &q.sources[i], &q.destinations[j]
	from, to := src.address(), dst.address()
	if from == to && dst.ranges[0].To() != to {
		to = to.Next()
	} else if from == to && len(dst.ranges) > 1 {
		to = dst.ranges[1].From()
	}
	if services == nil {
		services = EveryService()
	}
	sent := services
	if q.arriving {
		sent = withEveryPort(services)
	}
	type wayKey struct {
		key string
		to  *topology.Endpoint
	}
	ways := map[wayKey]int{} // index in list
	for _, p := range q.probes(from, to, sent) {
		courses, more := q.courses(src.endpoint, p.Packet)
		if more {
			unknown := course{legs: []courseLeg{{src: src.endpoint, sent: p.Tuple}}}
			list = append(list, pairWay{why: "there are too many ways", course: unknown, services: []analysis.Service{p.service}})
			continue
		}
		for k := range courses {
			c := &courses[k]
			if !q.meant(c, dst) {
				continue
			}
			own := p.service
			if q.arriving {
				var asked bool
				if own, asked = c.arriving(own, services, q.sentToo); !asked {
					continue
				}
			}
			key := wayKey{key: q.key(c)}
			if to := c.reaches(); slices.Contains(dst.beside, to) {
				key.to = to
			}
			at, known := ways[key]
			if !known {
				at = len(list)
				ways[key] = at
				list = append(list, pairWay{key: key.key, to: key.to, course: *c})
			}
			if w := &list[at]; !slices.ContainsFunc(w.services, func(s analysis.Service) bool { return sameService(s, own) }) {
				w.services = append(w.services, own)
			}
		}
	}
	for k := range list {
		w := &list[k]
		if w.why == "" && w.course.dependsOnReplies() {
			w.why = "the way of replies depends on what a load balancer chooses"
		}
		w.key = fmt.Sprint(w.key, w.services)
	}
	return list
}

// withEveryPort are the services, with all ports of TCP and UDP.
func withEveryPort(services []analysis.Service) []analysis.Service {
	list := slices.Clone(services)
	for i := range list {
		if p := list[i].Protocol; p == packet.ProtoTCP || p == packet.ProtoUDP {
			list[i].Ports = nil
		}
	}
	return list
}

// arriving narrows a service to the ports that arrive at a port of others. With sentToo, ports that are
// sent to one of them stay too. ok is false when nothing is left.
func (c *course) arriving(sent analysis.Service, others []analysis.Service, sentToo bool) (s analysis.Service, ok bool) {
	s = analysis.Service{Protocol: sent.Protocol}
	port, translated := c.arrivesAt()
	for _, of := range others {
		switch {
		case of.Protocol != sent.Protocol:
		case of.Ports == nil || translated && inPorts(of.Ports, port):
			return sent, true
		case !translated || sentToo:
			s.Ports = append(s.Ports, commonPorts(sent.Ports, of.Ports)...)
		}
	}
	return s, len(s.Ports) > 0
}

func sameService(a, b analysis.Service) bool {
	return a.Protocol == b.Protocol && slices.Equal(a.Ports, b.Ports)
}

// meant reports that a course is about the destination's end: it leads to who is meant, or is refused on the way
// to an address of its own.
func (q *betweenQuery) meant(c *course, dst *place) bool {
	if q.to.means == nil {
		return true
	}
	if dst.standing || c.drop == packet.NotDropped || c.arrives() {
		end := c.end()
		return end != nil && q.to.means(end)
	}
	return true
}

// hides reports a private address that the internet has no route to, though another address may stand for it.
func (q *betweenQuery) hides(c *course, dst *place) bool {
	return q.to.standing != nil && !dst.standing && len(c.legs) == 1 && c.drop == packet.DropNoRoute && c.end() == nil &&
		q.snapshot.KindOf(c.legs[0].src) == topology.Internet
}

func (q *betweenQuery) group(key, why string, c *course, services []analysis.Service, i, j int) {
	hidden := q.hides(c, &q.destinations[j])
	key = fmt.Sprint(q.sources[i].address().Is4(), hidden, why, key)
	g := q.groups[key]
	if g == nil {
		g = &pathGroup{course: *c, services: services, why: why, hidden: hidden}
		q.groups[key] = g
		q.order = append(q.order, g)
	}
	if n := len(g.rows); n == 0 || g.rows[n-1].source != i {
		g.rows = append(g.rows, groupRow{source: i})
	}
	row := &g.rows[len(g.rows)-1]
	row.destinations = append(row.destinations, j)
}

// answer asks the rules about each group.
func (q *betweenQuery) answer() *PathSets {
	out := &PathSets{}
	seen := slices.ContainsFunc(q.order, func(g *pathGroup) bool {
		return !g.hidden && q.snapshot.KindOf(g.course.legs[0].src) == topology.Internet
	})
	for _, g := range q.order {
		if q.ended() {
			return out
		}
		if g.hidden && seen {
			continue // the internet asks the address that stands for it
		}
		// Sources with the same destinations make a product of sets.
		rows := slices.Clone(g.rows)
		for len(rows) > 0 {
			first := rows[0].destinations
			var sources []int
			rows = slices.DeleteFunc(rows, func(r groupRow) bool {
				same := slices.Equal(r.destinations, first)
				if same {
					sources = append(sources, r.source)
				}
				return same
			})
			q.judge(out, g, sources, first)
		}
	}
	return out
}

// judge asks the rules about a product of sources and destinations.
func (q *betweenQuery) judge(out *PathSets, g *pathGroup, sources, destinations []int) {
	senders, receivers := chosenPlaces(q.sources, sources), chosenPlaces(q.destinations, destinations)
	from, within := namesAndRanges(senders)
	to, at := namesAndRanges(receivers)
	if end := g.course.end(); end != nil && (g.course.redirects() || len(to) == 0) {
		to = []string{q.name(end)}
	}
	options := analysis.Options{MaxStates: cmp.Or(q.maxStates, analysis.DefaultMaxStates), Within: analysis.Packets{Sources: within, Destinations: at, Services: g.services}}
	if g.why != "" {
		all := analysis.Judge(q.except.asked(&g.course), options)
		for i := range all.Judged {
			if j := &all.Judged[i]; q.except.inQuestion(j) {
				out.Undecided = append(out.Undecided, UndecidedPath{From: from, To: to, Why: g.why, Boxes: j.Boxes})
			}
		}
		return
	}
	asked, of := q.asked(&g.course)
	if q.states <= 0 {
		out.Undecided = append(out.Undecided, UndecidedPath{From: from, To: to, Why: "the rules of all ends cross each other too often: name an end"})
		return
	}
	options.MaxStates = min(options.MaxStates, q.states)
	answer := analysis.Judge(append(q.except.asked(&g.course), asked...), options)
	q.states -= answer.States
	if len(answer.Undecided) > 0 {
		out.Undecided = append(out.Undecided, UndecidedPath{From: from, To: to, Boxes: answer.Undecided,
			Why: "the rules cross each other too often, or tell addresses apart that are chosen between"})
	}
	for i := range answer.Judged {
		j := &answer.Judged[i]
		if !q.except.inQuestion(j) || g.course.drop != packet.DropLand && !toOthers(j) {
			continue
		}
		set := PathSet{From: from, To: to, Chosen: g.course.chosen, Boxes: j.Boxes, Witnesses: j.Witnesses, More: j.More,
			course: &g.course, from: senders, to: receivers}
		q.sendable(&set)
		q.decided(&set, &g.course, j, of)
		out.Sets = append(out.Sets, set)
	}
}

// sendable replaces the witnesses' sources that embed an IPv4 address which no host has: nobody sends from there.
func (b *Between) sendable(set *PathSet) {
	for i := range set.Witnesses {
		k := &set.Witnesses[i]
		if k.Src.Is4() || b.sends(set.from, k.Src.Netip()) {
			continue
		}
		for _, h := range heldOf(set.from, set.Boxes[i].Sources) {
			if a := topology.ExampleOf(h.ranges); b.sends(set.from, a) {
				k.Src = packet.AddrFrom(a)
				break
			}
		}
	}
}

// sends reports that one of the places can send from an address.
func (b *Between) sends(from []place, a netip.Addr) bool {
	senders := b.snapshot.SendersFrom(a)
	return slices.ContainsFunc(from, func(p place) bool {
		return slices.Contains(senders, p.endpoint) && slices.ContainsFunc(p.ranges, func(r netipx.IPRange) bool { return r.Contains(a) })
	})
}

// decided says who decided a set, and how it goes.
func (q *betweenQuery) decided(set *PathSet, c *course, j *analysis.Judged, of []chainOwner) {
	set.Access, set.Reason = ruleset.Allow.String(), ReasonNoGroup
	for i, by := range j.By {
		rule := of[i].chain.At(by.Stage, by.Rule)
		d := Decider{Of: q.name(of[i].endpoint), Direction: of[i].direction.String(), DiffDecision: decisionOf(rule, by.Access)}
		if rule.Rule != nil {
			d.Priority = rule.Rule.Priority
		}
		set.Deciders = append(set.Deciders, d)
		if rule.Group != nil || rule.Service != topology.NoService {
			set.Reason = d.Reason
		}
		set.Access = d.Access
	}
	if c.drop != packet.NotDropped && set.Access == ruleset.Allow.String() {
		set.Access, set.Reason = ruleset.Deny.String(), ReasonOf(c.drop)
	}
	legs := len(c.legs)
	if set.Access == ruleset.Deny.String() && set.Reason == ReasonRule {
		legs = (len(j.By) + 1) / 2 // two chains a leg
	}
	set.Legs = q.legsOf(c, legs)
}

// legsOf are the first legs of a course.
func (b *Between) legsOf(c *course, legs int) (list []Leg) {
	for i := range legs {
		var via *topology.Endpoint
		if i+1 < len(c.legs) {
			via = c.legs[i+1].src
		}
		list = append(list, b.leg(&c.legs[i], via))
	}
	return list
}

func chosenPlaces(all []place, indexes []int) (list []place) {
	for _, i := range indexes {
		list = append(list, all[i])
	}
	return list
}

// namesAndRanges are the names of places, each once, and their addresses.
func namesAndRanges(places []place) (names []string, prefixes []netip.Prefix) {
	var b netipx.IPSetBuilder
	for i := range places {
		addRanges(&b, places[i].ranges)
		if name := places[i].name; name != "" {
			names = addNew(names, []string{name})
		}
	}
	return names, setOf(&b).Prefixes()
}
