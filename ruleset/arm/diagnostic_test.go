package arm

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/ruleset"
)

func TestTrafficOfAProfile(t *testing.T) {
	any := TrafficEnd{Any: true}
	prefix := func(text string) TrafficEnd { return TrafficEnd{Prefix: netip.MustParsePrefix(text)} }
	tests := []struct {
		name                                                      string
		direction, protocol, source, destination, destinationPort string
		want                                                      Traffic
		number                                                    uint8
	}{
		{"Azure's own example", "Inbound", "TCP", "10.1.0.4", "12.11.12.14", "12100",
			Traffic{Direction: ruleset.Inbound, Source: prefix("10.1.0.4/32"), Destination: prefix("12.11.12.14/32"), Port: 12100, protocol: "TCP"}, 6},
		{"enumerations in any case", "outBOUND", "udp", "10.1.0.0/16", "*", "*",
			Traffic{Direction: ruleset.Outbound, Source: prefix("10.1.0.0/16"), Destination: any, AnyPort: true, protocol: "udp"}, 17},
		{"everything", "Inbound", "*", "*", "any", "*",
			Traffic{Source: any, Destination: any, AnyProtocol: true, AnyPort: true, protocol: "*"}, 0},
		{"tags, the classic ones too", "Inbound", "Any", "AzureCloud.westeurope", "VIRTUAL_NETWORK", "0",
			Traffic{Source: TrafficEnd{Tag: "AzureCloud.westeurope"}, Destination: TrafficEnd{Tag: "VirtualNetwork"}, AnyProtocol: true, protocol: "Any"}, 0},
		{"a protocol without ports needs none", "Inbound", "ICMP", "*", "*", "",
			Traffic{Source: any, Destination: any, AnyPort: true, protocol: "ICMP"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := NetworkConfigurationDiagnosticProfile{Direction: tt.direction, Protocol: tt.protocol, Source: tt.source, Destination: tt.destination, DestinationPort: tt.destinationPort}
			got, err := p.Traffic()
			if err != nil {
				t.Fatal(err)
			}
			if *got != tt.want || got.Protocol(false) != tt.number {
				t.Errorf("got %+v with protocol %d", *got, got.Protocol(false))
			}
		})
	}
	t.Run("ICMP between IPv6 addresses is ICMPv6", func(t *testing.T) {
		if got := (&Traffic{protocol: "icmp"}).Protocol(true); got != 58 {
			t.Error(got)
		}
	})
}

func TestTargetsAreFoundByNameAndID(t *testing.T) {
	const network, compute = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/", "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/"
	set := &Set{}
	add := func(name, id, vm string) {
		set.NetworkInterfaces = append(set.NetworkInterfaces, &NetworkInterface{Name: name, ID: id, VirtualMachineID: vm})
	}
	add("a", network+"networkInterfaces/a", compute+"virtualMachines/one")
	add("b", network+"networkInterfaces/b", strings.ToUpper(compute)+"VIRTUALMACHINES/ONE")
	add("two", network+"networkInterfaces/two", compute+"virtualMachines/three")
	add("c", network+"networkInterfaces/c", compute+"virtualMachines/two")
	for _, tt := range []struct{ name, target, want string }{
		{"a NIC's name", "B", "b"},
		{"a NIC's id", strings.ToUpper(network) + "networkInterfaces/a", "a"},
		{"the end of a NIC's id, from the resource group on", "resourcegroups/R/providers/Microsoft.Network/networkInterfaces/a", "a"},
		{"a virtual machine's name", "one", "a b"},
		{"a virtual machine's id", compute + "virtualMachines/one", "a b"},
		{"a name of both is the NIC's", "two", "two"},
		{"a name of both, said to be the virtual machine's", "VirtualMachines/two", "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nics, err := set.Target(tt.target)
			var names []string
			for _, n := range nics {
				names = append(names, n.Name)
			}
			if got := strings.Join(names, " "); err != nil || got != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for _, tt := range []struct{ name, target, want string }{
		{"an unknown name", "x", `network interface "x" not found: the policy has a, b, two, c`},
		{"an unknown virtual machine", "virtualMachines/x", `virtual machine "x" not found: the policy has one, three, two`},
		{"an end that begins within a name", "nterfaces/a", "not found"},
		{"another resource group", "resourceGroups/other/providers/Microsoft.Network/networkInterfaces/a", "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if nics, err := set.Target(tt.target); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v", nics, err)
			}
		})
	}
	t.Run("of many, what is near is named", func(t *testing.T) {
		for i := range 20 {
			add(fmt.Sprintf("other-machine%d-nic", i), "", "")
		}
		_, err := set.NetworkInterface("other-machin17-nic")
		if err == nil || !strings.Contains(err.Error(), "and 14 more; near are other-machine17-nic, ") {
			t.Error(err)
		}
	})
}

