package arm

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// CodeDeletedByUpdate is in Documents.Warnings. It is ours: Azure says nothing.
const CodeDeletedByUpdate = "ResourceDeletedByUpdate"

// keepsSubnets is the first API version with which a network that is given again without
// subnets keeps those that it has.
const keepsSubnets = "2023-09-01"

// given says where a document gives a resource, and how it gives the resource again.
type given struct {
	// templated means that a template gives it. Templates are deployed in an order, so that
	// the later of two givings updates the earlier. The same holds for no other document.
	templated bool
	turn      int // in the order of deployment
	list      int // the list of resources that has it
	// replaced is the resource that stands for this one, which is given again.
	replaced *resource
	again    bool // others were united with it
	// first is the turn of the first giving; updates are the later ones.
	first   int
	updates []listing
	// listed are the turns of the givings that have the lists of children that hold.
	listed map[kind]int
}

// listing is a later giving of a resource, which deletes the children that it does not list.
type listing struct {
	turn  int
	kind  kind // of the children
	names map[string]bool
}

// collectInOrder collects a list of resources in the order of their deployment, and keeps
// the order of the document.
func (l *loader) collectInOrder(file string, list []any, symbols []string, parent *resource) {
	order := deploymentOrder(list, symbols)
	found := make([][]*resource, len(list))
	for _, i := range order {
		before := len(l.resources)
		l.collect(file, list[i], parent)
		found[i] = slices.Clone(l.resources[before:])
		l.resources = l.resources[:before]
	}
	l.resources = append(l.resources, slices.Concat(found...)...)
}

// deploymentOrder are the positions of a list in the order of deployment: each resource
// comes after those in its dependsOn, and else in the order of the document.
func deploymentOrder(list []any, symbols []string) []int {
	at := map[string]int{}
	for i, v := range list {
		body, _ := v.(map[string]any)
		name, _ := lookup(body, "name").(string)
		names := []string{deployedPath(typeOf(body), name), name}
		if symbols != nil {
			names = append(names, symbols[i])
		}
		for _, name := range names {
			if _, taken := at[strings.ToLower(name)]; !taken {
				at[strings.ToLower(name)] = i
			}
		}
	}
	order, visited := make([]int, 0, len(list)), make([]bool, len(list))
	var visit func(i int)
	visit = func(i int) {
		if visited[i] {
			return
		}
		visited[i] = true
		body, _ := list[i].(map[string]any)
		needed, _ := lookup(body, "dependsOn").([]any)
		for _, v := range needed {
			text, _ := v.(string)
			text = strings.ToLower(text)
			if cut := strings.LastIndex(text, "/providers/"); cut >= 0 {
				text = text[cut+len("/providers/"):]
			}
			if j, known := at[text]; known && text != "" {
				visit(j)
			}
		}
		order = append(order, i)
	}
	for i := range list {
		visit(i)
	}
	return order
}

// deployedPath is the end of a resource's id, after "/providers/", in lower case.
func deployedPath(kind, name string) string {
	types, names := strings.Split(kind, "/"), strings.Split(strings.ToLower(name), "/")
	path := types[0]
	for i, t := range types[1:] {
		path += "/" + t
		if i < len(names) {
			path += "/" + names[i]
		}
	}
	return path
}

// unite makes the first of the resources of one identity stand for all. A template's later
// giving updates its earlier one, as Azure's PUT does. All else must agree.
func (l *loader) unite(group []*resource) {
	var sequences [][]*resource
	for _, r := range group {
		l.stale = l.stale || r.built != nil
		i := -1
		if r.templated {
			i = slices.IndexFunc(sequences, func(s []*resource) bool { return s[0].templated && s[0].file == r.file })
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
	sure := map[int]*resource{} // by the list that has it
	for _, r := range givings {
		if lookup(r.body, "condition") != nil {
			continue
		}
		if other := sure[r.list]; other != nil {
			l.fault(l.places.at(ruleset.Fault{Code: CodeDuplicateResource, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(r.name),
				Message: "the resource is defined twice in one template" + l.lines(other, r)}, r.source))
		}
		sure[r.list] = r
	}
	ordered := slices.SortedStableFunc(slices.Values(givings), func(a, b *resource) int { return cmp.Compare(a.turn, b.turn) })
	first.first, first.listed = ordered[0].turn, map[kind]int{}
	body := ordered[0].body
	for _, k := range listedChildren(first.kind) {
		first.listed[k] = first.first
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
			first.listed[k] = r.turn
			if opaque(next, have) { // the whole resource stays open
				continue
			}
			names := namesOf(have)
			for name := range namesOf(propertyOf(body, kindPaths[k])) {
				if !names[name] {
					l.deleted(r, k, name)
				}
			}
			first.updates = append(first.updates, listing{r.turn, k, names})
		}
		if open := lookup(body, "condition"); open != nil && lookup(next, "condition") == nil {
			next = maps.Clone(next)
			next["condition"] = open
		}
		body = next
	}
	first.body, first.turn = body, ordered[len(ordered)-1].turn
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

// deleted warns of a child that a later giving of its parent deletes.
func (l *loader) deleted(parent *resource, k kind, name string) {
	l.warn(l.places.at(ruleset.Fault{Code: CodeDeletedByUpdate, File: parent.file, Resource: parent.place() + "/" + kindPaths[k] + "/" + name, Field: kindPaths[k],
		Message: "a later deployment gives " + parent.place() + " again without it, which deletes it: it was not read"}, parent.source))
}

// inner are the children of a kind: those inside the resource, then the others. A child
// that is inside and given again as a resource of its own is one.
func (l *loader) inner(r *resource, k kind, bodies []map[string]any) []*resource {
	var list []*resource
	at := map[string]int{}
	turn := r.turn
	if t, ok := r.listed[k]; ok {
		turn = t
	}
	for _, body := range bodies {
		c := newResource(k, r.file, body, r)
		if name, _ := lookup(body, "name").(string); name != "" {
			c.name = name
		}
		c.given = given{templated: r.templated, turn: turn}
		if _, twice := at[strings.ToLower(c.name)]; !twice {
			at[strings.ToLower(c.name)] = len(list)
		}
		list = append(list, c)
	}
	for _, c := range r.children {
		if c.kind != k {
			continue
		}
		if r.deletes(c) {
			l.deleted(r, k, c.name)
			continue
		}
		i, known := at[strings.ToLower(c.name)]
		switch {
		case !known || c.nameUnknown:
			at[strings.ToLower(c.name)] = len(list)
			list = append(list, c)
		case c.templated && list[i].templated && c.file == list[i].file:
			if r.settled(c) >= list[i].turn {
				list[i] = c
			}
		default:
			l.agree(list[i], c)
		}
	}
	return list
}

// settled is the turn of a child that is a resource of its own: it can't come before its
// parent.
func (r *resource) settled(c *resource) int { return max(c.turn, cmp.Or(r.first, r.turn)) }

// deletes reports whether a later giving of the resource deletes a child.
func (r *resource) deletes(c *resource) bool {
	return c.templated && c.file == r.file && slices.ContainsFunc(r.updates, func(u listing) bool {
		return u.kind == c.kind && u.turn > r.settled(c) && !u.names[strings.ToLower(c.name)]
	})
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
		if !sameName(name, field) {
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
