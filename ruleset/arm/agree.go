package arm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// agree adds what another document says of a resource. Where the two contradict each other
// it reports a fault.
func (l *loader) agree(r, other *resource) {
	if d := contradiction(r.body, other.body); d != nil {
		value, has := "", "nothing"
		if d.other != nil {
			value = asText(d.other)
		}
		if d.one != nil {
			has = asText(d.one)
		}
		l.fault(l.places.at(ruleset.Fault{Code: CodeDuplicateResource, File: other.file, Resource: other.place(), Field: d.field, Value: ruleset.Clip(value),
			Message: fmt.Sprintf("the resource is in %s too, which says %s%s; a resource may be given again if both say the same", r.file, ruleset.Clip(has), l.lines(r, other))}, other.source))
		return
	}
	r.body, r.again = maps.Clone(r.body), true
	if v, listed := r.body["properties"]; listed && v == nil {
		delete(r.body, "properties")
	}
	have := properties(r.body)
	for low, p := range properties(other.body) {
		if empty(have[low].value) && !empty(p.value) {
			r.body = withProperty(r.body, p.name, p.value)
		}
	}
}

// ofTheAnswer are fields that only Azure sets, in lower case. They do not tell two
// resources apart.
var ofTheAnswer = map[string]bool{"etag": true, "id": true, "name": true, "type": true, "provisioningstate": true, "resourceguid": true, "resourcegroup": true,
	"tags": true, "apiversion": true, "dependson": true, "resources": true, "comments": true, "condition": true, "systemdata": true, "copy": true,
	"defaultsecurityrules": true, "networkinterfaces": true, "virtualmachine": true, "ipconfigurationprofiles": true, "privateendpoints": true,
	"resourcenavigationlinks": true, "serviceassociationlinks": true, "purpose": true, "changenumber": true}

// alone are fields that count as different if only one of two documents has them, in lower
// case and sorted: an association or a list of rules that one document lacks is none there.
var alone = []string{"networksecuritygroup", "routetable", "natgateway", "applicationsecuritygroups", "publicipaddress", "securityrules", "routes"}

func init() {
	for _, f := range ruleset.SecurityRuleFields {
		for _, name := range f.Names() {
			if !f.Literal {
				alone = append(alone, strings.ToLower(name))
			}
		}
		if f.List != nil && f.Text != nil {
			inTwoFields[strings.ToLower(f.Name)] = strings.ToLower(f.Plural)
		}
	}
	slices.Sort(alone)
}

// difference is what two documents say differently of one resource.
type difference struct {
	field      string // with the names of the elements of lists that it is in
	one, other any    // nil where a document says nothing
}

// contradiction finds the first difference of two resources; nil when there is none.
func contradiction(a, b map[string]any) *difference {
	x, y := properties(a), properties(b)
	for _, low := range slices.Sorted(maps.Keys(x)) {
		if v, w := x[low].value, y[low].value; !empty(v) && !empty(w) {
			if d := differ(v, w); d != nil {
				d.field = strings.TrimSuffix(x[low].name+"/"+d.field, "/")
				return d
			}
		}
	}
	for _, body := range []map[string]any{a, b} {
		if v, listed := body["properties"]; listed && v == nil { // lists of resources of all kinds leave them out
			return nil
		}
	}
	for _, low := range alone {
		if v, w := x[low], y[low]; empty(v.value) != empty(w.value) {
			return &difference{cmp.Or(v.name, w.name), v.value, w.value}
		}
	}
	return nil
}

// property is a field with its name as it is written.
type property struct {
	name  string
	value any
}

// fieldSet are properties by their names in lower case.
type fieldSet map[string]property

// inTwoFields are fields for one value, with their fields for several, in lower case. Which of
// the two has a value differs between tools.
var inTwoFields = map[string]string{"addressprefix": "addressprefixes"}

// join puts what both fields say, each once, under the first.
func (s fieldSet) join(one, several string) {
	p, q := s[one], s[several]
	var all []any
	seen := map[string]bool{}
	for _, v := range []any{p.value, q.value} {
		list, ok := v.([]any)
		if !ok && !empty(v) {
			list = []any{v}
		}
		for _, e := range list {
			if text := strings.ToLower(asText(e)); !seen[text] {
				seen[text] = true
				all = append(all, e)
			}
		}
	}
	delete(s, several)
	if all != nil {
		if empty(p.value) {
			p.name = q.name
		}
		s[one] = property{p.name, all}
	}
}

// properties are a resource's properties by their names in lower case, without those that
// only Azure sets.
func properties(body map[string]any) fieldSet {
	out := make(fieldSet, len(body))
	add := func(o map[string]any) {
		for name, v := range o {
			if low := strings.ToLower(name); !ofTheAnswer[low] && low != "properties" {
				out[low] = property{name, v}
			}
		}
	}
	add(body)
	if inner, ok := lookup(body, "properties").(map[string]any); ok {
		add(inner)
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return out[name].value != nil })
	}
	if has("addressprefix", "addressprefixes", "securityrules", "routes") { // Azure lists who is in a subnet
		delete(out, "ipconfigurations")
	}
	for singular, plural := range inTwoFields {
		out.join(singular, plural)
	}
	if has("securityrules", "routes") { // and which subnets have a group or a table
		delete(out, "subnets")
	}
	return out
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// differ compares values of documents: in any case, texts with numbers, a list of one with its
// element, named elements of lists in any order. It returns nil when they are equal.
func differ(a, b any) *difference {
	x, xs := a.([]any)
	y, ys := b.([]any)
	m, ms := a.(map[string]any)
	n, ns := b.(map[string]any)
	switch {
	case xs && !ys && len(x) == 1:
		return differ(x[0], b)
	case ys && !xs && len(y) == 1:
		return differ(a, y[0])
	case xs && ys && len(x) == len(y):
		x, y = sortedByName(x), sortedByName(y)
		for i := range x {
			if d := differ(x[i], y[i]); d != nil {
				d.field = strings.TrimSuffix(nameIn(x[i])+"/"+d.field, "/")
				return d
			}
		}
		return nil
	case ms && ns && isReference(m) && isReference(n):
		if !sameEnd(lookup(m, "id").(string), lookup(n, "id").(string)) {
			break
		}
		return nil
	case ms && ns:
		if !strings.EqualFold(nameIn(m), nameIn(n)) {
			break
		}
		return contradiction(m, n)
	case !xs && !ys && !ms && !ns && strings.EqualFold(asText(a), asText(b)):
		return nil
	}
	return &difference{"", a, b}
}

// isReference reports whether an object is {"id": "..."}, perhaps with fields that az adds.
func isReference(o map[string]any) bool {
	_, ok := lookup(o, "id").(string)
	return ok && lookup(o, "name") == nil && lookup(o, "properties") == nil
}

// nameIn is the name of an object; empty when it has none.
func nameIn(v any) string {
	o, _ := v.(map[string]any)
	name, _ := lookup(o, "name").(string)
	return name
}

// sameEnd reports whether one id is the other or its end.
func sameEnd(a, b string) bool {
	a, b = "/"+strings.ToLower(strings.Trim(a, "/")), "/"+strings.ToLower(strings.Trim(b, "/"))
	return strings.HasSuffix(a, b) || strings.HasSuffix(b, a)
}

func sortedByName(list []any) []any {
	return slices.SortedStableFunc(slices.Values(list), func(a, b any) int {
		return strings.Compare(strings.ToLower(nameIn(a)), strings.ToLower(nameIn(b)))
	})
}
