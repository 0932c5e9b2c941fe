package ask

// DiffResult is what a change of a policy means, for all packets.
type DiffResult struct {
	// Changes are the packets that one policy allows and the other denies.
	Changes []DiffChange `json:"changes"`
	// RulesWithoutEffect were added, removed or changed, and no packet is treated differently for it.
	RulesWithoutEffect []DiffRule `json:"rulesWithoutEffect"`
	// Undecided are packets about which nothing is known: their rules cross each other too often. What
	// is said of all others holds.
	Undecided []DiffUndecided `json:"undecided"`
	// Open are values that the documents do not give, such as those that Terraform knows after apply.
	Open []DiffOpen `json:"open"`
	// Added and Removed are network interfaces' addresses, and subnets, that only one policy has. They
	// are in no change.
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
}

// DiffFor is who packets are judged for.
type DiffFor struct {
	NetworkInterfaces []string `json:"networkInterfaces"`
	// Subnets stand for their addresses that no network interface has, as vnet/subnet.
	Subnets []string `json:"subnets,omitempty"`
	// NetworkSecurityGroups are those that neither a subnet nor a network interface has.
	NetworkSecurityGroups []string `json:"networkSecurityGroups,omitempty"`
}

// DiffChange is packets whose answer changed.
type DiffChange struct {
	// Kind is what the packets are now: allowed or denied.
	Kind      string `json:"kind"`
	Direction string `json:"direction"`
	DiffFor
	Old   DiffDecision `json:"old"`
	New   DiffDecision `json:"new"`
	Boxes []DiffBox    `json:"boxes"`
	// More means that further boxes are left out.
	More    bool        `json:"more,omitempty"`
	Witness DiffWitness `json:"witness"`
	// Way is a way from the internet that only one of the policies has: a public address, or a rule of a load balancer. The
	// packets are those that come by it, as their receiver sees them. The reason of the other policy is noWayIn.
	Way string `json:"way,omitempty"`
	// EndToEnd tells which packets get through to the other end; absent when the policy does not know that end.
	EndToEnd *DiffEndToEnd `json:"endToEnd,omitempty"`
	// File, Line and Column are where the rule is written that decides now, or for a default rule its group. They are
	// absent where that is not known, as of the running policy.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// The kinds of changes.
const (
	DiffAllowed = "allowed"
	DiffDenied  = "denied"
)

// DiffDecision is who decided. Without a rule the reason says why: noNetworkSecurityGroup, platform or
// closed, as in verify, or noWayIn.
type DiffDecision struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	RuleName             string `json:"ruleName"`
	Access               string `json:"access"`
	Reason               string `json:"reason"`
}

// DiffBox is a set of packets: every source with every destination and port.
type DiffBox struct {
	// Protocol is *, TCP, UDP, ICMP, ICMPv6, ESP, AH, a number, or other: all that rules cannot name.
	Protocol string `json:"protocol"`
	// Sources and Destinations are addresses, prefixes, and ranges: first-last.
	Sources []string `json:"sources"`
	// SourceText and DestinationText say the same for people: with tags by name, "everything except"
	// where that is shorter, and long lists cut.
	SourceText      string   `json:"sourceText"`
	SourcePorts     []string `json:"sourcePorts,omitempty"`
	Destinations    []string `json:"destinations"`
	DestinationText string   `json:"destinationText"`
	// DestinationPorts are those of TCP and UDP.
	DestinationPorts []string `json:"destinationPorts,omitempty"`
	ICMPTypes        []string `json:"icmpTypes,omitempty"`
}

// DiffWitness is one of the packets.
type DiffWitness struct {
	Protocol        string  `json:"protocol"`
	Source          string  `json:"source"`
	SourcePort      *uint16 `json:"sourcePort,omitempty"`
	Destination     string  `json:"destination"`
	DestinationPort *uint16 `json:"destinationPort,omitempty"`
	ICMPType        *uint16 `json:"icmpType,omitempty"`
}

// DiffRule is a rule of one of the policies, or of both.
type DiffRule struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Direction            string `json:"direction"`
	RuleName             string `json:"ruleName"`
	// Change is added, removed or changed.
	Change string `json:"change"`
}

// DiffUndecided is where the bound on states was reached, or where a rule of a group is open.
type DiffUndecided struct {
	Direction string `json:"direction"`
	DiffFor
	// NetworkSecurityGroup and RuleName are the changed rule that matches the packets.
	NetworkSecurityGroup string   `json:"networkSecurityGroup"`
	RuleName             string   `json:"ruleName"`
	Box                  *DiffBox `json:"box,omitempty"`
	// Open says that the rule is not known, so that nothing is said of all packets of the direction; there
	// is no box then.
	Open bool `json:"open,omitempty"`
}
