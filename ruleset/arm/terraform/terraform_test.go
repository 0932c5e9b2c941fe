package terraform

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func read(t testing.TB, file string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return document
}

func TestDocumentsBecomeResources(t *testing.T) {
	for _, name := range []string{"state", "plan"} {
		t.Run(name, func(t *testing.T) {
			document := read(t, "testdata/"+name+".json")
			if !Is(document) {
				t.Fatal("not known as Terraform's")
			}
			r := Convert(document)
			var got bytes.Buffer
			encoder := json.NewEncoder(&got)
			encoder.SetIndent("", "  ")
			if err := encoder.Encode(r); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got.String() != string(want) {
				t.Errorf("differs from %s (%v):\n%s", golden, err, got.String())
			}
		})
	}
}

// byID finds the properties of a resource whose id ends so.
func byID(r *Result, end string) map[string]any {
	for _, v := range r.Resources {
		if o := v.(map[string]any); strings.HasSuffix(text(o, "id"), end) {
			return object(o, "properties")
		}
	}
	return nil
}

func TestAState(t *testing.T) {
	r := Convert(read(t, "testdata/state.json"))
	rules := list(byID(r, "/networkSecurityGroups/web"), "securityRules")
	if len(rules) != 1 || text(rules[0].(map[string]any), "name") != "http" {
		t.Errorf("rules in the group %v: that of its own is there twice", rules)
	}
	if app := byID(r, "/securityRules/app"); text(app, "access") != "Allow" || len(list(app, "destinationPortRanges")) != 2 {
		t.Errorf("the rule of its own %v", app)
	}
	if id := text(object(byID(r, "/subnets/a"), "networkSecurityGroup"), "id"); !strings.HasSuffix(id, "/web") {
		t.Errorf("the subnet's group %q", id)
	}
	nic := byID(r, "/networkInterfaces/vm-nic")
	configuration := object(list(nic, "ipConfigurations")[0].(map[string]any), "properties")
	if len(list(configuration, "applicationSecurityGroups")) != 1 || nic["enableIPForwarding"] != true || object(nic, "networkSecurityGroup") == nil {
		t.Errorf("the network interface %v", nic)
	}
	if len(r.Left) != 1 || r.Left[0].Address != "azurerm_subnet_route_table_association.elsewhere" || r.Left[0].Field != "subnet_id" {
		t.Errorf("left %+v", r.Left)
	}
	if len(r.Reasons) > 0 {
		t.Errorf("unknown values in a state: %v", r.Reasons)
	}
	groups := 0
	for _, v := range r.Resources {
		if strings.HasSuffix(text(v.(map[string]any), "type"), "/applicationSecurityGroups") {
			groups++
		}
	}
	if groups != 2 {
		t.Errorf("%d application security groups, want 2: a data source is there beside its resource", groups)
	}
}

func TestAPlan(t *testing.T) {
	r := Convert(read(t, "testdata/plan.json"))
	const subnet = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/net/subnets/a"
	configuration := object(list(byID(r, "/networkInterfaces/vm-nic"), "ipConfigurations")[0].(map[string]any), "properties")
	if got := text(object(configuration, "subnet"), "id"); got != subnet {
		t.Errorf("subnet %q, want %q, through the output of a module", got, subnet)
	}
	if len(list(configuration, "applicationSecurityGroups")) != 1 {
		t.Errorf("the ipConfiguration %v is in no application security group", configuration)
	}
	if id := text(object(byID(r, subnet), "networkSecurityGroup"), "id"); !strings.HasSuffix(id, "/networkSecurityGroups/web") {
		t.Errorf("the subnet's group %q, want web, through the variable of a module", id)
	}
	if rules, ok := byID(r, "/networkSecurityGroups/web")["securityRules"]; ok {
		t.Errorf("rules that nobody configured: %v", rules)
	}
	if got := text(byID(r, "/securityRules/from-ip"), "sourceAddressPrefix"); got != "[azurerm_network_security_rule.from_ip.source_address_prefix]" {
		t.Errorf("a value known after apply: %q", got)
	}
	want := []string{"[azurerm_network_security_rule.from_ip.source_address_prefix]", "[azurerm_subnet_network_security_group_association.a.subnet_id]"}
	if got := slices.Sorted(maps.Keys(r.Reasons)); !slices.Equal(got, want) {
		t.Errorf("unknown are %q, want %q", got, want)
	}
	if len(r.Left) != 1 || !strings.Contains(r.Left[0].Message, "only after it applied the plan") {
		t.Errorf("left %+v", r.Left)
	}
}

