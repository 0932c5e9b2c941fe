package arm

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

const azureIDs = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.Network/"

// world is a policy that uses every reference, as az shows it.
var world = `[
  {"id": "` + azureIDs + `applicationSecurityGroups/web", "name": "web", "type": "Microsoft.Network/applicationSecurityGroups"},
  {"id": "` + azureIDs + `applicationSecurityGroups/db", "name": "db", "type": "Microsoft.Network/applicationSecurityGroups"},
  {"id": "` + azureIDs + `networkSecurityGroups/nsg1", "name": "nsg1", "securityRules": [
    {"name": "sql", "protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 100, "sourcePortRange": "*", "destinationPortRange": "1433",
     "sourceApplicationSecurityGroups": [{"id": "` + azureIDs + `applicationSecurityGroups/WEB"}],
     "destinationApplicationSecurityGroups": [{"id": "db"}]}]},
  {"id": "` + azureIDs + `virtualNetworks/vnet1", "name": "vnet1", "addressSpace": {"addressPrefixes": ["10.0.0.0/16", "fd00:1::/48"]},
   "flowTimeoutInMinutes": 10,
   "subnets": [
     {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/a", "name": "a", "addressPrefix": "10.0.1.0/24", "addressPrefixes": ["10.0.1.0/24", "fd00:1::/64"],
      "networkSecurityGroup": {"id": "` + strings.ToUpper(azureIDs) + `NETWORKSECURITYGROUPS/NSG1"}},
     {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/b", "name": "b", "addressPrefix": "10.0.2.0/24", "networkSecurityGroup": null}],
   "virtualNetworkPeerings": [{"name": "to-vnet2", "remoteVirtualNetwork": {"id": "` + azureIDs + `virtualNetworks/vnet2"}, "allowVirtualNetworkAccess": false,
     "allowForwardedTraffic": true, "useRemoteGateways": true, "peeringState": "connected", "remoteVirtualNetworkAddressSpace": {"addressPrefixes": []},
     "remoteAddressSpace": {"addressPrefixes": ["172.16.0.0/16"]}}]},
  {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/c", "name": "c", "type": "Microsoft.Network/virtualNetworks/subnets", "addressPrefix": "10.0.3.0/24"},
  {"id": "` + azureIDs + `networkInterfaces/nic1", "name": "nic1", "enableIPForwarding": true, "macAddress": "00-0D-3A-92-6A-7C",
   "networkSecurityGroup": {"id": "` + azureIDs + `networkSecurityGroups/nsg1"},
   "ipConfigurations": [
     {"name": "v4", "primary": true, "privateIPAddress": "10.0.1.4", "privateIPAddressVersion": "IPv4", "subnet": {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/a"},
      "applicationSecurityGroups": [{"id": "` + azureIDs + `APPLICATIONSECURITYGROUPS/web"}]},
     {"name": "v6", "primary": false, "privateIPAddress": "fd00:1::4", "privateIPAddressVersion": "IPv6", "subnet": {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/a"}}]},
  {"id": "` + azureIDs + `networkInterfaces/nic2", "name": "nic2", "ipConfigurations": [
     {"name": "v4", "privateIPAddress": "10.0.3.4", "subnet": {"id": "` + azureIDs + `virtualNetworks/vnet1/subnets/c"}, "applicationSecurityGroups": [{"id": "db"}]}]}
]`

