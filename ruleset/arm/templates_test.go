package arm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// policyOf writes files into a folder of their own.
func policyOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rulesIn lists rules as "group/rule priority source".
func rulesIn(d *Documents) []string {
	var list []string
	for _, g := range d.Set.NetworkSecurityGroups {
		for i := range g.Rules {
			r := &g.Rules[i]
			source := r.Source.Tag
			for _, p := range r.Source.Prefixes {
				source += p.String()
			}
			list = append(list, g.Name+"/"+r.Name+" "+source)
		}
	}
	return list
}

const templateRule = `{"name": "[concat('r', copyIndex('securityRules'))]", "properties": {"protocol": "Tcp", "access": "Allow", "direction": "Inbound",
	"priority": "[add(100, copyIndex('securityRules'))]", "sourcePortRange": "*", "destinationPortRange": "80", "sourceAddressPrefix": "[parameters('sources')[copyIndex('securityRules')]]", "destinationAddressPrefix": "*"}}`

const groupTemplate = `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
	"parameters": {"prefix": {"type": "string", "defaultValue": "lab"}, "sources": {"type": "array"}},
	"variables": {"nsg": "[concat(parameters('prefix'), '-nsg')]"},
	"resources": [
		{"type": "Microsoft.Network/networkSecurityGroups", "name": "[variables('nsg')]", "properties": {"copy": [{"name": "securityRules", "count": "[length(parameters('sources'))]", "input": ` + templateRule + `}]}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "net", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "a", "properties": {"addressPrefix": "[cidrSubnet('10.0.0.0/16', 24, 1)]", "networkSecurityGroup": {"id": "[resourceId('Microsoft.Network/networkSecurityGroups', variables('nsg'))]"}}}]}}]}`

func TestTemplatesAreReadWithTheirParameters(t *testing.T) {
	beside := `{"parameters": {"sources": {"value": ["10.1.0.0/16"]}}}`
	tests := []struct {
		name       string
		files      map[string]string
		parameters []string // a name with .json is within the folder
		rules      []string
		faults     []string // messages
		unresolved []string
	}{
		{"without a value the rules stay open", map[string]string{"main.json": groupTemplate}, nil, nil, nil,
			[]string{"copy [length(parameters('sources'))]: at resources[0].properties.copy[0].count: parameters.sources: the parameter sources (array) has no value and no defaultValue"}},
		{"the file beside the template", map[string]string{"main.json": groupTemplate, "main.parameters.json": beside}, nil,
			[]string{"lab-nsg/r0 10.1.0.0/16"}, nil, nil},
		{"a file that is named goes first", map[string]string{"main.json": groupTemplate, "main.parameters.json": beside, "p/other.json": `{"sources": {"value": ["Internet", "10.2.0.0/16"]}}`},
			[]string{"p/other.json"}, []string{"lab-nsg/r0 Internet", "lab-nsg/r1 10.2.0.0/16"}, nil, nil},
		{"the last value holds", map[string]string{"main.json": groupTemplate}, []string{`sources=["10.3.0.0/16"]`, "prefix=x", "prefix=y"},
			[]string{"y-nsg/r0 10.3.0.0/16"}, nil, nil},
		{"a name that no template declares", map[string]string{"main.json": groupTemplate, "main.parameters.json": beside}, []string{"souces=[]"},
			[]string{"lab-nsg/r0 10.1.0.0/16"}, []string{"none of the 1 templates declares a parameter of that name"}, nil},
		{"a value of the wrong type", map[string]string{"main.json": groupTemplate}, []string{"sources=x"}, nil,
			[]string{`the value "x" is no JSON`}, []string{"copy [length(parameters('sources'))]: at"}},
		{"a fault of an evaluated rule", map[string]string{"main.json": groupTemplate}, []string{`sources=["10.3.0.0/33"]`}, nil,
			[]string{"has invalid Address prefix"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := policyOf(t, tt.files)
			for i, p := range tt.parameters {
				if strings.HasSuffix(p, ".json") {
					tt.parameters[i] = filepath.Join(dir, p)
				}
			}
			reader := NewReader("", filepath.Join(dir, "*.json"))
			reader.SetDeployment(Deployment{Parameters: tt.parameters})
			d := reader.Read()
			if got := rulesIn(d); !slices.Equal(got, tt.rules) {
				t.Errorf("rules %q, want %q", got, tt.rules)
			}
			var faults, unresolved []string
			for _, f := range d.Faults {
				faults = append(faults, f.Message)
			}
			for _, f := range d.Unresolved {
				unresolved = append(unresolved, f.Field+" "+f.Value+": "+f.Message)
			}
			contain := func(what string, got, want []string) {
				ok := len(got) == len(want)
				for i := range min(len(got), len(want)) {
					ok = ok && strings.Contains(got[i], want[i])
				}
				if !ok {
					t.Errorf("%s %q, want %q", what, got, want)
				}
			}
			contain("faults", faults, tt.faults)
			contain("unresolved", unresolved, tt.unresolved)
		})
	}
}

