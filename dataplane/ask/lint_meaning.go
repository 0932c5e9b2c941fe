package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// lintKey is a rule, in whatever views its group has.
type lintKey struct {
	nsg       *ruleset.NSG
	direction ruleset.Direction
	name      string
}

// lintRule is what is known of a rule from all places where it stands.
type lintRule struct {
	lintKey
	rule     *ruleset.Rule
	resolved *classifier.Rule
	// Of some place: the group has an address there that the rule is for; the role is not empty, decides,
	// is needed, is not decided.
	here, matches, decides, needed, undecided bool
	blockers, instead                         []*ruleset.Rule
	// passes: some packet that it allows is allowed by the NSG beside it too, or no other NSG stands there.
	// Where none is, stoppers deny them, and stopped is such a packet.
	passes   bool
	stoppers []verdict.ChainRule
	stopped  *LintWitness
}

// ruleJudge collects what is known of each user rule.
type ruleJudge struct {
	set       *policy.Set
	maxStates int
	rules     map[lintKey]*lintRule
	order     []*lintRule
	seen      map[*analysis.List]bool // lists whose roles are known
}

// rulesMeaning finds rules that do nothing, or not what they seem to.
func (l *linter) rulesMeaning() {
	m := ruleJudge{set: l.snapshot.Policy, maxStates: l.MaxStates, rules: map[lintKey]*lintRule{}, seen: map[*analysis.List]bool{}}
	for i := range l.places {
		for _, d := range directions {
			m.chain(l.places[i].chains[d], d, l.places[i].own)
		}
	}
	m.besides(l)
	for _, r := range m.order {
		r.find(l, m.unknownTags(r.rule))
	}
	m.merges(l)
	l.words(m.order)
}

// chain adds what a chain says of its rules, at a place with some addresses of its own.
func (m *ruleJudge) chain(c *verdict.Chain, d ruleset.Direction, own []netip.Prefix) {
	for stage, list := range c.Lists {
		for i := range list.Len() {
			at := c.At(stage, i)
			if at.Group == nil || at.Rule.Default {
				continue
			}
			r := m.of(at, d)
			r.here = r.here || standsFor(at, d, own)
		}
		if m.seen[list] {
			continue
		}
		m.seen[list] = true
		open := m.open(c, stage)
		for i, role := range analysis.Roles(list, analysis.Options{MaxStates: m.maxStates}) {
			role.Needed = role.Needed || open && role.Decides // what the tag stands for may lie between this rule and the others
			if at := c.At(stage, i); at.Group != nil && !at.Rule.Default {
				m.of(at, d).add(&role, func(rule int) *ruleset.Rule { return c.At(stage, rule).Rule })
			}
		}
	}
}

func (m *ruleJudge) of(at verdict.ChainRule, d ruleset.Direction) *lintRule {
	key := lintKey{at.Group.NSG, d, at.Rule.Name}
	r := m.rules[key]
	if r == nil {
		r = &lintRule{lintKey: key, rule: at.Rule, resolved: at.Resolved}
		m.rules[key] = r
		m.order = append(m.order, r)
	}
	return r
}

// standsFor reports whether a rule is for some of the addresses.
func standsFor(at verdict.ChainRule, d ruleset.Direction, own []netip.Prefix) bool {
	mine := at.Resolved.Destinations
	if d == ruleset.Outbound {
		mine = at.Resolved.Sources
	}
	return slices.ContainsFunc(mine, func(p netip.Prefix) bool {
		return slices.ContainsFunc(own, p.Overlaps)
	})
}

func (r *lintRule) add(role *analysis.Role, of func(int) *ruleset.Rule) {
	r.undecided = r.undecided || role.Undecided
	r.matches = r.matches || !role.Empty
	r.decides = r.decides || role.Decides
	r.needed = r.needed || role.Needed
	for _, list := range []struct {
		to   *[]*ruleset.Rule
		from []int
	}{{&r.blockers, role.Blockers}, {&r.instead, role.Instead}} {
		for _, i := range list.from {
			if rule := of(i); rule != nil && !slices.Contains(*list.to, rule) {
				*list.to = append(*list.to, rule)
			}
		}
	}
}

// find adds a finding to those of the linter, if there is something to say.
func (r *lintRule) find(l *linter, unknown []string) {
	code, message := r.judge(unknown)
	if code == "" {
		return
	}
	f := l.findRule(code, r.nsg, r.rule, message)
	switch code {
	case LintNoTagFile:
		if service := r.broadlyOpen(unknown); service != "" {
			f.Severity = SeverityError
			f.Message += " AzureCloud holds the machines of all customers: without --service-tags nothing is known of who reaches " + service + "."
		}
	case LintSplit:
		f.Witness = r.stopped
		for _, at := range r.stoppers {
			f.relate([]*ruleset.Rule{at.Rule})
		}
	case LintShadowed:
		f.relate(r.blockers)
		if r.rule.Access == ruleset.Deny && slices.ContainsFunc(r.blockers, func(b *ruleset.Rule) bool { return b.Access != ruleset.Deny }) {
			f.Severity = SeverityError
		}
	case LintRedundant, LintDefault:
		f.relate(r.instead)
	}
}

