package arm

import (
	"regexp"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// buildPolicy reads a definition of Azure Policy that puts virtual networks into a network group. It
// counts as assigned, to all networks of the documents. Other definitions are ignored.
func (l *loader) buildPolicy(r *resource) {
	rule, _ := propertyOf(r.body, "policyRule").(map[string]any)
	then, _ := lookup(rule, "then").(map[string]any)
	details, _ := lookup(then, "details").(map[string]any)
	if lookup(details, "networkGroupId") == nil {
		return
	}
	f := l.read(r.file, r.place(), "", r.body)
	f.markCondition(r)
	at := &fields{l: l, file: f.file, place: f.place, values: details, open: f.open}
	id := at.text("networkGroupId")
	if len(f.open) > 0 || id == "" {
		return
	}
	if g, ok := f.resolve(networkGroupKind, "networkGroupId", id).(*policy.NetworkGroup); ok {
		f.addMembers(g, "policyRule", lookup(rule, "if"))
	}
}

// readConditional reads the condition that a network group has itself in early versions of the API.
func (f *fields) readConditional(g *policy.NetworkGroup) {
	const field = "conditionalMembership"
	text := f.text(field)
	if text == "" {
		return
	}
	condition, err := parseDocument([]byte(text))
	if err != nil {
		f.fault(CodeConditionalMembership, field, text, "allowed is JSON: %s", err)
		return
	}
	f.addMembers(g, field, condition.Value)
}

// addMembers puts the networks that fulfil a condition into a group. A condition that is not understood
// leaves it open.
func (f *fields) addMembers(g *policy.NetworkGroup, field string, condition any) {
	for _, r := range f.l.resources {
		e := f.l.index.byID[strings.ToLower(r.identity())]
		if r.kind != networkKind || e == nil || e.object == nil {
			continue
		}
		c := candidate{resource: r}
		member := c.fulfils(condition)
		if c.strange != nil {
			f.markOpenBecause(CodeConditionalMembership, field, asText(c.strange), "this part of the condition is not read: the members of network group "+g.Name+" are not known")
			return
		}
		if member {
			g.Members = appendOnce(g.Members, e.object.(*policy.VirtualNetwork))
		}
	}
}

// candidate is a virtual network that a condition of Azure Policy is asked about.
type candidate struct {
	*resource
	strange any // the first part of the condition that is not understood
}

// fulfils evaluates a condition: allOf, anyOf, not, or an operator and a field or value.
func (c *candidate) fulfils(condition any) bool {
	o, _ := condition.(map[string]any)
	all, isAll := lookup(o, "allOf").([]any)
	some, isAny := lookup(o, "anyOf").([]any)
	switch {
	case isAll:
		return !slices.ContainsFunc(all, func(v any) bool { return !c.fulfils(v) })
	case isAny:
		return slices.ContainsFunc(some, c.fulfils)
	case lookup(o, "not") != nil:
		return !c.fulfils(lookup(o, "not"))
	}
	value, exists, known := c.value(o)
	if known {
		for operator, want := range o {
			test, ok := operators[strings.ToLower(operator)]
			if !ok {
				continue
			}
			if yes, ok := test(value, exists, want); ok {
				return yes
			}
		}
	}
	if c.strange == nil {
		c.strange = condition
	}
	return false
}

// tagField is a tag as a field of a condition.
var tagField = regexp.MustCompile(`(?i)^tags(?:\.([^.\[\]]+)|\[\s*'?([^'\[\]]+)'?\s*\])$`)

// value is what a condition asks about. known is false when it is something that is not read.
func (c *candidate) value(condition map[string]any) (value string, exists, known bool) {
	if text, ok := lookup(condition, "value").(string); ok {
		segments := strings.Split(c.identity(), "/")
		switch call := strings.ToLower(strings.Trim(strings.ReplaceAll(text, " ", ""), "[]")); {
		case !strings.HasPrefix(text, "["):
			return text, true, true
		case call == "resourcegroup().name" && isAzureID(c.id):
			return segments[4], true, true
		case call == "subscription().subscriptionid" && isAzureID(c.id):
			return segments[2], true, true
		}
		return "", false, false
	}
	field, _ := lookup(condition, "field").(string)
	switch strings.ToLower(field) {
	case "name", "fullname":
		return c.name, true, true
	case "type":
		return "Microsoft.Network/virtualNetworks", true, true
	case "location":
		return c.region(), c.region() != "", c.region() != ""
	case "id":
		return c.id, true, isAzureID(c.id)
	}
	if m := tagField.FindStringSubmatch(field); m != nil {
		tags, _ := lookup(c.body, "tags").(map[string]any)
		tag := lookup(tags, m[1]+m[2])
		text := asText(tag)
		return text, tag != nil, tag == nil || !isExpression(text)
	}
	return "", false, false
}

// operators are the operators of conditions. ok is false when what is wanted is not read.
var operators = func() map[string]func(value string, exists bool, want any) (yes, ok bool) {
	texts := func(test func(value, want string) bool, missing bool) func(string, bool, any) (bool, bool) {
		return func(value string, exists bool, want any) (bool, bool) {
			text, ok := want.(string)
			if !exists {
				return missing, ok
			}
			return test(strings.ToLower(value), strings.ToLower(text)), ok && !isExpression(text)
		}
	}
	lists := func(missing bool) func(string, bool, any) (bool, bool) {
		return func(value string, exists bool, want any) (bool, bool) {
			list, ok := want.([]any)
			found := exists && slices.ContainsFunc(list, func(v any) bool { return strings.EqualFold(asText(v), value) })
			return found != missing, ok
		}
	}
	negated := func(test func(value, want string) bool) func(value, want string) bool {
		return func(value, want string) bool { return !test(value, want) }
	}
	oneStar := func(test func(string, bool, any) (bool, bool)) func(string, bool, any) (bool, bool) {
		return func(value string, exists bool, want any) (bool, bool) {
			yes, ok := test(value, exists, want)
			return yes, ok && strings.Count(asText(want), "*") <= 1
		}
	}
	equal := func(value, want string) bool { return value == want }
	return map[string]func(string, bool, any) (bool, bool){
		"equals": texts(equal, false), "notequals": texts(negated(equal), true),
		"contains": texts(strings.Contains, false), "notcontains": texts(negated(strings.Contains), true),
		"like": oneStar(texts(like, false)), "notlike": oneStar(texts(negated(like), true)),
		"in": lists(false), "notin": lists(true),
		"exists": func(_ string, exists bool, want any) (bool, bool) {
			text := strings.ToLower(asText(want))
			return exists == (text == "true"), text == "true" || text == "false"
		},
	}
}()

// like compares with a pattern of at most one star, which stands for any text.
func like(value, pattern string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return value == pattern
	}
	return len(value) >= len(before)+len(after) && strings.HasPrefix(value, before) && strings.HasSuffix(value, after)
}
