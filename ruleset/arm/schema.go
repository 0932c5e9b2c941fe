package arm

import (
	"reflect"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// Our own codes for properties, in Documents.Warnings.
const (
	// CodeUnknownProperty is for a property that Azure does not have.
	CodeUnknownProperty = "UnknownProperty"
	// CodePropertyNotRead is for a property that changes what happens to packets, and that is read past.
	CodePropertyNotRead = "PropertyNotRead"
)

// schema holds the properties that are read, by the kind of the object as places of faults name it.
// Azure has more of them: those of the kinds of alsoAzures are there. In other kinds a property that is near to
// none of these is ignored without a word.
var schema = map[string][]string{
	kindPaths[groupKind]: {"securityRules", "defaultSecurityRules", "flushConnection", "resourceGuid"},
	kindPaths[ruleKind]:  ruleProperties(),
	kindPaths[networkKind]: {"addressSpace", "subnets", "virtualNetworkPeerings", "flowTimeoutInMinutes", "dhcpOptions", "encryption",
		"enableDdosProtection", "enableVmProtection"},
	kindPaths[subnetKind]: {"addressPrefix", "addressPrefixes", "networkSecurityGroup", "routeTable", "natGateway", "defaultOutboundAccess",
		"privateEndpointNetworkPolicies", "privateLinkServiceNetworkPolicies", "serviceEndpoints", "serviceEndpointPolicies", "delegations"},
	kindPaths[peeringKind]: {"remoteVirtualNetwork", "allowVirtualNetworkAccess", "allowForwardedTraffic", "allowGatewayTransit",
		"useRemoteGateways", "peerCompleteVnets", localSubnets, remoteSubnets, "enableOnlyIPv6Peering", "peeringState", "remoteAddressSpace", "remoteVirtualNetworkAddressSpace"},
	kindPaths[interfaceKind]: {"ipConfigurations", "networkSecurityGroup", "enableIPForwarding", "disableTcpStateTracking", "macAddress", "dnsSettings",
		"virtualMachine", "privateEndpoint", "tapConfigurations"},
	kindPaths[configurationKind]: {"privateIPAddress", "privateIPAddressPrefixLength", "privateIPAddressVersion", "privateIPAllocationMethod", "subnet", "primary",
		"publicIPAddress", "applicationSecurityGroups", "loadBalancerBackendAddressPools", "loadBalancerInboundNatRules", "loadBalancerInboundNatPools"},
	kindPaths[routeTableKind]:    {"routes", "disableBgpRoutePropagation"},
	kindPaths[routeKind]:         {"addressPrefix", "nextHopType", "nextHopIpAddress"},
	kindPaths[publicAddressKind]: {"ipAddress", "publicIPAddressVersion", "publicIPAllocationMethod", "idleTimeoutInMinutes", "ipConfiguration", "dnsSettings", "ddosSettings"},
	kindPaths[privateEndpointKind]: {"subnet", "networkInterfaces", "ipConfigurations", "applicationSecurityGroups", "customNetworkInterfaceName",
		"privateLinkServiceConnections", "manualPrivateLinkServiceConnections", "customDnsConfigs"},
	kindPaths[natGatewayKind]: {"publicIpAddresses", "publicIpAddressesV6", "publicIpPrefixes", "publicIpPrefixesV6", "idleTimeoutInMinutes",
		"subnets"},
	kindPaths[loadBalancerKind]: {"frontendIPConfigurations", "backendAddressPools", "loadBalancingRules", "probes", "inboundNatRules",
		"inboundNatPools", "outboundRules"},
	kindPaths[frontendKind]: {"privateIPAddress", "privateIPAddressVersion", "privateIPAllocationMethod", "publicIPAddress", "publicIPPrefix",
		"subnet", "inboundNatRules", "inboundNatPools"},
	kindPaths[probeKind]: {"protocol", "port", "requestPath", "intervalInSeconds", "numberOfProbes", "probeThreshold"},
	"loadBalancingRules": {"frontendIPConfiguration", "backendAddressPool", "backendAddressPools", "probe", "protocol", "frontendPort",
		"backendPort", "loadDistribution", "enableFloatingIP", "enableTcpReset", "disableOutboundSnat", "idleTimeoutInMinutes"},
	kindPaths[natRuleKind]: {"frontendIPConfiguration", "backendAddressPool", "backendIPConfiguration", "protocol", "frontendPort",
		"backendPort", "frontendPortRangeStart", "frontendPortRangeEnd", "enableFloatingIP", "enableTcpReset", "idleTimeoutInMinutes"},
	kindPaths[flowLogKind]: {"targetResourceId", "storageId", "enabled", "format", "retentionPolicy", "flowAnalyticsConfiguration", "enabledFilteringCriteria", "recordTypes"},
	kindPaths[natPoolKind]: {"frontendIPConfiguration", "protocol", "frontendPortRangeStart", "frontendPortRangeEnd", "backendPort",
		"enableFloatingIP", "enableTcpReset", "idleTimeoutInMinutes"},
	kindPaths[hubKind]: {"virtualWan", "addressPrefix", "routeTable", "virtualHubRouteTableV2s", "virtualNetworkConnections", "hubRoutingPreference", "virtualRouterAsn", "virtualRouterIps",
		"virtualRouterAutoScaleConfiguration", "routingState", "routeMaps", "preferredRoutingGateway", "bgpConnections", "ipConfigurations"},
	kindPaths[hubConnectionKind]: {"remoteVirtualNetwork", "enableInternetSecurity", "routingConfiguration", "allowHubToRemoteVnetTransit", "allowRemoteVnetToUseHubVnetGateways"},
	kindPaths[hubTableKind]:      {"routes", "labels", "associatedConnections", "propagatingConnections"},
	kindPaths[hubIntentKind]:     {"routingPolicies"},
	"outboundRules":              {"frontendIPConfigurations", "backendAddressPool", "protocol", "allocatedOutboundPorts", "enableTcpReset", "idleTimeoutInMinutes"},
}

// alsoAzures are Azure's other properties of the kinds that are read whole, of any API version and as answers have
// them: they change no verdict here, or are in notRead. Source: Azure's REST API specification of Microsoft.Network.
var alsoAzures = map[string][]string{
	kindPaths[groupKind]: {"networkInterfaces", "subnets", "flowLogs", "provisioningState"},
	kindPaths[ruleKind]:  {"provisioningState"},
	kindPaths[networkKind]: {"resourceGuid", "provisioningState", "ddosProtectionPlan", "bgpCommunities", "ipAllocations", "flowLogs",
		"privateEndpointVNetPolicies", "defaultPublicNatGateway"},
	kindPaths[subnetKind]: {"privateEndpoints", "ipConfigurations", "ipConfigurationProfiles", "ipAllocations", "resourceNavigationLinks",
		"serviceAssociationLinks", "networkIntentPolicies", "purpose", "provisioningState", "applicationGatewayIPConfigurations", "sharingScope",
		"ipamPoolPrefixAllocations", "serviceGateway"},
	kindPaths[peeringKind]: {"localAddressSpace", "localVirtualNetworkAddressSpace", "remoteBgpCommunities", "remoteVirtualNetworkEncryption",
		"remoteGateways", "routeServiceVips", "peeringSyncLevel", "doNotVerifyRemoteGateways", "resourceGuid", "provisioningState"},
	kindPaths[interfaceKind]: {"primary", "enableAcceleratedNetworking", "enableFpga", "deleteOption", "auxiliaryMode", "auxiliarySku", "allowPort25Out",
		"defaultOutboundConnectivityEnabled", "vnetEncryptionSupported", "dscpConfiguration", "hostedWorkloads", "migrationPhase", "nicType",
		"privateLinkService", "resourceGuid", "workloadType", "provisioningState"},
	kindPaths[configurationKind]: {"applicationGatewayBackendAddressPools", "gatewayLoadBalancer", "groupId", "memberName", "privateLinkConnectionProperties",
		"publicIPAddressConfiguration", "virtualNetworkTaps", "provisioningState"},
	kindPaths[routeTableKind]: {"subnets", "resourceGuid", "provisioningState"},
	kindPaths[routeKind]:      {"hasBgpOverride", "provisioningState"},
}

func ruleProperties() (names []string) {
	for _, f := range ruleset.SecurityRuleFields {
		names = append(names, f.Names()...)
	}
	return names
}

// spellings are the properties of schema in lower case.
var spellings = func() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for kind, names := range schema {
		all[kind] = map[string]bool{}
		for _, name := range names {
			all[kind][strings.ToLower(name)] = true
		}
	}
	return all
}()

