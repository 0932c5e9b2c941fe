package arm

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
)

// Each document has the port 70000 in line 3, column 24, of the group's rule, and nothing else that is wrong.
func TestAFaultHasThePlaceOfItsField(t *testing.T) {
	const rule = `"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
 "sourcePortRange": "*", "destinationAddressPrefix": "*",
 "destinationPortRange":70000`
	group := func(rules string) string {
		return `{"type": "Microsoft.Network/networkSecurityGroups", "apiVersion": "2023-09-01", "name": "g", "properties": {"securityRules": ` + rules + `}}`
	}
	template := func(rest string) string {
		return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", ` + rest + `}`
	}
	for _, tt := range []struct{ name, document, want string }{
		{"a resource", group(`[{"name": "r", "properties": {` + rule + `}}]`), "3:25"},
		{"az", `[{"name": "g", "securityRules": [{"name": "r", ` + rule + `}]}]`, "3:25"},
		{"behind a comment and a string of two lines", "[{\"description\": \"a\nb\", /*\n*/ \"name\": \"g\", \"securityRules\": [{\"name\": \"r\", " + rule + "}]}]", "5:25"},
		{"a template", template(`"parameters": {"g": {"type": "string", "defaultValue": "g"}}, "resources": [` + group(`[{"name": "[parameters('g')]", "properties": {`+rule+`}}]`) + `]`), "3:25"},
		{"a loop", template(`"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "apiVersion": "2023-09-01", "name": "g", "properties": {
"copy": [{"name": "securityRules", "count": 1, "input": {"name": "[concat('r', copyIndex('securityRules'))]", "properties": {` + rule + `}}}]}}]`), "4:25"},
		{"a variable", template(`"variables": {"r": [{"name": "r", "properties": {` + rule + `}}]}, "resources": [` + group(`"[variables('r')]"`) + `]`), "3:25"},
		{"a nested template", template(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "2022-09-01", "name": "d", "properties": {"mode": "Incremental",
"template": ` + template(`"resources": [`+group(`[{"name": "r", "properties": {`+rule+`}}]`)+`]`) + `}}]`), "4:25"},
		{"what a function makes has none", template(`"resources": [` + group(`"[createArray(createObject('name', 'r', 'properties', createObject('priority', 100, 'direction', 'Inbound', 'access', 'Allow', 'protocol', 'Tcp', 'sourceAddressPrefix', '*', 'sourcePortRange', '*', 'destinationAddressPrefix', '*', 'destinationPortRange', '70000')))]"`) + `]`), "0:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("a.json", []byte(tt.document))
			if len(d.Faults) != 1 || fmt.Sprintf("%d:%d", d.Faults[0].Line, d.Faults[0].Column) != tt.want {
				t.Errorf("faults %v, want one at %s", d.Faults, tt.want)
			}
		})
	}
}

// A Reader that reads again tells the same places, also of the groups that it has from before.
func TestTheRulesOfAPolicyHavePlaces(t *testing.T) {
	dir := policyOf(t, map[string]string{
		"a.json": "[{\"name\": \"a\", \"securityRules\": [\n  {\"name\": \"R\", \"protocol\": \"Tcp\", \"access\": \"Allow\", \"direction\": \"Inbound\", \"priority\": 100," +
			" \"sourceAddressPrefix\": \"*\", \"sourcePortRange\": \"*\",\n   \"destinationAddressPrefix\": \"*\", \"destinationPortRange\": \"80\"}]}]",
		"b.json": `{"type": "Microsoft.Network/networkSecurityGroups", "name": "b", "properties": {"securityRules": []}}`,
	})
	reader := NewReader("", dir)
	for range 2 {
		d := reader.Read()
		if len(d.Faults) > 0 {
			t.Fatal(d.Faults)
		}
		var got []string
		for _, field := range []string{"", "destinationPortRange", "DESTINATIONADDRESSPREFIX", "none"} {
			file, line, column := d.RulePosition(d.Set.NetworkSecurityGroups[0], "r", field)
			got = append(got, fmt.Sprintf("%s:%d:%d", filepath.Base(file), line, column))
		}
		if want := []string{"a.json:2:3", "a.json:3:61", "a.json:3:32", "a.json:2:3"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if file, line, _ := d.RulePosition(d.Set.NetworkSecurityGroups[1], "none", ""); filepath.Base(file) != "b.json" || line != 0 {
			t.Errorf("a rule that is not there is at %s:%d", file, line)
		}
	}
}
