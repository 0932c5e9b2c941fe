package template

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

var errTemplate = errors.New("the template of a deployment is an object; allowed is no expression")

func (r *instance) isDeployment() bool {
	return strings.EqualFold(r.kind, "Microsoft.Resources/deployments")
}

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
	properties := object(r.body, "properties")
	inner := strings.EqualFold(text(object(properties, "expressionEvaluationOptions"), "scope"), "inner")
	file, place := r.file, r.place+".properties.template."
	template := object(properties, "template")
	if link := object(properties, "templateLink"); link != nil && template == nil {
		var err error
		if template, file, err = r.linked(r.place+".properties.templateLink", link); err != nil {
			return nil, err
		}
		inner, place = true, ""
	}
	if template == nil {
		return nil, nil
	}
	s := r.newScope(file, place, template)
	s.name, s.depth = lastName(r.name), r.depth+1
	s.target = r.group()
	s.home = s.target
	if s.depth > maxDeployments {
		p := r.frame.problem(r.place+".properties.template", "[template]", fmt.Errorf("deployments nest deeper than %d, the cap", maxDeployments)).problem
		r.result.Links = append(r.result.Links, p)
		return nil, p
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

func lastName(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// deploymentProperties are the properties without the template, which has its own scope.
func (r *instance) deploymentProperties(place string, v any) any {
	properties, ok := v.(map[string]any)
	if !ok {
		return r.frame.tree(place, v)
	}
	out := map[string]any{}
	for _, name := range sortedKeys(properties) {
		_, written := properties[name].(string)
		switch {
		case foldEqual(name, "template") && written:
			out[name] = r.frame.problem(place+"."+name, countText(properties[name]), errTemplate)
		case !foldEqual(name, "template"):
			out[name] = r.frame.tree(place+"."+name, properties[name])
		}
	}
	return out
}

// linked reads the template of a templateLink, whose file must lie beside this template's.
func (r *instance) linked(place string, link map[string]any) (map[string]any, string, error) {
	name := "relativePath"
	if get(link, name) == nil {
		name = "uri"
	}
	place += "." + name
	written := countText(get(link, name))
	leave := func(err error) (map[string]any, string, error) {
		p := r.frame.problem(place, written, err).problem
		r.result.Links = append(r.result.Links, p)
		return nil, "", p
	}
	if get(link, "id") != nil {
		return leave(errors.New("the linked template is a template spec: only Azure has it"))
	}
	v := r.frame.tree(place, get(link, name))
	if u, ok := v.(unresolved); ok {
		return leave(u.problem)
	}
	uri, ok := v.(string)
	if !ok || uri == "" {
		return leave(fmt.Errorf("a link is a text, not of type %s", kindOf(v)))
	}
	uri, _, _ = strings.Cut(uri, "?") // a shared access signature
	if strings.Contains(uri, "://") {
		return leave(fmt.Errorf("the linked template %s is remote and is not fetched: lay it beside the template and name it by relativePath", clip(uri)))
	}
	file := filepath.Join(filepath.Dir(r.file), filepath.FromSlash(uri))
	within, err := filepath.Rel(filepath.Dir(r.options.File), file)
	if err != nil || !filepath.IsLocal(within) || r.options.ReadFile == nil {
		return leave(fmt.Errorf("the linked template %s is not below the folder of the template", clip(uri)))
	}
	data, err := r.options.ReadFile(file)
	if err != nil {
		return leave(fmt.Errorf("the linked template: %w", err))
	}
	if err := r.budget.alloc(len(data)); err != nil {
		return leave(err)
	}
	parsed, err := parseJSON(string(data))
	template, ok := parsed.(map[string]any)
	if err != nil || !ok {
		return leave(fmt.Errorf("the linked template %s is no JSON object: %v", file, err))
	}
	return template, file, nil
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
		if condition, ok := field(output, "condition"); ok && f.tree(place+".condition", condition) == false {
			continue
		}
		value := f.tree(place+".value", get(output, "value"))
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