// notRead are the properties that change what happens to packets, and that nothing here does.
var notRead = map[string][]struct{ name, harmless, what string }{
	kindPaths[networkKind]: {{"privateEndpointVNetPolicies", "Disabled", "peers get the same routes to private endpoints as without it"}},
	kindPaths[subnetKind]:  {{"serviceEndpointPolicies", "", "service endpoints lead to every account of the service"}},
	kindPaths[configurationKind]: {
		{"gatewayLoadBalancer", "", "nothing goes through the Gateway load balancer"}},
	kindPaths[frontendKind]: {{"gatewayLoadBalancer", "", "nothing goes through the Gateway load balancer"}},
	kindPaths[probeKind]:    {{"noHealthyBackendsBehavior", "AllProbedDown", "without a healthy backend nothing is let in"}},
	kindPaths[natGatewayKind]: {
		{"sourceVirtualNetwork", "", "only the subnets that name the gateway use it"}},
	"loadBalancerBackendAddresses": {{"adminState", "None", "the probe alone says whether the backend is up"}},
}

// minSpelling is the least length of a property for which a near name is looked for: short words are near by chance.
const minSpelling = 5

// checkProperties warns of properties that are nearly ones that are read, and of those that matter and are not read.
func (f *fields) checkProperties(body map[string]any) {
	kind := f.kindPath()
	known := spellings[kind]
	for _, p := range notRead[kind] {
		if v := lookup(f.values, p.name); matters(v, p.harmless) {
			f.l.warn(f.newFault(CodePropertyNotRead, p.name, asText(v), "the property is not read: here "+p.what))
		}
	}
	if known == nil {
		return
	}
	f.checkSpelling(kind, f.values, known, schema[kind])
	f.checkReferences(kind, known)
	if lookup(body, "properties") == nil {
		f.checkSpelling("", body, map[string]bool{"properties": true}, []string{"properties"})
		f.checkElsewhere(body, known)
	} else {
		f.checkLevel(body, known)
		f.checkNames(kind, known)
	}
}

