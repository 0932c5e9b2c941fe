package template

import (
	"errors"
	"fmt"
	"maps"
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
	if r == nil && known == nil {
		return nil, fmt.Errorf("the resource %s is not in the template: only Azure knows its properties; give them with --runtime", clip(name))
	}
	if r == nil {
		return part(known, full), nil
	}
	return r.referred(known, full)
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
	if r := f.scope.symbols[strings.ToLower(name)]; r != nil {
		return r, nil
	}
	if r := f.engine.instances[strings.ToLower(strings.TrimSuffix(name, "/"))]; r != nil {
		return r, nil
	}
	segments := strings.Split(strings.Trim(name, "/"), "/")
	if strings.HasPrefix(name, "/") || len(segments) > 2 {
		if strings.HasPrefix(strings.ToLower(name), "/subscriptions/") || len(segments)%2 == 0 {
			return nil, nil
		}
		kind, names := segments[0], []string{}
		for i, s := range segments[1:] {
			if i%2 == 0 {
				kind += "/" + s
			} else {
				names = append(names, s)
			}
		}
		id, err := typedID(f.scope.target.id(), kind, names)
		if err != nil {
			return nil, nil
		}
		return f.engine.instances[strings.ToLower(id)], nil
	}
	for s := f.scope; s != nil; {
		var found *instance
		for _, r := range s.instances {
			if !strings.EqualFold(r.name, name) && !strings.EqualFold(lastName(r.name), name) || r.name == "" {
				continue
			}
			if found != nil && strings.EqualFold(found.name, r.name) != strings.EqualFold(r.name, name) {
				return nil, fmt.Errorf("the name %s fits several resources: %s and %s; allowed is a resource id", clip(name), found.id, r.id)
			}
			found = r
		}
		if found != nil || s.outer == nil {
			return found, nil
		}
		s = s.outer.scope
	}
	return nil, nil
}

// runtime is the object of a resource in Options.Runtime, by id or name.
func (f frame) runtime(name string, r *instance) map[string]any {
	keys := []string{name}
	if r != nil {
		keys = append(keys, r.id, r.name)
	}
	for _, key := range keys {
		if v := object(f.options.Runtime, strings.TrimSuffix(key, "/")); v != nil && key != "" {
			return v
		}
	}
	if i := strings.LastIndexByte(name, '/'); i >= 0 && r == nil {
		return object(f.options.Runtime, name[i+1:])
	}
	return nil
}

// referred is the resource as reference() returns it: the evaluated resource, overlaid with
// the properties that Azure derives, then with those of Options.Runtime.
func (r *instance) referred(known map[string]any, full bool) (any, error) {
	if r.isDeployment() {
		outputs := any(nil)
		if s := r.template(); s != nil {
			outputs = s.outputs()
		} else if known == nil {
			if _, err := r.nested.get(r.budget); err != nil {
				return nil, fmt.Errorf("the outputs of the deployment %s are not known: %w", r.name, err)
			}
		}
		return part(overlay(map[string]any{
			"id": r.id, "name": r.name, "type": r.kind,
			"properties": map[string]any{"outputs": outputs, "provisioningState": "Succeeded"},
		}, known), full), nil
	}
	if r.existing && known == nil {
		return nil, fmt.Errorf("the resource %s exists already: only Azure knows its properties; give them with --runtime", clip(r.id))
	}
	v, err := r.rest.get(r.budget)
	if err != nil {
		return nil, err
	}
	body, _ := v.(map[string]any)
	whole := maps.Clone(body)
	whole["id"] = r.id
	location := text(body, "location")
	if location == "" {
		location = r.target.location
	}
	if u, ok := get(body, "properties").(unresolved); ok {
		return nil, u.problem
	}
	properties := overlay(map[string]any{"provisioningState": "Succeeded"}, object(body, "properties"))
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

// derived are properties that Azure derives, by a documented rule of its public cloud, from
// a resource's name and properties.
func derived(kind, name, location string, properties map[string]any) map[string]any {
	region := strings.ToLower(strings.ReplaceAll(location, " ", ""))
	switch strings.ToLower(kind) {
	case "microsoft.storage/storageaccounts":
		endpoints := map[string]any{}
		for _, service := range []string{"blob", "queue", "table", "file", "dfs"} {
			endpoints[service] = "https://" + name + "." + service + ".core.windows.net/"
		}
		return map[string]any{"primaryEndpoints": endpoints, "primaryLocation": region}
	case "microsoft.network/publicipaddresses":
		if label := text(object(properties, "dnsSettings"), "domainNameLabel"); label != "" {
			fqdn := map[string]any{"fqdn": label + "." + region + ".cloudapp.azure.com"}
			return map[string]any{"dnsSettings": overlay(object(properties, "dnsSettings"), fqdn)}
		}
	case "microsoft.keyvault/vaults":
		return map[string]any{"vaultUri": "https://" + name + ".vault.azure.net/"}
	case "microsoft.web/sites":
		return map[string]any{"defaultHostName": name + ".azurewebsites.net"}
	}
	return nil
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
	if v, ok := field(f.runtime(name, r), function); ok {
		return v, nil
	}
	return nil, fmt.Errorf("only Azure knows what it answers for %s; give it with --runtime, as the field %s of the resource", clip(name), function)
}
