package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/template"
)

// index finds resources by what others call them.
type index struct {
	byID   map[string]*entry            // by id in lower case
	byName map[kind]map[string][]*entry // by name, or "network/subnet", in lower case
	known  map[kind]string              // what is there, in words; made when it is asked for
}

// entry is a resource that can be referred to.
type entry struct {
	kind kind
	id   string
	file string
	// object is nil for a resource that the documents leave open.
	object any
}

func newIndex() index {
	return index{byID: map[string]*entry{}, byName: map[kind]map[string][]*entry{}, known: map[kind]string{}}
}

// add enters a resource under its id and names; it returns the one that has the
// id already, if any.
func (x *index) add(e *entry, names ...string) *entry {
	id := strings.ToLower(e.id)
	if other := x.byID[id]; other != nil {
		return other
	}
	x.byID[id] = e
	delete(x.known, e.kind)
	if x.byName[e.kind] == nil {
		x.byName[e.kind] = map[string][]*entry{}
	}
	for _, name := range names {
		name = strings.ToLower(name)
		x.byName[e.kind][name] = append(x.byName[e.kind][name], e)
	}
	return nil
}

// resolve finds what a reference means by the rule of the package's comment.
// problem says why there is no answer; e.object is nil for an open resource.
func (x *index) resolve(k kind, reference string) (e *entry, problem string) {
	if e := x.byID[strings.ToLower(reference)]; e != nil && e.kind == k {
		return e, ""
	}
	var found []*entry
	for _, e := range x.byName[k][strings.ToLower(referredName(k, reference))] {
		if !isAzureID(reference) || !isAzureID(e.id) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return nil, "no document has this resource; there " + x.whatIs(k)
	case 1:
		return found[0], ""
	}
	ids := make([]string, len(found))
	for i, e := range found {
		ids[i] = e.id
	}
	return nil, "the name fits several resources: " + ruleset.Listed(ids)
}

// whatIs lists what of a kind there is. The answer is kept: a policy may have
// thousands of references to nothing.
func (x *index) whatIs(k kind) string {
	text, ok := x.known[k]
	if !ok {
		text = x.list(k)
		x.known[k] = text
	}
	return text
}

func (x *index) list(k kind) string {
	var names []string
	for name := range x.byName[k] {
		if !paired(k) || strings.Contains(name, "/") { // it is there under its own name too
			names = append(names, name)
		}
	}
	switch slices.Sort(names); len(names) {
	case 0:
		return "are no " + kindPaths[k]
	case 1:
		return "is only " + names[0]
	}
	return "are " + ruleset.Listed(names)
}

// referredName is the name within a reference, empty when it can't be one of kind k.
func referredName(k kind, reference string) string {
	segments := strings.Split(strings.Trim(reference, "/"), "/")
	n := len(segments)
	if n == 1 {
		return segments[0]
	}
	typed := strings.EqualFold(segments[n-2], kindPaths[k])
	switch {
	case parentKinds[k] != otherKind && managed(k):
		return managedName(k, segments)
	case paired(k) && typed && n >= 3:
		return segments[n-3] + "/" + segments[n-1]
	case typed:
		return segments[n-1]
	case paired(k) && n == 2:
		return reference
	}
	return ""
}

// paired reports what is known by its name and by that of the resource that it is within,
// with a slash between them.
func paired(k kind) bool {
	return k == subnetKind || k == configurationKind || parentKinds[k] == loadBalancerKind
}

// managed reports what belongs to a virtual network manager, which is known by the names
// of all that it is within.
func managed(k kind) bool {
	for parentKinds[k] != otherKind {
		k = parentKinds[k]
	}
	return k == managerKind
}

