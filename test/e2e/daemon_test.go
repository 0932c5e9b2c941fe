package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

const (
	namespaceDir  = "/run/netns"
	controlSocket = "/run/nsgd/nsgd.sock"
	metricsURL    = "http://127.0.0.1:9646/metrics"

	// patience bounds every wait for something that must happen, generously, for machines that are slow at times: it
	// only passes when a test fails.
	patience = 90 * time.Second
)

// output collects what a process prints, and can be waited for.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed and replaced by each Write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.buf.Write(b)
}

func (o *output) String() string {
	text, _ := o.snapshot()
	return text
}

func (o *output) snapshot() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}

// daemon is one nsgd process.
type daemon struct {
	t              *testing.T
	dir            string // configuration and policy
	cmd            *exec.Cmd
	stdout, stderr *output
	exited         chan struct{} // closed when the process has ended
	done           bool          // stopped or killed on purpose
	expectErrors   bool          // the test makes the daemon log errors
}

// configure writes the lab's configuration, with the policy and more YAML.
func configure(t *testing.T, p groupRules, more ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "config")
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	p.write(t, dir)
	file := filepath.Join(dir, lab.ConfigName)
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	config = append(config, strings.Join(more, "\n")...)
	if err := os.WriteFile(file, append(config, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start runs the lab under the policy and waits until the daemon is ready. At the
// end of the test it is stopped and checked to leave nothing behind.
func start(t *testing.T, p groupRules, more ...string) *daemon {
	t.Helper()
	needWorld(t)
	return startIn(t, configure(t, p, more...))
}

func startIn(t *testing.T, dir string) *daemon {
	t.Helper()
	if across != nil {
		return across.start(t, dir)
	}
	d := launch(t, "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir = dir
	d.waitFor(d.stderr, "msg=ready")
	return d
}

// launch starts nsgd with the arguments.
func launch(t *testing.T, args ...string) *daemon {
	t.Helper()
	stdout := newOutput()
	d := launchTo(t, stdout, args...)
	d.stdout = stdout
	return d
}

// launchTo is launch with a standard output of the caller's.
func launchTo(t *testing.T, stdout io.Writer, args ...string) *daemon {
	t.Helper()
	return launchIn(t, "", stdout, args...)
}

// launchIn is launchTo in a folder; empty: the test's own.
func launchIn(t *testing.T, dir string, stdout io.Writer, args ...string) *daemon {
	t.Helper()
	return launchCommand(t, dir, stdout, append([]string{program("nsgd")}, args...)...)
}

// launchCommand is launchIn with what starts nsgd before it.
func launchCommand(t *testing.T, dir string, stdout io.Writer, args ...string) *daemon {
	t.Helper()
	return launchWith(t, dir, stdout, newOutput(), args...)
}

// launchWith is launchCommand with a standard error of the caller's.
func launchWith(t *testing.T, dir string, stdout io.Writer, stderr *output, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, stderr: stderr, exited: make(chan struct{})}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Dir = dir
	d.cmd.Stdout, d.cmd.Stderr = stdout, d.stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		if !d.done {
			d.stop(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("stderr of %s:\n%s", strings.Join(args, " "), d.stderr)
		}
	})
	return d
}

func program(name string) string { return filepath.Join(os.Getenv(binariesEnv), name) }

// waitFor waits until the output contains text.
func (d *daemon) waitFor(o *output, text string) {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		printed, changed := o.snapshot()
		if strings.Contains(printed, text) {
			return
		}
		select {
		case <-changed:
		case <-d.exited:
			if strings.Contains(o.String(), text) {
				return
			}
			d.t.Fatalf("nsgd ended (%v) without printing %q", d.cmd.ProcessState, text)
		case <-deadline:
			d.t.Fatalf("nsgd did not print %q within %v", text, patience)
		}
	}
}

// stop ends the daemon by a signal and checks that it went cleanly.
func (d *daemon) stop(signal os.Signal) {
	d.t.Helper()
	d.end(signal)
	nothingLeft(d.t)
}

// end is stop for a daemon that leaves its interfaces closed, in namespaces of the test's own.
func (d *daemon) end(signal os.Signal) {
	d.t.Helper()
	d.done = true
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Errorf("signal nsgd: %v", err)
	}
	d.wait()
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("nsgd ended with %v after %v", d.cmd.ProcessState, signal)
	}
	stderr := d.stderr.String()
	for _, bad := range []string{"level=ERROR", "DATA RACE", "panic:"} {
		if strings.Contains(stderr, bad) && !(bad == "level=ERROR" && d.expectErrors) {
			d.t.Errorf("nsgd printed %s", bad)
		}
	}
}

// kill ends the daemon without a chance to clean up.
func (d *daemon) kill() {
	d.t.Helper()
	d.done = true
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	d.wait()
}

func (d *daemon) wait() {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.cmd.Process.Kill()
		d.t.Fatalf("nsgd did not end within %v", patience)
	}
}

// setPolicy writes another policy for the next reload.
func (d *daemon) setPolicy(p groupRules) {
	d.t.Helper()
	p.write(d.t, d.dir)
}

// reload makes the daemon take another policy.
func (d *daemon) reload(t *testing.T, p groupRules) {
	t.Helper()
	p.write(t, d.dir)
	nsgctl(t, "reload")
}

// nothingLeft checks that neither namespaces nor a socket outlive the daemon.
func nothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(namespaceDir)
	if err != nil {
		t.Fatal(err)
	}
	if across != nil {
		entries = across.namespacesLeft(entries)
	}
	for _, e := range entries {
		t.Errorf("namespace %s was left behind", e.Name())
	}
	if _, err := os.Stat(controlSocket); err == nil {
		t.Errorf("%s was left behind", controlSocket)
	}
}

// answer is what a program printed and how it ended.
type answer struct {
	stdout, stderr string
	code           int
}

func (a answer) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", a.code, a.stdout, a.stderr)
}

// execute runs a program to its end.
func execute(t *testing.T, name string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return answer{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// nsgctl runs a verb that must succeed and returns what it printed.
func nsgctl(t *testing.T, args ...string) string {
	t.Helper()
	if across != nil && args[0] != "cluster" && !slices.Contains(args, "--socket") {
		return across.nsgctl(t, args...)
	}
	a := execute(t, "nsgctl", args...)
	if a.code != 0 {
		t.Fatalf("nsgctl %s: %v", strings.Join(args, " "), a)
	}
	return a.stdout
}

// verdict is what nsgctl verify answers.
type verdict struct {
	Access               string
	RuleName             string
	NetworkSecurityGroup string
	Reason               string
	Error                any // set in the line of a request that could not be answered
	Stages               []struct{ NetworkSecurityGroup, Association, Direction, RuleName, Access string }
}

// verify asks for a NIC's own chain, or for the path with "--path" among more.
func verify(t *testing.T, nic, direction, protocol, local, remote string, more ...string) verdict {
	t.Helper()
	args := append([]string{"verify", "--nic", nic, "--direction", direction, "--protocol", protocol,
		"--local", local, "--remote", remote, "-o", "json"}, more...)
	var v verdict
	if out := nsgctl(t, args...); json.Unmarshal([]byte(out), &v) != nil {
		t.Fatalf("nsgctl verify printed %q", out)
	}
	return v
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
