package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// adopt unites resources that are given again, and relates children that are not nested to
// their parents in any document. A child without a parent is a fault or stays open.
func (l *loader) adopt() {
	parents := newIndex()
	l.enterParents(&parents, func(r *resource) bool { return parentKinds[r.kind] == otherKind })
	l.listPerhapsSame()
	for depth := 1; depth <= adminRuleKind.depth(); depth++ {
		for _, r := range l.resources {
			if r.kind.depth() == depth {
				l.adoptOne(r, &parents)
			}
		}
		l.enterParents(&parents, func(r *resource) bool { return r.kind.depth() == depth && managed(r.kind) && r.parent != nil })
	}
	for _, r := range l.resources {
		if r.replaced == nil && r.parent != nil {
			r.parent.children = append(r.parent.children, r)
		}
	}
	l.resources = slices.DeleteFunc(l.resources, func(r *resource) bool { return r.replaced != nil })
}

// open reports whether an expression keeps open where a scope is.
func (s scope) open() bool {
	return strings.HasPrefix(s.group, "[") || strings.HasPrefix(s.subscription, "[")
}

// mayBe reports whether two scopes may be the same. It is false unless one of them is open.
func (s scope) mayBe(o scope) bool {
	return (s.open() || o.open()) && s.agrees(o)
}

// agrees reports that two scopes contradict each other in nothing that is known of both.
func (s scope) agrees(o scope) bool {
	same := func(a, b string) bool {
		return a == b || a == "" || b == "" || a[0] == '[' || b[0] == '[' || a == ownGroup || b == ownGroup
	}
	return same(s.subscription, o.subscription) && same(s.group, o.group)
}

// maxOthers bounds the resources that are named as perhaps the same as another.
const maxOthers = 8

// listPerhapsSame lists the resources in an open resource group that may be others of their names.
func (l *loader) listPerhapsSame() {
	type key struct {
		kind kind
		name string
	}
	open := map[key][]*resource{}
	for _, r := range l.resources {
		if r.parent == nil && r.replaced == nil && !r.nameUnknown && r.scope().open() {
			k := key{r.kind, strings.ToLower(r.shownName())}
			open[k] = append(open[k], r)
		}
	}
	if len(open) == 0 {
		return
	}
	others := map[*resource][]string{}
	full := func(r *resource) bool { return len(others[r]) == maxOthers }
	for _, o := range l.resources {
		if o.parent != nil || o.replaced != nil {
			continue
		}
		k := key{o.kind, strings.ToLower(o.shownName())}
		for _, r := range open[k] {
			if !strings.EqualFold(r.identity(), o.identity()) && r.scope().mayBe(o.scope()) {
				others[r] = append(others[r], o.identity())
			}
		}
		open[k] = slices.DeleteFunc(open[k], full)
	}
	for _, r := range l.resources {
		if others[r] == nil {
			continue
		}
		field, value := "resourceGroup", segmentOf(r.id, 4)
		if !isExpression(value) {
			field, value = "subscriptionId", segmentOf(r.id, 2)
		}
		l.unresolved(l.places.at(ruleset.Fault{
			Code: CodeTemplateExpression, File: r.file, Resource: r.place(), Field: field, Value: ruleset.Clip(value),
			Message: l.reason(r.file, value) + ": whether the resource is " + ruleset.Listed(others[r]) + " too is open",
		}, r.source))
	}
}

// segmentOf is one of the parts of an id between slashes, counted from 0; empty when there are fewer.
func segmentOf(id string, i int) string {
	segments := strings.Split(id, "/")
	if i >= len(segments) {
		return ""
	}
	return segments[i]
}

// enterParents enters resources that may be parents, and unites those of one identity.
func (l *loader) enterParents(parents *index, fit func(*resource) bool) {
	groups := map[string][]*resource{}
	var firsts []string
	for _, r := range l.resources {
		if !fit(r) || r.anonymous() {
			continue
		}
		id := strings.ToLower(r.identity())
		if groups[id] == nil {
			firsts = append(firsts, id)
		}
		groups[id] = append(groups[id], r)
	}
	for _, id := range firsts {
		group := groups[id]
		if len(group) > 1 {
			l.unite(group)
		}
		first := group[0]
		parents.add(&entry{kind: first.kind, id: first.identity(), scope: first.scope(), file: first.file, object: first}, first.path())
	}
}

// adoptOne finds a resource's parent.
func (l *loader) adoptOne(r *resource, parents *index) {
	if r.parent != nil {
		if r.parent.replaced != nil {
			r.parent = r.parent.replaced
		}
		return
	}
	if r.anonymous() {
		l.listOpen(r, "name", r.name)
		return
	}
	parentKind, parentName := parentKinds[r.kind], r.parentName
	if own := "/" + kindPaths[r.kind] + "/" + r.name; len(r.id) > len(own) && strings.EqualFold(r.id[len(r.id)-len(own):], own) {
		parentName = r.id[:len(r.id)-len(own)]
	}
	e, problem := parents.resolve(parentKind, parentName, r.file)
	switch {
	case e != nil:
		r.parent = e.object.(*resource)
		if problem != "" {
			l.warn(l.places.at(ruleset.Fault{Code: CodeByNameAlone, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(parentName), Message: problem}, r.source))
		}
	case slices.Contains([]kind{managerKind, watcherKind, hubKind}, parentKind) && r.parentName != "":
		// The own document of a manager or a watcher says nothing that is needed. warnOfHubs names a hub that lacks one.
		r.parent = r.newParent(parentName)
		parents.add(&entry{kind: parentKind, id: r.parent.identity(), scope: r.parent.scope(), file: r.file, object: r.parent}, r.parent.name)
	case parentKind == loadBalancerKind:
		l.warn(l.places.at(ruleset.Fault{
			Code: CodeParentNotFound, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(parentName),
			Message: "the load balancer of this resource: " + problem + ": nothing is translated by it",
		}, r.source))
	case (r.templated() || parentKind.isID(parentName)) && !managed(r.kind):
		// The parent exists elsewhere.
		l.orphans = append(l.orphans, r)
		f := &fields{l: l, file: r.file, place: r.place(), body: r.source, open: map[string]bool{}}
		f.missing(parentKind, "name", parentName, "the resource that this one belongs to: "+problem)
		r.parent = r.newParent(parentName)
		l.registerOpen(r, f.cause)
		r.parent = nil
	default:
		l.fault(l.places.at(ruleset.Fault{
			Code: CodeParentNotFound, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(parentName),
			Message: "the resource that this one belongs to: " + problem,
		}, r.source))
		l.orphans = append(l.orphans, r)
	}
}

// newParent makes a parent that no document has.
func (r *resource) newParent(name string) *resource {
	p := &resource{kind: parentKinds[r.kind], file: r.file, name: lastSegment(name), given: given{step: r.step}}
	if p.kind.isID(name) {
		p.id = name
	}
	return p
}

// listOpen lists a resource that was not read because of an expression.
func (l *loader) listOpen(r *resource, field, value string) {
	l.unresolved(l.places.at(ruleset.Fault{
		Code: CodeTemplateExpression, File: r.file, Resource: r.place(), Field: field, Value: ruleset.Clip(value),
		Message: l.reason(r.file, value) + ": the resource was not read",
	}, r.source))
}
