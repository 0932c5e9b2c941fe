package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

func init() { addVerb(newTags) }

func newTags(g *global) *cobra.Command {
	c := &cobra.Command{
		Use:   "tags",
		Short: "Show service tags, and what a new service tag file changes",
		Example: `  nsgctl tags list --service-tags ServiceTags_Public.json
  nsgctl tags show VirtualNetwork --policy policy --nic vm1-nic`,
	}
	c.AddCommand(newTagsList(g), newTagsShow(g), newTagsDiff(g))
	needCommand(c)
	return c
}

// answerTags is answer for verbs that need no policy when they have a service tag file.
func answerTags[T any](s *source, g *global, daemon func(*control.Client) (T, error), files func(*inspect.Loaded) (T, error)) (T, error) {
	if s.serviceTags != "" {
		return answerFrom(s, files)
	}
	return answer(s, g, daemon, files)
}

func (s *source) tagFlags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.policy, "policy", nil, "answer from this file or folder of ARM JSON instead of the daemon; may be given several times")
	c.Flags().StringVar(&s.serviceTags, "service-tags", "", "answer from this service tag file of Microsoft's instead of the daemon's")
	s.policyFlags(c)
}

func newTagsList(g *global) *cobra.Command {
	var from source
	c := &cobra.Command{
		Use:     "list [NAME] [--service-tags FILE] [--policy PATH]",
		Short:   "List the tags that rules can name, all or those that begin with NAME, with the numbers of their prefixes and rules",
		Example: `  nsgctl tags list Storage --service-tags ServiceTags_Public.json`,
		Args:    atMostOne("tags list", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := answerTags(&from, g,
				func(d *control.Client) (*inspect.TagList, error) { return d.Tags(c.Context()) },
				func(p *inspect.Loaded) (*inspect.TagList, error) { return p.Tags(), nil })
			if err == nil && len(args) > 0 {
				list.Tags = beginningWith(list.Tags, args[0])
			}
			return show(c, g, list, err, tagsTable)
		},
	}
	from.tagFlags(c)
	return c
}

func beginningWith(tags []inspect.TagSummary, name string) []inspect.TagSummary {
	kept := []inspect.TagSummary{}
	for _, t := range tags {
		if len(t.Name) >= len(name) && strings.EqualFold(t.Name[:len(name)], name) {
			kept = append(kept, t)
		}
	}
	return kept
}

func tagsTable(w io.Writer, list *inspect.TagList) error {
	if f := list.ServiceTags; f != nil {
		fmt.Fprintf(w, "%s\n", edition(f))
	}
	table := newGrid(w, "TAG", "CHANGE", "REGION", "SERVICE", "IPV4", "IPV6", "RULES")
	for i := range list.Tags {
		t := &list.Tags[i]
		v4, v6 := any(t.IPv4), any(t.IPv6)
		if t.Kind == inspect.BuiltInKind {
			v4, v6 = "", ""
		}
		table.row(t.Name, t.ChangeNumber, printable(t.Region), printable(t.SystemService), v4, v6, t.Rules)
	}
	return table.flush()
}

// edition is a service tag file in words.
func edition(f *inspect.ServiceTags) string {
	number := ""
	if f.ChangeNumber != "" {
		number = "change number " + f.ChangeNumber + ", "
	}
	return fmt.Sprintf("%s: %s%s", f.File, number, plural(f.Tags, "tag"))
}

func newTagsShow(g *global) *cobra.Command {
	var from source
	var q inspect.TagQuestion
	c := &cobra.Command{
		Use:   "show TAG [--service-tags FILE] [--policy PATH] [--subnet NAME | --nic NAME]",
		Short: "Show what a tag stands for; VirtualNetwork and Internet for a subnet",
		Example: `  nsgctl tags show Storage.WestEurope --service-tags ServiceTags_Public.json
  nsgctl tags show VirtualNetwork --policy policy --subnet vnet1/Subnet1`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("tags show: the name of a tag is needed")}
			}
			return atMostOne("tags show", "TAG")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			q.Name = args[0]
			tag, err := answerTags(&from, g,
				func(d *control.Client) (*inspect.TagDetails, error) { return d.Tag(c.Context(), q) },
				func(p *inspect.Loaded) (*inspect.TagDetails, error) { return p.Tag(q) })
			return show(c, g, tag, err, tagTable)
		},
	}
	c.Flags().StringVar(&q.Subnet, "subnet", "", "as this subnet sees it, by name, network/name or resource id")
	c.Flags().StringVar(&q.NetworkInterface, "nic", "", "as the subnet of this network interface sees it, by name or resource id")
	from.tagFlags(c)
	completeNames(c, &from, g)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return tagNames(c, &from, g, begun), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// tagNames are the tags for a completion, which is silent about errors.
