package arm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// codes are the codes of faults in their order.
func codes(faults ruleset.Faults) (list []string) {
	for _, f := range faults {
		list = append(list, f.Code)
	}
	return list
}

const elsewhere = "/subscriptions/S/resourceGroups/hub/providers/Microsoft.Network/"

func nicIn(name, subnet, properties string) string {
	return `{"type": "Microsoft.Network/networkInterfaces", "name": "` + name + `", "properties": {"ipConfigurations": [{"name": "c", "properties": {` + properties + `"subnet": {"id": "` + subnet + `"}}}]}}`
}

// A missing resource refused the rest, and was told as often as it was named.
func TestWhatExistsElsewhereIsToldOnceAndServed(t *testing.T) {
	const subnet = elsewhere + "virtualNetworks/hub/subnets/web"
	nics := templateOf(nicIn("one", subnet, `"privateIPAddress": "10.0.1.4", `), nicIn("two", subnet, ""), nicIn("three", subnet, ""),
		`{"type": "Microsoft.Network/loadBalancers", "name": "lb", "properties": {"frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "`+elsewhere+`publicIPAddresses/p"}}}],
			"backendAddressPools": [{"name": "b", "properties": {"backendIPConfigurations": [{"id": "`+elsewhere+`networkInterfaces/far/ipConfigurations/c"}]}}]}}`)
	rule := childRule(ruleFrom("hub-nsg/ssh", 100, "*"))
	added := `{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "hub/web", "properties": {"addressPrefix": "10.0.1.0/24"}}`
	const inOwn = "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'hub', 'web')]"
	hub := `{"properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "web", "properties": {"addressPrefix": "10.0.1.0/24"}}]}}`
	tests := []struct {
		name, document, runtime, beside string
		open                            []string // codes
		message                         string
		nics                            int
	}{
		{"a subnet of network interfaces", nics, "", "", []string{CodeInvalidResourceReference}, "; 2 resources that depend on it were not read: networkInterfaces/two, networkInterfaces/three", 0},
		{"served at runtime", nics, `{"` + elsewhere + `virtualNetworks/hub": ` + hub + `}`, "", nil, "", 3},
		{"served by an export", nics, "", `[{"id": "` + elsewhere + `virtualNetworks/hub", "name": "hub", ` + strings.TrimPrefix(hub, "{") + "]", nil, "", 3},
		{"a subnet of another network does not serve", nics, `{"` + elsewhere + `virtualNetworks/spoke": ` + hub + `}`, "", []string{CodeInvalidResourceReference}, "hub/providers", 0},
		{"a network that gets a subnet", templateOf(added, nicIn("n", inOwn, "")), "", "", []string{CodeParentNotFound}, "; 1 resource that depends on it was not read: networkInterfaces/n", 0},
		{"that network at runtime, by its name", templateOf(added, nicIn("n", inOwn, "")), `{"hub": ` + strings.Replace(hub, "web", "old", 1) + `}`, "", []string{}, "", 1},
		{"a group that gets a rule", templateOf(rule), "", "", []string{CodeParentNotFound}, "hub-nsg", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"p/main.json": tt.document}
			if tt.beside != "" {
				files["p/beside.json"] = tt.beside
			}
			files["runtime.json"] = "{}"
			if tt.runtime != "" {
				files["runtime.json"] = tt.runtime
			}
			if tt.name == "that network at runtime, by its name" { // web would overlap the new subnet
				files["runtime.json"] = strings.Replace(tt.runtime, "10.0.1.0/24", "10.0.2.0/24", 1)
			}
			dir := policyOf(t, files)
			reader := NewReader("", dir+"/p")
			reader.SetDeployment(Deployment{Runtime: dir + "/runtime.json"})
			d := reader.Read()
			if got := codes(d.Unresolved); len(d.Faults) > 0 || !slices.Equal(got, tt.open) || len(d.Set.NetworkInterfaces) != tt.nics {
				t.Fatalf("open %v, want %v; %d network interfaces, faults %v", d.Unresolved, tt.open, len(d.Set.NetworkInterfaces), d.Faults)
			}
			if len(tt.open) > 0 && !strings.Contains(fmt.Sprint(d.Unresolved[0].Value, d.Unresolved[0].Message), tt.message) {
				t.Errorf("the note is %v, want %q in it", d.Unresolved[0], tt.message)
			}
		})
	}
	t.Run("what may be in a linked template that was not read", func(t *testing.T) {
		linked := `{"type": "Microsoft.Resources/deployments", "name": "net", "properties": {"templateLink": {"uri": "https://example.com/net.json"}}}`
		dir := policyOf(t, map[string]string{"main.json": templateOf(linked, nicIn("n", inOwn, ""), nicIn("far", subnet, ""), added)})
		for _, in := range []Deployment{{}, {Subscription: "T", ResourceGroup: "app"}} {
			reader := NewReader("", dir)
			reader.SetDeployment(in)
			d := reader.Read()
			if len(d.Faults) > 0 || len(d.Unresolved) != 2 || d.Unresolved[0].Field != "templateLink" || d.Unresolved[1].Value != subnet ||
				!strings.HasSuffix(d.Unresolved[0].Message, "; 2 resources that depend on it were not read: virtualNetworks/hub/subnets/web, networkInterfaces/n") {
				t.Errorf("unresolved %v, faults %v", d.Unresolved, d.Faults)
			}
		}
	})
	t.Run("a rule of a group that is elsewhere is checked", func(t *testing.T) {
		d := Parse("main.json", []byte(templateOf(childRule(ruleFrom("hub-nsg/ssh", 5, "*")))))
		if got := codes(d.Faults); !slices.Equal(got, []string{ruleset.CodeInvalidPriority}) {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("a bare name is a fault", func(t *testing.T) {
		d := Parse("main.json", []byte(templateOf(nicIn("n", "hub/web", ""))))
		if got := codes(d.Faults); !slices.Equal(got, []string{CodeInvalidResourceReference}) {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("an id of another type is a fault", func(t *testing.T) {
		d := Parse("main.json", []byte(templateOf(nicIn("n", elsewhere+"virtualNetworks/hub", ""))))
		if got := codes(d.Faults); !slices.Equal(got, []string{CodeInvalidResourceReference}) {
			t.Errorf("faults %v", d.Faults)
		}
	})
}

// One fault of a load balancer's part was told again for each rule that names the part, and
// one of a route table as template expressions of its subnets.
func TestAFaultIsToldOnce(t *testing.T) {
	balancer := func(frontend, probe, members string) string {
		return `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
			"frontendIPConfigurations": [{"name": "f", "properties": {` + frontend + `}}], "probes": [{"name": "h", "properties": {"protocol": "Http", "port": 80, "intervalInSeconds": 15, ` + probe + `}}],
			"backendAddressPools": [{"name": "p", "properties": {"loadBalancerBackendAddresses": [` + members + `]}}],
			"loadBalancingRules": [{"name": "r", "properties": {"protocol": "Tcp", "frontendPort": 80, "backendPort": 80, "frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "probe": {"id": "lb/h"}}}]}}`
	}
	subnet := `"privateIPAddress": "10.0.0.9", "subnet": {"id": "` + elsewhere + `virtualNetworks/hub/subnets/web"}`
	table := `{"type": "Microsoft.Network/routeTables", "name": "t", "properties": {"routes": [{"name": "x", "properties": {"addressPrefix": "10.1.2.3/8", "nextHopType": "Internet"}}]}}`
	routed := networkOf("", `{"name": "s", "properties": {"addressPrefix": "10.0.1.0/24", "routeTable": {"id": "t"}}}`)
	member := func(properties string) string { return `{"name": "a", "properties": {` + properties + `}}` }
	tests := []struct {
		name, document   string
		faults, warnings []string
		message          string
	}{
		{"a frontend whose subnet is elsewhere", balancer(subnet, `"requestPath": "/"`, ""), nil, []string{CodeNotTranslated},
			"1 resource that depends on it was not read: loadBalancers/lb/loadBalancingRules/r"},
		{"and a member without a network", balancer(subnet, `"requestPath": "/"`, member(`"ipAddress": "10.0.0.7"`)), nil, []string{CodeNotTranslated}, "loadBalancingRules/r"},
		{"a member whose network is elsewhere", balancer(`"publicIPAddress": {"id": "`+elsewhere+`publicIPAddresses/p"}`, `"requestPath": "/"`,
			member(`"ipAddress": "10.0.0.7", "virtualNetwork": {"id": "`+elsewhere+`virtualNetworks/hub"}`)+","+member(`"ipAddress": "10.0.0.8", "virtualNetwork": {"id": "`+elsewhere+`virtualNetworks/hub"}`)),
			nil, []string{CodeNotTranslated, CodeNotTranslated}, "nothing is translated by it"},
		{"a probe", balancer(subnet, `"requestPath": ""`, ""), []string{CodeInvalidProbe}, []string{CodeNotTranslated}, "loadBalancingRules/r"},
		{"members in other regions", balancer(`"publicIPAddress": {"id": "`+elsewhere+`publicIPAddresses/p"}`, `"requestPath": "/"`,
			member(`"loadBalancerFrontendIPConfiguration": {"id": "x"}`)+","+member(`"ipAddress": "20.0.0.4", "loadBalancerFrontendIPConfiguration": {"id": "y"}`)), nil, []string{CodeNotTranslated, CodeNotTranslated}, ""},
		{"a route", templateOf(table, routed, nicIn("n", "v/s", "")), []string{CodeInvalidRoutePrefix}, nil, "2 resources that depend on it were not read: virtualNetworks/v/subnets/s, networkInterfaces/n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			if !slices.Equal(codes(d.Faults), tt.faults) || !slices.Equal(codes(d.Warnings), tt.warnings) || len(d.Unresolved) > 0 {
				t.Errorf("faults %v, warnings %v, unresolved %v", d.Faults, d.Warnings, d.Unresolved)
			}
			told := slices.Concat(d.Faults, d.Warnings)
			if !strings.Contains(told.Error(), tt.message) {
				t.Errorf("told %v, want %q in it", told, tt.message)
			}
		})
	}
}

// What Azure takes was refused.
func TestWhatAzureTakesIsRead(t *testing.T) {
	tests := []struct {
		name, document string
		read           func(d *Documents) any
		want           any
	}{
		{"a number as an address", templateOf(groupOf("g", ruleFrom("r", 100, "789"))), func(d *Documents) any { return said(d)[0] }, "g/r 0.0.3.21/32"},
		{"an address that is not assigned", templateOf(`{"type": "Microsoft.Network/publicIPAddresses", "name": "p", "properties": {"ipAddress": "Not Assigned"}}`),
			func(d *Documents) any { return d.Set.PublicIPAddresses[0].Address.IsValid() }, false},
		{"host bits at an old API version", templateOf(strings.NewReplacer("2023-09-01", "2015-06-15", "10.0.0.0/16", "10.0.0.1/16").Replace(networkOf("", subnetOf("s", "10.0.1.9/24", "")))),
			func(d *Documents) any { return said(d)[0] + d.Set.VirtualNetworks[0].AddressSpace[0].String() }, "v/s [10.0.1.0/24]10.0.0.0/16"},
		{"an IPv6 ipConfiguration without a subnet", templateOf(networkOf("", subnetOf("s", "10.0.1.0/24", "")), strings.Replace(nicIn("n", "v/s", `"privateIPAddress": "10.0.1.9", `), `[{"name": "c"`,
			`[{"name": "six", "properties": {"privateIPAddressVersion": "IPv6"}}, {"name": "c"`, 1)),
			func(d *Documents) any { return len(d.Set.NetworkInterfaces[0].IPConfigurations) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			if len(d.Faults)+len(d.Unresolved) > 0 {
				t.Fatalf("faults %v, unresolved %v", d.Faults, d.Unresolved)
			}
			if got := tt.read(d); got != tt.want {
				t.Errorf("read %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("load balancers", func(t *testing.T) {
		d := Parse("main.json", []byte(templateOf(networkOf("", subnetOf("s", "10.0.1.0/24", "")), `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
			"frontendIPConfigurations": [{"name": "f", "properties": {"privateIPAddress": "10.0.1.9", "subnet": {"id": "v/s"}}}], "backendAddressPools": [{"name": "p"}],
			"probes": [{"name": "h", "properties": {"protocol": "Http", "port": 80, "requestPath": "health.aspx"}}],
			"loadBalancingRules": [{"name": "r", "properties": {"protocol": "Tcp", "frontendPort": 80, "backendPort": 8080, "enableFloatingIP": true,
				"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "probe": {"id": "lb/h"}}}],
			"inboundNatRules": [{"name": "n", "properties": {"protocol": "Tcp", "frontendPort": 0, "frontendPortRangeStart": 0, "frontendPortRangeEnd": 3, "backendPort": 30,
				"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}}}]}}`)))
		if !slices.Equal(codes(d.Warnings), []string{CodeIgnoredPort}) || len(d.Faults)+len(d.Unresolved) > 0 {
			t.Fatalf("faults %v, warnings %v", d.Faults, d.Warnings)
		}
		b := d.Set.LoadBalancers[0]
		if b.Probes[0].Path != "/health.aspx" || len(b.Rules) != 1 || b.NATRules[0].First != 0 || b.NATRules[0].Last != 3 {
			t.Errorf("%+v", b)
		}
	})
	t.Run("host bits at a later one", func(t *testing.T) {
		d := Parse("main.json", []byte(templateOf(strings.NewReplacer("2023-09-01", "2015-06-16", "10.0.0.0/16", "10.0.0.1/16").Replace(networkOf("", "")))))
		if got := codes(d.Faults); !slices.Equal(got, []string{CodeInvalidCIDR}) {
			t.Errorf("faults %v", d.Faults)
		}
	})
}

func TestAddressesThatAreNotWrittenDownAreChosen(t *testing.T) {
	network := func(prefixes string) string {
		return networkOf("", `{"name": "s", "properties": {"addressPrefixes": [`+prefixes+`]}}`)
	}
	const four = `"10.0.1.0/24"`
	dual := strings.Replace(network(four+`, "fd00::/64"`), `"10.0.0.0/16"`, `"10.0.0.0/16", "fd00::/48"`, 1)
	six := `"privateIPAddressVersion": "IPv6", `
	internal := func(address string) string {
		return `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "properties": {"frontendIPConfigurations": [{"name": "f", "properties": {` + address + `"subnet": {"id": "v/s"}}}]}}`
	}
	tests := []struct {
		name, document string
		want           []string // of the network interfaces, then of the frontend
		faults         []string
	}{
		{"the first is .4", templateOf(network(four), nicIn("a", "v/s", "")), []string{"10.0.1.4"}, nil},
		{"in the order of the document", templateOf(nicIn("b", "v/s", ""), network(four), nicIn("a", "v/s", "")), []string{"10.0.1.4", "10.0.1.5"}, nil},
		{"what is written down goes first", templateOf(network(four), nicIn("a", "v/s", ""), nicIn("b", "v/s", `"privateIPAddress": "10.0.1.4", `)), []string{"10.0.1.5", "10.0.1.4"}, nil},
		{"a frontend's too", templateOf(network(four), nicIn("a", "v/s", ""), internal(`"privateIPAddress": "10.0.1.4", `)), []string{"10.0.1.5", "10.0.1.4"}, nil},
		{"a frontend after the network interfaces", templateOf(network(four), internal(""), nicIn("a", "v/s", "")), []string{"10.0.1.4", "10.0.1.5"}, nil},
		{"IPv6", templateOf(dual, nicIn("a", "v/s", six), nicIn("b", "v/s", six)), []string{"fd00::4", "fd00::5"}, nil},
		{"the next prefix", templateOf(network(`"10.0.1.0/29", "10.0.2.0/29"`), nicIn("a", "v/s", ""), nicIn("b", "v/s", ""), nicIn("c", "v/s", ""), nicIn("d", "v/s", "")),
			[]string{"10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.2.4"}, nil},
		{"a full subnet", templateOf(network(`"10.0.1.0/29"`), nicIn("a", "v/s", ""), nicIn("b", "v/s", ""), nicIn("c", "v/s", ""), nicIn("d", "v/s", "")),
			[]string{"10.0.1.4", "10.0.1.5", "10.0.1.6", "invalid IP"}, []string{CodeSubnetFull}},
		{"no prefix of the family", templateOf(network(four), nicIn("a", "v/s", six)), []string{"invalid IP"}, []string{CodeAddressNotInSubnet}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("main.json", []byte(tt.document))
			var got []string
			for _, n := range d.Set.NetworkInterfaces {
				got = append(got, n.IPConfigurations[0].Address.String())
			}
			for _, b := range d.Set.LoadBalancers {
				got = append(got, b.Frontends[0].Address.String())
			}
			if !slices.Equal(got, tt.want) || !slices.Equal(codes(d.Faults), tt.faults) || len(d.Unresolved) > 0 {
				t.Errorf("got %v, want %v; faults %v, unresolved %v", got, tt.want, d.Faults, d.Unresolved)
			}
			told := slices.DeleteFunc(slices.Clone(d.Warnings), func(f ruleset.Fault) bool { return f.Code != CodeAddressNotAssigned })
			if tt.faults == nil && (len(told) != 1 || !strings.Contains(told[0].Message, " "+got[0]) && !strings.Contains(told[0].Message, " "+got[len(got)-1])) {
				t.Errorf("warnings %v", d.Warnings)
			}
		})
	}
	t.Run("what Azure shows goes before all", func(t *testing.T) {
		dir := policyOf(t, map[string]string{"p/main.json": templateOf(network(four), nicIn("a", "v/s", "")),
			"runtime.json": `{"a": {"properties": {"ipConfigurations": [{"name": "C", "properties": {"privateIPAddress": "10.0.1.77"}}]}}}`})
		reader := NewReader("", dir+"/p")
		reader.SetDeployment(Deployment{Runtime: dir + "/runtime.json"})
		d := reader.Read()
		if len(d.Warnings) > 0 || d.Set.NetworkInterfaces[0].IPConfigurations[0].Address.String() != "10.0.1.77" {
			t.Errorf("%+v, warnings %v", d.Set.NetworkInterfaces[0], d.Warnings)
		}
	})
}

// Values of --runtime for children inside their parents were ignored or a fault, and rules that Azure no longer shows held.
func TestRuntimeGoesBeforeWhatDocumentsSay(t *testing.T) {
	const ids = "/subscriptions/S/resourceGroups/hub/providers/Microsoft.Network/"
	web, ssh := ruleFrom("a", 100, "10.1.0.0/16"), ruleFrom("b", 200, "10.2.0.0/16")
	group := templateOf(groupOf("web", web, ssh))
	network := templateOf(groupOf("g", web), networkOf("", subnetOf("s", "10.0.1.0/24", "")))
	export := `[{"id": "` + ids + `networkSecurityGroups/web", "name": "web", "securityRules": [{` + web + `}, {` + ssh + `}]}]`
	const shown = `{"properties": {"sourceAddressPrefix": "10.9.0.0/16"}}`
	tests := []struct {
		name, document, runtime string
		want                    []string
		warnings                []string
	}{
		{"a rule inside its group", group, `{"web/a": ` + shown + `}`, []string{"web/a 10.9.0.0/16", "web/b 10.2.0.0/16"}, nil},
		{"a nested rule", templateOf(strings.Replace(groupOf("web", ssh), `"name"`, `"resources": [{"type": "securityRules", `+web+`}], "name"`, 1)), `{"web/a": ` + shown + `}`,
			[]string{"web/b 10.2.0.0/16", "web/a 10.9.0.0/16"}, nil},
		{"a child rule by its id", templateOf(groupOf("web", ssh), childRule(ruleFrom("web/a", 100, "*"))), `{"` + ids + `networkSecurityGroups/web/securityRules/a": ` + shown + `}`,
			[]string{"web/b 10.2.0.0/16", "web/a 10.9.0.0/16"}, nil},
		{"a rule inside its group by its id", export, `{"` + ids + `networkSecurityGroups/web/securityRules/a": ` + shown + `}`, []string{"web/a 10.9.0.0/16", "web/b 10.2.0.0/16"}, nil},
		{"a subnet inside its network", network, `{"v/s": {"properties": {"networkSecurityGroup": {"id": "g"}}}}`, []string{"g/a 10.1.0.0/16", "v/s [10.0.1.0/24] g"}, nil},
		{"a child in the list of its parent", templateOf(groupOf("web", ssh), childRule(ruleFrom("web/a", 100, "*"))),
			`{"web": {"properties": {"securityRules": [{` + ruleFrom("a", 100, "10.9.0.0/16") + `}, {` + ssh + `}]}}}`, []string{"web/b 10.2.0.0/16", "web/a 10.9.0.0/16"}, nil},
		{"a rule as PowerShell writes it", templateOf(groupOf("web", ruleFrom("a", 100, "*"))), `{"web": {"SecurityRules": [{"Name": "a", "SourceAddressPrefix": ["10.7.0.0/16", "10.8.0.0/16"]}]}}`,
			[]string{"web/a 10.7.0.0/1610.8.0.0/16"}, nil},
		{"a rule that is no more", group, `{"web": {"properties": {"securityRules": [{` + web + `}]}}}`, []string{"web/a 10.1.0.0/16"}, []string{CodeDeletedByUpdate}},
		{"a child that is no more", templateOf(groupOf("web", web), childRule(ruleFrom("web/b", 200, "*"))), `{"web": {"properties": {"securityRules": [{` + web + `}]}}}`,
			[]string{"web/a 10.1.0.0/16"}, []string{CodeDeletedByUpdate}},
		{"sources for one", templateOf(groupOf("web", ruleFrom("a", 100, "*"))), `{"web/a": {"properties": {"sourceAddressPrefixes": ["10.7.0.0/16"]}}}`, []string{"web/a 10.7.0.0/16"}, nil},
		{"a group that is given twice", templateOf(groupOf("web", web), deployment("d", "", groupOf("web", web))), `{"web": {"properties": {"securityRules": [{` + ruleFrom("a", 100, "10.9.0.0/16") + `}]}}}`,
			[]string{"web/a 10.9.0.0/16"}, nil},
		{"what fits nothing", group, `{"wep": {"properties": {}}, "text": 1}`, []string{"web/a 10.1.0.0/16", "web/b 10.2.0.0/16"}, []string{CodeRuntimeNotUsed, CodeRuntimeNotUsed}},
		{"what an expression asks for", strings.Replace(group, `"resources"`, `"outputs": {"o": {"type": "string", "value": "[reference('far').x]"}}, "resources"`, 1), `{"FAR": {"properties": {"x": "y"}}}`,
			[]string{"web/a 10.1.0.0/16", "web/b 10.2.0.0/16"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := policyOf(t, map[string]string{"p/main.json": tt.document, "runtime.json": tt.runtime})
			reader := NewReader("", dir+"/p")
			reader.SetDeployment(Deployment{Runtime: dir + "/runtime.json"})
			for range 2 { // the second reading may keep groups of the first
				d := reader.Read()
				if !slices.Equal(said(d), tt.want) || len(d.Faults)+len(d.Unresolved) > 0 || !slices.Equal(codes(d.Warnings), tt.warnings) {
					t.Errorf("read %q, faults %v, unresolved %v, warnings %v", said(d), d.Faults, d.Unresolved, d.Warnings)
				}
			}
		})
	}
}