func TestSecurityGroupViewOfRulesWithSeveralValues(t *testing.T) {
	nsg := &ruleset.NSG{ID: "/nsg", Rules: []ruleset.Rule{{
		Name: "web", Description: "d", Priority: 100, Access: ruleset.Allow, Protocol: ruleset.TCP,
		Source: ruleset.Peer{Prefixes: networks("192.0.2.0/25", "198.51.100.7/32")}, Destination: ruleset.Peer{ApplicationSecurityGroups: []string{"/asg"}},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8080}},
	}}}
	written, err := json.Marshal(ViewAssociation("/subnet", nsg))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"/subnet","securityRules":[{"name":"web","id":"/nsg/securityRules/web","type":"Microsoft.Network/networkSecurityGroups/securityRules","properties":{` +
		`"provisioningState":"Succeeded","description":"d","protocol":"Tcp","sourcePortRange":"*","access":"Allow","priority":100,"direction":"Inbound",` +
		`"sourcePortRanges":[],"destinationPortRanges":["80","8000-8080"],"sourceAddressPrefixes":["192.0.2.0/25","198.51.100.7/32"],"destinationAddressPrefixes":[],` +
		`"destinationApplicationSecurityGroups":[{"id":"/asg"}]}}]}`
	if diff := cmp.Diff(want, string(written)); diff != "" {
		t.Error(diff)
	}
	holds, err := json.Marshal(ViewEffective(ruleset.Inbound, nsg)[1])
	if err != nil {
		t.Fatal(err)
	}
	want = `{"name":"UserRule_web","protocol":"Tcp","sourcePortRange":"0-65535","sourcePortRanges":["0-65535"],"destinationPortRanges":["80-80","8000-8080"],` +
		`"sourceAddressPrefixes":["192.0.2.0/25","198.51.100.7/32"],"destinationAddressPrefixes":[],"destinationApplicationSecurityGroups":[{"id":"/asg"}],` +
		`"access":"Allow","priority":100,"direction":"Inbound"}`
	if diff := cmp.Diff(want, string(holds)); diff != "" {
		t.Error(diff)
	}
}

func TestPagesOfTheDiscoveryAnswerReadAsOneFile(t *testing.T) {
	page := func(number, next, tag string) string {
		return fmt.Sprintf(`{"changeNumber": %s, "cloud": "Public", "nextLink": %s, "values": [{"name": %q, "properties": {"changeNumber": %s, "networkFeatures": null, "addressPrefixes": ["192.0.2.0/24"]}}]}`,
			number, next, tag, number)
	}
	tags, faults := ParseServiceTags("tags.json", []byte("["+page(`"7"`, `"https://next"`, "Sql")+","+page(`"7"`, "null", "Sql.West")+"]"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if all := tags.All(); tags.ChangeNumber != "7" || tags.Cloud != "Public" || len(all) != 2 || all[1].Name != "Sql.West" || all[1].ChangeNumber != "7" || all[1].IPv4 != 1 {
		t.Errorf("%+v: %+v", tags, all)
	}
	for _, tt := range []struct{ name, document, want string }{
		{"the last page is missing", "[" + page("7", "null", "Sql") + "," + page("7", `"https://next"`, "A") + "]", `[1].nextLink "https://next"`},
		{"pages of two editions", "[" + page("7", `"https://next"`, "Sql") + "," + page("8", "null", "A") + "]", `[1].changeNumber "8"`},
		{"a tag on two pages", "[" + page("7", "null", "Sql") + "," + page("7", "null", "SQL") + "]", `[1].values[0].name "SQL"`},
		{"a page that is none", "[" + page("7", "null", "Sql") + ", 7]", `[1] "7"`},
		{"no page", "[]", "must be an object"},
		{"a tag's change number that is none", `{"values": [{"name": "A", "properties": {"changeNumber": "x"}}]}`, `properties.changeNumber "x"`},
		{"a region that is none", `{"values": [{"name": "A", "properties": {"region": 7}}]}`, `properties.region "7"`},
		{"features that are no list", `{"values": [{"name": "A", "properties": {"networkFeatures": "NSG"}}]}`, `properties.networkFeatures "NSG"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tags, faults := ParseServiceTags("tags.json", []byte(tt.document)); tags != nil || !strings.Contains(faults.Error(), tt.want) {
				t.Errorf("got %v, %v", tags, faults)
			}
		})
	}
}
