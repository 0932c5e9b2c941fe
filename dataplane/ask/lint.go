package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// The codes of findings. A code keeps its meaning for ever.
const (
	// LintUndecided: the rule crosses others too often, so that nothing is known about it.
	LintUndecided = "NSG100"
	// LintShadowed: rules before it match all of its packets.
	LintShadowed = "NSG101"
	// LintRedundant: without it other rules would do the same with its packets.
	LintRedundant = "NSG102"
	// LintEmpty: it matches no packet, wherever it stands.
	LintEmpty = "NSG103"
	// LintElsewhere: its group stands at none of the addresses that the rule is for.
	LintElsewhere = "NSG104"
	// LintDefault: a default rule would do the same with its packets.
	LintDefault = "NSG105"
)

// The severities of findings, the worst first.
const (
	SeverityError   = "error"   // it does the opposite of what it says
	SeverityWarning = "warning" // it does nothing
	SeverityInfo    = "info"    // it could be left out
)

// Severities lists the severities, the worst first.
var Severities = []string{SeverityError, SeverityWarning, SeverityInfo}

// LintResult is what there is to say about a policy.
type LintResult struct {
	Findings []Finding `json:"findings"`
}

// Finding is something about a rule that few mean.
type Finding struct {
	Code      string `json:"code"`
	Severity  string `json:"severity"`
	Resource  string `json:"resource"` // kind and name
	Direction string `json:"direction"`
	Rule      string `json:"rule"`
	// File, Line and Column are where the rule is written; empty and 0 when that is not known.
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	// Related are the rules that the message names.
	Related []RelatedRule `json:"related"`
}

// RelatedRule is a rule of the same group and direction.
type RelatedRule struct {
	Rule     string `json:"rule"`
	Access   string `json:"access"`
	Priority int    `json:"priority"`
}

// Lint judges what each user rule means where it stands. A finding holds for every place where the
// rule's group stands. maxStates bounds the work for each list of rules; see analysis.Options. position says
// where a rule is written; nil: it is not known.
func Lint(s *topology.Snapshot, maxStates int, position func(g *ruleset.NSG, rule string) (file string, line, column int)) *LintResult {
	l := &linter{maxStates: maxStates, position: position, rules: map[lintKey]*lintRule{}, seen: map[*analysis.List]bool{}}
	chains := verdict.NewChains(s)
	directions := []ruleset.Direction{ruleset.Inbound, ruleset.Outbound}
	for _, e := range s.Endpoints() {
		for _, d := range directions {
			l.chain(chains.Of(e, d), d, e.Judged())
		}
	}
	unused := unusedGroups(s)
	for _, g := range s.Groups {
		if unused[strings.ToLower(g.NSG.ID)] != g {
			continue
		}
		for _, d := range directions {
			l.chain(chains.OfGroup(g, d), d, everyAddress)
		}
	}
	return &LintResult{Findings: l.findings()}
}

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
}

type linter struct {
	maxStates int
	position  func(*ruleset.NSG, string) (string, int, int)
	rules     map[lintKey]*lintRule
	order     []*lintRule
	seen      map[*analysis.List]bool // lists whose roles are known
}

// chain adds what a chain says of its rules, at a place with some addresses of its own.
func (l *linter) chain(c *verdict.Chain, d ruleset.Direction, own []netip.Prefix) {
	for stage, list := range c.Lists {
		for i := range list.Len() {
			at := c.At(stage, i)
			if at.Group == nil || at.Rule.Default {
				continue
			}
			r := l.of(at, d)
			r.here = r.here || standsFor(at, d, own)
		}
		if l.seen[list] {
			continue
		}
		l.seen[list] = true
		for i, role := range analysis.Roles(list, analysis.Options{MaxStates: l.maxStates}) {
			if at := c.At(stage, i); at.Group != nil && !at.Rule.Default {
				l.of(at, d).add(&role, func(rule int) *ruleset.Rule { return c.At(stage, rule).Rule })
			}
		}
	}
}

func (l *linter) of(at verdict.ChainRule, d ruleset.Direction) *lintRule {
	key := lintKey{at.Group.NSG, d, at.Rule.Name}
	r := l.rules[key]
	if r == nil {
		r = &lintRule{lintKey: key, rule: at.Rule, resolved: at.Resolved}
		l.rules[key] = r
		l.order = append(l.order, r)
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

func (l *linter) findings() []Finding {
	findings := []Finding{}
	for _, r := range l.order {
		if f, found := r.finding(); found {
			if l.position != nil {
				f.File, f.Line, f.Column = l.position(r.nsg, r.name)
			}
			findings = append(findings, f)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Direction, b.Direction))
	})
	return findings
}

func (r *lintRule) finding() (f Finding, found bool) {
	f = Finding{Severity: SeverityWarning, Resource: "networkSecurityGroups/" + r.nsg.Name, Direction: r.direction.String(),
		Rule: r.rule.Name, Related: []RelatedRule{}}
	if r.nsg.Admin {
		f.Resource = "ruleCollections/" + r.nsg.Name
	}
	switch {
	case r.undecided:
		f.Code, f.Severity = LintUndecided, SeverityInfo
		f.Message = "This rule crosses others too often: nothing is known about it. --max-states raises the bound."
	case !r.matches:
		f.Code, f.Message = LintEmpty, "This rule matches no packet: "+r.whyEmpty()
	case !r.here:
		f.Code = LintElsewhere
		f.Message = "This rule never matches where its group stands: no network interface and no subnet there has an address of its " + r.ownSide() + "."
	case !r.decides && len(r.blockers) == 0:
		f.Code = LintShadowed
		f.Message = "This rule never decides: its packets are for services of the platform, which only a rule with the service's tag can deny."
	case !r.decides:
		f.Code = LintShadowed
		f.Message = "This rule never decides: the rules before it match all of its packets. Give it a lower priority number than " + related(&f, r.blockers) + ", or remove it."
		if r.rule.Access == ruleset.Deny && slices.ContainsFunc(r.blockers, func(b *ruleset.Rule) bool { return b.Access != ruleset.Deny }) {
			f.Severity = SeverityError
		}
	case !r.needed:
		f.Code, f.Severity = LintRedundant, SeverityInfo
		if len(r.instead) > 0 && !slices.ContainsFunc(r.instead, func(i *ruleset.Rule) bool { return !i.Default }) {
			f.Code = LintDefault
		}
		f.Message = "Without this rule " + cmp.Or(related(&f, r.instead), "the platform") + " would do the same. It can be left out."
	default:
		return f, false
	}
	return f, true
}

// related names rules, and notes them in the finding.
func related(f *Finding, rules []*ruleset.Rule) string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.Name
		f.Related = append(f.Related, RelatedRule{r.QualifiedName(), r.Access.String(), r.Priority})
	}
	return ruleset.Listed(names)
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
