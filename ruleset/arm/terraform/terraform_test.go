package terraform

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
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
