package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/nsgd/nsgd/dataplane/logring"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Carry packets as a configuration says; without one, run the built-in lab",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("config") && path == "" {
				return usageError{errors.New("run: --config: a file name is needed")}
			}
			if os.Geteuid() != 0 {
				return errors.New("run: needs root, to make TUN devices and enter network namespaces: try sudo")
			}
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			if path == "" {
				return runLab(c.Context(), log, c.OutOrStdout())
			}
			return runConfig(c.Context(), path, log, c.OutOrStdout(), nil)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file; without it the built-in lab runs")
	return c
}

// logPatience is how long the last lines may wait for whoever reads the log.
const logPatience = time.Second

// runConfig runs the daemon until ctx ends. up, which may be nil, is called once
// everything runs; its error ends the daemon.
func runConfig(ctx context.Context, path string, log *slog.Logger, stdout io.Writer, up func(context.Context, *daemon) error) error {
	all, err := loadAll(ctx, path)
	if err != nil {
		return err
	}
	lines := logring.New(log.Handler())
	log = slog.New(lines)
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), logPatience)
		defer cancel()
		lines.Flush(late)
	}()
	for _, warning := range all.warnings {
		log.Warn("policy", "warning", warning)
	}
	d := &daemon{config: all.config, policy: all.files, log: log, lines: lines, stdout: stdout}
	if err := d.start(all); err != nil {
		stopped := d.stop()
		return errors.Join(err, stopped, d.openAgain())
	}
	err = d.serve(ctx, up)
	if stopped := d.stop(); stopped != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopped))
	}
	log.Info("stopped")
	return err
}