func TestReferencesAreResolved(t *testing.T) {
	set := parse(t, world)
	v, nsg, nic1, nic2 := set.VirtualNetworks[0], set.NetworkSecurityGroups[0], set.NetworkInterfaces[0], set.NetworkInterfaces[1]
	pfx, web, db := netip.MustParsePrefix, azureIDs+"applicationSecurityGroups/web", azureIDs+"applicationSecurityGroups/db"
	if v.FlowTimeout != 10*time.Minute || !slices.Equal(v.AddressSpace, []netip.Prefix{pfx("10.0.0.0/16"), pfx("fd00:1::/48")}) {
		t.Errorf("network %+v", v)
	}
	want := []policy.Peering{{Name: "to-vnet2", RemoteVirtualNetworkID: azureIDs + "virtualNetworks/vnet2", State: policy.PeeringConnected,
		AllowForwardedTraffic: true, UseRemoteGateways: true, RemoteAddressSpace: []netip.Prefix{pfx("172.16.0.0/16")}}}
	if !reflect.DeepEqual(v.Peerings, want) {
		t.Errorf("peerings %+v, want %+v", v.Peerings, want)
	}
	if len(v.Subnets) != 3 {
		t.Fatalf("%d subnets, want a, b and the child c", len(v.Subnets))
	}
	a, b, c := v.Subnets[0], v.Subnets[1], v.Subnets[2]
	if a.NetworkSecurityGroup != nsg || b.NetworkSecurityGroup != nil || c.Name != "c" || c.VirtualNetwork != v {
		t.Errorf("subnets %+v, %+v, %+v", a, b, c)
	}
	if !slices.Equal(a.Prefixes, []netip.Prefix{pfx("10.0.1.0/24"), pfx("fd00:1::/64")}) {
		t.Errorf("a prefix that is in both fields counts once: %v", a.Prefixes)
	}
	if nic1.NetworkSecurityGroup != nsg || !nic1.EnableIPForwarding || nic1.MACAddress != "00-0D-3A-92-6A-7C" || len(nic1.IPConfigurations) != 2 {
		t.Fatalf("nic1 %+v", nic1)
	}
	v4, v6 := nic1.IPConfigurations[0], nic1.IPConfigurations[1]
	if v4.Subnet != a || v4.Address != netip.MustParseAddr("10.0.1.4") || !v4.Primary || v6.Primary || v6.Address != netip.MustParseAddr("fd00:1::4") {
		t.Errorf("configurations %+v, %+v", v4, v6)
	}
	if nic2.NetworkSecurityGroup != nil || !nic2.IPConfigurations[0].Primary || nic2.IPConfigurations[0].Subnet != c {
		t.Errorf("nic2 %+v", nic2)
	}
	if !slices.Equal(v4.ApplicationSecurityGroups, []string{web}) || !slices.Equal(nic2.IPConfigurations[0].ApplicationSecurityGroups, []string{db}) {
		t.Errorf("members %v, %v: want the groups' own ids", v4.ApplicationSecurityGroups, nic2.IPConfigurations[0].ApplicationSecurityGroups)
	}
	if r := nsg.Rules[0]; !slices.Equal(r.Source.ApplicationSecurityGroups, []string{web}) || !slices.Equal(r.Destination.ApplicationSecurityGroups, []string{db}) {
		t.Errorf("rule %+v: want the groups' own ids", r)
	}
}

// small is a document of one network with subnet "s", and of the resources of more.
func small(more ...string) string {
	network := `{"type": "Microsoft.Network/virtualNetworks", "name": "v", "addressSpace": {"addressPrefixes": ["10.0.0.0/8"]},
		"subnets": [{"name": "s", "addressPrefix": "10.0.0.0/16"}]}`
	return "[" + strings.Join(append([]string{network}, more...), ",") + "]"
}

func nic(name string, configurations ...string) string {
	return fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": %q, "ipConfigurations": [%s]}`, name, strings.Join(configurations, ","))
}

func configuration(address, subnet, asgs string) string {
	return fmt.Sprintf(`{"name": "c", "privateIPAddress": %q, "subnet": {"id": %q}, "applicationSecurityGroups": [%s]}`, address, subnet, asgs)
}

func other(name string) string {
	return fmt.Sprintf(`{"type": "Microsoft.Network/virtualNetworks", "name": %q, "addressSpace": {"addressPrefixes": ["10.0.0.0/8"]},
		"subnets": [{"name": "s", "addressPrefix": "10.0.0.0/16"}]}`, name)
}

func asg(name string) string {
	return fmt.Sprintf(`{"type": "Microsoft.Network/applicationSecurityGroups", "name": %q}`, name)
}