// nowhereRead are properties of any kind: a loop, and a tag that old answers have inside.
var nowhereRead = []string{"copy", "etag"}

// checkNames warns of properties that Azure does not have, in kinds that are read whole. Objects without "properties"
// are left out: tools add fields of their own there.
func (f *fields) checkNames(kind string, known map[string]bool) {
	if alsoAzures[kind] == nil {
		return
	}
	for _, key := range sortedKeys(f.values, func(key string) bool {
		low := strings.ToLower(key)
		return !known[low] && !f.misspelled(kind, key) && !slices.Contains(nowhereRead, low) &&
			!slices.ContainsFunc(alsoAzures[kind], func(name string) bool { return strings.EqualFold(name, key) })
	}) {
		f.l.warn(f.newFault(CodeUnknownProperty, key, asText(f.values[key]), "there is no such property, so that it was not read"))
	}
}

// checkLevel refuses properties that stand beside "properties", as Azure does. A copy of the one inside, which
// a query of Resource Graph may add, says nothing else.
func (f *fields) checkLevel(body map[string]any, known map[string]bool) {
	for _, key := range sortedKeys(body, func(key string) bool {
		return body[key] != nil && known[strings.ToLower(key)] && !reflect.DeepEqual(body[key], lookup(f.values, key))
	}) {
		f.fault(CodeInvalidRequestFormat, key, asText(body[key]), "Could not find member '%s': it is a property, and belongs inside properties and not beside them", key)
	}
}

