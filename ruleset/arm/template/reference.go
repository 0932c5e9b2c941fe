package template

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var resourceFunctions = map[string]function{
	"reference":  {least: 1, most: 3, call: reference},
	"references": {least: 1, most: 2, call: references},
	"resourceId": {least: 2, most: many, call: func(f frame, args []any) (any, error) {
		parts, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		in := f.home
		for i, part := range parts[:min(3, len(parts))] {
			if !isType(part) {
				continue
			}
			switch i {
			case 1:
				in.name = parts[0]
			case 2:
				in.subscription, in.name = parts[0], parts[1]
			}
			return typedID(in.id(), part, splitNames(parts[i+1:]))
		}
		return nil, errors.New("there is no resource type such as Microsoft.Network/virtualNetworks among the first three arguments")
	}},
	"subscriptionResourceId": {least: 2, most: many, call: func(f frame, args []any) (any, error) {
		parts, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		in := f.home.subscription
		if !isType(parts[0]) {
			in, parts = parts[0], parts[1:]
		}
		return typedID("/subscriptions/"+in, parts[0], splitNames(parts[1:]))
	}},
	"tenantResourceId": {least: 2, most: many, call: func(_ frame, args []any) (any, error) {
		parts, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		return typedID("", parts[0], splitNames(parts[1:]))
	}},
	"managementGroupResourceId": {least: 2, most: many, call: func(_ frame, args []any) (any, error) {
		parts, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		scope := "/providers/Microsoft.Management/managementGroups/"
		if isType(parts[0]) {
			return nil, errors.New("the management group is not known; it may be the first argument")
		}
		return typedID(scope+parts[0], parts[1], splitNames(parts[2:]))
	}},
	"extensionResourceId": {least: 3, most: many, call: func(_ frame, args []any) (any, error) {
		parts, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		return typedID(strings.TrimSuffix(parts[0], "/"), parts[1], splitNames(parts[2:]))
	}},
	// pickZones counts zones from 1. Only Azure knows which zones a location has.
	"pickZones": {least: 3, most: 5, deep: true, call: func(_ frame, args []any) (any, error) {
		count, offset := int64(1), int64(0)
		var err error
		if len(args) > 3 {
			if count, err = argInt(args, 3); err != nil {
				return nil, err
			}
		}
		if len(args) > 4 {
			if offset, err = argInt(args, 4); err != nil {
				return nil, err
			}
		}
		if count < 1 || count > 3 || offset < 0 || offset > 2 {
			return nil, errors.New("allowed are 1 to 3 zones and an offset from 0 to 2")
		}
		zones := []any{}
		for i := offset; i < min(count+offset, 3); i++ {
			zones = append(zones, string(number(i+1)))
		}
		return zones, nil
	}},
	"providers": {least: 1, most: 2, call: func(frame, []any) (any, error) {
		return nil, errors.New("only Azure knows a provider's API versions and locations; write the version down")
	}},
	"managementGroup": {call: func(frame, []any) (any, error) {
		return nil, errors.New("a management group's properties are known to Azure only")
	}},
	"deployer": {call: func(frame, []any) (any, error) {
		return nil, errors.New("who deploys the template is known to Azure only")
	}},
}

// isType reports whether s is a resource type with its provider, and not a name or an id.
func isType(s string) bool { return strings.Contains(strings.Trim(s, "/"), "/") }

// splitNames splits names of several segments, which Azure allows.
func splitNames(names []string) []string {
	var list []string
	for _, name := range names {
		list = append(list, strings.Split(name, "/")...)
	}
	return list
}

// reference returns the properties of a resource, or the whole resource with 'Full'.
func reference(f frame, args []any) (any, error) {
	name, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	if f.scope.expanding {
		return nil, errors.New("names, types, conditions and counts of resources are needed before anything is deployed; allowed is no reference() there")
	}
	full := false
	if len(args) == 3 {
		option, err := argString(args, 2)
		if err != nil {
			return nil, err
		}
		full = strings.EqualFold(option, "Full")
	}
	r, err := f.find(name)
	if err != nil {
		return nil, err
	}
	known := f.runtime(name, r)
	if r != nil && r.existing && r.id != "" { // it may be a resource of the template all the same
		name = r.id
		if r, err = f.find(name); err != nil {
			return nil, err
		}
	}
	f.needs(r)
	if r == nil && known == nil {
		if p, err := f.inlinePart(name, full); p != nil || err != nil {
			return p, err
		}
		return nil, fmt.Errorf("the resource %s is not in the template: only Azure knows its properties; give them with --runtime", clip(name))
	}
	if r == nil {
		return part(known, full), nil
	}
	v, err := r.referred(known, full)
	for _, other := range f.engine.instances[strings.ToLower(r.id)] {
		if other == r || other.rest.state == busy || err != nil {
			continue
		}
		w, otherErr := other.referred(known, full)
		if otherErr != nil {
			return nil, otherErr
		}
		v = r.agreed(v, w, full)
	}
	return v, err
}

