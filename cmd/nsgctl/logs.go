package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/logquery"
	"github.com/spf13/cobra"
)

func init() { addVerb(newLogs) }

func newLogs(g *global) *cobra.Command {
	c := &cobra.Command{
		Use:     "logs",
		Short:   "Find rows in flow logs on disk: those of nsgd, and those that Azure keeps",
		Example: `  nsgctl logs query /var/log/nsgd --since 24h verdict deny`,
	}
	c.AddCommand(newLogsQuery(g))
	needCommand(c)
	return c
}

func newLogsQuery(g *global) *cobra.Command {
	var since, until string
	q := &logquery.Question{}
	c := &cobra.Command{
		Use:   "query FOLDER [--since TIME] [--until TIME] [--limit N] [FILTER]",
		Short: "List the newest rows of the flow logs below a folder that a filter takes",
		Long: `List the newest rows of the flow logs below a folder, or of a file, that a filter takes: those of network security groups,
versions 1 and 2, and those of virtual networks, version 4. No daemon is asked.

TIME is how long ago, such as 24h, or a time such as 2026-03-04T05:00:00Z.

` + filterHelp + `
Here nic is not allowed, for rows name none. Rows of version 4 have an id as nsg.`,
		Example: `  nsgctl logs query /var/log/nsgd --since 24h verdict deny
  nsgctl logs query PT1H.json -o json dst port 443 and net 10.0.1.0/24`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("logs query: a folder is missing")}
			}
			if err := existing(c, "", args[:1]); err != nil {
				return err
			}
			if q.Limit < 1 {
				return usageError{fmt.Errorf("logs query: --limit %d: allowed are 1 to %d", q.Limit, logquery.MaxLimit)}
			}
			now := time.Now()
			for _, f := range []struct {
				name, text string
				into       *time.Time
			}{{"since", since, &q.Since}, {"until", until, &q.Until}} {
				var err error
				if *f.into, err = parseTime(f.text, now); err != nil {
					return usageError{fmt.Errorf("logs query: --%s %w", f.name, err)}
				}
			}
			q.Paths, q.Filter = args[:1], strings.Join(args[1:], " ")
			if err := q.Check(); err != nil {
				return usageError{fmt.Errorf("logs query: %w", err)}
			}
			result, err := logquery.Find(c.Context(), q)
			return show(c, g, result, err, logsTable)
		},
	}
	c.Flags().StringVar(&since, "since", "", "only rows of this time and later")
	c.Flags().StringVar(&until, "until", "", "only rows of this time and earlier")
	c.Flags().IntVar(&q.Limit, "limit", logquery.DefaultLimit, "list at most so many rows, the newest")
	return c
}

// parseTime reads a time, or how long ago it was; an empty text is no time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%q: allowed are how long ago, such as 24h, and a time such as 2026-03-04T05:00:00Z", text)
	}
	return t, nil
}

func logsTable(w io.Writer, r *logquery.Result) error {
	table := newGrid(w, "TIME", "STATE", "DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "NSG", "RULE", "SENT", "RECEIVED")
	for i := range r.Rows {
		row := &r.Rows[i]
		table.row(row.Time.Format(time.RFC3339), row.State, row.Direction, row.Protocol, inspect.Endpoint(row.Source, row.SourcePort), inspect.Endpoint(row.Destination, row.DestinationPort),
			row.NetworkSecurityGroup, row.RuleName, row.PacketsSent, row.PacketsReceived)
	}
	if err := table.flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d of %d rows match, in %s\n", r.Matched, r.Read, plural(r.Files, "file"))
	if r.Matched > uint64(len(r.Rows)) {
		fmt.Fprintf(w, "these are the newest %d: raise --limit or choose fewer\n", len(r.Rows))
	}
	if r.Malformed > 0 {
		fmt.Fprintf(w, "%d rows are not understood\n", r.Malformed)
	}
	for _, fault := range r.Faults {
		fmt.Fprintln(w, "not read to its end: "+printable(fault))
	}
	if r.MoreFaults > 0 {
		fmt.Fprintf(w, "and %s more not read to their end\n", plural(r.MoreFaults, "file"))
	}
	return nil
}
