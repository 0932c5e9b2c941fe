package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// subnetServices are the types of resources that stand in subnets and need ports there, by the type in lower case.
var subnetServices = map[string]string{
	provider + "applicationgateways":    policy.ServiceApplicationGateway,
	"microsoft.apimanagement/service":   policy.ServiceAPIManagement,
	"microsoft.sql/managedinstances":    policy.ServiceSQLManagedInstance,
	"microsoft.hdinsight/clusters":      policy.ServiceHDInsight,
	"microsoft.web/hostingenvironments": policy.ServiceAppServiceEnvironment,
}

// standing is a service and the subnets that its resource names.
type standing struct {
	file, service string
	subnets       []string
}

// noteService notes a resource that stands in subnets. An application gateway of the first version needs other ports.
func (l *loader) noteService(file string, body map[string]any) {
	service := subnetServices[typeOf(body)]
	if service == "" {
		return
	}
	properties, _ := lookup(body, "properties").(map[string]any)
	sku, _ := lookup(properties, "sku").(map[string]any)
	if service == policy.ServiceApplicationGateway && !strings.HasSuffix(strings.ToLower(textOf(sku, "tier")), "_v2") {
		return
	}
	left := mostValues
	if ids := subnetIDs(properties, &left); len(ids) > 0 {
		l.inSubnets = append(l.inSubnets, standing{file, service, ids})
	}
}

// mostValues bounds how much of a resource is looked through.
const mostValues = 10_000

// subnetIDs are the ids of subnets in a value.
func subnetIDs(value any, left *int) (ids []string) {
	if *left--; *left < 0 {
		return nil
	}
	switch value := value.(type) {
	case string:
		if subnetKind.isID(value) {
			return []string{value}
		}
	case []any:
		for _, v := range value {
			ids = append(ids, subnetIDs(v, left)...)
		}
	case map[string]any:
		for _, v := range value {
			ids = append(ids, subnetIDs(v, left)...)
		}
	}
	return ids
}

// placeServices tells subnets which services stand in them.
func (l *loader) placeServices() {
	for _, s := range l.inSubnets {
		for _, id := range s.subnets {
			e, _ := l.index.resolve(subnetKind, id, s.file)
			if e == nil {
				continue
			}
			if subnet, _ := e.object.(*policy.Subnet); subnet != nil {
				subnet.Services = withService(subnet.Services, s.service)
			}
		}
	}
}

func withService(list []string, service string) []string {
	if at, found := slices.BinarySearch(list, service); !found {
		list = slices.Insert(list, at, service)
	}
	return list
}

// delegatedTo are the services that a subnet is delegated to, of those that need ports there.
func (f *fields) delegatedTo() (services []string) {
	list, _ := lookup(f.values, "delegations").([]any)
	for _, v := range list {
		body, _ := v.(map[string]any)
		if properties, ok := lookup(body, "properties").(map[string]any); ok {
			body = properties
		}
		if service := subnetServices[strings.ToLower(textOf(body, "serviceName"))]; service != "" && service != policy.ServiceApplicationGateway {
			services = withService(services, service)
		}
	}
	return services
}
