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
	"github.com/nsgd/nsgd/tun/fdstore"
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
			if confirm > 0 && fdstore.Supervised() {
				return usageError{errors.New("run: --confirm: systemd or nsgd keep would start nsgd again, and close the interfaces again: run it without them")}
			}
			if path == "" && fdstore.IsStandby() {
				return usageError{errors.New("run: nsgd keep --standby needs run --config FILE")}
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

// runConfig runs the daemon until ctx ends, with the privileged part, which ends with it. Interfaces open again unless a
// confirmation comes in time; 0: none is needed.
func runConfig(ctx context.Context, path string, confirm time.Duration, part *privileged.Client, stderr, stdout io.Writer) (err error) {
	d := &daemon{path: path, privileged: part, stdout: stdout}
	defer func() {
		err = errors.Join(err, d.endPrivileged(err))
		if err == nil && d.next != nil {
			err = d.next.follows(lineReady)
		} else if err == nil && d.inherited.leaving.Load() {
			err = exitStatus(fdstore.RestartStatus)
		}
	}()
	standby, err := fdstore.StandsBy()
	if err != nil {
		return err
	}
	if d.inherited, err = inherit(); err != nil {
		return err
	}
	d.collect = d.inherited.postponeCollection()
	if d.before, err = predecessor(); err != nil {
		return err
	}
	all, err := loadAll(ctx, path)
	if err == nil && standby != nil {
		all, err = d.standBy(ctx, standby, all)
	}
	if err == nil && confirm > 0 && len(all.config.namespacesWithInterfaces()) == 0 {
		err = fmt.Errorf("%s: --confirm is for attachments with interface, and there is none", path)
	}
	if err == nil {
		err = d.prepare(all)
	}
	if err == nil {
		err = d.before.await()
	}
	if err != nil {
		d.inherited.leaving.Store(true) // for a start that succeeds
		d.before.done(err)
		return err
	}
	return d.run(ctx, all, confirm, stderr)
}

// endPrivileged ends the privileged part. What it has made goes, unless the next process finds it.
func (d *daemon) endPrivileged(failed error) error {
	end := d.privileged.End
	if d.inherited != nil && d.inherited.leaving.Load() {
		end = d.privileged.Leave
	}
	if ended := end(); ended != nil && !errors.Is(failed, privileged.ErrGone) {
		return fmt.Errorf("stop: %w", ended)
	}
	return nil
}

func (d *daemon) run(ctx context.Context, all *loaded, confirm time.Duration, stderr io.Writer) error {
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
	ctx, d.end = context.WithCancelCause(ctx)
	defer d.end(nil)
	d.onRestart(ctx)
	d.config, d.policy, d.read, d.log, d.lines = all.config, all.files, all.begun, log, lines
	d.file, d.share = all.file, *all.share
	d.interception = &interception{log: log, privileged: d.privileged, within: confirm}
	d.confirmation.within, d.confirmation.given = confirm, make(chan struct{})
	d.confirmation.waiting.Store(confirm > 0)
	err := d.start(ctx, all)
	d.collect()
	d.before.done(err)
	if err != nil {
		inherited.leaving.Store(inherited.resumes) // for a start that succeeds
		stopped := d.stop()
		return errors.Join(err, stopped, d.interception.openAgain(false))
	}
	if err = d.serve(ctx); err == nil && d.next != nil {
		err = d.handOver()
	}
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
	return err
}