// planOf is a plan of resources "type.name" with their values, unknown fields and
// expressions.
func planOf(t *testing.T, resources ...[4]string) map[string]any {
	t.Helper()
	var planned, changes, configured []string
	for _, r := range resources {
		kind, name, _ := strings.Cut(r[0], ".")
		head := `{"address": "` + r[0] + `", "mode": "managed", "type": "` + kind + `", "name": "` + name + `", `
		planned = append(planned, head+`"values": {"resource_group_name": "rg", `+r[1]+`}}`)
		changes = append(changes, `{"address": "`+r[0]+`", "change": {"after_unknown": {"id": true, `+r[2]+`}}}`)
		configured = append(configured, head+`"expressions": {`+r[3]+`}}`)
	}
	decoder := json.NewDecoder(strings.NewReader(`{"format_version": "1.2", "planned_values": {"root_module": {"resources": [` + strings.Join(planned, ",") + `]}},
		"resource_changes": [` + strings.Join(changes, ",") + `], "configuration": {"root_module": {"resources": [` + strings.Join(configured, ",") + `]}}}`))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		t.Fatal(err)
	}
	return document
}

// Values were incomplete or wrong: a rule had one of two groups, an association had the
// group of the wrong branch, a block had the expressions of another.
func TestAPlansValuesAreWholeOrOpen(t *testing.T) {
	const n = "azurerm_network_security_"
	web := [4]string{n + "group.web", `"name": "web"`, `"x": false`, `"name": {}`}
	strict := [4]string{n + "group.strict", `"name": "strict"`, `"x": false`, `"name": {}`}
	a := [4]string{"azurerm_application_security_group.a", `"name": "a"`, `"x": false`, `"name": {}`}
	b := [4]string{"azurerm_application_security_group.b", `"name": "b"`, `"x": false`, `"name": {}`}
	groups := func(references string) [4]string {
		return [4]string{n + "rule.r", `"name": "r", "network_security_group_name": "web"`, `"source_application_security_group_ids": true`,
			`"source_application_security_group_ids": {"references": [` + references + `]}`}
	}
	subnet := [4]string{"azurerm_subnet.s", `"name": "s", "virtual_network_name": "v"`, `"network_security_group_id": true`,
		`"network_security_group_id": {"references": ["var.strict", "` + n + `group.web.id", "` + n + `group.web", "` + n + `group.strict.id", "` + n + `group.strict"]}`}
	block := func(name, asg string) string {
		return `{"name": {"constant_value": "` + name + `"}, "source_application_security_group_ids": {"references": ["azurerm_application_security_group.` + asg + `.id"]}}`
	}
	const twoUnknown = `"security_rule": [{"source_application_security_group_ids": true}, {"source_application_security_group_ids": true}]`
	rules := func(blocks string) [4]string {
		return [4]string{n + "group.web", `"name": "web", "security_rule": [{"name": "one"}, {"name": "two"}]`, twoUnknown, `"security_rule": [` + blocks + `]`}
	}
	for _, tt := range []struct {
		name      string
		resources [][4]string
		open      []string
		holds     string // a part of the resources
	}{
		{"a list of two groups", [][4]string{web, a, b, groups(`"azurerm_application_security_group.a.id", "azurerm_application_security_group.a", "azurerm_application_security_group.b.id"`)},
			nil, `applicationSecurityGroups/a"},{"id":"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/applicationSecurityGroups/b"}]`},
		{"a list of a group and a variable", [][4]string{web, a, groups(`"azurerm_application_security_group.a.id", "var.other"`)},
			[]string{"[azurerm_network_security_rule.r.source_application_security_group_ids]"}, ""},
		{"a list of a group and one that the plan does not have", [][4]string{web, a, groups(`"azurerm_application_security_group.a.id", "azurerm_application_security_group.none.id"`)},
			[]string{"[azurerm_network_security_rule.r.source_application_security_group_ids]"}, ""},
		{"a condition with two groups", [][4]string{web, strict, subnet}, []string{"[azurerm_subnet.s.network_security_group_id]"}, ""},
		{"blocks in the order of a set", [][4]string{a, b, rules(block("two", "b") + "," + block("one", "a"))}, nil,
			`"name":"one","properties":{"sourceApplicationSecurityGroups":[{"id":"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/applicationSecurityGroups/a"}]}`},
		{"a block beside a dynamic one", [][4]string{a, rules(block("one", "a"))},
			[]string{"[azurerm_network_security_group.web.security_rule[1].source_application_security_group_ids]"}, ""},
		{"a dynamic block that is wholly unknown", [][4]string{{n + "group.web", `"name": "web"`, `"security_rule": true`, `"name": {}`}},
			[]string{"[azurerm_network_security_group.web.security_rule]"}, `"securityRules":"[azurerm_network_security_group.web.security_rule]"`},
		{"rules of their own, from which the provider computes the list", [][4]string{
			{n + "group.web", `"name": "web"`, `"security_rule": true`, `"name": {}`},
			{n + "rule.r", `"name": "r", "network_security_group_name": "web"`, `"x": false`, `"name": {}`}}, nil, ""},
		{"rules of another group's", [][4]string{
			{n + "group.web", `"name": "web"`, `"security_rule": true`, `"name": {}`}, strict,
			{n + "rule.r", `"name": "r", "network_security_group_name": "strict"`, `"x": false`, `"name": {}`}},
			[]string{"[azurerm_network_security_group.web.security_rule]"}, ""},
		{"a dynamic block of routes", [][4]string{{"azurerm_route_table.t", `"name": "t"`, `"route": true`, `"name": {}`}},
			[]string{"[azurerm_route_table.t.route]"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Convert(planOf(t, tt.resources...))
			if got := slices.Sorted(maps.Keys(r.Reasons)); !slices.Equal(got, tt.open) {
				t.Errorf("open are %q, want %q", got, tt.open)
			}
			if got, err := json.Marshal(r.Resources); err != nil || !strings.Contains(string(got), tt.holds) {
				t.Errorf("%s, %v: want %s", got, err, tt.holds)
			}
		})
	}
}

