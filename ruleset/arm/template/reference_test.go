package template

import (
	"strings"
	"testing"
)

// referring is a template with resources to refer to, and one that shows an expression's value.
func referring(expression string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "parameters": {"open": {"type": "string"}, "empty": {"type": "string", "defaultValue": ""}}, "resources": [
		{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"subnets": [{"name": "a", "properties": {"addressPrefix": "10.0.0.0/24"}}, {"name": "b", "properties": {"addressPrefix": "10.0.1.0/24"}}]}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "w", "properties": {"subnets": [{"name": "a"}]}, "resources": [{"type": "subnets", "name": "b", "properties": {"addressPrefix": "10.1.1.0/24"}}]},
		{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "w/A", "properties": {"addressPrefix": "10.1.0.0/24"}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "u", "properties": {}},
		{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "u/a"}, {"type": "Microsoft.Network/virtualNetworks/subnets", "name": "u/b"},
		{"type": "Microsoft.Network/virtualNetworks", "name": "[parameters('open')]", "properties": {"subnets": []}},
		{"type": "Microsoft.Network/networkInterfaces", "name": "nic", "properties": {"ipConfigurations": [
			{"name": "c", "properties": {"privateIPAllocationMethod": "Static", "privateIPAddress": "10.0.0.4", "subnet": {"id": "s"}}},
			{"name": "d", "properties": {"privateIPAllocationMethod": "Dynamic", "privateIPAddress": "", "subnet": {"id": "s"}}},
			{"name": "e", "properties": {"subnet": {"id": "s"}}},
			{"name": "f", "properties": {"privateIPAllocationMethod": "Static", "privateIPAddress": "[parameters('empty')]", "subnet": {"id": "s"}}}]}},
		{"type": "Microsoft.Network/loadBalancers", "name": "lb", "properties": {"frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "p"}}}], "backendAddressPools": [{"name": "p"}]}},
		{"type": "T/x", "name": "same"}, {"type": "T/y", "name": "same"},
		{"type": "Microsoft.Resources/deployments", "name": "other", "resourceGroup": "net-rg", "properties": {"expressionEvaluationOptions": {"scope": "inner"},
			"template": {"resources": [{"type": "T/x", "name": "far", "properties": {"p": 7}}], "outputs": {
				"o": {"type": "string", "value": "out"}, "open": {"type": "string", "condition": "[reference('none').x]", "value": "x"}, "no": {"type": "string", "condition": false, "value": "x"}}}}},
		{"type": "T/z", "name": "shows", "properties": {"v": "` + expression + `"}}]}`
}

func TestReferences(t *testing.T) {
	const mine = "/subscriptions/" + NoSubscription + "/resourceGroups/nsgd/providers/Microsoft.Network/"
	for _, tt := range []struct{ expression, want, problem string }{
		{"reference('v').subnets[1].id", `"` + mine + `virtualNetworks/v/subnets/b"`, ""},
		{"reference(resourceId('Microsoft.Network/virtualNetworks', 'v'), '2023-09-01', 'Full').properties.subnets[0].id", `"` + mine + `virtualNetworks/v/subnets/a"`, ""},
		{"reference('Microsoft.Network/virtualNetworks/v').subnets[0].name", `"a"`, ""},
		{"reference('providers/microsoft.network/virtualNetworks/v').subnets[0].name", `"a"`, ""},
		{"reference(concat('/resourceGroups/', resourceGroup().name, '/providers/Microsoft.Network/virtualNetworks/v')).subnets[0].name", `"a"`, ""},
		{"reference(resourceId(subscription().subscriptionId, resourceGroup().name, 'Microsoft.Network/virtualNetworks', 'v')).subnets[0].name", `"a"`, ""},
		{"reference(resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 'b')).addressPrefix", `"10.0.1.0/24"`, ""},
		{"reference(resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 'b'), '1', 'full').name", `"b"`, ""},
		{"reference(resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 'c')).addressPrefix", "", "is not in the template"},
		{"length(reference('w').subnets)", "2", ""},
		{"reference('w').subnets[0].properties.addressPrefix", `"10.1.0.0/24"`, ""},
		{"reference('w').subnets[1].id", `"` + mine + `virtualNetworks/w/subnets/b"`, ""},
		{"reference('w/b').addressPrefix", `"10.1.1.0/24"`, ""},
		{"reference('u').subnets[0].id", "", "only Azure knows in which order"},
		{"reference('lb').frontendIPConfigurations[0].id", `"` + mine + `loadBalancers/lb/frontendIPConfigurations/f"`, ""},
		{"reference('lb').backendAddressPools[0].id", `"` + mine + `loadBalancers/lb/backendAddressPools/p"`, ""},
		{"reference('nic').ipConfigurations[0].properties.privateIPAddress", `"10.0.0.4"`, ""},
		{"reference('nic').ipConfigurations[0].id", `"` + mine + `networkInterfaces/nic/ipConfigurations/c"`, ""},
		{"reference('nic').ipConfigurations[1].properties.privateIPAddress", "", "the address of nic is dynamic: Azure chooses it"},
		{"reference('nic').ipConfigurations[2].properties.privateIPAddress", "", "the address of nic is dynamic: Azure chooses it"},
		{"reference('nic').ipConfigurations[3].properties.privateIPAddress", "", "the address of nic is dynamic: Azure chooses it"},
		{"reference('v').?vmProtection", "", "only Azure knows the property vmProtection of v"},
		{"reference('other').outputs.?none", "null", ""},
		{"reference('same')", "", "same fits several resources of the template: T/x at resources[9], T/y at resources[10]"},
		{"reference('T/y/same').p", "", "only Azure knows the property p"},
		{"reference(resourceId('net-rg', 'Microsoft.Resources/deployments', 'other')).outputs.o.value", `"out"`, ""},
		{"reference(extensionResourceId(format('/subscriptions/{0}/resourceGroups/{1}', subscription().subscriptionId, 'net-rg'), 'Microsoft.Resources/deployments', 'other')).outputs.o.value", `"out"`, ""},
		{"listOutputsWithSecureValues(resourceId('net-rg', 'Microsoft.Resources/deployments', 'other'), '2025-04-01').o", `"out"`, ""},
		{"listOutputsWithSecureValues('other', '2025-04-01').open", "", "only Azure knows its properties"},
		{"listOutputsWithSecureValues('other', '2025-04-01').no", "", "no"},
		{"reference(resourceId('net-rg', 'T/x', 'far')).p", "7", ""},
		{"reference(resourceId('T/x', 'far')).p", "", "T/x/far is not in the template"},
		{"reference('other').outputs.open.value", "", "the resource none is not in the template"},
		{"reference('other').outputs.no.value", "", "there is no property no; there are: o, open"},
	} {
		t.Run(tt.expression, func(t *testing.T) {
			r := evaluateText(t, referring("["+tt.expression+"]"), Options{})
			list := names(r.Document)
			got := strings.TrimSuffix(strings.TrimPrefix(list[len(list)-1], `z shows {"v":`), "}")
			if tt.want != "" {
				if got != tt.want {
					t.Errorf("got %s with %v, want %s", got, r.Problems, tt.want)
				}
				return
			}
			for _, p := range r.Problems {
				if strings.HasSuffix(p.Place, "].properties.v") && strings.Contains(p.Message, tt.problem) {
					return
				}
			}
			t.Errorf("got %s with %v, want %s", got, r.Problems, tt.problem)
		})
	}
}

// A resource is found wherever it stands: in the template of a deployment behind the reference too.
func TestAReferenceToWhatALaterDeploymentMakes(t *testing.T) {
	r := evaluateText(t, `{"resources": [{"type": "T/x", "name": "first", "properties": {"v": "[reference(resourceId('T/x', 'late')).p]"}},`+
		nested(`"template": {"resources": [{"type": "T/x", "name": "late", "properties": {"p": 7}}]}`)+`]}`, Options{})
	if got := names(r.Document); got[0] != `x first {"v":7}` || len(r.Problems) > 0 {
		t.Errorf("got %q with %v", got, r.Problems)
	}
}

// Looking for a resource must not spoil a deployment that waits for the one that looks.
func TestASearchLeavesWhatWaitsAsItWas(t *testing.T) {
	r := evaluateText(t, `{"resources": [
		{"type": "T/x", "name": "first", "properties": {"p": 7, "v": "[reference(resourceId('T/x', 'nowhere')).p]"}},
		{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"expressionEvaluationOptions": {"scope": "inner"}, "parameters": {"p": {"value": "[reference('first').p]"}},
			"template": {"parameters": {"p": {"type": "int"}}, "resources": [{"type": "T/x", "name": "[format('n{0}', parameters('p'))]"}]}}}]}`, Options{})
	if got := names(r.Document); len(got) != 3 || got[2] != "  x n7" || len(r.Problems) != 1 {
		t.Errorf("got %q with %v", got, r.Problems)
	}
}

func TestReferencesOfASubscription(t *testing.T) {
	const template = `{"$schema": "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#", "parameters": {"open": {"type": "string"}}, "resources": [
		{"type": "Microsoft.Resources/deployments", "name": "logic", "location": "x", "properties": {"expressionEvaluationOptions": {"scope": "inner"},
			"template": {"$schema": "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#", "resources": [], "outputs": {"o": {"type": "string", "value": "out"}}}}},
		{"type": "Microsoft.Resources/deployments", "name": "open", "resourceGroup": "[parameters('open')]", "properties": {"expressionEvaluationOptions": {"scope": "inner"},
			"template": {"resources": [{"type": "T/x", "name": "n"}, {"type": "T/y", "name": "m", "properties": {"v": "[reference(resourceId('T/x', 'n'), '1', 'Full').name]"}}]}}},
		{"type": "T/z", "name": "shows", "properties": {"v": "EXPRESSION"}}]}`
	for _, o := range []Options{{}, {Subscription: "S", ResourceGroup: "R"}} {
		for expression, want := range map[string]string{
			"[reference(subscriptionResourceId('Microsoft.Resources/deployments', 'logic')).outputs.o.value]":                                           `"out"`,
			"[reference(resourceId('Microsoft.Resources/deployments', 'logic')).outputs.o.value]":                                                       `"out"`,
			"[reference(concat('/subscriptions/', subscription().subscriptionId, '/providers/Microsoft.Resources/deployments/logic')).outputs.o.value]": `"out"`,
			"[reference('logic').outputs.o.value]": `"out"`,
			"[resourceGroup().name]":               `"[resourceGroup().name]"`,
		} {
			r := evaluateText(t, strings.Replace(template, "EXPRESSION", expression, 1), o)
			list := names(r.Document)
			if got := list[len(list)-1]; got != `z shows {"v":`+want+`}` {
				t.Errorf("%s: got %s with %v", expression, got, r.Problems)
			}
			if list[3] != `  y m {"v":"n"}` {
				t.Errorf("within an open group: %q", list)
			}
		}
	}
}
