package arm

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// richPolicy has what can stand beside NSGs: load balancers, public addresses, application security groups of two
// networks, a bastion's subnet and service tags.
func richPolicy(t *testing.T) map[string]string {
	t.Helper()
	documents := map[string]string{
		tagsFile:   tagDocumentOf("192.0.2.0/24", "Storage", "Sql", "GatewayManager", "AzureCloud"),
		"asg.json": asgDocument(inAzure+"web", inAzure+"db"),
		"net.json": `[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.7.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.7.0.0/24", "networkSecurityGroup": {"id": "a"}}}, {"name": "AzureBastionSubnet", "properties": {"addressPrefix": "10.7.1.0/24", "networkSecurityGroup": {"id": "b"}}}]}},
			{"type": "Microsoft.Network/virtualNetworks", "name": "w", "properties": {"addressSpace": {"addressPrefixes": ["10.8.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.8.0.0/24"}}]}},` +
			nicOf("nic-web", "v/subnets/s", "10.7.0.4", "web") + `,` + nicOf("nic-db", "w/subnets/s", "10.8.0.4", "db") + `]`,
		"a.json": groupDocument("a", fromPrefix("Internet")), "b.json": bastionGroup("22"), "more/c.json": "[" + groupDocument("c", fromASG("web")) + "," + groupDocument("d", fromPrefix("Storage")) + "]",
	}
	const lab = "../../deploy/lab/translation"
	for _, file := range Files(lab) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents[filepath.Base(file)] = string(text)
	}
	return documents
}

func nicOf(name, subnet, address, asg string) string {
	return fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": %q, "properties": {"networkSecurityGroup": {"id": "c"}, "ipConfigurations": [{"name": "ip", "properties": {"subnet": {"id": %q}, "privateIPAddress": %q, "applicationSecurityGroups": [{"id": %q}]}}]}}`,
		name, subnet, address, inAzure+asg)
}

// bastionGroup is fit for a bastion if its third port is 22.
func bastionGroup(port string) string {
	rule := func(n int, direction, port string) string {
		return fmt.Sprintf(`{"name": "r%d", "properties": {"priority": %d, "direction": %q, "access": "Allow", "protocol": "Tcp", "sourcePortRange": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "destinationPortRange": %q}}`, n, 100+n, direction, port)
	}
	return `{"type": "Microsoft.Network/networkSecurityGroups", "name": "b", "properties": {"securityRules": [` + rule(1, "Inbound", "443") + `,` + rule(2, "Outbound", "443") + `,` + rule(3, "Outbound", port) + `,` + rule(4, "Outbound", "3389") + `]}}`
}

// followed reads documents in a new place by a Reader that follows, and checks that a new Reader reads the same. taken
// tells whether it took over what was read before.
func followed(t *testing.T, before *Reader, documents map[string]string) (reader *Reader, d *Documents, taken bool) {
	t.Helper()
	dir, tags := policyOf(t, documents), ""
	if documents[tagsFile] != "" {
		tags = filepath.Join(dir, tagsFile)
	}
	reader = before.Following(tags, dir)
	d = (&policyFolder{t: t, dir: dir, reader: reader}).read()
	anew, other := NewReader(tags, dir), reader.Taken()
	want := anew.Read()
	if !slices.Equal(d.Warnings, want.Warnings) || !slices.Equal(other, anew.Taken()) {
		t.Errorf("warnings %v, files %v, read anew %v, %v", d.Warnings, other, want.Warnings, anew.Taken())
	}
	for i, g := range d.Set.NetworkSecurityGroups {
		for n := range g.Rules {
			file, line, column := d.RulePosition(g, g.Rules[n].Name, "priority")
			wantFile, wantLine, wantColumn := want.RulePosition(want.Set.NetworkSecurityGroups[i], g.Rules[n].Name, "priority")
			if file != wantFile || line != wantLine || column != wantColumn {
				t.Errorf("%s/%s at %s:%d:%d, read anew at %s:%d:%d", g.Name, g.Rules[n].Name, file, line, column, wantFile, wantLine, wantColumn)
			}
		}
	}
	for _, n := range d.Set.NetworkInterfaces { // each resource is one value
		for _, c := range n.IPConfigurations {
			if v := c.Subnet.VirtualNetwork; !slices.Contains(v.Subnets, c.Subnet) || !slices.Contains(d.Set.VirtualNetworks, v) {
				t.Errorf("%s is in a subnet of another policy", n.Name)
			}
		}
		if g := n.NetworkSecurityGroup; g != nil && !slices.Contains(d.Set.NetworkSecurityGroups, g) {
			t.Errorf("%s has a group of another policy", n.Name)
		}
	}
	if list := d.Set.VirtualNetworks; len(list) > 0 {
		file, _, _ := d.Position(list[0])
		taken = file == ""
	}
	return reader, d, taken
}

