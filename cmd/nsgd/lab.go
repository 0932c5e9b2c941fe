package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/nsgd/nsgd/deploy/lab"
)

// runLab runs the built-in lab: it sends real traffic between all hosts, prints which
// probes passed and the rules that decided, and stays up until ctx ends. The daemon is another process: this one
// plays the hosts, which needs root in their namespaces.
func runLab(ctx context.Context, stderr, out io.Writer) (err error) {
	dir, release, err := labFolder(os.TempDir())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := lab.WriteTo(dir); err != nil {
		return err
	}
	all, err := loadAll(ctx, filepath.Join(dir, lab.ConfigName))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready, ended, err := startLabDaemon(ctx, dir, stderr, out)
	if err != nil {
		return err
	}
	var played error
	select {
	case err := <-ended:
		return err
	case <-ready:
		if played = showLab(ctx, all, out); played != nil && !errors.Is(played, lab.ErrMismatch) {
			stop()
		}
	}
	return errors.Join(<-ended, played)
}

// startLabDaemon starts the daemon on a folder's configuration. ready closes when it carries packets, and ended says
// how it ended, after ctx.
func startLabDaemon(ctx context.Context, dir string, stderr, out io.Writer) (ready chan struct{}, ended chan error, err error) {
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify.sock"), Net: "unixgram"})
	if err != nil {
		return nil, nil, fmt.Errorf("lab: %w", err)
	}
	daemon := exec.CommandContext(ctx, "/proc/self/exe", "run", "--config", filepath.Join(dir, lab.ConfigName))
	daemon.Args[0], daemon.Stdout, daemon.Stderr = os.Args[0], out, stderr
	daemon.Env = append(os.Environ(), "NOTIFY_SOCKET="+told.LocalAddr().String())
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) }
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	ready, ended = make(chan struct{}), make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the kernel counts the end of the thread as the parent's
		defer told.Close()
		err := daemon.Start()
		started <- err
		if err != nil {
			return
		}
		err = daemon.Wait()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		ended <- err
	}()
	go func() {
		message, isReady := make([]byte, 4096), false
		for { // the daemon waits for who hears it
			n, err := told.Read(message)
			if err != nil {
				return
			}
			if !isReady && bytes.Contains(message[:n], []byte(notifyReady)) {
				isReady = true
				close(ready)
			}
		}
	}()
	return ready, ended, <-started
}

// serveLab opens the servers of all hosts, until ctx ends.
func serveLab(ctx context.Context) error {
	_, err := lab.Serve(ctx, lab.AllHosts(), lab.Options{})
	return err
}

// showLab probes and prints. After a mismatch between wire and verdict the lab stays up, so that a person can look
// at it.
func showLab(ctx context.Context, all *loaded, out io.Writer) error {
	if err := serveLab(ctx); err != nil {
		return err
	}
	results, mismatch := lab.Run(ctx, lab.AllHosts(), lab.Options{Platform: true, Explain: lab.ExplainBy(all.snapshot)})
	if ctx.Err() != nil {
		return nil
	}
	if mismatch != nil && !errors.Is(mismatch, lab.ErrMismatch) {
		return mismatch
	}
	if err := lab.Table(out, results); err != nil {
		return err
	}
	if mismatch != nil {
		fmt.Fprintf(out, "\n%v\n", mismatch)
	}
	if _, err := io.WriteString(out, labHints(all.config)); err != nil {
		return err
	}
	return mismatch
}

// labHints returns what to try after the table.
func labHints(c *Config) string {
	nsgctl := besideDaemon(os.Args[0], "nsgctl")
	var b strings.Builder
	b.WriteString("\nThe lab stays up until Ctrl-C.\n")
	if address := c.Metrics.Listen; address != metricsOff {
		fmt.Fprintf(&b, "Metrics: http://%s/metrics\n", address)
	}
	if url := c.consoleURL(); url != "" {
		fmt.Fprintf(&b, "Console: %s\n", url)
	}
	fmt.Fprintf(&b, "Policy:  %s (change it, then: %s reload)\n\nTo try more, as root in another terminal:\n", c.Policy[0], nsgctl)
	for _, command := range []string{
		"ip netns exec nsgd-internet curl http://10.0.1.4/",
		"ip netns exec nsgd-internet curl -m 2 http://10.0.1.4:8080/",
		nsgctl + " verify --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4:8080 --remote 203.0.113.10:50000",
		nsgctl + " effective --nic vm1-nic",
		nsgctl + " rules",
		nsgctl + " flows",
		"ip netns exec nsgd-vm1 ping -c 3 10.0.2.4",
		"ip netns exec nsgd-internet ping -c 3 fd00:db8:1:1::4",
	} {
		b.WriteString("  " + command + "\n")
	}
	return b.String()
}

// besideDaemon returns the path of a tool in the daemon's folder, which may not be in PATH.
func besideDaemon(daemon, tool string) string {
	dir, _ := filepath.Split(daemon)
	return dir + tool
}
