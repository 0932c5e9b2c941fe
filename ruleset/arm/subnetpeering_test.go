package arm

import (
	"fmt"
	"strings"
	"testing"
)

// subnetPeering is two networks that peer single subnets. SPACE is more of the first one's
// address space.
const subnetPeering = `[
 {"type": "Microsoft.Network/virtualNetworks", "name": "a", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"SPACE]},
  "subnets": [{"name": "a1", "properties": {"addressPrefix": "10.1.1.0/24"}}, {"name": "a2", "properties": {"addressPrefix": "10.1.2.0/24"}}],
  "virtualNetworkPeerings": [{"name": "ab", "properties": {"remoteVirtualNetwork": {"id": "b"}, "peerCompleteVnets": false, "localSubnetNames": ["a1"], "remoteSubnetNames": ["b1"]}}]}},
 {"type": "Microsoft.Network/virtualNetworks", "name": "b", "properties": {"addressSpace": {"addressPrefixes": ["10.2.0.0/16", "10.9.0.0/16"]},
  "subnets": [{"name": "b1", "properties": {"addressPrefixes": ["10.2.1.0/24"]}}, {"name": "b2", "properties": {"addressPrefix": "10.9.2.0/24"}}],
  "virtualNetworkPeerings": [{"name": "ba", "properties": {"remoteVirtualNetwork": {"id": "a"}, "peerCompleteVnets": false, "localSubnetNames": ["b1"], "remoteSubnetNames": ["a1"]}}]}}]`

func TestPeeringsOfSubnets(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"what both sides name is peered", "", "", "ab [10.2.1.0/24] a1; ba [10.1.1.0/24] b1; "},
		{"a part of the address space that both have", "SPACE", `, "10.9.0.0/16"`, "ab [10.2.1.0/24] a1; ba [10.1.1.0/24] b1; "},
		{"the whole on one side", `"peerCompleteVnets": false, "localSubnetNames": ["b1"], "remoteSubnetNames": ["a1"]`, `"peerCompleteVnets": true`, "ab [10.2.1.0/24] a1; ba [10.1.1.0/24] b1; VirtualNetworkPeeringOfOtherSubnets a2"},
		{"another subnet on the other side", `"localSubnetNames": ["b1"], "remoteSubnetNames": ["a1"]`, `"localSubnetNames": ["b1", "b2"], "remoteSubnetNames": ["a2"]`, "ab [10.2.1.0/24] ; ba [] b1; VirtualNetworkPeeringOfOtherSubnets a2"},
		{"IPv6 alone", `"peerCompleteVnets": false, "localSubnetNames": ["a1"], "remoteSubnetNames": ["b1"]`, `"peerCompleteVnets": false, "enableOnlyIPv6Peering": true, "localSubnetNames": ["a1"], "remoteSubnetNames": ["b1"]`, "ab [] a1; ba [10.1.1.0/24] b1; "},
		{"a subnet that there is not", `"localSubnetNames": ["a1"]`, `"localSubnetNames": ["a3"]`, "InvalidResourceReference localSubnetNames"},
		{"a remote subnet that there is not", `"remoteSubnetNames": ["b1"]`, `"remoteSubnetNames": ["b1", "b3"]`, "InvalidResourceReference remoteSubnetNames"},
		{"no names", `"localSubnetNames": ["a1"], `, "", "InvalidRequestFormat localSubnetNames"},
		{"too many", `"localSubnetNames": ["a1"]`, `"localSubnetNames": [` + strings.Repeat(`"a1", `, 199) + `"a1"]`, "VirtualNetworkPeeringInvalidNumberOfSubnets remoteSubnetNames"},
		{"subnets in a part of the address space that both have", "SPACE", `, "10.2.0.0/16"`, "VnetAddressSpacesOverlap localSubnetNames"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(subnetPeering, tt.from, tt.to, 1)
			d := Parse("test.json", []byte(strings.Replace(text, "SPACE", "", 1)))
			got := ""
			if len(d.Faults) > 0 {
				got = d.Faults[0].Code + " " + d.Faults[0].Field
			} else {
				for _, v := range d.Set.VirtualNetworks {
					for i := range v.Peerings {
						var names []string
						for _, s := range v.Peerings[i].LocalSubnets {
							names = append(names, s.Name)
						}
						got += fmt.Sprintf("%s %v %s; ", v.Peerings[i].Name, v.Peerings[i].Space(), strings.Join(names, " "))
					}
				}
				for _, w := range d.Warnings {
					if !strings.Contains(got, w.Code) {
						got += w.Code + " " + w.Value
					}
				}
			}
			if !strings.HasPrefix(got, tt.want) || len(d.Unresolved) > 0 {
				t.Errorf("got %q, want %q: %v", got, tt.want, d.Unresolved)
			}
		})
	}
}