// groupsOf are the NSGs of the network interfaces and subnets of a policy, with their rules.
func groupsOf(d *Documents) (list []ruleset.NSG) {
	for _, n := range d.Set.NetworkInterfaces {
		for _, g := range []*ruleset.NSG{n.NetworkSecurityGroup, n.IPConfigurations[0].Subnet.NetworkSecurityGroup} {
			if g != nil {
				list = append(list, *g)
			}
		}
	}
	return list
}

// The policy of another folder, read by what was read before, is that which a new Reader reads, also after a change that
// concerns more than rules.
func TestFollowingEqualsReadingAnew(t *testing.T) {
	first := richPolicy(t)
	first["more/c.json"] = "[" + groupDocument("c", fromASG("web")) + "," + groupDocument("d", fromPrefix("Sql")) + "]"
	for name, change := range map[string]func(d map[string]string){
		"nothing":        func(d map[string]string) {},
		"another prefix": func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("10.0.0.0/8")) },
		"no prefix":      func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("10.0.0.1/8")) },
		"a number":       func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("10")) },
		"no tag":         func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("NoSuchTag")) },
		"an expression":  func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("[parameters('p')]")) },
		"no ASG":         func(d map[string]string) { d["a.json"] = groupDocument("a", fromASG("none")) },
		"ASGs of two networks": func(d map[string]string) {
			d["a.json"] = groupDocument("a", fromASG(inAzure+`web"}, {"id": "`+inAzure+"db"))
		},
		"a name in capitals": func(d map[string]string) { d["a.json"] = groupDocument("A", fromPrefix("Internet")) },
		"another name":       func(d map[string]string) { d["a.json"] = groupDocument("other", fromPrefix("Internet")) },
		"a name twice":       func(d map[string]string) { d["a.json"] = groupDocument("c", fromPrefix("Internet")) },
		"no JSON":            func(d map[string]string) { d["a.json"] = "{" },
		"no group":           func(d map[string]string) { d["a.json"] = "[]" },
		"one more group": func(d map[string]string) {
			d["a.json"] = "[" + groupDocument("a", fromPrefix("Internet")) + "," + groupDocument("e", fromPrefix("Internet")) + "]"
		},
		"a template": func(d map[string]string) { d["a.json"] = templateOf(groupDocument("a", fromPrefix("Internet"))) },
		"a service beside the group": func(d map[string]string) {
			d["a.json"] = "[" + groupDocument("a", fromPrefix("Internet")) + `, {"type": "Microsoft.ApiManagement/service", "name": "api", "properties": {"virtualNetworkConfiguration": {"subnetResourceId": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/s"}}}]`
		},
		"a network beside the group": func(d map[string]string) {
			d["a.json"] = "[" + groupDocument("a", fromPrefix("Internet")) + `, {"type": "Microsoft.Network/virtualNetworks", "name": "x", "properties": {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}}}]`
		},
		"a bastion that nobody reaches": func(d map[string]string) { d["b.json"] = bastionGroup("23") },
		"an ASG is gone":                func(d map[string]string) { d["asg.json"] = asgDocument(inAzure + "db") },
		"an address":                    func(d map[string]string) { d["net.json"] = strings.Replace(d["net.json"], "10.7.0.4", "10.7.0.5", 1) },
		"a document's name":             func(d map[string]string) { d["a.json"], d["z.json"] = "", d["a.json"] },
		"a document's place":            func(d map[string]string) { d["a.json"], d["aa/a.json"] = "", d["a.json"] },
		"one more document":             func(d map[string]string) { d["z.json"] = groupDocument("z", fromPrefix("Internet")) },
		"prefixes of tags":              func(d map[string]string) { d[tagsFile] = tagDocumentOf("198.51.100.0/24", "Storage", "Sql") },
		"a tag's name":                  func(d map[string]string) { d[tagsFile] = tagDocumentOf("192.0.2.0/24", "Storage", "SQL") },
		"no tags":                       func(d map[string]string) { d[tagsFile] = "" },
		"another region": func(d map[string]string) {
			d["web-nsg.json"] = strings.Replace(d["web-nsg.json"], "westeurope", "northeurope", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := maps.Clone(first)
			reader, before, _ := followed(t, NewReader(""), now)
			if len(before.Faults)+len(before.Unresolved)+len(before.Warnings) > 0 {
				t.Fatal(before.Faults, before.Unresolved, before.Warnings)
			}
			takes := 0
			for step, change := range []func(map[string]string){
				change, // and a rule beside it, another one with it, and all as it was
				func(d map[string]string) { d["web-nsg.json"] = strings.Replace(d["web-nsg.json"], "8080", "8081", 1) },
				func(d map[string]string) { d["vm-nsg.json"] = strings.Replace(d["vm-nsg.json"], `"80"`, `"81"`, 1) },
				func(d map[string]string) { clear(d); maps.Copy(d, first) },
				func(d map[string]string) { d["a.json"] = groupDocument("a", fromPrefix("storage")) },
			} {
				change(now)
				maps.DeleteFunc(now, func(_, text string) bool { return text == "" })
				was := fmt.Sprint(groupsOf(before))
				next, d, taken := followed(t, reader, now)
				if is := fmt.Sprint(groupsOf(before)); is != was {
					t.Errorf("the policy from before was %s and is %s", was, is)
				}
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
				if taken {
					takes++
				}
				reader, before = next, d
			}
			if takes == 0 {
				t.Error("nothing was taken over")
			}
		})
	}
}

