package arm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// templateOf is a template of resources.
func templateOf(resources ...string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "resources": [` + strings.Join(resources, ",") + `]}`
}

// deployment is a nested deployment that is deployed after another.
func deployment(name, after string, resources ...string) string {
	depends := ""
	if after != "" {
		depends = `"dependsOn": ["[resourceId('Microsoft.Resources/deployments', '` + after + `')]"], `
	}
	return `{"type": "Microsoft.Resources/deployments", "name": "` + name + `", ` + depends + `"properties": {"template": ` + templateOf(resources...) + `}}`
}

func ruleFrom(name string, priority int, source string) string {
	return fmt.Sprintf(`"name": %q, "properties": {"protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": %d,
		"sourceAddressPrefix": %q, "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22"}`, name, priority, source)
}

func groupOf(name string, rules ...string) string {
	return `{"type": "Microsoft.Network/networkSecurityGroups", "name": "` + name + `", "properties": {"securityRules": [{` + strings.Join(rules, "},{") + `}]}}`
}

func childRule(rule string) string {
	return `{"type": "Microsoft.Network/networkSecurityGroups/securityRules", ` + rule + `}`
}

func networkOf(more, subnets string) string {
	if subnets != "" {
		subnets = `, "subnets": [` + subnets + `]`
	}
	return `{"type": "Microsoft.Network/virtualNetworks", "apiVersion": "2023-09-01", "name": "v", ` + more + ` "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}` + subnets + `}}`
}

func subnetOf(name, prefix, group string) string {
	if group != "" {
		group = `, "networkSecurityGroup": {"id": "[resourceId('Microsoft.Network/networkSecurityGroups', '` + group + `')]"}`
	}
	return `{"name": "` + name + `", "properties": {"addressPrefix": "` + prefix + `"` + group + `}}`
}

// said is what was read, as "group/rule source" and "network/subnet prefixes group".
func said(d *Documents) []string {
	list := rulesIn(d)
	for _, v := range d.Set.VirtualNetworks {
		for _, s := range v.Subnets {
			text := fmt.Sprintf("%s/%s %v", v.Name, s.Name, s.Prefixes)
			if s.NetworkSecurityGroup != nil {
				text += " " + s.NetworkSecurityGroup.Name
			}
			list = append(list, text)
		}
	}
	return list
}