// A partial policy lists what it leaves out, and leaves out what depends on that: a subnet
// without its group would be unprotected.
func TestAPartialPolicyLeavesOutWhatIsOpen(t *testing.T) {
	const document = `{"parameters": {"c": {"type": "bool"}, "s": {"type": "string"}}, "resources": [
		{"type": "Microsoft.Network/networkSecurityGroups", "name": "sure", "properties": {"securityRules": [
			{"name": "open", "properties": {"protocol": "*", "access": "Deny", "direction": "Inbound", "priority": 100, "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "[parameters('s')]", "destinationAddressPrefix": "*"}},
			{"name": "known", "properties": {"protocol": "*", "access": "Deny", "direction": "Inbound", "priority": 200, "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "Internet", "destinationAddressPrefix": "*"}}]}},
		{"type": "Microsoft.Network/networkSecurityGroups", "name": "maybe", "condition": "[parameters('c')]", "properties": {}},
		{"type": "Microsoft.Network/networkSecurityGroups/securityRules", "name": "sure/child", "condition": "[parameters('c')]", "properties": {}},
		{"type": "Microsoft.Resources/deployments", "name": "d", "condition": "[parameters('c')]", "properties": {"template": {"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "inner"}]}}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "net", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [
			{"name": "a", "properties": {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "[resourceId('Microsoft.Network/networkSecurityGroups', 'maybe')]"}}},
			{"name": "b", "properties": {"addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "[resourceId('Microsoft.Network/networkSecurityGroups', 'sure')]"}}}]}}]}`
	reader := NewReader("", policyOf(t, map[string]string{"main.json": document}))
	reader.SetDeployment(Deployment{Partial: true})
	d := reader.Read()
	if len(d.Faults) > 0 {
		t.Fatal(d.Faults)
	}
	if got := rulesIn(d); !slices.Equal(got, []string{"sure/known Internet"}) {
		t.Errorf("rules %q", got)
	}
	if subnets := d.Set.VirtualNetworks[0].Subnets; len(subnets) != 1 || subnets[0].Name != "b" {
		t.Errorf("subnets %v", subnets)
	}
	var left []string
	for _, f := range d.Unresolved {
		left = append(left, f.Resource+" "+f.Field)
	}
	want := []string{
		"resources/sure/child condition", "resources/d condition", "networkSecurityGroups/sure sourceAddressPrefix",
		"networkSecurityGroups/maybe condition",
	}
	if !slices.Equal(left, want) {
		t.Errorf("left out %q, want %q", left, want)
	}
	if m := d.Unresolved[3].Message; !strings.HasSuffix(m, "; 1 resource that depends on it was not read: virtualNetworks/net/subnets/a") {
		t.Errorf("the group's condition does not say what depends on it: %s", m)
	}
}

