package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/template"
)

// index finds resources by the ids and names in references.
type index struct {
	byID    map[string]*entry            // by id in lower case
	byName  map[kind]map[string][]*entry // by name, or "network/subnet", in lower case
	present map[kind]string              // whatIs's answers
	asked   uint64                       // a bit for each kind that resolve looked up; the test of phases reads it
}

// entry is a resource that can be referred to.
type entry struct {
	kind kind
	id   string
	file string
	// region is the location without spaces, in lower case; empty when it is not known.
	region string
	// object is nil for a resource that stays open.
	object any
}

func newIndex() index {
	return index{byID: map[string]*entry{}, byName: map[kind]map[string][]*entry{}, present: map[kind]string{}}
}

// add enters a resource under its id and names. If the id is taken it enters nothing and
// returns the resource that has it.
func (x *index) add(e *entry, names ...string) *entry {
	id := strings.ToLower(e.id)
	if other := x.byID[id]; other != nil {
		return other
	}
	x.byID[id] = e
	delete(x.present, e.kind)
	if x.byName[e.kind] == nil {
		x.byName[e.kind] = map[string][]*entry{}
	}
	for _, name := range names {
		name = strings.ToLower(name)
		x.byName[e.kind][name] = append(x.byName[e.kind][name], e)
	}
	return nil
}

// resolve finds what a reference means, by the rule of the package comment. problem says
// why there is no answer. e.object is nil for an open resource.
func (x *index) resolve(k kind, reference string) (e *entry, problem string) {
	x.asked |= 1 << k
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

// whatIs lists the resources of a kind. It keeps the answer, since a policy may have
// thousands of broken references.
func (x *index) whatIs(k kind) string {
	text, ok := x.present[k]
	if !ok {
		text = x.list(k)
		x.present[k] = text
	}
	return text
}

func (x *index) list(k kind) string {
	var names []string
	for name := range x.byName[k] {
		if !paired(k) || strings.Contains(name, "/") { // paired kinds are there under both names
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

// referredName is the name in a reference; empty when the reference cannot mean kind k.
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

// paired reports whether resources of a kind are known by their name and by PARENT/NAME.
func paired(k kind) bool {
	return k == subnetKind || k == configurationKind || parentKinds[k] == loadBalancerKind
}

// managed reports whether a kind belongs to a virtual network manager. Such resources are
// known by the names of all their parents.
func managed(k kind) bool {
	for parentKinds[k] != otherKind {
		k = parentKinds[k]
	}
	return k == managerKind
}

// managedName is the path of names in a reference that is an id or such a path.
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

// path is a resource's name with the names of all its parents before it.
func (r *resource) path() string {
	if r.parent == nil {
		return r.name
	}
	return r.parent.path() + "/" + r.name
}

// isAzureID reports whether id is complete, with a subscription. Templates that are
// evaluated without a subscription make ids with the subscription of zeros.
func isAzureID(id string) bool {
	const prefix = "/subscriptions/"
	return len(id) > len(prefix) && strings.EqualFold(id[:len(prefix)], prefix) && id[len(prefix)] != '/' &&
		!strings.HasPrefix(id[len(prefix):], template.NoSubscription)
}

// madeUpID is the id of a resource without one: Azure's form with an empty subscription
// and resource group.
func madeUpID(k kind, name string) string {
	return "/subscriptions//resourceGroups//providers/Microsoft.Network/" + kindPaths[k] + "/" + name
}

// register enters r's object and reports whether the id is new. A repeated id is a fault.
func (l *loader) register(r *resource, id string, object any, names ...string) bool {
	if r.anonymous() {
		return true
	}
	other := l.index.add(&entry{kind: r.kind, id: id, file: r.file, region: r.region(), object: object}, names...)
	if other == nil {
		return true
	}
	l.fault(ruleset.Fault{
		Code: CodeDuplicateResource, File: r.file, Resource: r.place(), Field: "id", Value: ruleset.Clip(id),
		Message: "the resource is in " + other.file + " already; every resource is given once",
	})
	return false
}

// region is where a resource is, as its own document or its parent's says.
func (r *resource) region() string {
	if r == nil {
		return ""
	}
	if location := known(r.body, "location"); location != "" {
		return regionOf(location)
	}
	return r.parent.region()
}

// regionOf is a location without spaces, in lower case.
func regionOf(location string) string { return strings.ToLower(strings.ReplaceAll(location, " ", "")) }

// place names the resource in faults: its parents' kinds and names, then its own.
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

// identity is the resource's id, made from names when the document has none.
func (r *resource) identity() string {
	switch {
	case r.id != "":
		return r.id
	case r.parent != nil:
		return r.parent.identity() + "/" + kindPaths[r.kind] + "/" + r.name
	}
	return madeUpID(r.kind, r.name)
}

// anonymous reports whether the resource's id is open. The text of an expression does not
// identify a resource.
func (r *resource) anonymous() bool {
	return r.id == "" && (r.nameUnknown || r.parent != nil && r.parent.anonymous())
}

// adopt relates children that are not nested to their parents in any document. A child
// without a parent is a fault.
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
		l.listOpen(r, "name", r.name)
		return
	}
	if r.parent == nil {
		parentKind := parentKinds[r.kind]
		e, problem := parents.resolve(parentKind, r.parentName)
		if e == nil && parentKind == managerKind && r.parentName != "" {
			// A manager's own document says nothing that is needed.
			m := &resource{kind: managerKind, file: r.file, name: lastSegment(r.parentName)}
			if isAzureID(r.parentName) {
				m.id = r.parentName
			}
			e = &entry{kind: managerKind, id: m.identity(), object: m}
			parents.add(e, m.name)
		}
		if e == nil && parentKind == loadBalancerKind {
			l.warn(ruleset.Fault{
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

// listOpen lists a resource that was not read because of an expression.
func (l *loader) listOpen(r *resource, field, value string) {
	l.unresolved(ruleset.Fault{
		Code: CodeTemplateExpression, File: r.file, Resource: r.place(), Field: field, Value: ruleset.Clip(value),
		Message: l.reason(r.file, value) + ": the resource was not read",
	})
}
