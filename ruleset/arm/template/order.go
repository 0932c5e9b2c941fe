package template

import (
	"strings"

	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
)

// Step is the deployment of one resource.
type Step struct {
	// Turn counts from 1, in one of the orders that Azure may take.
	Turn int
	// Place is the path of the resource in its template, with the file before it in a linked one.
	Place string
	// Deployment is the step whose template has the resource; nil for the whole template's own.
	Deployment *Step
	depth      int
	needs      []*Step
	resource   *instance // nil for several of one name
	visited    bool
	order      *order
}

// order is the order of a whole template's steps.
type order struct {
	made  map[uintptr]*Step // by the identity of the objects of Document
	turns int
	// earlier are the steps that come before one, the last that was asked for.
	of      *Step
	earlier map[*Step]bool
}

// Step is when a resource of Document is deployed; nil for any other object.
func (r *Result) Step(object map[string]any) *Step {
	if r.order == nil {
		return nil
	}
	return r.order.made[jsonc.Identity(object)]
}

// Before reports whether Azure deploys s before o for certain. It is not safe for concurrent use.
func (s *Step) Before(o *Step) bool {
	for s.depth > o.depth {
		s = s.Deployment
	}
	for o.depth > s.depth {
		o = o.Deployment
	}
	for s.Deployment != o.Deployment {
		s, o = s.Deployment, o.Deployment
	}
	if s.order.of != o {
		s.order.of, s.order.earlier = o, map[*Step]bool{}
		waiting := []*Step{o}
		for len(waiting) > 0 {
			last := waiting[len(waiting)-1]
			waiting = waiting[:len(waiting)-1]
			for _, n := range last.needs {
				if !s.order.earlier[n] {
					s.order.earlier[n] = true
					waiting = append(waiting, n)
				}
			}
		}
	}
	return s.order.earlier[s]
}

// needs records that the resource of an expression is deployed after another, whose values it has.
func (f frame) needs(r *instance) {
	if f.of != nil && r != nil && f.of != r {
		f.engine.needed = append(f.engine.needed, [2]*instance{f.of, r})
	}
}

// inOrder puts the resources of a template and of its deployments into the order of their deployment.
func (x *exporter) inOrder(root *scope) {
	needed := map[*instance][]*instance{}
	for _, pair := range x.needed {
		a, b := pair[0], pair[1]
		for a.depth > b.depth {
			a = a.caller
		}
		for b.depth > a.depth {
			b = b.caller
		}
		for a.scope != b.scope && a.caller != nil {
			a, b = a.caller, b.caller
		}
		needed[a] = append(needed[a], b)
	}
	x.result.order = &order{made: make(map[uintptr]*Step, len(x.made))}
	x.scopeInOrder(root, nil, needed)
}

func (x *exporter) scopeInOrder(s *scope, deployment *Step, needed map[*instance][]*instance) {
	var list []*Step
	steps, named := map[*instance]*Step{}, map[string]*Step{}
	s.each(func(r *instance) {
		step := &Step{Place: r.place, Deployment: deployment, depth: s.depth, resource: r, order: x.result.order}
		if r.file != x.options.File {
			step.Place = r.file + ": " + r.place
		}
		list = append(list, step)
		steps[r] = step
		if made := x.made[r]; made != nil {
			x.result.order.made[jsonc.Identity(made)] = step
		}
		for _, name := range r.names() {
			switch other := named[name]; {
			case name == "" || other == step:
			case other == nil:
				named[name] = step
			case other.resource == nil:
				other.needs = append(other.needs, step)
			default:
				named[name] = &Step{needs: []*Step{other, step}}
			}
		}
	})
	for _, step := range list {
		r := step.resource
		body, _ := r.evaluated().(map[string]any)
		after, _ := get(body, "dependsOn").([]any)
		for _, v := range after {
			text, _ := v.(string)
			if n := named[strings.ToLower(text)]; n != nil {
				step.needs = append(step.needs, n)
			} else if n := named[path(text)]; n != nil {
				step.needs = append(step.needs, n)
			}
		}
		for _, n := range needed[r] {
			if other := steps[n]; other != nil {
				step.needs = append(step.needs, other)
			}
		}
		if r.parent != nil && steps[r.parent] != nil {
			step.needs = append(step.needs, steps[r.parent])
		} else if strings.Count(r.kind, "/") > 1 && r.id != "" { // a child comes after its parent, or Azure refuses it
			parent := lastName(strings.ToLower(r.id))
			parent = strings.TrimSuffix(strings.ToLower(r.id), "/"+parent)
			if n := named[parent[:strings.LastIndexByte(parent, '/')]]; n != nil {
				step.needs = append(step.needs, n)
			}
		}
	}
	var visit func(step *Step)
	visit = func(step *Step) {
		if step.visited {
			return
		}
		step.visited = true
		for _, n := range step.needs {
			visit(n)
		}
		if step.resource == nil {
			return
		}
		x.result.order.turns++
		step.Turn = x.result.order.turns
		if inner := step.resource.template(); inner != nil {
			x.scopeInOrder(inner, step, needed)
		}
		step.resource = nil // so that the result does not keep the evaluation
	}
	for _, step := range list {
		visit(step)
	}
}

// names are what a dependsOn may call the resource, in lower case: its id, type and name, symbolic name, or its loop.
func (r *instance) names() []string {
	names := []string{strings.ToLower(r.id), path(r.id), strings.ToLower(r.name), strings.ToLower(r.symbol), strings.ToLower(r.loop)}
	if n := len(r.frame.loops); n > 0 && r.symbol != "" {
		names = append(names, symbolOfPass(r.symbol, r.frame.loops[n-1]))
	}
	return names
}

// path is an id behind its last "/providers/", in lower case.
func path(id string) string {
	id = strings.ToLower(id)
	if i := strings.LastIndex(id, "/providers/"); i >= 0 {
		return id[i+len("/providers/"):]
	}
	return strings.TrimPrefix(id, "/")
}
