package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The lab's groups.
const nsg1, nsg2 = "NSG1", "NSG2"

// rule is a user rule; empty fields mean any.
type rule struct {
	name              string
	priority          int
	direction, access string
	protocol          string
	source            string
	destination       string
	port              string
}

func (r rule) document() map[string]any {
	anyIfEmpty := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	return map[string]any{"name": r.name, "properties": map[string]any{
		"priority":                 r.priority,
		"direction":                r.direction,
		"access":                   r.access,
		"protocol":                 anyIfEmpty(r.protocol),
		"sourceAddressPrefix":      anyIfEmpty(r.source),
		"sourcePortRange":          "*",
		"destinationAddressPrefix": anyIfEmpty(r.destination),
		"destinationPortRange":     anyIfEmpty(r.port),
	}}
}

// Rules that several tests use.
var (
	allowHTTPIn = rule{name: "AllowHttpInBound", priority: 100, direction: "Inbound", access: "Allow",
		protocol: "Tcp", source: "Internet", port: "80"}
	denyHTTPOut = rule{name: "DenyHttpOutBound", priority: 100, direction: "Outbound", access: "Deny",
		protocol: "Tcp", destination: "Internet", port: "80"}
	denyAllIn  = rule{name: "DenyEverythingInBound", priority: 4096, direction: "Inbound", access: "Deny"}
	denyAllOut = rule{name: "DenyEverythingOutBound", priority: 4096, direction: "Outbound", access: "Deny"}
)

// groupRules is the user rules of each group of the lab; everything else is the lab's.
type groupRules map[string][]rule

// groups makes a policy of NSG1's and NSG2's rules.
func groups(first, second []rule) groupRules { return groupRules{nsg1: first, nsg2: second} }

func rules(r ...rule) []rule { return r }

// with is the policy with more rules in one group.
func (p groupRules) with(group string, more ...rule) groupRules {
	changed := maps.Clone(p)
	changed[group] = append(slices.Clone(p[group]), more...)
	return changed
}

// write replaces the rules in the lab's documents below dir.
func (p groupRules) write(t *testing.T, dir string) {
	t.Helper()
	for group, rules := range p {
		list := []any{}
		for _, r := range rules {
			list = append(list, r.document())
		}
		editDocument(t, dir, strings.ToLower(group), func(properties map[string]any) {
			properties["securityRules"] = list
		})
	}
}

// editDocument changes the properties of one of the lab's policy documents.
func editDocument(t *testing.T, dir, name string, edit func(properties map[string]any)) {
	t.Helper()
	file := policyFile(dir, name)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := json.Unmarshal(raw, &document); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	edit(document["properties"].(map[string]any))
	raw, err = json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, string(raw))
}

func policyFile(dir, name string) string { return filepath.Join(dir, "policy", name+".json") }

// labPolicy is the policy as it is in the figure.
func labPolicy() groupRules { return groups(rules(allowHTTPIn), rules(allowHTTPIn)) }

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
