package arm

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/ruleset/policy"
)

func TestSubnetsKnowTheServicesThatNeedPortsThere(t *testing.T) {
	const network = `{"type":"Microsoft.Network/virtualNetworks","name":"v","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},
		"subnets":[{"name":"s","properties":{"addressPrefix":"10.0.1.0/24"%s}}]}}`
	const id = "/subscriptions/x/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/s"
	for _, c := range []struct {
		name, delegations, resource string
		want                        []string
	}{
		{"an application gateway of the second version", "", `{"type":"Microsoft.Network/applicationGateways","name":"g","properties":{"sku":{"tier":"Standard_v2"},"gatewayIPConfigurations":[{"properties":{"subnet":{"id":"` + id + `"}}}]}}`,
			[]string{policy.ServiceApplicationGateway}},
		{"one of the first version needs other ports", "", `{"type":"Microsoft.Network/applicationGateways","name":"g","properties":{"sku":{"tier":"Standard"},"gatewayIPConfigurations":[{"properties":{"subnet":{"id":"` + id + `"}}}]}}`, nil},
		{"API Management", "", `{"type":"Microsoft.ApiManagement/service","name":"a","properties":{"virtualNetworkConfiguration":{"subnetResourceId":"` + id + `"}}}`, []string{policy.ServiceAPIManagement}},
		{"a delegation, in any case", `,"delegations":[{"name":"d","properties":{"serviceName":"microsoft.sql/managedInstances"}}]`, "", []string{policy.ServiceSQLManagedInstance}},
		{"a delegation and a resource of the same kind count once", `,"delegations":[{"name":"d","properties":{"serviceName":"Microsoft.Web/hostingEnvironments"}}]`,
			`{"type":"Microsoft.Web/hostingEnvironments","name":"e","properties":{"virtualNetwork":{"id":"` + id + `"}}}`, []string{policy.ServiceAppServiceEnvironment}},
		{"a service that needs no ports", `,"delegations":[{"name":"d","properties":{"serviceName":"Microsoft.ContainerInstance/containerGroups"}}]`, "", nil},
		{"a subnet elsewhere", "", `{"type":"Microsoft.HDInsight/clusters","name":"h","properties":{"roles":[{"virtualNetworkProfile":{"subnet":"/subscriptions/x/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/w/subnets/s"}}]}}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "[" + fmt.Sprintf(network, c.delegations)
			if c.resource != "" {
				text += "," + c.resource
			}
			d := Parse("p.json", []byte(text+"]"))
			if len(d.Faults) > 0 {
				t.Fatal(d.Faults)
			}
			sub := d.Set.VirtualNetworks[0].Subnets[0]
			if !slices.Equal(sub.Services, c.want) {
				t.Errorf("%v, want %v", sub.Services, c.want)
			}
			if file, line, _ := d.Position(sub); file != "p.json" || line != 2 {
				t.Errorf("the subnet stands in line %d of %q", line, file)
			}
		})
	}
}