func TestHowAReferenceNamesAResource(t *testing.T) {
	full := strings.Replace(azureIDs, "/S/", "/T/", 1) + "virtualNetworks/v/subnets/s"
	tests := []struct {
		name, document string
		want           string // the fault's message; empty: none
	}{
		{"a name", small(nic("n", configuration("10.0.0.4", "s", ""))), ""},
		{"network and name", small(nic("n", configuration("10.0.0.4", "V/S", ""))), ""},
		{"the end of an id", small(nic("n", configuration("10.0.0.4", "virtualNetworks/v/subnets/s", ""))), ""},
		{"a complete id, of a resource without one", small(nic("n", configuration("10.0.0.4", full, ""))), ""},
		{"a complete id is not met by another one's last segments",
			strings.Replace(small(nic("n", configuration("10.0.0.4", full, ""))), `"name": "v"`, `"name": "v", "id": "`+azureIDs+`virtualNetworks/v"`, 1),
			"no document has this resource; " + azureIDs + "virtualNetworks/v/subnets/s has its name and is in another subscription or resource group; if it exists elsewhere"},
		{"an id of another kind", small(nic("n", configuration("10.0.0.4", azureIDs+"networkSecurityGroups/s", ""))), "no document has this resource; there is only v/s"},
		{"a name that fits two resources", small(other("w"), nic("n", configuration("10.0.0.4", "s", ""))),
			"the name fits several resources: /subscriptions//resourceGroups//providers/Microsoft.Network/virtualNetworks/v/subnets/s, /subscriptions//resourceGroups//providers/Microsoft.Network/virtualNetworks/w/subnets/s"},
		{"network and name tell two of a name apart", small(other("w"), nic("n", configuration("10.0.0.4", "w/s", ""))), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(tt.document))
			switch {
			case tt.want == "" && len(d.Faults) > 0:
				t.Errorf("faults %v", d.Faults)
			case tt.want == "" && len(d.Set.NetworkInterfaces) != 1:
				t.Errorf("%d network interfaces", len(d.Set.NetworkInterfaces))
			case tt.want != "" && (len(d.Faults)+len(d.Unresolved) != 1 || !strings.HasPrefix(slices.Concat(d.Faults, d.Unresolved)[0].Message, tt.want)):
				t.Errorf("got %v and %v, want %q", d.Faults, d.Unresolved, tt.want)
			}
		})
	}
}

