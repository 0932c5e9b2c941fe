package analysis

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// Proof is the answer to a question about all packets that has yes or no for an answer.
type Proof struct {
	// Holds means that it is so for every packet.
	Holds bool
	// Against is a packet for which it is not so, and who decides about it. Nil when it holds, and when
	// nothing is known.
	Against *Counterexample
	// Undecided are places where the bound on states was reached. Without a counterexample elsewhere nothing is
	// known then.
	Undecided []Undecided
}

// Counterexample is a packet that shows that something does not hold.
type Counterexample struct {
	Packet   packet.Tuple // as classifier.Linear takes it
	Old, New Decision     // of both chains; of a question about one chain, both are its
}

// Equivalent proves that two chains allow the same packets, or finds one that only one of them allows. It ends
// at the first one. Compare finds all.
func Equivalent(old, new Chain, o Options) Proof {
	c := compared(old, new, o, true)
	p := Proof{Holds: len(c.found.list)+len(c.out.Undecided) == 0, Undecided: c.out.Undecided}
	if len(c.found.list) > 0 {
		f := c.found.list[0]
		p.Against = &Counterexample{f.boxes[0].slice.witness(&f.boxes[0].box), f.old, f.new}
	}
	return p
}

// Always proves that a chain allows every packet of a question, or that it denies every one, or finds a packet with
// which it does not. A chain that always denies reaches nothing. AlwaysAllow counts as Allow.
func Always(c Chain, access ruleset.Access, o Options) Proof {
	everything := classifier.Rule{Sources: ruleset.Everywhere(), Destinations: ruleset.Everywhere(),
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
	p := Equivalent(c, Chain{NewList([]Rule{{Rule: everything, Access: access}})}, o)
	if p.Against != nil {
		p.Against.New = p.Against.Old
	}
	for i := range p.Undecided {
		if p.Undecided[i].New {
			p.Undecided[i] = Undecided{Stage: -1, Rule: NoRule, Box: p.Undecided[i].Box}
		}
	}
	return p
}
