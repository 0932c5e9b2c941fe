package arm

import (
	"fmt"
	"testing"
)

func TestOpenRulesAreThoseThatAGroupLacks(t *testing.T) {
	const document = `{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","resources":[
		{"type":"Microsoft.Network/networkSecurityGroups","name":"web","properties":{"securityRules":[
			{"name":"known","properties":{%[1]s,"direction":"Inbound","priority":100,"sourceAddressPrefix":"*"}},
			{"name":"in","properties":{%[1]s,"direction":"Inbound","priority":110,"sourceAddressPrefix":"[reference('elsewhere').a]"}},
			{"name":"out","properties":{%[1]s,"direction":"Outbound","priority":120,"sourceAddressPrefix":"[reference('elsewhere').a]"}},
			{"name":"either","properties":{%[1]s,"direction":"[reference('elsewhere').a]","priority":130,"sourceAddressPrefix":"*"}}]}}]}`
	d := Parse("web.json", fmt.Appendf(nil, document,
		`"protocol":"Tcp","access":"Allow","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"80"`))
	if len(d.Faults) > 0 {
		t.Fatal(d.Faults)
	}
	var got string
	for _, r := range d.OpenRules() {
		got += fmt.Sprintln(r.Group.Name, r.Name, r.Inbound, r.Outbound)
	}
	if want := "web either true true\nweb in true false\nweb out false true\n"; got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
}
