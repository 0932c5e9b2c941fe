package arm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
	"github.com/nsgd/nsgd/ruleset/arm/template"
)

// CodeDeletedByUpdate is in Documents.Warnings. It is ours: Azure says nothing.
const CodeDeletedByUpdate = "ResourceDeletedByUpdate"

// CodeNoOrder is in Documents.Warnings: a template gives a resource differently, and Azure may deploy either last. It is ours.
const CodeNoOrder = "ResourceWithoutOrder"

// keepsSubnets is the first API version with which a network that is given again without
// subnets keeps those that it has.
const keepsSubnets = "2023-09-01"

// given says how a document gives a resource, and how it gives the resource again.
type given struct {
	// step is when a template deploys it, so that the later of two givings updates the
	// earlier; nil in other documents, which have no order.
	step *template.Step
	// replaced is the resource that stands for this one, which is given again.
	replaced *resource
	again    bool // others were united with it
	// first and last are the first and last giving by a template; nil for a single one. updates are all after the first.
	first, last *resource
	updates     []listing
	// listed are the givings that have the lists of children that hold.
	listed map[kind]*resource
	// gone are the names in lower case of children that a later giving did not list.
	gone map[kind]map[string]bool
}

// listing is a later giving of a resource, which deletes the children that it does not list.
type listing struct {
	by    *resource
	kind  kind // of the children
	names map[string]bool
}

// templated reports whether a template gives the resource.
func (r *resource) templated() bool { return r.step != nil }

// unite makes the first of the resources of one identity stand for all. A template's later
// giving updates its earlier one, as Azure's PUT does. All else must agree.
func (l *loader) unite(group []*resource) {
	var sequences [][]*resource
	for _, r := range group {
		l.stale = l.stale || r.built != nil
		i := -1
		if r.templated() {
			i = slices.IndexFunc(sequences, func(s []*resource) bool { return s[0].templated() && s[0].file == r.file })
		}
		if i < 0 {
			sequences = append(sequences, nil)
			i = len(sequences) - 1
		}
		sequences[i] = append(sequences[i], r)
	}
	if l.stale { // all is read again
		return
	}
	first := group[0]
	for _, sequence := range sequences {
		l.deploy(sequence)
		if sequence[0] != first {
			l.agree(first, sequence[0])
		}
	}
	first.again = true
	for _, r := range group[1:] {
		r.replaced = first
	}
}

// deploy applies the givings of a resource in one template to the first in the document.
func (l *loader) deploy(givings []*resource) {
	first := givings[0]
	sure := map[*template.Step]*resource{} // by the deployment that has it
	for _, r := range givings {
		if lookup(r.body, "condition") != nil {
			continue
		}
		if r.step == nil {
			continue
		}
		if other := sure[r.step.Deployment]; other != nil {
			l.fault(l.places.at(ruleset.Fault{Code: CodeDuplicateResource, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(r.name),
				Message: "the resource is defined twice in one template" + l.lines(other, r)}, r.source))
		}
		sure[r.step.Deployment] = r
	}
	if len(givings) == 1 {
		return
	}
	ordered := slices.SortedFunc(slices.Values(givings), func(a, b *resource) int { return cmp.Compare(a.step.Turn, b.step.Turn) })
	first.first, first.last, first.listed = ordered[0], ordered[len(ordered)-1], map[kind]*resource{}
	first.gone = map[kind]map[string]bool{}
	var races []*resource
	for _, r := range ordered[:len(ordered)-1] {
		if !r.step.Before(first.last.step) && contradiction(r.body, first.last.body) != nil {
			races = append(races, r)
		}
	}
	l.warnOfRace(first, first.last, races)
	body := ordered[0].body
	for _, k := range listedChildren(first.kind) {
		first.listed[k], first.gone[k] = first.first, map[string]bool{}
	}
	for _, r := range ordered[1:] {
		next := r.body
		for _, k := range listedChildren(r.kind) {
			have := propertyOf(next, kindPaths[k])
			if have == nil && r.keeps(k) {
				if kept := propertyOf(body, kindPaths[k]); kept != nil {
					next = withProperty(next, kindPaths[k], kept)
				}
				continue
			}
			first.listed[k] = r
			if opaque(next, have) { // the whole resource stays open
				continue
			}
			names := namesOf(have)
			for name := range namesOf(propertyOf(body, kindPaths[k])) {
				if !names[name] {
					first.gone[k][name] = true
				}
			}
			first.updates = append(first.updates, listing{r, k, names})
		}
		if open := lookup(body, "condition"); open != nil && lookup(next, "condition") == nil {
			next = maps.Clone(next)
			next["condition"] = open
		}
		body = next
	}
	gone := map[string]bool{}
	for _, r := range ordered[:len(ordered)-1] {
		for _, path := range removed(r.body, body) {
			gone[path] = true
		}
	}
	l.warnOfRemoved(first, first.last, slices.Sorted(maps.Keys(gone)))
	first.body = body
}

