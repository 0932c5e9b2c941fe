package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// explainFlags are the flags of explain.
type explainFlags struct {
	question ask.ExplainParameters
	expect   expectation
	from     source
}

func init() { addVerb(newExplain) }

func newExplain(g *global) *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain FROM TO[:PORT][/PROTOCOL]",
		Short: "Say what becomes of packets between two ends, and why",
		Long: `Say what becomes of packets between two ends, and why: routes, translation, each rule that
decides, and for a denial the nearest rule that would have allowed it and the fields that fail.
From a daemon, also how often each rule decided, and live flows.

FROM and TO are ` + endForms + `.
PORT is a port, a range, a list of these, or a service such as https; PROTOCOL is tcp, udp, icmp,
esp or ah. Packets that take alike ways and that the same rules decide are told together, with one
of them as the example; verify --path says the same of it.`,
		Example: `  nsgctl explain internet nic:web1-nic:https
  nsgctl explain 10.0.1.4 10.0.2.4:1433/tcp --expect deny`,
		Args: func(c *cobra.Command, args []string) error { return f.args(c, args) },
		RunE: func(c *cobra.Command, _ []string) error {
			result, err := answer(&f.from, g,
				func(d *control.Client) (*inspect.Explained, error) { return d.Explain(c.Context(), &f.question) },
				func(p *inspect.Loaded) (*inspect.Explained, error) {
					r, err := ask.Explain(c.Context(), p.Snapshot, &f.question)
					if err != nil {
						return nil, err
					}
					return inspect.ExplainedBy(r), nil
				})
			if err := show(c, g, result, err, explainTable); err != nil {
				return err
			}
			return f.expected(c, result)
		},
	}
	c.Flags().IntVar(&f.question.MaxStates, "max-states", 0, "bound on the work for each pair of ends (default 500000); what it leaves is listed as not decided")
	f.expect.flag(c)
	f.from.flags(c, g)
	f.from.subscriptionFlags(c)
	return c
}

func (f *explainFlags) args(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return usageError{fmt.Errorf("explain: two ends are needed, FROM and TO; given are %d", len(args))}
	}
	f.question.From, f.question.To = args[0], args[1]
	if err := f.from.args(c, args[2:]); err != nil {
		return err
	}
	if err := f.expect.check("explain"); err != nil {
		return err
	}
	if err := f.from.checkSubscription("explain"); err != nil {
		return err
	}
	if ask.CheckMaxStates(f.question.MaxStates) != nil {
		return usageError{fmt.Errorf("explain: --max-states %d: allowed are 1 to %d", f.question.MaxStates, ask.MaxStatesLimit)}
	}
	if _, err := ask.ParseTarget(f.question.To); err != nil {
		return usageError{fmt.Errorf("explain: TO %w", err)}
	}
	return nil
}

// expected holds --expect against every kind of packets, and names the first that differs.
func (f *explainFlags) expected(c *cobra.Command, r *inspect.Explained) error {
	if f.expect != "" && len(r.Paths)+len(r.Undecided) == 0 {
		return f.expect.failed(c, noPackets)
	}
	differ, first := 0, ""
	for i := range r.Paths {
		p := &r.Paths[i]
		if !f.expect.disappoints(p.Access) {
			continue
		}
		if differ++; differ == 1 {
			first = diffBoxes(p.Boxes)[0] + ": " + explainVerdict(p)
		}
	}
	switch kinds := plural(len(r.Paths), "kind") + " of packets"; {
	case f.expect == "":
		return nil
	case differ == 1 && len(r.Paths) == 1:
		return f.expect.failed(c, first)
	case differ > 0:
		return f.expect.failed(c, fmt.Sprintf("%d of %s differ, such as %s", differ, kinds, first))
	case len(r.Undecided) > 0:
		return f.expect.failed(c, fmt.Sprintf("of some packets from %s to %s nothing is known", reachEnds(r.Undecided[0].From), reachEnds(r.Undecided[0].To)))
	case r.More:
		return f.expect.failed(c, "more than these "+kinds+" are not shown: ask for less")
	}
	return nil
}

