package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

const (
	notifyReady    = systemd.SdNotifyReady
	notifyStopping = systemd.SdNotifyStopping
)

// notify tells the service manager, where there is one.
func (d *daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("service manager not notified", "error", err)
	}
}

// reloading tells the service manager that a reload begins and how it ended.
func (d *daemon) reloading() (done func(error)) {
	// Type=notify-reload wants the time of the beginning in the same message.
	d.notify(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
	return func(err error) {
		status := "STATUS=policy reloaded"
		if err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			status = "STATUS=reload refused, the running policy stays: " + first
		}
		d.notify(notifyReady + "\n" + status)
	}
}

// catchHangup takes SIGHUP from now on: one that comes while the daemon starts must not end it.
func catchHangup() (hangups chan os.Signal, release func()) {
	hangups = make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups, func() { signal.Stop(hangups) }
}

// reloadOnSignal reloads the policy at every hangup. A refusal is logged by the service.
func (d *daemon) reloadOnSignal(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.hangups:
			d.service.Reload(inspect.ReloadRequest{Cause: "SIGHUP"})
		}
	}
}

// watchdog tells the service manager that the daemon lives, as often as the manager asks for. It
// is silent while the daemon does not answer on its own control socket, or a worker carries nothing.
func (d *daemon) watchdog(ctx context.Context) error {
	limit, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("watchdog off", "error", err)
		return nil
	}
	if limit == 0 {
		return nil
	}
	client := control.NewClient(d.config.Control.Socket)
	defer client.Close()
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asked, cancel := context.WithTimeout(ctx, limit/3)
		if _, err := client.Status(asked); err != nil {
			if ctx.Err() == nil {
				d.log.Warn("control socket does not answer", "error", err)
			}
		} else if stuck := d.engine.StuckWorkers(asked); len(stuck) == 0 {
			d.notify(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.log.Error("workers carry nothing", "workers", stuck)
		}
		cancel()
	}
}
