package main

import (
	"errors"
	"log/slog"

	"github.com/nsgd/nsgd/tun/fdstore"
	"github.com/spf13/cobra"
)

// exitStatus ends the program with a status and without a message.
type exitStatus int

func (exitStatus) Error() string { return "" }

func newKeep() *cobra.Command {
	var standby bool
	c := &cobra.Command{
		Use:   "keep [--standby] -- nsgd run [--config FILE]",
		Short: "Run the daemon where systemd does not: keep its flows and devices, and start it again when it fails",
		Long: `Keep runs nsgd where no systemd keeps its descriptors, such as in a container. When nsgd fails, or is killed, it
starts again and goes on with its flows, devices and counters. SIGTERM and SIGINT end both. SIGUSR1 starts nsgd
again, and SIGHUP has it reload. With --standby another process has read the policy and goes on at once.`,
		Example: "  nsgd keep -- nsgd run --config /etc/nsgd/nsgd.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("keep: a command is missing, such as: nsgd keep -- nsgd run --config FILE")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			k := fdstore.Keeper{Command: args, Stdout: c.OutOrStdout(), Stderr: c.ErrOrStderr(), Standby: standby, Log: slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))}
			status, err := k.Run()
			if err == nil && status != 0 {
				return exitStatus(status)
			}
			return err
		},
	}
	c.Flags().BoolVar(&standby, "standby", false, "keep a second process prepared, which goes on at once when nsgd ends: it takes as much memory again as the policy and the flow table's index")
	return c
}