func TestFaultsOfATopology(t *testing.T) {
	many := func(n int, f func(i int) string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = f(i)
		}
		return strings.Join(list, ",")
	}
	reference := func(i int) string { return fmt.Sprintf(`{"id": "g%d"}`, i) }
	rule := func(source string) string {
		return `{"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "securityRules": [{"name": "r", "protocol": "*", "access": "Allow", "direction": "Inbound",
			"priority": 100, "sourcePortRange": "*", "destinationPortRange": "*", "destinationAddressPrefix": "*", "sourceApplicationSecurityGroups": [` + source + `]}]}`
	}
	tests := []struct {
		name, document string
		want           []string // codes
	}{
		{"the same address in two networks is none", small(other("w"), nic("a", configuration("10.0.0.4", "v/s", "")), nic("b", configuration("10.0.0.4", "w/s", ""))), nil},
		{"a network interface in two networks", small(other("w"), nic("a", configuration("10.0.0.4", "v/s", ""), configuration("10.0.0.5", "w/s", ""))),
			[]string{"NetworkInterfaceInvalidVirtualNetwork"}},
		{"257 addresses on a network interface", small(nic("a", many(257, func(i int) string { return configuration(fmt.Sprintf("10.0.%d.%d", 1+i/250, i%250), "s", "") }))),
			[]string{"NetworkInterfaceInvalidNumberOfIpConfigurations"}},
		{"21 application security groups of an address", small(many(21, func(i int) string { return asg(fmt.Sprintf("g%d", i)) }), nic("a", configuration("10.0.0.4", "s", many(21, reference)))),
			[]string{"IpConfigurationInvalidNumberOfSecurityGroups"}},
		{"an application security group in two networks", small(other("w"), asg("g0"), nic("a", configuration("10.0.0.4", "v/s", reference(0))), nic("b", configuration("10.0.0.4", "w/s", reference(0)))),
			[]string{"ApplicationSecurityGroupMembersMustBeFromSameVnet"}},
		{"a rule whose groups are in two networks", small(other("w"), asg("g0"), asg("g1"), rule(many(2, reference)),
			nic("a", configuration("10.0.0.4", "v/s", reference(0))), nic("b", configuration("10.0.0.4", "w/s", reference(1)))),
			[]string{"AllApplicationSecurityGroupsInSecurityRuleMustBeFromSameVnet"}},
		{"a rule that names a missing group", small(rule(reference(7))), []string{"InvalidResourceReference"}},
		{"3,001 subnets", strings.Replace(small(), `{"name": "s", "addressPrefix": "10.0.0.0/16"}`,
			many(3001, func(i int) string {
				return fmt.Sprintf(`{"name": "s%d", "addressPrefix": "10.%d.%d.0/24"}`, i, i/250, i%250)
			}), 1), []string{"VirtualNetworkInvalidNumberOfSubnets"}},
		{"501 peerings", strings.Replace(small(), `"subnets"`, `"virtualNetworkPeerings": [`+many(501, func(i int) string {
			return fmt.Sprintf(`{"name": "p%d", "remoteVirtualNetwork": {"id": "v%d"}, "remoteAddressSpace": {"addressPrefixes": ["172.16.%d.%d/32"]}}`, i, i, i/250, i%250)
		})+`], "subnets"`, 1), []string{"VirtualNetworkInvalidNumberOfPeerings"}},
		{"5,001 network security groups in a region, whatever its spelling", "[" + many(5001, func(i int) string {
			return fmt.Sprintf(`{"type": "Microsoft.Network/networkSecurityGroups", "name": "n%d", "location": %q}`, i, []string{"westeurope", "West Europe"}[i%2])
		}) + "]", []string{"SubscriptionInvalidNumberOfNetworkSecurityGroups"}},
		{"5,001 in two regions", "[" + many(5001, func(i int) string {
			return fmt.Sprintf(`{"type": "Microsoft.Network/networkSecurityGroups", "name": "n%d", "location": "r%d"}`, i, i%2)
		}) + "]", nil},
		{"5,001 in two subscriptions", "[" + many(5001, func(i int) string {
			return fmt.Sprintf(`{"id": "/subscriptions/s%d/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/n%d", "location": "r"}`, i%2, i)
		}) + "]", nil},
		{"3,001 application security groups in a region", "[" + many(3001, func(i int) string { return asg(fmt.Sprintf("g%d", i)) }) + "]",
			[]string{"SubscriptionInvalidNumberOfApplicationSecurityGroups"}},
		{"a subnet of a missing network", small(`{"type": "Microsoft.Network/virtualNetworks/subnets", "name": "w/s", "properties": {"addressPrefix": "10.0.0.0/24"}}`),
			[]string{"ParentResourceNotFound"}},
		{"a flow timeout of 31 minutes", strings.Replace(small(), `"subnets"`, `"flowTimeoutInMinutes": 31, "subnets"`, 1), []string{"VirtualNetworkInvalidFlowTimeout"}},
		{"two subnets of one prefix", strings.Replace(small(), `"subnets": [`, `"subnets": [{"name": "t", "addressPrefix": "10.0.0.0/16"},`, 1), []string{"NetcfgSubnetRangesOverlap"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(tt.document))
			var codes []string
			for _, f := range d.Faults {
				codes = append(codes, f.Code)
				if f.Code == "AllApplicationSecurityGroupsInSecurityRuleMustBeFromSameVnet" && (f.Rule != "r" || f.Field != "sourceApplicationSecurityGroups" || !strings.HasSuffix(f.Value, "/g1")) {
					t.Errorf("the fault does not say which group: %+v", f)
				}
				if f.File != "f.json" || f.Resource == "" || f.Message == "" {
					t.Errorf("the fault does not say where it is: %+v", f)
				}
			}
			if !slices.Equal(codes, tt.want) {
				t.Errorf("got %v, want %v", d.Faults, tt.want)
			}
		})
	}
}

