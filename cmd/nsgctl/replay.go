package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/spf13/cobra"
)

const (
	// maxTop bounds the flows that replay ranks. Each packet looks at all of them.
	maxTop = 100
	// maxChanges bounds the changed flows that replay lists, defaultChanges is how many it lists.
	maxChanges     = 10_000
	defaultChanges = 20
)

// replayFlags are the flags of replay.
type replayFlags struct {
	of                    target
	nics                  []string
	all, packets, compare bool
	top, limit            int
	against               []string
	failOn                string
	from                  source
}

func init() { addVerb(newReplay) }

func newReplay(g *global) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay --policy PATH... [--against PATH...] [--nic NAME... | --all] FILE...",
		Short: "Say what a policy would have done to the packets of captures, or to Azure's flow logs",
		Long: `Say what a policy would have done to the packets of captures, pcap or pcapng, perhaps
compressed by gzip; - is standard input. The engine of the daemon decides, with the captures'
times for its clock: flows begin, go on and time out as they would have.

With --nic the rules of these network interfaces are asked, as verify does: a packet is theirs
when its source or its destination is one of their addresses, and the others are counted as other_addresses.
Without --nic or --all the captures are those of nsgctl capture: their interfaces are the daemon's
attachments, and each packet's whole path is judged.

Of packets that the capture has cut off the headers are judged; where they are cut off too, cut_headers
counts them. With --packets each packet has a line: with -o json an object a line, and the last
line is {"summary":{...}}.

With --against a second policy is asked beside the first one, and the flows are told that one of the two
allows and the other doesn't, with both deciding rules. --policy is the old one, --against the new one.

FILE may be one of Azure's flow logs (PT1H.json, also compressed by gzip): those of network security groups, and those
of virtual networks. Each row is judged by the rules of the end that it is about, as a flow's first packet: rows have
no TCP flags. Without --against the policy is compared with what the rows record. --nic limits the rows.

Exit code 1 when a file can't be read to its end, when --compare has found differences, and when
interrupted: what was read until then is counted. Flows that fare otherwise are told and fail nothing,
unless --fail-on asks for it: widened for flows that are newly allowed, narrowed for those newly denied, any for both.`,
		Example: `  nsgctl replay --policy policy --nic vm1-nic capture.pcap
  nsgctl replay --policy policy --compare web.pcapng
  nsgctl replay --policy policy --against policy-new PT1H.json`,
		Args: f.args,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, g, args) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&f.against, "against", nil, "file or folder of a second policy: tell the flows that fare otherwise under it; may be repeated")
	flags.StringVar(&f.failOn, "fail-on", "", "exit with 1 when flows are newly allowed (widened), newly denied (narrowed), or either (any)")
	complete(c, "fail-on", words(failWidened, failNarrowed, failAny))
	flags.IntVar(&f.limit, "limit", defaultChanges, "list so many of the flows that fare otherwise, the largest first")
	flags.StringArrayVar(&f.nics, "nic", nil, "network interface whose rules are asked, by name or resource id; may be repeated")
	flags.BoolVar(&f.all, "all", false, "every network interface of the policy, as with --nic")
	flags.BoolVar(&f.packets, "packets", false, "print each packet with its verdict")
	flags.BoolVar(&f.compare, "compare", false, "hold each packet against the verdict that nsgctl capture has written beside it, and print those that differ")
	flags.IntVar(&f.top, "top", 10, "list so many of the largest flows")
	f.of.groupFlag(c)
	f.from.of = &f.of
	flags.StringArrayVar(&f.from.policy, "policy", nil, "file or folder of ARM JSON; may be repeated")
	flags.StringVar(&f.from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that it names")
	f.from.policyFlags(c)
	f.from.subscriptionFlags(c)
	completeNames(c, &f.from, g)
	return c
}

func (f *replayFlags) args(_ *cobra.Command, args []string) error {
	input := 0
	for _, name := range args {
		if name == "-" {
			input++
		}
	}
	switch {
	case len(f.from.policy) == 0:
		return usageError{errors.New("replay: --policy is missing")}
	case len(args) == 0:
		return usageError{errors.New("replay: a capture is missing: FILE.pcap, FILE.pcapng or - for standard input")}
	case input > 1:
		return usageError{errors.New("replay: - can be given once")}
	case f.all && len(f.nics) > 0:
		return usageError{errors.New("replay: --nic and --all exclude each other")}
	case f.failOn != "" && failingKinds[f.failOn] == nil:
		return usageError{fmt.Errorf("replay: --fail-on %q: allowed are %s, %s and %s", f.failOn, failWidened, failNarrowed, failAny)}
	case f.limit < 0 || f.limit > maxChanges:
		return usageError{fmt.Errorf("replay: --limit %d: allowed are 0 to %d", f.limit, maxChanges)}
	case f.top < 0 || f.top > maxTop:
		return usageError{fmt.Errorf("replay: --top %d: allowed are 0 to %d", f.top, maxTop)}
	}
	return f.from.checkSubscription("replay")
}

func (f *replayFlags) run(c *cobra.Command, g *global, names []string) error {
	inputs, total, err := openCaptures(c.InOrStdin(), names)
	defer closeAll(inputs)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
	r, err := f.open(c, packetWriter(out, g), out.Flush)
	if err != nil {
		return err
	}
	bar := newProgress(c, total, f.packets || f.compare)
	failed := f.play(c.Context(), c.ErrOrStderr(), r, inputs, bar)
	bar.clear()
	summary, err := r.Summary()
	if err != nil {
		return err
	}
	if summary.Packets > 0 || summary.FlowLogs != nil || !failed || g.output != outputTable {
		if err := f.print(out, g, summary); err != nil {
			return err
		}
	}
	if f.failOn != "" && summary.Against == nil && !failed {
		return usageError{errors.New("replay: --fail-on goes with --against, or with flow logs")}
	}
	if failed || f.fails(summary.Against) || summary.Comparison != nil && summary.Comparison.Differences > 0 {
		return errNegative
	}
	return nil
}

