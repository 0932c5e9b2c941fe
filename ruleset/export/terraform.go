package export

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nsgd/nsgd/ruleset"
)

// terraform writes a resource for each group, with its rules as blocks.
func (p *printer) terraform(groups []*ruleset.NSG) {
	names := identifiers{}
	references := func(ids []string) field { return field{"application_security_group_ids", ids} }
	side := func(side, of string) string { return side + "_" + strings.TrimPrefix(terraformNames[of], "_") }
	for _, of := range []struct {
		variable string
		missing  func(*ruleset.NSG) bool
	}{{"resource_group_name", func(g *ruleset.NSG) bool { return resourceGroup(g) == "" }}, {"location", func(g *ruleset.NSG) bool { return g.Location == "" }}} {
		if slices.ContainsFunc(groups, of.missing) {
			p.inside(fmt.Sprintf("variable %q {", of.variable), "}", func() { p.line("type = string") })
			p.line("")
		}
	}
	for i, g := range groups {
		if i > 0 {
			p.line("")
		}
		p.inside(fmt.Sprintf("resource \"azurerm_network_security_group\" %q {", names.of(g.Name)), "}", func() {
			p.attributes(object{{"name", g.Name}, {"resource_group_name", given(resourceGroup(g), "resource_group_name")}, {"location", given(g.Location, "location")}})
			for _, r := range inOrder(g) {
				p.line("")
				p.inside("security_rule {", "}", func() {
					p.attributes(append(object{{"name", r.Name}}, rule(&r, references, side)...))
				})
			}
		})
	}
}

// variable is a value that the document does not give.
type variable string

func given(text, name string) any {
	if text == "" {
		return variable("var." + name)
	}
	return text
}

// terraformNames are the provider's names of a side's fields.
var terraformNames = map[string]string{"PortRange": "port_range", "PortRanges": "port_ranges", "AddressPrefix": "address_prefix", "AddressPrefixes": "address_prefixes",
	"application_security_group_ids": "application_security_group_ids"}

// resourceGroup is the name of a group's resource group; empty when its id has none.
func resourceGroup(g *ruleset.NSG) string {
	segments := strings.Split(g.ID, "/")
	if len(segments) > 4 && strings.EqualFold(segments[3], "resourceGroups") {
		return segments[4]
	}
	return ""
}

// attributes writes values with their equal signs below each other, as terraform fmt does.
func (p *printer) attributes(o object) {
	width := 0
	for _, f := range o {
		width = max(width, len(f.name))
	}
	for _, f := range o {
		text := ""
		switch v := f.value.(type) {
		case []string:
			quoted := make([]string, len(v))
			for i := range v {
				quoted[i] = quoteHCL(v[i])
			}
			text = "[" + strings.Join(quoted, ", ") + "]"
		case string:
			text = quoteHCL(v)
		case variable:
			text = string(v)
		case int:
			text = strconv.Itoa(v)
		}
		p.line(fmt.Sprintf("%-*s = %s", width, f.name, text))
	}
}

// quoteHCL is a string of Terraform's language. What does not print is written by its number.
func quoteHCL(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case (c == '$' || c == '%') && strings.HasPrefix(text[i+1:], "{"):
			b.WriteString(string(c) + string(c))
		case c == '\n':
			b.WriteString(`\n`)
		case c > 0xffff && !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\U%08x`, c)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