// The later of two givings of a resource holds, as after Azure's PUT.
func TestATemplateUpdatesWhatItGivesAgain(t *testing.T) {
	priorities := map[string]int{"one": 100, "three": 300}
	one, two, inside := ruleFrom("one", 100, "10.1.0.0/16"), ruleFrom("two", 200, "10.2.0.0/16"), subnetOf("s", "10.0.1.0/24", "g")
	child := func(name, source string) string {
		return childRule(ruleFrom("g/"+name, priorities[strings.ToLower(name)], source))
	}
	tests := []struct {
		name, document string
		want           []string
		deleted        []string // children that the later giving does not list
	}{
		{"a rule inside and as a child", templateOf(groupOf("g", one), child("one", "10.1.0.0/16")), []string{"g/one 10.1.0.0/16"}, nil},
		{"the child holds", templateOf(groupOf("g", one), child("ONE", "10.9.0.0/16")), []string{"g/ONE 10.9.0.0/16"}, nil},
		{"a child before its group holds too", templateOf(child("one", "10.9.0.0/16"), groupOf("g", one)), []string{"g/one 10.9.0.0/16"}, nil},
		{"a group again replaces its rules", templateOf(deployment("a", "", groupOf("g", one)), deployment("b", "a", groupOf("g", two))),
			[]string{"g/two 10.2.0.0/16"}, []string{"networkSecurityGroups/g: one"}},
		{"dependsOn decides which is later", templateOf(deployment("b", "a", groupOf("g", two)), deployment("a", "", groupOf("g", one, two))),
			[]string{"g/two 10.2.0.0/16"}, []string{"networkSecurityGroups/g: one"}},
		{"a child of before is deleted", templateOf(groupOf("g", one), child("three", "10.3.0.0/16"), deployment("b", "", groupOf("g", one))),
			[]string{"g/one 10.1.0.0/16"}, []string{"networkSecurityGroups/g: three"}},
		{"a child of afterwards is not", templateOf(groupOf("g", one), deployment("b", "", groupOf("g", one)), child("three", "10.3.0.0/16")),
			[]string{"g/one 10.1.0.0/16", "g/three 10.3.0.0/16"}, nil},
		{"three times", templateOf(deployment("c", "b", groupOf("g", two)), deployment("a", "", groupOf("g", one)), deployment("b", "a", groupOf("g", one, two))),
			[]string{"g/two 10.2.0.0/16"}, []string{"networkSecurityGroups/g: one"}},
		{"a network with its subnets again", templateOf(groupOf("g", one), networkOf("", inside), deployment("dns", "", networkOf("", inside))),
			[]string{"g/one 10.1.0.0/16", "v/s [10.0.1.0/24] g"}, nil},
		{"a subnet without its group has none", templateOf(groupOf("g", one), networkOf("", inside), deployment("dns", "", networkOf("", subnetOf("s", "10.0.1.0/24", "")))),
			[]string{"g/one 10.1.0.0/16", "v/s [10.0.1.0/24]"}, []string{"virtualNetworks/v: subnets/s/networkSecurityGroup"}},
		{"a subnet gets a group later", templateOf(groupOf("g", one), networkOf("", subnetOf("s", "10.0.1.0/24", "")),
			deployment("nsg", "", `{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "v/s", `+strings.TrimPrefix(subnetOf("s", "10.0.1.0/24", "g"), `{"name": "s", `))),
			[]string{"g/one 10.1.0.0/16", "v/s [10.0.1.0/24] g"}, nil},
		{"a network without the field keeps its subnets", templateOf(groupOf("g", one), networkOf("", inside), deployment("dns", "", networkOf("", ""))),
			[]string{"g/one 10.1.0.0/16", "v/s [10.0.1.0/24] g"}, nil},
		{"unless its API version is older", templateOf(groupOf("g", one), networkOf("", inside), deployment("dns", "", strings.Replace(networkOf("", ""), "2023-09-01", "2022-05-01", 1))),
			[]string{"g/one 10.1.0.0/16"}, []string{"virtualNetworks/v: s"}},
		{"an empty list deletes them", templateOf(groupOf("g", one), networkOf("", inside), deployment("dns", "", networkOf("", " "))),
			[]string{"g/one 10.1.0.0/16"}, []string{"virtualNetworks/v: s"}},
		{"symbolic names order too", `{"languageVersion": "2.0", "parameters": {"p": {"type": "string", "defaultValue": "g"}}, "resources": {
			"a": {"type": "Microsoft.Network/networkSecurityGroups/securityRules", "dependsOn": ["b"], ` + strings.Replace(ruleFrom("g/one", 100, "10.9.0.0/16"), `"g/one"`, `"[concat(parameters('p'), '/one')]"`, 1) + `},
			"b": ` + strings.TrimSuffix(deployment("d", "", groupOf("g", one)), "}") + `, "dependsOn": ["c"]},
			"c": ` + groupOf("g", ruleFrom("one", 100, "10.8.0.0/16")) + `}}`, []string{"g/one 10.9.0.0/16"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			if got := said(d); len(d.Faults)+len(d.Unresolved) > 0 || !slices.Equal(got, tt.want) {
				t.Errorf("read %q, want %q\nfaults %v\nunresolved %v", got, tt.want, d.Faults, d.Unresolved)
			}
			var deleted []string
			for _, w := range d.Warnings {
				if w.Code == CodeDeletedByUpdate {
					deleted = append(deleted, w.Resource+": "+w.Value)
				}
			}
			if !slices.Equal(deleted, tt.deleted) {
				t.Errorf("deleted %q, want %q", deleted, tt.deleted)
			}
		})
	}
}

