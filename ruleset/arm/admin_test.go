package arm

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/template"
)

const (
	// managerID is an id of the deployment's own group, as resourceId() makes it.
	managerID  = "/subscriptions/" + template.NoSubscription + "/resourceGroups/" + template.NoResourceGroup + "/providers/Microsoft.Network/networkManagers/nm"
	adminVNet  = `{"type":"Microsoft.Network/virtualNetworks","name":"vnet1","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}}}`
	adminGroup = `{"type":"Microsoft.Network/networkManagers/networkGroups","name":"nm/prod","properties":{}},
	{"type":"Microsoft.Network/networkManagers/networkGroups/staticMembers","name":"nm/prod/one","properties":{"resourceId":"vnet1"}}`
	adminConfig = `{"type":"Microsoft.Network/networkManagers/securityAdminConfigurations","name":"nm/c","properties":{}}`
)

// adminDocument is a template with a manager, a group of vnet1 and a collection of these rules.
func adminDocument(rules string) string {
	return `{"resources":[` + adminVNet + `,` + adminGroup + `,` + adminConfig + `,
	{"type":"Microsoft.Network/networkManagers/securityAdminConfigurations/ruleCollections","name":"nm/c/rc",
	 "properties":{"appliesToGroups":[{"networkGroupId":"` + managerID + `/networkGroups/prod"}]},
	 "resources":[` + rules + `]}]}`
}

func adminRule(name, properties string) string {
	return `{"type":"rules","name":"` + name + `","kind":"Custom","properties":{"access":"Deny","direction":"Inbound","protocol":"Any",` + properties + `}}`
}

func TestAdminRulesAreReadFromNestedAndChildResourcesAndByID(t *testing.T) {
	rule := adminRule("deny-ssh", `"priority":1,"destinationPortRanges":["22"],
		"sources":[{"addressPrefixType":"ServiceTag","addressPrefix":"internet"},{"addressPrefixType":"NetworkGroup","addressPrefix":"`+managerID+`/networkGroups/prod"}],
		"destinations":[{"addressPrefixType":"IPPrefix","addressPrefix":"*"}]`)
	byID := strings.NewReplacer(`"type":"rules","name":"deny-ssh"`,
		`"id":"`+managerID+`/securityAdminConfigurations/c/ruleCollections/rc/rules/deny-ssh"`).Replace(rule)
	list := `{"resources":[` + adminVNet + `,` + adminGroup + `,` + adminConfig + `,
	{"id":"` + managerID + `/securityAdminConfigurations/c/ruleCollections/rc","properties":{"appliesToGroups":[{"networkGroupId":"nm/prod"}]}},` + byID + `]}`
	for name, document := range map[string]string{"nested": adminDocument(rule), "a list with ids": list} {
		t.Run(name, func(t *testing.T) {
			d := Parse("f.json", []byte(document))
			if len(d.Faults)+len(d.Unresolved) > 0 {
				t.Fatal(d.Faults, d.Unresolved)
			}
			if len(d.Set.AdminCollections) != 1 {
				t.Fatalf("%d collections", len(d.Set.AdminCollections))
			}
			c := d.Set.AdminCollections[0]
			if len(c.Networks) != 1 || c.Networks[0].Name != "vnet1" || c.Rules.Name != "nm/c/rc" || len(c.Rules.Rules) != 1 {
				t.Fatalf("%+v", c.Rules)
			}
			r := c.Rules.Rules[0]
			if r.Name != "deny-ssh" || r.Priority != 1 || r.Access != ruleset.Deny || !r.Destination.Any || len(r.Source.AnyOf) != 2 ||
				r.Source.AnyOf[0].Tag != ruleset.TagInternet || r.Source.AnyOf[1].NetworkGroup != d.Set.NetworkGroups[0].ID {
				t.Errorf("%+v", r)
			}
			if got := c.Rules.Ordered(ruleset.Inbound); len(got) != 1 || got[0].QualifiedName() != "securityAdminRules/deny-ssh" {
				t.Errorf("ordered: %+v", got)
			}
		})
	}
}

