// Package export writes network security groups as documents that people deploy: ARM templates, Bicep and Terraform. The
// reader of package arm reads the templates back. Names and descriptions may hold anything: they are quoted as each language
// wants it. What a group has beside its rules, such as the tags of the resource, is not written.
package export

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// Format is a language of documents.
type Format string

// The languages.
const (
	ARM       Format = "arm" // a deployment template
	Bicep     Format = "bicep"
	Terraform Format = "terraform" // resources of the provider azurerm
)

// apiVersion is that of the resources that are written.
const apiVersion = "2024-05-01"

// Write writes groups, whose names differ in more than case, as one document. The output depends on nothing but them.
func Write(w io.Writer, f Format, groups []*ruleset.NSG) error {
	if err := distinct(groups); err != nil {
		return err
	}
	var p printer
	switch f {
	case ARM:
		p.arm(groups)
	case Bicep:
		p.bicep(groups)
	case Terraform:
		p.terraform(groups)
	default:
		return fmt.Errorf("format %q: allowed are %s, %s and %s", f, ARM, Bicep, Terraform)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

// distinct refuses groups that one deployment cannot tell apart.
func distinct(groups []*ruleset.NSG) error {
	seen := map[string]*ruleset.NSG{}
	for _, g := range groups {
		key := strings.ToLower(g.Name)
		if other := seen[key]; other != nil {
			return fmt.Errorf("network security groups %s and %s have one name: a document can hold one of them", other.ID, g.ID)
		}
		seen[key] = g
	}
	return nil
}

// field is a named value: a string, an int, a bool, a list of strings, an object or a list of objects.
type field struct {
	name  string
	value any
}

type object []field

// rule are the fields of a rule beside its name, as ARM names them. One value stands in the singular field.
func rule(r *ruleset.Rule, references func(ids []string) field, side func(side, of string) string) object {
	var o object
	if r.Description != "" {
		o = append(o, field{"description", r.Description})
	}
	o = append(o, field{"priority", r.Priority}, field{"direction", r.Direction.String()}, field{"access", r.Access.String()}, field{"protocol", r.Protocol.String()})
	for _, s := range []struct {
		name  string
		peer  *ruleset.Peer
		ports []ruleset.PortRange
	}{{"source", &r.Source, r.SourcePorts}, {"destination", &r.Destination, r.DestinationPorts}} {
		ports := make([]string, len(s.ports))
		for i, p := range s.ports {
			ports[i] = p.String()
		}
		o = append(o, oneOrMany(side(s.name, "PortRange"), side(s.name, "PortRanges"), ports))
		if ids := s.peer.ApplicationSecurityGroups; len(ids) > 0 {
			f := references(ids)
			f.name = side(s.name, f.name)
			o = append(o, f)
			continue
		}
		o = append(o, oneOrMany(side(s.name, "AddressPrefix"), side(s.name, "AddressPrefixes"), s.peer.Texts()))
	}
	return o
}

func oneOrMany(one, many string, texts []string) field {
	if len(texts) == 1 {
		return field{one, texts[0]}
	}
	return field{many, texts}
}

// armRules are a group's rules in ARM's form, in the order in which they are tried.
func armRules(g *ruleset.NSG) (list []object) {
	references := func(ids []string) field {
		var groups []object
		for _, id := range ids {
			groups = append(groups, object{{"id", id}})
		}
		return field{"ApplicationSecurityGroups", groups}
	}
	for _, r := range inOrder(g) {
		list = append(list, object{{"name", r.Name}, {"properties", rule(&r, references, func(side, of string) string { return side + of })}})
	}
	return list
}

// inOrder are the rules by direction and priority.
func inOrder(g *ruleset.NSG) []ruleset.Rule {
	rules := slices.Clone(g.Rules)
	slices.SortStableFunc(rules, func(a, b ruleset.Rule) int {
		if a.Direction != b.Direction {
			return int(a.Direction) - int(b.Direction)
		}
		return a.Priority - b.Priority
	})
	return rules
}

// properties are those of a group.
func properties(g *ruleset.NSG) object {
	o := object{{"securityRules", armRules(g)}}
	if g.FlushConnection {
		o = append(object{{"flushConnection", true}}, o...)
	}
	return o
}

// printer writes indented text.
type printer struct {
	strings.Builder
	depth int
}

func (p *printer) line(text string) {
	if text != "" {
		p.WriteString(strings.Repeat("  ", p.depth) + text)
	}
	p.WriteByte('\n')
}

// inside writes lines between a first and a last one.
func (p *printer) inside(first, last string, lines func()) {
	p.line(first)
	p.depth++
	lines()
	p.depth--
	p.line(last)
}

// identifiers are names for programs that are made of other names, each once.
type identifiers map[string]bool

// of is the identifier for a name: letters, digits and underscores, not beginning with a digit.
func (i identifiers) of(name string) string {
	text := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '_'
	}, name)
	if text == "" || text[0] >= '0' && text[0] <= '9' {
		text = "nsg_" + text
	}
	unique := text
	for n := 2; i[unique]; n++ {
		unique = text + "_" + strconv.Itoa(n)
	}
	i[unique] = true
	return unique
}
