package arm

import (
	"fmt"
	"strings"
	"testing"
)

// What Azure refuses is refused with its code, though nothing here needs the value.
func TestWhatAzureRefuses(t *testing.T) {
	public := func(sku, properties string) string {
		return `{"name": "p", "type": "Microsoft.Network/publicIPAddresses", ` + sku + `"properties": {"publicIPAllocationMethod": "Static", "ipAddress": "198.51.100.1"` + properties + `}}`
	}
	network := func(properties string) string {
		return `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}` + properties + `}}`
	}
	balancer := func(parts string) string {
		return "[" + public(`"sku": {"name": "Standard"}, `, "") + `, {"name": "l", "type": "Microsoft.Network/loadBalancers", "sku": {"name": "Standard"}, "properties": {
			"frontendIPConfigurations": [{"name": "fe", "properties": {"publicIPAddress": {"id": "p"}}}], "backendAddressPools": [{"name": "b"}], ` + parts + `}}]`
	}
	pool := func(ports string) string {
		return balancer(`"inboundNatPools": [{"name": "r", "properties": {"frontendIPConfiguration": {"id": "l/fe"}, "protocol": "Tcp", ` + ports + `}}]`)
	}
	probe := func(properties string) string {
		return balancer(`"probes": [{"name": "h", "properties": {` + properties + `}}]`)
	}
	subnet := func(name string, rules ...string) string {
		return fmt.Sprintf(`[{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "properties": {"securityRules": [%s]}}, %s]`, strings.Join(rules, ","),
			network(`, "subnets": [{"name": "`+name+`", "properties": {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "g"}}}]`))
	}
	priority := 100
	rule := func(direction, source, destination, port string) string {
		priority++
		return fmt.Sprintf(`{"name": "r%d", "properties": {"priority": %d, "direction": %q, "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": %q,
			"sourcePortRange": "*", "destinationAddressPrefix": %q, "destinationPortRange": %q}}`, priority, priority, direction, source, destination, port)
	}
	manager, cloud := rule("Inbound", "GatewayManager", "*", "443"), rule("Outbound", "*", "AzureCloud", "443")
	ssh, rdp := rule("Outbound", "*", "VirtualNetwork", "22"), rule("Outbound", "*", "VirtualNetwork", "3389")
	for _, tt := range []struct{ name, document, want string }{
		{"a name with an underscore", public("", `, "dnsSettings": {"domainNameLabel": "l-a_b"}`), CodeInvalidDomainLabel},
		{"a name", public("", `, "dnsSettings": {"domainNameLabel": "shop-1"}`), ""},
		{"a name that is open", public("", `, "dnsSettings": {"domainNameLabel": "[parameters('n')]"}`), ""},
		{"a global address of SKU Basic", public(`"sku": {"name": "Basic", "tier": "Global"}, `, ""), CodeGlobalBasic},
		{"a global address", public(`"sku": {"name": "Standard", "tier": "Global"}, `, ""), ""},
		{"a DNS server", network(`, "dhcpOptions": {"dnsServers": ["10.0.0.4", "0"]}`), CodeInvalidDNSServer},
		{"an open DNS server", network(`, "dhcpOptions": {"dnsServers": ["[parameters('dns')]"]}`), ""},
		{"half an encryption", network(`, "encryption": {"enabled": true}`), CodeEncryptionIncomplete},
		{"a whole one", network(`, "encryption": {"enabled": true, "enforcement": "AllowUnencrypted"}`), ""},
		{"a pool's first port", pool(`"frontendPortRangeStart": 70000, "frontendPortRangeEnd": 70001, "backendPort": 22`), CodePortRange + " " + CodePortRange},
		{"a pool's backend port", pool(`"frontendPortRangeStart": 1, "frontendPortRangeEnd": 2, "backendPort": 0`), CodePortRange},
		{"a path of a TCP probe", probe(`"protocol": "Tcp", "port": 80, "requestPath": "/h"`), CodeProbePath},
		{"a probe's interval", probe(`"protocol": "Tcp", "port": 80, "intervalInSeconds": 4`), CodeProbeInterval},
		{"an interval of more than 31 bits", probe(`"protocol": "Tcp", "port": 80, "intervalInSeconds": 2147483648`), CodeInvalidRequestFormat},
		{"a number of probes", probe(`"protocol": "Tcp", "port": 80, "numberOfProbes": 0`), CodeProbeNumber},
		{"a probe's port", probe(`"protocol": "Tcp", "port": 65536`), CodePortRange},
		{"an idle timeout", public("", `, "idleTimeoutInMinutes": 31`), CodePublicIdle},
		{"a dynamic address of SKU Standard", dynamic("Standard"), CodeStandardDynamic},
		{"a dynamic address of SKU Basic", dynamic("Basic"), ""},
		{"the last address that Azure keeps", withAddress("10.0.0.3"), CodeAddressReserved},
		{"the first that it does not", withAddress("10.0.0.4"), ""},
		{"the last address of all", withAddress("10.0.0.15"), CodeAddressReserved},
		{"the one before", withAddress("10.0.0.14"), ""},
		{"an internal frontend with the second address", withFrontend(`"privateIPAddress": "10.0.0.1", `), CodeAddressReserved},
		{"an internal frontend with the last address", withFrontend(`"privateIPAddress": "10.0.0.15", `), CodeAddressReserved},
		{"an internal frontend with the first that is free", withFrontend(`"privateIPAddress": "10.0.0.4", `), ""},
		{"a subnet of four addresses", networkWith(`"10.0.0.0/16"`, `"10.0.0.0/30"`), CodeSubnetSize},
		{"a subnet of one address", networkWith(`"10.0.0.0/16"`, `"10.0.0.0/32"`), CodeSubnetSize},
		{"the smallest subnet", networkWith(`"10.0.0.0/16"`, `"10.0.0.0/29"`), ""},
		{"a subnet of both families", networkWith(`"10.0.0.0/16", "fd00::/48"`, `"10.0.0.0/24", "fd00::/64"`), ""},
		{"an IPv6 prefix that is wide", networkWith(`"10.0.0.0/16", "fd00::/48"`, `"10.0.0.0/24", "fd00::/56"`), CodeSubnetSize},
		{"an IPv6 prefix that is narrow", networkWith(`"10.0.0.0/16", "fd00::/48"`, `"10.0.0.0/24", "fd00::/65"`), CodeSubnetSize},
		{"a network of IPv6 alone", networkWith(`"fd00::/48"`, `"fd00::/64"`), CodeNetworkOfIPv6},
		{"multicast", networkWith(`"10.0.0.0/16", "239.1.0.0/16"`, `"10.0.0.0/24"`), CodeUnusableSpace},
		{"loopback", networkWith(`"127.0.0.0/8"`, `"127.1.0.0/16"`), CodeUnusableSpace},
		{"link-local", networkWith(`"169.254.0.0/16"`, `"169.254.1.0/24"`), CodeUnusableSpace},
		{"Azure's own address", networkWith(`"168.63.129.16/32"`, `"168.63.129.16/32"`), CodeSubnetSize + " " + CodeUnusableSpace},
		{"the broadcast address", networkWith(`"10.0.0.0/16", "255.255.255.255/32"`, `"10.0.0.0/24"`), CodeUnusableSpace},
		{"a public space", networkWith(`"168.63.0.0/16"`, `"168.63.1.0/24"`), ""},
		{"a static address of an interface that is missing", withMethod("Static", ""), CodePrivateMissing},
		{"a static address", withMethod("static", "10.0.0.4"), ""},
		{"a dynamic address that Azure shows", withMethod("Dynamic", "10.0.0.4"), ""},
		{"a dynamic address", withMethod("Dynamic", ""), ""},
		{"a method that is open", withMethod("[parameters('m')]", ""), ""},
		{"a static address of a frontend that is missing", withFrontend(`"privateIPAllocationMethod": "Static", `), CodePrivateMissing},
		{"a dynamic address of a frontend", withFrontend(`"privateIPAllocationMethod": "Dynamic", `), ""},
		{"two ipConfigurations without a primary", templateOf(networkOfTwo, twoOfNoPrimary("")), CodeNoPrimary},
		{"two with one", templateOf(networkOfTwo, twoOfNoPrimary(`"primary": true, `)), ""},
		{"two in a document that is no template", "[" + networkOfTwo + "," + twoOfNoPrimary("") + "]", ""},
		{"a group at a gateway's subnet", subnet("gatewaysubnet"), CodeGroupAtGatewaySubnet},
		{"a group at a firewall's subnet", subnet("AzureFirewallSubnet"), CodeGroupAtManagedSubnet},
		{"a bastion's subnet", subnet("AzureBastionSubnet", manager, cloud, ssh, rdp), ""},
		{"a bastion without its manager", subnet("AzureBastionSubnet", cloud, ssh, rdp), CodeGroupAtBastionSubnet},
		{"a route table at a bastion's subnet", templateOf(`{"name": "t", "type": "Microsoft.Network/routeTables"}, ` +
			strings.Replace(strings.Replace(networkOfTwo, `"s"`, `"azureBastionSubnet"`, 1), `"addressPrefix":`, `"routeTable": {"id": "t"}, "addressPrefix":`, 1)), CodeTableAtBastionSubnet},
		{"a network interface in a bastion's subnet", strings.ReplaceAll(strings.ReplaceAll(withAddress("10.0.0.5"), `"s"`, `"AzureBastionSubnet"`), `v/s`, `v/AzureBastionSubnet`), CodeInBastionSubnet},
		{"a bastion with the default rules only", subnet("AzureBastionSubnet", manager), CodeGroupAtBastionSubnet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if joinedCodes(d.Faults) != tt.want || len(d.Unresolved) > 0 {
				t.Errorf("faults %v, unresolved %v, want %q", d.Faults, d.Unresolved, tt.want)
			}
		})
	}
}

