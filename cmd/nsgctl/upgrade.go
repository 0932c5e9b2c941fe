package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newUpgrade) }

// upgradePatience bounds how long the prepared process may take to go on.
const upgradePatience = time.Minute

func newUpgrade(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "upgrade",
		Short: "Have the nsgd that is installed now go on with flows, devices and counters",
		Long: `Upgrade starts the nsgd that is installed now. It reads the configuration and the policy while the running one carries
packets, and then goes on with flows, devices and counters. If it can't, the running one stays. The daemon must run
by systemd, or by nsgd keep.`,
		Example: `  nsgctl upgrade`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := g.client()
			upgraded, err := client.Upgrade(c.Context())
			if err == nil {
				err = awaitProcess(c.Context(), client, upgraded.PID)
			}
			return show(c, g, upgraded, err, upgradedTable)
		},
	}
}

// awaitProcess waits until the daemon that answers is the process pid.
func awaitProcess(ctx context.Context, client *control.Client, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, upgradePatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := client.Status(ctx)
		if err == nil && status.PID == pid {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d was prepared, and does not answer: see the daemon's log: %w", pid, err)
		case <-tick.C:
		}
	}
}

func upgradedTable(w io.Writer, u *inspect.Upgraded) error {
	_, err := fmt.Fprintf(w, "process %d goes on\n", u.PID)
	return err
}
