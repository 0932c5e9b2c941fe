package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// lookers is a group's id that no group of the machine needs to have.
const lookers = 4242

// executeAs runs a program as nobody, in more groups.
func executeAs(t *testing.T, groups []uint32, name string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: groups}}
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return answer{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestWhoLooksMayNotChange(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	file := filepath.Join(dir, lab.ConfigName)
	edit(t, file, "control: {", "control: {group: 4242, ")
	startIn(t, dir)
	if a := executeAs(t, []uint32{lookers}, "nsgctl", "status"); a.code != 0 || !strings.Contains(a.stdout, "vm1-nic") {
		t.Errorf("a member looks: %v", a)
	}
	if a := executeAs(t, []uint32{lookers}, "nsgctl", "verify", "--nic", "vm1-nic", "--direction", "Inbound", "--protocol", "TCP", "--local", "10.0.1.4:80", "--remote", "203.0.113.10:50000"); a.code != 0 {
		t.Errorf("a member asks for a verdict: %v", a)
	}
	for _, args := range [][]string{{"reload"}, {"detach", "vm1-nic"}, {"attach", "{networkInterface: vm1-nic, device: eth9}"}, {"confirm"}, {"capture", "--count", "1", "-w", "-"}, {"diff", "--running"}} {
		if a := executeAs(t, []uint32{lookers}, "nsgctl", args...); a.code != 1 || !strings.Contains(a.stderr, "permission denied: user 65534 may look") {
			t.Errorf("a member tries %v: %v", args, a)
		}
	}
	if a := executeAs(t, nil, "nsgctl", "status"); a.code != 3 || !strings.Contains(a.stderr, "permission denied") || strings.Contains(a.stderr, "no daemon") {
		t.Errorf("a stranger looks: %v", a)
	}
	if got := nsgctl(t, "status", "--query", "generation"); strings.TrimSpace(got) != "1" {
		t.Errorf("generation %s after all that was refused", got)
	}
	nsgctl(t, "reload") // of root
}
