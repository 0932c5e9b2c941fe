package ask

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
)

// LintResult is what there is to say about a policy.
type LintResult struct {
	Findings []Finding `json:"findings"`
	// Waived are the findings that a waiver takes out.
	Waived []WaivedFinding `json:"waived"`
}

// Finding is something that few mean.
type Finding struct {
	Code      string `json:"code"`
	Severity  string `json:"severity"`
	Resource  string `json:"resource"`  // kind and name
	Direction string `json:"direction"` // of the rule; empty where the finding has none
	Rule      string `json:"rule"`      // empty: the finding is about the resource
	// File, Line and Column are where the rule or the resource is written; empty and 0 when that is not known.
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	// Related are the rules that the message names.
	Related []RelatedRule `json:"related"`
	// Witness is a packet that shows it; nil where the finding is about no packets.
	Witness *LintWitness `json:"witness,omitempty"`
	// Help, Reference and Scanners are those of the check.
	Help      string   `json:"help"`
	Reference string   `json:"reference"`
	Scanners  []string `json:"scanners,omitempty"`
}

// RelatedRule is a rule of the same group and direction.
type RelatedRule struct {
	Rule     string `json:"rule"`
	Access   string `json:"access"`
	Priority int    `json:"priority"`
}

// LintOptions say what a policy is judged with. The zero value has default bounds and knows no places.
type LintOptions struct {
	// MaxStates bounds the work for each list of rules; see analysis.Options.
	MaxStates int
	// RulePosition says where a rule is written; nil: it is not known.
	RulePosition func(g *ruleset.NSG, rule string) (file string, line, column int)
	// Position says where a resource of the policy is written, such as a *policy.Subnet; nil: it is not known.
	Position func(object any) (file string, line, column int)
	// Tag is the prefixes of a service tag that the policy need not name; nil: no tag file.
	Tag func(name string) (prefixes []netip.Prefix, ok bool)
	// Warnings are the reader's, of the documents.
	Warnings ruleset.Faults
	// Waivers hold until and on Today, as 2006-01-02.
	Waivers []Waiver
	Today   string
}

// linter judges one policy.
type linter struct {
	LintOptions
	snapshot *topology.Snapshot
	places   []lintPlace
	findings []Finding
}

// lintPlace is where packets are judged: at an endpoint, or by a group that nobody has.
type lintPlace struct {
	diffTarget
	chains [2]*verdict.Chain // by direction
}

var directions = [...]ruleset.Direction{ruleset.Inbound, ruleset.Outbound}

// Lint judges a policy for all packets: each rule by what it means where it stands. A finding about a rule
// holds for every place where the rule's group stands.
func Lint(s *topology.Snapshot, o LintOptions) *LintResult {
	l := &linter{LintOptions: o, snapshot: s, findings: []Finding{}}
	chains := verdict.NewChains(s)
	for _, e := range s.Endpoints() {
		l.places = append(l.places, lintPlace{diffTarget{endpoint: e, own: e.Judged()},
			[2]*verdict.Chain{chains.Of(e, ruleset.Inbound), chains.Of(e, ruleset.Outbound)}})
	}
	unused := unusedGroups(s)
	for _, g := range s.Groups {
		if unused[strings.ToLower(g.NSG.ID)] == g {
			l.places = append(l.places, lintPlace{diffTarget{group: g, own: everyAddress},
				[2]*verdict.Chain{chains.OfGroup(g, ruleset.Inbound), chains.OfGroup(g, ruleset.Outbound)}})
		}
	}
	l.rulesMeaning()
	l.exposed()
	l.outward()
	l.probes()
	l.platform()
	l.services()
	l.subnets()
	l.both()
	l.groups()
	l.shut()
	l.documents()
	waived := l.waive()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Direction, b.Direction))
	})
	return &LintResult{Findings: slices.Concat([]Finding{}, l.findings), Waived: waived}
}

// find adds a finding of a check about a resource, for the caller to say more.
func (l *linter) find(code, resource, message string) *Finding {
	c := CheckOf(code)
	l.findings = append(l.findings, Finding{Code: code, Severity: c.Severity, Resource: resource, Message: message, Related: []RelatedRule{},
		Help: c.Help, Reference: c.Reference, Scanners: c.Scanners})
	return &l.findings[len(l.findings)-1]
}

// findAt adds a finding about a resource that is written somewhere.
func (l *linter) findAt(code, resource string, object any, message string) *Finding {
	f := l.find(code, resource, message)
	if l.Position != nil {
		f.File, f.Line, f.Column = l.Position(object)
	}
	return f
}

// findRule adds a finding about a rule.
func (l *linter) findRule(code string, g *ruleset.NSG, r *ruleset.Rule, message string) *Finding {
	f := l.find(code, groupResource(g), message)
	f.Direction, f.Rule = r.Direction.String(), r.Name
	if l.RulePosition != nil {
		f.File, f.Line, f.Column = l.RulePosition(g, r.Name)
	}
	if f.Line == 0 && l.Position != nil { // a default rule is where its group is
		f.File, f.Line, f.Column = l.Position(g)
	}
	return f
}

func groupResource(g *ruleset.NSG) string {
	if g.Admin {
		return "ruleCollections/" + g.Name
	}
	return "networkSecurityGroups/" + g.Name
}

// warningCodes are the checks by the code of a document's warning. Any other is LintWarning.
var warningCodes = map[string]string{
	"UnknownProperty": LintUnknownProperty, "PropertyNotRead": LintNotRead, "ResourceNotRead": LintNotRead,
	"NothingRead": LintNothingRead, "IncompleteList": LintIncomplete, "VirtualNetworkTagIsEverything": LintEverythingIsNetwork,
}

// chosenCodes are warnings about values that the reader chose: they say nothing about the policy.
var chosenCodes = []string{"PublicIPAddressNotAssigned", "PrivateIPAddressNotAssigned", "PlaceholderReplaced"}

// documents lists what the reader of the documents warns of, as validate does.
func (l *linter) documents() {
	for i := range l.Warnings {
		w := &l.Warnings[i]
		code := warningCodes[w.Code]
		switch {
		case slices.Contains(chosenCodes, w.Code):
			continue
		case code == "":
			code = LintWarning
		}
		message := w.Code + ": "
		if w.Field != "" {
			message += w.Field
			if w.Value != "" {
				message += " " + w.Value
			}
			message += ": "
		}
		f := l.find(code, w.Resource, message+w.Message)
		f.Rule, f.File, f.Line, f.Column = w.Rule, w.File, w.Line, w.Column
	}
}