// networkOfTwo is a network for network interfaces of a test.
const networkOfTwo = `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
	"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/28"}}]}}`

func withAddress(address string) string {
	return "[" + networkOfTwo + `, {"name": "i", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [
		{"name": "a", "properties": {"privateIPAddress": "` + address + `", "subnet": {"id": "v/s"}}}]}}]`
}

// networkWith is a network with an address space and one subnet.
func networkWith(space, subnet string) string {
	return `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": [` + space + `]},
		"subnets": [{"name": "s", "properties": {"addressPrefixes": [` + subnet + `]}}]}}`
}

// withMethod is a network interface whose address is assigned by a method.
func withMethod(method, address string) string {
	return strings.Replace(withAddress(address), `"privateIPAddress"`, `"privateIPAllocationMethod": "`+method+`", "privateIPAddress"`, 1)
}

// withFrontend is an internal load balancer with fields of its frontend.
func withFrontend(fields string) string {
	return "[" + networkOfTwo + `, {"name": "l", "type": "Microsoft.Network/loadBalancers", "sku": {"name": "Standard"}, "properties": {"backendAddressPools": [],
		"frontendIPConfigurations": [{"name": "a", "properties": {` + fields + `"subnet": {"id": "v/s"}}}]}}]`
}

// dynamic is a public address whose value Azure chooses when it is needed.
func dynamic(sku string) string {
	return `[{"name": "p", "type": "Microsoft.Network/publicIPAddresses", "sku": {"name": "` + sku + `"}, "properties": {"publicIPAllocationMethod": "Dynamic"}}]`
}

