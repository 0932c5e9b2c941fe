package arm

import (
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// CodeInvalidEndpointPolicies is our own code.
const CodeInvalidEndpointPolicies = "SubnetInvalidPrivateEndpointNetworkPolicies"

// endpointPolicies reads whether a subnet's NSG and route table hold for its private endpoints. Azure's default is no.
func (f *fields) endpointPolicies() policy.EndpointPolicies {
	const field = "privateEndpointNetworkPolicies"
	switch text := f.text(field); strings.ToLower(text) {
	case "", "disabled":
	case "enabled":
		return policy.EndpointPolicies{NetworkSecurityGroup: true, RouteTable: true}
	case "networksecuritygroupenabled":
		return policy.EndpointPolicies{NetworkSecurityGroup: true}
	case "routetableenabled":
		return policy.EndpointPolicies{RouteTable: true}
	default:
		f.fault(CodeInvalidEndpointPolicies, field, text, "allowed are Disabled, Enabled, NetworkSecurityGroupEnabled and RouteTableEnabled")
	}
	return policy.EndpointPolicies{}
}

// buildPrivateEndpoint marks the network interfaces of a private endpoint. Where the documents have none of
// them it makes one, of the addresses that the endpoint asks for.
func (l *loader) buildPrivateEndpoint(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	found := l.endpointed[strings.ToLower(r.identity())]
	for _, id := range f.references("networkInterfaces") {
		if e, _ := l.index.resolve(interfaceKind, id, r.file); e != nil && e.object != nil {
			e.object.(*policy.NetworkInterface).PrivateEndpointID = r.identity()
			found = true
		}
	}
	if f.markCondition(r); found || len(f.open) > 0 {
		return
	}
	n := &policy.NetworkInterface{Name: f.text("customNetworkInterfaceName"), PrivateEndpointID: r.identity()}
	if n.Name == "" {
		n.Name = r.name + ".nic"
	}
	n.ID = strings.TrimSuffix(r.identity(), kindPaths[privateEndpointKind]+"/"+r.name) + kindPaths[interfaceKind] + "/" + n.Name
	var subnet *policy.Subnet
	if id := f.reference("subnet"); id != "" {
		subnet, _ = f.resolve(subnetKind, "subnet", id).(*policy.Subnet)
	}
	groups := f.asgs("applicationSecurityGroups")
	if len(f.open) > 0 || subnet == nil {
		return
	}
	configurations := f.objects("ipConfigurations")
	if len(configurations) == 0 { // the portal's and most templates' form: Azure chooses one address
		configurations = []map[string]any{{}}
	}
	dynamic := len(l.dynamic)
	for i, body := range configurations {
		name := textOf(body, "name")
		c := l.read(r.file, r.place()+"/ipConfigurations/"+name, "", body)
		address, chosen, ipv6 := c.single(c.text("privateIPAddress"))
		if chosen {
			l.dynamic = append(l.dynamic, dynamicAddress{c, n, i, 1, ipv6})
		}
		n.IPConfigurations = append(n.IPConfigurations, policy.IPConfiguration{Name: name, ID: n.ID + "/ipConfigurations/" + name, Address: address,
			Subnet: subnet, Primary: i == 0, ApplicationSecurityGroups: groups})
		if address.IsValid() {
			l.checkAddress(c, &n.IPConfigurations[i])
		}
	}
	if !l.register(&resource{kind: interfaceKind, file: r.file, name: n.Name, id: n.ID}, n.ID, n, n.Name) {
		l.dynamic = l.dynamic[:dynamic]
		return
	}
	l.out.Set.NetworkInterfaces = append(l.out.Set.NetworkInterfaces, n)
}
