package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// diffFlags are the flags of diff.
type diffFlags struct {
	git       string
	failOn    string
	maxStates int
	from      source
}

// The values of --fail-on.
const (
	failWidened  = "widened"
	failNarrowed = "narrowed"
	failAny      = "any"
)

func init() { addVerb(newDiff) }

func newDiff(g *global) *cobra.Command {
	var f diffFlags
	c := &cobra.Command{
		Use:         "diff OLD NEW | --git REF PATH...",
		Short:       "Say what a change of a policy newly allows and denies, for all packets",
		Annotations: map[string]string{moreFormats: outputMarkdown},
		Long: `Say what a change of a policy newly allows and denies, for all packets.

OLD and NEW are files or folders of ARM JSON, templates or Terraform plans. With --git, the files of
PATH... as they are now are compared with those of a commit, branch or tag of the repository.

For every network interface, subnet and unused network security group whose answer changed: the packets,
the rules that decided before and now, and one packet that shows it, which verify confirms. Those that
change alike are told together. Admin rules, network security groups, the platform's services and public
addresses that are closed without a group are judged; routes and translation are not.

With --fail-on the exit code is 1 when packets are newly allowed (widened), newly denied (narrowed) or
either (any), or when something could not be decided.`,
		Example: `  nsgctl diff policy-before policy
  nsgctl diff --git origin/main policy -o markdown --fail-on widened`,
		Args: func(c *cobra.Command, args []string) error { return f.args(c, args) },
		RunE: func(c *cobra.Command, paths []string) error { return f.run(c, g, paths) },
	}
	c.Flags().StringVar(&f.git, "git", "", "compare with the files of this commit, branch or tag")
	c.Flags().StringVar(&f.failOn, "fail-on", "", "exit with 1 when the policy is widened, narrowed, or either (any)")
	c.Flags().IntVar(&f.maxStates, "max-states", 0, "bound on the work for each endpoint and direction (default 500000); what it leaves is listed as not decided")
	c.Flags().StringVar(&f.from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	complete(c, "fail-on", words(failWidened, failNarrowed, failAny))
	f.from.policyFlags(c)
	return c
}

func (f *diffFlags) args(c *cobra.Command, paths []string) error {
	switch {
	case f.failOn != "" && !slices.Contains([]string{failWidened, failNarrowed, failAny}, f.failOn):
		return usageError{fmt.Errorf("diff: --fail-on %q: allowed are %s, %s and %s", f.failOn, failWidened, failNarrowed, failAny)}
	case f.maxStates < 0:
		return usageError{fmt.Errorf("diff: --max-states %d: allowed are numbers above 0", f.maxStates)}
	case f.git != "" && len(paths) == 0:
		return usageError{errors.New("diff: --git needs at least one file or folder")}
	case f.git == "" && len(paths) != 2:
		return usageError{fmt.Errorf("diff: two files or folders are needed, the old and the new one; given are %d", len(paths))}
	}
	return existing(c, "", paths)
}

func (f *diffFlags) run(c *cobra.Command, g *global, paths []string) error {
	old, new, err := f.load(c, paths)
	if err != nil {
		return err
	}
	result := ask.Diff(old.Snapshot, new.Snapshot, f.maxStates)
	if g.output == outputMarkdown {
		_, err = io.WriteString(c.OutOrStdout(), diffMarkdown(result))
	} else {
		err = show(c, g, result, nil, diffTable)
	}
	if err != nil {
		return err
	}
	if f.fails(result) {
		return errNegative
	}
	return nil
}

// load reads both policies.
func (f *diffFlags) load(c *cobra.Command, paths []string) (old, new *inspect.Loaded, err error) {
	if f.git == "" {
		if old, err = f.open(paths[:1]); err != nil {
			return nil, nil, err
		}
		new, err = f.open(paths[1:])
		return old, new, err
	}
	tree, err := checkOut(c.Context(), f.git, paths)
	if err != nil {
		return nil, nil, err
	}
	defer tree.remove()
	if old, err = f.open(tree.paths); err != nil {
		return nil, nil, errors.New(tree.named(err.Error()))
	}
	new, err = f.open(paths)
	return old, new, err
}

func (f *diffFlags) open(paths []string) (*inspect.Loaded, error) {
	from := f.from
	from.policy = paths
	return from.open()
}

// fails reports what --fail-on asks for.
func (f *diffFlags) fails(r *ask.DiffResult) bool {
	kinds := map[string][]string{failWidened: {ask.DiffAllowed}, failNarrowed: {ask.DiffDenied}, failAny: {ask.DiffAllowed, ask.DiffDenied}}[f.failOn]
	found := slices.ContainsFunc(r.Changes, func(c ask.DiffChange) bool { return slices.Contains(kinds, c.Kind) })
	return found || f.failOn != "" && len(r.Undecided) > 0
}

// diffTable prints a block a change.
func diffTable(w io.Writer, r *ask.DiffResult) error {
	for i := range r.Changes {
		c := &r.Changes[i]
		fmt.Fprintf(w, "newly %s, %s of %s\n", c.Kind, strings.ToLower(c.Direction), printable(diffFor(&c.DiffFor)))
		fmt.Fprintf(w, "  was      %s\n  now      %s\n", printable(diffDecision(&c.Old)), printable(diffDecision(&c.New)))
		for _, line := range diffBoxes(c.Boxes) {
			fmt.Fprintf(w, "  packets  %s\n", line)
		}
		if c.More {
			fmt.Fprintln(w, "  packets  and more, which are left out")
		}
		fmt.Fprintf(w, "  such as  %s\n", diffWitness(&c.Witness))
	}
	for i := range r.Undecided {
		u := &r.Undecided[i]
		fmt.Fprintf(w, "not decided, %s of %s\n  rule     %s of %s\n  packets  %s\n", strings.ToLower(u.Direction), printable(diffFor(&u.DiffFor)),
			printable(u.RuleName), printable(u.NetworkSecurityGroup), diffBox(&u.Box))
	}
	for _, rule := range r.RulesWithoutEffect {
		fmt.Fprintf(w, "%s without effect: %s of %s, %s\n", rule.Change, printable(rule.RuleName), printable(rule.NetworkSecurityGroup), strings.ToLower(rule.Direction))
	}
	for _, list := range []struct {
		word  string
		names []string
	}{{"added", r.Added}, {"removed", r.Removed}} {
		if len(list.names) > 0 {
			fmt.Fprintf(w, "%s, compared with nothing: %s\n", list.word, printable(strings.Join(list.names, ", ")))
		}
	}
	_, err := fmt.Fprintln(w, diffSummary(r))
	return err
}

func diffSummary(r *ask.DiffResult) string {
	allowed := 0
	for i := range r.Changes {
		if r.Changes[i].Kind == ask.DiffAllowed {
			allowed++
		}
	}
	text := "no packet is treated differently"
	if n := len(r.Changes); n > 0 {
		text = fmt.Sprintf("%s: %d newly allowed, %d newly denied", plural(n, "change"), allowed, n-allowed)
	}
	if n := len(r.RulesWithoutEffect); n > 0 {
		text += fmt.Sprintf("; %s changed without effect", plural(n, "rule"))
	}
	if n := len(r.Undecided); n > 0 {
		text += fmt.Sprintf("; %d not decided", n)
	}
	return text
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
