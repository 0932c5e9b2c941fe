package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var errResources = errors.New("resources are a list or an object of symbolic names; allowed is no expression")

// instance is one resource of a template, or one pass of its loop.
type instance struct {
	*scope
	frame    frame
	place    string
	body     map[string]any
	kind     string // the whole type
	name     string // the whole name, with the parents' names; empty when it is not known
	id       string // empty when the name is not known
	symbol   string
	loop     string // the name of its own copy loop
	existing bool
	// excluded resources are not deployed. Their children may be.
	excluded bool
	parent   *instance
	children []*instance
	// head are the evaluated name, type, condition and copy.
	head map[string]any
	rest cell
	// nested is the template of a deployment: a *scope, or nil if it was not read. arguments are its evaluated
	// parameters, linkedParameters those of its parametersLink.
	nested, arguments, linkedParameters cell
	// passed finds one of arguments; made on first use.
	passed *foldedObject
}

// expand makes a template's resources, with loops rolled out and without excluded ones. It
// does not evaluate their properties.
func (s *scope) expand() {
	s.expanding = true
	s.expandList(s.place+"resources", get(s.template, "resources"), nil)
	s.expanding = false
}

// expandList expands a list of resources, or an object of symbolic names.
func (s *scope) expandList(place string, resources any, parent *instance) {
	switch resources := resources.(type) {
	case []any:
		for i, e := range resources {
			at := fmt.Sprintf("%s[%d]", place, i)
			switch e := e.(type) {
			case map[string]any:
				s.expandResource(at, "", e, parent)
			default:
				s.strays = append(s.strays, s.frame().problem(at, countText(e), errResources))
			}
		}
	case map[string]any:
		for _, symbol := range sortedKeys(resources) {
			if body, ok := resources[symbol].(map[string]any); ok {
				s.expandResource(place+"."+symbol, symbol, body, parent)
			}
		}
	}
}

func (s *scope) expandResource(place, symbol string, body map[string]any, parent *instance) {
	f := s.frame()
	if parent != nil {
		f = parent.frame
	}
	l := object(body, "copy")
	if l == nil {
		s.add(f, place, symbol, body, parent)
		return
	}
	count, err := f.count(place+".copy.count", get(l, "count"))
	name := text(l, "name")
	if v, ok := f.text(place+".copy.name", name).(string); ok {
		name = v
	}
	if err != nil {
		if r := s.add(f, place, symbol, body, parent); r != nil {
			r.head["copy"] = f.problem(place+".copy.count", countText(get(l, "count")), err)
		}
		return
	}
	for i := range count {
		if r := s.add(f.within(loop{name: name, index: int64(i)}), fmt.Sprintf("%s(%d)", place, i), symbol, body, parent); r != nil {
			r.loop = name
		}
	}
}

// add makes an instance, unless its condition excludes it.
func (s *scope) add(f frame, place, symbol string, body map[string]any, parent *instance) *instance {
	r := &instance{scope: s, frame: f, place: place, body: body, symbol: symbol, parent: parent, head: map[string]any{}}
	r.frame.of = r
	if condition, ok := field(body, "condition"); ok {
		switch v := f.tree(place+".condition", condition).(type) {
		case bool:
			if !v {
				r.excluded = true
			}
		case unresolved:
			r.head["condition"] = v
		default:
			r.head["condition"] = f.problem(place+".condition", countText(condition), fmt.Errorf("a condition is true or false, not of type %s", kindOf(v)))
		}
	}
	r.existing = get(body, "existing") == true
	if s.budget.step(100) != nil {
		return nil
	}
	r.head["type"] = f.tree(place+".type", get(body, "type"))
	r.head["name"] = f.tree(place+".name", get(body, "name"))
	r.identify()
	if r.excluded {
		s.expandList(place+".resources", get(body, "resources"), r)
		if parent != nil {
			parent.children = append(parent.children, r.children...)
		} else {
			s.instances = append(s.instances, r.children...)
		}
		return nil
	}
	r.rest = cell{place: place, make: func() (any, error) { return r.evaluate(), nil }}
	r.nested = cell{place: place, make: r.nest}
	r.arguments = cell{place: place + ".properties.parameters", make: func() (any, error) {
		return r.frame.tree(place+".properties.parameters", get(object(body, "properties"), "parameters")), nil
	}}
	r.linkedParameters = cell{place: place + ".properties.parametersLink", make: r.readParameters}
	if parent != nil {
		parent.children = append(parent.children, r)
	} else {
		s.instances = append(s.instances, r)
	}
	if symbol != "" {
		s.symbols[strings.ToLower(symbol)] = r
		if n := len(f.loops); n > 0 {
			s.symbols[symbolOfPass(symbol, f.loops[n-1])] = r
		}
	}
	s.engine.register(r)
	s.expandList(place+".resources", get(body, "resources"), r)
	return r
}

// symbolOfPass is the symbolic name of one pass of a loop, in lower case.
func symbolOfPass(symbol string, l loop) string {
	return fmt.Sprintf("%s[%d]", strings.ToLower(symbol), l.index)
}

// register enters a resource for references.
func (e *engine) register(r *instance) {
	if r.isDeployment() {
		e.deployments = append(e.deployments, r)
		e.waiting++
	}
	if r.id == "" || r.existing {
		return
	}
	id := strings.ToLower(r.id)
	e.instances[id] = append(e.instances[id], r)
	if types := strings.Count(r.kind, "/"); types > 1 {
		above := id[:strings.LastIndexByte(id, '/')]
		above = above[:strings.LastIndexByte(above, '/')]
		e.children[above] = append(e.children[above], r)
	}
}

