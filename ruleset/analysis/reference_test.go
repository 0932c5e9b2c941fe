package analysis_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"go4.org/netipx"
)

// chain is a chain as the reference sees it: rules alone.
type chain [][]analysis.Rule

func (c chain) prepared() analysis.Chain {
	var out analysis.Chain
	for _, rules := range c {
		out = append(out, analysis.NewList(rules))
	}
	return out
}

// decider asks the classifier's linear reference, list after list.
func (c chain) decider() func(*packet.Tuple) analysis.Decision {
	lists := make([]classifier.Linear, len(c))
	for stage, rules := range c {
		for i := range rules {
			lists[stage] = append(lists[stage], rules[i].Rule)
		}
	}
	return func(k *packet.Tuple) analysis.Decision {
		d := analysis.Decision{Access: ruleset.Allow, Stage: -1, Rule: analysis.NoRule}
		for stage, linear := range lists {
			i := linear.FirstMatch(k)
			if i < 0 {
				continue
			}
			d.Stage, d.Rule = stage, i
			switch c[stage][i].Access {
			case ruleset.Deny:
				d.Access = ruleset.Deny
				return d
			case ruleset.AlwaysAllow:
				return d
			}
		}
		return d
	}
}

// holds reports whether a box, as people read it, has a packet.
func holds(b *analysis.Box, k *packet.Tuple) bool {
	return holdsProtocol(b, k) && holdsAddress(b, k) && holdsPorts(b, k)
}

func holdsProtocol(b *analysis.Box, k *packet.Tuple) bool {
	six := !k.Src.Is4()
	switch b.Protocol {
	case "*":
		return true
	case "ICMP":
		return k.Proto == packet.ProtoICMP && !six
	case "ICMPv6":
		return k.Proto == packet.ProtoICMPv6 && six
	case "1":
		return k.Proto == packet.ProtoICMP && six
	case "58":
		return k.Proto == packet.ProtoICMPv6 && !six
	case "other":
		return !slices.Contains([]uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH}, k.Proto)
	}
	return b.Protocol == packet.ProtocolName(k.Proto)
}

func holdsAddress(b *analysis.Box, k *packet.Tuple) bool {
	in := func(ranges []netipx.IPRange, a netip.Addr) bool {
		at, _ := slices.BinarySearchFunc(ranges, a, func(r netipx.IPRange, a netip.Addr) int { return r.To().Compare(a) })
		return at < len(ranges) && ranges[at].Contains(a)
	}
	return in(b.Sources, k.Src.Netip()) && in(b.Destinations, k.Dst.Netip())
}

func holdsPorts(b *analysis.Box, k *packet.Tuple) bool {
	in := func(ranges []ruleset.PortRange, p uint16) bool {
		return slices.ContainsFunc(ranges, func(r ruleset.PortRange) bool { return r.First <= p && p <= r.Last })
	}
	switch b.Protocol {
	case "TCP", "UDP":
		return in(b.SourcePorts, k.SrcPort) && in(b.DestinationPorts, k.DstPort)
	case "ICMP", "ICMPv6":
		return in(b.ICMPTypes, k.DstPort)
	}
	return true
}

// world is every packet that can be told apart by the rules: one for each combination of intervals
// between the borders of their fields.
func world(chains ...chain) []packet.Tuple {
	var from, to []netip.Addr
	sourcePorts, ports := []uint16{0}, []uint16{0}
	for _, c := range chains {
		for _, rules := range c {
			for i := range rules {
				r := &rules[i]
				from, to = append(from, borders(r.Sources)...), append(to, borders(r.Destinations)...)
				sourcePorts, ports = append(sourcePorts, portBorders(r.SourcePorts)...), append(ports, portBorders(r.DestinationPorts)...)
			}
		}
	}
	from, to, sourcePorts, ports = distinct(from), distinct(to), distinct(sourcePorts), distinct(ports)
	var all []packet.Tuple
	for _, src := range from {
		for _, dst := range to {
			if src.Is4() != dst.Is4() {
				continue
			}
			k := packet.Tuple{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst)}
			for _, k.Proto = range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH, packet.ProtoGRE} {
				all = append(all, withPorts(k, sourcePorts, ports)...)
			}
		}
	}
	return all
}