// fails reports what --fail-on asks for.
func (f *replayFlags) fails(a *replay.Against) bool {
	return slices.ContainsFunc(failingKinds[f.failOn], func(kind string) bool {
		return a != nil && map[string]uint64{replay.NewlyAllowed: a.Allowed, replay.NewlyDenied: a.Denied}[kind] > 0
	})
}

// open makes the replay that the flags ask for.
func (f *replayFlags) open(c *cobra.Command, each func(*replay.Packet) error, idle func() error) (*replay.Replay, error) {
	options, err := f.from.topology()
	if err != nil {
		return nil, err
	}
	set, err := f.load(f.from.policy)
	if err != nil {
		return nil, err
	}
	o := replay.Options{Policy: set, Topology: options, Subscription: f.from.subscription,
		Top: f.top, Compare: f.compare, OnlyDifferences: !f.packets, Changed: f.limit}
	if len(f.against) > 0 {
		if o.Against, err = f.load(f.against); err != nil {
			return nil, err
		}
	}
	if f.packets || f.compare {
		o.Each, o.Idle = each, idle
	}
	if o.NetworkInterfaces, err = f.chosen(set); err != nil {
		return nil, err
	}
	return replay.New(o)
}

// load reads a policy's files.
func (f *replayFlags) load(paths []string) (*policy.Set, error) {
	from := f.from
	from.policy = paths
	files := from.files()
	set, err := files.Load()
	f.from.warnLeftOut(files.LeftOut())
	return set, err
}

func (f *replayFlags) chosen(set *policy.Set) (list []*policy.NetworkInterface, err error) {
	if f.all && len(set.NetworkInterfaces) == 0 {
		return nil, errors.New("replay: --all: the policy has no network interface")
	}
	if f.all {
		return set.NetworkInterfaces, nil
	}
	for _, name := range f.nics {
		f.of.nic = name
		nic, err := set.NetworkInterface(f.of.networkInterface())
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		list = append(list, nic)
	}
	return list, nil
}

// play replays the captures, prints what went wrong, and reports whether something did.
func (f *replayFlags) play(ctx context.Context, stderr io.Writer, r *replay.Replay, inputs []input, bar *progress) (failed bool) {
	for i := range inputs {
		err := r.File(ctx, inputs[i].name, bar.reader(inputs[i].in))
		if err == nil {
			continue
		}
		failed = true
		bar.clear()
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "nsgctl: replay: interrupted; what was read until then is counted")
			return failed
		}
		fmt.Fprintf(stderr, "nsgctl: replay: %v\n", err)
	}
	return failed
}

func (f *replayFlags) print(out *bufio.Writer, g *global, s *replay.Summary) (err error) {
	switch {
	case g.output == outputTable:
		if f.packets || f.compare {
			fmt.Fprintln(out)
		}
		err = replayTable(out, s)
	case f.packets || f.compare:
		err = g.lines(out).Encode(map[string]*replay.Summary{"summary": s})
	default:
		err = g.answer(out).Encode(s)
	}
	return errors.Join(err, out.Flush())
}

// packetWriter prints packets as they come.
func packetWriter(w io.Writer, g *global) func(*replay.Packet) error {
	if g.output != outputTable {
		encoder := g.lines(w)
		return func(p *replay.Packet) error { return encoder.Encode(p) }
	}
	return func(p *replay.Packet) error {
		decided := p.Reason
		if n := len(p.Rules); n > 0 {
			decided += " " + p.Rules[n-1].NetworkSecurityGroup + "/" + p.Rules[n-1].Name
		}
		if p.Differs {
			decided += fmt.Sprintf(" (recorded: %s %s)", p.Recorded.Verdict, p.Recorded.Reason) // the file may say anything
		}
		_, err := fmt.Fprintf(w, "%6d %s %-6s %-21s > %-21s %5d %-5s %s\n", p.Number, p.Time.Format("15:04:05.000000"), dash(p.Protocol),
			dash(inspect.Endpoint(p.Source, p.SourcePort)), dash(inspect.Endpoint(p.Destination, p.DestinationPort)), p.Bytes, p.Verdict, printable(decided))
		return err
	}
}

// input is a file to replay.
type input struct {
	name string
	in   io.Reader
	file *os.File // nil: standard input
}

// openCaptures opens all files before the first is read. total is their bytes, -1 when not known.
func openCaptures(stdin io.Reader, names []string) (list []input, total int64, err error) {
	for _, name := range names {
		if name == "-" {
			list, total = append(list, input{name: name, in: stdin}), -1
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return list, total, usageError{fmt.Errorf("replay: %w", err)}
		}
		list = append(list, input{name, file, file})
		info, err := file.Stat()
		switch {
		case err != nil:
			return list, total, fmt.Errorf("replay: %w", err)
		case info.IsDir():
			return list, total, usageError{fmt.Errorf("replay: %s is a folder: allowed are captures", name)}
		case total >= 0 && info.Mode().IsRegular():
			total += info.Size()
		default:
			total = -1
		}
	}
	return list, total, nil
}

func closeAll(list []input) {
	for i := range list {
		if list[i].file != nil {
			list[i].file.Close()
		}
	}
}
