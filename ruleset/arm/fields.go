package arm

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// fields reads the properties of one object, nested or flattened, and reports faults of
// their form. A value that is missing, faulty or an expression reads as the zero value.
type fields struct {
	l      *loader
	file   string
	place  string // Fault.Resource
	rule   string // Fault.Rule; empty unless the object is a rule
	region string // of the resource, as entry.region has it
	// values are the properties of body, or body itself.
	values, body map[string]any
	// apiVersion is that of the resource, where it decides how fields are read.
	apiVersion string
	// open holds the fields whose value is not known, mostly because it is an expression.
	open map[string]bool
	// cause is the first thing told that keeps the resource from being read; nil: nothing does.
	cause *cause
	// translating means that only translation needs the fields: open ones are warnings.
	translating bool
}

// read prepares to read a resource or an object inside one.
func (l *loader) read(file, place, rule string, body map[string]any) *fields {
	return (&fields{l: l, file: file, place: place, rule: rule}).over(body)
}

// readTranslating is read for objects that only translation needs.
func (l *loader) readTranslating(file, place string, body map[string]any) *fields {
	return (&fields{l: l, file: file, place: place, translating: true}).over(body)
}

// forTranslation gives the same object's fields for values that only translation needs.
// Such a value may stay open without keeping the resource from being read.
func (f *fields) forTranslation() *fields {
	return &fields{l: f.l, file: f.file, place: f.place, values: f.values, body: f.body, open: map[string]bool{}, translating: true}
}

func (f *fields) over(body map[string]any) *fields {
	f.values, f.body, f.open = body, body, map[string]bool{}
	switch v := lookup(body, "properties").(type) {
	case nil:
	case map[string]any:
		f.values = v
	case string:
		if isExpression(v) {
			f.markOpen("properties", v)
			break
		}
		f.open["properties"] = true
		f.malformed("properties", v, "an object")
	default:
		f.open["properties"] = true
		f.malformed("properties", v, "an object")
	}
	if lookup(body, "existing") == true {
		f.markOpenBecause(CodeTemplateExpression, "existing", "true",
			"the template refers to a resource that it does not hold: the resource was not read")
	}
	for _, o := range []map[string]any{body, f.values} {
		if v := lookup(o, "copy"); v != nil {
			f.markOpen("copy", asText(v))
			break
		}
	}
	f.checkProperties(body)
	return f
}

// withheld reports whether the fields cannot be read at all, so that no field counts as
// missing.
func (f *fields) withheld() bool { return f.open["properties"] || f.open["existing"] }

func (f *fields) fault(code, field, value, format string, args ...any) {
	f.because(told(&f.l.out.Faults, f.newFault(code, field, value, fmt.Sprintf(format, args...))))
}

// because keeps the first cause.
func (f *fields) because(c *cause) {
	if f.cause == nil {
		f.cause = c
	}
}

// newFault makes a fault of one of the fields.
func (f *fields) newFault(code, field, value, message string) ruleset.Fault {
	return placed(ruleset.Fault{
		Code: code, File: f.file, Resource: f.place, Rule: f.rule,
		Field: field, Value: ruleset.Clip(value), Message: message,
	}, f.l.places.of(f.file, field, f.values, f.body))
}

// markOpen records a field that an expression keeps open.
func (f *fields) markOpen(field, value string) {
	what := "the resource was not read"
	switch {
	case f.translating:
		what = "nothing is translated by it"
	case f.rule != "":
		what = "the rule was not read"
	}
	f.markOpenBecause(CodeTemplateExpression, field, value, f.l.reason(f.file, value)+": "+what)
}

func (f *fields) markOpenBecause(code, field, value, message string) {
	f.open[field] = true
	list := &f.l.out.Unresolved
	if f.translating {
		list = &f.l.out.Warnings
	}
	f.because(told(list, f.newFault(code, field, value, message)))
}

func (f *fields) malformed(field string, v any, allowed string) {
	f.fault(CodeInvalidRequestFormat, field, asText(v), "the value must be %s", allowed)
}

// markCondition records a condition that is an expression: whether the resource exists
// is not known.
func (f *fields) markCondition(r *resource) {
	if condition, ok := lookup(r.body, "condition").(string); ok && isExpression(condition) {
		f.markOpenBecause(CodeTemplateExpression, "condition", condition,
			f.l.reason(f.file, condition)+": whether the resource exists is open")
	}
}