// associations are the fields that connect a resource to another, as ARM spells them.
var associations = []string{"networkSecurityGroup", "routeTable", "natGateway", "applicationSecurityGroups", "publicIPAddress"}

// removed are the associations of a resource, and of its parts, that a later giving of it has no more. The paths begin with the
// names of the parts.
func removed(earlier, later map[string]any) (paths []string) {
	for _, field := range associations {
		if !empty(propertyOf(earlier, field)) && empty(propertyOf(later, field)) {
			paths = append(paths, field)
		}
	}
	for _, list := range []string{kindPaths[subnetKind], kindPaths[configurationKind]} {
		parts, _ := propertyOf(earlier, list).([]any)
		now := map[string]map[string]any{}
		remaining, _ := propertyOf(later, list).([]any)
		for _, v := range remaining {
			now[strings.ToLower(nameIn(v))], _ = v.(map[string]any)
		}
		for _, v := range parts {
			part, _ := v.(map[string]any)
			left := now[strings.ToLower(nameIn(v))]
			if part == nil || left == nil || nameIn(v) == "" {
				continue
			}
			for _, path := range removed(part, left) {
				paths = append(paths, list+"/"+nameIn(v)+"/"+path)
			}
		}
	}
	return paths
}

// warnOfRemoved warns of associations that a later giving of a resource removes.
func (l *loader) warnOfRemoved(r, by *resource, paths []string) {
	if len(paths) > 0 {
		l.warn(l.places.at(ruleset.Fault{Code: CodeDeletedByUpdate, File: by.file, Resource: r.place(), Field: lastSegment(paths[0]), Value: ruleset.Listed(paths),
			Message: "a later deployment gives the resource again without it, which removes the association"}, by.source))
	}
}

// warnOfRace warns of a giving of a resource, or of a child, that others contradict, which Azure may deploy after it.
func (l *loader) warnOfRace(r, taken *resource, others []*resource) {
	if len(others) == 0 {
		return
	}
	places := make([]string, len(others))
	for i, other := range others {
		places[i] = other.step.Place
	}
	l.warn(l.places.at(ruleset.Fault{Code: CodeNoOrder, File: taken.file, Resource: r.place(), Field: "dependsOn",
		Message: taken.step.Place + " says otherwise than " + ruleset.Listed(places) +
			", and no dependsOn or reference() orders them: Azure deploys them in any order; the first one here was taken" + l.lines(others[0], taken)}, taken.source))
}

// opaque reports whether expressions keep open which children a resource lists.
func opaque(body map[string]any, list any) bool {
	if _, text := lookup(body, "properties").(string); text {
		return true
	}
	elements, ok := list.([]any)
	return list != nil && !ok || slices.ContainsFunc(elements, func(v any) bool {
		_, text := v.(string)
		return text
	})
}

// listedChildren are the kinds of children that a resource of a kind lists.
func listedChildren(k kind) (kinds []kind) {
	for _, child := range []kind{ruleKind, subnetKind, peeringKind, routeKind, poolKind, natRuleKind} {
		if parentKinds[child] == k {
			kinds = append(kinds, child)
		}
	}
	return kinds
}

// keeps reports whether the resource, given again without a list of children, keeps them.
func (r *resource) keeps(k kind) bool {
	version := r.apiVersion()
	return k == peeringKind || k == subnetKind && (version == "" || version >= keepsSubnets)
}

// apiVersion is the resource's API version, or its parent's; empty when none is known.
func (r *resource) apiVersion() string {
	version, _ := lookup(r.body, "apiVersion").(string)
	if version == "" && r.parent != nil {
		return r.parent.apiVersion()
	}
	return version
}

