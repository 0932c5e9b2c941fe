package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// diffTable prints a block a change.
func diffTable(w io.Writer, r *inspect.RunningDiff) error {
	for i := range r.Changes {
		c := &r.Changes[i]
		fmt.Fprintf(w, "newly %s, %s of %s\n", c.Kind, strings.ToLower(c.Direction), printable(diffFor(&c.DiffFor)))
		if c.Way != "" {
			fmt.Fprintf(w, "  way in   %s\n", printable(c.Way))
		}
		fmt.Fprintf(w, "  was      %s\n  now      %s\n", printable(diffDecision(&c.Old)), printable(diffDecision(&c.New)))
		for _, line := range diffBoxes(c.Boxes) {
			fmt.Fprintf(w, "  packets  %s\n", line)
		}
		if c.More {
			fmt.Fprintln(w, "  packets  and more, which are left out")
		}
		fmt.Fprintf(w, "  such as  %s\n", diffWitness(&c.Witness))
		for _, line := range endToEndLines(c) {
			fmt.Fprintf(w, "  %-7s  %s\n", line.word, printable(line.text))
		}
	}
	for i := range r.Undecided {
		u := &r.Undecided[i]
		fmt.Fprintf(w, "not decided, %s of %s\n  rule     %s of %s\n  packets  %s\n", strings.ToLower(u.Direction), printable(diffFor(&u.DiffFor)),
			printable(u.RuleName), printable(u.NetworkSecurityGroup), undecidedBox(u))
	}
	for i := range r.Open {
		fmt.Fprintf(w, "not known, in the %s policy: %s\n", r.Open[i].Policy, printable(diffOpen(&r.Open[i])))
	}
	for _, rule := range r.RulesWithoutEffect {
		fmt.Fprintf(w, "%s without effect: %s of %s, %s\n", rule.Change, printable(rule.RuleName), printable(rule.NetworkSecurityGroup), strings.ToLower(rule.Direction))
	}
	for _, line := range diffAlone(r.DiffResult) {
		fmt.Fprintln(w, printable(line))
	}
	if r.Attachments != nil {
		fmt.Fprintf(w, "attachments: %s\n", printable(r.Attachments.String()))
	}
	fmt.Fprintln(w, diffSummary(r.DiffResult))
	if r.MoreChanges > 0 {
		fmt.Fprintf(w, "and %s more, which nsgctl diff --running lists\n", plural(r.MoreChanges, "change"))
	}
	return cutTable(w, r.LiveFlows)
}

// cutTable prints the live flows that would end; nil: no daemon was asked.
func cutTable(w io.Writer, flows *inspect.LiveFlows) error {
	if flows == nil {
		return nil
	}
	fmt.Fprintln(w, cutSummary(flows))
	if len(flows.List) == 0 {
		return nil
	}
	table := newGrid(w, "PROTOCOL", "SOURCE", "DESTINATION", "STATE", "BYTES", "REASON", "RULE")
	for i := range flows.List {
		f := &flows.List[i]
		rule := f.RuleName
		if rule != "" {
			rule += " of " + f.NetworkSecurityGroup
		}
		table.row(f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort), f.State,
			f.BytesSent+f.BytesReceived, f.Reason, rule)
	}
	return table.flush()
}

func cutSummary(flows *inspect.LiveFlows) string {
	text := fmt.Sprintf("%d of %s would end", flows.Cut, plural(flows.Live, "live flow"))
	if flows.Truncated {
		text += fmt.Sprintf("; %d are listed", len(flows.List))
	}
	return text
}

func diffSummary(r *ask.DiffResult) string {
	allowed := 0
	for i := range r.Changes {
		if r.Changes[i].Kind == ask.DiffAllowed {
			allowed++
		}
	}
	text := "the rules treat no packet differently"
	if n := len(r.Changes); n > 0 {
		text = fmt.Sprintf("%s: %d newly allowed, %d newly denied", plural(n, "change"), allowed, n-allowed)
	}
	if n := len(r.RulesWithoutEffect); n > 0 {
		text += fmt.Sprintf("; %s changed without effect", plural(n, "rule"))
	}
	if n := len(r.Undecided); n > 0 {
		text += fmt.Sprintf("; %d not decided", n)
	}
	if n := len(r.Open); n > 0 {
		text += fmt.Sprintf("; %s not known", plural(n, "value"))
	}
	if n := len(r.Added) + len(r.Removed); n > 0 {
		text += fmt.Sprintf("; %s in one policy alone", plural(n, "end"))
	}
	return text
}

// diffAlone are the ends that one policy alone has: what they may send and receive is in no change.
func diffAlone(r *ask.DiffResult) (lines []string) {
	if len(r.Added) > 0 {
		lines = append(lines, "added, compared with nothing: "+strings.Join(r.Added, ", "))
	}
	if len(r.Removed) > 0 {
		lines = append(lines, "removed, compared with nothing: "+strings.Join(r.Removed, ", "))
	}
	return lines
}

// endToEndLine is a line about whole paths.
type endToEndLine struct{ word, text string }

// mostPaths is how many lines of a kind are shown: json has all of them.
const mostPaths = 3

