package template

import (
	"errors"
	"fmt"
	"strings"
)

// IsDeployment reports whether a resource type holds a template: a deployment, or a deployment stack.
func IsDeployment(kind string) bool {
	return strings.EqualFold(kind, "Microsoft.Resources/deployments") || isStack(kind)
}

func isStack(kind string) bool {
	return strings.EqualFold(kind, "Microsoft.Resources/deploymentStacks")
}

func (r *instance) isDeployment() bool { return IsDeployment(r.kind) }

// template is the deployment's template; nil when there is none or it was not read.
func (r *instance) template() *scope {
	if !r.isDeployment() {
		return nil
	}
	s, _ := r.nested.get(r.budget)
	inner, _ := s.(*scope)
	return inner
}

// nest reads and expands the template of a deployment.
func (r *instance) nest() (any, error) {
	r.waiting--
	at := r.place + ".properties"
	if written, ok := get(r.body, "properties").(string); ok {
		return nil, r.unread(at, countText(written), errProperties)
	}
	properties := object(r.body, "properties")
	file, place := r.file, at+".template."
	inner, err := r.inner(properties)
	template, openTemplate := r.written(at+".template", get(properties, "template"))
	if openTemplate != nil {
		return nil, openTemplate // it is listed as a property
	}
	if link := get(properties, "templateLink"); link != nil && get(properties, "template") == nil {
		if template, file, err = r.linked(at+".templateLink", link); err != nil {
			return nil, err
		}
		inner, place = true, ""
	}
	if template == nil {
		return nil, nil
	}
	if err != nil {
		return nil, r.unread(at+".expressionEvaluationOptions", countText(get(properties, "expressionEvaluationOptions")), err)
	}
	s := r.newScope(file, place, template)
	s.name, s.caller, s.depth = lastName(r.name), r, r.depth+1
	s.target = r.group()
	if get(r.body, "resourceGroup") == nil {
		s.target = s.target.of(template)
	}
	s.home = s.target
	if s.depth > maxDeployments {
		return nil, r.unread(at+".template", "[template]", fmt.Errorf("deployments nest deeper than %d, the cap", maxDeployments))
	}
	if inner {
		s.takeArguments(r)
	} else {
		s.home = r.home
		s.outer = &r.frame
	}
	s.expand()
	return s, nil
}

// written is the template that stands in a deployment, which may be an expression, as Bicep writes the content of a file.
func (r *instance) written(place string, v any) (map[string]any, error) {
	if text, ok := v.(string); ok {
		v = r.frame.text(place, text)
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	case unresolved:
		return nil, v.problem
	}
	return nil, fmt.Errorf("the template of a deployment is of type %s; allowed is an object", kindOf(v))
}

var errProperties = errors.New("the properties of a deployment are an object; allowed is no expression")

// inner reports whether the expressions of a nested template see its own parameters and variables. Templates of language
// version 2 have the inner scope by default, and stacks have no other.
func (r *instance) inner(properties map[string]any) (bool, error) {
	if isStack(r.kind) {
		return true, nil
	}
	place := r.place + ".properties.expressionEvaluationOptions"
	v := r.frame.tree(place, get(properties, "expressionEvaluationOptions"))
	if o, ok := v.(map[string]any); ok {
		v = get(o, "scope")
	}
	switch scope := v.(type) {
	case unresolved:
		return false, scope.problem
	case nil:
		return text(r.scope.template, "languageVersion") == "2.0", nil
	case string:
		switch strings.ToLower(scope) {
		case "inner":
			return true, nil
		case "outer":
			return false, nil
		case "notspecified":
			return text(r.scope.template, "languageVersion") == "2.0", nil
		}
	}
	return false, fmt.Errorf("the scope of expressions is %s; allowed are inner and outer", clip(fmt.Sprint(v)))
}

func lastName(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// deploymentProperties are the properties without the template, which has its own scope.
func (r *instance) deploymentProperties(place string, v any) any {
	properties, ok := v.(map[string]any)
	if !ok {
		return r.frame.tree(place, v)
	}
	out := map[string]any{}
	for _, name := range sortedKeys(properties) {
		switch {
		case foldEqual(name, "template"):
			if _, err := r.written(place+"."+name, properties[name]); err != nil {
				out[name] = r.frame.problem(place+"."+name, countText(properties[name]), err)
			}
		case foldEqual(name, "parameters"):
			out[name], _ = r.arguments.get(r.budget)
		default:
			out[name] = r.frame.tree(place+"."+name, properties[name])
		}
	}
	return out
}

// outputs are those of a deployment; none of one without a template. The error says why its template was not read.
func (r *instance) outputs() (map[string]any, error) {
	if s := r.template(); s != nil {
		return s.outputs(), nil
	}
	if _, err := r.nested.get(r.budget); err != nil {
		return nil, fmt.Errorf("the outputs of the deployment %s are not known: %w", r.name, err)
	}
	return nil, nil
}

// outputs are the outputs by name, each with type and value.
func (s *scope) outputs() map[string]any {
	v, _ := s.results.get(s.budget)
	o, _ := v.(map[string]any)
	return o
}

func (s *scope) evaluateOutputs() map[string]any {
	declared := object(s.template, "outputs")
	out := make(map[string]any, len(declared))
	for _, name := range sortedKeys(declared) {
		output, ok := declared[name].(map[string]any)
		if !ok {
			continue
		}
		place := s.place + "outputs." + name
		f := s.frame()
		value := f.tree(place+".value", get(output, "value"))
		if condition, ok := field(output, "condition"); ok {
			switch v := f.tree(place+".condition", condition).(type) {
			case bool:
				if !v {
					continue
				}
			case unresolved:
				out[name] = v
				continue
			}
		}
		if l := object(output, "copy"); l != nil {
			value = f.outputLoop(place+".copy", l)
		}
		out[name] = map[string]any{"type": text(output, "type"), "value": value}
	}
	return out
}

func (f frame) outputLoop(place string, l map[string]any) any {
	made := map[string]any{}
	f.repeat(place, map[string]any{"name": "value", "count": get(l, "count"), "input": get(l, "input")}, made)
	if v, open := made["copy"]; open {
		return v
	}
	return made["value"]
}
