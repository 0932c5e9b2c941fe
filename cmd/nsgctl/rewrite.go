package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/export"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/spf13/cobra"
)

// documentFormats are those of verbs that write network security groups.
var documentFormats = []string{string(export.ARM), string(export.Bicep), string(export.Terraform)}

// rewriting are the flags of verbs that write network security groups anew.
type rewriting struct {
	from   source
	groups []string
}

func (r *rewriting) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&r.groups, "nsg", nil, "network security group that gets new rules, by name or resource id; may be repeated (default all)")
	c.Flags().StringVar(&r.from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	r.from.policyFlags(c)
	completeNames(c, &r.from, &global{})
}

// format is the document's, where one was asked for: ARM when nothing was.
func (r *rewriting) format(c *cobra.Command, g *global) export.Format {
	switch {
	case !c.Flags().Changed("output") && g.query == "":
		return export.ARM
	case slices.Contains(documentFormats, g.output):
		return export.Format(g.output)
	}
	return ""
}

// chosen are the groups of --nsg; nil: all.
func (r *rewriting) chosen(set *policy.Set) (list []*ruleset.NSG, err error) {
	for _, name := range r.groups {
		g, err := set.NetworkSecurityGroup(name)
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

// print writes the document, and what people read of the answer beside it to standard error; or the answer alone.
func (r *rewriting) print(c *cobra.Command, g *global, document []byte, answer any, table func(io.Writer) error) error {
	switch format := r.format(c, g); {
	case format != "":
		if _, err := c.OutOrStdout().Write(document); err != nil {
			return err
		}
		return table(c.ErrOrStderr())
	case g.output == outputTable:
		return table(c.OutOrStdout())
	}
	return g.answer(c.OutOrStdout()).Encode(answer)
}

// document is groups in the format that was asked for.
func (r *rewriting) document(c *cobra.Command, g *global, groups []*ruleset.NSG) ([]byte, error) {
	format := r.format(c, g)
	if format == "" {
		return nil, nil
	}
	var b bytes.Buffer
	err := export.Write(&b, format, groups)
	return b.Bytes(), err
}

// after is the policy with groups in the place of its own, as the reader of ARM understands them when they are written. tags
// are those that they may name beside the policy's.
func (r *rewriting) after(groups []*ruleset.NSG, tags map[string][]netip.Prefix) (*inspect.Loaded, error) {
	written, err := readBack(groups)
	if err != nil {
		return nil, err
	}
	options, err := r.from.topology()
	if err != nil {
		return nil, err
	}
	files := r.from.files()
	if r.from.emptyTags {
		files.KeepUnknownTags()
	}
	return files.OpenChanged(options, func(set *policy.Set) error {
		for i, g := range groups {
			at := slices.IndexFunc(set.NetworkSecurityGroups, func(o *ruleset.NSG) bool { return strings.EqualFold(o.ID, g.ID) })
			if at < 0 {
				return fmt.Errorf("network security group %s is not there any more", g.ID)
			}
			set.NetworkSecurityGroups[at].Rules = written[i].Rules
		}
		for tag, prefixes := range tags {
			if _, known := set.ServiceTags[tag]; !known && names(groups, tag) {
				if set.ServiceTags == nil {
					set.ServiceTags = map[string][]netip.Prefix{}
				}
				set.ServiceTags[tag] = prefixes
			}
		}
		return nil
	})
}

// names reports that rules of groups name a tag.
func names(groups []*ruleset.NSG, tag string) bool {
	return slices.ContainsFunc(groups, func(g *ruleset.NSG) bool {
		return slices.ContainsFunc(g.Rules, func(r ruleset.Rule) bool { return r.Source.Tag == tag || r.Destination.Tag == tag })
	})
}

// readBack writes groups as templates and reads these, as Azure would. Rules may name application security groups, which stand beside.
func readBack(groups []*ruleset.NSG) (read []*ruleset.NSG, err error) {
	folder, err := os.MkdirTemp("", "nsgctl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	for i, g := range groups {
		place := filepath.Join(folder, fmt.Sprint(i))
		if err := os.Mkdir(place, 0o700); err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := export.Write(&b, export.ARM, []*ruleset.NSG{g}); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(place, "nsg.json"), b.Bytes(), 0o600); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(place, "asg.json"), export.ApplicationSecurityGroups(g), 0o600); err != nil {
			return nil, err
		}
		d := arm.Load(place)
		if faults := slices.Concat(d.Faults, d.Unresolved); len(faults) > 0 || len(d.Set.NetworkSecurityGroups) != 1 {
			return nil, fmt.Errorf("the rules of %s are written in a way that can't be read: %w", g.Name, faults)
		}
		read = append(read, d.Set.NetworkSecurityGroups[0])
	}
	return read, nil
}
