package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/dataplane/logring"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path, socket string
	var confirm time.Duration
	c := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Carry packets as a configuration says; without one, run the built-in lab",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("config") && path == "" {
				return usageError{errors.New("run: --config: a file name is needed")}
			}
			if path == "" {
				return runLab(c.Context(), c.ErrOrStderr(), c.OutOrStdout())
			}
			if confirm < 0 {
				return usageError{fmt.Errorf("run: --confirm: %v: a time such as 60s is needed", confirm)}
			}
			part, err := connectPrivileged(path, socket)
			if err != nil {
				return err
			}
			return runConfig(c.Context(), path, confirm, part, c.ErrOrStderr(), c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file; without it the built-in lab runs")
	c.Flags().StringVar(&socket, "privileged", "", "socket of systemd that starts the privileged part; without it nsgd starts that")
	c.Flags().DurationVar(&confirm, "confirm", 0, "open the interfaces again and end, unless nsgctl confirm comes within this time")
	return c
}

// logPatience is how long the last lines may wait for whoever reads the log.
const logPatience = time.Second

// runConfig runs the daemon until ctx ends, with the privileged part, which it ends. Interfaces open again unless a
// confirmation comes in time; 0: none is needed.
func runConfig(ctx context.Context, path string, confirm time.Duration, part *privileged.Client, stderr, stdout io.Writer) (err error) {
	defer func() {
		if ended := part.End(); ended != nil && !errors.Is(err, privileged.ErrGone) {
			err = errors.Join(err, fmt.Errorf("stop: %w", ended))
		}
	}()
	all, err := loadAll(ctx, path)
	if err != nil {
		return err
	}
	if confirm > 0 && len(all.config.namespacesWithInterfaces()) == 0 {
		return fmt.Errorf("%s: --confirm is for attachments with interface, and there is none", path)
	}
	lines := logring.New(all.config.Log.handler(stderr))
	log := slog.New(lines)
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), logPatience)
		defer cancel()
		lines.Flush(late)
	}()
	for _, warning := range all.warnings {
		log.Warn("policy", "warning", warning)
	}
	d := &daemon{path: path, config: all.config, policy: all.files, privileged: part, log: log, lines: lines, stdout: stdout}
	d.interception = &interception{log: log, privileged: part, within: confirm}
	d.confirmation.within, d.confirmation.given = confirm, make(chan struct{})
	d.confirmation.waiting.Store(confirm > 0)
	if err := d.start(ctx, all); err != nil {
		stopped := d.stop()
		return errors.Join(err, stopped, d.interception.openAgain(false))
	}
	err = d.serve(ctx)
	if stopped := d.stop(); stopped != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopped))
	}
	if d.confirmation.expired {
		err = errors.Join(err, d.interception.openAgain(true))
	}
	log.Info("stopped")
	return err
}
