// Package template evaluates ARM templates: parameters, variables, loops, conditions,
// nested and linked deployments, and the expressions ("[...]") in them.
//
// Evaluate returns the document with its resources as Azure would get them. It never
// fails as a whole. An expression that cannot be evaluated stays as it is written, and
// Result.Problems has its place and reason. Evaluation is lazy: a missing parameter
// affects only the values that depend on it.
//
// # What only Azure knows
//
// Evaluation never asks Azure. subscription(), resourceGroup(), deployment() and
// environment() answer from Options, except for names and tags. reference() of a resource
// of the template gives its evaluated properties, and those that Azure derives from them
// by a documented rule: the ids of elements such as subnets, a storage account's
// primaryEndpoints, a public address's dnsSettings.fqdn, a key vault's vaultUri. All else,
// such as the address of a NIC that has none written down, and list*(), comes from
// Options.Runtime or is a problem.
//
// # Nested deployments
//
// A parameter of a nested template has the value that the deployment passes, in whatever
// form. Null is as if it passed none. A form that is not understood is a problem and never
// the parameter's default. The deployment's scope of expressions depends on its option
// alone, not on what is known of its name.
//
// uniqueString gives Azure's value in the eight published examples of the tests; a ninth,
// of a long resource id, differs. guid follows Azure's documentation. newGuid and utcNow
// are constant in an evaluation. newGuid depends only on the names of the deployment and
// the parameter, so that reading a file again gives the same policy.
//
// # Values
//
// Values are those of encoding/json with numbers as json.Number. Objects have no order:
// string() and items() sort fields by name.
//
// # Bounds
//
// Templates may come from anybody. The caps are in limits.go, and errors name them.
package template

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// NoSubscription is the subscription's id when Options have none.
const NoSubscription = "00000000-0000-0000-0000-000000000000"

// NoResourceGroup is the resource group's name when Options have none.
const NoResourceGroup = "nsgd"

// Options are the values of a deployment. The zero value works.
type Options struct {
	// Context ends the evaluation early, with its cause as the reason; nil: nothing does.
	Context context.Context
	// File names the template in problems. Links are relative to it.
	File string
	// Parameters are values by name. A Text is converted to the declared type.
	Parameters map[string]any
	// Subscription is an id; empty: NoSubscription.
	Subscription string
	// Tenant is an id; empty: zeros like NoSubscription.
	Tenant string
	// ResourceGroup is a name; empty: NoResourceGroup.
	ResourceGroup string
	// Location is the resource group's location; empty: "westeurope".
	Location string
	// Deployment is a name; empty: the file's name without extension, as with az.
	Deployment string
	// Now is the answer of utcNow(); zero: the beginning of 1970.
	Now time.Time
	// Runtime holds values that only Azure knows: resources in the form of Azure's answers,
	// by id or name. Answers of list functions are under the functions' names.
	Runtime map[string]any
	// ReadFile reads linked templates and their parameters files below Folder; nil: they are not read.
	ReadFile func(path string) ([]byte, error)
	// Folder holds every file that links may name; empty: the folder of File.
	Folder string
}

// Text is the value of a parameter from a command line.
type Text string

// Result is an evaluated template.
type Result struct {
	// Document is the template with "resources" evaluated. Loops are rolled out, resources
	// that a condition excludes are gone, and deployments hold their nested and linked
	// templates. The expressions of Problems are still there.
	Document map[string]any
	// Problems are in the order of the document, each once.
	Problems []*Problem
	// Links are templates that were not read, so that Document lacks their resources.
	Links []*Problem
	// Guesses are absolute links for which a file was read whose path ends like theirs.
	Guesses []*Problem
	// Faults are wrong values of parameters, and arguments of deployments that Azure refuses. Whatever depends on them
	// is wrong too.
	Faults []*Problem
	// Outputs are the values of the template's outputs that can be evaluated.
	Outputs map[string]any
	// Asked are the keys of Options.Runtime that expressions asked for, in lower case.
	Asked []string

	origins origins
	order   *order
}

func (o *Options) tenant() string {
	if o.Tenant != "" {
		return o.Tenant
	}
	return NoSubscription
}

func (o *Options) group() group {
	g := group{subscription: o.Subscription, name: o.ResourceGroup, location: o.Location}
	if g.subscription == "" {
		g.subscription = NoSubscription
	}
	if g.name == "" {
		g.name = NoResourceGroup
	}
	if g.location == "" {
		g.location = "westeurope"
	}
	return g
}

