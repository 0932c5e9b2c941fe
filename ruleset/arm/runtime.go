package arm

import (
	"maps"
	"slices"
	"strings"
)

// addRuntime puts what Azure shows of resources over what the documents say of them, and
// adds those that exist elsewhere.
func (l *loader) addRuntime() { l.add(func(k kind) bool { return k != scaleSetKind }) }

// addScaleSets is addRuntime for scale sets.
func (l *loader) addScaleSets() { l.add(func(k kind) bool { return k == scaleSetKind }) }

func (l *loader) add(fit func(kind) bool) {
	for _, key := range slices.Sorted(maps.Keys(l.values.runtime)) {
		shown, ok := l.values.runtime[key].(map[string]any)
		if !ok {
			continue
		}
		shown = maps.Clone(shown)
		if isID := strings.Contains(key, "/providers/"); isID && lookup(shown, "id") == nil {
			shown["id"] = key
		} else if !isID && lookup(shown, "name") == nil {
			shown["name"] = key
		}
		k, _ := kindOf(shown, nil)
		if !fit(k) {
			continue
		}
		r := newResource(k, l.values.Runtime, shown, nil)
		found := l.shownBy(r, key)
		switch {
		case len(found) == 1:
			l.stale = l.stale || found[0].built != nil
			found[0].again = true
			found[0].body = overlay(found[0].body, shown)
		case len(found) == 0 && k != otherKind:
			l.resources = append(l.resources, r)
		}
	}
}

// shownBy are the resources of the documents that Azure's answer under a key may show.
func (l *loader) shownBy(shown *resource, key string) (found []*resource) {
	for _, r := range l.resources {
		if shown.kind != otherKind && shown.kind != r.kind || r.nameUnknown {
			continue
		}
		path, name := r.name, referredName(r.kind, shown.id)
		switch {
		case r.kind == interfaceKind && r.parent != nil:
			path, name = r.path(), shown.path()
		case r.parentName != "":
			path = lastSegment(r.parentName) + "/" + r.name
		}
		switch in := scopeOf(shown.id); {
		case strings.EqualFold(r.id, shown.id) && r.id != "",
			strings.EqualFold(key, path),
			shown.id != "" && strings.EqualFold(name, path) && (&entry{scope: r.scope()}).near(in, "") != apart:
			found = append(found, r)
		}
	}
	return found
}

// overlay puts the properties of one form of a resource over those of another. Named elements
// of lists are put over each other.
func overlay(body, above map[string]any) map[string]any {
	out := maps.Clone(body)
	for _, p := range properties(above) {
		out = withProperty(out, p.name, overlaid(propertyOf(out, p.name), p.value))
	}
	return out
}

func overlaid(below, above any) any {
	switch above := above.(type) {
	case map[string]any:
		if o, ok := below.(map[string]any); ok && lookup(above, "id") == nil {
			return overlay(o, above)
		}
	case []any:
		list, ok := below.([]any)
		if !ok {
			return above
		}
		list = slices.Clone(list)
		for _, v := range above {
			element, ok := v.(map[string]any)
			if !ok || nameIn(v) == "" {
				return above
			}
			i := slices.IndexFunc(list, func(have any) bool { return strings.EqualFold(nameIn(v), nameIn(have)) })
			if i < 0 {
				list = append(list, v)
				continue
			}
			list[i] = overlay(list[i].(map[string]any), element)
		}
		return list
	}
	return above
}
