package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/logquery"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/dataplane/suggest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/spf13/cobra"
)

func init() { addVerb(newSuggest) }

// suggestFlags are the flags of suggest.
type suggestFlags struct {
	rewriting
	options suggest.Options
	since   time.Duration
	all     bool // of captures
}

func newSuggest(g *global) *cobra.Command {
	f := suggestFlags{}
	c := &cobra.Command{
		Use:         "suggest --policy PATH... [--since 1h | FILE...]",
		Short:       "Write the least rules that allow what was seen",
		Annotations: map[string]string{moreFormats: strings.Join(documentFormats, " "), besideDaemon: "true"},
		Long: `Write the least rules that allow what was seen, with a last rule that denies the rest.

Without FILE it is what the daemon has seen: live flows, and those that ended within --since. FILE is a capture, pcap or
pcapng, a flow log of nsgd or Azure, or a folder of flow logs; no daemon is asked then. --policy is the policy that it was
seen under: it tells the network interfaces, subnets and groups. Of captures all of its network interfaces are looked at, or with
--captured the capture's own interfaces, as nsgctl capture writes them.

Only what was allowed counts; --denied takes what was denied too, which may have been attacks. --keep writes the rules that the
groups have, and before the rule that denied something one that allows it. Answers need no rule. Ends become
their application security group, else their subnet where two of its addresses were seen, the service tag where the
policy or --service-tags knows one, the internet from nine addresses on, or the address. --max-rules makes rules wider until there
are so few.

The groups are printed as an ARM template (-o arm, the default), as -o bicep or as -o terraform, and to standard error the proof: what was
seen is judged again under the rules as they are written; what they allow beyond it; and what diff says. -o table prints these
alone, -o json all of it. The exit code is 1 when something that was seen does not pass, when nothing was seen, and when a file
can't be read to its end.`,
		Example: `  nsgctl suggest --policy policy
  nsgctl suggest --policy policy --nsg web-nsg --max-rules 10 -o bicep web.pcap
  nsgctl suggest --policy policy -o table /var/log/nsgd`,
		Args: f.args,
		RunE: func(c *cobra.Command, names []string) error { return f.run(c, g, names) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&f.from.policy, "policy", nil, "file or folder of ARM JSON; may be repeated")
	flags.DurationVar(&f.since, "since", history.DefaultKeep, "flows of the daemon that ended within this time, beside the live ones")
	flags.BoolVar(&f.options.Denied, "denied", false, "rules for what was denied too")
	flags.BoolVar(&f.options.Keep, "keep", false, "keep the rules that the groups have, and add those that allow what was denied: it may have been attacks")
	flags.BoolVar(&f.options.KeepDefaults, "keep-defaults", false, "no last rule that denies the rest: what Azure's default rules allow stays allowed, and gets no rule")
	flags.BoolVar(&f.all, "captured", false, "the interfaces of captures are attachments, as nsgctl capture writes them")
	flags.IntVar(&f.options.MaxRules, "max-rules", 0, "at most so many rules for each group and direction, besides the last one (default 499, half of Azure's limit)")
	f.flags(c)
	return c
}

func (f *suggestFlags) args(c *cobra.Command, names []string) error {
	switch {
	case len(f.from.policy) == 0:
		return usageError{errors.New("suggest: --policy is missing")}
	case len(names) > 0 && c.Flags().Changed("since"):
		return usageError{errors.New("suggest: --since is for the daemon's flows, not for files")}
	case f.options.Keep && (f.options.Denied || f.options.KeepDefaults):
		return usageError{errors.New("suggest: --keep takes what was denied, and keeps Azure's default rules: it goes with neither --denied nor --keep-defaults")}
	case len(names) == 0 && f.all:
		return usageError{errors.New("suggest: --captured goes with captures")}
	}
	if err := f.options.Check(); err != nil || c.Flags().Changed("max-rules") && f.options.MaxRules == 0 {
		return usageError{fmt.Errorf("suggest: --max-rules %d: allowed are 1 to %d", f.options.MaxRules, ruleset.MaxRulesPerGroup/2-1)}
	}
	if err := checkSince(c, "suggest", f.since); err != nil {
		return err
	}
	return existing(c, "", names)
}

// evidence is what was seen, and what is to be said of it.
type evidence struct {
	*suggest.Collector
	notes []string
	// failed says that a file could not be read to its end.
	failed bool
}

func (e *evidence) note(format string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

func (f *suggestFlags) run(c *cobra.Command, g *global, names []string) error {
	before, err := interruptible(c.Context(), f.from.open)
	if err != nil {
		return refused(c, g, err)
	}
	if f.options.Groups, err = f.chosen(before.Snapshot.Policy); err != nil {
		return fmt.Errorf("suggest: %w", err)
	}
	f.options.Tags = tagsForRules(before)
	e := &evidence{Collector: suggest.NewCollector(before.Snapshot, f.options), notes: []string{}}
	if len(names) > 0 {
		err = f.fromFiles(c.Context(), e, names)
	} else {
		err = f.fromDaemon(c.Context(), e, g)
	}
	if err != nil {
		return fmt.Errorf("suggest: %w", err)
	}
	result, groups, err := f.conclude(c.Context(), before, e)
	if err != nil {
		return fmt.Errorf("suggest: %w", err)
	}
	document, err := f.document(c, g, groups)
	if err != nil {
		return fmt.Errorf("suggest: %w", err)
	}
	if err := f.print(c, g, document, result, func(w io.Writer) error { return suggestTable(w, result) }); err != nil {
		return err
	}
	if e.failed || len(groups) == 0 || result.Proof.Allowed < result.Proof.Judged {
		return errNegative
	}
	return nil
}

// tagsForRules are the service tags that rules may name.
func tagsForRules(l *inspect.Loaded) map[string][]netip.Prefix {
	tags := map[string][]netip.Prefix{}
	for tag, prefixes := range l.Snapshot.Policy.ServiceTags {
		tags[tag] = prefixes
	}
	if l.ServiceTags != nil {
		for _, facts := range l.ServiceTags.All() {
			features := facts.NetworkFeatures
			if parent, _, regional := strings.Cut(facts.Name, "."); regional && features == nil {
				of, _ := l.ServiceTags.Facts(parent)
				features = of.NetworkFeatures
			}
			if prefixes, ok := l.TagPrefixes(facts.Name); ok && slices.Contains(features, "NSG") {
				tags[facts.Name] = prefixes
			}
		}
	}
	return tags
}

// conclude makes the rules, and the policy that they would be part of.
func (f *suggestFlags) conclude(ctx context.Context, before *inspect.Loaded, e *evidence) (result *suggest.Result, nsgs []*ruleset.NSG, err error) {
	groups, err := interruptible(ctx, e.Rules)
	if err != nil {
		return nil, nil, err
	}
	for i := range groups {
		nsgs = append(nsgs, groups[i].NSG)
	}
	result, err = interruptible(ctx, func() (*suggest.Result, error) {
		after, err := f.after(nsgs, f.options.Tags)
		if err != nil {
			return nil, err
		}
		return &suggest.Result{Seen: e.Seen(), Groups: suggest.Describe(groups), Proof: e.Prove(after.Snapshot, groups), Diff: inspect.Diff(before, after, 0), Notes: e.notes}, nil
	})
	return result, nsgs, err
}

// fromDaemon adds live flows and what the daemon remembers.
func (f *suggestFlags) fromDaemon(ctx context.Context, e *evidence, g *global) error {
	client := g.client()
	live, err := client.Flows(ctx, inspect.FlowFilter{Limit: inspect.MaxFlowLimit})
	if err != nil {
		return err
	}
	for i := range live.Flows {
		if err := e.AddFlow(&live.Flows[i]); err != nil {
			return err
		}
	}
	if live.Truncated {
		e.note("the daemon has more than the %d live flows that were looked at", len(live.Flows))
	}
	ended, err := client.EndedFlows(ctx, inspect.EndedQuestion{FlowFilter: inspect.FlowFilter{Limit: inspect.MaxFlowLimit}, Since: f.since})
	if err != nil {
		e.note("only live flows count: %v", err)
		return nil
	}
	for i := range ended.Flows {
		if err := e.AddFlow(&ended.Flows[i].Flow); err != nil {
			return err
		}
	}
	others := uint64(0)
	for i := range ended.Pairs {
		p := &ended.Pairs[i]
		if p.Others {
			others += p.Flows
		}
		if err := e.AddEnded(p); err != nil {
			return err
		}
	}
	if n := others + ended.NotSeen; n > 0 {
		e.note("%d flows that ended are not remembered by themselves: nothing is suggested for them", n)
	}
	if !f.options.Denied && !f.options.Keep {
		return nil
	}
	drops, err := client.Drops(ctx, inspect.DropQuestion{Since: f.since, Filter: "reason rule_deny", Limit: inspect.MaxPairLimit})
	if err != nil {
		return err
	}
	for i := range drops.Pairs {
		if err := e.AddDropped(&drops.Pairs[i]); err != nil {
			return err
		}
	}
	return nil
}

// idle is how long flows of captures live without a packet: answers must not seem to begin flows.
const idle = 24 * time.Hour

// fromFiles adds what captures and flow logs hold. Captures are replayed under a policy that allows all, so that every flow begins.
func (f *suggestFlags) fromFiles(ctx context.Context, e *evidence, names []string) error {
	files, err := logquery.Files(names)
	if err != nil {
		return err
	}
	options, err := f.from.topology()
	if err != nil {
		return err
	}
	open, err := f.from.files().Load()
	if err != nil {
		return err
	}
	for _, g := range open.NetworkSecurityGroups {
		g.Rules = []ruleset.Rule{allowAll(ruleset.Inbound), allowAll(ruleset.Outbound)}
	}
	midstream := 0
	o := replay.Options{Policy: open, Topology: options, Began: func(b *replay.Beginning) error {
		if b.Midstream {
			midstream++
		}
		return e.AddBeginning(b)
	}}
	if o.Flows, o.NetworkInterfaces = (conntrack.Options{Timeouts: conntrack.Timeouts{TCPSyn: idle, TCPEstablished: idle, TCPClosing: idle, TCPTimeWait: idle, TCPReset: idle,
		UDPOneWay: idle, UDPTwoWay: idle, ICMP: idle, Other: idle}}), open.NetworkInterfaces; f.all {
		o.NetworkInterfaces = nil
	}
	r, err := replay.New(o)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := f.fromFile(ctx, r, name); errors.Is(err, suggest.ErrTooMany) || ctx.Err() != nil {
			return err
		} else if err != nil {
			e.failed = true
			e.note("not read to its end: %v", err)
		}
	}
	if midstream > 0 {
		e.note("%s had begun before the capture: of each the end with the lower port counts as the server", plural(midstream, "connection"))
	}
	return nil
}

func (f *suggestFlags) fromFile(ctx context.Context, r *replay.Replay, name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	return r.File(ctx, name, in)
}

func allowAll(d ruleset.Direction) ruleset.Rule {
	return ruleset.Rule{Name: "all", Priority: ruleset.MinPriority, Direction: d, Access: ruleset.Allow, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
}

// suggestTable prints what was seen, the rules and what they mean.
func suggestTable(w io.Writer, r *suggest.Result) error {
	s := &r.Seen
	fmt.Fprintf(w, "seen: %d, %d of them different", s.Sightings, s.Distinct)
	for _, of := range []struct {
		n    uint64
		text string
	}{{s.Denied, "denied"}, {s.WithoutGroup, "of ends without a group"}, {s.Platform, "for services of the platform"}, {s.Other, "of no end of the policy"}} {
		if of.n > 0 {
			fmt.Fprintf(w, "; %d %s", of.n, of.text)
		}
	}
	fmt.Fprintln(w)
	for _, note := range r.Notes {
		fmt.Fprintln(w, printable(note))
	}
	if len(r.Groups) == 0 {
		_, err := fmt.Fprintln(w, "nothing was seen that a rule could allow: nothing is suggested")
		return err
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		fmt.Fprintf(w, "\n%s: %s became %d\n", printable(g.NetworkSecurityGroup), plural(g.RulesBefore, "rule"), g.RulesAfter)
		table := newGrid(w, "DIRECTION", "PRIORITY", "ACCESS", "PROTOCOL", "SOURCE", "DESTINATION", "PORTS", "SEEN", "RULE")
		for k := range g.Rules {
			rule := &g.Rules[k]
			seen := fmt.Sprint(rule.Seen)
			switch {
			case rule.Widened:
				seen += ", widened"
			case rule.Kept:
				seen = "kept"
			}
			table.row(rule.Direction, rule.Priority, rule.Access, rule.Protocol, peers(rule.Sources), peers(rule.Destinations), someOf(rule.DestinationPorts), seen, rule.Name)
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	return proofTable(w, r)
}

// peers are short names of one side.
func peers(texts []string) string {
	short := make([]string, len(texts))
	for i, text := range texts {
		if short[i] = text; strings.HasPrefix(text, "/") {
			short[i] = lastName(text)
		}
	}
	return someOf(short)
}

func proofTable(w io.Writer, r *suggest.Result) error {
	p := r.Proof
	fmt.Fprintf(w, "\nproof: %d of %d that were seen pass under these rules\n", p.Allowed, p.Judged)
	for i := range p.NotAllowed {
		n := &p.NotAllowed[i]
		fmt.Fprintf(w, "  does not pass, %s of %s: %s\n", strings.ToLower(n.Direction), printable(diffFor(&n.DiffFor)), diffWitness(&n.Packet))
	}
	for i := range p.Beyond {
		b := &p.Beyond[i]
		fmt.Fprintf(w, "beyond, %s of %s by %s\n", strings.ToLower(b.Direction), printable(b.NetworkSecurityGroup), printable(b.RuleName))
		lines := diffBoxes(b.Boxes)
		for _, line := range lines[:min(len(lines), maxBeyond)] {
			fmt.Fprintf(w, "  packets  %s\n", printable(line))
		}
		if n := len(lines) - maxBeyond; n > 0 || b.More {
			fmt.Fprintln(w, "  packets  and more: -o json has them")
		}
	}
	if len(p.Beyond)+len(p.Untold) == 0 {
		fmt.Fprintln(w, "beyond: nothing")
	}
	for _, of := range p.Untold {
		fmt.Fprintf(w, "too much was seen to tell what is beyond it: %s\n", printable(of))
	}
	_, err := fmt.Fprintf(w, "against the policy before: %s\n", diffSummary(r.Diff))
	return err
}

// maxBeyond is how many sets of packets of a rule are printed.
const maxBeyond = 5
