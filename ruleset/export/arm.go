package export

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// arm writes a deployment template.
func (p *printer) arm(groups []*ruleset.NSG) {
	var resources []object
	for _, g := range groups {
		location := literal(g.Location)
		if location == "" {
			location = "[resourceGroup().location]"
		}
		resources = append(resources, object{{"type", "Microsoft.Network/networkSecurityGroups"}, {"apiVersion", apiVersion},
			{"name", literal(g.Name)}, {"location", expression(location)}, {"properties", properties(g)}})
	}
	p.json(object{{"$schema", "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"},
		{"contentVersion", "1.0.0.0"}, {"resources", resources}}, "", "")
	p.WriteByte('\n')
}

// expression is a string of a template that is written as it is.
type expression string

// literal keeps a text from being an expression, or the escape of one.
func literal(text string) string {
	if strings.HasPrefix(text, "[") && (strings.HasSuffix(text, "]") || strings.HasPrefix(text, "[[")) {
		return "[" + text
	}
	return text
}

// json writes a value, behind a name and before what follows.
func (p *printer) json(v any, name, end string) {
	if name != "" {
		name = quoteJSON(name) + ": "
	}
	several := func(open, close string, n int, each func(i int, end string)) {
		if n == 0 {
			p.line(name + open + close + end)
			return
		}
		p.inside(name+open, close+end, func() {
			for i := range n {
				comma := ","
				if i == n-1 {
					comma = ""
				}
				each(i, comma)
			}
		})
	}
	switch v := v.(type) {
	case object:
		several("{", "}", len(v), func(i int, end string) { p.json(v[i].value, v[i].name, end) })
	case []object:
		several("[", "]", len(v), func(i int, end string) { p.json(v[i], "", end) })
	case []string:
		several("[", "]", len(v), func(i int, end string) { p.json(v[i], "", end) })
	case expression:
		p.line(name + quoteJSON(string(v)) + end)
	case string:
		p.line(name + quoteJSON(literal(v)) + end)
	case int:
		p.line(name + strconv.Itoa(v) + end)
	case bool:
		p.line(name + strconv.FormatBool(v) + end)
	}
}

// quoteJSON is a JSON string. Angle brackets and ampersands are escaped too: documents end up in web pages.
func quoteJSON(text string) string {
	quoted, _ := json.Marshal(text) // a string is never an error
	return string(quoted)
}

// ApplicationSecurityGroups are the application security groups that a group's rules name, as a list of resources: so that a
// reader knows them.
func ApplicationSecurityGroups(g *ruleset.NSG) []byte {
	var list []object
	seen := map[string]bool{}
	for i := range g.Rules {
		for _, id := range slices.Concat(g.Rules[i].Source.ApplicationSecurityGroups, g.Rules[i].Destination.ApplicationSecurityGroups) {
			if key := strings.ToLower(id); !seen[key] {
				seen[key] = true
				list = append(list, object{{"id", expression(id)}, {"name", expression(id[strings.LastIndexByte(id, '/')+1:])}, {"type", "Microsoft.Network/applicationSecurityGroups"}, {"properties", object{}}})
			}
		}
	}
	var p printer
	p.json(list, "", "")
	return []byte(p.String())
}
