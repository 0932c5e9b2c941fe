package arm

import (
	"fmt"
	"strings"
	"testing"
)

func TestBlocksOfAddresses(t *testing.T) {
	const document = `[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16", "fd00::/48"]},
  "subnets": [{"name": "s", "properties": {"addressPrefixes": ["10.0.0.0/26", "fd00::/64"]}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "before", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.20", "subnet": {"id": "v/s"}}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "n", "properties": {"ipConfigurations": [{"name": "one", "properties": {"primary": true, "privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}},
  {"name": "block", "properties": {BLOCK, "subnet": {"id": "v/s"}}}]}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "after", "properties": {"ipConfigurations": [{"name": "c", "properties": {"subnet": {"id": "v/s"}}}]}}]`
	for _, tt := range []struct{ name, block, want string }{
		{"of an address and a length", `"privateIPAddress": "10.0.0.32", "privateIPAddressPrefixLength": 28`, "10.0.0.32-10.0.0.47, then 10.0.0.5"},
		{"as a CIDR", `"privateIPAddress": "10.0.0.32/28"`, "10.0.0.32-10.0.0.47, then 10.0.0.5"},
		{"of one address", `"privateIPAddress": "10.0.0.32", "privateIPAddressPrefixLength": 32`, "10.0.0.32-10.0.0.32, then 10.0.0.5"},
		{"that Azure chooses", `"privateIPAllocationMethod": "Dynamic", "privateIPAddressPrefixLength": 28`, "10.0.0.32-10.0.0.47, then 10.0.0.5"},
		{"a smaller one", `"privateIPAllocationMethod": "Dynamic", "privateIPAddressPrefixLength": 30`, "10.0.0.8-10.0.0.11, then 10.0.0.5"},
		{"that begins elsewhere", `"privateIPAddress": "10.0.0.33/28"`, "InvalidIpAddress privateIPAddress 10.0.0.33/28"},
		{"too wide", `"privateIPAddress": "10.0.0.0/24"`, "InvalidIpAddress privateIPAddress 10.0.0.0/24"},
		{"no length", `"privateIPAddress": "10.0.0.32", "privateIPAddressPrefixLength": "x"`, "InvalidIpAddress privateIPAddressPrefixLength x"},
		{"outside the subnet", `"privateIPAddress": "10.0.0.64/28"`, "PrivateIPAddressNotInSubnet privateIPAddress 10.0.0.64"},
		{"over another's address", `"privateIPAddress": "10.0.0.16/28"`, "PrivateIPAddressIsAllocated privateIPAddress 10.0.0.20"},
		{"of IPv6", `"privateIPAddress": "fd00::1:0:0:0/80"`, "PrivateIPAddressPrefixNotRead privateIPAddressPrefixLength 80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(strings.Replace(document, "BLOCK", tt.block, 1)))
			got := ""
			if told := append(d.Faults, d.Unresolved...); len(told) > 0 {
				got = fmt.Sprint(told[0].Code, " ", told[0].Field, " ", told[0].Value)
			} else {
				c := d.Set.NetworkInterfaces[1].IPConfigurations
				got = fmt.Sprintf("%s-%s, then %s", c[1].Address, c[len(c)-1].Address, d.Set.NetworkInterfaces[2].IPConfigurations[0].Address)
				if last := c[len(c)-1]; last.Name != "block" || last.Primary || !c[0].Primary {
					t.Errorf("%+v", last)
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