// Which rules a list deletes that is an expression is not known, and the group is open.
func TestAnOpenListDeletesNothing(t *testing.T) {
	one := ruleFrom("one", 100, "*")
	open := strings.Replace(groupOf("g", one), `[{`+one+`}]`, `"[variables('rules')]"`, 1)
	d := Parse("main.json", []byte(templateOf(groupOf("g", one), childRule(ruleFrom("g/two", 200, "*")), deployment("b", "", open))))
	if !slices.Equal(codes(d.Warnings), []string{CodeNoOrder}) || len(d.Faults) > 0 || len(d.Unresolved) != 1 || d.Unresolved[0].Field != "securityRules" {
		t.Errorf("faults %v, warnings %v, unresolved %v", d.Faults, d.Warnings, d.Unresolved)
	}
}

// Only what dependsOn names literally was an order, and what has none was taken in the order of the document.
func TestTheOrderOfGivings(t *testing.T) {
	one, two := groupOf("g", ruleFrom("r", 100, "10.1.0.0/16")), groupOf("g", ruleFrom("r", 100, "10.2.0.0/16"))
	child := childRule(ruleFrom("g/r", 100, "10.9.0.0/16"))
	after := func(resource, dependsOn string) string {
		return strings.Replace(resource, `"name"`, `"dependsOn": [`+dependsOn+`], "name"`, 1)
	}
	argument := func(deployment, value string) string {
		return strings.Replace(deployment, `{"template": {`, `{"expressionEvaluationOptions": {"scope": "inner"}, "parameters": {"p": {"value": "`+value+`"}}, "template": {"parameters": {"p": {"type": "string"}}, `, 1)
	}
	gives := func(deployment string) string {
		return strings.Replace(deployment, `"template": {`, `"template": {"outputs": {"o": {"type": "string", "value": "x"}}, `, 1)
	}
	loop := func(deployment string) string {
		return strings.NewReplacer(`"name": "a"`, `"copy": {"name": "loop", "count": 1}, "name": "[concat('a', copyIndex())]"`).Replace(deployment)
	}
	tests := []struct {
		name, document, want string
		races                []string // the places that each warning names
	}{
		{"an argument that is an output", templateOf(argument(deployment("b", "", two), "[reference('a').outputs.o.value]"), gives(deployment("a", "", one))), "g/r 10.2.0.0/16", nil},
		{"by its id", templateOf(argument(deployment("b", "", two), "[reference(resourceId('Microsoft.Resources/deployments', 'a')).outputs.o.value]"), gives(deployment("a", "", one))), "g/r 10.2.0.0/16", nil},
		{"in a resource of the outer scope", templateOf(deployment("b", "", strings.Replace(two, `"name"`, `"tags": {"t": "[reference('a').outputs.o.value]"}, "name"`, 1)), gives(deployment("a", "", one))), "g/r 10.2.0.0/16", nil},
		{"with symbolic names", `{"languageVersion": "2.0", "resources": {"b": ` + argument(deployment("x", "", two), "[reference('c').outputs.o.value]") + `, "c": ` + gives(deployment("y", "", one)) + `}}`, "g/r 10.2.0.0/16", nil},
		{"a loop's name", templateOf(after(deployment("b", "", two), `"loop"`), loop(deployment("a", "", one))), "g/r 10.2.0.0/16", nil},
		{"a nested child", templateOf(after(deployment("b", "", two), `"[resourceId('Microsoft.Network/networkSecurityGroups/securityRules', 'g', 'q')]"`),
			strings.Replace(one, `"name"`, `"resources": [{"type": "securityRules", `+ruleFrom("q", 200, "*")+`}], "name"`, 1)), "g/r 10.2.0.0/16", nil},
		{"through a third", templateOf(deployment("b", "m", two), deployment("m", "a"), deployment("a", "", one)), "g/r 10.2.0.0/16", nil},
		{"none", templateOf(deployment("a", "", one), deployment("b", "", two)), "g/r 10.2.0.0/16",
			[]string{"resources[1].properties.template.resources[0] says otherwise than resources[0].properties.template.resources[0],"}},
		{"none between two of three", templateOf(deployment("a", "", one), deployment("b", "", two), deployment("c", "a", groupOf("g", ruleFrom("r", 100, "10.3.0.0/16")))), "g/r 10.3.0.0/16",
			[]string{"resources[2].properties.template.resources[0] says otherwise than resources[1].properties.template.resources[0],"}},
		{"none, and they agree", templateOf(deployment("a", "", one), deployment("b", "", one)), "g/r 10.1.0.0/16", nil},
		{"a child and a list", templateOf(one, deployment("a", "", two), child), "g/r 10.9.0.0/16",
			[]string{"resources[1].properties.template.resources[0] says otherwise than resources[0],", "resources[2] says otherwise than resources[1].properties.template.resources[0],"}},
		{"a child that a list lacks", templateOf(one, deployment("a", "", groupOf("g", ruleFrom("s", 200, "10.1.0.0/16"))), child), "g/s 10.1.0.0/16 g/r 10.9.0.0/16",
			[]string{"resources[1].properties.template.resources[0] says otherwise than resources[0],", "resources[2] says otherwise than resources[1].properties.template.resources[0],"}},
		{"two children", templateOf(one, deployment("a", "", child), deployment("b", "", strings.Replace(child, "10.9", "10.8", 1))), "g/r 10.8.0.0/16",
			[]string{"resources[2].properties.template.resources[0] says otherwise than resources[1].properties.template.resources[0],"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			var races []string
			for _, w := range d.Warnings {
				if w.Code == CodeNoOrder {
					races = append(races, w.Message)
				}
			}
			got := slices.DeleteFunc(said(d), func(s string) bool { return strings.HasPrefix(s, "g/q") })
			if strings.Join(got, " ") != tt.want || len(d.Faults)+len(d.Unresolved) > 0 ||
				!slices.EqualFunc(races, tt.races, strings.HasPrefix) {
				t.Errorf("read %q, warnings %q, faults %v, unresolved %v", got, races, d.Faults, d.Unresolved)
			}
		})
	}
}

