package ask

import (
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// Waiver takes findings of one check about one resource out of the answer, for a reason.
type Waiver struct {
	Code string
	// Resource is that of the finding, or with its rule: networkSecurityGroups/web/securityRules/ssh. For a
	// finding without a resource it is the file.
	Resource, Reason string
	// Until is the last day on which it holds, as 2006-01-02; empty: it has no end.
	Until string

	// File, Line and Column are where it is written.
	File         string
	Line, Column int

	used bool
}

// WaivedFinding is a finding that a waiver takes out of the answer.
type WaivedFinding struct {
	Finding
	Reason string `json:"reason"`
	Until  string `json:"until,omitempty"`
}

// ignoreMark begins a waiver in a rule's description: nsgd:ignore NSG201 reason.
const ignoreMark = "nsgd:ignore"

// waive takes findings out that a waiver is for. A waiver that is expired or for nothing is a finding itself, and so is a mark
// that can't be understood; these can't be waived.
func (l *linter) waive() (waived []WaivedFinding) {
	waived = []WaivedFinding{}
	waivers := append(l.marks(), l.Waivers...)
	var kept []Finding
	for _, f := range l.findings {
		w := waiverOf(waivers, &f, l.Today)
		if w == nil {
			kept = append(kept, f)
			continue
		}
		waived = append(waived, WaivedFinding{f, w.Reason, w.Until})
	}
	l.findings = kept
	for i := range waivers {
		switch w := &waivers[i]; {
		case w.expired(l.Today):
			l.findWaiver(LintWaiverExpired, w, "This waiver of "+w.Code+" ended on "+w.Until+": "+w.Reason)
		case !w.used:
			l.findWaiver(LintWaiverUnused, w, "Nothing is found that this waiver of "+w.Code+" is for: "+w.Reason)
		}
	}
	return waived
}

func (l *linter) findWaiver(code string, w *Waiver, message string) {
	f := l.find(code, w.Resource, message)
	f.File, f.Line, f.Column = w.File, w.Line, w.Column
}

func (w *Waiver) expired(today string) bool { return w.Until != "" && w.Until < today }

// waiverOf is the first waiver of a finding that holds; nil: none does.
func waiverOf(waivers []Waiver, f *Finding, today string) *Waiver {
	names := []string{f.Resource}
	switch {
	case f.Code >= LintWaiverUnused: // about waivers
		return nil
	case f.Resource == "":
		names = []string{f.File}
	case f.Rule != "":
		names = append(names, ruleResource(f.Resource, f.Rule))
	}
	for i := range waivers {
		w := &waivers[i]
		if !strings.EqualFold(w.Code, f.Code) || w.expired(today) {
			continue
		}
		for _, name := range names {
			if strings.EqualFold(w.Resource, name) {
				w.used = true
				return w
			}
		}
	}
	return nil
}

// ruleResource names a rule of a group.
func ruleResource(group, rule string) string {
	if strings.HasPrefix(group, "ruleCollections/") {
		return group + "/rules/" + rule
	}
	return group + "/securityRules/" + rule
}

// marks are the waivers in the descriptions of rules.
func (l *linter) marks() (waivers []Waiver) {
	for _, g := range l.snapshot.Policy.Groups() {
		for i := range g.Rules {
			r := &g.Rules[i]
			parts := strings.Split(r.Description, ignoreMark)
			for _, part := range parts[1:] {
				code, reason, _ := strings.Cut(strings.TrimSpace(part), " ")
				reason = strings.TrimSpace(reason)
				if CheckOf(code) == nil || reason == "" {
					l.findRule(LintMark, g, r, "The mark "+ignoreMark+" "+ruleset.Clip(strings.TrimSpace(part))+" waives nothing: a code of lint and a reason must follow it.")
					continue
				}
				w := Waiver{Code: code, Resource: ruleResource(groupResource(g), r.Name), Reason: reason}
				if l.RulePosition != nil {
					w.File, w.Line, w.Column = l.RulePosition(g, r.Name)
				}
				waivers = append(waivers, w)
			}
		}
	}
	return waivers
}