// Rules were lost: those of a resource that was left out, and one of two lists of rules.
func TestNoRuleOfATemplateIsLostInSilence(t *testing.T) {
	const (
		deny = `"properties": {"protocol": "*", "access": "Deny", "direction": "Inbound", "priority": 100, "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*"}`
		nsg  = `"type": "Microsoft.Network/networkSecurityGroups"`
		no   = `"condition": "[equals(1, 2)]"`
		loop = `{"name": "securityRules", "count": 1, "input": {"name": "b", ` + deny + `}}`
	)
	child := `"resources": [{"type": "securityRules", "name": "deny", ` + deny + `}]`
	group := `{` + nsg + `, "name": "n", "properties": {}}`
	for _, tt := range []struct {
		name, resources string
		rules           []string
		code, message   string // of the one fault or what is unresolved
	}{
		{"a child of a resource that is not deployed, of a group that is", `[` + group + `, {` + nsg + `, "name": "[concat('n')]", ` + no + `, ` + child + `}]`,
			[]string{"n/deny "}, "", ""},
		{"a child of a resource that is not deployed, without a group", `[{` + nsg + `, "name": "n", ` + no + `, ` + child + `}]`, nil,
			CodeParentNotFound, ""},
		{"a child of a resource that exists, of a group in the documents", `{"old": {` + nsg + `, "name": "n", "existing": true, ` + child + `}, "new": ` + group + `}`,
			[]string{"n/deny "}, "", ""},
		{"rules beside a loop of rules", `[{` + nsg + `, "name": "n", "properties": {"securityRules": [{"name": "a", ` + deny + `}], "copy": [` + loop + `]}}]`, nil,
			CodeTemplateExpression, "a copy loop makes the property too"},
		{"rules in another case beside a loop of rules", `[{` + nsg + `, "name": "n", "properties": {"SecurityRules": [{"name": "a", ` + deny + `}], "copy": [` + loop + `]}}]`, nil,
			CodeTemplateExpression, "a copy loop makes the property too"},
		{"two loops of rules", `[{` + nsg + `, "name": "n", "properties": {"copy": [` + loop + `, ` + loop + `]}}]`, nil,
			CodeTemplateExpression, "a copy loop makes the property too"},
		{"a loop without its input", `[{` + nsg + `, "name": "n", "properties": {"copy": [{"name": "securityRules", "count": 2}]}}]`, nil,
			CodeTemplateExpression, "each needs name, count and input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(`{"languageVersion": "2.0", "resources": `+tt.resources+`}`))
			told := append(d.Faults, d.Unresolved...)
			switch {
			case tt.code == "" && len(told) > 0, tt.code != "" && (len(told) != 1 || told[0].Code != tt.code || !strings.Contains(told[0].Message, tt.message)):
				t.Errorf("told %v, want %q with %q", told, tt.code, tt.message)
			}
			if got := rulesIn(d); tt.code == "" && !slices.Equal(got, tt.rules) {
				t.Errorf("rules %q, want %q", got, tt.rules)
			}
		})
	}
}

// A linked template was read a second time, as a document without parameters.
func TestALinkedTemplateIsReadOnlyWhereItIsLinked(t *testing.T) {
	dir := policyOf(t, map[string]string{
		"a-nested/rules.json": `{"parameters": {"name": {"type": "string"}}, "resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "[parameters('name')]"}]}`,
		"main.json": `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": {"relativePath": "a-nested/rules.json"}, "parameters": {"name": {"value": "web"}}}},
			{"type": "Microsoft.Resources/deployments", "name": "e", "properties": {"templateLink": {"uri": "https://example.org/t.json"}}}]}`,
	})
	d := Load(dir)
	if g := d.Set.NetworkSecurityGroups; len(g) != 1 || g[0].Name != "web" || len(d.Faults) > 0 {
		t.Errorf("groups %v, faults %v", g, d.Faults)
	}
	if u := d.Unresolved; len(u) != 1 || u[0].Field != "templateLink" || !strings.Contains(u[0].Message, "https://example.org/t.json is remote") {
		t.Errorf("unresolved %v", u)
	}
}

