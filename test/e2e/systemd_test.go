package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
)

const systemdPath = "/lib/systemd/systemd"

// asInit makes a systemd the first process of namespaces and of a control group of its own, with the units of a folder
// alone. $1 is that folder.
const asInit = `set -e
group=nsgd-e2e-$$
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
	if [ -e $hierarchy/cgroup.procs ]; then mkdir -p $hierarchy/$group; echo $$ > $hierarchy/$group/cgroup.procs; fi
done
exec unshare --pid --mount --net --ipc --uts --cgroup --fork --kill-child bash -c '
	set -e
	mount --make-rprivate /
	mount -t proc proc /proc
	mount -t tmpfs tmpfs /run -o mode=755
	mkdir -p /run/netns /run/lock
	for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
		if [ -e $hierarchy/$1 ]; then mount --bind $hierarchy/$1 $hierarchy; fi
	done
	ip link set lo up
	export container=nsgd SYSTEMD_UNIT_PATH=$0
	exec ` + systemdPath + ` --system --unit=test.target --show-status=false --log-target=console --log-level=warning
' "$1" $group
`

// initSystem is a systemd that runs in namespaces of its own.
type initSystem struct {
	t   *testing.T
	pid int // of the systemd
	log string
}

// startSystemd starts a systemd with the unit that is shipped, for the lab, and waits until it answers.
func startSystemd(t *testing.T, dir string) *initSystem {
	t.Helper()
	units := filepath.Join(dir, "units")
	if err := os.Mkdir(units, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &initSystem{t: t, log: filepath.Join(dir, "nsgd.log")}
	for _, name := range []string{"test", "basic", "sysinit", "shutdown", "network-pre", "network-online", "umount", "final", "sockets"} {
		writeFile(t, filepath.Join(units, name+".target"), "[Unit]\nDefaultDependencies=no\n")
	}
	readableByAll(t, dir)
	for _, name := range []string{"nsgd.service", "nsgd-privileged.socket", "nsgd-privileged@.service"} {
		unit := readFile(t, filepath.Join("../../deploy/systemd", name))
		unit = strings.NewReplacer("/usr/bin/nsgd", program("nsgd"), "/etc/nsgd/nsgd.yaml", filepath.Join(dir, lab.ConfigName),
			"User=nsgd", "User=nobody").Replace(unit) // a user that each machine has
		unit = strings.Replace(unit, "[Service]\n", "[Service]\nStandardError=append:"+s.log+"\n", 1)
		if name == "nsgd.service" { // whose /tmp is its own
			unit = strings.Replace(unit, "[Service]\n", "[Service]\nBindReadOnlyPaths="+dir+" "+filepath.Dir(program("nsgd"))+"\n", 1)
		}
		writeFile(t, filepath.Join(units, name), unit)
	}
	c := exec.Command("bash", "-c", asInit, "bash", units)
	output := newOutput()
	c.Stdout, c.Stderr = output, output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill() // and with it, by --kill-child, all of the namespaces
		c.Wait()
		for _, hierarchy := range []string{"", "systemd", "unified"} {
			group := filepath.Join("/sys/fs/cgroup", hierarchy, fmt.Sprint("nsgd-e2e-", c.Process.Pid))
			eventually(t, "the control group is empty", func() bool { return removeGroup(group) == nil })
		}
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("systemd: %s\nnsgd: %s", output, text)
		}
	})
	eventually(t, "systemd", func() bool {
		s.pid = childOf(c.Process.Pid)
		return s.pid > 0 && s.run("systemctl", "is-active", "test.target") == nil
	})
	return s
}

// removeGroup removes a control group and those below it.
func removeGroup(group string) error {
	return filepath.WalkDir(group, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		children, _ := os.ReadDir(path)
		for _, child := range children {
			if child.IsDir() {
				if err := removeGroup(filepath.Join(path, child.Name())); err != nil {
					return err
				}
			}
		}
		if err := syscall.Rmdir(path); err != nil && err != syscall.ENOENT {
			return err
		}
		return filepath.SkipDir
	})
}

