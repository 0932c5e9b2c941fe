package arm

import (
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// CodeRuntimeNotUsed is in Documents.Warnings: a value of --runtime that nothing takes. It is ours.
const CodeRuntimeNotUsed = "RuntimeValueNotUsed"

// addRuntime puts what Azure shows of resources over what the documents say of them, and
// adds those that exist elsewhere.
func (l *loader) addRuntime() { l.add(func(k kind) bool { return k != scaleSetKind }) }

// addScaleSets is addRuntime for scale sets.
func (l *loader) addScaleSets() { l.add(func(k kind) bool { return k == scaleSetKind }) }

func (l *loader) add(fit func(kind) bool) {
	for _, key := range slices.Sorted(maps.Keys(l.values.runtime)) {
		unused := func(why string) {
			l.warn(ruleset.Fault{Code: CodeRuntimeNotUsed, File: l.values.Runtime, Resource: key, Message: why})
		}
		shown, ok := l.values.runtime[key].(map[string]any)
		if !ok {
			if fit(otherKind) {
				unused("allowed is an object in the form of Azure's answers: it was not read")
			}
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
		inside := l.showInside(r, key)
		switch {
		case len(found) > 0 && slices.ContainsFunc(found, func(o *resource) bool { return !strings.EqualFold(o.identity(), found[0].identity()) }):
			places := make([]string, len(found))
			for i, o := range found {
				places[i] = o.identity()
			}
			unused("the key fits several resources, and was not read: " + ruleset.Listed(places) + "; give the id of one")
		case len(found) > 0:
			for _, o := range found {
				l.show(o, shown)
			}
		case inside:
		case k != otherKind:
			l.resources = append(l.resources, r)
		case !l.values.asked[strings.ToLower(key)]:
			unused("no document has a resource of this name or id, and no expression asks for it: it was not read")
		}
	}
}

// show puts Azure's answer over a resource and over its children that are resources of their own. Rules and
// routes that the answer does not list are no more.
func (l *loader) show(r *resource, shown map[string]any) {
	for _, k := range childKinds(r.kind) {
		list, ok := propertyOf(shown, kindPaths[k]).([]any)
		if !ok {
			continue
		}
		var gone []string
		whole := k == ruleKind || k == routeKind
		names := namesOf(list)
		for name := range namesOf(propertyOf(r.body, kindPaths[k])) {
			if whole && !names[name] {
				gone = append(gone, name)
			}
		}
		l.resources = slices.DeleteFunc(l.resources, func(c *resource) bool {
			if c.kind != k || c.nameUnknown || !strings.EqualFold(c.shownName(), r.shownName()+"/"+c.name) ||
				c.parent != r && (&entry{scope: r.scope(), file: r.file}).near(c.scope(), c.file) == apart {
				return false
			}
			if i := slices.IndexFunc(list, func(v any) bool { return strings.EqualFold(nameIn(v), c.name) }); i >= 0 {
				c.body, c.again = overlay(c.body, list[i].(map[string]any)), true
				return false
			}
			if whole && !slices.Contains(gone, strings.ToLower(c.name)) {
				gone = append(gone, strings.ToLower(c.name))
			}
			return whole
		})
		if len(gone) > 0 {
			slices.Sort(gone)
			l.warn(l.places.at(ruleset.Fault{Code: CodeDeletedByUpdate, File: r.file, Resource: r.place(), Field: kindPaths[k], Value: ruleset.Listed(gone),
				Message: "Azure shows the resource without these, in " + l.values.Runtime + ": they were not read"}, r.source))
		}
	}
	r.body, r.again = overlay(r.body, shown), true
}

// shownBy are the resources of the documents that Azure's answer under a key may show.
func (l *loader) shownBy(shown *resource, key string) (found []*resource) {
	for _, r := range l.resources {
		if shown.kind != otherKind && shown.kind != r.kind || r.nameUnknown {
			continue
		}
		if strings.EqualFold(r.id, shown.id) && r.id != "" || r.isShown(r.shownName(), shown, key) {
			found = append(found, r)
		}
	}
	return found
}

// showInside puts Azure's answer over the elements of lists of children that it shows. It reports whether there are any.
func (l *loader) showInside(shown *resource, key string) (found bool) {
	for _, r := range l.resources {
		for _, k := range childKinds(r.kind) {
			list, ok := propertyOf(r.body, kindPaths[k]).([]any)
			if !ok || shown.kind != otherKind && shown.kind != k {
				continue
			}
			for i, v := range list {
				element, ok := v.(map[string]any)
				if !ok || !r.isShown(r.shownName()+"/"+nameIn(v), shown, key) {
					continue
				}
				list = slices.Clone(list)
				list[i] = overlay(element, shown.body)
				r.body, r.again, found = withProperty(r.body, kindPaths[k], list), true, true
			}
		}
	}
	return found
}

// isShown reports whether an answer under a key shows what has a name and is where r is. For a child the name of its
// parent alone decides, as for other documents' children.
func (r *resource) isShown(name string, shown *resource, key string) bool {
	file := r.file
	if parentKinds[shown.kind] != otherKind {
		file = shown.file
	}
	return strings.EqualFold(key, name) ||
		strings.EqualFold(namesInID(shown.id), name) && (&entry{scope: r.scope(), file: r.file}).near(scopeOf(shown.id), file) != apart
}

// shownName is the resource's name with those of its parents before it.
func (r *resource) shownName() string {
	switch parent := namesInID(r.parentName); {
	case r.parent != nil:
		return r.parent.shownName() + "/" + r.name
	case parent != "":
		return parent + "/" + r.name
	case r.parentName != "":
		return r.parentName + "/" + r.name
	}
	return r.name
}

// namesInID are the names in a resource id, with slashes between; empty when it is no id.
func namesInID(id string) string {
	i := strings.LastIndex(strings.ToLower(id), "/providers/")
	if i < 0 {
		return ""
	}
	segments := strings.Split(id[i+len("/providers/"):], "/")
	var names []string
	for i := 2; i < len(segments); i += 2 {
		names = append(names, segments[i])
	}
	return strings.Join(names, "/")
}

// childKinds are the kinds of the children of a kind.
func childKinds(k kind) (kinds []kind) {
	for child := range kindPaths {
		if of, ok := parentKinds[kind(child)]; ok && of == k {
			kinds = append(kinds, kind(child))
		}
	}
	return kinds
}

// rivals are fields, in lower case, that exclude each other: a value in one leaves no value in the others.
var rivals = [][]string{
	{"addressprefix", "addressprefixes"},
	{"sourceaddressprefix", "sourceaddressprefixes", "sourceapplicationsecuritygroups"},
	{"destinationaddressprefix", "destinationaddressprefixes", "destinationapplicationsecuritygroups"},
	{"sourceportrange", "sourceportranges"},
	{"destinationportrange", "destinationportranges"},
}

// overlay puts the properties of one form of a resource over those of another. Named elements
// of lists are put over each other.
func overlay(body, above map[string]any) map[string]any {
	out := maps.Clone(body)
	shown := properties(above)
	for _, fields := range rivals {
		if slices.ContainsFunc(fields, func(field string) bool { return !empty(shown[field].value) }) {
			for _, field := range fields {
				if propertyOf(out, field) != nil {
					out = withProperty(out, field, nil)
				}
			}
		}
	}
	for low, p := range shown {
		v := overlaid(propertyOf(out, p.name), p.value)
		if list, ok := v.([]any); ok && (low == "securityrules" || low == "routes") { // all that there are
			names := namesOf(p.value)
			v = slices.DeleteFunc(slices.Clone(list), func(e any) bool { return !names[strings.ToLower(nameIn(e))] })
		}
		out = withProperty(out, pluralOf(above, p.name, v), v)
	}
	return out
}

// pluralOf is the name under which templates have a property of PowerShell's rules: several values have the plural.
func pluralOf(above map[string]any, field string, v any) string {
	if list, _ := v.([]any); len(list) > 1 && lookup(above, "properties") == nil {
		for _, f := range ruleset.SecurityRuleFields {
			if strings.EqualFold(f.Name, field) && f.Plural != "" {
				return f.Plural
			}
		}
	}
	return field
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
