package azure

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// question is a request without a fault in which old is replaced by new.
func question(replace ...string) string {
	return strings.NewReplacer(replace...).Replace(`{"targetNicResourceId":"nic1","direction":"Inbound","protocol":"TCP",` +
		`"localPort":"80","remotePort":"60000","localIPAddress":"10.0.0.4","remoteIPAddress":"1.2.3.4"}`)
}

func TestParseFlow(t *testing.T) {
	addr := netip.MustParseAddr
	base := Flow{Direction: ruleset.Inbound, Protocol: 6, Local: addr("10.0.0.4"), Remote: addr("1.2.3.4"), LocalPort: 80, RemotePort: 60000, NetworkInterface: "nic1"}
	with := func(edit func(f *Flow)) Flow {
		f := base
		edit(&f)
		return f
	}
	tests := []struct {
		name, line string
		want       Flow
	}{
		{"Azure's own request", question(), base},
		{"enumerations in any case", question("Inbound", "outBOUND", "TCP", "udp"), with(func(f *Flow) { f.Direction, f.Protocol = ruleset.Outbound, 17 })},
		{"a NIC as the target resource", question("targetNicResourceId", "targetResourceId", "nic1", "/subscriptions/S/resourceGroups/rg/providers/Microsoft.Network/"+"networkInterfaces/nic1"),
			with(func(f *Flow) {
				f.NetworkInterface = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.Network/" + "networkInterfaces/nic1"
			})},
		{"a name as the target resource", question("targetNicResourceId", "targetResourceId"), base},
		{"a virtual machine beside its NIC", question(`{"t`, `{"targetResourceId":"/providers/Microsoft.Compute/virtualMachines/vm","t`),
			with(func(f *Flow) { f.VirtualMachine = "/providers/Microsoft.Compute/virtualMachines/vm" })},
		{"a virtual machine without a NIC", question("targetNicResourceId", "targetResourceId", "nic1", "/providers/Microsoft.Compute/virtualMachines/vm"),
			with(func(f *Flow) { f.NetworkInterface = "/providers/Microsoft.Compute/virtualMachines/vm" })},
		{"any source port inbound", question("60000", "*"), with(func(f *Flow) { f.RemotePort = 0 })},
		{"any source port outbound", question("Inbound", "Outbound", `"80"`, `"*"`), with(func(f *Flow) { f.Direction, f.LocalPort = ruleset.Outbound, 0 })},
		{"ICMP ignores ports", question("TCP", "Icmp", "60000", "*"), with(func(f *Flow) { f.Protocol, f.LocalPort, f.RemotePort = 1, 0, 0 })},
		{"ICMP needs no ports", question("TCP", "ICMP", `"localPort":"80","remotePort":"60000",`, ""), with(func(f *Flow) { f.Protocol, f.LocalPort, f.RemotePort = 1, 0, 0 })},
		{"ICMP between IPv6 addresses is ICMPv6", question("TCP", "ICMP", "10.0.0.4", "fd00::4", "1.2.3.4", "2001:db8::1"),
			with(func(f *Flow) {
				f.Protocol, f.LocalPort, f.RemotePort, f.Local, f.Remote = 58, 0, 0, addr("fd00::4"), addr("2001:db8::1")
			})},
		{"ESP", question("TCP", "Esp"), with(func(f *Flow) { f.Protocol, f.LocalPort, f.RemotePort = 50, 0, 0 })},
		{"AH", question("TCP", "AH"), with(func(f *Flow) { f.Protocol, f.LocalPort, f.RemotePort = 51, 0, 0 })},
		{"a number", question("TCP", "47"), with(func(f *Flow) { f.Protocol, f.LocalPort, f.RemotePort = 47, 0, 0 })},
		{"a number of a protocol with ports", question("TCP", "17"), with(func(f *Flow) { f.Protocol = 17 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFlow([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
		})
	}
}

func TestParseFlowRefuses(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"an unknown key", question("direction", "directoin"), `unknown key "directoin"`},
		{"a direction that is none", question("Inbound", "Both"), `direction "Both": allowed are Inbound and Outbound`},
		{"a protocol that is none", question("TCP", "Any"), `protocol "Any": allowed are`},
		{"a protocol number beyond a byte", question("TCP", "256"), `protocol "256"`},
		{"a port as a number", question(`"80"`, "80"), "localPort: a number: allowed is a string"},
		{"a port beyond 65535", question("60000", "65536"), `remotePort "65536": allowed are 0 to 65535 and *`},
		{"a range of ports", question(`"80"`, `"80-90"`), `localPort "80-90": allowed are 0 to 65535`},
		{"any destination port", question(`"80"`, `"*"`), `localPort "*": allowed are 0 to 65535`},
		{"TCP without a port", question(`"localPort":"80",`, ""), `localPort "": allowed are 0 to 65535`},
		{"a bad port of a protocol without ports", question("TCP", "ICMP", "60000", "x"), `remotePort "x"`},
		{"an address that is none", question("10.0.0.4", "10.0.0"), `localIPAddress "10.0.0"`},
		{"a prefix in place of an address", question("1.2.3.4", "1.2.3.0/24"), `remoteIPAddress "1.2.3.0/24"`},
		{"two address families", question("1.2.3.4", "::1"), "not of the same address family"},
		{"a target that is neither", question("targetNicResourceId", "targetResourceId", "nic1", "/providers/Microsoft.Compute/virtualMachineScaleSets/s"), "allowed are a virtual machine and a network interface"},
		{"two objects", question() + question(), "more than one JSON value"},
		{"no object", `[]`, "a request is a JSON object, not of type array"},
		{"no JSON", `TCP 10.0.0.4:80`, "not a JSON object"},
		{"nothing", ``, "not a JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFlow([]byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v; want an error with %q", f, err, tt.want)
			}
		})
	}
}

func TestVerificationResultHasTheDocumentedForm(t *testing.T) {
	const want = `{"access":"Deny","ruleName":"defaultSecurityRules/DenyAllInBound","ruleId":"","networkSecurityGroup":"NSG1","reason":"rule",` +
		`"stages":[{"networkSecurityGroup":"NSG1","association":"subnet","direction":"Inbound","ruleName":"defaultSecurityRules/DenyAllInBound","access":"Deny","priority":65500}]}`
	got, err := json.Marshal(VerificationIPFlowResult{
		Access: "Deny", RuleName: "defaultSecurityRules/DenyAllInBound", NetworkSecurityGroup: "NSG1", Reason: "rule",
		Stages: []VerificationStage{{"NSG1", "subnet", "Inbound", "defaultSecurityRules/DenyAllInBound", "Deny", 65500}},
	})
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func BenchmarkParseFlow(b *testing.B) {
	line := []byte(question())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFlow(line); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParseFlow holds that no request makes the parser panic and that what it
// accepts is complete.
func FuzzParseFlow(f *testing.F) {
	f.Add([]byte(question()))
	f.Add([]byte(question("Inbound", "outbound", "TCP", "58", "10.0.0.4", "fd00::4", "1.2.3.4", "::")))
	f.Add([]byte(question("nic1", ""))) // the local address says which NIC it is
	f.Fuzz(func(t *testing.T, line []byte) {
		flow, err := ParseFlow(line)
		if err != nil {
			return
		}
		if !flow.Local.IsValid() || flow.Local.Is4() != flow.Remote.Is4() {
			t.Fatalf("accepted %+v", flow)
		}
	})
}