// twoOfNoPrimary is a network interface of two ipConfigurations, with a field of the first.
func twoOfNoPrimary(field string) string {
	return `{"name": "i", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [
		{"name": "a", "properties": {` + field + `"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}},
		{"name": "b", "properties": {"privateIPAddress": "10.0.0.5", "subnet": {"id": "v/s"}}}]}}`
}

func TestResourcesThatBelongTogetherAreInOneRegion(t *testing.T) {
	const document = `[{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "location": "GROUP", "properties": {"securityRules": []}},
		{"name": "v", "type": "Microsoft.Network/virtualNetworks", "location": "West Europe", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "g"}}}]}},
		{"name": "n", "type": "Microsoft.Network/networkInterfaces", "location": "NIC", "properties": {"ipConfigurations": [{"name": "c",
			"properties": {"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}}]}}]`
	for _, tt := range []struct{ group, nic, want string }{
		{"westeurope", "westeurope", ""},
		{"", "", ""},
		{"[resourceGroup().location]", "westEurope", ""},
		{"northeurope", "westeurope", CodeInvalidResourceReference},
		{"westeurope", "northeurope", CodeInvalidResourceReference},
	} {
		d := Parse("test.json", []byte(strings.NewReplacer("GROUP", tt.group, "NIC", tt.nic).Replace(document)))
		if joinedCodes(d.Faults) != tt.want {
			t.Errorf("group in %q, interface in %q: %v", tt.group, tt.nic, d.Faults)
		}
	}
}

