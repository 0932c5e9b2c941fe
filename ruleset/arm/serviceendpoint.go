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

// addService adds a service's tags to a subnet, or says why it can't.
func (f *fields) addService(s *policy.Subnet, tag string, regional bool, locations []string) (problem string) {
	if f.l.knownTags == nil {
		return tagFileNeeded
	}
	if regional && len(locations) == 0 && s.VirtualNetwork.Location != "" {
		locations = []string{s.VirtualNetwork.Location}
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
	return ""
}
