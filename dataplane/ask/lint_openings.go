package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// How much of the internet counts as all of it, and as wide: numbers of addresses, of each family.
var (
	mostIPv4, wideIPv4 = 0x1p30, 0x1p16
	mostIPv6, wideIPv6 = 0x1p122, 0x1p96
)

// fromAll and fromMany say how many addresses of the internet something is open to.
const (
	fromFew = iota
	fromMany
	fromAll
)

// breadth says how many addresses of a family there are.
func breadth(addresses float64, six bool) int {
	most, wide := mostIPv4, wideIPv4
	if six {
		most, wide = mostIPv6, wideIPv6
	}
	switch {
	case addresses >= most:
		return fromAll
	case addresses > wide:
		return fromMany
	}
	return fromFew
}

func countOf(ranges []netipx.IPRange) (addresses float64) {
	for _, r := range ranges {
		for _, p := range r.Prefixes() {
			size := 1.0
			for range p.Addr().BitLen() - p.Bits() {
				size *= 2
			}
			addresses += size
		}
	}
	return addresses
}

// openBox is packets that a chain allows by one rule.
type openBox struct {
	*analysis.Box
	by        verdict.ChainRule
	own       []netipx.IPRange // addresses of who is judged
	peers     []netipx.IPRange // those of the others
	addresses float64          // how many peers there are
}

// openBoxes are packets of one family that a chain allows. Each packet is in one box only.
type openBoxes []openBox

func (o openBoxes) six() bool { return len(o) > 0 && !o[0].peers[0].From().Is4() }

// opening is what the rules of a chain together let through to a port.
type opening struct {
	from   int                 // how many peers: fromFew to fromAll
	widest *openBox            // of the rule with the most of them; nil: few
	others []verdict.ChainRule // further rules without which there would be fewer, or as many in part
}

// has reports a rule with a part in it. Nil has none.
func (o *opening) has(r verdict.ChainRule) bool {
	return o != nil && (r == o.widest.by || slices.Contains(o.others, r))
}

func hasPort(b *analysis.Box, p ruleset.Protocol, port uint16) bool {
	return hasProtocol(b, p) && inPorts(b.DestinationPorts, port)
}

// at is what is open of a port: for all rules together.
func (o openBoxes) at(p ruleset.Protocol, port uint16) (out opening) {
	var parts openBoxes
	sum := 0.0
	for i := range o {
		if hasPort(o[i].Box, p, port) {
			parts = append(parts, o[i])
			sum += o[i].addresses
		}
	}
	if len(parts) == 0 {
		return out
	}
	out.from = breadth(sum, parts.six())
	if out.from != fromFew && slices.ContainsFunc(parts, func(b openBox) bool { return !slices.Contains(b.SourcePorts, ruleset.AllPorts) }) {
		out.from = breadth(countOf(parts.union()), parts.six()) // a peer may be in several boxes, by its source port
	}
	if out.from != fromFew {
		out.widest, out.others = parts.ranked(out.from)
	}
	return out
}

// union is the peers of all boxes.
func (o openBoxes) union() []netipx.IPRange {
	var b netipx.IPSetBuilder
	for i := range o {
		addRanges(&b, o[i].peers)
	}
	return setOf(&b).Ranges()
}

// ranked finds the rule with the most peers, and the others with a part in so many: those that are wide themselves,
// and all of them where no rule alone is open to so many.
func (o openBoxes) ranked(from int) (widest *openBox, others []verdict.ChainRule) {
	var rules []openBox // one for each rule: its largest box, with the peers of all
	largest := map[int]float64{}
	for _, b := range o {
		i := slices.IndexFunc(rules, func(r openBox) bool { return r.by == b.by })
		if i < 0 {
			i, rules = len(rules), append(rules, openBox{by: b.by})
		}
		rules[i].addresses += b.addresses
		if b.addresses > largest[i] {
			largest[i], rules[i].Box, rules[i].peers = b.addresses, b.Box, b.peers
		}
	}
	slices.SortStableFunc(rules, func(a, b openBox) int { return cmp.Compare(b.addresses, a.addresses) })
	alone := breadth(rules[0].addresses, o.six()) >= from
	for i := range rules[1:] {
		if r := &rules[1+i]; r.by.Group != nil && (!alone || breadth(r.addresses, o.six()) != fromFew) {
			others = append(others, r.by)
		}
	}
	return &rules[0], others
}

// openOf are the boxes of an answer about packets of a direction.
func openOf(chain *verdict.Chain, r *analysis.Reachable, d ruleset.Direction) (o openBoxes) {
	for i := range r.Allowed {
		a := &r.Allowed[i]
		for j := range a.Boxes {
			b := openBox{Box: &a.Boxes[j], by: chain.At(a.By.Stage, a.By.Rule), own: a.Boxes[j].Destinations, peers: a.Boxes[j].Sources}
			if d == ruleset.Outbound {
				b.own, b.peers = b.peers, b.own
			}
			b.addresses = countOf(b.peers)
			o = append(o, b)
		}
	}
	return o
}

