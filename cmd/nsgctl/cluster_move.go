//go:build !nocluster

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/spf13/cobra"
)

const (
	defaultMoveWait               = 30 * time.Second
	shortestMoveWait, longestMove = time.Second, 10 * time.Minute
)

func newClusterMove(g *global, f *clusterFlags) *cobra.Command {
	o := &cluster.MoveOptions{Now: time.Now}
	c := &cobra.Command{
		Use:   "move NIC HOST",
		Short: "Move a network interface to another host, with its flows",
		Long: `Move a network interface to another host, with its flows.

The other host must attach it in its nsgd.yaml, where it waits for it. Once both are ready, the host that has it carries nothing
of it any more, hands its flows over by TLS, and the other host takes the claim. If that fails, it is where it was.
Flows end that lead to the platform, which each host has for itself, and between network interfaces of the old host by public
addresses. NIC is an id, or a name where that is clear.

Exit code 1: it has not moved, or that is not known.`,
		Example: `  nsgctl cluster move vm1-nic host2 --endpoints http://127.0.0.1:2379`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s: %d arguments: a network interface and a host are needed", verbName(c), len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.Wait < shortestMoveWait || o.Wait > longestMove {
				return usageError{fmt.Errorf("%s: --wait %v: allowed are %v to %v", verbName(c), o.Wait, shortestMoveWait, longestMove)}
			}
			if err := cluster.CheckHost(args[1]); err != nil {
				return usageError{fmt.Errorf("%s: host %w", verbName(c), err)}
			}
			o.NIC, o.To, o.By = args[0], args[1], me()
			o.Tell = func(step string) { fmt.Fprintln(c.ErrOrStderr(), printable(step)) }
			moved, err := withStore(c, f, func(s *cluster.Store) (*cluster.Moved, error) { return s.Move(c.Context(), o) })
			return show(c, g, moved, err, movedTable)
		},
	}
	c.Flags().BoolVar(&o.WithoutFlows, "without-flows", false, "leave the flows behind: they end")
	c.Flags().DurationVar(&o.Wait, "wait", defaultMoveWait, "how long both hosts may take")
	return c
}

func movedTable(w io.Writer, m *cluster.Moved) error {
	fmt.Fprintf(w, "%s: from %s to %s\n", printable(m.NIC), printable(m.From), printable(m.To))
	if m.WithoutFlows {
		fmt.Fprintln(w, "flows: left behind")
	} else {
		fmt.Fprintf(w, "flows: %d go on of %d, %d bytes\n", m.Flows, m.Sent, m.Bytes)
	}
	if m.Joined > 0 {
		fmt.Fprintf(w, "%s with both ends there now\n", plural(m.Joined, "flow"))
	}
	var lost []string
	for _, why := range slices.Sorted(maps.Keys(m.Lost)) {
		lost = append(lost, fmt.Sprintf("%d %s", m.Lost[why], why))
	}
	if len(lost) > 0 {
		fmt.Fprintf(w, "lost: %s\n", printable(strings.Join(lost, ", ")))
	}
	fmt.Fprintf(w, "carried by nobody for %.1f ms\n", m.GapMilliseconds)
	return nil
}
