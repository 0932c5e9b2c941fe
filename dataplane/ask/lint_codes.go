package ask

// The severities of findings, the worst first.
const (
	SeverityError   = "error"   // somebody gets in, or something breaks
	SeverityWarning = "warning" // it does nothing, or not what it seems to do
	SeverityInfo    = "info"    // it could be better
)

// Severities lists the severities, the worst first.
var Severities = []string{SeverityError, SeverityWarning, SeverityInfo}

// Check is one thing that lint looks for. A code keeps its meaning for ever.
type Check struct {
	Code string
	// Severity is that of most findings. Message and severity of one finding may say more.
	Severity string
	Title    string // what is found, in a line
	Help     string // what to do
	// Reference is the address of the document of Microsoft's that the check rests on.
	Reference string
	// Scanners are the ids of other scanners' checks that mean the same.
	Scanners []string
}

// The codes of findings about what rules mean where they stand.
const (
	LintUndecided = "NSG100"
	LintShadowed  = "NSG101"
	LintRedundant = "NSG102"
	LintEmpty     = "NSG103"
	LintElsewhere = "NSG104"
	LintDefault   = "NSG105"
	LintSplit     = "NSG106"
	LintNoTagFile = "NSG107"
	LintMergeable = "NSG108"
)

// The codes of findings about what is open.
const (
	LintSSH        = "NSG201"
	LintRDP        = "NSG202"
	LintManagement = "NSG203"
	LintDatabase   = "NSG204"
	LintHTTP       = "NSG205"
	LintUDP        = "NSG206"
	LintEverything = "NSG207"
	LintWide       = "NSG208"
	LintOutward    = "NSG209"
	LintSideways   = "NSG210"
)

// The codes of findings about pitfalls of Azure.
const (
	LintProbe               = "NSG301"
	LintPlatform            = "NSG302"
	LintService             = "NSG303"
	LintPrivateEndpoint     = "NSG304"
	LintBoth                = "NSG305"
	LintGaps                = "NSG306"
	LintBareSubnet          = "NSG307"
	LintUnusedGroup         = "NSG308"
	LintUnusedASG           = "NSG309"
	LintMail                = "NSG310"
	LintEverythingIsNetwork = "NSG311"
	LintEveryRegion         = "NSG312"
	LintShut                = "NSG313"
)

// The codes of findings about documents.
const (
	LintWarning         = "NSG400"
	LintUnknownProperty = "NSG401"
	LintNotRead         = "NSG402"
	LintNothingRead     = "NSG403"
	LintIncomplete      = "NSG404"
)

// The codes of findings about waivers. They can't be waived.
const (
	LintWaiverUnused  = "NSG501"
	LintWaiverExpired = "NSG502"
	LintMark          = "NSG503"
)

const (
	docs          = "https://learn.microsoft.com/azure/"
	docEvaluation = docs + "virtual-network/network-security-group-how-it-works"
	docOverview   = docs + "virtual-network/network-security-groups-overview"
	docPractices  = docs + "security/fundamentals/network-best-practices"
	docJustInTime = docs + "defender-for-cloud/just-in-time-access-usage"
	docManage     = docs + "virtual-network/manage-network-security-group"
	docPlatform   = docs + "virtual-network/what-is-ip-address-168-63-129-16"
	docProbes     = docs + "load-balancer/load-balancer-custom-probe-overview"
	docTemplates  = docs + "azure-resource-manager/templates/syntax"
	docTags       = docs + "virtual-network/service-tags-overview"
	docASG        = docs + "virtual-network/application-security-groups"
)

