package template

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// NoSubscription is the id of a subscription that nobody named.
const NoSubscription = "00000000-0000-0000-0000-000000000000"

// Options are what a deployment of a template knows. The zero value works.
type Options struct {
	// File names the template in problems, and is where relative links start.
	File string
	// Parameters are values by name; a Text is converted to the declared type.
	Parameters map[string]any
	// Subscription is an id; empty: NoSubscription.
	Subscription string
	// Tenant is an id; empty: zeros, as those of NoSubscription.
	Tenant string
	// ResourceGroup is a name; empty: "nsgd".
	ResourceGroup string
	// Location is that of the resource group; empty: "westeurope".
	Location string
	// Deployment is a name; empty: the file's, without its extension, as az names it.
	Deployment string
	// Now is what utcNow() answers; zero: the beginning of 1970.
	Now time.Time
	// Runtime holds what only Azure knows: resources as Azure answers for them, by
	// id or name, with the answers of list functions under the functions' names.
	Runtime map[string]any
	// ReadFile reads linked templates below the folder of File; nil: none is read.
	ReadFile func(path string) ([]byte, error)
}

// Text is the value of a parameter as a command line has it.
type Text string

// Result is an evaluated template.
type Result struct {
	// Document is the template with "resources" evaluated: loops are rolled out,
	// what a condition excludes is gone, nested and linked deployments have their
	// templates in place. Expressions of Problems are still there.
	Document map[string]any
	// Problems are in the order of the document, each once.
	Problems []*Problem
	// Links are templates that were not read: their resources are not in Document.
	Links []*Problem
	// Faults are wrong values of parameters: nothing depends on them that is right.
	Faults []*Problem
	// Outputs are the values of the template's outputs that can be evaluated.
	Outputs map[string]any
}

func (o *Options) tenant() string {
	if o.Tenant != "" {
		return o.Tenant
	}
	return NoSubscription
}

func (o *Options) group() group {
	g := group{o.Subscription, o.ResourceGroup, o.Location}
	if g.subscription == "" {
		g.subscription = NoSubscription
	}
	if g.name == "" {
		g.name = "nsgd"
	}
	if g.location == "" {
		g.location = "westeurope"
	}
	return g
}

// Evaluate evaluates a template, whose numbers are json.Number.
func Evaluate(document map[string]any, o Options) *Result {
	b := newBudget()
	b.steps += stepsOfNode * nodes(document)
	return evaluate(document, o, b)
}

// Plain reports a document that evaluation would not change: one without expressions,
// loops, links, parameters and resources that exist already.
func Plain(document map[string]any) bool {
	return len(object(document, "parameters")) == 0 && len(object(document, "variables")) == 0 && plain(document)
}

func plain(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if foldEqual(name, "copy", "existing", "templateLink", "expressionEvaluationOptions") || !plain(name) || !plain(e) {
				return false
			}
		}
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !plain(e) })
	}
	return literalValue(v)
}

func evaluate(document map[string]any, o Options, b *budget) *Result {
	e := &engine{options: o, budget: b, result: &Result{}, asts: map[string]ast{}, instances: map[string]*instance{}}
	s := e.newScope(o.File, "", document)
	s.name = o.Deployment
	if s.name == "" {
		base := filepath.Base(o.File)
		s.name = base[:len(base)-len(filepath.Ext(base))]
	}
	s.target = o.group()
	s.home = s.target
	s.takeParameters(o.Parameters)
	s.expand()
	x := exporter{engine: e, seen: map[string]bool{}}
	e.result.Document = x.document(s)
	outputs := s.outputs()
	e.result.Outputs = map[string]any{}
	for _, name := range sortedKeys(outputs) {
		if output, ok := outputs[name].(map[string]any); ok && e.budget.firstUnresolved(output) == nil {
			e.result.Outputs[name] = output["value"]
		}
	}
	if err := e.budget.spent; err != nil {
		e.give(s.frame().problem("resources", "[resources]", err))
	}
	return e.result
}

// give makes a result of nothing but a problem.
func (e *engine) give(u unresolved) {
	e.result.Document = map[string]any{"resources": u.problem.Expression}
	e.result.Problems, e.result.Links, e.result.Outputs = []*Problem{u.problem}, nil, nil
}

// exporter turns evaluated values into a document.
type exporter struct {
	*engine
	seen map[string]bool
}

// document is a template's resources, evaluated.
func (x *exporter) document(s *scope) map[string]any {
	out := map[string]any{}
	for _, name := range []string{"$schema", "contentVersion", "languageVersion"} {
		if v, ok := field(s.template, name); ok {
			out[name] = v
		}
	}
	if v, ok := get(s.template, "resources").(string); ok { // the list itself is no expression in Azure
		out["resources"] = x.value(s.frame().problem(s.place+"resources", countText(v), errResources))
		return out
	}
	list := []any{}
	for _, r := range s.instances {
		list = x.resource(list, r)
	}
	for _, u := range s.strays {
		list = append(list, x.value(u))
	}
	out["resources"] = list
	return out
}

// resource adds a resource with its children and, of a deployment, its template. One
// that exists already is not of this template; new children of it are.
func (x *exporter) resource(list []any, r *instance) []any {
	body, _ := r.evaluated().(map[string]any)
	out := make(map[string]any, len(body)+1)
	for _, name := range sortedKeys(body) {
		out[name] = x.value(body[name])
	}
	if _, ok := field(out, "id"); !ok && r.id != "" && x.placed(r) {
		out["id"] = r.id
	}
	if p := r.parent; p != nil && (p.existing || p.excluded) { // r stands by itself, under its whole name
		if r.name != "" {
			out["type"], out["name"] = r.kind, r.name
		} else if kind, ok := r.head["type"].(string); ok && p.kind != "" && !strings.Contains(kind, "/") {
			out["type"] = p.kind + "/" + kind
		}
	}
	if s := r.template(); s != nil {
		properties := object(out, "properties")
		if properties == nil {
			properties = map[string]any{}
			out["properties"] = properties
		}
		properties["template"] = x.document(s)
	}
	var children []any
	for _, child := range r.children {
		children = x.resource(children, child)
	}
	if r.existing {
		return append(list, children...)
	}
	if len(children) > 0 {
		out["resources"] = children
	}
	return append(list, out)
}

// placed reports that somebody said where the resource goes. Else its id would be made
// of defaults, and its name alone is what others know.
func (x *exporter) placed(r *instance) bool {
	return x.options.Subscription != "" || x.options.ResourceGroup != "" || r.root().in() != x.options.group()
}

// value escapes texts that would be read as expressions, and writes down what was not
// evaluated as it was found.
func (x *exporter) value(v any) any {
	defer x.budget.leave()
	err := x.budget.enter()
	if err == nil {
		err = x.budget.step(1)
	}
	if err != nil {
		return x.open(frame{scope: &scope{engine: x.engine, file: x.options.File}}.problem("", "[...]", err))
	}
	switch v := v.(type) {
	case unresolved:
		return x.open(v)
	case string:
		if len(v) > 0 && v[0] == '[' {
			return "[" + v
		}
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = x.value(e)
		}
		return list
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, name := range sortedKeys(v) {
			out[name] = x.value(v[name])
		}
		return out
	}
	return v
}

func (x *exporter) open(u unresolved) any {
	p := u.problem
	key := p.File + "\x00" + p.Place + "\x00" + p.Expression
	if !x.seen[key] {
		x.seen[key] = true
		x.result.Problems = append(x.result.Problems, p)
	}
	return p.Expression
}
