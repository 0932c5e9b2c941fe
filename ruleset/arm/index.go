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
	kind  kind
	id    string
	scope scope
	file  string
	// region is the location without spaces, in lower case; empty when it is not known.
	region string
	// object is nil for a resource that stays open, for the reason of cause.
	object any
	cause  *cause
}

// scope is where a resource is deployed, as far as its id says, in lower case. What is not
// known is empty.
type scope struct{ subscription, group string }

// ownGroup is the resource group that a template is deployed to, whose name is not known.
const ownGroup = "."

// scopeOf is the scope in an id.
func scopeOf(id string) (s scope) {
	segments := strings.Split(strings.ToLower(id), "/")
	if len(segments) < 5 || segments[1] != "subscriptions" || segments[3] != "resourcegroups" {
		return s
	}
	s = scope{segments[2], segments[4]}
	if s.subscription == template.NoSubscription {
		s.subscription = ""
		if s.group == template.NoResourceGroup {
			s.group = ownGroup
		}
	}
	return s
}

// nearness says how far a reference and a resource of one name agree.
type nearness uint8

const (
	apart  nearness = iota // in different places
	byName                 // only one of the two says where
	same
)

// near compares the scope of a reference in a file with that of a resource. A template that
// names a group means another than its own; what it looks for in its own may lie beside it.
func (e *entry) near(s scope, file string) nearness {
	at := e.scope
	switch {
	case s.subscription != "" && at.subscription != "" && s.subscription != at.subscription:
		return apart
	case s.group == at.group, s == scope{}, s.group == ownGroup && at == scope{}:
		return same
	case s.group == ownGroup, at.group == "", at.group == ownGroup && e.file != file:
		return byName
	}
	return apart
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

// resolve finds what a reference in a file means, by the rule of the package comment. problem says
// why there is no answer, or why it may be another resource. e.object is nil for an open one.
func (x *index) resolve(k kind, reference, file string) (e *entry, problem string) {
	x.asked |= 1 << k
	if e := x.byID[strings.ToLower(reference)]; e != nil && e.kind == k {
		return e, ""
	}
	var found, others []*entry
	best, in := byName, scopeOf(reference)
	for _, e := range x.byName[k][strings.ToLower(referredName(k, reference))] {
		switch near := e.near(in, file); {
		case near == apart || near < best:
			others = append(others, e)
		case near > best:
			best, found, others = near, []*entry{e}, append(others, found...)
		default:
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 0 && len(others) > 0:
		return nil, "no document has this resource; " + others[0].id + " has its name and is in " + others[0].place(in)
	case len(found) == 0:
		return nil, "no document has this resource; there " + x.whatIs(k)
	case len(found) == 1 && best == byName:
		return found[0], found[0].id + " is taken, which has this name: whether it is in this subscription and resource group is not known"
	case len(found) == 1:
		return found[0], ""
	}
	ids := make([]string, len(found))
	for i, e := range found {
		ids[i] = e.id
	}
	return nil, "the name fits several resources: " + ruleset.Listed(ids)
}

// place says where a resource is that is not the one of a reference.
func (e *entry) place(in scope) string {
	if e.scope.group != ownGroup {
		return "another subscription or resource group"
	}
	return "the resource group of the deployment: give --resource-group " + in.group + " if that is it"
}

// isID reports whether a reference is an id of a resource of the kind, and no bare name.
func (k kind) isID(reference string) bool {
	_, path, found := strings.Cut(strings.ToLower(reference), "/providers/"+provider)
	if !found {
		return false
	}
	segments, types := strings.Split(path, "/"), strings.Split(k.typePath(), "/")
	if len(segments) != 2*len(types) {
		return false
	}
	for i, t := range types {
		if segments[2*i] != t || segments[2*i+1] == "" {
			return false
		}
	}
	return true
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
	return k == subnetKind || k == configurationKind || k == hubTableKind || parentKinds[k] == loadBalancerKind
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

// isAzureID reports whether id is complete, with a subscription.
func isAzureID(id string) bool { return scopeOf(id).subscription != "" }

// madeUpID is the id of a resource without one: Azure's form with an empty subscription
// and resource group.
func madeUpID(k kind, name string) string {
	of := "Microsoft.Network/"
	switch k {
	case scaleSetKind, machineKind:
		of = "Microsoft.Compute/"
	case policyKind:
		of = "Microsoft.Authorization/"
	}
	return "/subscriptions//resourceGroups//providers/" + of + kindPaths[k] + "/" + name
}

// register enters r's object and reports whether the id is new. A repeated id is a fault.
func (l *loader) register(r *resource, id string, object any, names ...string) bool {
	l.out.objects[object] = ruleBody{r.file, r.source}
	return l.enter(r, &entry{id: id, object: object}, names...)
}

func (l *loader) enter(r *resource, e *entry, names ...string) bool {
	if r.anonymous() {
		return true
	}
	e.kind, e.file, e.scope, e.region = r.kind, r.file, r.scope(), r.region()
	other := l.index.add(e, names...)
	if other == nil {
		return true
	}
	l.fault(l.places.at(ruleset.Fault{
		Code: CodeDuplicateResource, File: r.file, Resource: r.place(), Field: "id", Value: ruleset.Clip(e.id),
		Message: "the resource is in " + other.file + " already; in one list, every resource is given once",
	}, r.source))
	return false
}

// scope is where the resource is deployed.
func (r *resource) scope() scope {
	switch {
	case r.id != "":
		return scopeOf(r.id)
	case r.parent != nil:
		return r.parent.scope()
	case r.templated():
		return scope{group: ownGroup}
	}
	return scope{}
}

// region is where a resource is, as its own document or its parent's says.
func (r *resource) region() string {
	if r == nil {
		return ""
	}
	if r.body == nil && r.built != nil && !isExpression(r.built.Location) {
		return regionOf(r.built.Location)
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