// broadlyOpen names a management or database port that a rule opens to a tag which is broad, though its addresses are not known.
func (r *lintRule) broadlyOpen(unknown []string) string {
	if r.direction != ruleset.Inbound || r.rule.Access == ruleset.Deny || !slices.ContainsFunc(unknown, isAzureCloud) {
		return ""
	}
	for i := range exposedServices {
		s := &exposedServices[i]
		if s.code != LintHTTP && (r.rule.Protocol == s.protocol || r.rule.Protocol == ruleset.AnyProtocol) && inPorts(r.rule.DestinationPorts, s.first) {
			return s.text(s.first)
		}
	}
	return ""
}

// isAzureCloud reports the tag of Azure's public addresses, or of those of one region.
func isAzureCloud(tag string) bool {
	name, _, _ := strings.Cut(tag, ".")
	return strings.EqualFold(name, "AzureCloud")
}

func (r *lintRule) judge(unknown []string) (code, message string) {
	switch {
	case len(unknown) > 0:
		return LintNoTagFile, "Nothing is known of the tag " + ruleset.Listed(unknown) + ": the rule counts as one that matches no packet."
	case r.undecided:
		return LintUndecided, "This rule crosses others too often: nothing is known about it."
	case !r.matches:
		return LintEmpty, "This rule matches no packet: " + r.whyEmpty()
	case !r.here:
		return LintElsewhere, "This rule never matches where its group stands: no network interface and no subnet there has an address of its " + r.ownSide() + "."
	case !r.decides && len(r.blockers) == 0:
		return LintShadowed, "This rule never decides: its packets are for services of the platform, which only a rule with the service's tag can deny."
	case !r.decides:
		return LintShadowed, "This rule never decides: rules before it match all of its packets: " + named(r.blockers) + "."
	case r.needed && !r.passes && len(r.stoppers) > 0:
		return LintSplit, "This rule opens nothing: wherever it stands, the other network security group denies all that it allows, by " + r.stoppedBy() + "."
	case r.needed:
		return "", ""
	case len(r.instead) > 0 && !slices.ContainsFunc(r.instead, func(i *ruleset.Rule) bool { return !i.Default }):
		code = LintDefault
	default:
		code = LintRedundant
	}
	return code, "Without this rule " + cmp.Or(named(r.instead), "the platform") + " would do the same."
}

// relate notes rules that the message names.
func (f *Finding) relate(rules []*ruleset.Rule) {
	for _, r := range rules {
		f.Related = append(f.Related, RelatedRule{r.QualifiedName(), r.Access.String(), r.Priority})
	}
}

// named lists the names of rules.
func named(rules []*ruleset.Rule) string {
	return ruleset.Listed(texts(rules, func(r *ruleset.Rule) string { return r.Name }))
}

// ownSide is the field for the addresses of who is judged.
func (r *lintRule) ownSide() string {
	if r.direction == ruleset.Inbound {
		return "destination"
	}
	return "source"
}

// whyEmpty says which side of a rule has no addresses.
func (r *lintRule) whyEmpty() string {
	for _, side := range []struct {
		name     string
		peer     *ruleset.Peer
		prefixes []netip.Prefix
	}{{"source", &r.rule.Source, r.resolved.Sources}, {"destination", &r.rule.Destination, r.resolved.Destinations}} {
		switch {
		case len(side.prefixes) > 0:
		case len(side.peer.ApplicationSecurityGroups) > 0:
			return fmt.Sprintf("no network interface is in the application security group of its %s.", side.name)
		case side.peer.Tag != "":
			return fmt.Sprintf("the tag %s of its %s has nothing in common with its protocol and ports.", side.peer.Tag, side.name)
		default:
			return fmt.Sprintf("its %s stands for no address.", side.name)
		}
	}
	return "its source and its destination have no family of addresses in common, or its ports no port."
}

// unknownTags are the service tags of a rule that the policy has no addresses of.
func (m *ruleJudge) unknownTags(r *ruleset.Rule) (tags []string) {
	for _, side := range []*ruleset.Peer{&r.Source, &r.Destination} {
		side.Each(func(p *ruleset.Peer) {
			if p.Tag != "" && !ruleset.IsBuiltInTag(p.Tag) && len(m.set.ServiceTags[p.Tag]) == 0 {
				tags = append(tags, p.Tag)
			}
		})
	}
	return tags
}

// open reports a list with a rule that is for a tag without addresses.
func (m *ruleJudge) open(c *verdict.Chain, stage int) bool {
	for i := range c.Lists[stage].Len() {
		if at := c.At(stage, i); at.Group != nil && len(m.unknownTags(at.Rule)) > 0 {
			return true
		}
	}
	return false
}