// managedName is the path of names within an id, or within names alone.
func managedName(k kind, segments []string) string {
	var names []string
	for ; len(segments) >= 2 && strings.EqualFold(segments[len(segments)-2], kindPaths[k]); k = parentKinds[k] {
		names = append(names, segments[len(segments)-1])
		segments = segments[:len(segments)-2]
	}
	if names == nil {
		return strings.Join(segments, "/")
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// path is a resource's name with those of all that it is within.
func (r *resource) path() string {
	if r.parent == nil {
		return r.name
	}
	return r.parent.path() + "/" + r.name
}

// isAzureID reports a complete resource id, with a subscription. Templates that nobody
// gave one make ids of the subscription of zeros.
func isAzureID(id string) bool {
	const prefix = "/subscriptions/"
	return len(id) > len(prefix) && strings.EqualFold(id[:len(prefix)], prefix) && id[len(prefix)] != '/' &&
		!strings.HasPrefix(id[len(prefix):], template.NoSubscription)
}

// madeUpID is the id of a resource whose document has none: of Azure's form,
// with an empty subscription and resource group.
func madeUpID(k kind, name string) string {
	return "/subscriptions//resourceGroups//providers/Microsoft.Network/" + kindPaths[k] + "/" + name
}

// register enters r's object and reports whether the id is new; a second one is a
// fault.
func (l *loader) register(r *resource, id string, object any, names ...string) bool {
	if r.anonymous() {
		return true
	}
	other := l.index.add(&entry{kind: r.kind, id: id, file: r.file, object: object}, names...)
	if other == nil {
		return true
	}
	l.fault(ruleset.Fault{
		Code: CodeDuplicateResource, File: r.file, Resource: r.place(), Field: "id", Value: ruleset.Clip(id),
		Message: "the resource is in " + other.file + " already; every resource is given once",
	})
	return false
}

// place is the resource in faults: its kind and name, with its parent's before it.
func (r *resource) place() string {
	own := kindPaths[r.kind] + "/" + r.name
	switch {
	case r.parent != nil:
		return r.parent.place() + "/" + own
	case r.parentName != "":
		return kindPaths[parentKinds[r.kind]] + "/" + lastSegment(r.parentName) + "/" + own
	}
	return own
}

// identity is the resource's id, made up when the document has none.
func (r *resource) identity() string {
	switch {
	case r.id != "":
		return r.id
	case r.parent != nil:
		return r.parent.identity() + "/" + kindPaths[r.kind] + "/" + r.name
	}
	return madeUpID(r.kind, r.name)
}

// anonymous reports that the resource's id is open: an expression's text says
// nothing about identity.
func (r *resource) anonymous() bool {
	return r.id == "" && (r.nameUnknown || r.parent != nil && r.parent.anonymous())
}

// adopt gives children that are not nested to their parents, which may be in
// any document. An orphan's parent stays nil and is a fault.
func (l *loader) adopt() {
	parents := newIndex()
	for _, r := range l.resources {
		if parentKinds[r.kind] == otherKind && !r.anonymous() {
			parents.add(&entry{kind: r.kind, id: r.identity(), object: r}, r.name)
		}
	}
	for depth := 1; depth <= adminRuleKind.depth(); depth++ {
		for _, r := range l.resources {
			if r.kind.depth() == depth {
				l.adoptOne(r, &parents)
			}
		}
	}
}

func (l *loader) adoptOne(r *resource, parents *index) {
	if r.parent == nil && r.anonymous() {
		l.leaveOpen(r, "name", r.name)
		return
	}
	if r.parent == nil {
		parentKind := parentKinds[r.kind]
		e, problem := parents.resolve(parentKind, r.parentName)
		if e == nil && parentKind == managerKind && r.parentName != "" {
			// Nothing depends on what a manager's own document says.
			m := &resource{kind: managerKind, file: r.file, name: lastSegment(r.parentName)}
			if isAzureID(r.parentName) {
				m.id = r.parentName
			}
			e = &entry{kind: managerKind, id: m.identity(), object: m}
			parents.add(e, m.name)
		}
		if e == nil && parentKind == loadBalancerKind {
			l.note(ruleset.Fault{
				Code: CodeParentNotFound, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(r.parentName),
				Message: "the load balancer of this resource: " + problem + ": nothing is translated by it",
			})
			return
		}
		if e == nil {
			l.fault(ruleset.Fault{
				Code: CodeParentNotFound, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(r.parentName),
				Message: "the resource that this one belongs to: " + problem,
			})
			l.orphans = append(l.orphans, r)
			return
		}
		r.parent = e.object.(*resource)
	}
	r.parent.children = append(r.parent.children, r)
	if managed(r.kind) && !r.anonymous() {
		parents.add(&entry{kind: r.kind, id: r.identity(), object: r}, r.path())
	}
}

// leaveOpen lists a resource that an expression keeps from being read.
func (l *loader) leaveOpen(r *resource, field, value string) {
	l.unresolved(ruleset.Fault{
		Code: CodeTemplateExpression, File: r.file, Resource: r.place(), Field: field, Value: ruleset.Clip(value),
		Message: l.why(r.file, value) + ": the resource was not read",
	})
}