func TestWhatOnlyAzureKnowsComesFromAFile(t *testing.T) {
	const document = `{"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "properties": {"securityRules": [
		{"name": "r", "properties": {"protocol": "*", "access": "Allow", "direction": "Inbound", "priority": 100, "sourcePortRange": "*", "destinationPortRange": "*", "destinationAddressPrefix": "*",
			"sourceAddressPrefix": "[reference(resourceId('Microsoft.Network/publicIPAddresses', 'ip')).ipAddress]"}}]}}]}`
	dir := policyOf(t, map[string]string{"p/main.json": document, "runtime.json": `{"ip": {"properties": {"ipAddress": "203.0.113.7"}}}`})
	reader := NewReader("", filepath.Join(dir, "p"))
	if u := reader.Read().Unresolved; len(u) != 1 || u[0].Rule != "r" || !strings.Contains(u[0].Message, "only Azure knows its properties") {
		t.Errorf("unresolved %v", u)
	}
	reader.SetDeployment(Deployment{Runtime: filepath.Join(dir, "runtime.json")})
	d := reader.Read()
	if got := rulesIn(d); len(d.Unresolved) > 0 || !slices.Equal(got, []string{"g/r 203.0.113.7/32"}) {
		t.Errorf("rules %q, unresolved %v", got, d.Unresolved)
	}
}

// A Reader reused a template's groups although its parameters had changed.
func TestATemplateIsEvaluatedAgain(t *testing.T) {
	dir := policyOf(t, map[string]string{
		"main.json":            `{"parameters": {"n": {"type": "string"}}, "resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "[parameters('n')]"}]}`,
		"main.parameters.json": `{"parameters": {"n": {"value": "one"}}}`,
	})
	reader := NewReader("", dir)
	for _, name := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, "main.parameters.json"), []byte(`{"parameters": {"n": {"value": "`+name+`"}}}`), 0o644); err != nil {
			t.Fatal(err)
		}
		if g := reader.Read().Set.NetworkSecurityGroups; len(g) != 1 || g[0].Name != name {
			t.Errorf("groups %v, want %s", g, name)
		}
	}
}

func TestResourcesOfATemplateGoByNameUntilTheyArePlaced(t *testing.T) {
	template := `{"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "g"}]}`
	network := `{"id": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/net", "name": "net", "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
		"subnets": [{"name": "a", "addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/networkSecurityGroups/g"}}]}`
	dir := policyOf(t, map[string]string{"a.json": template, "b.json": network})
	tests := []struct {
		name string
		d    Deployment
		ok   bool
	}{
		{"nowhere", Deployment{}, true},
		{"there", Deployment{Subscription: "S", ResourceGroup: "R"}, true},
		{"elsewhere", Deployment{Subscription: "S", ResourceGroup: "other"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reader := NewReader("", dir)
			reader.SetDeployment(tt.d)
			d := reader.Read()
			if ok := len(d.Unresolved) == 0; ok != tt.ok || len(d.Faults) > 0 {
				t.Errorf("faults %v, unresolved %v", d.Faults, d.Unresolved)
			}
			if named := slices.ContainsFunc(d.Warnings, func(f ruleset.Fault) bool { return f.Code == CodeByNameAlone }); named != (tt.name == "nowhere") {
				t.Errorf("warnings %v", d.Warnings)
			}
		})
	}
}