// One template has each resource once.
func TestATemplateThatDefinesAResourceTwiceIsFaulty(t *testing.T) {
	d := Parse("main.json", []byte(templateOf(groupOf("g", ruleFrom("a", 100, "*")), groupOf("G", ruleFrom("a", 100, "*")))))
	if len(d.Faults) != 1 || d.Faults[0].Code != CodeDuplicateResource || d.Faults[0].Resource != "networkSecurityGroups/G" {
		t.Errorf("faults %v", d.Faults)
	}
}

// Documents have no order. What they say of one resource must agree.
func TestDocumentsThatGiveAResourceAgainAgreeOrAreFaulty(t *testing.T) {
	const id = "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/"
	group := func(rule string) string {
		return "[\n{\"id\": \"" + id + "networkSecurityGroups/g\", \"name\": \"g\", \"etag\": \"1\",\n\"securityRules\": [{" + rule + "}]}]"
	}
	rule := func(rule string) string {
		return "[{\"id\": \"" + id + "networkSecurityGroups/g/securityRules/ssh\",\n" + rule + "}]"
	}
	network := func(id, subnet string) string {
		return `[{"id": "` + id + `virtualNetworks/v", "name": "v", "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [` + subnet + `]}]`
	}
	ssh := ruleFrom("ssh", 100, "10.1.0.0/16")
	az := strings.NewReplacer(`"properties": {`, "", `22"}`, `22", "sourceAddressPrefixes": [], "provisioningState": "Succeeded"`, `"Tcp"`, `"TCP"`, `"priority": 100`, `"priority": "100"`).Replace(ssh)
	tests := []struct {
		name     string
		files    []string // a.json, b.json, ...
		want     []string
		contrary string // the fault's field
	}{
		{"a list of rules beside their group", []string{group(ssh), rule(ssh)}, []string{"g/ssh 10.1.0.0/16"}, ""},
		{"in az's form", []string{group(ssh), rule(az)}, []string{"g/ssh 10.1.0.0/16"}, ""},
		{"in PowerShell's form", []string{group(ssh), rule(strings.NewReplacer(`"sourceAddressPrefix": "10.1.0.0/16"`, `"SourceAddressPrefix": ["10.1.0.0/16"]`,
			`"destinationPortRange": "22"`, `"destinationPortRanges": ["22"]`).Replace(ssh))}, []string{"g/ssh 10.1.0.0/16"}, ""},
		{"one source in the field for several", []string{group(ssh), rule(strings.Replace(ssh, `"sourceAddressPrefix": "10.1.0.0/16"`, `"sourceAddressPrefixes": ["10.1.0.0/16", "10.9.0.0/16"]`, 1))}, nil, "sourceAddressPrefix"},
		{"the group twice", []string{group(ssh), group(az)}, []string{"g/ssh 10.1.0.0/16"}, ""},
		{"a list that leaves out the properties", []string{`[{"id": "` + id + `networkSecurityGroups/g", "name": "g", "properties": null}]`, group(ssh)}, []string{"g/ssh 10.1.0.0/16"}, ""},
		{"another source", []string{group(ssh), rule(ruleFrom("ssh", 100, "*"))}, nil, "sourceAddressPrefix"},
		{"another source in the group", []string{group(ssh), group(ruleFrom("ssh", 100, "*"))}, nil, "securityRules/ssh/sourceAddressPrefix"},
		{"another rule", []string{group(ssh), group(ruleFrom("rdp", 100, "10.1.0.0/16"))}, nil, "securityRules/ssh"},
		{"no rules", []string{group(ssh), `{"id": "` + id + `networkSecurityGroups/g", "securityRules": []}`}, nil, "securityRules"},
		{"a subnet that has a group in one only", []string{network(id, `{"name": "s", "addressPrefix": "10.0.1.0/24"}`),
			`[{"id": "` + id + `virtualNetworks/v/subnets/s", "name": "s", "addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "` + id + `networkSecurityGroups/g"}}]`, group(ssh)},
			nil, "networkSecurityGroup"},
		{"a subnet, and who is in it", []string{network(id, `{"name": "s", "addressPrefix": "10.0.1.0/24"}`),
			`[{"id": "` + id + `virtualNetworks/v/subnets/s", "name": "s", "addressPrefix": "10.0.1.0/24", "resourceGroup": "R", "ipConfigurations": [{"id": "x"}], "type": "Microsoft.Network/virtualNetworks/subnets"}]`},
			[]string{"v/s [10.0.1.0/24]"}, ""},
		{"the same name in two groups", []string{network(id, `{"name": "s", "addressPrefix": "10.0.1.0/24"}`), network(strings.Replace(id, "/R/", "/R2/", 1), `{"name": "s", "addressPrefix": "10.0.2.0/24"}`)},
			[]string{"v/s [10.0.1.0/24]", "v/s [10.0.2.0/24]"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			for i, document := range tt.files {
				files[string(rune('a'+i))+".json"] = document
			}
			dir := policyOf(t, files)
			d := Load(dir)
			if tt.contrary == "" {
				if got := said(d); len(d.Faults)+len(d.Unresolved) > 0 || !slices.Equal(got, tt.want) {
					t.Errorf("read %q, want %q\nfaults %v\nunresolved %v", got, tt.want, d.Faults, d.Unresolved)
				}
				return
			}
			if len(d.Faults) != 1 || d.Faults[0].Code != CodeDuplicateResource || d.Faults[0].Field != tt.contrary || filepath.Base(d.Faults[0].File) != "b.json" ||
				!strings.Contains(d.Faults[0].Message, "a.json") {
				t.Errorf("faults %v, want one of %s in b.json that names a.json", d.Faults, tt.contrary)
			}
		})
	}
	t.Run("the fault has both lines", func(t *testing.T) {
		dir := policyOf(t, map[string]string{"a.json": "// a group\n" + group(ssh), "b.json": rule(ruleFrom("ssh", 100, "*"))})
		d := Load(dir)
		want := fmt.Sprintf("(line 4 of %s, line 1 of %s)", filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json"))
		if len(d.Faults) != 1 || !strings.Contains(d.Faults[0].Message, want) {
			t.Errorf("faults %v, want %s", d.Faults, want)
		}
	})
}

// A reader may not keep a group that another document now says more of.
func TestAReaderReadsAgainWhatIsGivenAgain(t *testing.T) {
	ssh := ruleFrom("ssh", 100, "10.1.0.0/16")
	dir := policyOf(t, map[string]string{"a.json": groupOf("g", ssh)})
	reader := NewReader("", dir)
	reader.Read()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("b.json", groupOf("g", ssh))
	if d := reader.Read(); len(d.Faults) > 0 || len(d.Set.NetworkSecurityGroups) != 1 {
		t.Errorf("faults %v", d.Faults)
	}
	write("b.json", groupOf("g", ruleFrom("ssh", 100, "*")))
	if d := reader.Read(); len(d.Faults) != 1 {
		t.Errorf("faults %v", d.Faults)
	}
	// What one document lacks is not kept when the other is gone.
	write("a.json", `{"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "properties": null}`)
	if d := reader.Read(); len(d.Faults) > 0 || len(said(d)) != 1 {
		t.Errorf("faults %v, read %q", d.Faults, said(d))
	}
	write("b.json", "[]")
	if d := reader.Read(); len(d.Faults) != 1 {
		t.Errorf("faults %v, read %q", d.Faults, said(d))
	}
}

// A resource of another resource group that has the name was taken.
func TestIDsAreComparedWithSubscriptionAndGroup(t *testing.T) {
	const web = "Microsoft.Network/networkSecurityGroups/web"
	subnet := func(id string) string {
		return networkOf("", `{"name": "s", "properties": {"addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "`+id+`"}}}`)
	}
	own := groupOf("web", ruleFrom("ssh", 100, "*"))
	exported := func(in string) string {
		return `[{"id": "/subscriptions/S/resourceGroups/` + in + `/providers/` + web + `", "name": "web", "securityRules": []}]`
	}
	const hub, bare = "[resourceId('hub-rg', 'Microsoft.Network/networkSecurityGroups', 'web')]", "[resourceId('Microsoft.Network/networkSecurityGroups', 'web')]"
	tests := []struct {
		name  string
		files map[string]string
		in    Deployment
		want  string // the group's id; empty: open
		warns bool
	}{
		{"its own", map[string]string{"a.json": templateOf(own, subnet(bare))}, Deployment{}, "/subscriptions//resourceGroups//providers/" + web, false},
		{"another group", map[string]string{"a.json": templateOf(own, subnet(hub))}, Deployment{}, "", false},
		{"another group than the deployment's", map[string]string{"a.json": templateOf(own, subnet(hub))}, Deployment{ResourceGroup: "app-rg"}, "", false},
		{"the deployment's group by name", map[string]string{"a.json": templateOf(own, subnet(hub))}, Deployment{ResourceGroup: "hub-rg"},
			"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/hub-rg/providers/" + web, false},
		{"an export of the group beside", map[string]string{"a.json": templateOf(own, subnet(hub)), "b.json": exported("HUB-RG")}, Deployment{},
			"/subscriptions/S/resourceGroups/HUB-RG/providers/" + web, false},
		{"an export of another group beside", map[string]string{"a.json": templateOf(own, subnet(hub)), "b.json": exported("other")}, Deployment{}, "", false},
		{"an export for what the template looks for in its own group", map[string]string{"a.json": templateOf(subnet(bare)), "b.json": exported("prod")}, Deployment{},
			"/subscriptions/S/resourceGroups/prod/providers/" + web, true},
		{"its own goes before an export", map[string]string{"a.json": templateOf(own, subnet(bare)), "b.json": exported("prod")}, Deployment{},
			"/subscriptions//resourceGroups//providers/" + web, false},
		{"another subscription", map[string]string{"a.json": templateOf(own, subnet("/subscriptions/T/resourceGroups/app-rg/providers/"+web))}, Deployment{Subscription: "S", ResourceGroup: "app-rg"}, "", false},
		{"a document without ids", map[string]string{"a.json": "[" + own + "," + subnet("/subscriptions/T/resourceGroups/app-rg/providers/"+web) + "]"}, Deployment{},
			"/subscriptions//resourceGroups//providers/" + web, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reader := NewReader("", policyOf(t, tt.files))
			reader.SetDeployment(tt.in)
			d := reader.Read()
			got := ""
			for _, s := range d.Set.VirtualNetworks[0].Subnets {
				got = s.NetworkSecurityGroup.ID
			}
			if got != tt.want || len(d.Faults) > 0 || (len(d.Unresolved) == 1) != (tt.want == "") {
				t.Errorf("the subnet's group is %q, want %q; faults %v, unresolved %v", got, tt.want, d.Faults, d.Unresolved)
			}
			if len(d.Unresolved) > 0 && !strings.Contains(d.Unresolved[0].Message, "/web") {
				t.Errorf("the note does not name the other one: %v", d.Unresolved)
			}
			i := slices.IndexFunc(d.Warnings, func(f ruleset.Fault) bool { return f.Code == CodeByNameAlone })
			if (i >= 0) != tt.warns || i >= 0 && !strings.Contains(d.Warnings[i].Message, tt.want) {
				t.Errorf("warnings %v", d.Warnings)
			}
		})
	}
}

