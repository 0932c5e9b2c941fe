package template

import (
	"errors"
	"fmt"
	"strings"
)

// takeArguments makes the cells of a nested template's parameters out of the values that deployment r passes.
func (s *scope) takeArguments(r *instance) {
	properties := object(r.body, "properties")
	argument := r.argument
	if written, ok := get(properties, "parameters").(map[string]any); ok && !computesNames(written) && get(properties, "parametersLink") == nil {
		arguments := folded(written)
		argument = func(name string) (any, error) { // evaluates this one alone
			v, _ := arguments.field(name)
			place := r.place + ".properties.parameters." + name
			return r.argumentValue(place, r.frame.tree(place, v))
		}
	}
	declared := object(s.template, "parameters")
	for _, name := range sortedKeys(declared) {
		s.declare(name, declared[name], func() (any, error) { return argument(name) })
	}
}

// argument is the value that a deployment passes for a parameter; nil when it passes none.
func (r *instance) argument(name string) (any, error) {
	if get(object(r.body, "properties"), "parametersLink") != nil {
		v, err := r.linkedParameters.get(r.budget)
		if err != nil {
			return nil, err
		}
		values, _ := v.(*foldedObject)
		value, _ := values.field(name)
		return value, nil
	}
	v, _ := r.arguments.get(r.budget)
	if r.passed == nil {
		passed, _ := v.(map[string]any)
		r.passed = folded(passed)
	}
	switch passed := v.(type) {
	case nil:
		return nil, nil
	case unresolved:
		return nil, passed.problem
	case map[string]any:
		if argument, ok := r.passed.field(name); ok {
			return r.argumentValue(r.place+".properties.parameters."+name, argument)
		}
		if u, ok := passed["copy"].(unresolved); ok { // its loop may make any argument
			return nil, u.problem
		}
		return nil, nil
	}
	return nil, fmt.Errorf("the parameters of a deployment are of type %s; allowed is an object", kindOf(v))
}

// computesNames reports whether the names of an object's fields depend on expressions.
func computesNames(o map[string]any) bool {
	for name, v := range o {
		if _, loops := propertyLoops(name, v); loops || malformedLoops(name, v) || isExpression(name) {
			return true
		}
	}
	return false
}

// argumentValue is the value of an evaluated argument: an object with a value, or with a reference to a secret.
func (r *instance) argumentValue(place string, argument any) (any, error) {
	switch argument := argument.(type) {
	case nil:
		return nil, nil
	case unresolved:
		return nil, argument.problem
	case map[string]any:
		if u, ok := argument["copy"].(unresolved); ok {
			return nil, u.problem
		}
		value, has := field(argument, "value")
		reference, hidden := field(argument, "reference")
		switch {
		case has && reference == nil:
			return value, nil
		case hidden && value == nil:
			return secret{reference}, nil
		}
	}
	shown := "of type " + kindOf(argument)
	if o, ok := argument.(map[string]any); ok {
		shown = "an object of: " + clip(strings.Join(sortedKeys(o), ", "))
	}
	return nil, fmt.Errorf("the argument %s is %s; allowed is an object with a value or a reference", place, shown)
}

// readParameters reads the file of a parametersLink. Its values are no expressions.
func (r *instance) readParameters() (any, error) {
	properties := object(r.body, "properties")
	place := r.place + ".properties.parametersLink"
	if get(properties, "parameters") != nil {
		return nil, errTwoArguments
	}
	f, err := r.follow(place, get(properties, "parametersLink"), "parameters file")
	if err != nil {
		return nil, r.frame.problem(f.place, f.written, err).problem
	}
	parameters, err := ParseParameters(f.data)
	if err != nil {
		return nil, r.frame.problem(f.place, f.written, fmt.Errorf("the parameters file %s: %w", f.path, err)).problem
	}
	return folded(parameters.Values), nil
}

var errTwoArguments = errors.New("a deployment has parameters and a parametersLink; allowed is one of both")

// checkArguments reports what Azure refuses in the arguments of a deployment: a name that its template does not
// declare would leave the default of the right one in force.
func (r *instance) checkArguments(s *scope) {
	place := r.place + ".properties.parameters"
	v, _ := r.arguments.get(r.budget)
	passed, _ := v.(map[string]any)
	if get(object(r.body, "properties"), "parametersLink") != nil {
		if place += "Link"; v != nil {
			r.frame.fault(place, errTwoArguments)
			return
		}
		if v, _ := r.linkedParameters.get(r.budget); v != nil {
			passed = v.(*foldedObject).object
		}
	}
	declared := folded(object(s.template, "parameters"))
	var unknown []string
	for _, name := range sortedKeys(passed) {
		_, known := declared.field(name)
		if _, open := passed[name].(unresolved); !known && !(open && name == "copy") {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		r.frame.fault(place+"."+unknown[0], fmt.Errorf("the deployment %s passes %s, which its template does not declare; declared are: %s",
			clip(r.name), clip(strings.Join(unknown, ", ")), clip(strings.Join(sortedKeys(declared.object), ", "))))
	}
}

// fault reports a value that Azure refuses.
func (f frame) fault(place string, err error) {
	p := f.problem(place, "["+place+"]", err).problem
	p.Expression = ""
	f.result.Faults = append(f.result.Faults, p)
}

// secret is a parameter's value that is in a key vault, with the reference to it.
type secret struct{ reference any }

// value is the secret's value out of Options.Runtime. root says that the parameter is one of the whole template.
func (x secret) value(f frame, parameter string, root bool) (any, error) {
	o, _ := x.reference.(map[string]any)
	vault, name := text(object(o, "keyVault"), "id"), text(o, "secretName")
	id := strings.TrimSuffix(vault, "/") + "/secrets/" + name
	if v, ok := field(f.runtime(id, nil), "value"); ok && name != "" {
		return v, nil
	}
	otherwise := ""
	if root {
		otherwise = fmt.Sprintf("--parameters %s=VALUE, or with ", parameter)
	}
	return nil, fmt.Errorf("the value of the parameter %s is in a key vault: only Azure knows it; give it with %s--runtime, as the field value of %s",
		parameter, otherwise, clip(id))
}