func TestTerraformIsReadAsARM(t *testing.T) {
	d := Load("terraform/testdata/state.json")
	if got, want := rulesIn(d), []string{"web/http Internet", "web/app 10.0.0.0/2410.0.9.0/24"}; !slices.Equal(got, want) {
		t.Errorf("rules %q, want %q; faults %v", got, want, d.Faults)
	}
	nic := d.Set.NetworkInterfaces
	if len(nic) != 1 || nic[0].NetworkSecurityGroup == nil || nic[0].IPConfigurations[0].Subnet.NetworkSecurityGroup == nil ||
		len(nic[0].IPConfigurations[0].ApplicationSecurityGroups) != 1 {
		t.Errorf("network interfaces %+v; faults %v", nic, d.Faults)
	}
	plan := Load("terraform/testdata/plan.json")
	var open []string
	for _, f := range plan.Unresolved {
		open = append(open, f.Resource+" "+f.Rule+" "+f.Field)
		if !strings.Contains(f.Message, "only after it applied the plan") {
			t.Errorf("unresolved %v", f)
		}
	}
	want := []string{
		"azurerm_subnet_network_security_group_association.a  subnet_id",
		"networkSecurityGroups/web from-ip sourceAddressPrefix",
	}
	if !slices.Equal(open, want) || len(plan.Faults) > 0 {
		t.Errorf("unresolved %q, want %q; faults %v", open, want, plan.Faults)
	}
	if len(plan.Set.NetworkInterfaces) != 1 {
		t.Error("the plan's network interface was not read")
	}
	raw := Parse("terraform.tfstate", []byte(`{"version": 4, "lineage": "x", "resources": [{"type": "azurerm_network_security_group", "instances": []}]}`))
	if f := raw.Faults; len(f) != 1 || f[0].Code != CodeInvalidRequestFormat || f[0].File != "terraform.tfstate" || !strings.Contains(f[0].Message, "terraform show -json") {
		t.Errorf("a state as Terraform keeps it: faults %v", f)
	}
}

