package arm

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

const oneGroup = `{"id": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g", "name": "g",
	"type": "microsoft.network/networksecuritygroups", "properties": {"securityRules": []}}`

func TestADocumentOfWhichNothingIsReadSaysSo(t *testing.T) {
	const template = `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
		"resources": [{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "s"}]}`
	for _, tt := range []struct{ name, file, document, want string }{
		{"an empty list", "a.json", `[]`, "the list is empty"},
		{"an empty page", "a.json", `{"value": []}`, "the list is empty"},
		{"no row of Resource Graph", "a.json", `{"count": 0, "data": []}`, "the list is empty"},
		{"an empty object", "a.json", `{}`, "the object is empty"},
		{"null", "a.json", `null`, "no object and no list"},
		{"an error", "a.json", `{"error": {"code": "AuthorizationFailed", "message": "no"}}`, "AuthorizationFailed no"},
		{"an error without its envelope", "a.json", `{"code": "AuthorizationFailed", "message": "no"}`, "error in the place of resources: AuthorizationFailed no"},
		{"an error of OData", "a.json", `{"odata.error": {"code": "Gone", "message": {"lang": "en", "value": "no"}}}`, "error in the place of resources: Gone no"},
		{"an error's message alone", "a.json", `{"Message": "An error has occurred."}`, "error in the place of resources: An error has occurred."},
		{"an exported template inside its answer", "a.json", `{"template": ` + template + `}`, "inside its field template"},
		{"a template spec", "a.json", `{"properties": {"mainTemplate": ` + template + `}}`, "inside its field properties.mainTemplate"},
		{"two documents in one file", "a.json", "{}\n{}", "a file holds one document"},
		{"a table", "a.json", "Location    Name", "'az ... -o json'"},
		{"UTF-16 without its mark", "a.json", "[\x00]\x00", "UTF-16 without a byte order mark"},
		{"UTF-32", "a.json", "\xff\xfe\x00\x00[\x00\x00\x00", "UTF-32 is not read"},
		{"changes of other resources", "a.json", `{"Changes": [{"RelativeResourceId": "x", "ChangeType": 0, "After": null}]}`, "az deployment group what-if"},
		{"other resources", "a.json", `[{"type": "Microsoft.Storage/storageAccounts", "name": "s"}]`, "'az network nsg list'"},
		{"parameters", "a.json", `{"contentVersion": "1.0.0.0", "parameters": {}}`, "--parameters"},
		{"service tags", "a.json", testTags, "--service-tags"},
		{"Terraform's source as JSON", "a.json", `{"provider": {"azurerm": {}}, "resource": {"azurerm_network_security_group": {"g": {"name": "g"}}}}`, "terraform show -json"},
		{"Bicep", "a.bicep", `param x string`, "az bicep build --file"},
		{"Bicep parameters", "a.bicepparam", `using 'a.bicep'`, "az bicep build-params"},
		{"Terraform", "a.tf", `resource "azurerm_resource_group" "r" {}`, "terraform show -json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Load(filepath.Join(policyOf(t, map[string]string{tt.file: tt.document}), tt.file))
			if len(d.Faults) != 1 || !strings.Contains(d.Faults[0].Message, tt.want) {
				t.Errorf("faults %v, want one about %q", d.Faults, tt.want)
			}
		})
	}
	t.Run("a template without a network has a warning", func(t *testing.T) {
		d := Load(filepath.Join(policyOf(t, map[string]string{"a.json": template}), "a.json"))
		if len(d.Faults) > 0 || joinedCodes(d.Warnings) != CodeNothingRead {
			t.Errorf("faults %v, warnings %v", d.Faults, d.Warnings)
		}
	})
	t.Run("beside documents that are read it is a warning, and a parameters file nothing", func(t *testing.T) {
		d := Load(policyOf(t, map[string]string{"a.json": oneGroup, "b.json": "[]", "c.json": `{"contentVersion": "1.0.0.0", "parameters": {}}`}))
		if len(d.Faults) > 0 || joinedCodes(d.Warnings) != CodeNothingRead || filepath.Base(d.Warnings[0].File) != "b.json" {
			t.Errorf("faults %v, warnings %v", d.Faults, d.Warnings)
		}
	})
	t.Run("named beside documents that are read it is a fault", func(t *testing.T) {
		dir := policyOf(t, map[string]string{"a.json": oneGroup, "b.json": "[]"})
		if d := Load(filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")); joinedCodes(d.Faults) != CodeNothingRead {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("a folder of nothing is a fault", func(t *testing.T) {
		d := Load(policyOf(t, map[string]string{"a.json": "[]", "b.json": `{"contentVersion": "1.0.0.0", "parameters": {}}`}))
		if joinedCodes(d.Faults) != CodeNothingRead+" "+CodeNothingRead {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("a folder of Bicep says what to run", func(t *testing.T) {
		d := Load(policyOf(t, map[string]string{"a.bicep": ""}))
		if len(d.Faults) != 1 || !strings.Contains(d.Faults[0].Message, "az bicep build") {
			t.Errorf("faults %v", d.Faults)
		}
	})
}

func joinedCodes(faults ruleset.Faults) string { return strings.Join(codes(faults), " ") }

func TestAnswersThatHoldResourcesAreRead(t *testing.T) {
	const id = `"resourceId": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g"`
	for _, tt := range []struct{ name, document, unresolved, warnings string }{
		{"Resource Graph", `{"count": 1, "data": [` + oneGroup + `], "skip_token": null, "total_records": 1}`, "", ""},
		{"Resource Graph's table", `{"data": {"columns": [{"name": "id"}, {"name": "type"}, {"name": "name"}, {"name": "properties"}],
			"rows": [["/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"microsoft.network/networksecuritygroups", "g", {"securityRules": []}]]}}`, "", ""},
		{"Resource Graph's rows, with a column of rules in the place of properties", `{"data": [{"id": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"type": "microsoft.network/networksecuritygroups", "name": "g", "rules": {"name": "r", "properties": {"access": "Allow"}}}]}`, CodeNothingRead, CodeUnknownProperty},
		{"a group without properties, with tags", `{"data": [{"id": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"type": "microsoft.network/networksecuritygroups", "name": "g", "tags": {"securityRules": "none"}}]}`, CodeNothingRead, ""},
		{"a list of resources of all kinds", `{"value": [{"id": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "location": "westeurope", "tags": {}}]}`, CodeNothingRead, ""},
		{"rows whose properties a query took apart", `{"data": [{"id": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"type": "microsoft.network/networksecuritygroups", "name": "g", "securityRules": []}]}`, "", ""},
		{"a group with its properties under another name", `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "property": {"securityRules": []}}]`, "", CodeUnknownProperty},
		{"a part of Resource Graph's rows", `{"count": 1, "data": [` + oneGroup + `], "skip_token": "next"}`, "", CodeIncompleteList},
		{"the first of Resource Graph's rows", `{"count": 1, "data": [` + oneGroup + `], "total_records": 5}`, "", CodeIncompleteList},
		{"rows that were cut off", `{"data": [` + oneGroup + `], "resultTruncated": "true"}`, "", CodeIncompleteList},
		{"rows that were not", `{"count": 1, "data": [` + oneGroup + `], "resultTruncated": "false", "totalRecords": 1}`, "", ""},
		{"one of many rows, which are not counted", `{"data": [` + oneGroup + `], "totalRecords": 900, "resultTruncated": "true"}`, "", CodeIncompleteList},
		{"all rows, which are not counted", `{"data": [` + oneGroup + `], "totalRecords": 1}`, "", ""},
		{"PowerShell's what-if", `{"Status": "Succeeded", "Changes": [{"FullyQualifiedResourceId": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"ChangeType": 0, "After": null}]}`, CodeTemplateExpression, ""},
		{"PowerShell's what-if with its own lists", `{"Changes": [{"FullyQualifiedResourceId": "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/networkSecurityGroups/g",
			"ChangeType": 5, "After": [[[]], [[]]]}]}`, CodeTemplateExpression, ""},
		{"a page of OData", `{"value": [` + oneGroup + `], "@odata.nextLink": "https://management.azure.com/"}`, "", CodeIncompleteList},
		{"a page", `{"value": [` + oneGroup + `], "nextLink": "https://management.azure.com/"}`, "", CodeIncompleteList},
		{"what a deployment creates", `{"changes": [{"changeType": "Create", ` + id + `, "after": ` + oneGroup + `, "before": null}], "status": "Succeeded"}`, "", ""},
		{"what a deployment leaves as it is", `{"changes": [{"changeType": "Ignore", ` + id + `, "before": ` + oneGroup + `}]}`, "", ""},
		{"the REST API's what-if", `{"status": "Succeeded", "properties": {"changes": [{"changeType": "Modify", ` + id + `, "after": ` + oneGroup + `}]}}`, "", ""},
		{"a what-if with ids only", `{"changes": [{"changeType": "Deploy", ` + id + `}]}`, CodeTemplateExpression, ""},
		{"what Azure could not say", `{"changes": [{"changeType": "Unsupported", ` + id + `, "unsupportedReason": "no"}]}`, CodeTemplateExpression, ""},
		{"what may be deployed", `{"changes": [], "potentialChanges": [{"changeType": "Create", ` + id + `, "after": ` + oneGroup + `}]}`, CodeTemplateExpression, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Load(filepath.Join(policyOf(t, map[string]string{"a.json": tt.document}), "a.json"))
			if len(d.Faults) > 0 || joinedCodes(d.Unresolved) != tt.unresolved || joinedCodes(d.Warnings) != tt.warnings {
				t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
			}
			if read := len(d.Set.NetworkSecurityGroups) == 1; read != (tt.unresolved == "" || tt.unresolved == CodeNothingRead) {
				t.Errorf("groups %v", d.Set.NetworkSecurityGroups)
			}
		})
	}
	t.Run("what a deployment deletes is not there", func(t *testing.T) {
		d := Load(policyOf(t, map[string]string{"a.json": `{"changes": [{"changeType": "Delete", ` + id + `, "before": ` + oneGroup + `}]}`, "b.json": asgDocument("a")}))
		if len(d.Set.NetworkSecurityGroups) > 0 || len(d.Faults)+len(d.Unresolved) > 0 {
			t.Errorf("groups %v, faults %v, unresolved %v", d.Set.NetworkSecurityGroups, d.Faults, d.Unresolved)
		}
	})
}

func TestPropertiesThatAreNotReadHaveAWarning(t *testing.T) {
	rule := func(ports string) string {
		return `{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "properties": {"securityRules": [{"name": "r", "properties": {
			"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourcePortRange": "*", "sourceAddressPrefix": "*",
			"destinationAddressPrefix": "*", ` + ports + `}}]}}`
	}
	for _, tt := range []struct{ name, document, want string }{
		{"a misspelled list of ports", rule(`"destinationPortRange": "80", "destinationPortRangess": ["443"]`),
			`networkSecurityGroups/g: rule "r": destinationPortRangess "[\"443\"]": UnknownProperty: there is no such property, so that it was not read; near are destinationPortRanges, destinationPortRange`},
		{"PowerShell's spelling", rule(`"DestinationPortRange": "80"`), ""},
		{"properties themselves", `{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "propertes": {"securityRules": []}}`, "near is properties"},
		{"a group of a subnet under another name", `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "nsg": {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/networkSecurityGroups/g"}}}]}}`, "nsg \"{"},
		{"a property of a rule that is near to none", rule(`"destinationPortRange": "80", "enabled": false`), `rule "r": enabled "false": UnknownProperty: there is no such property, so that it was not read`},
		{"a property of a subnet that is near to none", `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "securityGroup": "g"}}]}}`, `securityGroup "g": UnknownProperty`},
		{"what a tool adds to a flattened rule", `{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "securityRules": [], "queriedAt": "today"}`, ""},
		{"fields of Azure that change nothing", rule(`"destinationPortRange": "80", "provisioningState": "Succeeded", "etag": "W/1"`), ""},
		{"a policy for service endpoints", `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "serviceEndpointPolicies": [{"id": "/x"}]}}]}}`, "PropertyNotRead: the property is not read: here service endpoints"},
		{"no policy for service endpoints", `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "serviceEndpointPolicies": []}}]}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if got := d.Warnings.Error(); len(d.Faults) > 0 || (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("faults %v, warnings %v, want %q", d.Faults, d.Warnings, tt.want)
			}
		})
	}
}

// Exports have these in every resource of their kind. Each is near to one that is read.
func TestPropertiesOfAzureAreNotTakenForMisspeltOnes(t *testing.T) {
	d := Parse("a.json", []byte(`[
		{"name": "p", "type": "Microsoft.Network/publicIPAddresses", "properties": {"ipAddress": "20.1.2.3", "ddosSettings": {"protectionMode": "VirtualNetworkInherited"}}},
		{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}]}},
		{"name": "i", "type": "Microsoft.Network/networkInterfaces", "properties": {"tapConfigurations": [], "ipConfigurations": [
			{"name": "a", "properties": {"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}}]}},
		{"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/networkSecurityGroups/g", "name": "g", "properties": null}]`))
	if len(d.Warnings) > 0 {
		t.Errorf("warnings %v", d.Warnings)
	}
}

// PowerShell writes lists in the place of single values. Azure refuses them, so that a template with one is no policy.
func TestAListInThePlaceOfASingleValueIsRefusedInTemplates(t *testing.T) {
	const rule = `"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourcePortRange": ["*"], "sourceAddressPrefix": ["*"],
		"destinationAddressPrefix": ["10.0.0.4", "10.0.0.5"], "destinationPortRange": ["80", "443"]`
	for _, tt := range []struct{ name, rule, want string }{
		{"PowerShell's form", rule, ""},
		{"in properties", `"properties": {` + rule + `}`, CodeInvalidRequestFormat + " " + CodeInvalidRequestFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("a.json", []byte(`{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", "securityRules": [{"name": "r", `+tt.rule+`}]}`))
			if joinedCodes(d.Faults) != tt.want {
				t.Errorf("faults %v, want %q", d.Faults, tt.want)
			}
		})
	}
}

func TestAPropertyBesideThePropertiesIsRefused(t *testing.T) {
	group := func(outer, rule string) string {
		return `{"name": "g", "type": "Microsoft.Network/networkSecurityGroups", ` + outer + `"properties": {"flushConnection": false, "securityRules": [{"name": "r", ` + rule + `"properties": {
			"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourcePortRange": "*", "sourceAddressPrefix": "*",
			"destinationAddressPrefix": "*", "destinationPortRange": "80"}}]}}`
	}
	for _, tt := range []struct{ name, document, want string }{
		{"rules of a group", group(`"SecurityRules": [], `, ""), "SecurityRules"},
		{"a rule's access", group("", `"access": "Deny", `), "access"},
		{"a copy of the one inside", group(`"flushConnection": false, `, `"access": "Allow", `), ""},
		{"what is beside the properties", group(`"location": "westeurope", "etag": "e", "tags": {"access": "x"}, "id": null, `, `"etag": "e", `), ""},
		{"a subnet's group", `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "networkSecurityGroup": {"id": "g"}, "properties": {"addressPrefix": "10.0.0.0/24"}}]}}`, "networkSecurityGroup"},
		{"an interface's group", `[{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}]}}, {"name": "i", "type": "Microsoft.Network/networkInterfaces",
			"networkSecurityGroup": {"id": "g"}, "properties": {"ipConfigurations": [{"name": "c", "properties": {"subnet": {"id": "v/s"}}}]}}]`, "networkSecurityGroup"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if tt.want == "" {
				if len(d.Faults)+len(d.Warnings) > 0 {
					t.Errorf("faults %v, warnings %v", d.Faults, d.Warnings)
				}
				return
			}
			if len(d.Faults) != 1 || d.Faults[0].Code != CodeInvalidRequestFormat || d.Faults[0].Field != tt.want {
				t.Errorf("faults %v, want one of %s", d.Faults, tt.want)
			}
		})
	}
}

// Every property that Azure documents, whether it is read or not, is no near miss of another one.
func TestNoPropertyOfAzureIsNearToAnother(t *testing.T) {
	for kind, names := range map[string]string{
		"networkSecurityGroups":    "defaultSecurityRules flowLogs flushConnection networkInterfaces provisioningState resourceGuid securityRules subnets",
		"securityRules":            "access description destinationAddressPrefix destinationAddressPrefixes destinationApplicationSecurityGroups destinationPortRange destinationPortRanges direction priority protocol provisioningState sourceAddressPrefix sourceAddressPrefixes sourceApplicationSecurityGroups sourcePortRange sourcePortRanges",
		"virtualNetworks":          "addressSpace bgpCommunities ddosProtectionPlan defaultPublicNatGateway dhcpOptions enableDdosProtection enableVmProtection encryption flowLogs flowTimeoutInMinutes ipAllocations privateEndpointVNetPolicies provisioningState resourceGuid subnets virtualNetworkPeerings",
		"subnets":                  "addressPrefix addressPrefixes applicationGatewayIPConfigurations defaultOutboundAccess delegations ipAllocations ipConfigurationProfiles ipConfigurations ipamPoolPrefixAllocations natGateway networkSecurityGroup privateEndpointNetworkPolicies privateEndpoints privateLinkServiceNetworkPolicies provisioningState purpose resourceNavigationLinks routeTable serviceAssociationLinks serviceEndpointPolicies serviceEndpoints sharingScope",
		"virtualNetworkPeerings":   "allowForwardedTraffic allowGatewayTransit allowVirtualNetworkAccess doNotVerifyRemoteGateways enableOnlyIPv6Peering localAddressSpace localSubnetNames localVirtualNetworkAddressSpace peerCompleteVnets peeringState peeringSyncLevel provisioningState remoteAddressSpace remoteBgpCommunities remoteSubnetNames remoteVirtualNetwork remoteVirtualNetworkAddressSpace remoteVirtualNetworkEncryption resourceGuid useRemoteGateways",
		"networkInterfaces":        "auxiliaryMode auxiliarySku dnsSettings defaultOutboundConnectivityEnabled disableTcpStateTracking dscpConfiguration enableAcceleratedNetworking enableIPForwarding hostedWorkloads ipConfigurations macAddress migrationPhase networkSecurityGroup nicType primary privateEndpoint privateLinkService provisioningState resourceGuid tapConfigurations virtualMachine vnetEncryptionSupported workloadType",
		"ipConfigurations":         "applicationGatewayBackendAddressPools applicationSecurityGroups gatewayLoadBalancer groupId loadBalancerBackendAddressPools loadBalancerInboundNatRules memberName primary privateIPAddress privateIPAddressPrefixLength privateIPAddressVersion privateIPAllocationMethod privateLinkConnectionProperties provisioningState publicIPAddress subnet virtualNetworkTaps",
		"routeTables":              "disableBgpRoutePropagation provisioningState resourceGuid routes subnets",
		"routes":                   "addressPrefix hasBgpOverride nextHopIpAddress nextHopType provisioningState",
		"publicIPAddresses":        "dnsSettings ddosSettings deleteOption ipAddress ipConfiguration ipTags idleTimeoutInMinutes linkedPublicIPAddress migrationPhase natGateway provisioningState publicIPAddressVersion publicIPAllocationMethod publicIPPrefix resourceGuid servicePublicIPAddress",
		"privateEndpoints":         "applicationSecurityGroups customDnsConfigs customNetworkInterfaceName ipConfigurations manualPrivateLinkServiceConnections networkInterfaces privateLinkServiceConnections provisioningState subnet",
		"natGateways":              "idleTimeoutInMinutes provisioningState publicIpAddresses publicIpAddressesV6 publicIpPrefixes publicIpPrefixesV6 resourceGuid sourceVirtualNetwork subnets",
		"loadBalancers":            "backendAddressPools frontendIPConfigurations inboundNatPools inboundNatRules loadBalancingRules outboundRules probes provisioningState resourceGuid",
		"frontendIPConfigurations": "gatewayLoadBalancer inboundNatPools inboundNatRules loadBalancingRules outboundRules privateIPAddress privateIPAddressVersion privateIPAllocationMethod provisioningState publicIPAddress publicIPPrefix subnet",
		"probes":                   "intervalInSeconds loadBalancingRules noHealthyBackendsBehavior numberOfProbes port probeThreshold protocol provisioningState requestPath",
		"loadBalancingRules":       "backendAddressPool backendAddressPools backendPort disableOutboundSnat enableConnectionTracking enableFloatingIP enableTcpReset frontendIPConfiguration frontendPort idleTimeoutInMinutes loadDistribution probe protocol provisioningState",
		"inboundNatRules":          "backendAddressPool backendIPConfiguration backendPort enableFloatingIP enableTcpReset frontendIPConfiguration frontendPort frontendPortRangeEnd frontendPortRangeStart idleTimeoutInMinutes protocol provisioningState",
		"outboundRules":            "allocatedOutboundPorts backendAddressPool enableTcpReset frontendIPConfigurations idleTimeoutInMinutes protocol provisioningState",
	} {
		values := map[string]any{}
		for _, name := range append(strings.Fields(names), "id", "name", "type", "etag", "location", "tags", "zones", "resourceGroup", "apiVersion", "dependsOn", "comments", "condition",
			"extendedLocation", "subscriptionId", "tenantId", "managedBy", "identity", "systemData") {
			values[name] = "x"
		}
		l := newLoader()
		f := &fields{l: l, place: kind + "/x", values: values}
		f.checkProperties(values)
		f.values = map[string]any{} // as templates have them: of kinds that are read whole, all names are known
		for _, name := range strings.Fields(names) {
			f.values[name] = "x"
		}
		f.checkProperties(map[string]any{"properties": f.values})
		for _, w := range l.out.Warnings {
			if w.Code == CodeUnknownProperty {
				t.Errorf("%s: %v", kind, w)
			}
		}
	}
}

func TestRowsOfTwoGroupsWithoutIdsAreTwoResources(t *testing.T) {
	row := func(subscription, group string) string {
		return `{"type": "microsoft.network/networksecuritygroups", "name": "g", "subscriptionId": "` + subscription + `", "resourceGroup": "` + group + `", "properties": {"securityRules": []}}`
	}
	for _, tt := range []struct {
		rows string
		want int
	}{
		{row("s", "a") + "," + row("s", "b"), 2},
		{row("s", "a") + "," + row("t", "a"), 2},
		{row("", "a") + "," + row("", "b"), 2},
	} {
		d := Parse("a.json", []byte(`{"count": 2, "data": [`+tt.rows+`]}`))
		if len(d.Faults) > 0 || len(d.Set.NetworkSecurityGroups) != tt.want {
			t.Errorf("%s: faults %v, groups %v", tt.rows, d.Faults, d.Set.NetworkSecurityGroups)
		}
	}
	subnet := `{"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {
		"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "/subscriptions/s/resourceGroups/b/providers/Microsoft.Network/networkSecurityGroups/g"}}}]}}`
	d := Parse("a.json", []byte("["+row("s", "a")+","+row("s", "b")+","+subnet+"]"))
	if len(d.Faults)+len(d.Unresolved)+len(d.Warnings) > 0 || !strings.Contains(d.Set.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup.ID, "/b/") {
		t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
	}
}

func TestResourcesThatAreNotReadAreNamed(t *testing.T) {
	for _, tt := range []struct{ name, document, code, names string }{
		{"a classic group", `[{"id": "/subscriptions/s/resourceGroups/Default-Networking/providers/Microsoft.ClassicNetwork/networkSecurityGroups/old", "name": "old", "type": "Microsoft.ClassicNetwork/networkSecurityGroups", "properties": {"networkSecurityGroupState": "Created"}}]`, CodeClassic, "Move-AzureNetworkSecurityGroup"},
		{"a classic group as PowerShell writes it", `{"Name": "old", "Location": "West Europe", "Label": "", "Rules": [{"Name": "web", "Type": "Inbound", "Priority": 100, "Action": "Allow", "SourceAddressPrefix": "INTERNET", "SourcePortRange": "*",
  "DestinationAddressPrefix": "*", "DestinationPortRange": "80", "Protocol": "TCP", "State": "Active", "IsDefault": false}]}`, CodeClassic, "Move-AzureNetworkSecurityGroup"},
		{"a gateway of a virtual hub", `[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}},
  {"type": "Microsoft.Network/vpnGateways", "name": "g", "properties": {}}]`, CodeResourceNotRead, "attach a gateway"},
		{"a routing configuration", `[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}},
  {"type": "Microsoft.Network/networkManagers/routingConfigurations", "name": "nm/r", "properties": {}}]`, CodeResourceNotRead, "route tables"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			told := append(d.Faults, d.Warnings...)
			if len(told) != 1 || told[0].Code != tt.code || !strings.Contains(told[0].Message, tt.names) || (tt.code == CodeClassic) != (len(d.Faults) == 1) {
				t.Errorf("told %v", told)
			}
		})
	}
	rules := `{"rules": [{"type": "Inbound", "priority": 1}], "name": "no group"}`
	if d := Parse("test.json", []byte(rules)); len(d.Faults) > 0 {
		t.Errorf("told %v", d.Faults)
	}
}