func TestAReferenceToWhatIsLeftOpenIsLeftOpenToo(t *testing.T) {
	d := Parse("azuredeploy.json", []byte(strings.Replace(small(nic("n", configuration("10.0.0.4", "v/s", ""))), `["10.0.0.0/8"]`, `"[variables('space')]"`, 1)))
	if len(d.Faults) > 0 || len(d.Set.NetworkInterfaces) > 0 || len(d.Set.VirtualNetworks) > 0 {
		t.Errorf("faults %v, set %+v", d.Faults, d.Set)
	}
	if len(d.Unresolved) != 1 || !strings.HasSuffix(d.Unresolved[0].Message, "; 1 resource that depends on it was not read: networkInterfaces/n") {
		t.Errorf("unresolved %v", d.Unresolved)
	}
}

// withEndpoint is a network whose subnet has policies for private endpoints, and resources in it.
func withEndpoint(subnet string, resources ...string) string {
	return `[{"name": "v", "type": "Microsoft.Network/virtualNetworks", "location": "West Europe", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
		"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"` + subnet + `}}]}}` + strings.Join(append([]string{""}, resources...), ",") + `]`
}

func TestPrivateEndpointsAndTheirInterfaces(t *testing.T) {
	nic := func(name, owner string) string {
		return fmt.Sprintf(`{"name": %q, "type": "Microsoft.Network/networkInterfaces", "properties": {%s"ipConfigurations": [{"name": "c",
			"properties": {"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}}]}}`, name, owner)
	}
	endpoint := func(properties string) string {
		return `{"name": "db", "type": "Microsoft.Network/privateEndpoints", "properties": {"subnet": {"id": "v/s"}` + properties + `}}`
	}
	const id = "/subscriptions//resourceGroups//providers/Microsoft.Network/privateEndpoints/db"
	for _, tt := range []struct{ name, document, nic, warnings string }{
		{"the interface names its endpoint", withEndpoint("", nic("n", `"privateEndpoint": {"id": "`+id+`"}, `)), "n", ""},
		{"the endpoint names its interface", withEndpoint("", nic("n", ""), endpoint(`, "networkInterfaces": [{"id": "n"}]`)), "n", ""},
		{"both name the other", withEndpoint("", nic("n", `"privateEndpoint": {"id": "`+id+`"}, `), endpoint("")), "n", ""},
		{"an endpoint with an address has an interface", withEndpoint("", endpoint(`, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.5"}}]`)), "db.nic", ""},
		{"its name may be given", withEndpoint("", endpoint(`, "customNetworkInterfaceName": "db-nic", "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.5"}}]`)), "db-nic", ""},
		{"without an address one is chosen", withEndpoint("", endpoint("")), "db.nic", CodeAddressNotAssigned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if len(d.Faults)+len(d.Unresolved) > 0 || joinedCodes(d.Warnings) != tt.warnings {
				t.Fatal(d.Faults, d.Unresolved, d.Warnings)
			}
			found := ""
			for _, n := range d.Set.NetworkInterfaces {
				if strings.HasSuffix(n.PrivateEndpointID, "/privateEndpoints/db") {
					found = n.Name
				}
			}
			if found != tt.nic {
				t.Errorf("the interface is %q, want %q", found, tt.nic)
			}
		})
	}
	t.Run("a policy that there is not is a fault", func(t *testing.T) {
		d := Parse("test.json", []byte(withEndpoint(`, "privateEndpointNetworkPolicies": "On"`)))
		if joinedCodes(d.Faults) != CodeInvalidEndpointPolicies {
			t.Error(d.Faults)
		}
	})
	t.Run("an address that is taken is a fault", func(t *testing.T) {
		d := Parse("test.json", []byte(withEndpoint("", nic("n", ""), endpoint(`, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.4"}}]`))))
		if joinedCodes(d.Faults) != CodeAddressInUse {
			t.Error(d.Faults)
		}
	})
}