// Checks are all checks, by code.
var Checks = []Check{
	{Code: LintUndecided, Severity: SeverityInfo, Title: "not decided: the bound on the work was reached",
		Help: "Raise --max-states, or split the group's rules.", Reference: docOverview},
	{Code: LintShadowed, Severity: SeverityWarning, Title: "shadowed: rules before it match all of its packets; an error where a rule that allows hides a denial",
		Help: "Give the rule a lower priority number than the rules that hide it, or remove it.", Reference: docOverview},
	{Code: LintRedundant, Severity: SeverityInfo, Title: "redundant: without it other rules would do the same with its packets",
		Help: "Remove the rule, or say in its description why it stays.", Reference: docOverview},
	{Code: LintEmpty, Severity: SeverityWarning, Title: "matches no packet, such as one for an empty application security group",
		Help: "Give the rule addresses: put a network interface into the group, or mend the field.", Reference: docASG},
	{Code: LintElsewhere, Severity: SeverityWarning, Title: "is for addresses that nobody has where its group stands",
		Help: "Name an address of the subnet or network interface that has the group, or move the rule to the group that stands there.", Reference: docEvaluation},
	{Code: LintDefault, Severity: SeverityInfo, Title: "a default rule would do the same with its packets",
		Help: "Remove the rule: Azure's default rules are always there.", Reference: docOverview + "#default-security-rules"},
	{Code: LintSplit, Severity: SeverityWarning, Title: "allowed by one of the two network security groups, and denied by the other wherever both stand",
		Help: "Allow the packets in both groups, or keep one group: the subnet's or the network interface's.", Reference: docEvaluation},
	{Code: LintNoTagFile, Severity: SeverityWarning, Title: "names a service tag whose addresses are not known; an error where AzureCloud would reach a management or database port",
		Help: "Give Microsoft's service tag file with --service-tags, or mend the tag's name.", Reference: docTags + "#discover-service-tags-by-using-downloadable-json-files"},
	{Code: LintMergeable, Severity: SeverityInfo, Title: "one rule could do what several do",
		Help: "Write one rule with the values of all in the named field, where the first stands.", Reference: docOverview + "#augmented-security-rules"},
	{Code: LintSSH, Severity: SeverityError, Title: "the internet reaches SSH; info where no way in leads there", Scanners: []string{"CKV_AZURE_10", "AZU-0050"},
		Help: "Allow SSH from known addresses alone, or reach machines through Azure Bastion or a VPN.", Reference: docPractices},
	{Code: LintRDP, Severity: SeverityError, Title: "the internet reaches RDP; info where no way in leads there", Scanners: []string{"CKV_AZURE_9", "AZU-0048"},
		Help: "Allow RDP from known addresses alone, or reach machines through Azure Bastion or a VPN.", Reference: docPractices},
	{Code: LintManagement, Severity: SeverityError, Title: "the internet reaches another management port: Telnet, RPC, SNMP, LDAP, SMB, Docker, etcd, VNC, WinRM, Kubernetes; info where no way in leads there", Scanners: []string{"AZU-0074"},
		Help: "Allow management from known addresses alone, just in time or through a VPN.", Reference: docJustInTime},
	{Code: LintDatabase, Severity: SeverityError, Title: "the internet reaches a database port; info where no way in leads there", Scanners: []string{"AZU-0074"},
		Help: "Allow the database's clients alone: their subnet or application security group.", Reference: docPractices},
	{Code: LintHTTP, Severity: SeverityInfo, Title: "the internet reaches HTTP, port 80", Scanners: []string{"CKV_AZURE_160"},
		Help: "Serve HTTPS, and let port 80 only redirect to it.", Reference: docPractices},
	{Code: LintUDP, Severity: SeverityWarning, Title: "the internet reaches UDP ports; info where no way in leads there", Scanners: []string{"CKV_AZURE_77"},
		Help: "Allow UDP from known addresses alone: open services amplify attacks on others.", Reference: docPractices},
	{Code: LintEverything, Severity: SeverityError, Title: "the internet reaches every TCP port; info where no way in leads there", Scanners: []string{"AZU-0047"},
		Help: "Allow the ports that are served, from those who need them.", Reference: docPractices},
	{Code: LintWide, Severity: SeverityWarning, Title: "more than 65,536 public addresses reach a management or database port",
		Help: "Name the addresses of the clients. A tag such as AzureCloud holds other customers' machines too.", Reference: docTags},
	{Code: LintOutward, Severity: SeverityWarning, Title: "every port is open outbound to the internet; info where a default rule opens it", Scanners: []string{"AZU-0051"},
		Help: "Allow the destinations that are needed, and deny the rest of Internet behind them.", Reference: docPractices},
	{Code: LintSideways, Severity: SeverityInfo, Title: "machines may open SSH and RDP to the whole virtual network", Scanners: []string{"AZR-000139"},
		Help: "Deny ports 22 and 3389 to VirtualNetwork outbound where no administrator sits.", Reference: docPractices},
	{Code: LintProbe, Severity: SeverityError, Title: "shuts out a load balancer's health probe, so that its backend counts as down",
		Help: "Allow AzureLoadBalancer to the probe's port before the denial.", Reference: docProbes},
	{Code: LintPlatform, Severity: SeverityWarning, Title: "shuts out a service of the platform: DNS, instance metadata, or key management (KMS)",
		Help: "Allow the service's tag before the denial: AzurePlatformDNS, AzurePlatformIMDS or AzurePlatformLKM. Behind a 0.0.0.0/0 route allow TCP 1688 to the KMS addresses.", Reference: docPlatform},
	{Code: LintService, Severity: SeverityError, Title: "shuts out what a service in the subnet needs, by the table below; info where the service adds the rules itself",
		Help: "Add the rule that the service's document asks for.", Reference: docs + "virtual-network/virtual-network-for-azure-services"},
	{Code: LintPrivateEndpoint, Severity: SeverityWarning, Title: "a private endpoint that its subnet's rules don't hold for",
		Help: "Set privateEndpointNetworkPolicies of the subnet to NetworkSecurityGroupEnabled or Enabled.", Reference: docs + "private-link/disable-private-endpoint-network-policy"},
	{Code: LintBoth, Severity: SeverityInfo, Title: "network security groups at both the subnet and the network interface",
		Help: "Keep one of the two, unless there is a reason for both.", Reference: docEvaluation},
	{Code: LintGaps, Severity: SeverityInfo, Title: "priorities without a gap: no rule fits between",
		Help: "Number rules in steps, such as 100, 110, 120.", Reference: docManage},
	{Code: LintBareSubnet, Severity: SeverityWarning, Title: "a subnet without a network security group", Scanners: []string{"CKV2_AZURE_31", "AZR-000263"},
		Help: "Associate a group with the subnet.", Reference: docPractices},
	{Code: LintUnusedGroup, Severity: SeverityInfo, Title: "a network security group that nobody has", Scanners: []string{"AZR-000140"},
		Help: "Associate the group, or remove it.", Reference: docManage},
	{Code: LintUnusedASG, Severity: SeverityInfo, Title: "an application security group without members, or that no rule names",
		Help: "Use the group, or remove it.", Reference: docASG},
	{Code: LintMail, Severity: SeverityInfo, Title: "allows TCP 25 outbound, which Azure itself blocks in most subscriptions",
		Help: "Send mail through a relay on port 587. Only Enterprise Agreement subscriptions, and those exempted, send to port 25.", Reference: docs + "virtual-network/troubleshoot-outbound-smtp-connectivity"},
	{Code: LintEverythingIsNetwork, Severity: SeverityWarning, Title: "a 0.0.0.0/0 route makes the tag VirtualNetwork stand for every address",
		Help: "Deny what AllowVnetInBound and AllowVnetOutBound now allow, by address.", Reference: docTags},
	{Code: LintEveryRegion, Severity: SeverityInfo, Title: "names AzureCloud where a region would do",
		Help: "Name the region, such as AzureCloud.westeurope, or the service that is meant.", Reference: docTags},
	{Code: LintShut, Severity: SeverityWarning, Title: "nothing comes in, not even health probes", Scanners: []string{"AZR-000138"},
		Help: "Allow what is served, and AzureLoadBalancer, before the denial; DenyAllInBound denies the rest already.", Reference: docOverview + "#default-security-rules"},
	{Code: LintWarning, Severity: SeverityInfo, Title: "another warning of validate",
		Help: "See what validate says of it.", Reference: docTemplates},
	{Code: LintUnknownProperty, Severity: SeverityWarning, Title: "a property that does not exist",
		Help: "Mend the property's name: Azure refuses it or ignores it.", Reference: docs + "templates/microsoft.network/networksecuritygroups"},
	{Code: LintNotRead, Severity: SeverityInfo, Title: "a property or resource that matters and is not read",
		Help: "Keep in mind that the answers leave it out.", Reference: docTemplates},
	{Code: LintNothingRead, Severity: SeverityWarning, Title: "a document in which nothing is read",
		Help: "Give what az network nsg list and az network vnet list write, or a template.", Reference: docTemplates},
	{Code: LintIncomplete, Severity: SeverityWarning, Title: "a page of a longer list (nextLink)",
		Help: "Fetch the other pages, and give them too.", Reference: docs + "azure-resource-manager/management/manage-resources-rest"},
	{Code: LintWaiverUnused, Severity: SeverityWarning, Title: "a waiver that nothing is found for",
		Help: "Remove the waiver.", Reference: docOverview},
	{Code: LintWaiverExpired, Severity: SeverityWarning, Title: "a waiver whose last day is over; what it is for is found again",
		Help: "Mend what was waived, or give the waiver a later day.", Reference: docOverview},
	{Code: LintMark, Severity: SeverityWarning, Title: "a mark nsgd:ignore without a code of lint or a reason",
		Help: "Write nsgd:ignore NSG201 and the reason.", Reference: docOverview},
}

// CheckOf is the check of a code; nil when there is none.
func CheckOf(code string) *Check {
	for i := range Checks {
		if Checks[i].Code == code {
			return &Checks[i]
		}
	}
	return nil
}
