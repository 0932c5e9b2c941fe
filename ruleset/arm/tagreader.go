package arm

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// tagReader turns a tag file's JSON into ServiceTags. It goes on after a fault, to report
// all of them.
type tagReader struct {
	tags   *ServiceTags
	faults ruleset.Faults
	page   string // prefix of places; empty unless there are several pages
	texts  map[string]string
}

// ParseServiceTags reads a service tag file from memory. Faults name it file. A list of
// pages of the discovery API's answer reads as one file.
func ParseServiceTags(file string, data []byte) (*ServiceTags, ruleset.Faults) {
	document, err := parseDocument(data)
	if err != nil {
		return nil, ruleset.Faults{notJSONFault(file, err)}
	}
	value := document.Value
	r := &tagReader{tags: &ServiceTags{File: file, tags: map[string]tag{}, problems: map[string]string{}}, texts: map[string]string{}}
	if pages, ok := value.([]any); ok && len(pages) > 0 {
		for i, page := range pages {
			r.page = "[" + strconv.Itoa(i) + "]."
			r.document(page, i == len(pages)-1)
		}
	} else {
		r.document(value, true)
	}
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

// text reads a string; null is an empty one. Anything else is a fault, and ok is false.
func (r *tagReader) text(place, field string, value any) (text string, ok bool) {
	text, ok = value.(string)
	if !ok && value != nil {
		r.fault(place, field, value, "the value must be a string")
	}
	return text, ok || value == nil
}

// document reads a file or one of several pages. last says that no page follows.
func (r *tagReader) document(value any, last bool) {
	body, ok := value.(map[string]any)
	if !ok {
		r.fault("", strings.TrimSuffix(r.page, "."), value, "the file must be an object with a list of tags in values, or a list of such pages")
		return
	}
	if number := r.changeNumber("", r.page+"changeNumber", lookup(body, "changeNumber")); number != "" {
		if before := r.tags.ChangeNumber; before != "" && before != number {
			r.fault("", r.page+"changeNumber", number, "the pages before are of change number "+before+": they are not of one answer")
		}
		r.tags.ChangeNumber = number
	}
	if cloud, _ := r.text("", r.page+"cloud", lookup(body, "cloud")); cloud != "" {
		r.tags.Cloud = cloud
	}
	if next, _ := r.text("", r.page+"nextLink", lookup(body, "nextLink")); next != "" && last {
		r.fault("", r.page+"nextLink", next, "the file is one page of several: put all pages into one file, as a list")
	}
	values := lookup(body, "values")
	list, ok := values.([]any)
	switch {
	case !ok && values != nil:
		r.fault("", r.page+"values", values, "the value must be a list of tags")
	case len(list) == 0:
		r.fault("", r.page+"values", nil, "a service tag file has a list of tags here; is it another file?")
	}
	for i, v := range list {
		r.tag(r.page+"values["+strconv.Itoa(i)+"]", v)
	}
}

// changeNumber reads the number of a file or of a tag. The weekly file has it as a number,
// the API's answer as a string.
func (r *tagReader) changeNumber(place, field string, value any) string {
	var text string
	switch v := value.(type) {
	case nil:
		return ""
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		r.fault(place, field, value, "the value must be a whole number, or one as a string")
		return ""
	}
	return r.shared(text)
}

// shared returns the one copy of a text that many tags have.
func (r *tagReader) shared(text string) string {
	if known, ok := r.texts[text]; ok {
		return known
	}
	r.texts[text] = text
	return text
}

// tag reads an entry of values.
func (r *tagReader) tag(entry string, value any) {
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
		r.fault(place, entry+".name", name, "the file has the tag "+first.Name+" already; names are compared without case")
	}
	read := r.properties(place, lookup(body, "properties"))
	if named {
		read.Name = name
		r.tags.tags[key] = read
	}
}

// properties reads the properties of a tag.
func (r *tagReader) properties(place string, value any) tag {
	body, ok := value.(map[string]any)
	if !ok && value != nil {
		r.fault(place, "properties", value, "the value must be an object")
	}
	t := tag{prefixes: r.prefixes(place, body)}
	t.ChangeNumber = r.changeNumber(place, "properties.changeNumber", lookup(body, "changeNumber"))
	t.Region, _ = r.text(place, "properties.region", lookup(body, "region"))
	t.SystemService, _ = r.text(place, "properties.systemService", lookup(body, "systemService"))
	t.Region, t.SystemService = r.shared(t.Region), r.shared(t.SystemService)
	features := lookup(body, "networkFeatures")
	list, ok := features.([]any)
	if !ok && features != nil {
		r.fault(place, "properties.networkFeatures", features, "the value must be a list of strings")
	}
	for i, v := range list {
		if text, ok := r.text(place, "properties.networkFeatures["+strconv.Itoa(i)+"]", v); ok {
			t.NetworkFeatures = append(t.NetworkFeatures, r.shared(text))
		}
	}
	for _, p := range t.prefixes {
		if p.Addr().Is4() {
			t.IPv4++
		} else {
			t.IPv6++
		}
	}
	return t
}

// prefixes reads the addresses of a tag's properties.
func (r *tagReader) prefixes(place string, body map[string]any) []netip.Prefix {
	const field = "properties.addressPrefixes"
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

// shown is a value in a fault that must tell null from a missing field.
func shown(value any) any {
	if value == nil {
		return "null"
	}
	return value
}