func TestAPlansDefaultTableOfAHubIsKnown(t *testing.T) {
	r := Convert(planOf(t,
		[4]string{"azurerm_virtual_hub.h", `"name": "h"`, `"default_route_table_id": true`, ""},
		[4]string{"azurerm_virtual_hub_connection.c", `"name": "c", "routing": [{}]`, `"virtual_hub_id": true, "routing": [{"associated_route_table_id": true}]`,
			`"virtual_hub_id": {"references": ["azurerm_virtual_hub.h.id", "azurerm_virtual_hub.h"]},
			"routing": [{"associated_route_table_id": {"references": ["azurerm_virtual_hub.h.default_route_table_id", "azurerm_virtual_hub.h"]}}]`}))
	c := byID(r, "/virtualHubs/h/hubVirtualNetworkConnections/c")
	if id := text(object(object(c, "routingConfiguration"), "associatedRouteTable"), "id"); !strings.HasSuffix(id, "/virtualHubs/h/hubRouteTables/defaultRouteTable") {
		t.Errorf("the table is %q of %v", id, r.Resources)
	}
}

// Terraform itself refuses such a configuration, but a document need not come from it.
func TestAPlanWhoseReferencesGoInCirclesIsRead(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 24))
	plan := planOf(t, [4]string{"azurerm_subnet.s", `"name": "s", "virtual_network_name": "v"`, `"network_security_group_id": true`,
		`"network_security_group_id": {"references": ["module.m.o"]}`})
	object(object(plan, "configuration"), "root_module")["module_calls"] = map[string]any{"m": map[string]any{
		"expressions": map[string]any{"v": map[string]any{"references": []any{"module.m.o"}}},
		"module":      map[string]any{"outputs": map[string]any{"o": map[string]any{"expression": map[string]any{"references": []any{"var.v"}}}}},
	}}
	r := Convert(plan)
	if id := text(object(byID(r, "/subnets/s"), "networkSecurityGroup"), "id"); id != "[azurerm_subnet.s.network_security_group_id]" {
		t.Errorf("the group of the subnet is %q", id)
	}
	refers := func(name, other string) [4]string {
		return [4]string{"azurerm_subnet." + name, `"name": "` + name + `", "virtual_network_name": "v"`, `"network_security_group_id": true`,
			`"network_security_group_id": {"references": ["azurerm_subnet.` + other + `.id", "azurerm_subnet.` + other + `"]}`}
	}
	r = Convert(planOf(t, refers("a", "b"), refers("b", "a")))
	if id := text(object(byID(r, "/subnets/a"), "networkSecurityGroup"), "id"); !strings.HasSuffix(id, "/subnets/b") {
		t.Errorf("the first refers to %q", id)
	}
}