func TestWhoseCodeAFaultHas(t *testing.T) {
	if OwnCode("SecurityRuleConflict") || !OwnCode(CodeNothingRead) || !OwnCode("SecurityRuleInvalidAccess") {
		t.Error("Azure's codes are not told from ours")
	}
}

func TestATemplatesInterfaceInADelegatedSubnetHasAWarning(t *testing.T) {
	const resources = `[{"name": "v", "type": "Microsoft.Network/virtualNetworks", "apiVersion": "2023-09-01", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
		"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "delegations": [{"name": "d", "properties": {"serviceName": "Microsoft.Web/serverFarms"}}]}}]}},
		{"name": "i", "type": "Microsoft.Network/networkInterfaces", "apiVersion": "2023-09-01", "properties": {"ipConfigurations": [{"name": "a", "properties": {
		"privateIPAddress": "10.0.0.4", "subnet": {"id": "ID"}}}]}}]`
	template := `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": ` +
		strings.Replace(resources, "ID", "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 's')]", 1) + "}"
	for _, tt := range []struct{ name, document, warning string }{
		{"a template", template, CodeSubnetDelegated},
		{"an export, which has the interfaces of services too", strings.Replace(resources, "ID", "v/s", 1), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if joinedCodes(d.Faults) != "" || joinedCodes(d.Warnings) != tt.warning {
				t.Errorf("faults %v, warnings %v", d.Faults, d.Warnings)
			}
		})
	}
}

func TestPrefixesFromAPoolAreOpen(t *testing.T) {
	const pool = `"ipamPoolPrefixAllocations": [{"pool": {"id": "/p"}, "numberOfIpAddresses": "256"}]`
	network := func(space, subnet string) string {
		return `[{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {` + space + `}, "subnets": [{"name": "s", "properties": {` + subnet + `}}]}},
			{"name": "i", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [{"name": "a", "properties": {"subnet": {"id": "v/s"}}}]}}]`
	}
	for _, tt := range []struct{ name, document, faults, open string }{
		{"of a network", network(pool, pool), "", CodePrefixFromPool},
		{"of a network, with null", network(pool+`, "addressPrefixes": null`, `"addressPrefix": "10.0.0.0/24"`), "", CodePrefixFromPool},
		{"of a subnet", network(`"addressPrefixes": ["10.0.0.0/16"]`, pool), "", CodePrefixFromPool},
		{"which Azure shows", network(`"addressPrefixes": ["10.0.0.0/16"], `+pool, `"addressPrefix": "10.0.0.0/24", `+pool), "", ""},
		{"that have given them", network(strings.Replace(pool, "}]", `, "allocatedAddressPrefixes": ["10.0.0.0/25", "10.1.0.0/28"]}]`, 1),
			strings.Replace(pool, "}]", `, "allocatedAddressPrefixes": ["10.0.0.0/26"]}]`, 1)), "", ""},
		{"that have given some", network(strings.Replace(pool, "}]", `, "allocatedAddressPrefixes": ["10.0.0.0/25"]}, {"pool": {"id": "/q"}}]`, 1), `"addressPrefix": "10.0.0.0/26"`), "", CodePrefixFromPool},
		{"that have given what is none", network(strings.Replace(pool, "}]", `, "allocatedAddressPrefixes": ["10.0.0.0"]}]`, 1), `"addressPrefix": "10.0.0.0/26"`), CodeInvalidAddressPrefix, ""},
		{"which there is not", network(`"addressPrefixes": ["10.0.0.0/16"]`, `"ipamPoolPrefixAllocations": []`), CodeInvalidAddressPrefix, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if joinedCodes(d.Faults) != tt.faults || joinedCodes(d.Unresolved) != tt.open {
				t.Errorf("faults %v, unresolved %v", d.Faults, d.Unresolved)
			}
		})
	}
}
