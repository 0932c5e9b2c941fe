package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The lab ends when one of its processes has, and says which one. It stayed up for ever.
func TestTheLabOnThreeHostsNoticesADeadProcess(t *testing.T) {
	needWorld(t)
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not there: apt install etcd-server")
	}
	etcd, stdout := filepath.Clean(etcd), newOutput()
	d := launchCommand(t, "", stdout, program("hosts"), "-binaries", program(""), "-etcd", etcd)
	d.done = true // it ends by itself
	d.waitFor(stdout, "The lab stays up until Ctrl-C")
	killed := 0
	for _, pid := range pidsOf(t, "nsgd-hosts-", etcd) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			killed++
		}
	}
	d.wait()
	if code := d.cmd.ProcessState.ExitCode(); killed != 1 || code != 1 || !strings.Contains(d.stderr.String(), "hosts: "+etcd) || !strings.Contains(d.stderr.String(), "has ended: signal: killed") {
		t.Errorf("%d killed, exit %d", killed, code)
	}
	nothingLeft(t)
}

// pidsOf are the other processes whose command lines have all the words.
func pidsOf(t *testing.T, words ...string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may have ended
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		has := pid != os.Getpid()
		for _, word := range words {
			has = has && strings.Contains(string(text), word)
		}
		if has {
			pids = append(pids, pid)
		}
	}
	return pids
}

// The seed's figure on three hosts gives every host of the lab what it gives on one: the program compares the wire with the
// rules, and fails where they differ.
func TestTheFigureOnThreeHosts(t *testing.T) {
	needWorld(t)
	for _, tool := range []string{"etcd", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not there: apt install etcd-server util-linux", tool)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience) // etcd, three daemons and all probes
	defer cancel()
	cmd := exec.CommandContext(ctx, program("hosts"), "-binaries", program(""), "-once")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it removes what it has made
	table := func() string { return stdout.String() }
	if err := cmd.Run(); err != nil || strings.Contains(table(), "MISMATCH") {
		t.Fatalf("%v\n%s\n%s", err, table(), &stderr)
	}
	for what, want := range map[string]int{
		"  allowed  allowed  ":                                    71, // of 80 lines
		"  denied   denied   NSG":                                 9,
		"internet  VM1          TCP/8080  denied   denied   NSG1": 1,
		"VM1       internet     TCP/80    allowed  allowed  NSG1": 1,
	} {
		if n := strings.Count(table(), what); n != want {
			t.Errorf("%q stands there %d times, want %d:\n%s", what, n, want, table())
		}
	}
	if out, err := exec.Command("ip", "netns", "list").Output(); err != nil || strings.Contains(string(out), "nsgd-host") {
		t.Errorf("namespaces that are left: %s, %v", out, err)
	}
}
