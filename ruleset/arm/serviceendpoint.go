package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// CodeServiceEndpointUnknown is our own code, in Documents.Warnings.
const CodeServiceEndpointUnknown = "ServiceEndpointNotRead"

// endpointServices are the service tags of the services that service endpoints lead to, in lower case.
// Of regional ones only the tag of the region counts.
var endpointServices = map[string]struct {
	tag      string
	regional bool
}{
	"microsoft.storage": {"Storage", true}, "microsoft.storage.global": {"Storage", false}, "microsoft.sql": {"Sql", true},
	"microsoft.azurecosmosdb": {"AzureCosmosDB", false}, "microsoft.keyvault": {"AzureKeyVault", false},
	"microsoft.servicebus": {"ServiceBus", false}, "microsoft.eventhub": {"EventHub", false}, "microsoft.web": {"AppService", false},
	"microsoft.cognitiveservices": {"CognitiveServicesManagement", false}, "microsoft.containerregistry": {"AzureContainerRegistry", false},
	"microsoft.azureactivedirectory": {"AzureActiveDirectory", false},
}

// pairedRegions are the pairs of Azure's regions, empty for one that has none ("Azure region pairs and nonpaired
// regions", with the regions named as locations are).
var pairedRegions = map[string]string{
	"eastasia": "southeastasia", "southeastasia": "eastasia",
	"australiaeast": "australiasoutheast", "australiasoutheast": "australiaeast",
	"australiacentral": "australiacentral2", "australiacentral2": "australiacentral",
	"canadacentral": "canadaeast", "canadaeast": "canadacentral",
	"chinanorth": "chinaeast", "chinaeast": "chinanorth",
	"chinanorth2": "chinaeast2", "chinaeast2": "chinanorth2",
	"chinanorth3": "chinaeast3", "chinaeast3": "chinanorth3",
	"northeurope": "westeurope", "westeurope": "northeurope",
	"francecentral": "francesouth", "francesouth": "francecentral",
	"germanywestcentral": "germanynorth", "germanynorth": "germanywestcentral",
	"centralindia": "southindia", "southindia": "centralindia",
	"japaneast": "japanwest", "japanwest": "japaneast",
	"koreacentral": "koreasouth", "koreasouth": "koreacentral",
	"norwayeast": "norwaywest", "norwaywest": "norwayeast",
	"southafricanorth": "southafricawest", "southafricawest": "southafricanorth",
	"swedencentral": "swedensouth", "swedensouth": "swedencentral",
	"switzerlandnorth": "switzerlandwest", "switzerlandwest": "switzerlandnorth",
	"ukwest": "uksouth", "uksouth": "ukwest",
	"eastus": "westus", "westus": "eastus",
	"eastus2": "centralus", "centralus": "eastus2",
	"northcentralus": "southcentralus", "southcentralus": "northcentralus",
	"westus2": "westcentralus", "westcentralus": "westus2",
	"uaenorth": "uaecentral", "uaecentral": "uaenorth",
	"usdodeast": "usdodcentral", "usdodcentral": "usdodeast",
	"usgovtexas": "usgovvirginia", "usgovvirginia": "usgovtexas",
	"brazilsouth": "southcentralus", "brazilsoutheast": "brazilsouth", "westindia": "southindia", "westus3": "eastus", "usgovarizona": "usgovtexas", // in one direction
	"austriaeast": "", "israelcentral": "", "italynorth": "", "mexicocentral": "", "newzealandnorth": "", "polandcentral": "", "qatarcentral": "", "spaincentral": "",
}

// readServiceEndpoints gives a subnet the service tags that its service endpoints lead to. Where a tag is
// not known, its routes are missing: that is a warning if a packet could take another way then.
func (f *fields) readServiceEndpoints(s *policy.Subnet) {
	const field = "serviceEndpoints"
	for _, o := range f.objects(field) {
		e := &fields{l: f.l, file: f.file, place: f.place, values: o, open: f.open}
		name := e.text("service")
		service, known := endpointServices[strings.ToLower(name)]
		problem := "no service tag is known for the service"
		if known {
			problem = f.addService(s, service.tag, service.regional, e.texts("locations"))
		}
		if problem != "" && name != "" && (s.RouteTable != nil || s.DisableDefaultOutbound) {
			f.l.warn(f.newFault(CodeServiceEndpointUnknown, field, name, problem+": the routes of the service endpoint are missing"))
		}
	}
	slices.Sort(s.ServiceEndpoints)
	s.ServiceEndpoints = slices.Compact(s.ServiceEndpoints)
}

// addService adds a service's tags to a subnet, or says why some are missing.
func (f *fields) addService(s *policy.Subnet, tag string, regional bool, locations []string) (problem string) {
	if f.l.knownTags == nil {
		return tagFileNeeded
	}
	if regional && len(locations) == 0 && s.VirtualNetwork.Location != "" {
		locations = []string{s.VirtualNetwork.Location}
		if tag == "Storage" { // Azure adds the paired region, to which storage fails over
			pair, known := pairedRegions[regionOf(s.VirtualNetwork.Location)]
			switch {
			case pair != "":
				locations = append(locations, pair)
			case !known:
				problem = "the region that " + s.VirtualNetwork.Location + " is paired with is not known; locations would name both"
			}
		}
	}
	names := []string{tag}
	if regional && len(locations) > 0 && !slices.Contains(locations, "*") {
		names = nil
		for _, location := range locations {
			names = append(names, tag+"."+strings.ReplaceAll(location, " ", ""))
		}
	}
	for _, name := range names {
		known, unknown := f.l.knownTags(name)
		if unknown != "" {
			return unknown
		}
		s.ServiceEndpoints = append(s.ServiceEndpoints, known)
	}
	return problem
}