func tagNames(c *cobra.Command, from *source, g *global, begun string) (names []string) {
	list, err := answerTags(from, g,
		func(d *control.Client) (*inspect.TagList, error) { return d.Tags(c.Context()) },
		func(p *inspect.Loaded) (*inspect.TagList, error) { return p.Tags(), nil })
	if err != nil {
		return nil
	}
	for _, t := range beginningWith(list.Tags, begun) {
		names = append(names, t.Name)
	}
	return names
}

func tagTable(w io.Writer, t *inspect.TagDetails) error {
	facts := newGrid(w)
	facts.row("tag", t.Name)
	if t.Kind == inspect.BuiltInKind {
		facts.row("kind", "built in")
	}
	for _, fact := range []struct{ name, value string }{
		{"subnet", lastName(t.Subnet)}, {"change number", t.ChangeNumber}, {"region", t.Region}, {"system service", t.SystemService},
		{"network features", strings.Join(t.NetworkFeatures, " ")},
	} {
		if fact.value != "" {
			facts.row(fact.name, printable(fact.value))
		}
	}
	facts.row("rules", t.Rules)
	facts.row("prefixes", fmt.Sprintf("%d IPv4, %d IPv6", t.IPv4, t.IPv6))
	if err := facts.flush(); err != nil {
		return err
	}
	for _, p := range t.Prefixes {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	return nil
}

func newTagsDiff(g *global) *cobra.Command {
	var policy []string
	var deployment arm.Deployment
	c := &cobra.Command{
		Use:   "diff OLD NEW [--policy PATH]",
		Short: "Say what a new service tag file changes; with a policy, for its rules only",
		Long: `Say what a new service tag file changes: tags and prefixes that come and go. With a
policy, only what its rules name, and what changes for each rule. Exit code 1 when there
are differences.`,
		Example: `  nsgctl tags diff old.json new.json
  nsgctl tags diff old.json new.json --policy policy`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("tags diff: two service tag files are needed: OLD and NEW")}
			}
			return existing(c, "", args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			deployment.Context = c.Context()
			changes, err := inspect.DiffServiceTags(args[0], args[1], deployment, policy...)
			err = show(c, g, changes, err, func(w io.Writer, c *inspect.TagChanges) error { return tagChangesTable(w, c, len(policy) > 0) })
			if err == nil && changes.Any() {
				err = errNegative
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&policy, "policy", nil, "file or folder of ARM JSON whose rules the question is about; may be given several times")
	addDeployment(c, &deployment)
	return c
}

func tagChangesTable(w io.Writer, c *inspect.TagChanges, policy bool) error {
	fmt.Fprintf(w, "old %s\nnew %s\n", edition(&c.Old), edition(&c.New))
	if !c.Any() {
		_, err := fmt.Fprintln(w, "no differences")
		return err
	}
	if policy {
		return ruleChanges(w, c)
	}
	for _, t := range c.Removed {
		fmt.Fprintf(w, "- tag %s, %s\n", t.Name, prefixCount(t.Prefixes))
	}
	for _, t := range c.Added {
		fmt.Fprintf(w, "+ tag %s, %s\n", t.Name, prefixCount(t.Prefixes))
	}
	for i := range c.Changed {
		t := &c.Changed[i]
		fmt.Fprintf(w, "%s: +%d -%d prefixes\n", t.Name, len(t.AddedPrefixes), len(t.RemovedPrefixes))
		if err := prefixChanges(w, t); err != nil {
			return err
		}
	}
	return nil
}

func prefixCount(n int) string {
	if n == 1 {
		return "1 prefix"
	}
	return fmt.Sprintf("%d prefixes", n)
}

// ruleChanges prints what changes for each rule, and each tag's prefixes once.
func ruleChanges(w io.Writer, c *inspect.TagChanges) error {
	for i := range c.Rules {
		fmt.Fprintln(w, printable(c.Rules[i].String()))
	}
	for i := range c.Changed {
		fmt.Fprintf(w, "%s:\n", c.Changed[i].Name)
		if err := prefixChanges(w, &c.Changed[i]); err != nil {
			return err
		}
	}
	return nil
}

func prefixChanges(w io.Writer, t *inspect.TagChange) error {
	for _, side := range []struct {
		sign     string
		prefixes []string
	}{{"-", t.RemovedPrefixes}, {"+", t.AddedPrefixes}} {
		for _, p := range side.prefixes {
			if _, err := fmt.Fprintf(w, "  %s %s\n", side.sign, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// atMostOne refuses more than one argument as wrong use.
func atMostOne(verb, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("%s: unexpected argument %q: at most one %s", verb, args[1], what)}
		}
		return nil
	}
}