// agreed is what two resources with the id of r have in common: one updates the other, and only Azure knows which holds.
func (r *instance) agreed(v, w any, deep bool) any {
	a, ok := v.(map[string]any)
	b, also := w.(map[string]any)
	if !ok || !also {
		return v
	}
	out := make(map[string]any, len(a))
	other := folded(b)
	for _, name := range sortedKeys(a) {
		mine := a[name]
		theirs, has := other.field(name)
		_, open := mine.(unresolved)
		switch {
		case open || has && equal(mine, theirs):
			out[name] = mine
		case deep && foldEqual(name, "properties"):
			out[name] = r.agreed(mine, theirs, false)
		default:
			out[name] = r.frame.problem(r.place, "["+name+"]", fmt.Errorf("the template has %s several times with different %s, and which one holds is not known", clip(r.id), name))
		}
	}
	for _, name := range sortedKeys(b) {
		if _, ok := field(a, name); !ok {
			out[name] = r.frame.problem(r.place, "["+name+"]", fmt.Errorf("the template has %s several times, once without %s, and which one holds is not known", clip(r.id), name))
		}
	}
	return out
}

// references returns the resources of a loop's symbolic name.
func references(f frame, args []any) (any, error) {
	symbol, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, r := range f.scope.instances {
		if r.symbol != "" && strings.EqualFold(r.symbol, symbol) {
			f.needs(r)
			full := len(args) == 2 && args[1] == "Full"
			v, err := r.referred(f.runtime(r.id, r), full)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the template has no loop of resources with the symbolic name %s", clip(symbol))
	}
	return list, nil
}

func part(resource map[string]any, full bool) any {
	if full {
		return resource
	}
	if p := object(resource, "properties"); p != nil {
		return p
	}
	return resource
}

// find finds the resource of a reference: a symbolic name, an id, a type with a name, or a
// name that only one resource of the template has. Nil when there is none.
func (f frame) find(name string) (*instance, error) {
	f.engine.expandAll()
	for s := f.scope; s != nil; s = s.outerScope() {
		if r := s.symbols[strings.ToLower(name)]; r != nil {
			return r, nil
		}
	}
	trimmed := strings.Trim(name, "/")
	rooted := strings.HasPrefix(name, "/")
	switch segments := strings.Split(trimmed, "/"); {
	case strings.EqualFold(segments[0], "subscriptions"), rooted && strings.EqualFold(segments[0], "providers"):
		return f.registered("/" + trimmed)
	case strings.EqualFold(segments[0], "resourceGroups"):
		return f.registered("/subscriptions/" + f.target.subscription + "/" + trimmed)
	case strings.EqualFold(segments[0], "providers"):
		return f.relative(trimmed[len("providers/"):])
	case rooted || len(segments) > 2:
		return f.relative(trimmed)
	}
	return f.byName(name)
}

// inlinePart is a resource that stands only in a list of its parent, such as a subnet of a network; nil when there is
// none of that id.
func (f frame) inlinePart(id string, full bool) (any, error) {
	segments := strings.Split(strings.TrimSuffix(id, "/"), "/")
	n := len(segments) - 2
	if n < 8 { // the parent's id has two segments for subscription, group and provider, and two of its own
		return nil, nil
	}
	parent, err := f.find(strings.Join(segments[:n], "/"))
	if parent == nil || err != nil {
		return nil, err
	}
	f.needs(parent)
	v, err := parent.referred(nil, false)
	if err != nil {
		return nil, err
	}
	properties, _ := v.(map[string]any)
	list, _ := get(properties, segments[n]).([]any)
	for _, e := range list {
		if o, ok := e.(map[string]any); ok && strings.EqualFold(text(o, "name"), segments[n+1]) {
			return part(o, full), nil
		}
	}
	return nil, nil
}

// registered finds the resource of an id.
func (f frame) registered(id string) (*instance, error) {
	list := f.engine.instances[strings.ToLower(id)]
	if len(list) == 0 {
		return nil, nil
	}
	return only(list, id)
}

// relative finds a resource by its type and name, such as Microsoft.Network/virtualNetworks/v/subnets/s: where the
// template's resources are deployed, then where its expressions stand.
func (f frame) relative(name string) (*instance, error) {
	for _, in := range []group{f.target, f.home} {
		if r, err := f.registered(in.id() + "/providers/" + name); r != nil || err != nil {
			return r, err
		}
	}
	return nil, nil
}

// byName finds a resource of the template by its name, else by the name's last part. Expressions of the outer scope mean
// the outer template's resources first.
func (f frame) byName(name string) (*instance, error) {
	var scopes []*scope
	for s := f.scope; s != nil; s = s.outerScope() {
		scopes = append(scopes, s)
	}
	for _, s := range slices.Backward(scopes) {
		var whole, last []*instance
		walked := 0
		s.each(func(r *instance) {
			walked++
			switch {
			case r.name == "":
			case strings.EqualFold(r.name, name):
				whole = append(whole, r)
			case strings.EqualFold(lastName(r.name), name):
				last = append(last, r)
			}
		})
		if err := f.budget.step(walked / elementsOfStep); err != nil {
			return nil, err
		}
		for _, list := range [][]*instance{whole, last} {
			if len(list) > 0 {
				return only(list, name)
			}
		}
	}
	return nil, nil
}

// only is the one resource of a list. Several of one id are one; the one that is being evaluated means another.
func only(list []*instance, name string) (*instance, error) {
	var found *instance
	same := true
	for _, r := range list {
		same = same && r.id != "" && strings.EqualFold(r.id, list[0].id)
		if found == nil || found.rest.state == busy {
			found = r
		}
	}
	if same || len(list) == 1 {
		return found, nil
	}
	places := make([]string, len(list))
	for i, r := range list {
		places[i] = r.kind + " at " + r.place
	}
	return nil, fmt.Errorf("%s fits several resources of the template: %s; which one holds is not known", clip(name), clip(strings.Join(places, ", ")))
}

// runtime is the object of a resource in Options.Runtime, by id or name.
func (f frame) runtime(name string, r *instance) map[string]any {
	keys := []string{name}
	if r != nil {
		keys = append(keys, r.id, r.name)
	}
	for _, key := range keys {
		key = strings.TrimSuffix(key, "/")
		if v := object(f.options.Runtime, key); v != nil && key != "" {
			f.asked[strings.ToLower(key)] = true
			return v
		}
	}
	if i := strings.LastIndexByte(name, '/'); i >= 0 && r == nil {
		f.asked[strings.ToLower(name[i+1:])] = true
		return object(f.options.Runtime, name[i+1:])
	}
	return nil
}

// referred is the resource as reference() returns it: the evaluated resource, overlaid with
// the properties that Azure derives, then with those of Options.Runtime.
func (r *instance) referred(known map[string]any, full bool) (any, error) {
	if r.isDeployment() {
		outputs, err := r.outputs()
		if err != nil && known == nil {
			return nil, err
		}
		id, name := any(r.id), any(r.name)
		if r.id == "" {
			id, name = r.openID(), r.openID()
		}
		return part(overlay(map[string]any{
			"id": id, "name": name, "type": r.kind,
			"properties": map[string]any{"outputs": outputs, "provisioningState": "Succeeded"},
		}, known), full), nil
	}
	v, err := r.rest.get(r.budget)
	if err != nil {
		return nil, err
	}
	body, _ := v.(map[string]any)
	whole := maps.Clone(body)
	if whole["id"] = r.id; r.id == "" {
		whole["id"] = r.openID()
	}
	location := text(body, "location")
	if location == "" {
		location = r.target.location
	}
	if u, ok := get(body, "properties").(unresolved); ok {
		return nil, u.problem
	}
	properties := overlay(map[string]any{"provisioningState": "Succeeded"}, object(body, "properties"))
	parts, err := r.parts(properties)
	if err != nil {
		return nil, err
	}
	properties = overlay(properties, parts)
	whole["properties"] = overlay(properties, derived(r.kind, lastName(r.name), location, properties))
	if known != nil {
		merged := overlay(whole, known)
		merged["properties"] = overlay(object(whole, "properties"), object(known, "properties"))
		whole = merged
	}
	return part(whole, full), nil
}

// overlay puts the fields of one object over another's, in any case.
func overlay(below, above map[string]any) map[string]any {
	out := make(map[string]any, len(below)+len(above))
	names := make(map[string]string, len(below))
	for name, v := range below {
		out[name] = v
		names[strings.ToLower(name)] = name
	}
	for name, v := range above {
		if other, ok := names[strings.ToLower(name)]; ok && other != name {
			delete(out, other)
		}
		out[name] = v
	}
	return out
}

// list answers the functions whose names begin with list, such as listKeys.
func (f frame) list(function string, args []any) (any, error) {
	name, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	r, err := f.find(name)
	if err != nil {
		return nil, err
	}
	f.needs(r)
	if v, ok := field(f.runtime(name, r), function); ok {
		return v, nil
	}
	if r != nil && r.isDeployment() && foldEqual(function, "listOutputsWithSecureValues") {
		outputs, err := r.outputs()
		values := make(map[string]any, len(outputs))
		for name, output := range outputs {
			values[name] = output // open, or:
			if o, ok := output.(map[string]any); ok {
				values[name] = o["value"]
			}
		}
		return values, err
	}
	return nil, fmt.Errorf("only Azure knows what it answers for %s; give it with --runtime, as the field %s of the resource", clip(name), function)
}