// A resource in a group that is not known may be another of its name, which it would replace.
func TestAResourceInAnOpenGroupMayBeAnother(t *testing.T) {
	one, two := groupOf("n", ruleFrom("r", 100, "10.1.0.0/16")), groupOf("n", ruleFrom("r", 100, "10.2.0.0/16"))
	in := func(deployment, where string) string {
		return strings.Replace(deployment, `"properties"`, where+`, "properties"`, 1)
	}
	const open, known = `"resourceGroup": "[parameters('q')]"`, `"resourceGroup": "known"`
	tests := []struct {
		name, resources string
		field           string // the open one; empty: none
	}{
		{"its own group", one + "," + in(deployment("d", "", two), open), "resourceGroup"},
		{"a known one", in(deployment("c", "", one), known) + "," + in(deployment("d", "", two), open), "resourceGroup"},
		{"a subscription", in(deployment("c", "", one), known) + "," + in(deployment("d", "", two), `"subscriptionId": "[parameters('q')]", `+known), "subscriptionId"},
		{"the same open one", in(deployment("c", "", one), open) + "," + in(deployment("d", "", one), open), ""},
		{"another name", strings.Replace(one, `"n"`, `"m"`, 1) + "," + in(deployment("d", "", two), open), ""},
		{"another subscription", in(deployment("c", "", one), known+`, "subscriptionId": "S"`) + "," + in(deployment("d", "", two), open+`, "subscriptionId": "T"`), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(strings.Replace(templateOf(tt.resources), `"resources"`, `"parameters": {"q": {"type": "string"}}, "resources"`, 1)))
			if got := len(d.Unresolved); got > 1 || got == 1 != (tt.field != "") || len(d.Faults) > 0 {
				t.Fatalf("open %v, faults %v", d.Unresolved, d.Faults)
			}
			if tt.field == "" {
				return
			}
			u := d.Unresolved[0]
			if u.Field != tt.field || u.Value != "[parameters('q')]" || u.Resource != "networkSecurityGroups/n" || !strings.Contains(u.Message, "/n too is open") || !strings.Contains(u.Message, "q") {
				t.Errorf("open %v", u)
			}
		})
	}
}

