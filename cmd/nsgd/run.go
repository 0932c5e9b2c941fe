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
	"github.com/nsgd/nsgd/tun/fdstore"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path string
	var confirm time.Duration
	c := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Carry packets as a configuration says; without one, run the built-in lab",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("config") && path == "" {
				return usageError{errors.New("run: --config: a file name is needed")}
			}
			if confirm > 0 && fdstore.Open().Exists() {
				return usageError{errors.New("run: --confirm: systemd or nsgd keep would start nsgd again, and close the interfaces again: run it without them")}
			}
			if os.Geteuid() != 0 {
				return errors.New("run: needs root, to make TUN devices and enter network namespaces: try sudo")
			}
			if path == "" {
				return runLab(c.Context(), c.ErrOrStderr(), c.OutOrStdout())
			}
			if confirm < 0 {
				return usageError{fmt.Errorf("run: --confirm: %v: a time such as 60s is needed", confirm)}
			}
			return runConfirmed(c.Context(), path, confirm, c.ErrOrStderr(), c.OutOrStdout(), nil)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file; without it the built-in lab runs")
	c.Flags().DurationVar(&confirm, "confirm", 0, "open the interfaces again and end, unless nsgctl confirm comes within this time")
	return c
}

// logPatience is how long the last lines may wait for whoever reads the log.
const logPatience = time.Second

// runConfig runs the daemon until ctx ends. up, which may be nil, is called once
// everything runs; its error ends the daemon.
func runConfig(ctx context.Context, path string, stderr, stdout io.Writer, up func(context.Context, *daemon) error) error {
	return runConfirmed(ctx, path, 0, stderr, stdout, up)
}

// runConfirmed is runConfig whose interfaces open again unless a confirmation comes in time; 0: none is needed.
func runConfirmed(ctx context.Context, path string, confirm time.Duration, stderr, stdout io.Writer, up func(context.Context, *daemon) error) error {
	inherited, err := inherit()
	if err != nil {
		return err
	}
	before, err := predecessor()
	if err != nil {
		return err
	}
	all, err := loadAll(ctx, path)
	if err == nil {
		err = before.await()
	}
	if err != nil {
		before.done(err)
		return err
	}
	if confirm > 0 && len(all.config.namespacesWithInterfaces()) == 0 {
		return fmt.Errorf("%s: --confirm is for attachments with interface, and there is none", path)
	}
	return runLoaded(ctx, &daemon{path: path, inherited: inherited, before: before, stdout: stdout}, all, confirm, stderr, up)
}

func runLoaded(ctx context.Context, d *daemon, all *loaded, confirm time.Duration, stderr io.Writer, up func(context.Context, *daemon) error) error {
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
	inherited := d.inherited
	ctx, d.end = inherited.onRestart(ctx)
	defer d.end(nil)
	d.config, d.policy, d.read, d.log, d.lines = all.config, all.files, all.begun, log, lines
	d.interception = &interception{log: log, within: confirm}
	d.confirmation.within, d.confirmation.given = confirm, make(chan struct{})
	d.confirmation.waiting.Store(confirm > 0)
	err := d.start(ctx, all)
	d.before.done(err)
	if err != nil {
		inherited.leaving.Store(inherited.resumes) // for a start that succeeds
		stopped := d.stop()
		return errors.Join(err, stopped, d.interception.openAgain(false))
	}
	err = d.serve(ctx, up)
	if err != nil && !d.confirmation.expired {
		inherited.leaving.Store(inherited.store.Exists())
	}
	if stopped := d.stop(); stopped != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopped))
	}
	if d.confirmation.expired {
		err = errors.Join(err, d.interception.openAgain(true))
	}
	log.Info("stopped")
	if d.next != nil && err == nil {
		return d.handOver()
	}
	if err == nil && inherited.leaving.Load() {
		return exitStatus(fdstore.RestartStatus)
	}
	return err
}