// childOf is a process's only child; 0: none, or several.
func childOf(pid int) int {
	text := ""
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		list, _ := os.ReadFile(task)
		text += string(list)
	}
	child, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0
	}
	return child
}

func (s *initSystem) run(name string, args ...string) error {
	out, err := exec.Command("nsenter", append([]string{"-a", "-t", fmt.Sprint(s.pid), name}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *initSystem) must(name string, args ...string) {
	s.t.Helper()
	if err := s.run(name, args...); err != nil {
		s.t.Fatal(err)
	}
}

// root is a path as systemd and nsgd see it.
func (s *initSystem) root(path string) string { return fmt.Sprintf("/proc/%d/root%s", s.pid, path) }

// ready counts the processes that got ready.
func (s *initSystem) ready() int {
	text, _ := os.ReadFile(s.log)
	return strings.Count(string(text), "msg=ready")
}

// whyNoGroups says why no control groups can be made; empty: they can.
func whyNoGroups() (why string) {
	why = "there is no hierarchy of control groups"
	for _, hierarchy := range []string{"", "systemd", "unified"} {
		at := filepath.Join("/sys/fs/cgroup", hierarchy)
		if _, err := os.Stat(filepath.Join(at, "cgroup.procs")); err != nil {
			continue
		}
		probe := filepath.Join(at, fmt.Sprint("nsgd-e2e-probe-", os.Getpid()))
		if err := errors.Join(os.Mkdir(probe, 0o755), syscall.Rmdir(probe)); err != nil {
			return err.Error()
		}
		why = ""
	}
	return why
}

func TestSystemdKeepsFlows(t *testing.T) {
	needWorld(t)
	if _, err := os.Stat(systemdPath); err != nil {
		t.Skip("systemd is not installed: nobody runs the unit")
	}
	if why := whyNoGroups(); why != "" {
		t.Skip(why + ": systemd needs control groups")
	}
	dir := configure(t, labPolicy())
	s := startSystemd(t, dir)
	s.must("systemctl", "start", "nsgd")
	var server net.Listener
	var conn, accepted net.Conn
	in := func(h lab.Host, f func() error) {
		t.Helper()
		if err := tun.Do(s.root(filepath.Join(namespaceDir, h.Namespace)), f); err != nil {
			t.Fatal(err)
		}
	}
	at := net.JoinHostPort(vm1.Address.String(), "80")
	in(vm1, func() (err error) { server, err = net.Listen("tcp", at); return err })
	in(internet, func() (err error) { conn, err = net.DialTimeout("tcp", at, patience); return err })
	accepted, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	defer conn.Close()
	defer accepted.Close()
	go func() { // answers
		b := make([]byte, 1<<10)
		for {
			n, err := accepted.Read(b)
			if err == nil {
				_, err = accepted.Write(b[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	groups(nil, nil).write(t, dir) // from now on only the one that is there
	s.must("systemctl", "reload", "nsgd")
	for _, step := range [][]string{
		{"systemctl", "restart", "nsgd"},
		{"systemctl", "kill", "-s", "KILL", "nsgd"},
		{program("nsgctl"), "upgrade"},
		{"systemctl", "restart", "nsgd"},
	} {
		before := s.ready()
		s.must(step[0], step[1:]...)
		eventually(t, "another process", func() bool { return s.ready() > before })
		if err := echo(conn, patience); err != nil {
			t.Fatalf("%s: %v", strings.Join(step, " "), err)
		}
	}
	in(internet, func() error {
		if c, err := net.DialTimeout("tcp", at, 300*time.Millisecond); err == nil {
			c.Close()
			t.Error("a new connection is let through")
		}
		return nil
	})
	s.must("systemctl", "is-active", "nsgd")
	s.must("systemctl", "stop", "nsgd")
	left, err := os.ReadDir(s.root(namespaceDir))
	if err != nil || len(left) > 0 {
		t.Errorf("namespaces are left behind a stop: %v %v", left, err)
	}
}