// expandAll expands the templates of all deployments, because a reference may name a resource in one.
func (e *engine) expandAll() {
	if e.searching || e.waiting == 0 {
		return
	}
	e.searching = true
	defer func() { e.searching = false }()
	for i := 0; i < len(e.deployments); i++ { // the list grows
		r := e.deployments[i]
		if r.nested.state != cold {
			continue
		}
		cycles := e.budget.cycles
		if r.template(); e.budget.cycles != cycles { // it needs what is being evaluated: its own turn comes later
			e.forget(r)
			r.nested = cell{place: r.place, make: r.nest}
			e.waiting++
		}
	}
}

// forget drops the resources of a deployment's template.
func (e *engine) forget(deployment *instance) {
	if e.budget.step(len(e.instances)) != nil {
		return
	}
	inside := func(r *instance) bool {
		for s := r.scope; s.caller != nil; s = s.caller.scope {
			if s.caller == deployment {
				return true
			}
		}
		return false
	}
	for _, index := range []map[string][]*instance{e.instances, e.children} {
		for id, list := range index {
			index[id] = slices.DeleteFunc(list, inside)
		}
	}
	e.deployments = slices.DeleteFunc(e.deployments, func(r *instance) bool {
		if !inside(r) {
			return false
		}
		if r.nested.state == cold {
			e.waiting--
		}
		return true
	})
}

// each calls visit for every resource of the template, children behind their parents.
func (s *scope) each(visit func(r *instance)) {
	var walk func(list []*instance)
	walk = func(list []*instance) {
		for _, r := range list {
			visit(r)
			walk(r.children)
		}
	}
	walk(s.instances)
}

// outerScope is the scope whose expressions a nested template shares; nil when it shares none.
func (s *scope) outerScope() *scope {
	if s.outer == nil {
		return nil
	}
	return s.outer.scope
}

// identify composes type, name and id. A child's begin with its parent's. The type alone does not need the name: it
// says what a deployment is.
func (r *instance) identify() {
	kind, _ := r.head["type"].(string)
	name, _ := r.head["name"].(string)
	p := r.parent
	if p != nil && kind != "" && !strings.Contains(kind, "/") {
		if p.kind == "" {
			return
		}
		kind = p.kind + "/" + kind
	}
	if r.kind = kind; kind == "" || name == "" {
		return
	}
	if p != nil && strings.Count(name, "/") < strings.Count(kind, "/")-1 {
		if p.name == "" {
			return
		}
		name = p.name + "/" + name
	}
	r.name = name
	scope := r.root().group().id()
	switch s := r.frame.tree(r.place+".scope", get(r.body, "scope")).(type) {
	case unresolved:
		return
	case string:
		scope = scopeID(scope, s)
	}
	r.id, _ = typedID(scope, kind, strings.Split(name, "/")) // a type or name that fits no id is Azure's to refuse
}

// scopeID is the id that a resource's scope means, where group begins the ids: an id, a resource there, a management group,
// or "/" for the tenant.
func scopeID(group, scope string) string {
	switch {
	case scope == "":
		return group
	case scope[0] == '/':
		return strings.TrimSuffix(scope, "/")
	case strings.HasPrefix(strings.ToLower(scope), "microsoft.management/managementgroups/"):
		return "/providers/" + scope
	}
	return group + "/providers/" + scope
}

// group is the resource group of the resource: its own or its deployment's.
func (r *instance) group() group {
	in := r.scope.target
	set := func(property string, to *string, open **Problem) {
		written := text(r.body, property)
		if written == "" {
			return
		}
		switch v := r.frame.text(r.place+"."+property, written).(type) {
		case string:
			*to, *open = v, nil
		case unresolved:
			*to, *open = strings.ReplaceAll(v.problem.Expression, "/", "_"), v.problem
		}
	}
	set("subscriptionId", &in.subscription, &in.openSubscription)
	set("resourceGroup", &in.name, &in.openName)
	return in
}

// root is the outermost parent.
func (r *instance) root() *instance {
	for r.parent != nil {
		r = r.parent
	}
	return r
}

// evaluated is the body with every expression evaluated.
func (r *instance) evaluated() any {
	v, err := r.rest.get(r.budget)
	if err != nil {
		return map[string]any{"name": r.frame.problem(r.place, "["+r.name+"]", err)}
	}
	return v
}

func (r *instance) evaluate() map[string]any {
	out := map[string]any{}
	r.result.origins.note(out, r.body)
	for _, name := range sortedKeys(r.body) {
		switch {
		case foldEqual(name, "condition", "copy", "resources", "type", "name"):
		case r.isDeployment() && foldEqual(name, "properties"):
			out[name] = r.deploymentProperties(r.place+"."+name, r.body[name])
		default:
			out[name] = r.frame.tree(r.place+"."+name, r.body[name])
		}
	}
	for name, v := range r.head {
		if v != nil {
			out[name] = v
		}
	}
	return out
}

func foldEqual(name string, names ...string) bool {
	for _, n := range names {
		if strings.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// typedID composes a resource id below a scope: types and names take turns after the
// provider.
func typedID(scope, kind string, names []string) (string, error) {
	parts := strings.Split(strings.Trim(kind, "/"), "/")
	if len(parts) < 2 {
		return "", fmt.Errorf("the resource type %q has no provider; allowed is a form such as Microsoft.Network/virtualNetworks", clip(kind))
	}
	if len(names) != len(parts)-1 {
		return "", fmt.Errorf("the resource type %s needs %d names, there are %d", clip(kind), len(parts)-1, len(names))
	}
	var b strings.Builder
	b.WriteString(scope + "/providers/" + parts[0])
	for i, name := range names {
		b.WriteString("/" + parts[i+1] + "/" + name)
	}
	return b.String(), nil
}
