package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// mostShown is how many changes a comment shows before it folds the others away.
const mostShown = 10

// diffMarkdown writes a pull request's comment: one row a change, all packets folded.
func diffMarkdown(w io.Writer, r *inspect.RunningDiff) error {
	title := fmt.Sprintf("### Network security groups: %s\n", diffSummary(r.DiffResult))
	if r.LiveFlows != nil {
		title += fmt.Sprintf("\n%s.\n", cutSummary(r.LiveFlows))
	}
	shown := min(len(r.Changes), mostShown)
	rest := r.Changes[shown:]
	sections := []report.Section{
		{Head: "\n" + diffHead, Blocks: diffRows(r.Changes[:shown]), Of: "changes"},
		{Head: fmt.Sprintf("\n<details><summary>%s</summary>\n\n%s", plural(len(rest), "further change"), diffHead), Blocks: diffRows(rest), Foot: "\n</details>\n", Of: "further changes"},
		{Head: "\n<details><summary>All packets</summary>\n\n", Foot: "\n</details>\n", Of: "changes with all their packets"},
		{Head: "\n", Of: "lines about the rest"},
	}
	for i := range r.Changes {
		sections[2].Blocks = append(sections[2].Blocks, diffPackets(i+1, &r.Changes[i]))
	}
	line := func(format string, args ...any) {
		sections[3].Blocks = append(sections[3].Blocks, fmt.Sprintf("- "+format+"\n", args...))
	}
	for i := range r.Undecided {
		u := &r.Undecided[i]
		line("**not decided**, %s of %s: what %s of %s matches: %s", strings.ToLower(u.Direction), markdown(diffFor(&u.DiffFor)),
			markdown(u.RuleName), markdown(u.NetworkSecurityGroup), markdown(undecidedBox(u)))
	}
	for i := range r.Open {
		line("**not known** in the %s policy: %s", r.Open[i].Policy, markdown(diffOpen(&r.Open[i])))
	}
	for _, rule := range r.RulesWithoutEffect {
		line("%s without effect: %s of %s, %s", rule.Change, markdown(rule.RuleName), markdown(rule.NetworkSecurityGroup), strings.ToLower(rule.Direction))
	}
	for _, text := range diffAlone(r.DiffResult) {
		line("%s", markdown(text))
	}
	return report.WriteComment(w, title, "diff", sections)
}

const diffHead = "| newly | direction | of | packets | was | now | such as |\n|---|---|---|---|---|---|---|\n"

func diffRows(changes []ask.DiffChange) (rows []string) {
	for i := range changes {
		c := &changes[i]
		lines := diffBoxes(c.Boxes)
		packets := lines[0]
		if n := len(lines) - 1; n > 0 {
			packets += fmt.Sprintf(" and %d more", n)
		}
		rows = append(rows, fmt.Sprintf("| **%s** | %s | %s | %s | %s | %s | %s |\n", c.Kind, strings.ToLower(c.Direction), markdown(diffOf(c)), markdown(packets),
			markdown(diffDecision(&c.Old)), markdown(diffDecision(&c.New)), markdown(diffWitness(&c.Witness))))
	}
	return rows
}

// diffPackets are all packets of a change.
func diffPackets(number int, c *ask.DiffChange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d. newly %s, %s of %s\n", number, c.Kind, strings.ToLower(c.Direction), markdown(diffFor(&c.DiffFor)))
	for _, line := range diffBoxes(c.Boxes) {
		fmt.Fprintf(&b, "   - %s\n", markdown(line))
	}
	if c.More {
		b.WriteString("   - and more, which are left out\n")
	}
	for _, line := range endToEndLines(c) {
		fmt.Fprintf(&b, "   - end to end, %s: %s\n", line.word, markdown(line.text))
	}
	return b.String()
}

func markdown(text string) string { return report.EscapeMarkdown(text) }