// explainVerdict is such as "Deny by securityRules/r of NSG1", or "Deny: noRoute".
func explainVerdict(p *inspect.ExplainedPath) string {
	if p.RuleName != "" && p.Reason == ask.ReasonRule {
		return fmt.Sprintf("%s by %s of %s", p.Access, p.RuleName, p.NetworkSecurityGroup)
	}
	return p.Access + ": " + p.Reason
}

// noPackets is told of ends between which there is nothing to explain.
const noPackets = "there are no such packets: the ends have no addresses of one family"

// explainTable prints a block for each kind of packets.
func explainTable(w io.Writer, r *inspect.Explained) error {
	if len(r.Paths)+len(r.Undecided) == 0 {
		fmt.Fprintln(w, noPackets)
	}
	for i := range r.Paths {
		if i > 0 {
			fmt.Fprintln(w)
		}
		explainPath(w, &r.Paths[i])
	}
	if r.More {
		fmt.Fprintf(w, "\nand more than these %d kinds of packets: ask for less\n", len(r.Paths))
	}
	undecidedTable(w, r.Undecided)
	return nil
}

func explainPath(w io.Writer, p *inspect.ExplainedPath) {
	line := func(word, format string, args ...any) {
		fmt.Fprintf(w, "  %-8s %s\n", word, printable(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintln(w, printable(explainVerdict(p)))
	line("from", "%s", reachEnds(p.From))
	line("to", "%s", reachEnds(p.To))
	for _, text := range diffBoxes(p.Boxes) {
		line("packets", "%s", text)
	}
	line("such as", "%s", diffWitness(&p.Example))
	for i := range p.Legs {
		l := &p.Legs[i]
		line("way", "%s", explainWay(l))
		for j := range l.Translations {
			line("", "%s", translationLine(&l.Translations[j]))
		}
		for j := range l.Stages {
			line("rule", "%s", explainStage(&l.Stages[j]))
		}
		if l.PlatformService != "" {
			line("rule", "none is asked: %s is a service of the platform", l.PlatformService)
		}
	}
	if p.Chosen {
		line("chosen", "a load balancer leads some of these packets to others")
	}
	if p.Nearest != nil {
		line("nearest", "%s of %s, priority %d, allows it but for", p.Nearest.RuleName, p.Nearest.NetworkSecurityGroup, p.Nearest.Priority)
		for _, f := range p.Nearest.Fields {
			line("", "%s: %s, not %s", f.Name, someOf(f.Is), f.Wanted)
		}
	}
	if p.Live != nil {
		line("flows", "%s", plural(*p.Live, "live flow"))
		for i := range p.Flows {
			f := &p.Flows[i]
			line("", "%s %s > %s %s", f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort), f.State)
		}
	}
}

// explainWay is such as "vm1-nic to vm2-nic by VirtualAppliance 10.0.9.4 of route table rt".
func explainWay(l *ask.ExplainedLeg) string {
	receiver := l.Receiver
	if receiver == "" {
		receiver = "nobody"
	}
	text := l.Sender + " to " + receiver
	if l.NextHop != "" {
		text += " by " + strings.TrimSpace(l.NextHop+" "+l.NextHopAddress)
	}
	if l.RouteTable != "" {
		text += " of route table " + l.RouteTable
	}
	return text
}

// explainStage is such as "Deny by DenyAllInBound of NSG1, priority 65500, inbound; 3 hits".
func explainStage(s *ask.ExplainedStage) string {
	text := fmt.Sprintf("%s by %s of %s, priority %d, %s", s.Access, lastName(s.RuleName), s.NetworkSecurityGroup, s.Priority, strings.ToLower(s.Direction))
	if s.Counters != nil {
		text += "; " + plural(int(s.Counters.Hits), "hit")
	}
	return text
}

// undecidedTable lists the packets about which nothing is known.
func undecidedTable(w io.Writer, list []ask.ReachUndecided) {
	for i := range list {
		u := &list[i]
		fmt.Fprintf(w, "not decided, from %s to %s: %s\n", printable(reachEnds(u.From)), printable(reachEnds(u.To)), u.Why)
		for _, line := range diffBoxes(u.Boxes) {
			fmt.Fprintf(w, "  packets  %s\n", line)
		}
	}
}