// asText shows any JSON value.
func asText(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // "<" stays as the document has it
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// text reads a string or a number. PowerShell writes it as a list of one.
func (f *fields) text(field string) string {
	v := lookup(f.values, field)
	if list, ok := v.([]any); ok && len(list) <= 1 {
		v = nil
		if len(list) == 1 {
			v = list[0]
		}
	}
	if v == nil {
		return ""
	}
	text, ok := f.scalar(field, v)
	if !ok {
		f.open[field] = true // told here, so that it is not missing too
		f.malformed(field, v, "a string or a number")
	}
	return text
}

// scalar reads a string or a number. An expression is marked open and reads as empty.
func (f *fields) scalar(field string, v any) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		return v.String(), true
	case string:
		if isExpression(v) {
			f.markOpen(field, v)
			return "", true
		}
		return unescaped(v), true
	}
	return "", false
}

// unescaped is a literal of a template without its escape: a second bracket at its beginning.
func unescaped(text string) string {
	if strings.HasPrefix(text, "[[") {
		return text[1:]
	}
	return text
}

// literal reads a text that decides no verdict. It keeps an expression as it is.
func (f *fields) literal(field string) string {
	if v, ok := lookup(f.values, field).(string); ok {
		return unescaped(v)
	}
	return f.text(field)
}

// texts reads a list of strings; a single string is a list of one.
func (f *fields) texts(field string) []string {
	v := lookup(f.values, field)
	list, ok := v.([]any)
	if !ok {
		if v == nil || v == "" {
			return nil
		}
		list = []any{v}
	}
	texts := make([]string, 0, len(list))
	for _, v := range list {
		text, ok := f.scalar(field, v)
		if !ok {
			f.malformed(field, v, "a list of strings")
			continue
		}
		texts = append(texts, text)
	}
	return texts
}

// flag reads true or false, also as text, which ARM allows.
func (f *fields) flag(field string, otherwise bool) bool {
	switch v := lookup(f.values, field).(type) {
	case nil:
		return otherwise
	case bool:
		return v
	case string:
		switch {
		case isExpression(v):
			f.markOpen(field, v)
			return otherwise
		case strings.EqualFold(v, "true"):
			return true
		case strings.EqualFold(v, "false"):
			return false
		}
	}
	f.malformed(field, lookup(f.values, field), "true or false")
	return otherwise
}

// object reads an object; nil when there is none.
func (f *fields) object(field string) map[string]any {
	switch v := lookup(f.values, field).(type) {
	case nil:
	case map[string]any:
		return v
	case string:
		if isExpression(v) {
			f.markOpen(field, v)
			break
		}
		f.malformed(field, v, "an object")
	default:
		f.malformed(field, v, "an object")
	}
	return nil
}

// inside are the fields of an object in a field; none when there is no such object.
func (f *fields) inside(field string) *fields {
	return &fields{l: f.l, file: f.file, place: f.place, region: f.region, values: f.object(field), open: f.open, translating: f.translating}
}

// objects reads a list of objects; a single object is a list of one.
func (f *fields) objects(field string) []map[string]any {
	var list []any
	switch v := lookup(f.values, field).(type) {
	case nil:
	case []any:
		list = v
	default:
		list = []any{v}
	}
	var objects []map[string]any
	for _, v := range list {
		switch v := v.(type) {
		case map[string]any:
			objects = append(objects, v)
		case string:
			if isExpression(v) {
				f.markOpen(field, v)
				continue
			}
			f.malformed(field, v, "a list of objects")
		case nil:
		default:
			f.malformed(field, v, "a list of objects")
		}
	}
	return objects
}

// reference reads {"id": "..."}; empty when there is none.
func (f *fields) reference(field string) string {
	o := f.object(field)
	if o == nil {
		return ""
	}
	return f.identifier(field, o)
}

// references reads a list of {"id": "..."}.
func (f *fields) references(field string) []string {
	var ids []string
	for _, o := range f.objects(field) {
		if id := f.identifier(field, o); id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *fields) identifier(field string, o map[string]any) string {
	id, ok := lookup(o, "id").(string)
	switch {
	case !ok || id == "":
		f.fault(CodeInvalidResourceReference, field, asText(o), "a reference is an object with an id")
	case isExpression(id):
		f.markOpen(field, id)
		return ""
	}
	return id
}

// resolve finds the object that a reference names. It returns nil when that is not known: it
// reports a fault of a name that is none here, and an open field of a resource that exists
// elsewhere or that was not read.
func (f *fields) resolve(k kind, field, reference string) any {
	e, problem := f.l.index.resolve(k, reference, f.file)
	switch {
	case e == nil && k.isID(reference):
		f.missing(k, field, reference, problem)
		return nil
	case e == nil:
		f.fault(CodeInvalidResourceReference, field, reference, "%s", problem)
		return nil
	}
	if e.region != "" && f.region != "" && e.region != f.region {
		f.fault(CodeInvalidResourceReference, field, reference, "the resource is in %s and this one in %s: both must be in the same region", e.region, f.region)
	}
	switch {
	case e.object == nil:
		f.dependOn(e.cause, field)
	case problem != "":
		f.l.warn(f.newFault(CodeByNameAlone, field, reference, problem))
	}
	return e.object
}