func TestServiceEndpoints(t *testing.T) {
	const tags = `{"changeNumber": 1, "cloud": "Public", "values": [
		{"name": "Storage", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.0/24"]}},
		{"name": "Storage.WestEurope", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.0/28"]}},
		{"name": "Storage.NorthEurope", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.16/28"]}},
		{"name": "Sql.WestEurope", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.64/28"]}},
		{"name": "AzureKeyVault", "properties": {"changeNumber": 1, "addressPrefixes": ["198.51.100.0/28"]}}]}`
	for _, tt := range []struct {
		name, subnet, tags string
		want               []string
		warnings           string
	}{
		{"storage without a region has the network's and the paired one", `, "serviceEndpoints": [{"service": "Microsoft.Storage"}]`, tags, []string{"Storage.NorthEurope", "Storage.WestEurope"}, ""},
		{"another without a region has the network's", `, "serviceEndpoints": [{"service": "Microsoft.Sql"}]`, tags, []string{"Sql.WestEurope"}, ""},
		{"one with a region", `, "serviceEndpoints": [{"service": "microsoft.storage", "locations": ["westeurope"]}]`, tags, []string{"Storage.WestEurope"}, ""},
		{"one of all regions", `, "serviceEndpoints": [{"service": "Microsoft.KeyVault", "locations": ["*"]}, {"service": "Microsoft.Storage.Global"}]`, tags, []string{"AzureKeyVault", "Storage"}, ""},
		{"without a file, where no route could matter", `, "serviceEndpoints": [{"service": "Microsoft.Storage"}]`, "", nil, ""},
		{"without a file, where it could", `, "defaultOutboundAccess": false, "serviceEndpoints": [{"service": "Microsoft.Storage"}]`, "", nil, CodeServiceEndpointUnknown},
		{"a service that there is not", `, "defaultOutboundAccess": false, "serviceEndpoints": [{"service": "Microsoft.Strage"}]`, tags, nil, CodeServiceEndpointUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := policyOf(t, map[string]string{"p.json": withEndpoint(tt.subnet)}), ""
			if tt.tags != "" {
				file = filepath.Join(policyOf(t, map[string]string{"tags.json": tt.tags}), "tags.json")
			}
			d := NewReader(file, dir).Read()
			if len(d.Faults)+len(d.Unresolved) > 0 || joinedCodes(d.Warnings) != tt.warnings {
				t.Fatal(d.Faults, d.Unresolved, d.Warnings)
			}
			if got := d.Set.VirtualNetworks[0].Subnets[0].ServiceEndpoints; !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			for _, tag := range tt.want {
				if len(d.Set.ServiceTags[tag]) == 0 {
					t.Errorf("the policy has no prefixes of %s", tag)
				}
			}
		})
	}
}

func TestStorageOfRegionsWithoutAKnownPair(t *testing.T) {
	file := filepath.Join(policyOf(t, map[string]string{"tags.json": `{"changeNumber": 1, "cloud": "Public", "values": [
		{"name": "Storage.NewPlace", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.32/28"]}},
		{"name": "Storage.ItalyNorth", "properties": {"changeNumber": 1, "addressPrefixes": ["203.0.113.48/28"]}}]}`}), "tags.json")
	for location, want := range map[string]string{"italynorth": "", "Italy North": "", "newplace": "is paired with is not known"} {
		document := `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "location": "` + location + `", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "defaultOutboundAccess": false, "serviceEndpoints": [{"service": "Microsoft.Storage"}]}}]}}`
		d := NewReader(file, policyOf(t, map[string]string{"p.json": document})).Read()
		if got := d.Warnings.Error(); len(d.Faults) > 0 || (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: faults %v, warnings %v", location, d.Faults, d.Warnings)
		}
		if len(d.Set.VirtualNetworks[0].Subnets[0].ServiceEndpoints) != 1 {
			t.Errorf("%s: the network's own region is missing", location)
		}
	}
}
