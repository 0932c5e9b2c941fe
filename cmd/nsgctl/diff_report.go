package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// diffFormats are those in which changes make sense. TAP is none: a change is no test.
var diffFormats = strings.Join([]string{report.Markdown, report.JUnit, report.SARIF, report.GitHub, report.AzureDevOps}, " ")

// diffHelp says what to do about a code's entries.
var diffHelp = map[string]string{
	"allowed":   "Check that these packets are meant to get through.",
	"denied":    "Check that nobody needs these packets.",
	"undecided": "Ask again with a larger --max-states, or give the values that are not known.",
	"open":      "Apply the plan, or give the value.",
}

// entries are a diff's changes, each where the rule is written that decides now. What --fail-on asks for is an
// error, other packets that are newly allowed a warning.
func (f *diffFlags) entries(r *inspect.RunningDiff) (list []report.Entry) {
	level := func(kind string, otherwise report.Level) report.Level {
		if slices.Contains(failingKinds[f.failOn], kind) {
			return report.Error
		}
		return otherwise
	}
	add := func(e report.Entry) {
		e.Help = diffHelp[e.Code]
		list = append(list, e)
	}
	for i := range r.Changes {
		c := &r.Changes[i]
		e := report.Entry{Name: "packets are newly " + c.Kind, Code: c.Kind, Level: level(c.Kind, report.Note), File: c.File, Line: c.Line, Column: c.Column,
			Resource: strings.ToLower(c.Direction) + " of " + diffOf(c)}
		if c.Kind == "allowed" {
			e.Level = level(c.Kind, report.Warning)
		}
		e.Message = fmt.Sprintf("newly %s, %s: %s; was %s, now %s; such as %s", c.Kind, e.Resource, strings.Join(diffBoxes(c.Boxes), "; "),
			diffDecision(&c.Old), diffDecision(&c.New), diffWitness(&c.Witness))
		for _, line := range endToEndLines(c) {
			e.Message += fmt.Sprintf("; end to end, %s: %s", line.word, line.text)
		}
		add(e)
	}
	for i := range r.Undecided {
		u := &r.Undecided[i]
		add(report.Entry{Name: "not decided", Code: "undecided", Level: report.Warning, Resource: strings.ToLower(u.Direction) + " of " + diffFor(&u.DiffFor),
			Message: fmt.Sprintf("what %s of %s matches is not decided: %s", u.RuleName, u.NetworkSecurityGroup, undecidedBox(u))})
	}
	for i := range r.Open {
		o := &r.Open[i]
		add(report.Entry{Name: "a value is not known", Code: "open", Level: report.Warning, File: o.File, Resource: o.Resource,
			Message: fmt.Sprintf("not known in the %s policy: %s", o.Policy, diffOpen(o))})
	}
	for _, rule := range r.RulesWithoutEffect {
		add(report.Entry{Name: "a rule changed without effect", Code: "withoutEffect", Level: report.Note, Resource: rule.NetworkSecurityGroup + " " + rule.RuleName,
			Message: fmt.Sprintf("%s of %s, %s, was %s, and no packet is treated differently", rule.RuleName, rule.NetworkSecurityGroup, strings.ToLower(rule.Direction), rule.Change)})
	}
	return list
}
