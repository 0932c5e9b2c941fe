package arm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
)

// written is a file's document as it was written.
type written struct {
	document *jsonc.Document
	// origin is the object of the document that one of the evaluated template was made of; nil: all are those of the document.
	origin func(object map[string]any) map[string]any
}

// places tells where objects stand, by file. It costs nothing until it is asked.
type places map[string]*written

// of is where a field of the first of some objects that has it stands in a file, else where the last of the objects
// stands. It is not known of what a function of a template made, a linked template, or Terraform.
func (p places) of(file, field string, objects ...map[string]any) (found jsonc.Place) {
	w := p[file]
	if w == nil {
		return found
	}
	for _, object := range objects {
		if w.origin != nil {
			object = w.origin(object)
		}
		if object == nil {
			continue
		}
		at := w.document.PlaceOf(object, field)
		if at == (jsonc.Place{}) {
			continue
		}
		if found = at; has(object, field) {
			break
		}
	}
	return found
}

// has reports whether an object has a field, in any case.
func has(object map[string]any, field string) bool {
	for name := range object {
		if jsonc.SameName(name, field) {
			return true
		}
	}
	return false
}

// at is a fault of a field of an object, with its place.
func (p places) at(f ruleset.Fault, object map[string]any) ruleset.Fault {
	properties, _ := lookup(object, "properties").(map[string]any)
	return placed(f, p.of(f.File, f.Field, properties, object))
}

func placed(f ruleset.Fault, at jsonc.Place) ruleset.Fault {
	f.Line, f.Column = at.Line, at.Column
	return f
}

// lines says in which lines two givings of a resource stand; empty when that is not known.
func (l *loader) lines(a, b *resource) string {
	first, second := l.places.of(a.file, "", a.source), l.places.of(b.file, "", b.source)
	if first.Line == 0 || second.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d of %s, line %d of %s)", first.Line, a.file, second.Line, b.file)
}

// notJSONFault is the fault of a file that is no JSON.
func notJSONFault(file string, err error) ruleset.Fault {
	f := ruleset.Fault{Code: CodeInvalidJSON, File: file, Message: err.Error()}
	var e *jsonc.Error
	if errors.As(err, &e) {
		f.Line, f.Column, f.Message = e.Line, e.Column, e.Message
	}
	return f
}

// ruleBody is where a rule was read.
type ruleBody struct {
	file string
	body map[string]any
}

// RulePosition is the file of a rule of Set, and the line and column of one of its fields, or of the rule itself when
// it has no such field or field is empty. Line and column are 0 when they are not known: of rules that a template's
// function made, of linked templates, and of Terraform. It is not safe for concurrent use.
func (d *Documents) RulePosition(g *ruleset.NSG, rule, field string) (file string, line, column int) {
	file = d.files[g]
	if was, ok := d.unchanged[file]; ok {
		again := d.again[file]
		if again == nil {
			data, _, err := readRegular(file)
			if err != nil || sha256.Sum256(data) != was {
				return file, 0, 0 // it has changed since
			}
			again = Parse(file, data)
			d.again[file] = again
		}
		for _, same := range again.Set.NetworkSecurityGroups {
			if strings.EqualFold(same.ID, g.ID) {
				return again.RulePosition(same, rule, field)
			}
		}
	}
	r, ok := d.bodies[g][strings.ToLower(rule)]
	if !ok {
		return file, 0, 0
	}
	f := d.places.at(ruleset.Fault{File: r.file, Field: field}, r.body)
	return r.file, f.Line, f.Column
}

// placeFaults adds the places of faults that were found in the rules of a group.
func (l *loader) placeFaults(faults ruleset.Faults, group map[string]any, rules map[string]ruleBody) ruleset.Faults {
	for i := range faults {
		f := &faults[i]
		body := group
		if r, ok := rules[strings.ToLower(f.Rule)]; ok && f.Rule != "" {
			if r.file != f.File {
				continue
			}
			body = r.body
		}
		*f = l.places.at(*f, body)
	}
	return faults
}

// Position is where a resource of Set is written, such as a *policy.Subnet: its file, line and column, as RulePosition
// has them for rules.
func (d *Documents) Position(object any) (file string, line, column int) {
	if g, ok := object.(*ruleset.NSG); ok && d.objects[object].body == nil {
		return d.files[g], 0, 0
	}
	o := d.objects[object]
	at := d.places.of(o.file, "", o.body)
	return o.file, at.Line, at.Column
}