// The network resources of published templates are read. Their faults are Azure's, and what
// stays open only Azure knows.
func TestPublishedTemplatesLoad(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/templates/*/azuredeploy.json")
	if len(files) == 0 {
		t.Skip("the shared templates are not here")
	}
	groups, rules, networks := 0, 0, 0
	for _, file := range files {
		d := Load(file)
		groups += len(d.Set.NetworkSecurityGroups)
		networks += len(d.Set.VirtualNetworks)
		rules += len(rulesIn(d))
		for _, f := range append(d.Faults, d.Unresolved...) {
			t.Logf("%v", f)
			if f.File == "" || f.Message == "" || f.Resource == "" && f.Code != CodeInvalidTemplate {
				t.Errorf("it says too little: %+v", f)
			}
			if f.Code == CodeTemplateExpression && strings.HasPrefix(f.Message, "expressions are evaluated in templates only") {
				t.Errorf("an expression without a reason: %v", f)
			}
		}
	}
	t.Logf("%d groups, %d rules, %d networks of %d templates", groups, rules, networks, len(files))
	if groups < 40 || rules < 80 || networks < 40 {
		t.Errorf("%d groups, %d rules, %d networks of %d templates", groups, rules, networks, len(files))
	}
}

// A signal, or the end of the time, ends the templates of a reading.
func TestTheTimeOfTemplatesIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.json")
	text := `{"$schema": "s", "variables": {"n": "[map(range(0, 10000), lambda('i', concat('a', string(lambdaVariables('i')))))]"},
		"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "[variables('n')[0]]"}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(d Deployment) string {
		r := NewReader("", file)
		r.SetDeployment(d)
		out := r.Read()
		all := ""
		for _, list := range []ruleset.Faults{out.Faults, out.Unresolved} {
			for i := range list {
				all += list[i].Error() + "\n"
			}
		}
		return all
	}
	if got := read(Deployment{}); got != "" {
		t.Errorf("without a bound: %s", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	for want, d := range map[string]Deployment{"interrupted": {Context: ctx}, "more than 1ns to evaluate": {Timeout: 1}} {
		got := read(d)
		for _, part := range []string{want, file} {
			if !strings.Contains(got, part) {
				t.Errorf("%q is not in: %s", part, got)
			}
		}
	}
}

// A template without expressions was not evaluated, and lost where it deploys to.
func TestATemplateOfLiteralsIsEvaluated(t *testing.T) {
	a, b := groupOf("n", ruleFrom("a", 100, "10.1.0.0/16")), groupOf("n", ruleFrom("b", 100, "10.2.0.0/16"))
	to := func(field, value string, resources ...string) string {
		return strings.Replace(deployment("d"+value, "", resources...), `"properties"`, `"`+field+`": "`+value+`", "properties"`, 1)
	}
	tests := []struct {
		name, document string
		want           []string
		open           []string // fields
		faults         []string
	}{
		{"a deployment to another group", templateOf(a, to("resourceGroup", "other", b)), []string{"n/a 10.1.0.0/16", "n/b 10.2.0.0/16"}, nil, nil},
		{"to another subscription", templateOf(a, to("subscriptionId", "T", b)), []string{"n/a 10.1.0.0/16", "n/b 10.2.0.0/16"}, nil, nil},
		{"to two groups of a subscription", strings.Replace(templateOf(to("resourceGroup", "one", a), to("resourceGroup", "two", b)), "/deploymentTemplate", "/subscriptionDeploymentTemplate", 1),
			[]string{"n/a 10.1.0.0/16", "n/b 10.2.0.0/16"}, nil, nil},
		{"a child in another group", templateOf(a, to("resourceGroup", "hub", childRule(ruleFrom("n/r", 200, "*")))), []string{"n/a 10.1.0.0/16"}, []string{"name"}, nil},
		{"a parent that is not deployed", templateOf(a, strings.Replace(groupOf("m", ruleFrom("x", 100, "*")), `"name"`, `"condition": false, "resources": [{"type": "securityRules", `+ruleFrom("y", 100, "*")+`}], "name"`, 1)),
			[]string{"n/a 10.1.0.0/16"}, []string{"name"}, nil},
		{"an argument that is not declared", templateOf(strings.Replace(deployment("d", "", a), `{"template"`, `{"parameters": {"p": {"value": 1}}, "template"`, 1)),
			[]string{"n/a 10.1.0.0/16"}, nil, []string{CodeInvalidTemplate}},
		{"a condition that is a text", templateOf(strings.Replace(a, `"name"`, `"condition": "false", "name"`, 1)), []string{"n/a 10.1.0.0/16"}, []string{"condition"}, nil},
		{"a condition that is null", templateOf(strings.Replace(a, `"name"`, `"condition": null, "name"`, 1)), []string{"n/a 10.1.0.0/16"}, []string{"condition"}, nil},
		{"what is no resource", templateOf(a, "null", `"text"`), []string{"n/a 10.1.0.0/16"}, []string{"resources", "resources"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			var open []string
			for _, u := range d.Unresolved {
				open = append(open, u.Field)
			}
			if !slices.Equal(rulesIn(d), tt.want) || !slices.Equal(open, tt.open) || !slices.Equal(codes(d.Faults), tt.faults) {
				t.Errorf("read %q, open %v, faults %v", rulesIn(d), d.Unresolved, d.Faults)
			}
		})
	}
}

// Both were passed over, as what another template links.
func TestTemplatesThatLinkEachOtherAreRead(t *testing.T) {
	template := func(name, link string) string {
		return `{"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "` + name + `"},
			{"type": "Microsoft.Resources/deployments", "name": "d` + name + `", "properties": {"mode": "Incremental", "templateLink": {"relativePath": "` + link + `"}}}]}`
	}
	d := Load(policyOf(t, map[string]string{"a.json": template("a", "b.json"), "b.json": template("b", "c.json"), "c.json": template("c", "b.json")}))
	if n := len(d.Set.NetworkSecurityGroups); n != 3 || joinedCodes(d.Unresolved) != CodeTemplateExpression || !strings.Contains(d.Unresolved[0].Message, "nest deeper") {
		t.Errorf("%d groups, unresolved %v", n, d.Unresolved)
	}
	d = Load(policyOf(t, map[string]string{"b.json": template("b", "c.json"), "c.json": template("c", "b.json")}))
	if n := len(d.Set.NetworkSecurityGroups); n != 2 || joinedCodes(d.Unresolved) != CodeTemplateExpression {
		t.Errorf("%d groups, unresolved %v", n, d.Unresolved)
	}
}
