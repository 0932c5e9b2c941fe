package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// flowFlags are the flags of flows beside its filter.
type flowFlags struct {
	since       time.Duration
	sum, follow bool
}

func (f *flowFlags) flags(c *cobra.Command) {
	c.Flags().DurationVar(&f.since, "since", 0, "list flows that have ended within this time in place of live ones")
	c.Flags().BoolVar(&f.sum, "sum", false, "with --since: list the sums by rule and pair in place of the flows")
	c.Flags().BoolVar(&f.follow, "follow", false, "show flows as they begin and end, until interrupted")
}

func (f *flowFlags) check(c *cobra.Command) error {
	since := c.Flags().Changed("since")
	switch {
	case f.follow && since:
		return usageError{errors.New("flows: --follow and --since exclude each other")}
	case f.follow && c.Flags().Changed("limit"):
		return usageError{errors.New("flows: --follow and --limit exclude each other")}
	case f.sum && !since:
		return usageError{errors.New("flows: --sum goes with --since")}
	}
	return checkSince(c, "flows", f.since)
}

func endedTable(w io.Writer, list *inspect.EndedList) error {
	table := newGrid(w, "ENDED", "LASTED", "PROTOCOL", "FROM", "SOURCE", "TO", "DESTINATION", "SENT", "RECEIVED", "RULE")
	for i := range list.Flows {
		f := &list.Flows[i]
		table.row(clock(f.Ended), f.Ended.Sub(f.Began).Round(100*time.Millisecond), f.Protocol, f.From, inspect.Endpoint(f.Source, f.SourcePort),
			f.To, inspect.Endpoint(f.Destination, f.DestinationPort), f.PacketsSent, f.PacketsReceived, lastRule(&f.Flow))
	}
	if err := table.flush(); err != nil {
		return err
	}
	if list.Truncated {
		fmt.Fprintf(w, "more than these %d flows match: raise --limit or choose fewer\n", len(list.Flows))
	}
	if list.Missing {
		fmt.Fprintln(w, "older ones are remembered as sums alone: --sum shows them")
	}
	return endedEnd(w, list)
}

func endedSums(w io.Writer, list *inspect.EndedList) error {
	table := newGrid(w, "FLOWS", "RULE", "PROTOCOL", "FROM", "SOURCE", "TO", "DESTINATION", "SENT", "RECEIVED", "LAST")
	for i := range list.Pairs {
		p := &list.Pairs[i]
		source, destination := pairEnds(&p.RememberedPair)
		rule := ruleOf(p.NetworkSecurityGroup, p.RuleName)
		if p.PlatformService != "" {
			rule = p.PlatformService
		}
		table.row(p.Flows, rule, p.Protocol, p.From, source, p.To, destination, p.PacketsSent, p.PacketsReceived, clock(p.Last))
	}
	if err := table.flush(); err != nil {
		return err
	}
	if list.MorePairs > 0 {
		fmt.Fprintf(w, "%s more: raise --limit or choose fewer\n", plural(list.MorePairs, "pair"))
	}
	return endedEnd(w, list)
}

func endedEnd(w io.Writer, list *inspect.EndedList) error {
	text := fmt.Sprintf("ended from %s to %s", clock(list.From), clock(list.To))
	if list.NotSeen > 0 {
		text += fmt.Sprintf("; %d more ended too quickly to be remembered", list.NotSeen)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// followTable prints a line for each flow that begins or ends.
func followTable(w, stderr io.Writer) func(*inspect.FlowChange) error {
	begun := false
	return func(f *inspect.FlowChange) (err error) {
		switch {
		case f.Began != nil:
			b := f.Began
			rule := b.PlatformService
			if n := len(b.Rules); n > 0 {
				rule = ruleOf(b.Rules[n-1].NetworkSecurityGroup, b.Rules[n-1].Name)
			}
			text := fmt.Sprintf("%s began %s %s %s > %s %s", b.Time.Local().Format(traceTime), b.Protocol, dash(b.From), inspect.Endpoint(b.Source, b.SourcePort),
				dash(b.To), inspect.Endpoint(b.Destination, b.DestinationPort))
			if t := b.Translated; t != nil {
				text += " (arrives as " + inspect.Endpoint(t.Source, t.SourcePort) + " > " + inspect.Endpoint(t.Destination, t.DestinationPort) + ")"
			}
			_, err = fmt.Fprintln(w, printable(text+"  "+dash(rule)))
		case f.Ended != nil:
			e := f.Ended
			_, err = fmt.Fprintln(w, printable(fmt.Sprintf("%s ended %s %s %s > %s %s  %s, %d packets sent, %d received", e.Ended.Local().Format(traceTime), e.Protocol,
				dash(e.From), inspect.Endpoint(e.Source, e.SourcePort), dash(e.To), inspect.Endpoint(e.Destination, e.DestinationPort),
				e.Ended.Sub(e.Began).Round(100*time.Millisecond), e.PacketsSent, e.PacketsReceived)))
		case f.Summary != nil && !begun:
			begun = true
			_, err = fmt.Fprintln(stderr, "following: Ctrl-C ends")
		case f.Summary != nil && f.Summary.Lost > 0:
			_, err = fmt.Fprintf(stderr, "%d flows began, %d beginnings and ends came too quickly and are not shown\n", f.Summary.Packets, f.Summary.Lost)
		}
		return err
	}
}
