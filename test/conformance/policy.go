package conformance

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Policy is a document of ARM JSON: a base with changes, or the case's own document.
type Policy struct {
	Base string `yaml:"policy"` // in policies/, without .json
	// Rules replace the user rules of NSGs, by name.
	Rules map[string][]Rule `yaml:"rules"`
	// Resources replace those of the same type and name; others are added. An entry with
	// "repeat" stands for several, see repeated.
	Resources []map[string]any `yaml:"resources"`
	// Remove names the resources of the base that this policy lacks.
	Remove []string `yaml:"remove"`
	// Document replaces all of the above: a JSON value, or the file's text.
	Document any `yaml:"document"`
	// ServiceTags are the prefixes of tags, for a service tag file.
	ServiceTags map[string][]string `yaml:"serviceTags"`
	// TagFile is the text of the service tag file, where its form matters.
	TagFile string `yaml:"tagFile"`
}

// JSON is the policy's document.
func (p *Policy) JSON() ([]byte, error) {
	if text, ok := p.Document.(string); ok {
		return []byte(text), nil
	}
	if p.Document != nil {
		return json.MarshalIndent(repeated(p.Document), "", " ")
	}
	var list []map[string]any
	content, err := data.ReadFile("policies/" + p.Base + ".json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("policies/%s.json: %w", p.Base, err)
	}
	list = slices.DeleteFunc(list, func(r map[string]any) bool { return slices.Contains(p.Remove, fmt.Sprint(r["name"])) })
	var resources []any
	for _, r := range p.Resources {
		resources = append(resources, r)
	}
	for _, v := range repeated(resources).([]any) {
		list = replace(list, v.(map[string]any))
	}
	for name, rules := range p.Rules {
		i := slices.IndexFunc(list, func(r map[string]any) bool { return r["name"] == name && kindOf(r) == "networksecuritygroups" })
		if i < 0 {
			return nil, fmt.Errorf("rules of %s: policy %s has no such NSG", name, p.Base)
		}
		var documents []any
		for j := range rules {
			documents = append(documents, rules[j].document)
		}
		list[i]["properties"].(map[string]any)["securityRules"] = repeated(documents)
	}
	return json.MarshalIndent(list, "", " ")
}

func kindOf(resource map[string]any) string {
	return strings.ToLower(path.Base(fmt.Sprint(resource["type"])))
}

// replace puts a resource in the place of the one with its type and name, or adds it. It
// completes a short type.
func replace(list []map[string]any, r map[string]any) []map[string]any {
	if t, ok := r["type"].(string); ok && !strings.Contains(t, "/") {
		r["type"] = "Microsoft.Network/" + t
	}
	for i := range list {
		if list[i]["name"] == r["name"] && kindOf(list[i]) == kindOf(r) {
			list[i] = r
			return list
		}
	}
	return append(list, r)
}

// repeated replaces each list element with "repeat: N" by N copies. Placeholders stand for the
// number from 0: {i}, {i+100} for a sum, {hi} and {lo} for its two bytes. {"repeat": N, "each":
// "text"} repeats a text. When repetitions are nested, the outer one has "as: NAME" and the
// placeholders {NAME} and {NAME+100}.
func repeated(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, v := range value {
			out[k] = repeated(v)
		}
		return out
	case []any:
		out := []any{}
		for _, v := range value {
			v = repeated(v)
			m, ok := v.(map[string]any)
			n, counted := m["repeat"].(int)
			if !ok || !counted {
				out = append(out, v)
				continue
			}
			for i := range n {
				out = append(out, numbered(m, i))
			}
		}
		return out
	}
	return value
}

// numbered is copy i of a repetition.
func numbered(m map[string]any, i int) any {
	numbers := map[string]int{"i": i, "hi": i / 256, "lo": i % 256}
	if name, ok := m["as"].(string); ok {
		numbers = map[string]int{name: i}
	}
	if each, ok := m["each"]; ok {
		return fill(each, numbers)
	}
	out := map[string]any{}
	for k, v := range m {
		if k != "repeat" && k != "as" {
			out[k] = fill(v, numbers)
		}
	}
	return out
}

