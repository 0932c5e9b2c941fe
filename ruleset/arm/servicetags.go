package arm

import (
	"bytes"
	"encoding/json"
	"errors"
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
	ChangeNumber string // of the whole file; grows with each edition
	Cloud        string // such as "Public"

	tags     map[string]tag    // by name in lower case
	problems map[string]string // of names that were asked for in vain
}

// tag is what is kept of a tag that may not be in use.
type tag struct {
	name  string
	count int // of prefixes; prefixes itself may be gone
	// prefixes is nil when nobody used the tag, see keep.
	prefixes []netip.Prefix
}

// tagDocument has all that is read of a file.
type tagDocument struct {
	ChangeNumber changeNumber
	Cloud        string
	NextLink     string
	Values       []struct {
		Name       string
		Properties struct{ AddressPrefixes prefixList }
	}
}

// changeNumber is a number in the weekly file and a string in the API's answer.
type changeNumber string

// UnmarshalJSON takes a whole number in either form.
func (c *changeNumber) UnmarshalJSON(raw []byte) error {
	text := strings.Trim(string(raw), `"`)
	if _, err := strconv.ParseUint(text, 10, 64); err != nil && text != "null" {
		return fmt.Errorf("changeNumber %s: allowed is a whole number, or one as a string", ruleset.Clip(string(raw)))
	}
	*c = changeNumber(text)
	return nil
}

// prefixList reads addressPrefixes. It keeps what is wrong instead of failing: the
// error has to name the tag.
type prefixList struct {
	prefixes []netip.Prefix
	faults   []prefixFault
}

type prefixFault struct {
	at      int // index; -1: the list itself
	value   string
	problem string
}

// UnmarshalJSON reads the list. A file has a hundred thousand prefixes, so strings
// without an escape are taken as they stand.
func (l *prefixList) UnmarshalJSON(raw []byte) error {
	if raw[0] != '[' {
		if string(raw) != "null" {
			l.faults = append(l.faults, prefixFault{-1, string(raw), "the value must be a list of strings"})
		}
		return nil
	}
	l.prefixes = make([]netip.Prefix, 0, bytes.Count(raw, []byte{','})+1)
	rest := raw[1:]
	for n := 0; ; n++ {
		rest = bytes.TrimLeft(rest, " \t\r\n,")
		if rest[0] == ']' {
			return nil
		}
		end := bytes.IndexByte(rest[1:], '"') + 1
		if rest[0] != '"' || bytes.IndexByte(rest[:end], '\\') >= 0 {
			return l.decode(raw)
		}
		l.add(n, string(rest[1:end]))
		rest = rest[end+1:]
	}
}

// decode reads a list of anything.
func (l *prefixList) decode(raw []byte) error {
	*l = prefixList{}
	var list []any
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for i, v := range list {
		if text, ok := v.(string); ok {
			l.add(i, text)
			continue
		}
		l.faults = append(l.faults, prefixFault{i, asText(v), "the value must be a string"})
	}
	return nil
}

func (l *prefixList) add(i int, text string) {
	p, problem := ruleset.ParsePrefix(text)
	if problem != "" {
		l.faults = append(l.faults, prefixFault{i, text, problem + "; allowed are an address and a CIDR without host bits"})
		return
	}
	l.prefixes = append(l.prefixes, p)
}

// ParseServiceTags reads a service tag file from memory; file names it in faults.
func ParseServiceTags(file string, data []byte) (*ServiceTags, ruleset.Faults) {
	var document tagDocument
	if isUTF16(data) {
		return nil, ruleset.Faults{{Code: CodeInvalidJSON, File: file, Message: errUTF16.Error()}}
	}
	data = bytes.TrimPrefix(data, utf8BOM)
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, ruleset.Faults{tagFileFault(file, data, err)}
	}
	t := &ServiceTags{File: file, ChangeNumber: string(document.ChangeNumber), Cloud: document.Cloud,
		tags: make(map[string]tag, len(document.Values)), problems: map[string]string{}}
	var faults ruleset.Faults
	fail := func(resource, field, value, message string) {
		faults = append(faults, ruleset.Fault{Code: CodeInvalidServiceTags, File: file, Resource: resource,
			Field: field, Value: ruleset.Clip(value), Message: message})
	}
	if len(document.Values) == 0 {
		fail("", "values", "", "a service tag file has a list of tags here; is it another file?")
	}
	if document.NextLink != "" {
		fail("", "nextLink", document.NextLink, "the file is one page of several: put the values of all pages into one file")
	}
	for i := range document.Values {
		v := &document.Values[i]
		place, key := "serviceTags/"+v.Name, strings.ToLower(v.Name)
		if !ruleset.LooksLikeTag(v.Name) {
			fail(place, fmt.Sprintf("values[%d].name", i), v.Name, "a tag's name is letters and digits with single dots between them, at most 80")
			continue
		}
		if first, ok := t.tags[key]; ok {
			fail(place, fmt.Sprintf("values[%d].name", i), v.Name, "the file has the tag "+first.name+" already; names are compared without case")
		}
		list := &v.Properties.AddressPrefixes
		for _, f := range list.faults {
			field := "addressPrefixes"
			if f.at >= 0 {
				field += "[" + strconv.Itoa(f.at) + "]"
			}
			fail(place, field, f.value, f.problem)
		}
		t.tags[key] = tag{name: v.Name, count: len(list.prefixes), prefixes: list.prefixes}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return t, nil
}

// tagFileFault tells where a file is not what it should be.
func tagFileFault(file string, data []byte, err error) ruleset.Fault {
	f := ruleset.Fault{Code: CodeInvalidServiceTags, File: file, Message: err.Error()}
	var syntax *json.SyntaxError
	var mistyped *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		f.Code = CodeInvalidJSON
		f.Message = fmt.Sprintf("%s: %v", position(data, syntax.Offset), err)
	case errors.As(err, &mistyped):
		f.Field, f.Value = mistyped.Field, mistyped.Value
		f.Message = fmt.Sprintf("%s: the value must be %s", position(data, mistyped.Offset), jsonKind(mistyped))
	}
	return f
}

// jsonKind is what JSON calls the type that was expected.
func jsonKind(err *json.UnmarshalTypeError) string {
	switch err.Type.Kind().String() {
	case "string":
		return "a string"
	case "slice":
		return "a list"
	}
	return "an object"
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
	if !ok {
		problem = fmt.Sprintf("no service tag of that name is known: %s has %d, change number %s, and not this one%s",
			t.File, len(t.tags), t.ChangeNumber, t.hint(key))
		t.problems[key] = problem
	}
	return "", problem
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
