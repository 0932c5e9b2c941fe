package e2e

import (
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
	a := execute(t, "hosts", "-binaries", program(""), "-once")
	if a.code != 0 || strings.Contains(a.stdout, "MISMATCH") {
		t.Fatalf("exit status %d\n%s\n%s", a.code, a.stdout, a.stderr)
	}
	for what, want := range map[string]int{
		"  allowed  allowed  ":                                    71, // of 80 lines
		"  denied   denied   NSG":                                 9,
		"internet  VM1          TCP/8080  denied   denied   NSG1": 1,
		"VM1       internet     TCP/80    allowed  allowed  NSG2": 1,
	} {
		if n := strings.Count(a.stdout, what); n != want {
			t.Errorf("%q stands there %d times, want %d:\n%s", what, n, want, a.stdout)
		}
	}
	if out, err := exec.Command("ip", "netns", "list").Output(); err != nil || strings.Contains(string(out), "nsgd-host") {
		t.Errorf("namespaces that are left: %s, %v", out, err)
	}
}
