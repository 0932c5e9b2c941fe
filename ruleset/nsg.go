package ruleset

import (
	"cmp"
	"slices"
)

// NSG is a validated network security group, or a collection of security admin rules,
// which has no default rules.
type NSG struct {
	Admin           bool // a rule collection
	Name            string
	ID              string // resource id; made up from the name when the document has none
	ResourceGUID    string // resourceGuid, empty when the document has none
	Location        string
	FlushConnection bool
	Rules           []Rule // user rules only, in the order of the document
}

// RuleID is the resource id of a user rule of the NSG, made up when the document has none; empty
// for a default rule, which has none in Azure's answers either.
func (n *NSG) RuleID(r *Rule) string {
	switch {
	case r.Default:
		return ""
	case r.ID != "" || r.Admin:
		return r.ID
	}
	return n.ID + "/securityRules/" + r.Name
}

// NetworkSecurityGroup is an NSG as a document has it, before validation.
type NetworkSecurityGroup struct {
	File            string // for faults
	Name            string
	ID              string
	ResourceGUID    string
	Location        string
	FlushConnection bool
	SecurityRules   []SecurityRule
	// UnknownName means that the document does not give the name; Name takes its place.
	UnknownName bool
}

// DefaultRules are the six rules at the end of every NSG, in Azure's order. Their names
// are those of ARM, whose case differs from Azure's documents. The result is the caller's.
func DefaultRules() []Rule {
	anyone, network := Peer{Any: true}, Peer{Tag: TagVirtualNetwork}
	return []Rule{
		defaultRule("AllowVnetInBound", "Allow inbound traffic from all VMs in VNET",
			65000, Inbound, Allow, network, network),
		defaultRule("AllowAzureLoadBalancerInBound", "Allow inbound traffic from azure load balancer",
			65001, Inbound, Allow, Peer{Tag: TagAzureLoadBalancer}, anyone),
		defaultRule("DenyAllInBound", "Deny all inbound traffic",
			65500, Inbound, Deny, anyone, anyone),
		defaultRule("AllowVnetOutBound", "Allow outbound traffic from all VMs to all VMs in VNET",
			65000, Outbound, Allow, network, network),
		defaultRule("AllowInternetOutBound", "Allow outbound traffic from all VMs to Internet",
			65001, Outbound, Allow, anyone, Peer{Tag: TagInternet}),
		defaultRule("DenyAllOutBound", "Deny all outbound traffic",
			65500, Outbound, Deny, anyone, anyone),
	}
}

func defaultRule(name, description string, priority int, d Direction, a Access, source, destination Peer) Rule {
	return Rule{
		Name: name, Description: description, Priority: priority, Direction: d, Access: a, Protocol: AnyProtocol,
		Source: source, Destination: destination,
		SourcePorts: []PortRange{AllPorts}, DestinationPorts: []PortRange{AllPorts}, Default: true,
	}
}

// Ordered are the rules of one direction in the order in which they are tried:
// the user's by priority, then the default rules, unless the NSG is a rule collection.
// Priorities are unique in a validated NSG. Rules of equal priority keep their order.
func (n *NSG) Ordered(d Direction) []Rule {
	var rules []Rule
	for i := range n.Rules {
		if n.Rules[i].Direction == d {
			rules = append(rules, n.Rules[i])
		}
	}
	slices.SortStableFunc(rules, func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, r := range DefaultRules() {
		if r.Direction != d || n.Admin {
			continue
		}
		if n.ID != "" {
			r.ID = n.ID + "/defaultSecurityRules/" + r.Name
		}
		rules = append(rules, r)
	}
	return rules
}