// withPorts are the packets of a protocol. Types are bytes; ICMP of the other family has type 0.
func withPorts(k packet.Tuple, sourcePorts, ports []uint16) (all []packet.Tuple) {
	switch {
	case k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP:
	case k.Proto == packet.ProtoICMP && k.Src.Is4(), k.Proto == packet.ProtoICMPv6 && !k.Src.Is4():
		sourcePorts = []uint16{0}
	default:
		return []packet.Tuple{k}
	}
	for _, k.SrcPort = range sourcePorts {
		for _, k.DstPort = range ports {
			if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP || k.DstPort <= 255 {
				all = append(all, k)
			}
		}
	}
	return all
}

// borders are where a rule's addresses begin, and what is behind them.
func borders(prefixes []netip.Prefix) []netip.Addr {
	list := []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::")}
	for _, p := range prefixes {
		for p = p.Masked(); p.Addr().Is4In6(); {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		list = append(list, p.Addr())
		last := p.Addr()
		for step := range p.Addr().BitLen() - p.Bits() { // set the host's bits
			b := last.AsSlice()
			b[len(b)-1-step/8] |= 1 << (step % 8)
			last, _ = netip.AddrFromSlice(b)
		}
		if next := last.Next(); next.IsValid() {
			list = append(list, next)
		}
	}
	return slices.DeleteFunc(list, netip.Addr.Is4In6)
}

func portBorders(ranges []ruleset.PortRange) (list []uint16) {
	for _, r := range ranges {
		list = append(list, r.First)
		if r.Last < 65535 {
			list = append(list, r.Last+1)
		}
	}
	return list
}

func distinct[E interface{ comparable }](list []E) []E {
	seen := map[E]bool{}
	return slices.DeleteFunc(list, func(e E) bool {
		before := seen[e]
		seen[e] = true
		return before
	})
}

// checkDifference compares an answer with the reference, packet by packet.
func checkDifference(t *testing.T, old, new chain, d *analysis.Difference, packets []packet.Tuple) {
	t.Helper()
	if len(d.Undecided) > 0 {
		t.Fatalf("not decided: %v", d.Undecided)
	}
	before, now := old.decider(), new.decider()
	for i := range packets {
		k := &packets[i]
		was, is := before(k), now(k)
		var in []*analysis.Change
		for j := range d.Changes {
			for b := range d.Changes[j].Boxes {
				if holds(&d.Changes[j].Boxes[b], k) {
					in = append(in, &d.Changes[j])
				}
			}
		}
		switch {
		case was.Access == is.Access && len(in) == 0:
		case was.Access == is.Access || len(in) != 1:
			t.Fatalf("%v (ports %d, %d): was %+v, is %+v, in %d boxes\n%s", k, k.SrcPort, k.DstPort, was, is, len(in), describe(old, new, d))
		case in[0].Old != was || in[0].New != is:
			t.Fatalf("%v: was %+v, is %+v, but the change says %+v and %+v\n%s", k, was, is, in[0].Old, in[0].New, describe(old, new, d))
		}
	}
	for i := range d.Changes {
		c := &d.Changes[i]
		if was, is := before(&c.Witness), now(&c.Witness); was != c.Old || is != c.New {
			t.Fatalf("witness %v of %+v: was %+v, is %+v\n%s", c.Witness, c, was, is, describe(old, new, d))
		}
		if !slices.ContainsFunc(c.Boxes, func(b analysis.Box) bool { return holds(&b, &c.Witness) }) {
			t.Fatalf("witness %v is in none of its boxes: %v", c.Witness, c.Boxes)
		}
	}
}

func describe(old, new chain, d *analysis.Difference) string {
	text := ""
	for name, c := range map[string]chain{"old": old, "new": new} {
		for stage, rules := range c {
			for i, r := range rules {
				text += fmt.Sprintf("%s %d/%d: %v %+v\n", name, stage, i, r.Access, r.Rule)
			}
		}
	}
	for _, c := range d.Changes {
		text += fmt.Sprintf("change %+v -> %+v: %v\n", c.Old, c.New, c.Boxes)
	}
	return text
}

// A small world has few addresses and ports, so that random rules meet often.
var (
	smallPrefixes = prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.1/32", "10.0.0.2/31", "128.0.0.0/1", "255.255.255.255/32",
		"fd00::/64", "fd00::1/128", "::ffff:10.0.0.0/120", "::/64", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
	smallRanges = []ruleset.PortRange{ruleset.AllPorts, {First: 0, Last: 0}, {First: 8, Last: 8}, {First: 0, Last: 255}, {First: 80, Last: 90}, {First: 1, Last: 65535}, {First: 128, Last: 40000}, {First: 9, Last: 3}}
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func someOf[E any](r *rand.Rand, from []E, most int) (list []E) {
	for range r.IntN(most + 1) {
		list = append(list, from[r.IntN(len(from))])
	}
	return list
}

func smallRule(r *rand.Rand) analysis.Rule {
	rule := analysis.Rule{Access: ruleset.Access(r.IntN(2))}
	rule.Protocol = ruleset.Protocol(r.IntN(int(ruleset.AH) + 1))
	rule.Sources, rule.Destinations = smallPrefixes[:2], smallPrefixes[:2]
	rule.SourcePorts, rule.DestinationPorts = smallRanges[:1], smallRanges[:1]
	if r.IntN(3) > 0 {
		rule.Sources = someOf(r, smallPrefixes, 3)
	}
	if r.IntN(3) > 0 {
		rule.Destinations = someOf(r, smallPrefixes, 3)
	}
	if r.IntN(4) == 0 {
		rule.SourcePorts = someOf(r, smallRanges, 2)
	}
	if r.IntN(2) == 0 {
		rule.DestinationPorts = someOf(r, smallRanges, 2)
	}
	if r.IntN(2) == 0 {
		rule.Protocol = ruleset.AnyProtocol
	}
	return rule
}

func smallChain(r *rand.Rand) chain {
	c := make(chain, 1+r.IntN(3))
	for stage := range c {
		for range r.IntN(5) {
			rule := smallRule(r)
			if stage == 0 && r.IntN(4) == 0 {
				rule.Access = ruleset.AlwaysAllow
			}
			c[stage] = append(c[stage], rule)
		}
	}
	return c
}

// edited is a chain after a few of the edits that people make.
func edited(r *rand.Rand, c chain) chain {
	out := make(chain, len(c))
	for stage, rules := range c {
		out[stage] = slices.Clone(rules)
	}
	for range 1 + r.IntN(2) {
		stage := r.IntN(len(out))
		rules := out[stage]
		if len(rules) == 0 {
			out[stage] = append(rules, smallRule(r))
			continue
		}
		i := r.IntN(len(rules))
		switch r.IntN(5) {
		case 0:
			out[stage] = slices.Delete(rules, i, i+1)
		case 1:
			out[stage] = slices.Insert(rules, i, smallRule(r))
		case 2:
			rules[i].Access = 1 - min(rules[i].Access, 1)
		case 3:
			j := r.IntN(len(rules))
			rules[i], rules[j] = rules[j], rules[i]
		case 4:
			rules[i].DestinationPorts = someOf(r, smallRanges, 3)
		}
	}
	return out
}

func TestCompareFindsWhatEnumerationFinds(t *testing.T) {
	seeds, differing := seedsOf(t), 0
	for seed := range seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		old := smallChain(r)
		new := edited(r, old)
		if seed%4 == 0 {
			new = smallChain(r)
		}
		d := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{})
		if len(d.Changes) > 0 {
			differing++
		}
		checkDifference(t, old, new, d, world(old, new))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if differing < seeds/4 {
		t.Errorf("only %d of %d pairs differ: the test says little", differing, seeds)
	}
}
