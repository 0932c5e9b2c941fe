package terraform

import (
	"maps"
	"slices"
	"strings"
)

// config is the configuration of a plan's module.
type config struct {
	module  map[string]any
	parent  *config
	call    map[string]any // the parent's call of the module
	address string
	calls   map[string]*config
}

func newConfig(module map[string]any) *config {
	if module == nil {
		return nil
	}
	return (&config{}).child("", module, nil)
}

func (c *config) child(address string, module, call map[string]any) *config {
	n := &config{module: module, parent: c, call: call, address: address, calls: map[string]*config{}}
	calls := object(module, "module_calls")
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		inner := object(calls, name)
		n.calls[name] = n.child(join(address, "module."+name), object(inner, "module"), inner)
	}
	return n
}

func join(module, address string) string {
	if module == "" {
		return address
	}
	return module + "." + address
}

// at finds a module's configuration by its address, without regard to indexes.
func (c *config) at(address string) *config {
	if c == nil {
		return nil
	}
	parts := strings.Split(withoutIndexes(address), ".")
	for i := 0; i+1 < len(parts) && c != nil; i += 2 {
		c = c.calls[parts[i+1]]
	}
	return c
}

// withoutIndexes drops [0] and ["key"] from an address.
func withoutIndexes(address string) string {
	var b strings.Builder
	depth := 0
	for _, r := range address {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case depth == 0:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// expressions are those of a resource; nil without a configuration.
func (c *config) expressions(r *resource) map[string]any {
	if c = c.at(r.module); c == nil {
		return nil
	}
	for _, v := range list(c.module, "resources") {
		o, _ := v.(map[string]any)
		if text(o, "type") == r.kind && text(o, "name") == r.name && text(o, "mode") != "data" {
			if e := object(o, "expressions"); e != nil {
				return e
			}
			return map[string]any{}
		}
	}
	return nil
}

// maxReferences is how far a value is followed through modules.
const maxReferences = 32

// targets are the addresses of the resources that an expression of a module refers to by an
// attribute (".id", ".name"). whole reports whether the value comes from these alone.
func (c *config) targets(module string, expression map[string]any, attribute string, depth int) (found []string, whole bool) {
	at := c.at(module)
	references := list(expression, "references")
	if at == nil || depth > maxReferences || len(references) == 0 {
		return nil, false
	}
	whole = true
	var before string
	for _, v := range references {
		reference, _ := v.(string)
		// After a.b.id Terraform also lists a.b, which is not a separate reference.
		if before != "" && isPart(reference, before) {
			continue
		}
		before = reference
		more, followed := c.follow(at, module, reference, attribute, depth)
		whole = whole && followed
		for _, target := range more {
			if !slices.Contains(found, target) {
				found = append(found, target)
			}
		}
	}
	return found, whole
}

// isPart reports whether a reference is the beginning of a longer one.
func isPart(reference, longer string) bool {
	rest, ok := strings.CutPrefix(longer, reference)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// follow finds the resources of one reference. ok is false when it is not the attribute of a
// resource.
func (c *config) follow(at *config, module, reference, attribute string, depth int) (found []string, ok bool) {
	parts := strings.Split(reference, ".")
	switch {
	case strings.HasSuffix(reference, attribute) && len(parts) >= 3 && parts[0] != "module":
		return []string{join(module, strings.TrimSuffix(reference, attribute))}, true
	case parts[0] == "module" && len(parts) >= 3:
		inner := at.calls[withoutIndexes(parts[1])]
		if inner == nil {
			return nil, false
		}
		output := object(object(object(inner.module, "outputs"), withoutIndexes(parts[2])), "expression")
		return c.targets(join(module, "module."+parts[1]), output, attribute, depth+1)
	case parts[0] == "var" && len(parts) >= 2 && at.parent != nil && at.call != nil:
		argument := object(object(at.call, "expressions"), withoutIndexes(parts[1]))
		return c.targets(parentModule(module), argument, attribute, depth+1)
	}
	return nil, false
}

// parentModule is the address of the module around one.
func parentModule(address string) string {
	i := strings.LastIndex(address, ".module.")
	if i < 0 {
		return ""
	}
	return address[:i]
}