func TestResourcesOfOtherTypesThatMatterAreListed(t *testing.T) {
	plan := planOf(t,
		[4]string{"azurerm_network_manager_admin_rule.deny", `"name": "deny"`, `"x": false`, ``},
		[4]string{"azapi_resource.rule", `"type": "Microsoft.Network/networkSecurityGroups/securityRules@2023-04-01"`, `"x": false`, ``},
		[4]string{"azapi_update_resource.subnet", `"type": "microsoft.network/VirtualNetworks/subnets@2023-04-01"`, `"x": false`, ``},
		[4]string{"azapi_resource.zone", `"type": "Microsoft.Network/privateDnsZones@2020-06-01"`, `"x": false`, ``},
		[4]string{"azurerm_resource_group_template_deployment.network", `"template_content": "{\"resources\": [{\"type\": \"Microsoft.Network/networkSecurityGroups\"}]}"`, `"x": false`, ``},
		[4]string{"azurerm_subscription_template_deployment.open", `"name": "open"`, `"template_content": true`, ``},
		[4]string{"azurerm_resource_group_template_deployment.disk", `"template_content": "{\"resources\": [{\"type\": \"Microsoft.Compute/disks\"}]}"`, `"x": false`, ``},
		[4]string{"azurerm_linux_virtual_machine.vm", `"name": "vm"`, `"x": false`, ``},
		[4]string{"azapi_resource_action.put", `"type": "Microsoft.Network/networkSecurityGroups@2023-04-01", "method": "PUT"`, `"x": false`, ``},
		[4]string{"azapi_resource_action.post", `"type": "Microsoft.Network/networkInterfaces@2023-04-01"`, `"x": false`, ``},
		[4]string{"azapi_resource.machine", `"type": "Microsoft.Compute/virtualMachines@2023-09-01"`, `"x": false`, ``},
		[4]string{"azapi_resource.set", `"type": "Microsoft.Compute/virtualMachineScaleSets@2023-09-01"`, `"x": false`, ``},
		[4]string{"azapi_resource.stack", `"type": "Microsoft.Resources/deploymentStacks@2024-03-01"`, `"x": false`, ``},
		[4]string{"azurerm_virtual_machine_scale_set.old", `"name": "s"`, `"x": false`, ``},
		[4]string{"azurestack_network_security_group.g", `"name": "g"`, `"x": false`, ``},
		[4]string{"azurestack_storage_account.a", `"name": "a"`, `"x": false`, ``})
	plan["complete"] = false
	var got []string
	for _, l := range Convert(plan).Left {
		got = append(got, l.Address+" "+l.Field+" "+l.Value)
	}
	want := []string{
		"azurerm_network_manager_admin_rule.deny type azurerm_network_manager_admin_rule",
		"azapi_resource.rule type Microsoft.Network/networkSecurityGroups/securityRules@2023-04-01",
		"azapi_update_resource.subnet type microsoft.network/VirtualNetworks/subnets@2023-04-01",
		"azurerm_resource_group_template_deployment.network type azurerm_resource_group_template_deployment",
		"azurerm_subscription_template_deployment.open type azurerm_subscription_template_deployment",
		"azapi_resource_action.put type Microsoft.Network/networkSecurityGroups@2023-04-01",
		"azapi_resource.set type Microsoft.Compute/virtualMachineScaleSets@2023-09-01",
		"azapi_resource.stack type Microsoft.Resources/deploymentStacks@2024-03-01",
		"azurerm_virtual_machine_scale_set.old type azurerm_virtual_machine_scale_set",
		"azurestack_network_security_group.g type azurestack_network_security_group",
		"plan complete false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestUnreadableDocumentsSayWhatToGive(t *testing.T) {
	for _, tt := range []struct{ name, document, want string }{
		{"a state as Terraform keeps it", `{"version": 4, "lineage": "x", "resources": [{"type": "azurerm_subnet", "instances": []}]}`, "a state as Terraform keeps it"},
		{"a format and nothing else", `{"format_version": "1.0"}`, "neither values nor planned_values"},
		{"a format of Terraform's version", `{"format_version": "1.0", "terraform_version": "1.9.5"}`, "neither values nor planned_values"},
		{"a state that is shown", `{"format_version": "1.0", "values": {}}`, ""},
		{"a plan", `{"format_version": "1.0", "planned_values": {}}`, ""},
		{"a document of another tool", `{"version": 4, "resources": []}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			decoder := json.NewDecoder(strings.NewReader(tt.document))
			decoder.UseNumber()
			var document map[string]any
			if err := decoder.Decode(&document); err != nil {
				t.Fatal(err)
			}
			got := Unreadable(document)
			if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || got != "" && !strings.Contains(got, "terraform show -json") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOtherDocumentsAreNotTerraforms(t *testing.T) {
	for _, document := range []map[string]any{{}, {"resources": []any{}}, {"format_version": "1.0"}, {"values": map[string]any{}}} {
		if Is(document) {
			t.Errorf("%v", document)
		}
	}
}

// No document panics.
func FuzzConvert(f *testing.F) {
	for _, file := range []string{"testdata/state.json", "testdata/plan.json"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"format_version": "1", "values": {"root_module": {"resources": [{"type": "azurerm_subnet", "values": {"id": "/subnets/"}}, {"type": "azurerm_network_interface_application_security_group_association"}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		var document map[string]any
		if decoder.Decode(&document) != nil || !Is(document) {
			return
		}
		if _, err := json.Marshal(Convert(document)); err != nil {
			t.Error(err)
		}
	})
}

// A subnet before its network had no network: names and ids were taken before they were known.
func TestAPlansResourcesComeInAnyOrder(t *testing.T) {
	resources := [][4]string{
		{"azurerm_subnet.s", `"name": "web"`, `"virtual_network_name": true`, `"virtual_network_name": {"references": ["azurerm_virtual_network.v.name", "azurerm_virtual_network.v"]}`},
		{"azurerm_virtual_network.v", `"address_space": ["10.0.0.0/16"]`, `"name": true`, `"name": {"references": ["random_pet.p.id", "random_pet.p"]}`},
		{"azurerm_network_interface.n", `"name": "n", "ip_configuration": [{"name": "c"}]`, `"ip_configuration": [{"subnet_id": true}]`,
			`"ip_configuration": [{"name": {"constant_value": "c"}, "subnet_id": {"references": ["azurerm_subnet.s.id", "azurerm_subnet.s"]}}]`},
	}
	const network = "/virtualNetworks/[azurerm_virtual_network.v.name]"
	for _, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}, {2, 1, 0}} {
		var ordered [][4]string
		for _, i := range order {
			ordered = append(ordered, resources[i])
		}
		r := Convert(planOf(t, ordered...))
		configuration := list(byID(r, "/networkInterfaces/n"), "ipConfigurations")[0].(map[string]any)
		if got := text(object(object(configuration, "properties"), "subnet"), "id"); byID(r, network) == nil || byID(r, network+"/subnets/web") == nil || !strings.HasSuffix(got, network+"/subnets/web") {
			t.Errorf("order %v: the subnet is %q, of %v", order, got, r.Resources)
		}
	}
}

// A plan whose resources of one subscription are replaced gives them new ids: those that they had.
func TestWhatIsReplacedKeepsTheSubscriptionOfItsId(t *testing.T) {
	const before = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/web"
	tests := []struct{ name, other, want string }{
		{"all that exists is of one subscription", "", before},
		{"two subscriptions do not tell", "/subscriptions/22222222-2222-3333-4444-555555555555/x",
			"/subscriptions/" + noSubscription + "/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/web"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			change := func(address, id string) any {
				return map[string]any{"address": address, "change": map[string]any{"before": map[string]any{"id": id}, "after_unknown": map[string]any{"id": true}}}
			}
			changes := []any{change("azurerm_network_security_group.web", before)}
			if tt.other != "" {
				changes = append(changes, change("other.x", tt.other))
			}
			r := Convert(map[string]any{"format_version": "1.2", "resource_changes": changes, "planned_values": map[string]any{"root_module": map[string]any{"resources": []any{
				map[string]any{"address": "azurerm_network_security_group.web", "mode": "managed", "type": "azurerm_network_security_group", "name": "web",
					"values": map[string]any{"name": "web", "resource_group_name": "rg"}},
			}}}})
			if id := text(r.Resources[0].(map[string]any), "id"); id != tt.want {
				t.Errorf("id %q, want %q", id, tt.want)
			}
		})
	}
}
