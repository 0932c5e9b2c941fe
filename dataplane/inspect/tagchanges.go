package inspect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// TagChanges is what a new service tag file changes. Names are compared without case.
type TagChanges struct {
	Old ServiceTags `json:"old"`
	New ServiceTags `json:"new"`
	// Added, Removed and Changed are tags, by name. With a policy they are only those that its
	// rules name. They are never null.
	Added   []TagSize   `json:"added"`
	Removed []TagSize   `json:"removed"`
	Changed []TagChange `json:"changed"`
	// Rules are the rules whose addresses change, in the policy's order; absent without a policy.
	Rules []RuleTagChange `json:"rules,omitempty"`
}

// TagSize is a tag that only one of two files has.
type TagSize struct {
	Name     string `json:"name"`
	Prefixes int    `json:"prefixes"`
}

// TagChange is a tag with other prefixes than before.
type TagChange struct {
	Name            string   `json:"name"`
	AddedPrefixes   []string `json:"addedPrefixes"`
	RemovedPrefixes []string `json:"removedPrefixes"`
}

// RuleTagChange is one side of a rule whose tag has other prefixes than before. A tag that
// is gone has lost all its prefixes, and a reload refuses the new file.
type RuleTagChange struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Direction            string `json:"direction"`
	Rule                 string `json:"rule"`
	Field                string `json:"field"` // sourceAddressPrefix or destinationAddressPrefix
	Tag                  string `json:"tag"`
	Added                int    `json:"added"`
	Removed              int    `json:"removed"`
	Gone                 bool   `json:"gone,omitempty"`
}

// String is the change in words.
func (r *RuleTagChange) String() string {
	end := ""
	if r.Gone {
		end = ", the tag is gone"
	}
	return fmt.Sprintf("rule %s of NSG %s: %s: +%d -%d prefixes%s", r.Rule, r.NetworkSecurityGroup, r.Tag, r.Added, r.Removed, end)
}

// Any reports a difference.
func (c *TagChanges) Any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// DiffServiceTags compares two service tag files. With paths of a policy it looks only at
// the tags that its rules name; d is for the policy's templates.
func DiffServiceTags(oldFile, newFile string, d arm.Deployment, policy ...string) (*TagChanges, error) {
	before, err := arm.ReadServiceTags(oldFile)
	if err != nil {
		return nil, err
	}
	after, err := arm.ReadServiceTags(newFile)
	if err != nil {
		return nil, err
	}
	changes := &TagChanges{Old: *editionOf(before), New: *editionOf(after)}
	oldTags, newTags := wholeTags(before), wholeTags(after)
	if len(policy) == 0 {
		changes.compare(oldTags, newTags)
		return changes, nil
	}
	reader := arm.NewReader("", policy...)
	reader.SetDeployment(d)
	documents := reader.Read()
	if len(documents.Faults) > 0 || len(documents.Unresolved) > 0 && !d.Partial {
		return nil, &PolicyError{Faults: documents.Faults, Unresolved: documents.Unresolved}
	}
	used := map[string]bool{}
	eachTag(documents.Set, func(_ *ruleset.NSG, _ *ruleset.Rule, _, tag string) { used[strings.ToLower(tag)] = true })
	for _, tags := range []map[string]tagContent{oldTags, newTags} {
		for key := range tags {
			if !used[key] {
				delete(tags, key)
			}
		}
	}
	changes.compare(oldTags, newTags)
	changes.findRules(documents.Set)
	return changes, nil
}

// tagContent is a tag with its name as the file spells it.
type tagContent struct {
	name     string
	prefixes []netip.Prefix
}

// wholeTags are the tags of a file that was read whole, by name in lower case.
func wholeTags(file *arm.ServiceTags) map[string]tagContent {
	tags := map[string]tagContent{}
	for _, f := range file.All() {
		tags[strings.ToLower(f.Name)] = tagContent{f.Name, file.Prefixes(f.Name)}
	}
	return tags
}

// usedTags are those of a policy, by name in lower case.
func usedTags(set *policy.Set) map[string]tagContent {
	tags := map[string]tagContent{}
	for name, prefixes := range set.ServiceTags {
		tags[strings.ToLower(name)] = tagContent{name, prefixes}
	}
	return tags
}