// What a template gives depends on more than its document.
func TestATemplateIsNotTakenOver(t *testing.T) {
	reader := NewReader("")
	for _, name := range []string{"one", "two"} {
		dir := policyOf(t, map[string]string{
			"main.json":            `{"parameters": {"n": {"type": "string"}}, "resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "[parameters('n')]"}]}`,
			"main.parameters.json": `{"parameters": {"n": {"value": "` + name + `"}}}`,
		})
		reader = reader.Following("", filepath.Join(dir, "main.json"))
		if g := reader.Read().Set.NetworkSecurityGroups; len(g) != 1 || g[0].Name != name {
			t.Errorf("groups %v, want %s", g, name)
		}
	}
}

// Values of parameters lie beside templates: in a folder they need not be read.
func TestADocumentThatThePathsNameGivesResources(t *testing.T) {
	documents := map[string]string{"a.json": groupDocument("a", fromPrefix("Internet")), "b.json": `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#", "contentVersion": "1.0.0.0", "parameters": {}}`}
	reader := NewReader("", policyOf(t, documents))
	if d := reader.Read(); len(d.Faults) > 0 {
		t.Fatal(d.Faults)
	}
	dir := policyOf(t, documents)
	paths := []string{filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")}
	got, want := reader.Following("", paths...).Read(), Load(paths...)
	if !slices.Equal(got.Faults, want.Faults) || len(got.Faults) == 0 {
		t.Errorf("faults %v, read anew %v", got.Faults, want.Faults)
	}
}
