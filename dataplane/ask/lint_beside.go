package ask

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// LintWitness is a packet that shows a finding. Verify confirms Access, asked about the network interface.
type LintWitness struct {
	NetworkInterface string `json:"networkInterface"`
	Direction        string `json:"direction"`
	Access           string `json:"access"`
	DiffWitness
}

// besideKey is two NSGs that stand together: what the one allows, the other is asked about.
type besideKey struct{ first, next *analysis.List }

// beside is where two NSGs stand together.
type beside struct {
	key       besideKey
	places    []*lintPlace
	chain     *verdict.Chain // of the first place
	stage     int            // of key.first
	direction ruleset.Direction
	own       []netip.Prefix
}

// besides finds out what the other NSG of a network interface does with the packets that each rule allows. A subnet's
// addresses that nobody has don't count.
func (m *ruleJudge) besides(l *linter) {
	found := map[besideKey]*beside{}
	var order []*beside
	for i := range l.places {
		p := &l.places[i]
		if p.endpoint == nil || p.endpoint.NetworkInterface == nil {
			continue
		}
		for _, d := range directions {
			c := p.chains[d]
			if len(p.endpoint.Inbound) < 2 || m.open(c, verdict.ChainFirst) || m.open(c, verdict.ChainSecond) || skipsGroups(c) {
				m.passAll(c, d, p.own)
				continue
			}
			for _, stage := range [...]int{verdict.ChainFirst, verdict.ChainSecond} {
				key := besideKey{c.Lists[stage], c.Lists[otherStage(stage)]}
				b := found[key]
				if b == nil {
					b = &beside{key: key, chain: c, stage: stage, direction: d}
					found[key] = b
					order = append(order, b)
				}
				b.places, b.own = append(b.places, p), append(b.own, p.own...)
			}
		}
	}
	for _, b := range order {
		b.judge(m)
	}
}

// notProbes are all sources but those of health probes: tags such as Internet hold these too, and a default rule lets them in.
var notProbes = func() []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range everyAddress {
		b.AddPrefix(p)
	}
	for _, p := range ruleset.AzureLoadBalancerPrefixes() {
		b.RemovePrefix(p)
	}
	return setOf(&b).Prefixes()
}()

// skipsGroups reports an admin rule that lets packets past the NSGs.
func skipsGroups(c *verdict.Chain) bool {
	for i := range c.Lists[verdict.ChainAdmin].Len() {
		if at := c.At(verdict.ChainAdmin, i); at.Rule != nil && at.Rule.Access == ruleset.AlwaysAllow {
			return true
		}
	}
	return false
}

func otherStage(stage int) int { return verdict.ChainFirst + verdict.ChainSecond - stage }

// passAll notes that no other NSG stands in the way.
func (m *ruleJudge) passAll(c *verdict.Chain, d ruleset.Direction, own []netip.Prefix) {
	for stage, list := range c.Lists {
		for i := range list.Len() {
			if at := c.At(stage, i); at.Group != nil && !at.Rule.Default && standsFor(at, d, own) {
				m.of(at, d).passes = true
			}
		}
	}
}

func (b *beside) judge(m *ruleJudge) {
	within := analysis.Packets{Sources: notProbes, Destinations: b.own}
	if b.direction == ruleset.Outbound {
		within = analysis.Packets{Sources: b.own}
	}
	for i, passage := range analysis.Behind(b.key.first, b.key.next, analysis.Options{MaxStates: m.maxStates, Within: within}) {
		at := b.chain.At(b.stage, i)
		if at.Group == nil || at.Rule.Default {
			continue
		}
		r := m.of(at, b.direction)
		r.passes = r.passes || passage.Passes || passage.Undecided
		for _, rule := range passage.Blockers {
			stopper := b.chain.At(otherStage(b.stage), rule)
			if stopper.Group != nil && !slices.ContainsFunc(r.stoppers, func(o verdict.ChainRule) bool { return o.Rule == stopper.Rule }) {
				r.stoppers = append(r.stoppers, stopper)
			}
		}
		if len(passage.Blockers) > 0 && r.stopped == nil {
			r.stopped = b.witness(&passage)
		}
	}
}

// witness is the packet as one of the network interfaces sends or receives it.
func (b *beside) witness(p *analysis.Passage) *LintWitness {
	w := &LintWitness{Direction: b.direction.String(), Access: ruleset.Deny.String(), DiffWitness: witnessOf(&p.Witness)}
	own := p.Witness.Dst
	if b.direction == ruleset.Outbound {
		own = p.Witness.Src
	}
	for _, place := range b.places {
		if slices.ContainsFunc(place.own, func(p netip.Prefix) bool { return p.Contains(own.Netip()) }) {
			w.NetworkInterface = place.endpoint.NetworkInterface.Name
			break
		}
	}
	return w
}

// stoppedBy names the rules of the other NSG.
func (r *lintRule) stoppedBy() string {
	return ruleset.Listed(texts(r.stoppers, func(at verdict.ChainRule) string { return at.Rule.Name + " of " + at.Group.NSG.Name }))
}
