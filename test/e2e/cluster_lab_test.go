package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

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
