// Package policy is the model of a policy and its topology: Azure's resources as Go
// values that point to each other, found by name or id. It knows no file format.
package policy

import (
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/ruleset"
)

// Set is a policy and its topology with all references resolved. Nobody changes it once
// it is built, so that it may be read concurrently.
type Set struct {
	NetworkSecurityGroups     []*ruleset.NSG
	VirtualNetworks           []*VirtualNetwork
	NetworkInterfaces         []*NetworkInterface
	ApplicationSecurityGroups []*ApplicationSecurityGroup
	RouteTables               []*RouteTable
	NetworkGroups             []*NetworkGroup
	AdminCollections          []*AdminCollection
	PublicIPAddresses         []*PublicIPAddress
	PublicIPPrefixes          []*PublicIPPrefix
	NATGateways               []*NATGateway
	LoadBalancers             []*LoadBalancer
	FlowLogs                  []*FlowLog
	// ServiceTags are the prefixes of the service tags that rules and routes name, by the
	// spelling of Peer.Tag. They are of both families and in the order of the tag file.
	ServiceTags map[string][]netip.Prefix

	nics index[NetworkInterface]
}

// AzureDNS is the resolver of Azure's platform.
var AzureDNS = netip.AddrFrom4([4]byte{168, 63, 129, 16})

// VirtualNetwork is a virtual network (VNet).
type VirtualNetwork struct {
	Name string
	ID   string // made from the name when the document has none; so are all ids here
	// Location is a region, as written; empty when the document has none.
	Location string
	// AddressSpace is in the document's order, masked.
	AddressSpace []netip.Prefix
	// FlowTimeout is flowTimeoutInMinutes: 4 to 30 minutes, 0 when not set.
	FlowTimeout time.Duration
	// DNSServers are the custom ones, each once; none: AzureDNS.
	DNSServers []netip.Addr
	Subnets    []*Subnet
	Peerings   []Peering
	// HubTable is what the network learns from the virtual hub that it is connected to: routes of a gateway. nil: it is
	// connected to none.
	HubTable *HubTable
}

// HubTable is what networks learn that share a route table of a virtual hub. They share the value too, and it must not
// be modified.
type HubTable struct {
	// Routes have each prefix once. Among them are the prefixes of the networks that share the table.
	Routes []HubRoute
}

// HubRoute is a route that a virtual hub announces.
type HubRoute struct {
	Prefix netip.Prefix
	// Network is the connected network that has the prefix; nil: it is behind the hub's gateways or its firewall.
	Network *VirtualNetwork
}

// Subnet is a subnet of a VNet.
type Subnet struct {
	Name                 string
	ID                   string
	VirtualNetwork       *VirtualNetwork
	Prefixes             []netip.Prefix // masked, at least one
	NetworkSecurityGroup *ruleset.NSG   // nil when it has none
	RouteTable           *RouteTable    // nil when it has none
	NATGateway           *NATGateway    // nil when it has none
	// ServiceEndpoints are the service tags of the services that the subnet reaches directly, sorted.
	ServiceEndpoints []string
	// Services are the services of Azure that stand in the subnet and need ports there, by the type of their
	// resources, sorted: constants Service.
	Services []string
	// EndpointPolicies says what of the subnet holds for private endpoints in it.
	EndpointPolicies EndpointPolicies
	// DisableDefaultOutbound is the opposite of defaultOutboundAccess. It takes the way to
	// the internet from machines that have no other.
	DisableDefaultOutbound bool
}

// The services that need ports in their subnet. An application gateway is one of the second version.
const (
	ServiceApplicationGateway    = "Microsoft.Network/applicationGateways"
	ServiceAPIManagement         = "Microsoft.ApiManagement/service"
	ServiceSQLManagedInstance    = "Microsoft.Sql/managedInstances"
	ServiceHDInsight             = "Microsoft.HDInsight/clusters"
	ServiceAppServiceEnvironment = "Microsoft.Web/hostingEnvironments"
)

// EndpointPolicies is privateEndpointNetworkPolicies: whether the subnet's NSG and its route
// table hold for private endpoints. With RouteTable their routes give way to user-defined ones too.
type EndpointPolicies struct{ NetworkSecurityGroup, RouteTable bool }

// NetworkInterface is a network interface (NIC).
type NetworkInterface struct {
	// Name is SET/INSTANCE/NAME for an instance of a scale set.
	Name                 string
	ID                   string
	NetworkSecurityGroup *ruleset.NSG // nil when it has none
	EnableIPForwarding   bool
	// DisableTCPStateTracking is understood as: TCP flows of the NIC are followed without
	// states. Azure's documents do not say what it does.
	DisableTCPStateTracking bool
	VirtualMachineID        string // empty when there is none, or it is not known
	PrivateEndpointID       string // of the private endpoint that the NIC belongs to; empty: none
	MACAddress              string // as written, empty when not known
	// DNSServers are the NIC's own, each once; none: those of its virtual network.
	DNSServers       []netip.Addr
	DomainNameSuffix string            // of its virtual network's machines as Azure names them; empty when not known
	IPConfigurations []IPConfiguration // at least one
}

// IPConfiguration is one address of a NIC. Those of a block of addresses have one name and id.
type IPConfiguration struct {
	Name    string
	ID      string
	Address netip.Addr
	Subnet  *Subnet
	Primary bool // always true if the NIC has no other
	// ApplicationSecurityGroups are ids in the spelling of the groups themselves. The rules
	// of a Set have the same spelling, so equal strings mean equal groups.
	ApplicationSecurityGroups []string
	// PublicIPAddress is nil when it has none. Backend pools list their members themselves.
	PublicIPAddress *PublicIPAddress
	// UnknownPools means that it is in a backend pool that could not be read, so that its way
	// to the internet is not known.
	UnknownPools bool
}

// ApplicationSecurityGroup is an application security group (ASG). Its members
// are the IPConfigurations that name it.
type ApplicationSecurityGroup struct {
	Name string
	ID   string
}

// NetworkGroup is a virtual network manager's group of virtual networks.
type NetworkGroup struct {
	Name    string
	ID      string
	Members []*VirtualNetwork // each once, in the documents' order
}

// AdminCollection is a rule collection of a virtual network manager's security admin
// configuration. Every collection in the documents counts as deployed.
type AdminCollection struct {
	// Rules is named "MANAGER/CONFIGURATION/COLLECTION"; no NSG can have such a name.
	Rules    *ruleset.NSG
	Networks []*VirtualNetwork // the networks that it applies to, each once
}

// FlowLog is a network watcher's flow log that is enabled.
type FlowLog struct {
	Name, ID string
	// Exactly one is set: what is logged.
	NetworkSecurityGroup *ruleset.NSG
	VirtualNetwork       *VirtualNetwork
	Subnet               *Subnet
	NetworkInterface     *NetworkInterface
}

// Groups are all lists of rules: rule collections, then NSGs.
func (s *Set) Groups() []*ruleset.NSG {
	list := make([]*ruleset.NSG, 0, len(s.NetworkSecurityGroups)+len(s.AdminCollections))
	for _, c := range s.AdminCollections {
		list = append(list, c.Rules)
	}
	return append(list, s.NetworkSecurityGroups...)
}
