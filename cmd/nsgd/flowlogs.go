package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/metrics"
	"github.com/nsgd/nsgd/metrics/flowlog"
	"github.com/nsgd/nsgd/tun/fdstore"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

func (v *validator) flowLogs(c *Config) {
	if d := time.Duration(c.FlowLogInterval); d != 0 && (d < flowlog.MinInterval || d > flowlog.MaxInterval) {
		v.fail(at("flowLogInterval"), "%v: allowed are %v to %v", d, flowlog.MinInterval, flowlog.MaxInterval)
	}
	sizes := map[string]int{}
	for i := range c.FlowLogs {
		f := &c.FlowLogs[i]
		if _, err := flowlog.ParseVersion(f.Version); err != nil {
			v.fail(at("flowLogs", i, "version"), "%v", err)
		}
		if f.FromPolicy && f.Target != "" {
			v.fail(at("flowLogs", i, "fromPolicy"), "true: the log has a target already, %q: only one of the two is allowed", f.Target)
		}
		switch {
		case f.Folder == "" && !f.Stdout:
			v.fail(at("flowLogs", i), "neither folder nor stdout: at least one is needed")
		case f.Folder == "" && f.MaxSize != 0:
			v.fail(at("flowLogs", i, "maxSize"), "%d: it is a folder's, and there is none", f.MaxSize)
		case f.MaxSize != 0 && f.MaxSize < flowlog.MinMaxSize:
			v.fail(at("flowLogs", i, "maxSize"), "%d: at least %d", f.MaxSize, flowlog.MinMaxSize)
		}
		if f.Folder == "" {
			continue
		}
		if first, shared := sizes[f.Folder]; shared && c.FlowLogs[first].MaxSize != f.MaxSize {
			v.fail(at("flowLogs", i, "maxSize"), "%d: flowLogs[%d] has the same folder, and %d", f.MaxSize, first, c.FlowLogs[first].MaxSize)
		}
		sizes[f.Folder] = i
	}
}

// flowLogs are the logs as the recorder takes them.
func (c *Config) flowLogs() []flowlog.Log {
	logs := make([]flowlog.Log, len(c.FlowLogs))
	for i := range c.FlowLogs {
		f := &c.FlowLogs[i]
		version, _ := flowlog.ParseVersion(f.Version) // is valid
		logs[i] = flowlog.Log{Version: version, Target: f.Target, FromPolicy: f.FromPolicy, Folder: f.Folder, MaxSize: int64(f.MaxSize), Stdout: f.Stdout}
	}
	return logs
}

// record begins flow logs, before the engine carries anything.
func (d *daemon) record(stdout io.Writer) error {
	slabs := d.inherited.kept.Slabs()
	if len(d.config.FlowLogs) == 0 {
		return flowlog.Forget(slabs)
	}
	var err error
	d.recorder, err = flowlog.New(flowlog.Options{
		Engine: d.engine, Logs: d.config.flowLogs(), Interval: time.Duration(d.config.FlowLogInterval), Stdout: stdout, Log: d.log,
		Slabs: slabs,
	})
	if err != nil {
		return err
	}
	d.onStop(d.stopRecording)
	for i := range d.config.FlowLogs {
		if err := mayWrite(d.config.FlowLogs[i].Folder); err != nil {
			return fmt.Errorf("flowLogs[%d].folder: %w", i, err)
		}
	}
	return nil
}

// mayWrite says whether this process's user may make files in a folder, which it has no capability for. A log would
// find out with its first rows only.
func mayWrite(folder string) error {
	for at := folder; at != ""; at = filepath.Dir(at) {
		err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if errors.Is(err, unix.ENOENT) && at != filepath.Dir(at) {
			continue // it will be made in the one above
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w: allowed is a folder that user %d may write to", folder, at, err, os.Geteuid())
		}
		break
	}
	return nil
}

// stopRecording gives live flows their last rows, unless they go on in the next process. A second call does nothing.
func (d *daemon) stopRecording() error {
	if d.recorder == nil || d.recorded {
		return nil
	}
	d.recorded = true
	if d.inherited.leaving.Load() {
		return d.recorder.Leave()
	}
	return d.recorder.Close()
}

// collectors show what is beside the engine.
func (d *daemon) collectors() []prometheus.Collector {
	all := []prometheus.Collector{metrics.LogLinesLost(d.lines.Lost), metrics.DHCP(d.responders.frames)}
	if d.recorder != nil {
		all = append(all, d.recorder)
	}
	if store := d.inherited.store; store.Standby() != "" {
		all = append(all, metrics.Standby(func() bool { return store.Standby() == fdstore.StandbyPrepared }))
	}
	return append(all, d.member.collectors()...)
}

// flowLogUse is for the status.
func (d *daemon) flowLogUse() *inspect.FlowLogUse {
	if d.recorder == nil {
		return nil
	}
	s := d.recorder.Stats()
	return &inspect.FlowLogUse{
		Rows: s.Rows[flowlog.NSG] + s.Rows[flowlog.VNet], Lost: s.EndedLost + s.DeniedLost + s.WaitingLost + s.LeftOut, Errors: s.Errors, Size: s.Size,
		LostDenied: s.DeniedLost, LostRoom: s.LeftOut, DeletedFiles: s.Deleted,
	}
}

// checkFlowLogs finds out whether the logs' targets are there.
func checkFlowLogs(path string, all *loaded) error {
	if err := flowlog.Check(all.policy, all.config.flowLogs()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
