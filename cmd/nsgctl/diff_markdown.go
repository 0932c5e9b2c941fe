package main

import (
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// mostShown is how many changes a comment shows before it folds the others away.
const mostShown = 10

// diffMarkdown is a pull request's comment: one row a change, all packets folded.
func diffMarkdown(r *inspect.RunningDiff) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Network security groups: %s\n", diffSummary(r.DiffResult))
	if r.LiveFlows != nil {
		fmt.Fprintf(&b, "\n%s.\n", cutSummary(r.LiveFlows))
	}
	if len(r.Changes) > 0 {
		shown := min(len(r.Changes), mostShown)
		b.WriteString("\n")
		diffRows(&b, r.Changes[:shown])
		if rest := r.Changes[shown:]; len(rest) > 0 {
			fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n\n", plural(len(rest), "further change"))
			diffRows(&b, rest)
			b.WriteString("\n</details>\n")
		}
		b.WriteString("\n<details><summary>All packets</summary>\n\n")
		for i := range r.Changes {
			c := &r.Changes[i]
			fmt.Fprintf(&b, "%d. newly %s, %s of %s\n", i+1, c.Kind, strings.ToLower(c.Direction), markdown(diffFor(&c.DiffFor)))
			for _, line := range diffBoxes(c.Boxes) {
				fmt.Fprintf(&b, "   - %s\n", markdown(line))
			}
			if c.More {
				b.WriteString("   - and more, which are left out\n")
			}
			for _, line := range endToEndLines(c) {
				fmt.Fprintf(&b, "   - end to end, %s: %s\n", line.word, markdown(line.text))
			}
		}
		b.WriteString("\n</details>\n")
	}
	for i := range r.Undecided {
		u := &r.Undecided[i]
		fmt.Fprintf(&b, "\n- **not decided**, %s of %s: what %s of %s matches: %s", strings.ToLower(u.Direction), markdown(diffFor(&u.DiffFor)),
			markdown(u.RuleName), markdown(u.NetworkSecurityGroup), markdown(undecidedBox(u)))
	}
	for i := range r.Open {
		fmt.Fprintf(&b, "\n- **not known** in the %s policy: %s", r.Open[i].Policy, markdown(diffOpen(&r.Open[i])))
	}
	for _, rule := range r.RulesWithoutEffect {
		fmt.Fprintf(&b, "\n- %s without effect: %s of %s, %s", rule.Change, markdown(rule.RuleName), markdown(rule.NetworkSecurityGroup), strings.ToLower(rule.Direction))
	}
	alone := diffAlone(r.DiffResult)
	for _, line := range alone {
		fmt.Fprintf(&b, "\n- %s", markdown(line))
	}
	if len(r.Undecided)+len(r.Open)+len(r.RulesWithoutEffect)+len(alone) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

func diffRows(b *strings.Builder, changes []ask.DiffChange) {
	b.WriteString("| newly | direction | of | packets | was | now | such as |\n|---|---|---|---|---|---|---|\n")
	for i := range changes {
		c := &changes[i]
		lines := diffBoxes(c.Boxes)
		packets := lines[0]
		if n := len(lines) - 1; n > 0 {
			packets += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(b, "| **%s** | %s | %s | %s | %s | %s | %s |\n", c.Kind, strings.ToLower(c.Direction), markdown(diffOf(c)), markdown(packets),
			markdown(diffDecision(&c.Old)), markdown(diffDecision(&c.New)), markdown(diffWitness(&c.Witness)))
	}
}

func markdown(text string) string { return report.EscapeMarkdown(text) }
