package reference

import (
	"encoding/json"
	"fmt"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// Policy is a document of resources and the service tags that its rules may name.
type Policy struct {
	resources []object
	tags      map[string][]string // prefixes by the tag's name in lower case
}

// Read reads a list of resources and a service tag file, which may be empty.
func Read(document, tagFile []byte) (*Policy, error) {
	p := &Policy{tags: map[string][]string{}}
	if err := json.Unmarshal(document, &p.resources); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if len(tagFile) == 0 {
		return p, nil
	}
	var file object
	if err := json.Unmarshal(tagFile, &file); err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	for _, value := range objects(file, "values") {
		p.tags[strings.ToLower(text(value, "name"))] = texts(value, "addressPrefixes")
	}
	return p, nil
}

// field is a value from an object's properties, or from the object itself in the flattened
// form.
func field(o object, name string) any {
	if properties, ok := o["properties"].(object); ok {
		if v, ok := properties[name]; ok {
			return v
		}
	}
	return o[name]
}

func text(o object, name string) string {
	s, _ := field(o, name).(string)
	return s
}

func number(o object, name string) int {
	n, _ := field(o, name).(float64)
	return int(n)
}

func texts(o object, name string) []string {
	var out []string
	list, _ := field(o, name).([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// oneOrMore is the value of a field, or the values of its plural.
func oneOrMore(o object, name, plural string) []string {
	if s := text(o, name); s != "" {
		return []string{s}
	}
	return texts(o, plural)
}

func objects(o object, name string) []object {
	var out []object
	list, _ := field(o, name).([]any)
	for _, v := range list {
		if o, ok := v.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

// reference is the id in a field {"id": ...}, in lower case, since ids have no case.
func reference(o object, name string) string {
	r, _ := field(o, name).(object)
	return strings.ToLower(text(r, "id"))
}

func references(o object, name string) []string {
	var ids []string
	for _, r := range objects(o, name) {
		ids = append(ids, strings.ToLower(text(r, "id")))
	}
	return ids
}

// byID finds a resource, or a virtual network's subnet.
func (p *Policy) byID(id string) object {
	if id == "" {
		return nil
	}
	for _, r := range p.resources {
		if strings.EqualFold(text(r, "id"), id) {
			return r
		}
		for _, s := range objects(r, "subnets") {
			if strings.EqualFold(text(s, "id"), id) {
				return s
			}
		}
	}
	return nil
}

func (p *Policy) ofType(name string) []object {
	var out []object
	for _, r := range p.resources {
		if strings.EqualFold(text(r, "type"), "Microsoft.Network/"+name) {
			out = append(out, r)
		}
	}
	return out
}

// networkOf is the virtual network of a subnet.
func (p *Policy) networkOf(subnetID string) object {
	for _, v := range p.ofType("virtualNetworks") {
		for _, s := range objects(v, "subnets") {
			if strings.EqualFold(text(s, "id"), subnetID) {
				return v
			}
		}
	}
	return nil
}
