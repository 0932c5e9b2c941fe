package ask

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// pairWay is a way from one place to another, and the services that take it.
type pairWay struct {
	key      string // equal for ways whose packets are judged together
	course   course
	services []analysis.Service
	why      string             // it is not decided
	to       *topology.Endpoint // the receiver, where several ends have the place's addresses; nil: it reaches none of them
}

// pairKind is equal for pairs of places between which the ways are alike. See topology.AddressClass.
type pairKind struct{ source, destination placeKind }

// placeKind is equal for places of one question that are alike.
type placeKind struct {
	alike, index    int // index of a place that is like no other
	meant, standing bool
}

func (p *place) kind() placeKind {
	k := placeKind{alike: p.alike, meant: p.endpoint != nil, standing: p.standing}
	if p.alike == 0 {
		k.index = p.index
	}
	return k
}

// waysOfPair are the ways of a pair, asked once for those that are alike. What a network interface sends to itself is not
// in question: it goes with what it sends to one of its kind, so that both make one product of places.
func (q *betweenQuery) waysOfPair(i, j int, services []analysis.Service) []pairWay {
	src, dst := &q.sources[i], &q.destinations[j]
	if src.address().Is4() != dst.address().Is4() {
		return nil
	}
	if src.alike > 0 && src.address() == dst.address() {
		own := j
		var found bool
		if i, j, found = q.otherPair(i, j); !found {
			return q.ways(i, own, services)
		}
	}
	kind := pairKind{src.kind(), dst.kind()}
	ways, known := q.known[kind]
	if known {
		return ways
	}
	ways = q.ways(i, j, services)
	q.known[kind] = ways
	return ways
}

// otherPair is a pair like that of a place with itself. Both ends must have others of the kind: where one end is a
// single place, what it sends to itself stays apart.
func (q *betweenQuery) otherPair(i, j int) (source, destination int, found bool) {
	another := func(places []place, than int) int {
		return slices.IndexFunc(places, func(p place) bool { return p.index != than && p.kind() == places[than].kind() })
	}
	if another(q.sources, i) < 0 {
		return i, j, false
	}
	other := another(q.destinations, j)
	return i, other, other >= 0
}

// DefaultMaxPairs bounds the pairs of places that a question asks about. Those that are alike count once, and so do
// destinations with the same addresses. 500 network interfaces in 50 subnets with a group each have some 12,000.
const DefaultMaxPairs = 30_000

// The bounds on the rest of a question's work. A pair that is like another one costs little.
const (
	pairsOfAKind     = 100 // pairs for each of DefaultMaxPairs
	statesOfQuestion = 10  // judgements may use so many times the states that one may have
)

// ended reports that nobody waits for the answer any more.
func (b *Between) ended() bool { return b.context != nil && b.context.Err() != nil }

// leave lists the pairs from one on as not decided.
func (q *betweenQuery) leave(out *PathSets, i, j int, services []analysis.Service) {
	most := q.maxPairs
	if q.pairsAsked < most {
		most *= pairsOfAKind
	}
	g := &pathGroup{why: fmt.Sprintf("there are more than %d pairs of places: name an end", most), services: services,
		course: course{legs: []courseLeg{{}}}}
	for _, four := range []bool{true, false} {
		indexes := func(places []place, from, to int) (list []int) {
			for k := from; k < to; k++ {
				if places[k].address().Is4() == four {
					list = append(list, k)
				}
			}
			return list
		}
		for _, part := range [][3]int{{i, i + 1, j}, {i + 1, len(q.sources), 0}} {
			from, to := indexes(q.sources, part[0], part[1]), indexes(q.destinations, part[2], len(q.destinations))
			if len(from) > 0 && len(to) > 0 {
				q.judge(out, g, from, to)
			}
		}
	}
}

// toOthers takes away boxes that only hold what an address sends to itself. Witnesses of others become packets to
// somebody else. It is false when no box is left.
func toOthers(j *analysis.Judged) bool {
	var boxes []analysis.Box
	var witnesses []packet.Tuple
	for i := range j.Boxes {
		b, w := j.Boxes[i], j.Witnesses[i]
		if w.Src == w.Dst {
			own := w.Src.Netip()
			if to, ok := otherThan(own, b.Destinations); ok {
				w.Dst = packet.AddrFrom(to)
			} else if from, ok := otherThan(own, b.Sources); ok {
				w.Src = packet.AddrFrom(from)
			} else {
				continue
			}
		}
		boxes, witnesses = append(boxes, b), append(witnesses, w)
	}
	j.Boxes, j.Witnesses = boxes, witnesses
	return len(boxes) > 0
}

// otherThan is another address of some ranges.
func otherThan(a netip.Addr, ranges []netipx.IPRange) (other netip.Addr, ok bool) {
	for _, r := range ranges {
		for _, other := range []netip.Addr{r.From(), r.To()} {
			if other != a {
				return other, true
			}
		}
	}
	return netip.Addr{}, false
}
