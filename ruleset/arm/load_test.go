package arm

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares with testdata/name, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update rewrites it. Got:\n%s", path, got)
	}
}

// parse reads a document that must have no fault and leave nothing open.
func parse(t *testing.T, document string) *policy.Set {
	t.Helper()
	d := Parse("test.json", []byte(document))
	if len(d.Faults) > 0 || len(d.Unresolved) > 0 {
		t.Fatalf("faults:\n%v\nunresolved:\n%v", d.Faults, d.Unresolved)
	}
	return d.Set
}

func TestEveryFormOfADocumentReadsTheSame(t *testing.T) {
	want := &ruleset.NSG{Name: "web-nsg", Location: "westeurope", FlushConnection: true, Rules: []ruleset.Rule{
		{
			Name: "https", Description: "HTTPS", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow, Protocol: ruleset.TCP,
			Source:      ruleset.Peer{Tag: "Internet"},
			Destination: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.4/32"), netip.MustParsePrefix("10.0.1.8/29")}},
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 443, Last: 443}, {First: 8443, Last: 8444}},
		}, {
			Name: "no-way-out", Priority: 4096, Direction: ruleset.Outbound, Access: ruleset.Deny, Protocol: ruleset.AnyProtocol,
			Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts},
		},
	}}
	const id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/web-nsg"
	const madeUp = "/subscriptions//resourceGroups//providers/Microsoft.Network/networkSecurityGroups/web-nsg"
	tests := []struct{ name, file, id string }{
		{"the REST API's", "nested.json", id},
		{"az network nsg show's", "flattened.json", id},
		{"az network nsg list's", "list.json", id},
		{"a page of the REST API", "page.json", id},
		{"one with a byte order mark", "bom.json", id},
		{"one without a type, known by its id", "by-id.json", id},
		{"one without a type or id, known by its shape", "by-shape.json", strings.Replace(madeUp, "resourceGroups/", "resourceGroups/rg", 1)},
		{"PowerShell's, with capitals and lists of one", "powershell.json", id},
		{"a template with inline rules", "template-inline.json", madeUp},
		{"a template with a child rule before its group", "template-child.json", madeUp},
		{"a template with nested rules of both spellings", "template-nested.json", madeUp},
		{"a template with symbolic names", "template-symbolic.json", madeUp},
		{"a template within a deployment", "template-deployment.json", madeUp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Load(filepath.Join("testdata", "forms", tt.file))
			if len(d.Faults) > 0 || len(d.Unresolved) > 0 || len(d.Set.NetworkSecurityGroups) != 1 {
				t.Fatalf("%d groups, faults:\n%v\nunresolved:\n%v", len(d.Set.NetworkSecurityGroups), d.Faults, d.Unresolved)
			}
			got := d.Set.NetworkSecurityGroups[0]
			if got.ID != tt.id {
				t.Errorf("id %q, want %q", got.ID, tt.id)
			}
			if known := got.ResourceGUID == "g"; known == strings.HasPrefix(tt.file, "template-") {
				t.Errorf("resourceGuid %q", got.ResourceGUID)
			}
			got.ID, got.ResourceGUID = "", ""
			for i := range got.Rules {
				got.Rules[i].ID = ""
			}
			for i := range got.Rules {
				got.Rules[i].Written = nil // differs from form to form
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestFaultyDocuments(t *testing.T) {
	d := Load("testdata/faulty")
	golden(t, "faulty.golden", fmt.Sprintf("%v\n\nUnresolved:\n%v\n", d.Faults, d.Unresolved))
}

func TestNotOursIsPassedOver(t *testing.T) {
	tests := []struct{ name, document string }{
		{"a resource of another kind", `{"type": "Microsoft.Compute/virtualMachines", "name": "vm", "properties": {}}`},
		{"a template's parameters", `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#", "parameters": {"a": {"value": []}}}`},
		{"an effective list", `{"value": [{"networkSecurityGroup": {"id": "/x"}, "effectiveSecurityRules": []}]}`},
		{"a subnet's list of ipConfigurations does not make it a network interface", `[{"addressPrefix": "10.0.0.0/24", "ipConfigurations": [{"id": "/x"}]}]`},
		{"a resource whose condition is false", `{"type": "Microsoft.Network/networkSecurityGroups", "name": "?", "condition": false}`},
		{"no object at all", `"text"`},
		{"null", `null`},
		{"lists of lists", `[[[]], [null, 1]]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if set := parse(t, tt.document); !reflect.DeepEqual(set, &policy.Set{}) {
				t.Errorf("read %+v", set)
			}
		})
	}
}

// Each of these hid a part of the document, so that the policy was accepted without it.
func TestNothingOfAPolicyIsHidden(t *testing.T) {
	const group = `"type": "Microsoft.Network/networkSecurityGroups", "name": "n"`
	tests := []struct {
		name, document string
		want           []string // "code resource rule field value"
	}{
		{"a key without a name is not the value of every missing field", `{"": false, ` + group + `, "securityRules": 1}`,
			[]string{"InvalidRequestFormat networkSecurityGroups/n  securityRules 1"}},
		{"properties that are no object are not taken for none", `{` + group + `, "properties": 5}`,
			[]string{"InvalidRequestFormat networkSecurityGroups/n  properties 5"}},
		{"nor are those of a rule, which is one fault", `{` + group + `, "securityRules": [{"name": "r", "properties": []}]}`,
			[]string{"InvalidRequestFormat networkSecurityGroups/n r properties []"}},
		{"a rule within a resource of another kind is its group's", `[{` + group + `}, {"type": "Microsoft.Network/applicationSecurityGroups", "name": "a", "resources": [
			{"type": "Microsoft.Network/networkSecurityGroups/securityRules", "name": "n/r", "protocol": "Tcp", "access": "Maybe", "direction": "Inbound", "priority": 100,
				"sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*"}]}]`,
			[]string{"SecurityRuleInvalidAccess networkSecurityGroups/n r access Maybe"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range Parse("a.json", []byte(tt.document)).Faults {
				got = append(got, strings.Join([]string{f.Code, f.Resource, f.Rule, f.Field, f.Value}, " "))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMalformedJSONNamesItsPlace(t *testing.T) {
	tests := []struct {
		name, document string
		line, column   int
		want           string
	}{
		{"a stray comma", "{\n  \"name\": \"n\",,\n}", 2, 15, "invalid character ',' looking for beginning of object key string"},
		{"a value after the document", "{}\n{}", 2, 1, "invalid character '{' after top-level value: a file holds one document; 'terraform show -json', and not 'terraform plan -json', writes a plan as one"},
		{"a bracket after the document", "{} ]", 1, 4, "invalid character ']' after top-level value"},
		{"a document that breaks off", "{\"name\": [1, 2", 1, 14, "unexpected end of JSON input"},
		{"an empty file", "", 1, 1, "unexpected end of JSON input"},
		{"half a character of UTF-16", "\xff\xfe{\x00}\x00\x00", 1, 3, "the file is UTF-16 and ends within a character"},
		{"windows-1252", "{\n  \"description\": \"f\xfcr alle\"}", 2, 20, "the byte 0xfc is not UTF-8: save the file as UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("a.json", []byte(tt.document))
			want := ruleset.Fault{Code: "InvalidJson", File: "a.json", Line: tt.line, Column: tt.column, Message: tt.want}
			if len(d.Faults) != 1 || d.Faults[0] != want {
				t.Errorf("got %+v, want %+v", d.Faults, want)
			}
		})
	}
}

// folder makes a folder of documents that hold one ASG each, named as the file.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		document := fmt.Sprintf(`{"type": "Microsoft.Network/applicationSecurityGroups", "name": %q}`, filepath.Base(file))
		if err := os.WriteFile(path, []byte(document), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPaths(t *testing.T) {
	dir := folder(t, "b.json", "a/z.JSON", "a/notes.txt", ".hidden.json", "..data/b.json", "empty/none.txt")
	if err := os.Symlink(filepath.Join(dir, "a/notes.txt"), filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "a/loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(names ...string) []string {
		for i := range names {
			names[i] = dir + names[i]
		}
		return names
	}
	tests := []struct {
		name   string
		paths  []string
		want   []string // ASGs
		faults []string // codes
	}{
		{"a folder is read below, in order, links to files and no dot names", at(""), []string{"z.JSON", "b.json", "notes.txt"}, nil},
		{"a link to a folder is a folder", at("-link"), []string{"z.JSON", "b.json", "notes.txt"}, nil},
		{"a file is read whatever its name", at("/a/notes.txt", "/.hidden.json"), []string{"notes.txt", ".hidden.json"}, nil},
		{"a file that is named twice is read once", at("/b.json", "/a/../b.json", "/*.json"), []string{"b.json", ".hidden.json", "notes.txt"}, nil},
		{"a missing path", at("/c.json", "/b.json"), []string{"b.json"}, []string{"PathNotFound"}},
		{"a pattern without a match", at("/*.yaml"), nil, []string{"PathNotFound"}},
		{"a folder without documents", at("/empty"), nil, []string{"PathNotFound"}},
		{"a pipe", at("/pipe"), nil, []string{"FileUnreadable"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Load(tt.paths...)
			var asgs, codes []string
			for _, a := range d.Set.ApplicationSecurityGroups {
				asgs = append(asgs, a.Name)
			}
			for _, f := range d.Faults {
				codes = append(codes, f.Code)
				if !strings.HasPrefix(f.File, dir) || f.Message == "" {
					t.Errorf("the fault does not name the path: %+v", f)
				}
			}
			if !slices.Equal(asgs, tt.want) || !slices.Equal(codes, tt.faults) {
				t.Errorf("read %v with faults %v, want %v with %v", asgs, codes, tt.want, tt.faults)
			}
		})
	}
}

func TestTemplateExpressionsAreLeftOpen(t *testing.T) {
	const rule = `"properties": {"protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 100,
		"sourcePortRange": "*", "destinationPortRange": "80", "sourceAddressPrefix": %s, "destinationAddressPrefix": "*"}`
	literal := fmt.Sprintf(rule, `"*"`)
	group := func(rest string) string {
		return `{"resources": [{"type": "Microsoft.Network/networkSecurityGroups", ` + rest + `}]}`
	}
	tests := []struct {
		name, document string
		groups, rules  int
		unresolved     []string // "field value"
		faults         []string // codes
	}{
		{"a name", group(`"name": "[parameters('n')]", "properties": {"securityRules": [{"name": "a", ` + literal + `}]}`), 0, 0,
			[]string{"name [parameters('n')]"}, nil},
		{"a rule's name", group(`"name": "n", "properties": {"securityRules": [{"name": "[parameters('a')]", ` + literal + `}]}`), 1, 0,
			[]string{"name [parameters('a')]"}, nil},
		{"a rule's field", group(`"name": "n", "properties": {"securityRules": [{"name": "a", ` + fmt.Sprintf(rule, `"[parameters('p')]"`) + `}]}`), 1, 0,
			[]string{"sourceAddressPrefix [parameters('p')]"}, nil},
		{"the other fields of that rule are checked", group(`"name": "n", "properties": {"securityRules": [{"name": "a", ` +
			strings.Replace(fmt.Sprintf(rule, `"[parameters('p')]"`), "100", "1", 1) + `}]}`), 1, 0,
			[]string{"sourceAddressPrefix [parameters('p')]"}, []string{"SecurityRuleInvalidPriority"}},
		{"an escaped bracket is none", group(`"name": "n", "properties": {"securityRules": [{"name": "a", ` + fmt.Sprintf(rule, `"[[x]"`) + `}]}`), 1, 0,
			nil, []string{"SecurityRuleInvalidAddressPrefix"}},
		{"all rules", group(`"name": "n", "properties": {"securityRules": "[variables('r')]"}`), 0, 0, []string{"securityRules [variables('r')]"}, nil},
		{"rules made by copy", group(`"name": "n", "properties": {"copy": [{"name": "securityRules"}]}`), 0, 0, []string{`copy [{"name":"securityRules"}]`}, nil},
		{"groups made by copy", group(`"name": "n", "copy": {"name": "c", "count": "[parameters('c')]"}, "properties": {}`), 0, 0, []string{`copy [parameters('c')]`}, nil},
		{"a condition leaves open whether the group exists; its rules are checked",
			group(`"name": "n", "condition": "[parameters('c')]", "properties": {"securityRules": [{"name": "a", ` + literal + `}]}`), 1, 1, []string{"condition [parameters('c')]"}, nil},
		{"a description is no obstacle", group(`"name": "n", "properties": {"securityRules": [{"name": "a", ` +
			strings.Replace(literal, `"protocol"`, `"description": "[parameters('`+strings.Repeat("x", 150)+`')]", "protocol"`, 1) + `}]}`), 1, 1, nil, nil},
		{"a child rule of a group that is named by an expression",
			`{"resources": [{"type": "Microsoft.Network/networkSecurityGroups/securityRules", "name": "[concat(parameters('n'), '/a')]", ` + literal + `}]}`, 0, 0,
			[]string{"name [concat(parameters('n'), '/a')]"}, nil},
		{"all properties of a rule", group(`"name": "n", "properties": {"securityRules": [{"name": "a", "properties": "[variables('p')]"}]}`), 1, 0,
			[]string{"properties [variables('p')]"}, nil},
		{"all properties of a network", `{"resources": [{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": "[variables('p')]"}]}`, 0, 0,
			[]string{"properties [variables('p')]"}, nil},
		{"prefixes made by copy", `{"resources": [{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"copy": [{"name": "addressPrefixes", "count": "[parameters('c')]", "input": "x"}]}}}]}`, 0, 0,
			[]string{"copy [parameters('c')]"}, nil},
		{"all properties of a subnet", small(`{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "v/t", "properties": "[variables('p')]"}`), 0, 0,
			[]string{"properties [variables('p')]"}, nil},
		{"all properties of an ipConfiguration", small(`{"type": "Microsoft.Network/networkInterfaces", "name": "n", "ipConfigurations": [{"properties": "[variables('p')]"}]}`), 0, 0,
			[]string{"properties [variables('p')]"}, nil},
		{"a type", `{"resources": [{"type": "[variables('T')]", "name": "n", "properties": {}}]}`, 0, 0, []string{"type [variables('T')]"}, nil},
		{"resources", `{"resources": "[variables('r')]"}`, 0, 0, []string{"resources [variables('r')]"}, nil},
		{"one of several resources", `{"resources": ["[variables('r')]"]}`, 0, 0, []string{"resources [variables('r')]"}, nil},
		{"the condition of a deployment with a group", `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "condition": "[parameters('c')]", "properties": {"template": ` +
			group(`"name": "n"`) + `}}]}`, 1, 0, []string{"condition [parameters('c')]"}, nil},
		{"the condition of a deployment with nothing of ours says nothing",
			`{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "condition": "[parameters('c')]", "properties": {"template": {}}}]}`, 0, 0, nil, nil},
		{"the template of a deployment", `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"template": "[variables('t')]"}}]}`, 0, 0,
			[]string{"template [variables('t')]"}, nil},
		// The group was read as one without rules.
		{"a group that exists elsewhere is none of the template", `{"languageVersion": "2.0", "resources": {"g": {"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "existing": true}}}`, 0, 0,
			nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("azuredeploy.json", []byte(tt.document))
			var unresolved, codes []string
			for _, f := range d.Unresolved {
				unresolved = append(unresolved, f.Field+" "+f.Value)
				if f.Code != CodeTemplateExpression || f.Resource == "" || f.File != "azuredeploy.json" {
					t.Errorf("unresolved %+v", f)
				}
			}
			for _, f := range d.Faults {
				codes = append(codes, f.Code)
			}
			rules := 0
			for _, g := range d.Set.NetworkSecurityGroups {
				rules += len(g.Rules)
			}
			if len(d.Set.NetworkSecurityGroups) != tt.groups || rules != tt.rules {
				t.Errorf("%d groups with %d rules, want %d and %d", len(d.Set.NetworkSecurityGroups), rules, tt.groups, tt.rules)
			}
			if !slices.Equal(unresolved, tt.unresolved) || !slices.Equal(codes, tt.faults) {
				t.Errorf("unresolved %q and faults %v, want %q and %v\n%v", unresolved, codes, tt.unresolved, tt.faults, d.Faults)
			}
		})
	}
}

// Whatever is literal in published templates can be read.
func TestPublishedTemplates(t *testing.T) {
	const shared = "../../../shared/data/templates"
	if _, err := os.Stat(shared); err != nil {
		t.Skipf("the shared templates are not here: %v", err)
	}
	d := Load(shared)
	rules := 0
	for _, g := range d.Set.NetworkSecurityGroups {
		rules += len(g.Rules)
	}
	if len(d.Set.NetworkSecurityGroups) == 0 || rules == 0 {
		t.Error("nothing was read")
	}
	for _, f := range d.Faults {
		if f.Code == CodeInvalidJSON || f.Code == CodeFileUnreadable {
			t.Errorf("a template was not read: %v", f)
		}
	}
	for _, f := range slices.Concat(d.Faults, d.Unresolved) {
		if f.Code == "" || f.File == "" || f.Resource == "" || f.Message == "" {
			t.Errorf("a fault says too little: %+v", f)
		}
	}
	t.Logf("%d groups, %d rules, %d networks, %d network interfaces; %d faults, %d unresolved",
		len(d.Set.NetworkSecurityGroups), rules, len(d.Set.VirtualNetworks), len(d.Set.NetworkInterfaces), len(d.Faults), len(d.Unresolved))
}

// A group whose type lacked a letter was passed over, and none of its rules held.
func TestATypeThatIsNearlyOneOfOursIsAFault(t *testing.T) {
	for _, tt := range []struct{ name, typ, near string }{
		{"without its plural", "Microsoft.Network/networkSecurityGroup", "Microsoft.Network/networkSecurityGroups"},
		{"of a child, without its plural", "microsoft.network/NetworkSecurityGroups/securityRule", "Microsoft.Network/networkSecurityGroups/securityRules"},
		{"with a misspelt provider", "Microsoft.Netwrok/virtualNetworks", "Microsoft.Network/virtualNetworks"},
		{"in another case", "microsoft.network/NETWORKSECURITYGROUPS", ""},
		{"of another kind", "Microsoft.Network/virtualNetworkTaps", ""},
		{"of a rule for users", "Microsoft.Network/networkManagers/securityUserConfigurations", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(`{"resources": [{"type": "`+tt.typ+`", "name": "n", "properties": {}}]}`))
			if tt.near == "" {
				if slices.ContainsFunc(d.Faults, func(f ruleset.Fault) bool { return f.Field == "type" }) {
					t.Errorf("faults %v", d.Faults)
				}
				return
			}
			if f := d.Faults; len(f) != 1 || f[0].Code != CodeInvalidResourceType || f[0].Value != tt.typ || f[0].Resource != "resources/n" || !strings.Contains(f[0].Message, "near is "+tt.near) {
				t.Errorf("faults %v, want near is %s", f, tt.near)
			}
		})
	}
}

// U+017F folds to s and U+212A to k in Unicode, and neither does for Azure, which compares names ordinally.
func TestNamesFoldAsAzureFoldsThem(t *testing.T) {
	for key, want := range map[string]any{"access": "Deny", "ACCESS": "Deny", "acce\u017f\u017f": nil} {
		object := map[string]any{key: "Deny"}
		if got := lookup(object, "access"); got != want || has(object, "access") != (want != nil) {
			t.Errorf("%q: %v", key, got)
		}
	}
	if lookup(map[string]any{"\u212aey": 1}, "key") != nil {
		t.Error("the Kelvin sign is taken for a k")
	}
}

// A text of a template that begins with two brackets is the text with one, in a description too, which decides nothing.
func TestALiteralLosesItsEscape(t *testing.T) {
	for text, want := range map[string]string{"[[draft] web": "[draft] web", "[[draft]": "[draft]", "[draft": "[draft", "web [[x]]": "web [[x]]"} {
		document := `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": [
			{"type": "Microsoft.Network/networkSecurityGroups", "apiVersion": "2023-09-01", "name": "n", "location": "l", "properties": {"securityRules": [{"name": "a", "properties": {
				"description": "` + text + `", "priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "*", "sourceAddressPrefix": "*",
				"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"}}]}}]}`
		d := Parse("n.json", []byte(document))
		if len(d.Faults)+len(d.Unresolved) > 0 || len(d.Set.NetworkSecurityGroups) != 1 {
			t.Fatalf("%q: %v %v", text, d.Faults, d.Unresolved)
		}
		if got := d.Set.NetworkSecurityGroups[0].Rules[0].Description; got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}