// sortedKeys are the keys of an object that a filter takes. Most objects have none, and cost no sorting.
func sortedKeys(object map[string]any, takes func(key string) bool) (keys []string) {
	for key := range object {
		if takes(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// checkElsewhere warns of an object without properties that has them, or objects with properties, under a name that
// is none of Azure's: "property", or a column that a query of Resource Graph made.
func (f *fields) checkElsewhere(body map[string]any, known map[string]bool) {
	if hasKnown(body, known) { // flattened, as az writes it
		return
	}
	for _, key := range sortedKeys(body, func(key string) bool {
		inside := firstObject(body[key])
		return inside != nil && !f.misspelled("", key) && !slices.Contains(noProperties, strings.ToLower(key)) && holds(inside, known)
	}) {
		f.l.warn(f.newFault(CodeUnknownProperty, key, asText(body[key]), "there is no such property, and no properties: what is inside was not read"))
	}
}

// misspelled reports that checkSpelling has told a key's near name.
func (f *fields) misspelled(kind, key string) bool {
	return len(key) >= minSpelling && !f.l.wellSpelled[spelled{kind, key}]
}

// noProperties are names of Azure's beside "properties" whose objects may look like properties, in lower case.
var noProperties = []string{"resources", "tags"}

// firstObject is an object, or the first of a list of objects; nil when it is neither.
func firstObject(v any) map[string]any {
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	object, _ := v.(map[string]any)
	return object
}

// hasKnown reports that an object has one of the known properties.
func hasKnown(object map[string]any, known map[string]bool) bool {
	for key := range object {
		if known[strings.ToLower(key)] {
			return true
		}
	}
	return false
}

// holds reports that an object has one of the known properties, or an object of properties.
func holds(object map[string]any, known map[string]bool) bool {
	_, inner := lookup(object, "properties").(map[string]any)
	return inner || hasKnown(object, known)
}

// referred are the kinds to which no property refers that is not read.
var referred = []kind{groupKind, asgKind, routeTableKind, natGatewayKind}

// checkReferences warns of a property that Azure does not have and that refers to what decides on packets, such as "nsg".
func (f *fields) checkReferences(kind string, known map[string]bool) {
	for _, key := range sortedKeys(f.values, func(key string) bool {
		object := firstObject(f.values[key])
		return object != nil && !f.misspelled(kind, key) && !known[strings.ToLower(key)] && slices.Contains(referred, kindOfID(textOf(object, "id")))
	}) {
		f.l.warn(f.newFault(CodeUnknownProperty, key, asText(f.values[key]), "there is no such property: what it refers to was not read"))
	}
}

// spelled is a key of an object of a kind, or of one beside "properties".
type spelled struct{ kind, key string }

// checkSpelling warns of the keys of an object that are no names of known but near to one of names. It looks
// at a key of a kind once, unless that has a warning.
func (f *fields) checkSpelling(kind string, object map[string]any, known map[string]bool, names []string) {
	for _, key := range sortedKeys(object, func(key string) bool { return f.misspelled(kind, key) }) {
		near := ruleset.NewNearMiss(key)
		if !known[strings.ToLower(key)] {
			for _, name := range names {
				near.Try(name, strings.ToLower(name), false)
			}
		}
		if hint := near.Hint(); hint != "" {
			f.l.warn(f.newFault(CodeUnknownProperty, key, asText(object[key]), "there is no such property, so that it was not read"+hint))
			continue
		}
		f.l.wellSpelled[spelled{kind, key}] = true
	}
}

// kindPath is the kind of the object as its place names it.
func (f *fields) kindPath() string {
	if f.rule != "" && strings.HasPrefix(f.place, kindPaths[groupKind]+"/") {
		return kindPaths[ruleKind]
	}
	parent, _, _ := cutLast(f.place)
	return lastSegment(parent)
}

// matters reports a value that says something.
func matters(v any, harmless string) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != "" && !strings.EqualFold(v, harmless) && !strings.EqualFold(v, "false")
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}