var placeholder = regexp.MustCompile(`\{(\w+)(?:\+(\d+))?\}`)

// fill replaces the placeholders in every text of a value.
func fill(value any, numbers map[string]int) any {
	switch value := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, v := range value {
			out[k] = fill(v, numbers)
		}
		return out
	case []any:
		out := []any{}
		for _, v := range value {
			out = append(out, fill(v, numbers))
		}
		return out
	case string:
		return placeholder.ReplaceAllStringFunc(value, func(text string) string {
			m := placeholder.FindStringSubmatch(text)
			n, known := numbers[m[1]]
			if !known {
				return text
			}
			more, _ := strconv.Atoi(m[2])
			return strconv.Itoa(n + more)
		})
	}
	return value
}

// TagFileText is the service tag file; empty when the policy has none.
func (p *Policy) TagFileText() string {
	if p.TagFile != "" || p.ServiceTags == nil {
		return p.TagFile
	}
	var values []any
	for name, prefixes := range p.ServiceTags {
		values = append(values, map[string]any{"name": name, "id": name, "properties": map[string]any{
			"changeNumber": 1, "region": "", "platform": "Azure", "systemService": "", "addressPrefixes": prefixes,
		}})
	}
	text, err := json.Marshal(map[string]any{"changeNumber": 1, "cloud": "Public", "values": values})
	if err != nil {
		panic(err) // strings can be written
	}
	return string(text)
}

// Rule is a security rule in ARM's JSON, or as a line:
//
//	NAME PRIORITY DIRECTION ACCESS PROTOCOL SOURCE -> DESTINATION
//
// A side is "*", a prefix, a tag, or "asg:NAME". Commas separate several, and IPv6 stands in
// brackets. ":PORTS" may follow; without it all ports match.
type Rule struct{ document map[string]any }

// UnmarshalYAML reads a rule of either form.
func (r *Rule) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		return node.Decode(&r.document)
	}
	words := strings.Fields(node.Value)
	if len(words) != 8 || words[6] != "->" {
		return fmt.Errorf("line %d: %q: want NAME PRIORITY DIRECTION ACCESS PROTOCOL SOURCE -> DESTINATION", node.Line, node.Value)
	}
	priority, err := strconv.Atoi(words[1])
	if err != nil {
		return fmt.Errorf("line %d: priority %q: %w", node.Line, words[1], err)
	}
	properties := map[string]any{"priority": priority, "direction": words[2], "access": words[3], "protocol": words[4]}
	side(properties, "source", words[5])
	side(properties, "destination", words[7])
	r.document = map[string]any{"name": words[0], "properties": properties}
	return nil
}

func side(properties map[string]any, end, text string) {
	addresses, ports := text, "*"
	if inside, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && text[0] == '[' {
		addresses = inside
		if rest != "" {
			ports = rest[1:]
		}
	} else if prefix, name, ok := strings.Cut(text, "asg:"); ok && prefix == "" {
		name, after, found := strings.Cut(name, ":")
		addresses = "asg:" + name
		if found {
			ports = after
		}
	} else if before, after, ok := strings.Cut(text, ":"); ok {
		addresses, ports = before, after
	}
	if names, ok := strings.CutPrefix(addresses, "asg:"); ok {
		var ids []any
		for _, name := range strings.Split(names, ",") {
			ids = append(ids, map[string]any{"id": ID("applicationSecurityGroups", name)})
		}
		properties[end+"ApplicationSecurityGroups"] = ids
	} else {
		oneOrMore(properties, end+"AddressPrefix", "es", addresses)
	}
	oneOrMore(properties, end+"PortRange", "s", ports)
}

func oneOrMore(properties map[string]any, field, plural, text string) {
	if list := strings.Split(text, ","); len(list) > 1 {
		properties[field+plural] = list
		return
	}
	properties[field] = text
}

// ID is the resource id under which the suite's policies know a resource.
func ID(kind, name string) string {
	return "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/" + kind + "/" + name
}