// Evaluate evaluates a template. Its numbers must be json.Number.
func Evaluate(document map[string]any, o Options) *Result {
	b := newBudget(o.Context)
	n := nodes(document)
	b.steps += stepsOfNode * n
	b.bytes += bytesOfNode * n
	return evaluate(document, o, b)
}

func evaluate(document map[string]any, o Options, b *budget) *Result {
	e := newEngine(o, b)
	e.result.origins = make(origins, objects(document))
	s := e.newScope(o.File, "", document)
	s.name = o.Deployment
	if s.name == "" {
		base := filepath.Base(o.File)
		s.name = base[:len(base)-len(filepath.Ext(base))]
	}
	s.target = o.group().of(document)
	s.home = s.target
	e.base = s.target
	s.takeParameters(o.Parameters)
	s.expand()
	x := exporter{engine: e, seen: map[string]bool{}, made: map[*instance]map[string]any{}}
	e.result.Document = x.document(s)
	e.result.Links, e.result.Guesses = once(e.result.Links), once(e.result.Guesses)
	outputs := s.outputs()
	x.inOrder(s)
	e.result.Asked = slices.Sorted(maps.Keys(e.asked))
	e.result.Outputs = map[string]any{}
	for _, name := range sortedKeys(outputs) {
		if output, ok := outputs[name].(map[string]any); ok && e.budget.firstUnresolved(output) == nil {
			e.result.Outputs[name] = output["value"]
		}
	}
	if err := e.budget.spent; err != nil {
		if e.budget.where == nil {
			s.frame().problem("resources", "[resources]", err)
		}
		e.onlyProblem(unresolved{e.budget.where})
	}
	return e.result
}

// once drops what a template that was expanded again said again.
func once(list []*Problem) []*Problem {
	type key struct{ file, place string }
	seen := map[key]bool{}
	return slices.DeleteFunc(list, func(p *Problem) bool {
		k := key{p.File, p.Place}
		again := seen[k]
		seen[k] = true
		return again
	})
}

// onlyProblem makes the result consist of one problem.
func (e *engine) onlyProblem(u unresolved) {
	e.result.Document = map[string]any{"resources": u.problem.Expression}
	e.result.Problems, e.result.Links, e.result.Guesses, e.result.Outputs = []*Problem{u.problem}, nil, nil, nil
}

// exporter turns evaluated values into a document.
type exporter struct {
	*engine
	seen map[string]bool
	made map[*instance]map[string]any // the object of Document for each resource
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

// resource adds a resource with its children and, for a deployment, its template. It leaves
// out a resource that exists already, but adds its new children.
func (x *exporter) resource(list []any, r *instance) []any {
	body, _ := r.evaluated().(map[string]any)
	out := make(map[string]any, len(body)+1)
	x.result.origins.note(out, body)
	x.made[r] = out
	for _, name := range sortedKeys(body) {
		out[name] = x.value(body[name])
	}
	if _, ok := field(out, "id"); !ok && r.id != "" && x.placed(r) {
		out["id"] = r.id
	}
	if p := r.parent; p != nil && (p.existing || p.excluded) { // r has no parent here, so it needs its whole name
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
		r.checkArguments(s)
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

// placed reports whether the resource's subscription and group were given. An id made of
// defaults is left out: other documents know only the name.
func (x *exporter) placed(r *instance) bool {
	return x.options.Subscription != "" || x.options.ResourceGroup != "" || r.root().group() != x.base
}

// value escapes texts that look like expressions, and restores expressions that were not
// evaluated.
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
			if err := x.budget.alloc(len(v)); err != nil {
				return x.open(frame{scope: &scope{engine: x.engine, file: x.options.File}}.problem("", "[...]", err))
			}
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
		x.result.origins.note(out, v)
		if flat(v) { // no value in it is told in an order
			for name := range v {
				out[name] = x.value(v[name])
			}
			return out
		}
		for _, name := range sortedKeys(v) {
			out[name] = x.value(v[name])
		}
		return out
	}
	return v
}

// flat reports whether an object has nothing inside that may be open.
func flat(o map[string]any) bool {
	for _, v := range o {
		switch v.(type) {
		case unresolved, []any, map[string]any:
			return false
		}
	}
	return true
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
