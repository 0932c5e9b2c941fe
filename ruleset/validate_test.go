package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// web is a rule without a fault; edit changes it.
func web(edit func(r *SecurityRule)) SecurityRule {
	r := SecurityRule{
		Name: "web", Protocol: "Tcp", Access: "Allow", Direction: "Inbound", Priority: "100",
		Source:      Side{PortRange: "*", AddressPrefix: "Internet"},
		Destination: Side{PortRange: "80", AddressPrefix: "*"},
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func group(rules ...SecurityRule) *NetworkSecurityGroup {
	return &NetworkSecurityGroup{File: "nsg.json", Name: "n", ID: "/nsg/n", SecurityRules: rules}
}

// source makes a rule whose source addresses are a list.
func source(prefixes ...string) func(r *SecurityRule) {
	return func(r *SecurityRule) { r.Source.AddressPrefix, r.Source.AddressPrefixes = "", prefixes }
}

func TestFaultsOfARule(t *testing.T) {
	tests := []struct {
		name string
		edit func(r *SecurityRule)
		want []string // "code field value"
	}{
		{"a plain rule has none", nil, nil},
		{"a priority below the range", func(r *SecurityRule) { r.Priority = "99" }, []string{"SecurityRuleInvalidPriority priority 99"}},
		{"a priority above the range", func(r *SecurityRule) { r.Priority = "4097" }, []string{"SecurityRuleInvalidPriority priority 4097"}},
		{"a missing priority", func(r *SecurityRule) { r.Priority = "" }, []string{"SecurityRuleInvalidPriority priority "}},
		{"a priority that is no whole number", func(r *SecurityRule) { r.Priority = "100.5" }, []string{"SecurityRuleInvalidPriority priority 100.5"}},
		{"the highest priority is allowed", func(r *SecurityRule) { r.Priority = "4096" }, nil},
		{"a port that does not exist", func(r *SecurityRule) { r.Destination.PortRange = "66600" }, []string{"SecurityRuleInvalidPortRange destinationPortRange 66600"}},
		{"a range that runs backwards", func(r *SecurityRule) { r.Destination.PortRange = "90-80" }, []string{"SecurityRuleInvalidPortRange destinationPortRange 90-80"}},
		{"a comma list in one string", func(r *SecurityRule) { r.Destination.PortRange = "80,443" }, []string{"SecurityRuleInvalidPortRange destinationPortRange 80,443"}},
		{"a signed port", func(r *SecurityRule) { r.Source.PortRange = "+80" }, []string{"SecurityRuleInvalidPortRange sourcePortRange +80"}},
		{"half a range", func(r *SecurityRule) { r.Source.PortRange = "80-" }, []string{"SecurityRuleInvalidPortRange sourcePortRange 80-"}},
		{"no ports at all", func(r *SecurityRule) { r.Source.PortRange = "" }, []string{"SecurityRuleParametersMissing sourcePortRange "}},
		{"every port in a list among others", func(r *SecurityRule) { r.Source = Side{PortRanges: []string{"*", "80"}, AddressPrefix: "*"} },
			[]string{"SecurityRuleInvalidPortRange sourcePortRanges *"}},
		{"both forms of ports, and what is wrong in each", func(r *SecurityRule) {
			r.Destination.PortRange, r.Destination.PortRanges = "x", []string{"80", "y"}
		}, []string{"SecurityRuleInvalidParameterCombination destinationPortRange x", "SecurityRuleInvalidPortRange destinationPortRanges y",
			"SecurityRuleInvalidPortRange destinationPortRange x"}},
		{"a prefix that is too long", func(r *SecurityRule) { r.Source.AddressPrefix = "10.0.0.0/42" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix 10.0.0.0/42"}},
		{"host bits in a prefix", func(r *SecurityRule) { r.Source.AddressPrefix = "50.206.209.68/27" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix 50.206.209.68/27"}},
		{"an address with a zone", func(r *SecurityRule) { r.Source.AddressPrefix = "fe80::1%eth0" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix fe80::1%eth0"}},
		{"an IPv4-mapped address", func(r *SecurityRule) { r.Source.AddressPrefix = "::ffff:10.0.0.1" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix ::ffff:10.0.0.1"}},
		{"an address range", func(r *SecurityRule) { r.Source.AddressPrefix = "10.0.0.1-10.0.0.9" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix 10.0.0.1-10.0.0.9"}},
		{"what can be no tag", func(r *SecurityRule) { r.Source.AddressPrefix = "Sql..West" }, []string{"SecurityRuleInvalidAddressPrefix sourceAddressPrefix Sql..West"}},
		{"no addresses at all", func(r *SecurityRule) { r.Destination.AddressPrefix = "" }, []string{"SecurityRuleParametersMissing destinationAddressPrefix "}},
		{"a tag and * in a list", source("10.0.0.0/8", "Internet", "*", "virtual_network"), []string{
			"SecurityRuleParameterContainsUnsupportedValue sourceAddressPrefixes Internet", "SecurityRuleParameterContainsUnsupportedValue sourceAddressPrefixes *",
			"SecurityRuleParameterContainsUnsupportedValue sourceAddressPrefixes virtual_network"}},
		{"overlapping prefixes in a list", source("149.173.0.0/16", "149.173.8.27/32"), []string{"OverlappingSubnetsNotPermittedInSecurityRule sourceAddressPrefixes 149.173.8.27/32"}},
		{"the same address twice in a list", source("10.0.0.1", "10.0.0.1/32"), []string{"OverlappingSubnetsNotPermittedInSecurityRule sourceAddressPrefixes 10.0.0.1/32"}},
		{"both families in a list", source("10.0.0.0/8", "fd00::/8"), []string{"ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies sourceAddressPrefixes fd00::/8"}},
		{"a family a side", func(r *SecurityRule) { r.Source.AddressPrefix, r.Destination.AddressPrefix = "0.0.0.0/0", "fd00::1" },
			[]string{"ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies destinationAddressPrefix fd00::1"}},
		{"a prefix beside an application security group", func(r *SecurityRule) { r.Source.ApplicationSecurityGroups = []string{"/asg/a"} },
			[]string{"SecurityRuleInvalidParameterCombination sourceAddressPrefix sourceAddressPrefix, sourceApplicationSecurityGroups"}},
		{"an application security group without an id", func(r *SecurityRule) {
			r.Source.AddressPrefix, r.Source.ApplicationSecurityGroups = "", []string{""}
		}, []string{"SecurityRuleInvalidApplicationSecurityGroup sourceApplicationSecurityGroups "}},
		{"values that no enumeration has", func(r *SecurityRule) { r.Protocol, r.Access, r.Direction = "Any", "Drop", "" },
			[]string{"SecurityRuleInvalidProtocol protocol Any", "SecurityRuleInvalidAccess access Drop", "SecurityRuleInvalidDirection direction "}},
		{"a description of 141 characters", func(r *SecurityRule) { r.Description = strings.Repeat("ü", 141) },
			[]string{"SecurityRuleDescriptionTooLong description " + strings.Repeat("ü", 100) + "..."}},
		{"a description of 140 characters", func(r *SecurityRule) { r.Description = strings.Repeat("ü", 140) }, nil},
		{"every fault of a rule, not only the first", func(r *SecurityRule) {
			r.Name, r.Priority, r.Destination.PortRange, r.Source.AddressPrefix = "no spaces", "1", "x", "10.0.0.1/8"
		}, []string{"InvalidResourceName name no spaces", "SecurityRuleInvalidPriority priority 1",
			"SecurityRuleInvalidPortRange destinationPortRange x", "SecurityRuleInvalidAddressPrefix sourceAddressPrefix 10.0.0.1/8"}},
		{"an unknown field is not checked, the others are", func(r *SecurityRule) {
			r.Source.AddressPrefix, r.Priority, r.Unknown = "", "5", map[string]bool{"sourceAddressPrefix": true}
		}, []string{"SecurityRuleInvalidPriority priority 5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nsg, faults := group(web(tt.edit)).Validate(nil)
			var got []string
			for _, f := range faults {
				got = append(got, f.Code+" "+f.Field+" "+f.Value)
				if f.File != "nsg.json" || f.Resource != "networkSecurityGroups/n" || f.Rule == "" || f.Message == "" {
					t.Errorf("the fault does not say where it is: %+v", f)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("faults\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if valid := len(nsg.Rules) == 1; valid != (len(tt.want) == 0) {
				t.Errorf("%d rules kept", len(nsg.Rules))
			}
		})
	}
}

func TestMessagesFollowAzure(t *testing.T) {
	tests := []struct {
		name  string
		rules []SecurityRule
		want  string
	}{
		{"priority", []SecurityRule{web(func(r *SecurityRule) { r.Priority = "4097" })},
			"Security rule has invalid Priority. Value provided: 4097 Allowed range 100-4096."},
		{"port", []SecurityRule{web(func(r *SecurityRule) { r.Destination.PortRange = "66600" })},
			"Security rule has invalid Port range. Value provided: 66600. Value should be an integer OR integer range with '-' delimiter. Valid range 0-65535."},
		{"overlap", []SecurityRule{web(source("149.173.8.27", "149.173.0.0/16"))},
			"Security rule parameter SourceAddressPrefix for rule with Id web contains overlapping subnets [149.173.0.0/16, 149.173.8.27/32], which is not permitted."},
		{"conflict", []SecurityRule{web(nil), web(func(r *SecurityRule) { r.Name = "twin" })},
			"Security rule twin conflicts with rule web. Rules cannot have the same Priority and Direction."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, faults := group(tt.rules...).Validate(nil)
			if len(faults) != 1 || faults[0].Message != tt.want {
				t.Errorf("got %v, want %q", faults, tt.want)
			}
		})
	}
}

func TestFaultsOfAGroup(t *testing.T) {
	named := func(name, priority string) SecurityRule {
		return web(func(r *SecurityRule) { r.Name, r.Priority = name, priority })
	}
	many := func(n int, edit func(i int, r *SecurityRule)) []SecurityRule {
		rules := make([]SecurityRule, n)
		for i := range rules {
			rules[i] = web(func(r *SecurityRule) {
				r.Name, r.Priority = fmt.Sprintf("r%d", i), fmt.Sprint(100+i)
				if edit != nil {
					edit(i, r)
				}
			})
		}
		return rules
	}
	addresses := func(i, n int) []string {
		list := make([]string, n)
		for j := range list {
			list[j] = fmt.Sprintf("10.%d.%d.%d", i, j/250, j%250)
		}
		return list
	}
	asgs := func(i, n int) []string {
		list := make([]string, n)
		for j := range list {
			list[j] = fmt.Sprintf("/asg/%d-%d", i, j)
		}
		return list
	}
	tests := []struct {
		name string
		raw  *NetworkSecurityGroup
		want []string // codes
	}{
		{"rules of one priority in both directions do not conflict", group(web(nil), web(func(r *SecurityRule) { r.Name, r.Direction = "out", "Outbound" })), nil},
		{"three rules of one priority are two conflicts", group(named("a", "100"), named("b", "100"), named("c", "100")),
			[]string{"SecurityRuleConflict", "SecurityRuleConflict"}},
		{"a rule with another fault takes its priority all the same",
			group(web(func(r *SecurityRule) { r.Name, r.Protocol = "a", "x" }), named("b", "100")), []string{"SecurityRuleInvalidProtocol", "SecurityRuleConflict"}},
		{"names differ in more than case", group(named("Web", "100"), named("web", "101")), []string{"InvalidRequestFormat"}},
		{"the group's name is checked", &NetworkSecurityGroup{Name: "-n"}, []string{"InvalidResourceName"}},
		{"an unknown name is not", &NetworkSecurityGroup{Name: "[variables('n')]", UnknownName: true}, nil},
		{"1,000 rules are allowed", group(many(1000, nil)...), nil},
		{"1,001 are not", group(many(1001, nil)...), []string{"SecurityRuleCountLimitReached"}},
		{"4,000 source addresses in a group are allowed", group(many(4, func(i int, r *SecurityRule) { source(addresses(i, 1000)...)(r) })...), nil},
		{"4,001 are not, whichever rules have them", group(many(5, func(i int, r *SecurityRule) {
			source(addresses(i, []int{1000, 1000, 1000, 1000, 1}[i])...)(r)
		})...), []string{"SecurityRuleAddressesOrPortsPerSecurityGroupLimitReached"}},
		{"ten application security groups on a side are allowed", group(many(1, func(i int, r *SecurityRule) {
			r.Source.AddressPrefix, r.Source.ApplicationSecurityGroups = "", asgs(i, 10)
		})...), nil},
		{"eleven are not", group(many(1, func(i int, r *SecurityRule) {
			r.Source.AddressPrefix, r.Source.ApplicationSecurityGroups = "", asgs(i, 11)
		})...), []string{"NumberOfApplicationSecurityGroupsReferencedInSecurityRuleLimitReached"}},
		{"101 application security groups in a group are too many", group(many(11, func(i int, r *SecurityRule) {
			r.Source.AddressPrefix, r.Source.ApplicationSecurityGroups = "", asgs(i, min(10, 101-10*i))
		})...), []string{"NetworkSecurityGroupInvalidNumberOfApplicationSecurityGroups"}},
		{"4,001 ports in a rule are too many", group(web(func(r *SecurityRule) {
			r.Destination.PortRange = ""
			for i := range 4001 {
				r.Destination.PortRanges = append(r.Destination.PortRanges, fmt.Sprint(i))
			}
		})), []string{"SecurityRuleAddressesOrPortsPerSecurityGroupLimitReached"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, faults := tt.raw.Validate(nil)
			var got []string
			for _, f := range faults {
				got = append(got, f.Code)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v\n%v", got, tt.want, faults)
			}
		})
	}
}

func TestCanonicalForms(t *testing.T) {
	tests := []struct {
		name string
		edit func(r *SecurityRule)
		want Rule
	}{
		{"enumerations and tags in any case", func(r *SecurityRule) {
			r.Protocol, r.Access, r.Direction, r.Source.AddressPrefix = "TCP", "allow", "INBOUND", "INTERNET"
		}, Rule{Protocol: TCP, Access: Allow, Direction: Inbound, Source: Peer{Tag: "Internet"}}},
		{"classic tag names", func(r *SecurityRule) { r.Source.AddressPrefix = "VIRTUAL_NETWORK" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Tag: "VirtualNetwork"}}},
		{"the classic load balancer", func(r *SecurityRule) { r.Source.AddressPrefix = "AZURE_LOADBALANCER" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Tag: "AzureLoadBalancer"}}},
		{"a tag of the tag file", func(r *SecurityRule) { r.Source.AddressPrefix = "Storage.WestEurope" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Tag: "Storage.WestEurope"}}},
		{"a bare address", func(r *SecurityRule) { r.Source.AddressPrefix = "10.0.0.4" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Prefixes: prefixes("10.0.0.4/32")}}},
		{"an IPv6 prefix", func(r *SecurityRule) { r.Source.AddressPrefix = "2001:DB8:0::/48" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Prefixes: prefixes("2001:db8::/48")}}},
		{"0.0.0.0/0 is a prefix, not *", func(r *SecurityRule) { r.Source.AddressPrefix = "0.0.0.0/0" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Prefixes: prefixes("0.0.0.0/0")}}},
		{"spaces around a port range, as a published template has them", func(r *SecurityRule) { r.Destination.PortRange, r.Source.AddressPrefix = "80 ", "*" },
			Rule{Protocol: TCP, Access: Allow, Source: Peer{Any: true}}},
		{"a list in place of a single port", func(r *SecurityRule) {
			r.Destination.PortRange, r.Destination.PortRanges, r.Source.AddressPrefix = "", []string{"80"}, "*"
		}, Rule{Protocol: TCP, Access: Allow, Source: Peer{Any: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nsg, faults := group(web(tt.edit)).Validate(nil)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			got := nsg.Rules[0]
			if got.Protocol != tt.want.Protocol || got.Access != tt.want.Access || got.Direction != tt.want.Direction || !samePeer(got.Source, tt.want.Source) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if !slices.Equal(got.DestinationPorts, []PortRange{{80, 80}}) || !slices.Equal(got.SourcePorts, []PortRange{AllPorts}) {
				t.Errorf("ports %v and %v", got.SourcePorts, got.DestinationPorts)
			}
		})
	}
}

func TestKnownTagsDecideWhenGiven(t *testing.T) {
	known := func(tag string) (canonical, problem string) {
		if strings.EqualFold(tag, "sql") {
			return "Sql", ""
		}
		return "", "tags.json has only Sql"
	}
	tests := []struct {
		name, tag, want string
	}{
		{"a tag of the file gets its spelling", "SQL", "Sql"},
		{"a tag that needs no file", "internet", "Internet"},
		{"a tag that is not in the file", "Storage", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nsg, faults := group(web(func(r *SecurityRule) { r.Source.AddressPrefix = tt.tag })).Validate(known)
			if tt.want == "" {
				if len(faults) != 1 || faults[0].Code != CodeInvalidAddressPrefix || !strings.Contains(faults[0].Message, "tags.json has only Sql") {
					t.Errorf("faults %v", faults)
				}
				return
			}
			if len(faults) > 0 || nsg.Rules[0].Source.Tag != tt.want {
				t.Errorf("%v, %+v", faults, nsg.Rules)
			}
		})
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"a letter", "a", true},
		{"letters, digits and the signs between", "A1_b.c-d", true},
		{"an underscore at the end", "a_", true},
		{"80 characters", strings.Repeat("a", 80), true},
		{"81 characters", strings.Repeat("a", 81), false},
		{"nothing", "", false},
		{"a hyphen at the end", "a-", false},
		{"a dot at the end", "a.", false},
		{"an underscore at the beginning", "_a", false},
		{"a space", "a b", false},
		{"a slash", "a/b", false},
		{"letters beyond ASCII", "größe", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := validName(tt.text); got != tt.want {
				t.Errorf("%q: %v, want %v", tt.text, got, tt.want)
			}
		})
	}
}

// The sorted sweep finds a prefix exactly when comparing all pairs does.
func TestOverlapsAgainstAllPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var list []netip.Prefix
		for range r.IntN(20) {
			list = append(list, randomPrefix(r))
		}
		inner := map[netip.Prefix]bool{}
		for i, p := range list {
			for j, q := range list {
				if i != j && p.Overlaps(q) && q.Bits() <= p.Bits() {
					inner[p] = true
				}
			}
		}
		v := &validator{group: group(), nsg: &NSG{}}
		v.overlaps(&SecurityRule{Name: "r"}, "sourceAddressPrefixes", list)
		got := map[netip.Prefix]bool{}
		for _, f := range v.faults {
			got[netip.MustParsePrefix(f.Value)] = true
		}
		for _, p := range list {
			if got[p] != inner[p] {
				t.Fatalf("%v in %v: found %v, want %v", p, list, got[p], inner[p])
			}
		}
	}
}

func TestFaultsAsErrors(t *testing.T) {
	var none Faults
	if none.Err() != nil || none.Error() != "" {
		t.Errorf("no faults are the error %v, %q", none.Err(), none.Error())
	}
	faults := Faults{
		{Code: "C", File: "f.json", Resource: "networkSecurityGroups/n", Rule: "r", Field: "priority", Value: "1", Message: "m"},
		{Code: "D", Message: "no place"},
	}
	want := "f.json: networkSecurityGroups/n: rule \"r\": priority \"1\": C: m\nD: no place"
	if got := faults.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, n := range []int{10, 1000} {
		raw := group()
		for i := range n {
			raw.SecurityRules = append(raw.SecurityRules, web(func(r *SecurityRule) {
				r.Name, r.Priority = fmt.Sprintf("r%d", i), fmt.Sprint(100+i)
				source(fmt.Sprintf("10.0.%d.%d", i/250, i%250), fmt.Sprintf("10.1.%d.0/24", i/250))(r)
			}))
		}
		b.Run(fmt.Sprint("rules=", n), func(b *testing.B) {
			for b.Loop() {
				if _, faults := raw.Validate(nil); len(faults) > 0 {
					b.Fatal(faults)
				}
			}
		})
	}
}

// A rule without the field would match other packets than the one that is meant.
func TestARuleWithAnUnknownFieldIsCheckedButNotReturned(t *testing.T) {
	for _, field := range SecurityRuleFields {
		for _, name := range field.Names() {
			t.Run(name, func(t *testing.T) {
				g := NetworkSecurityGroup{Name: "g", SecurityRules: []SecurityRule{web(func(r *SecurityRule) { r.Unknown = map[string]bool{name: true} })}}
				nsg, faults := g.Validate(nil)
				if len(faults) > 0 || (len(nsg.Rules) == 1) != field.Literal {
					t.Errorf("%d rules, faults %v", len(nsg.Rules), faults)
				}
			})
		}
	}
}