func (c *TagChanges) compare(before, after map[string]tagContent) {
	c.Added, c.Removed, c.Changed = []TagSize{}, []TagSize{}, []TagChange{}
	for key, now := range after {
		was, known := before[key]
		if !known {
			c.Added = append(c.Added, TagSize{now.name, len(now.prefixes)})
			continue
		}
		added, removed := missing(now.prefixes, was.prefixes), missing(was.prefixes, now.prefixes)
		if len(added)+len(removed) > 0 {
			c.Changed = append(c.Changed, TagChange{now.name, added, removed})
		}
	}
	for key, was := range before {
		if _, known := after[key]; !known {
			c.Removed = append(c.Removed, TagSize{was.name, len(was.prefixes)})
		}
	}
	bySize := func(a, b TagSize) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(c.Added, bySize)
	slices.SortFunc(c.Removed, bySize)
	slices.SortFunc(c.Changed, func(a, b TagChange) int { return cmp.Compare(a.Name, b.Name) })
}

// missing are the prefixes of a list that another one lacks, in the list's order.
func missing(list, from []netip.Prefix) []string {
	have := make(map[netip.Prefix]bool, len(from))
	for _, p := range from {
		have[p] = true
	}
	texts := []string{}
	for _, p := range list {
		if !have[p] {
			have[p] = true
			texts = append(texts, p.String())
		}
	}
	return texts
}

// findRules lists the rules whose tags changed.
func (c *TagChanges) findRules(set *policy.Set) {
	changed, removed := map[string]*TagChange{}, map[string]*TagSize{}
	for i := range c.Changed {
		changed[strings.ToLower(c.Changed[i].Name)] = &c.Changed[i]
	}
	for i := range c.Removed {
		removed[strings.ToLower(c.Removed[i].Name)] = &c.Removed[i]
	}
	labels := topology.GroupLabels(set)
	eachTag(set, func(g *ruleset.NSG, r *ruleset.Rule, field, tag string) {
		line := RuleTagChange{NetworkSecurityGroup: labels[g], Direction: r.Direction.String(), Rule: r.Name, Field: field, Tag: tag}
		key := strings.ToLower(tag)
		if t := changed[key]; t != nil {
			line.Tag, line.Added, line.Removed = t.Name, len(t.AddedPrefixes), len(t.RemovedPrefixes)
		} else if t := removed[key]; t != nil {
			line.Tag, line.Removed, line.Gone = t.Name, t.Prefixes, true
		} else {
			return
		}
		c.Rules = append(c.Rules, line)
	})
}

// summary are the first rules' changes, for a line of the log.
func (c *TagChanges) summary() string {
	const most = 10
	var texts []string
	for i := range c.Rules[:min(len(c.Rules), most)] {
		texts = append(texts, c.Rules[i].String())
	}
	if more := len(c.Rules) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// eachTag calls f for every side of a user rule that names a service tag, in the policy's order.
func eachTag(set *policy.Set, f func(g *ruleset.NSG, r *ruleset.Rule, field, tag string)) {
	for _, g := range set.Groups() {
		fields := [2]string{"sourceAddressPrefix", "destinationAddressPrefix"}
		if g.Admin {
			fields = [2]string{"sources", "destinations"}
		}
		for i := range g.Rules {
			r := &g.Rules[i]
			for side, peer := range []*ruleset.Peer{&r.Source, &r.Destination} {
				peer.Each(func(p *ruleset.Peer) {
					if p.Tag != "" && !ruleset.IsBuiltInTag(p.Tag) {
						f(g, r, fields[side], p.Tag)
					}
				})
			}
		}
	}
}

// reloadChanges is what a reload with another service tag file changes for rules that named
// the tag before; nil when nothing changed.
func reloadChanges(before, after *policy.Set, oldFile, newFile *ServiceTags) *TagChanges {
	if oldFile == nil || newFile == nil {
		return nil
	}
	oldTags, newTags := usedTags(before), usedTags(after)
	for key, now := range newTags {
		was, known := oldTags[key]
		if !known { // only a new rule names it
			delete(newTags, key)
		} else if slices.Equal(was.prefixes, now.prefixes) {
			delete(newTags, key)
			delete(oldTags, key)
		}
	}
	for key := range oldTags {
		if _, known := newTags[key]; !known {
			delete(oldTags, key) // its rule is gone; the file may still have the tag
		}
	}
	c := &TagChanges{Old: *oldFile, New: *newFile}
	c.compare(oldTags, newTags)
	if !c.Any() {
		return nil
	}
	c.findRules(after)
	return c
}