func TestFaultsOfAdminRulesAreNamed(t *testing.T) {
	one := adminRule("one", `"priority":5`)
	for _, tt := range []struct{ name, document, code, field, value string }{
		{"a priority beyond the range", adminDocument(adminRule("r", `"priority":4097`)), ruleset.CodeAdminInvalidPriority, "priority", "4097"},
		{"a priority of zero", adminDocument(adminRule("r", `"priority":0`)), ruleset.CodeAdminInvalidPriority, "priority", "0"},
		{"a priority twice", adminDocument(one + `,` + adminRule("two", `"priority":5`)), ruleset.CodeAdminConflict, "priority", "5"},
		{"a name twice", adminDocument(one + `,` + adminRule("ONE", `"priority":6`)), CodeDuplicateResource, "name", "ONE"},
		{"an unknown access", adminDocument(strings.Replace(one, `"Deny"`, `"Block"`, 1)), ruleset.CodeAdminInvalidAccess, "access", "Block"},
		{"an unknown direction", adminDocument(strings.Replace(one, `"Inbound"`, `"In"`, 1)), ruleset.CodeAdminInvalidDirection, "direction", "In"},
		{"the protocol of security rules", adminDocument(strings.Replace(one, `"Any"`, `"*"`, 1)), ruleset.CodeAdminInvalidProtocol, "protocol", "*"},
		{"a default rule", adminDocument(strings.Replace(one, `"Custom"`, `"Default"`, 1)), ruleset.CodeAdminInvalidKind, "kind", "Default"},
		{"a port out of range", adminDocument(adminRule("r", `"priority":1,"sourcePortRanges":["70000"]`)), ruleset.CodeAdminInvalidPorts, "sourcePortRanges", "70000"},
		{"an address with host bits", adminDocument(adminRule("r", `"priority":1,"sources":[{"addressPrefixType":"IPPrefix","addressPrefix":"10.0.0.1/8"}]`)),
			ruleset.CodeAdminInvalidAddress, "sources", "10.0.0.1/8"},
		{"an unknown type of address", adminDocument(adminRule("r", `"priority":1,"destinations":[{"addressPrefixType":"Subnet","addressPrefix":"a"}]`)),
			ruleset.CodeAdminInvalidAddress, "destinations", "a"},
		{"a tag of the platform", adminDocument(adminRule("r", `"priority":1,"destinations":[{"addressPrefixType":"ServiceTag","addressPrefix":"AzurePlatformDNS"}]`)),
			ruleset.CodeAdminInvalidAddress, "destinations", "AzurePlatformDNS"},
		{"both families", adminDocument(adminRule("r", `"priority":1,"sources":[{"addressPrefixType":"IPPrefix","addressPrefix":"10.0.0.1"},{"addressPrefixType":"IPPrefix","addressPrefix":"fd00::1"}]`)),
			ruleset.CodeAdminMixedFamilies, "sources, destinations", "fd00::1/128"},
		{"a network group that is not there", adminDocument(adminRule("r", `"priority":1,"sources":[{"addressPrefixType":"NetworkGroup","addressPrefix":"nm/none"}]`)),
			CodeInvalidResourceReference, "sources", "nm/none"},
		{"a network group without its id", adminDocument(adminRule("r", `"priority":1,"sources":[{"addressPrefixType":"NetworkGroup"}]`)),
			ruleset.CodeAdminInvalidAddress, "sources", ""},
		{"the addresses of security rules", adminDocument(adminRule("r", `"priority":1,"sourceAddressPrefixes":["10.9.0.0/16"]`)),
			CodeInvalidRequestFormat, "sourceAddressPrefixes", `["10.9.0.0/16"]`},
		{"a port of security rules", adminDocument(adminRule("r", `"priority":1,"destinationPortRange":"22"`)), CodeInvalidRequestFormat, "destinationPortRange", "22"},
		{"a misspelt side", adminDocument(adminRule("r", `"priority":1,"Sorces":[]`)), CodeInvalidRequestFormat, "Sorces", "[]"},
		{"a misspelt type", strings.Replace(adminDocument(one), `"type":"rules"`, `"type":"rule"`, 1), CodeInvalidResourceType, "type", "rule"},
		{"members that are subnets", strings.Replace(adminDocument(one), `"name":"nm/prod","properties":{}`, `"name":"nm/prod","properties":{"memberType":"Subnet"}`, 1),
			CodeInvalidMemberType, "memberType", "Subnet"},
		{"a member that no document has", strings.Replace(adminDocument(one), `"resourceId":"vnet1"`, `"resourceId":"vnet2"`, 1),
			CodeInvalidResourceReference, "resourceId", "vnet2"},
		{"a collection that applies to nothing", strings.Replace(adminDocument(one), `"appliesToGroups":[{"networkGroupId":"`+managerID+`/networkGroups/prod"}]`, `"description":""`, 1),
			CodeNoAppliesToGroups, "appliesToGroups", ""},
		{"a collection without its configuration", strings.Replace(adminDocument(one), adminConfig+`,`, ``, 1), CodeParentNotFound, "name", "nm/c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(tt.document))
			for _, f := range d.Faults {
				if f.Code == tt.code && f.Field == tt.field && f.Value == tt.value && f.File == "f.json" && f.Resource != "" {
					return
				}
			}
			t.Errorf("faults %v, want %s of %s %q", d.Faults, tt.code, tt.field, tt.value)
		})
	}
}

func TestPlatformTagsNeedNoFile(t *testing.T) {
	for text, want := range map[string]netip.Prefix{
		"azureplatformdns": netip.MustParsePrefix("168.63.129.16/32"), "AzurePlatformIMDS": netip.MustParsePrefix("169.254.169.254/32"),
		"AZUREPLATFORMLKM": netip.MustParsePrefix("20.118.99.224/32"),
	} {
		d := Parse("f.json", []byte(`{"type":"Microsoft.Network/networkSecurityGroups","name":"g","properties":{"securityRules":[{"name":"r","properties":{
			"access":"Deny","direction":"Outbound","priority":100,"protocol":"*","sourcePortRange":"*","destinationPortRange":"*",
			"sourceAddressPrefix":"*","destinationAddressPrefix":"`+text+`"}}]}}`))
		if len(d.FaultsWithUnknownTags()) > 0 {
			t.Fatal(d.FaultsWithUnknownTags())
		}
		tag := d.Set.NetworkSecurityGroups[0].Rules[0].Destination.Tag
		if s := ruleset.PlatformServiceOf(tag); s == nil || s.Addresses[0] != want {
			t.Errorf("%s is read as %s: %+v", text, tag, s)
		}
	}
}
