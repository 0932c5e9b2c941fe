package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// installation is a systemd that runs what a deb has installed, in this test's network.
type installation struct {
	t   *testing.T
	cmd *exec.Cmd
	out *output
}

// install installs the deb that scripts/e2e has built, and starts systemd. The programs of this machine serve it, and
// nothing that it writes reaches them.
func install(t *testing.T) *installation {
	t.Helper()
	needWorld(t)
	debs, _ := filepath.Glob(program("packages/*.deb"))
	if len(debs) != 1 {
		t.Skip("needs the deb that scripts/e2e builds")
	}
	for _, file := range []string{"/usr/bin/dpkg", "/lib/systemd/systemd", "/usr/bin/systemctl"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("a deb needs dpkg and systemd: %v", err)
		}
	}
	if text, _ := os.ReadFile("/proc/filesystems"); !strings.Contains(string(text), "\toverlay\n") {
		t.Skip("this kernel has no overlay")
	}
	script, err := filepath.Abs("package_boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	m := &installation{t: t, out: newOutput()}
	group := fmt.Sprintf("nsgd-e2e-%s", filepath.Base(filepath.Dir(program("nsgd"))))
	m.cmd = exec.Command("bash", script, t.TempDir(), group)
	m.cmd.Env = append(os.Environ(), "PACKAGE="+debs[0])
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { m.cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("systemd: %s\n%s", m.out, m.try("journalctl", "--no-pager", "-o", "short-precise", "-u", "nsgd*"))
		}
		m.cmd.Process.Kill() // the first process takes the others along
		<-ended
		removeGroups(group)
	})
	eventually(t, "systemd has booted", func() bool {
		select {
		case <-ended:
			t.Fatalf("systemd ended: %s", m.out)
		default:
		}
		return strings.TrimSpace(m.try("systemctl", "is-active", "basic.target")) == "active"
	})
	// Its namespaces and its control socket are at the places where every test looks.
	for _, dir := range []string{namespaceDir, filepath.Dir(controlSocket)} {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil { // ip netns of an earlier test has mounted it upon itself
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("/proc/%d/root%s", m.cmd.Process.Pid, dir), dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			os.Remove(dir)
			os.Mkdir(dir, 0o755)
		})
	}
	return m
}

// removeGroups removes control groups, the innermost ones first.
func removeGroups(name string) {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, _ := filepath.Glob(pattern + name)
		for _, root := range roots {
			exec.Command("find", root, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		}
	}
}

func (m *installation) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", fmt.Sprint(m.cmd.Process.Pid), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd=/", "--"}, args...)...)
}

// try runs a command in the machine and returns what it printed.
func (m *installation) try(args ...string) string {
	out, _ := m.command(args...).CombinedOutput()
	return string(out)
}

// must is try for a command that succeeds.
func (m *installation) must(args ...string) string {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// property is what systemd says of nsgd.service.
func (m *installation) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.must("systemctl", "show", "--value", "--property", name, "nsgd.service"))
}

// TestTheDaemonOfThePackage installs the deb, runs the daemon by its unit, upgrades and purges it.
func TestTheDaemonOfThePackage(t *testing.T) {
	m := install(t)
	if got := strings.TrimSpace(m.try("systemctl", "is-enabled", "nsgd.service")); got != "disabled" {
		t.Errorf("a fresh installation is %s: nobody has asked for packets to be filtered", got)
	}
	m.must("id", "nsgd")
	version, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(m.must("nsgd", "--version")), "nsgd "), "-")
	if got := m.must("dpkg-query", "-W", "-f", "${Version}", "nsgd"); !strings.Contains(got, strings.TrimPrefix(version, "v")) {
		t.Errorf("nsgd is %s, its package %s", version, got)
	}
	m.must("systemctl", "start", "nsgd.service")
	pid := m.property("MainPID")
	m.confined(pid)
	t.Run("carries the lab's figure", carriesTheLab)

	t.Run("an upgrade keeps flows", func(t *testing.T) {
		serveTCP(t, vm1, 80)
		conn := mustConnect(t, internet, vm1, 80)
		mustEcho(t, conn)
		m.must("dpkg", "--force-depends", "-i", "/run/nsgd.deb")
		if now := m.property("MainPID"); now == pid {
			t.Errorf("process %s goes on: %s", pid, m.property("ActiveState"))
		}
		mustEcho(t, conn)
		eventually(t, "the journal says that flows go on", func() bool {
			return strings.Contains(m.must("journalctl", "--no-pager", "-u", "nsgd"), "goes on with the last process's flows")
		})
		m.confined(m.property("MainPID"))
		fed := m.property("WatchdogTimestampMonotonic")
		eventually(t, "systemd's watchdog is fed", func() bool { return m.property("WatchdogTimestampMonotonic") != fed })
	})

	m.must("dpkg", "--purge", "nsgd")
	for _, left := range []string{"/usr/bin/nsgd", "/etc/nsgd", "/run/nsgd", "/usr/lib/systemd/system/nsgd.service"} {
		if out := m.try("ls", "-d", left); !strings.Contains(out, "No such file") {
			t.Errorf("a purge leaves %s", strings.TrimSpace(out))
		}
	}
	if out := m.try("pgrep", "-x", "nsgd"); out != "" {
		t.Errorf("a purge leaves processes %s", out)
	}
}

// confined checks that a process has the user and the restrictions of the unit.
func (m *installation) confined(pid string) {
	m.t.Helper()
	user := m.property("User")
	if user == "" {
		user = "root"
	}
	if got := strings.TrimSpace(m.must("ps", "-o", "user=", "-p", pid)); got != user {
		m.t.Errorf("nsgd runs as %s, its unit says %s", got, user)
	}
	status := strings.Join(strings.Fields(m.must("cat", "/proc/"+pid+"/status")), " ")
	if !strings.Contains(status, "NoNewPrivs: 1 Seccomp: 2") {
		m.t.Errorf("nsgd is not confined: %s", status)
	}
	_, rest, _ := strings.Cut(status, "CapBnd: ")
	bounding, _, _ := strings.Cut(rest, " ")
	if first := strings.Join(strings.Fields(m.must("cat", "/proc/1/status")), " "); strings.Contains(first, "CapBnd: "+bounding+" ") {
		m.t.Errorf("nsgd may have every capability: %s", bounding)
	}
}
