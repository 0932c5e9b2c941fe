package arm

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// ServiceTags is a service tag file: Microsoft's weekly ServiceTags_Public_DATE.json,
// or the answer of the service tag discovery API. Tags are found by name, whatever
// its case: the region that the file gives a tag is not always that of its name.
//
// networkFeatures, which lists where Azure takes a tag and is null for one that
// inherits it, is not held against a rule: NSGs took tags before the file said so.
type ServiceTags struct {
	File         string
	ChangeNumber string // of the whole file; grows with each edition; empty when the file has none
	Cloud        string // such as "Public"

	tags     map[string]tag    // by name in lower case
	problems map[string]string // of the first names that were asked for in vain, see maxHints
}

// tag is what is kept of a tag that may not be in use.
type tag struct {
	name  string
	count int // of prefixes; prefixes itself may be gone
	// prefixes is nil when nobody used the tag, see keep.
	prefixes []netip.Prefix
}

// tagReader turns a tag file's JSON into ServiceTags. It goes on after a fault, so that
// all of them are reported.
type tagReader struct {
	tags   *ServiceTags
	faults ruleset.Faults
}

// ParseServiceTags reads a service tag file from memory; file names it in faults.
func ParseServiceTags(file string, data []byte) (*ServiceTags, ruleset.Faults) {
	value, err := parseDocument(data)
	if err != nil {
		return nil, ruleset.Faults{{Code: CodeInvalidJSON, File: file, Message: err.Error()}}
	}
	r := &tagReader{tags: &ServiceTags{File: file, tags: map[string]tag{}, problems: map[string]string{}}}
	r.document(value)
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	return r.tags, nil
}

func (r *tagReader) fault(place, field string, value any, message string) {
	f := ruleset.Fault{Code: CodeInvalidServiceTags, File: r.tags.File, Resource: place, Field: field, Message: message}
	if value != nil {
		f.Value = ruleset.Clip(asText(value))
	}
	r.faults = append(r.faults, f)
}

// text reads a string; ok is false, with a fault, when it is something else. Null is an
// empty one.
func (r *tagReader) text(place, field string, value any) (text string, ok bool) {
	text, ok = value.(string)
	if !ok && value != nil {
		r.fault(place, field, value, "the value must be a string")
	}
	return text, ok || value == nil
}

func (r *tagReader) document(value any) {
	body, ok := value.(map[string]any)
	if !ok {
		r.fault("", "", value, "the file must be an object with a list of tags in values")
		return
	}
	r.changeNumber(lookup(body, "changeNumber"))
	r.tags.Cloud, _ = r.text("", "cloud", lookup(body, "cloud"))
	if next, _ := r.text("", "nextLink", lookup(body, "nextLink")); next != "" {
		r.fault("", "nextLink", next, "the file is one page of several: put the values of all pages into one file")
	}
	values := lookup(body, "values")
	list, ok := values.([]any)
	switch {
	case !ok && values != nil:
		r.fault("", "values", values, "the value must be a list of tags")
	case len(list) == 0:
		r.fault("", "values", nil, "a service tag file has a list of tags here; is it another file?")
	}
	for i, v := range list {
		r.tag(i, v)
	}
}

// changeNumber is a number in the weekly file and a string in the API's answer.
func (r *tagReader) changeNumber(value any) {
	if value == nil {
		return
	}
	var text string
	switch v := value.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		r.fault("", "changeNumber", value, "the value must be a whole number, or one as a string")
		return
	}
	r.tags.ChangeNumber = text
}

// tag reads an entry of values.
func (r *tagReader) tag(i int, value any) {
	entry := "values[" + strconv.Itoa(i) + "]"
	body, ok := value.(map[string]any)
	if !ok {
		r.fault("serviceTags/"+entry, entry, shown(value), "the value must be an object with name and properties")
		return
	}
	place := "serviceTags/" + entry
	name, ok := r.text(place, entry+".name", lookup(body, "name"))
	named := ok && ruleset.LooksLikeTag(name)
	if named {
		place = "serviceTags/" + name
	} else if ok {
		r.fault(place, entry+".name", name, "a tag's name is letters and digits with single dots between them, at most 80")
	}
	key := strings.ToLower(name)
	if first, twice := r.tags.tags[key]; twice {
		r.fault(place, entry+".name", name, "the file has the tag "+first.name+" already; names are compared without case")
	}
	prefixes := r.prefixes(place, lookup(body, "properties"))
	if named {
		r.tags.tags[key] = tag{name: name, count: len(prefixes), prefixes: prefixes}
	}
}

// prefixes reads a tag's properties, of which the addresses are all that is used.
func (r *tagReader) prefixes(place string, properties any) []netip.Prefix {
	const field = "properties.addressPrefixes"
	body, ok := properties.(map[string]any)
	if !ok && properties != nil {
		r.fault(place, "properties", properties, "the value must be an object")
	}
	value := lookup(body, "addressPrefixes")
	list, ok := value.([]any)
	if !ok && value != nil {
		r.fault(place, field, value, "the value must be a list of strings")
	}
	prefixes := make([]netip.Prefix, 0, len(list))
	for i, v := range list {
		text, ok := v.(string)
		problem := "the value must be a string"
		if ok {
			var p netip.Prefix
			if p, problem = ruleset.ParsePrefix(text); problem == "" {
				prefixes = append(prefixes, p)
				continue
			}
			problem += "; allowed are an address and a CIDR without host bits"
		}
		r.fault(place, field+"["+strconv.Itoa(i)+"]", shown(v), problem)
	}
	return prefixes
}

// shown is a value for a fault where null is one too, and not a field that is missing.
func shown(value any) any {
	if value == nil {
		return "null"
	}
	return value
}

// Known resolves a tag's name for ruleset's validation.
func (t *ServiceTags) Known(name string) (canonical, problem string) {
	key := strings.ToLower(name)
	found, ok := t.tags[key]
	if ok && found.count > 0 {
		return found.name, ""
	}
	if ok {
		return "", "the tag " + found.name + " has no address prefixes in " + t.File
	}
	problem, ok = t.problems[key]
	switch {
	case ok:
	case len(t.problems) < maxHints:
		problem = t.lacks(t.hint(key))
		t.problems[key] = problem
	default:
		problem = t.lacks("")
	}
	return "", problem
}

// lacks says that the file has no tag of a name.
func (t *ServiceTags) lacks(hint string) string {
	edition := ""
	if t.ChangeNumber != "" {
		edition = ", change number " + t.ChangeNumber + ","
	}
	return fmt.Sprintf("no service tag of that name is known: %s has %d%s and not this one%s", t.File, len(t.tags), edition, hint)
}

// Prefixes are those of a tag, by its name in any case; nil when the file has no such
// tag. They are in the file's order and must not be changed.
func (t *ServiceTags) Prefixes(name string) []netip.Prefix {
	return t.tags[strings.ToLower(name)].prefixes
}

// put remembers a tag's prefixes again.
func (t *ServiceTags) put(name string, prefixes []netip.Prefix) {
	t.tags[strings.ToLower(name)] = tag{name: name, count: len(prefixes), prefixes: prefixes}
}

// Len is the number of tags.
func (t *ServiceTags) Len() int { return len(t.tags) }

// keep forgets the prefixes of the tags that are not in use.
func (t *ServiceTags) keep(used map[string][]netip.Prefix) {
	for key, of := range t.tags {
		if _, ok := used[of.name]; !ok && of.prefixes != nil {
			of.prefixes = nil
			t.tags[key] = of
		}
	}
}
