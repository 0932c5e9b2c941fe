package analysis_test

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// allow lets TCP in from a prefix to one port of anything.
func allow(from string, port uint16) analysis.Rule {
	return analysis.Rule{Access: ruleset.Allow, Rule: classifier.Rule{
		Protocol: ruleset.TCP, Sources: []netip.Prefix{netip.MustParsePrefix(from)}, Destinations: ruleset.Everywhere(),
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: port, Last: port}},
	}}
}

// Somebody opens port 22 to the whole world instead of to one network.
func ExampleCompare() {
	old := analysis.NewList([]analysis.Rule{allow("198.51.100.0/24", 22), denyAll})
	new := analysis.NewList([]analysis.Rule{allow("0.0.0.0/0", 22), denyAll})
	d := analysis.Compare(analysis.Chain{old}, analysis.Chain{new}, analysis.Options{
		Within: analysis.Packets{Destinations: []netip.Prefix{netip.MustParsePrefix("10.0.1.4/32")}},
	})
	for _, c := range d.Changes {
		fmt.Println(c.Old.Access, "by rule", c.Old.Rule, "is now", c.New.Access, "by rule", c.New.Rule)
		for _, b := range c.Boxes {
			fmt.Println(b)
		}
		fmt.Println("such as", c.Witness)
	}
	// Output:
	// Deny by rule 1 is now Allow by rule 0
	// TCP everything except 198.51.100.0/24 -> 10.0.1.4 port 22
	// such as TCP 203.0.113.10:49152 -> 10.0.1.4:22
}

// Two lists in a row, as a subnet's and a NIC's: only what both allow is allowed.
func ExampleReach() {
	subnet := analysis.NewList([]analysis.Rule{allow("10.0.0.0/8", 80), allow("10.0.0.0/8", 443), denyAll})
	nic := analysis.NewList([]analysis.Rule{allow("10.1.0.0/16", 443), denyAll})
	for _, a := range analysis.Reach(analysis.Chain{subnet, nic}, analysis.Options{}).Allowed {
		fmt.Println(a.Boxes[0])
	}
	// Output:
	// TCP 10.1.0.0/16 -> 0.0.0.0/0 port 443
}

// The second rule comes too late.
func ExampleRoles() {
	rules := []analysis.Rule{denyAll, allow("10.0.0.0/8", 80)}
	rules[0].Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/7")}
	for i, role := range analysis.Roles(analysis.NewList(rules), analysis.Options{}) {
		fmt.Println("rule", i, "decides:", role.Decides, "blocked by:", role.Blockers)
	}
	// Output:
	// rule 0 decides: true blocked by: []
	// rule 1 decides: false blocked by: [0]
}

// Two ways to write the same, and a packet that shows that a third one is not.
func ExampleEquivalent() {
	two := analysis.Chain{analysis.NewList([]analysis.Rule{allow("10.0.0.0/25", 80), allow("10.0.0.128/25", 80), denyAll})}
	one := analysis.Chain{analysis.NewList([]analysis.Rule{allow("10.0.0.0/24", 80), denyAll})}
	wide := analysis.Chain{analysis.NewList([]analysis.Rule{allow("10.0.0.0/23", 80), denyAll})}
	fmt.Println(analysis.Equivalent(two, one, analysis.Options{}).Holds)
	p := analysis.Equivalent(one, wide, analysis.Options{Within: analysis.Packets{Destinations: []netip.Prefix{netip.MustParsePrefix("10.1.0.4/32")}}})
	fmt.Println(p.Holds, p.Against.Packet)
	// Output:
	// true
	// false TCP 10.0.1.1:49152 -> 10.1.0.4:80
}

// Nothing that the internet sends reaches a network.
func ExampleAlways() {
	list := analysis.NewList([]analysis.Rule{allow("10.0.0.0/8", 22), denyAll})
	internet := analysis.Packets{Sources: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
	fmt.Println(analysis.Always(analysis.Chain{list}, ruleset.Deny, analysis.Options{Within: internet}).Holds)
	// Output:
	// true
}

// Two rules that could be one: the denial between them is about another port.
func ExampleMergeable() {
	deny := allow("0.0.0.0/0", 22)
	deny.Access = ruleset.Deny
	rules := []analysis.Rule{allow("10.0.0.0/24", 80), deny, allow("10.0.2.0/24", 80), denyAll}
	for _, m := range analysis.Mergeable(analysis.NewList(rules), nil, analysis.Options{}) {
		fmt.Println("rules", m.Rules, "could be one that has the", m.Field, "of all")
	}
	// Output:
	// rules [0 2] could be one that has the sources of all
}

// Names shorten sets of addresses: what a rule lets in without one network.
func ExampleNames_Text() {
	var names analysis.Names
	names.Add("VirtualNetwork", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("192.168.0.0/24")})
	deny := allow("10.0.7.0/24", 443)
	deny.Access = ruleset.Deny
	inside := allow("10.0.0.0/16", 443)
	inside.Sources = append(inside.Sources, netip.MustParsePrefix("192.168.0.0/24"))
	list := analysis.NewList([]analysis.Rule{deny, inside, denyAll})
	for _, a := range analysis.Reach(analysis.Chain{list}, analysis.Options{}).Allowed {
		fmt.Println(names.Text(a.Boxes[0].Sources), "by rule", a.By.Rule)
	}
	// Output:
	// VirtualNetwork except 10.0.7.0/24 by rule 1
}
