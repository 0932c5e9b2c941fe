package export

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/nsgd/nsgd/ruleset"
)

// bicep writes a resource for each group.
func (p *printer) bicep(groups []*ruleset.NSG) {
	names := identifiers{}
	for i, g := range groups {
		if i > 0 {
			p.line("")
		}
		location := quoteBicep(g.Location)
		if g.Location == "" {
			location = "resourceGroup().location"
		}
		p.inside(fmt.Sprintf("resource %s 'Microsoft.Network/networkSecurityGroups@%s' = {", names.of(g.Name), apiVersion), "}", func() {
			p.bicepValue("name: ", g.Name)
			p.line("location: " + location)
			p.bicepValue("properties: ", properties(g))
		})
	}
}

func (p *printer) bicepValue(name string, v any) {
	switch v := v.(type) {
	case object:
		p.inside(name+"{", "}", func() {
			for _, f := range v {
				p.bicepValue(f.name+": ", f.value)
			}
		})
	case []object:
		p.inside(name+"[", "]", func() {
			for _, o := range v {
				p.bicepValue("", o)
			}
		})
	case []string:
		p.inside(name+"[", "]", func() {
			for _, text := range v {
				p.line(quoteBicep(text))
			}
		})
	case string:
		p.line(name + quoteBicep(v))
	case int:
		p.line(name + strconv.Itoa(v))
	case bool:
		p.line(name + strconv.FormatBool(v))
	}
}

// quoteBicep is a string of Bicep. What does not print is written by its number.
func quoteBicep(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, c := range text {
		switch {
		case c == '\'' || c == '\\' || c == '$':
			b.WriteString(`\` + string(c))
		case c == '\n':
			b.WriteString(`\n`)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\u{%x}`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
