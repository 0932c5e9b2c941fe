package ask

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// PathSet is packets that take alike ways, and that the same rules decide.
type PathSet struct {
	// From and To name who sends, and for whom the packets are, in the policy's order. Where the addresses are
	// nobody's, To names the addresses.
	From, To []string
	// Access is Allow or Deny, Reason one of verify's.
	Access, Reason string
	// Deciders are the decisions of each chain that was asked, in the packets' order. Of each the rule is
	// named that denies, or the last that allows.
	Deciders []Decider
	// Legs say how the packets go, from the sender on; behind the first one an appliance sends them on.
	Legs []Leg
	// Chosen means that a load balancer chooses this way among others, by what it knows of a packet.
	Chosen bool
	// Boxes are the packets as they are sent. Each is in one box.
	Boxes []analysis.Box
	// Witnesses are a packet of each box, as rules see it when it is sent: of ICMP the type is DstPort.
	Witnesses []packet.Tuple
	// More means that further boxes are left out.
	More bool

	course   *course
	from, to []place
}

// Decider is the decision of the rules at one end of a leg.
type Decider struct {
	// Of is whose rules: a network interface, or a subnet as vnet/subnet, of an example.
	Of        string
	Direction string
	DiffDecision
	Priority int
}

// Leg is a part of a way.
type Leg struct {
	// NextHop is the type of the route, as Azure's next hop says; empty from outside.
	NextHop string
	// RouteTable and Appliance are those of a user-defined route.
	RouteTable, Appliance string
	// Via names the appliance that the leg ends at; empty at the end of the way.
	Via string
	// Translations are those of an example.
	Translations []azure.Translation
}

// PathSets is the answer about two ends.
type PathSets struct {
	Sets []PathSet
	// Undecided are packets about which nothing is known: their rules cross each other too often, or the
	// answer depends on what a load balancer or an outbound address is chosen.
	Undecided []UndecidedPath
}

// UndecidedPath is packets about which nothing is known.
type UndecidedPath struct {
	From, To []string
	Why      string
	Boxes    []analysis.Box
}
