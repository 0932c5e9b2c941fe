package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/spf13/cobra"
)

// defaultPerSecond is more than a person can read.
const defaultPerSecond = 1000

const filterHelp = `FILTER is an expression in the manner of libpcap's; without one every packet is taken.

  host ADDRESS, net PREFIX, port PORT, portrange FIRST-LAST, with src or dst before them;
  ip, ip6, tcp, udp, icmp, icmp6, esp, ah, gre, proto NUMBER;
  nic NAME (where the packet comes from or goes to; src nic, dst nic), nsg NAME, rule NAME (that was
  asked, or had allowed the flow), verdict allow|deny (carried or dropped), reason NAME (why it was
  dropped, as in nsgd_drops_total), flow new|live|related|none; and, or, not and parentheses.`

// watchFlags are those of trace and capture.
func watchFlags(c *cobra.Command, q *inspect.WatchRequest, perSecond int) {
	c.Flags().BoolVar(&q.Denied, "denied", false, "only packets that were dropped")
	c.Flags().IntVar(&q.Count, "count", 0, "end after so many packets; 0: go on until interrupted")
	c.Flags().IntVar(&q.PerSecond, "per-second", perSecond, "at most so many packets a second, spread over it; 0: all")
	c.Flags().IntVar(&q.Sample, "sample", 0, "only one packet of so many; 0: all")
}

// checkWatch refuses wrong use without asking the daemon.
func checkWatch(verb string, q *inspect.WatchRequest, args []string) error {
	q.Filter = strings.Join(args, " ")
	if _, err := watch.Parse(q.Filter); err != nil {
		return usageError{fmt.Errorf("%s: %q: %w", verb, q.Filter, err)}
	}
	for _, f := range []struct {
		name  string
		value int
		max   int
	}{{"count", q.Count, inspect.MaxCount}, {"per-second", q.PerSecond, inspect.MaxPerSecond},
		{"sample", q.Sample, inspect.MaxSample}, {"snaplen", q.SnapLen, inspect.MaxSnapLen}} {
		if f.value < 0 || f.value > f.max {
			return usageError{fmt.Errorf("%s: --%s %d: allowed are 0 to %d", verb, f.name, f.value, f.max)}
		}
	}
	return nil
}

// watchError turns the refusal of a filter with unknown names into wrong use.
func watchError(verb string, err error) error {
	var refused *control.Error
	if errors.As(err, &refused) && refused.BadRequest() {
		return usageError{fmt.Errorf("%s: %w", verb, err)}
	}
	return err
}

func init() { addVerb(newTrace) }

func newTrace(g *global) *cobra.Command {
	var q inspect.WatchRequest
	var all allHosts
	c := &cobra.Command{
		Use:   "trace [--denied] [--count N] [--per-second N] [--sample N] [--all-hosts] [FILTER]",
		Short: "Show live packets, and which rules decided about each",
		Long: `Show live packets, and which rules decided about each: a line for the packet and one for each rule, in the
order in which they were asked. In a live flow these are the rules that had allowed it.

` + filterHelp,
		Example: `  nsgctl trace --denied
  nsgctl trace --count 10 src 203.0.113.10 and dst nic vm1-nic`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkWatch("trace", &q, args); err != nil {
				return err
			}
			if err := all.check(c, g); err != nil {
				return err
			}
			if all {
				faults, err := traceAll(c, g, q)
				if err != nil {
					return watchError("trace", err)
				}
				return all.report(c, faults)
			}
			show := traceTable(c.OutOrStdout(), c.ErrOrStderr())
			if g.output != outputTable {
				lines := g.lines(c.OutOrStdout())
				show = func(t *inspect.Trace) error { return lines.Encode(t) }
			}
			return watchError("trace", g.client().Trace(c.Context(), q, show))
		},
	}
	watchFlags(c, &q, defaultPerSecond)
	all.flag(c)
	c.ValidArgsFunction = filterWords(g)
	return c
}

func traceTable(w, stderr io.Writer) func(*inspect.Trace) error {
	begun := false
	return func(t *inspect.Trace) error {
		switch {
		case t.Packet != nil:
			return printPacket(w, t.Packet)
		case !begun:
			begun = true
			_, err := fmt.Fprintln(stderr, "watching: Ctrl-C ends")
			return err
		case t.Summary != nil && t.Summary.Lost+t.Summary.Skipped > 0:
			return printSummary(stderr, t.Summary, "shown")
		}
		return nil // all were shown, or a newer daemon sends other lines too
	}
}

// printSummary says how many packets were shown or captured, as done says, and what is missing.
func printSummary(w io.Writer, s *inspect.WatchSummary, done string) error {
	_, err := fmt.Fprintf(w, "%d packets %s, %d lost because they came too quickly, %d left out by --per-second or --sample\n",
		s.Packets, done, s.Lost, s.Skipped)
	return err
}

const traceTime = "15:04:05.000000"

// printPacket prints a packet's line and its rules'.
func printPacket(w io.Writer, p *inspect.TracedPacket) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s %s > %s  %s  %s\n", p.Time.Local().Format(traceTime), p.Access, printable(dash(p.From)), printable(dash(p.To)), packetText(p), why(p))
	for _, s := range p.Stages {
		priority := "-"
		if s.Priority > 0 {
			priority = fmt.Sprint(s.Priority)
		}
		fmt.Fprintf(&b, "    %-8s %-16s %s %s  %s, priority %s\n", s.Direction, dash(s.Association), printable(s.NetworkSecurityGroup), printable(s.RuleName), s.Access, priority)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// packetText is the packet itself.
func packetText(p *inspect.TracedPacket) string {
	if p.Protocol == "" {
		return fmt.Sprintf("malformed, %d bytes", p.Length)
	}
	text := fmt.Sprintf("%s %s > %s", p.Protocol, inspect.Endpoint(p.Source, p.SourcePort), inspect.Endpoint(p.Destination, p.DestinationPort))
	if a := p.Arrives; a != nil {
		text += fmt.Sprintf(" (arrives as %s > %s)", inspect.Endpoint(a.Source, a.SourcePort), inspect.Endpoint(a.Destination, a.DestinationPort))
	}
	if p.TCPFlags != "" {
		text += " " + p.TCPFlags
	}
	if p.ICMPType != nil {
		text += fmt.Sprintf(" type %d code %d", *p.ICMPType, *p.ICMPCode)
	}
	if p.FragmentOffset != nil {
		text += fmt.Sprintf(" fragment at %d", *p.FragmentOffset)
	}
	text += fmt.Sprintf(" %d bytes", p.Length)
	if p.Segments > 1 {
		text += fmt.Sprintf(" in %d segments", p.Segments)
	}
	return text
}

// why says what decided, besides the rules.
func why(p *inspect.TracedPacket) string {
	var words []string
	if p.Reason != "" {
		words = append(words, p.Reason)
	}
	switch p.Flow {
	case "new":
		words = append(words, "new flow")
	case "live":
		words = append(words, "live flow, "+p.Direction)
	case "related":
		words = append(words, "about a live flow")
	}
	if p.PlatformService != "" {
		words = append(words, "platform service "+p.PlatformService)
	}
	if p.Access == "Allow" && len(p.Stages) == 0 && p.PlatformService == "" {
		words = append(words, "no network security group")
	}
	return strings.Join(words, ", ")
}