// warnOfDeleted warns of children that later givings of their parent delete.
func (l *loader) warnOfDeleted(r *resource, k kind, names []string) {
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	by := cmp.Or(r.last, r)
	l.warn(l.places.at(ruleset.Fault{Code: CodeDeletedByUpdate, File: by.file, Resource: r.place(), Field: kindPaths[k], Value: ruleset.Listed(names),
		Message: fmt.Sprintf("later deployments give the resource again without %d of its %s, which deletes them: they were not read", len(names), kindPaths[k])}, by.source))
}

// inner are the children of a kind: those inside the resource, then the others. A child
// that is inside and given again as a resource of its own is one.
func (l *loader) inner(r *resource, k kind, bodies []map[string]any) []*resource {
	var list []*resource
	at := map[string]int{}
	by := cmp.Or(r.listed[k], r.last, r)
	deleted := maps.Clone(r.gone[k])
	if deleted == nil {
		deleted = map[string]bool{}
	}
	var taken *resource // the last one that contradicts others without an order
	var other []*resource
	for _, body := range bodies {
		c := newResource(k, r.file, body, r)
		if name, _ := lookup(body, "name").(string); name != "" {
			c.name = name
		}
		c.given = given{step: by.step}
		if _, twice := at[strings.ToLower(c.name)]; !twice {
			at[strings.ToLower(c.name)] = len(list)
		}
		list = append(list, c)
	}
	for _, c := range r.children {
		if c.kind != k {
			continue
		}
		for _, u := range r.updates {
			if u.omits(c) && c.file == r.file && !u.by.step.Before(c.step) && !c.step.Before(u.by.step) {
				taken, other = c, append(other, u.by)
			}
		}
		if r.deletes(c) {
			deleted[strings.ToLower(c.name)] = true
			continue
		}
		i, known := at[strings.ToLower(c.name)]
		switch {
		case !known || c.nameUnknown:
			at[strings.ToLower(c.name)] = len(list)
			list = append(list, c)
		case c.templated() && list[i].templated() && c.file == list[i].file:
			earlier, later := list[i], c
			if r.settled(c) < list[i].step.Turn {
				earlier, later = c, list[i]
			}
			if earlier.step != cmp.Or(r.first, r).step && !earlier.step.Before(later.step) && contradiction(earlier.body, later.body) != nil {
				taken, other = later, append(other, earlier)
			}
			l.warnOfRemoved(c, later, removed(earlier.body, later.body))
			list[i] = later
		default:
			l.agree(list[i], c)
		}
	}
	l.warnOfRace(r, taken, other)
	maps.DeleteFunc(deleted, func(name string, _ bool) bool { _, kept := at[name]; return kept })
	l.warnOfDeleted(r, k, slices.Collect(maps.Keys(deleted)))
	return list
}

// settled is the turn of a child that is a resource of its own: it can't come before its
// parent.
func (r *resource) settled(c *resource) int { return max(c.step.Turn, cmp.Or(r.first, r).step.Turn) }

// deletes reports whether a later giving of the resource deletes a child.
func (r *resource) deletes(c *resource) bool {
	return c.file == r.file && slices.ContainsFunc(r.updates, func(u listing) bool { return u.omits(c) && u.by.step.Turn > r.settled(c) })
}

// omits reports whether a giving lists the other children of a kind, and not this one, which a template gives too.
func (u *listing) omits(c *resource) bool {
	return c.templated() && u.kind == c.kind && !u.names[strings.ToLower(c.name)]
}

// propertyOf is a field of a resource, in ARM's form or in az's.
func propertyOf(body map[string]any, field string) any {
	if inner, ok := lookup(body, "properties").(map[string]any); ok {
		return lookup(inner, field)
	}
	return lookup(body, field)
}

// withProperty is the resource with one more property.
func withProperty(body map[string]any, field string, v any) map[string]any {
	if inner, ok := lookup(body, "properties").(map[string]any); ok {
		return withField(body, "properties", withField(inner, field, v))
	}
	return withField(body, field, v)
}

// withField is the object with one field, which may have any case.
func withField(object map[string]any, field string, v any) map[string]any {
	out := make(map[string]any, len(object)+1)
	for name, v := range object {
		if !jsonc.SameName(name, field) {
			out[name] = v
		}
	}
	out[field] = v
	return out
}

// namesOf are the names in a list of children, in lower case.
func namesOf(list any) map[string]bool {
	names := map[string]bool{}
	elements, _ := list.([]any)
	for _, v := range elements {
		names[strings.ToLower(nameIn(v))] = true
	}
	return names
}