// A PUT without an association removes it, which was not told.
func TestAnUpdateThatRemovesAnAssociationIsTold(t *testing.T) {
	group := groupOf("g", ruleFrom("r", 100, "*"))
	with, without := subnetOf("s", "10.0.1.0/24", "g"), subnetOf("s", "10.0.1.0/24", "")
	subnet := func(s string) string {
		return `{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "v/s", ` + strings.TrimPrefix(s, `{"name": "s", `)
	}
	nic := nicIn("n", "v/s", "")
	secured := strings.Replace(nic, `"properties": {`, `"properties": {"networkSecurityGroup": {"id": "g"}, `, 1)
	public := `{"type": "Microsoft.Network/publicIPAddresses", "name": "p", "properties": {"ipAddress": "20.0.0.1"}}`
	reached := strings.Replace(nic, `"c", "properties": {`, `"c", "properties": {"publicIPAddress": {"id": "p"}, `, 1)
	tests := []struct{ name, document, resource, value string }{
		{"a subnet in a list", templateOf(group, networkOf("", with), deployment("d", "", networkOf("", without))), "virtualNetworks/v", "subnets/s/networkSecurityGroup"},
		{"a subnet as a child", templateOf(group, networkOf("", with), subnet(without)), "virtualNetworks/v/subnets/s", "networkSecurityGroup"},
		{"a subnet that gets it back", templateOf(group, networkOf("", with), deployment("d", "", networkOf("", without)), deployment("e", "d", networkOf("", with))), "", ""},
		{"a network interface", templateOf(group, networkOf("", without), secured, deployment("d", "", nic)), "networkInterfaces/n", "networkSecurityGroup"},
		{"an ipConfiguration", templateOf(public, networkOf("", without), reached, deployment("d", "", nic)), "networkInterfaces/n", "ipConfigurations/c/publicIPAddress"},
		{"none", templateOf(group, networkOf("", with), deployment("d", "", networkOf("", with))), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			told := slices.DeleteFunc(d.Warnings, func(w ruleset.Fault) bool { return w.Code != CodeDeletedByUpdate })
			if len(d.Faults)+len(d.Unresolved) > 0 || len(told) > 1 || (len(told) == 1) != (tt.value != "") ||
				len(told) == 1 && (told[0].Resource != tt.resource || told[0].Value != tt.value || told[0].Line == 0) {
				t.Errorf("told %v, faults %v, unresolved %v", told, d.Faults, d.Unresolved)
			}
		})
	}
}

