package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/replay"
)

// replayTable prints a summary: of captures, of flow logs, and of what fares otherwise.
func replayTable(w io.Writer, s *replay.Summary) error {
	if s.Packets > 0 || s.FlowLogs == nil {
		if err := capturesTable(w, s); err != nil {
			return err
		}
	}
	if s.FlowLogs != nil {
		if err := flowLogsTable(w, s.FlowLogs); err != nil {
			return err
		}
	}
	if s.Against != nil {
		return againstTable(w, s.Against)
	}
	return nil
}

func flowLogsTable(w io.Writer, l *replay.FlowLogs) error {
	totals := newGrid(w, "FLOW LOGS", "ROWS", "PACKETS", "BYTES")
	totals.row("rows", l.Rows, l.Packets, l.Bytes)
	totals.row("flows that begin", l.Begun, "", "")
	totals.row("recorded as denied", l.Denied, "", "")
	for _, reason := range slices.Sorted(maps.Keys(l.Skipped)) {
		totals.row("not judged: "+reason, l.Skipped[reason], "", "")
	}
	totals.row("policy says otherwise than recorded", l.RecordedDiffers, "", "")
	if err := totals.flush(); err != nil {
		return err
	}
	if l.Malformed != "" {
		var by []string
		for _, kind := range slices.Sorted(maps.Keys(l.MalformedBy)) {
			by = append(by, fmt.Sprintf("%s %d", kind, l.MalformedBy[kind]))
		}
		fmt.Fprintf(w, "\nnot understood, by field: %s; the first: %s\n", strings.Join(by, ", "), printable(l.Malformed))
	}
	fmt.Fprintln(w, "\nRows do not tell:")
	for _, text := range l.Missing {
		fmt.Fprintf(w, "- %s\n", text)
	}
	return nil
}

// againstTable prints the flows that one policy allows and the other does not.
func againstTable(w io.Writer, a *replay.Against) error {
	what := "under the other policy"
	if a.Recorded {
		what = "under the policy, not as recorded"
	}
	fmt.Fprintf(w, "\nFlows that fare otherwise %s: %d, %d packets, %d bytes\n", what, a.Flows, a.Packets, a.Bytes)
	if len(a.ByRule) == 0 {
		return nil
	}
	sums := newGrid(w, "NEWLY", "DIRECTION", "FLOWS", "PACKETS", "BYTES", "WAS", "NOW")
	for i := range a.ByRule {
		r := &a.ByRule[i]
		sums.row(r.Kind, r.Direction, r.Flows, r.Packets, r.Bytes, opinionText(&r.Old), opinionText(&r.New))
	}
	if err := sums.flush(); err != nil || len(a.List) == 0 {
		return err
	}
	fmt.Fprintln(w)
	list := newGrid(w, "NEWLY", "OF", "PROTOCOL", "SOURCE", "DESTINATION", "PACKETS", "BYTES", "WAS", "NOW")
	for i := range a.List {
		f := &a.List[i]
		list.row(f.Kind, f.NetworkInterface, f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort),
			f.Packets, f.Bytes, opinionText(&f.Old), opinionText(&f.New))
	}
	if err := list.flush(); err != nil {
		return err
	}
	if a.Truncated {
		fmt.Fprintln(w, "and more, which are not listed")
	}
	return nil
}

func opinionText(o *replay.Opinion) string {
	if o.Rule == "" {
		return o.Access + ": " + o.Reason
	}
	return o.Access + " by " + o.NetworkSecurityGroup + "/" + o.Rule
}

// capturesTable prints what became of packets.
func capturesTable(w io.Writer, s *replay.Summary) error {
	totals := newGrid(w, "TRAFFIC", "PACKETS", "BYTES")
	totals.row("captured", s.Packets, s.Bytes)
	for _, reason := range slices.Sorted(maps.Keys(s.Skipped)) {
		totals.row("not judged: "+reason, s.Skipped[reason], "")
	}
	totals.row("judged", s.Judged.Packets, s.Judged.Bytes)
	totals.row("allowed", s.Allowed.Packets, s.Allowed.Bytes)
	totals.row("denied by rules", s.Denied.Packets, s.Denied.Bytes)
	for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
		if reason != "rule_deny" {
			totals.row("dropped: "+reason, s.Dropped[reason], "")
		}
	}
	for _, service := range slices.Sorted(maps.Keys(s.PlatformServices)) {
		totals.row("platform service: "+service, s.PlatformServices[service].Packets, s.PlatformServices[service].Bytes)
	}
	if err := totals.flush(); err != nil {
		return err
	}
	if s.First != nil {
		fmt.Fprintf(w, "\n%s to %s (%s)\n", s.First.Format(time.RFC3339Nano), s.Last.Format(time.RFC3339Nano), s.Last.Sub(*s.First))
	}
	if s.OutOfOrder > 0 {
		fmt.Fprintf(w, "%d packets are from before the one before them, and were judged at its time\n", s.OutOfOrder)
	}
	if c := s.Comparison; c != nil {
		fmt.Fprintf(w, "%d packets compared with what was recorded: %d differ\n", c.Compared, c.Differences)
	}
	if !s.Complete {
		fmt.Fprintln(w, "not all was read")
	}
	fmt.Fprintf(w, "\nFlows: %d began, %d live at the end\n", s.Flows.Created, s.Flows.Live)
	if len(s.Flows.Top) > 0 {
		if err := topTable(w, s.Flows.Top); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		title string
		rules []inspect.Rule
	}{{"Rules that decided", s.Rules}, {"Unused rules", s.UnusedRules}} {
		fmt.Fprintf(w, "\n%s: %d\n", part.title, len(part.rules))
		if len(part.rules) > 0 {
			if err := rulesTable(w, &inspect.RuleList{Rules: part.rules}); err != nil {
				return err
			}
		}
	}
	return nil
}

func topTable(w io.Writer, flows []inspect.Flow) error {
	table := newGrid(w, "PROTOCOL", "SOURCE", "DESTINATION", "STATE", "LASTED", "SENT", "RECEIVED", "BYTES", "RULE")
	for i := range flows {
		f := &flows[i]
		table.row(f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort), f.State,
			(time.Duration(f.AgeMilliseconds) * time.Millisecond).String(), f.PacketsSent, f.PacketsReceived, f.BytesSent+f.BytesReceived, lastRule(f))
	}
	return table.flush()
}
