package arm

import (
	"fmt"
	"strings"
	"testing"
)

// Conditions of policies are asked of networks a (prod, West Europe, of group hub), b (test) and c (no tags).
func TestConditionalMembersOfNetworkGroups(t *testing.T) {
	const (
		network = `{"type": "Microsoft.Network/virtualNetworks", "name": "%[1]s", "id": "/subscriptions/S/resourceGroups/%[2]s/providers/Microsoft.Network/virtualNetworks/%[1]s", "location": "%[3]s"%[4]s, "properties": {"addressSpace": {"addressPrefixes": ["10.%[5]d.0.0/16"]}}}`
		groups  = `{"type": "Microsoft.Network/networkManagers/networkGroups", "name": "nm/g", "properties": {CONDITIONAL}}`
		policy  = `, {"type": "Microsoft.Authorization/policyDefinitions", "name": "p", "properties": {"policyRule": {"if": IF, "then": {"effect": "addToNetworkGroup", "details": {"networkGroupId": "nm/g"}}}}}`
	)
	networks := fmt.Sprintf(network, "a", "hub", "West Europe", `, "tags": {"env": "prod"}`, 1) + "," + fmt.Sprintf(network, "b", "spokes", "northeurope", `, "tags": {"env": "test"}`, 2) +
		"," + fmt.Sprintf(network, "c", "spokes", "northeurope", "", 3)
	for _, tt := range []struct{ condition, want string }{
		{`{"field": "Name", "equals": "A"}`, "a"},
		{`{"field": "name", "notEquals": "a"}`, "b c"},
		{`{"field": "tags['env']", "equals": "Prod"}`, "a"},
		{`{"field": "tags.env", "notEquals": "prod"}`, "b c"},
		{`{"field": "tags[env]", "exists": "false"}`, "c"},
		{`{"field": "tags.env", "exists": true}`, "a b"},
		{`{"field": "location", "in": ["westeurope", "x"]}`, "a"},
		{`{"field": "location", "notIn": ["westeurope"]}`, "b c"},
		{`{"field": "id", "contains": "/resourceGroups/spokes/"}`, "b c"},
		{`{"field": "id", "notContains": "/resourceGroups/spokes/"}`, "a"},
		{`{"field": "id", "like": "/subscriptions/S/*/b"}`, "b"},
		{`{"field": "id", "notLike": "*/b"}`, "a c"},
		{`{"value": "[resourceGroup().Name]", "equals": "hub"}`, "a"},
		{`{"value": "[subscription().subscriptionId]", "equals": "s"}`, "a b c"},
		{`{"not": {"anyOf": [{"field": "name", "equals": "a"}, {"allOf": [{"field": "name", "equals": "b"}, {"field": "tags.env", "equals": "test"}]}]}}`, "c"},
		{`{"field": "id", "like": "*/subscriptions/*"}`, "open"}, {`{"field": "name", "match": "?"}`, "open"},
		{`{"field": "Microsoft.Network/virtualNetworks/flowTimeoutInMinutes", "equals": "4"}`, "open"},
		{`{"value": "[parameters('x')]", "equals": "4"}`, "open"},
		{`{"field": "name", "equals": "[parameters('x')]"}`, "open"},
		{`{"allOf": [{"field": "name", "equals": "a"}, {"count": {"field": "x"}, "greater": 1}]}`, "open"},
	} {
		for _, form := range []string{groups + strings.Replace(policy, "IF", tt.condition, 1), strings.Replace(groups, "CONDITIONAL", fmt.Sprintf(`"conditionalMembership": %q`, tt.condition), 1)} {
			d := Parse("test.json", []byte("["+networks+","+strings.Replace(form, "CONDITIONAL", "", 1)+"]"))
			got := ""
			for _, g := range d.Set.NetworkGroups {
				for _, v := range g.Members {
					got += " " + v.Name
				}
			}
			if len(d.Unresolved) > 0 && d.Unresolved[0].Code == CodeConditionalMembership {
				got = " open"
			}
			if got = strings.TrimSpace(got); got != tt.want || len(d.Faults) > 0 {
				t.Errorf("%s: %q, want %q: %v", form, got, tt.want, d.Faults)
			}
		}
	}
}