// Each prefix of a rule was compared with all others: 200,000 took an hour.
func TestLongListsAreComparedAtOnce(t *testing.T) {
	list := func(last string) map[string]any {
		prefixes := make([]any, 200_000)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
		}
		return map[string]any{"name": "r", "sourceAddressPrefixes": append(prefixes, last)}
	}
	if d := contradiction(list("fd00::/48"), list("FD00::/48")); d != nil {
		t.Errorf("differs in %s", d.field)
	}
	if d := contradiction(list("fd00::/48"), list("fd01::/48")); d == nil || d.field != "sourceAddressPrefixes" {
		t.Errorf("the difference is %v", d)
	}
}

// Each giving told each rule that it deletes: 300 of 300 rules were 25 MB.
func TestManyUpdatesAreToldOnce(t *testing.T) {
	var resources []string
	for i := range 20 {
		var rules []string
		for j := range 30 {
			rules = append(rules, ruleFrom(fmt.Sprintf("r%d-%d", i, j), 100+j, "*"))
		}
		resources = append(resources, deployment(fmt.Sprint("d", i), "", groupOf("n", rules...)))
	}
	d := Parse("main.json", []byte(templateOf(resources...)))
	if !slices.Equal(codes(d.Warnings), []string{CodeNoOrder, CodeDeletedByUpdate}) || !strings.Contains(d.Warnings[1].Message, "570 of its securityRules") || len(d.Warnings.Error()) > 5000 {
		t.Errorf("warnings %v", d.Warnings)
	}
}

// A rule that a third giving lists again is not deleted.
func TestWhatComesBackIsNotDeleted(t *testing.T) {
	one, two := groupOf("n", ruleFrom("one", 100, "*")), groupOf("n", ruleFrom("two", 100, "*"))
	d := Parse("main.json", []byte(templateOf(deployment("a", "", one), deployment("b", "a", two), deployment("c", "b", one))))
	if len(d.Warnings) != 1 || d.Warnings[0].Value != "two" {
		t.Errorf("warnings %v", d.Warnings)
	}
}
