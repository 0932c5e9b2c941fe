package azure

import (
	"encoding/json"
	"net/netip"
	"slices"
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

func TestSecurityGroupViewOfRulesWithSeveralValues(t *testing.T) {
	nsg := &ruleset.NSG{ID: "/nsg", Rules: []ruleset.Rule{{
		Name: "web", Description: "d", Priority: 100, Access: ruleset.Allow, Protocol: ruleset.TCP,
		Source: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("198.51.100.7/32")}}, Destination: ruleset.Peer{ApplicationSecurityGroups: []string{"/asg"}},
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
	holds, err := json.Marshal(ViewEffective(ruleset.Inbound, nsg)[4]) // after the default rules
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

func TestSecurityGroupViewEchoesWhatWasWritten(t *testing.T) {
	nsg := &ruleset.NSG{ID: "/nsg", Rules: []ruleset.Rule{{
		Name: "web", Priority: 100, Access: ruleset.Allow, Protocol: ruleset.TCP, Source: ruleset.Peer{Tag: "Internet"}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}},
		Written: &ruleset.SecurityRule{Protocol: "TCP", Access: "allow", Direction: "inbound", Source: ruleset.Side{AddressPrefix: "INTERNET", PortRange: "*"},
			Destination: ruleset.Side{AddressPrefix: "*", PortRanges: []string{"80-80"}}},
	}}}
	p := ViewAssociation("/subnet", nsg).SecurityRules[0].Properties
	if p.Protocol != "TCP" || p.Access != "allow" || p.Direction != "inbound" || p.SourceAddressPrefix != "INTERNET" ||
		p.DestinationPortRange != "" || !slices.Equal(p.DestinationPortRanges, []string{"80-80"}) {
		t.Errorf("%+v", p)
	}
}