// of are the packets of one address of its own.
func (o openBoxes) of(a netip.Addr) (list openBoxes) {
	for i := range o {
		if slices.ContainsFunc(o[i].own, func(r netipx.IPRange) bool { return r.Contains(a) }) {
			list = append(list, o[i])
		}
	}
	return list
}

// byOwn are the packets of each kind of its own addresses, in their order.
func (o openBoxes) byOwn() (kinds []openBoxes) {
	var firsts []netip.Addr // what rules tell apart begins at one
	for i := range o {
		for _, r := range o[i].own {
			firsts = append(firsts, r.From())
		}
	}
	slices.SortFunc(firsts, netip.Addr.Compare)
	for _, a := range slices.Compact(firsts) {
		mine := o.of(a)
		if !slices.ContainsFunc(kinds, func(k openBoxes) bool {
			return slices.EqualFunc(k, mine, func(a, b openBox) bool { return a.Box == b.Box })
		}) {
			kinds = append(kinds, mine)
		}
	}
	return kinds
}

// otherRules tells of further rules; empty: there are none.
func otherRules(list []verdict.ChainRule) string {
	switch n := len(list); n {
	case 0:
		return ""
	case 1:
		return " 1 other rule has a part in it; this one has the largest."
	default:
		return fmt.Sprintf(" %d other rules have a part in it; this one has the largest.", n)
	}
}

// openRange is ports that are open to all, by the same rules.
type openRange struct {
	ruleset.PortRange
	opening
}

// toAll are the ports of a protocol that are open to all, in ascending order.
func (o openBoxes) toAll(p ruleset.Protocol) (list []openRange) {
	var parts openBoxes
	var borders []int // first ports of parts
	sum := 0.0
	for i := range o {
		if hasProtocol(o[i].Box, p) {
			parts = append(parts, o[i])
			sum += o[i].addresses
			for _, r := range o[i].DestinationPorts {
				borders = append(borders, int(r.First), int(r.Last)+1)
			}
		}
	}
	if breadth(sum, parts.six()) != fromAll {
		return nil
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	for i := range borders[:len(borders)-1] {
		one := openRange{ruleset.PortRange{First: uint16(borders[i]), Last: uint16(borders[i+1] - 1)}, parts.at(p, uint16(borders[i]))}
		if one.from != fromAll {
			continue
		}
		if n := len(list); n > 0 && list[n-1].Last+1 == one.First && list[n-1].widest.by == one.widest.by {
			list[n-1].Last, list[n-1].others = one.Last, addRules(list[n-1].others, one.others)
			continue
		}
		list = append(list, one)
	}
	return list
}

// mostPorts is how many ports count as all of them: a few may be denied, or be those of the platform's services.
const mostPorts = 60_000

// everyPort is the opening of most of the ports, where nearly all of them are open to all; nil else.
func everyPort(open []openRange) *opening {
	ports, most, all := 0, 0, &opening{from: fromAll}
	byRule := map[verdict.ChainRule]int{}
	for i := range open {
		o := &open[i]
		n := int(o.Last) - int(o.First) + 1
		ports += n
		all.others = addRules(all.others, o.others)
		if byRule[o.widest.by] += n; byRule[o.widest.by] > most {
			all.widest, most = o.widest, byRule[o.widest.by]
		}
	}
	if ports < mostPorts {
		return nil
	}
	for i := range open {
		if by := open[i].widest.by; most < mostPorts {
			all.others = addRules(all.others, []verdict.ChainRule{by})
		}
	}
	all.others = slices.DeleteFunc(all.others, func(r verdict.ChainRule) bool { return r == all.widest.by })
	return all
}

// merge joins ranges that follow each other.
func merge(open []openRange) (ports []ruleset.PortRange) {
	for i := range open {
		if n := len(ports); n > 0 && int(ports[n-1].Last)+1 == int(open[i].First) {
			ports[n-1].Last = open[i].Last
		} else {
			ports = append(ports, open[i].PortRange)
		}
	}
	return ports
}

// addRules adds rules that are not in a list.
func addRules(list, more []verdict.ChainRule) []verdict.ChainRule {
	for _, r := range more {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

func protocolText(p ruleset.Protocol) string {
	if p == ruleset.UDP {
		return "UDP"
	}
	return "TCP"
}

func hasProtocol(b *analysis.Box, p ruleset.Protocol) bool {
	return b.Protocol == "*" || b.Protocol == protocolText(p)
}