// endToEndLines tell which packets of a change get through to the other end, and which do not.
func endToEndLines(c *ask.DiffChange) (lines []endToEndLine) {
	e := c.EndToEnd
	if e == nil {
		return nil
	}
	changed, unchanged := "passes", "blocked"
	if c.Kind == ask.DiffDenied {
		changed, unchanged = "passed", "was blocked"
	}
	for _, of := range []struct {
		word  string
		paths []ask.DiffPath
	}{{changed, e.Changed}, {unchanged, e.Unchanged}} {
		for i := range of.paths[:min(len(of.paths), mostPaths)] {
			p := &of.paths[i]
			text := fmt.Sprintf("%s to %s: %s", someOf(p.From), someOf(p.To), strings.Join(pathProtocols(p.Boxes), "; "))
			if p.By != nil {
				text += ": " + diffDecision(p.By)
			}
			lines = append(lines, endToEndLine{of.word, text})
		}
		if n := len(of.paths) - mostPaths; n > 0 {
			lines = append(lines, endToEndLine{of.word, fmt.Sprintf("%d more", n)})
		}
	}
	switch {
	case e.Undecided:
		lines = append(lines, endToEndLine{"unknown", "of some packets nothing is known for the whole path"})
	case e.More:
		lines = append(lines, endToEndLine{"unknown", "not all ends and packets were asked about"})
	}
	return lines
}

// pathProtocols are the protocols and ports of boxes, each once.
func pathProtocols(boxes []ask.DiffBox) (list []string) {
	for i := range boxes {
		text := boxes[i].Protocol
		if some(boxes[i].DestinationPorts) {
			text += " port " + someOf(boxes[i].DestinationPorts)
		}
		if !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// diffOpen names a value that is not known.
func diffOpen(o *ask.DiffOpen) string {
	place := o.Resource
	for _, part := range []string{o.Rule, o.Field} {
		if part != "" {
			place += ", " + part
		}
	}
	return place + ": " + o.Message
}

func undecidedBox(u *ask.DiffUndecided) string {
	if u.Open {
		return "all: the rule is not known"
	}
	return diffBox(u.Box)
}

func diffFor(f *ask.DiffFor) string {
	var parts []string
	for _, list := range []struct {
		word  string
		names []string
	}{{"", f.NetworkInterfaces}, {"the rest of ", f.Subnets}, {"unused ", f.NetworkSecurityGroups}} {
		if len(list.names) > 0 {
			parts = append(parts, list.word+strings.Join(list.names, ", "))
		}
	}
	return strings.Join(parts, " and ")
}

// diffOf is who a change is for, and by which way from the internet where it is about one.
func diffOf(c *ask.DiffChange) string {
	if c.Way == "" {
		return diffFor(&c.DiffFor)
	}
	return diffFor(&c.DiffFor) + " by " + c.Way
}

func diffDecision(d *ask.DiffDecision) string {
	if d.RuleName != "" {
		return fmt.Sprintf("%s by %s of %s", d.Access, d.RuleName, d.NetworkSecurityGroup)
	}
	return d.Access + ": " + d.Reason
}

// diffBoxes are boxes in lines. Protocols with the same addresses and ports share one.
func diffBoxes(boxes []ask.DiffBox) []string {
	var texts, protocols []string
	for i := range boxes {
		text := boxText(&boxes[i])
		if at := slices.Index(texts, text); at >= 0 {
			protocols[at] += ", " + boxes[i].Protocol
			continue
		}
		texts, protocols = append(texts, text), append(protocols, boxes[i].Protocol)
	}
	for i := range texts {
		texts[i] = protocols[i] + texts[i]
	}
	return texts
}

func diffBox(b *ask.DiffBox) string { return b.Protocol + boxText(b) }

// boxText is a box without its protocol. Long lists are cut: json shows all of them.
func boxText(b *ask.DiffBox) string {
	text := " from " + b.SourceText
	if some(b.SourcePorts) {
		text += " port " + someOf(b.SourcePorts)
	}
	text += " to " + b.DestinationText
	if some(b.DestinationPorts) {
		text += " port " + someOf(b.DestinationPorts)
	}
	if len(b.ICMPTypes) > 0 && b.ICMPTypes[0] != "0-255" {
		text += " type " + someOf(b.ICMPTypes)
	}
	return text
}

// some reports ports that are not all ports.
func some(ports []string) bool { return len(ports) > 0 && ports[0] != "0-65535" }

func someOf(list []string) string {
	const most = 4
	if len(list) <= most {
		return strings.Join(list, ",")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ","), len(list)-most)
}

func diffWitness(w *ask.DiffWitness) string {
	end := func(address string, port *uint16) string {
		switch {
		case port == nil:
			return address
		case strings.Contains(address, ":"):
			return fmt.Sprintf("[%s]:%d", address, *port)
		}
		return fmt.Sprintf("%s:%d", address, *port)
	}
	text := fmt.Sprintf("%s %s -> %s", w.Protocol, end(w.Source, w.SourcePort), end(w.Destination, w.DestinationPort))
	if w.ICMPType != nil {
		text += fmt.Sprintf(" type %d", *w.ICMPType)
	}
	return text
}
