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

	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/sys/unix"
)

// anybody is a user without any right.
const anybody = 65534

// readableByAll lets another user read what configure has written.
func readableByAll(t *testing.T, dir string) {
	t.Helper()
	for at := dir; filepath.Dir(at) != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// statusOf reads a line of /proc/PID/status.
func statusOf(t *testing.T, pid int, key string) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if value, found := strings.CutPrefix(line, key+":"); found {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("process %d has no %s", pid, key)
	return ""
}

// privilegedPart finds the daemon's other process.
func (d *daemon) privilegedPart() int {
	d.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		for _, child := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(child); err == nil {
				return pid
			}
		}
	}
	d.t.Fatal("the daemon has no child")
	return 0
}

// TestTheDaemonIsAUserWithoutCapabilities holds that what carries packets and answers can do nothing else.
func TestTheDaemonIsAUserWithoutCapabilities(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy(), "user: nobody")
	readableByAll(t, dir)
	d := startIn(t, dir)
	const none = "0000000000000000"
	for key, want := range map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1",
		"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Name": "nsgd",
	} {
		if got := statusOf(t, d.cmd.Process.Pid, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	eachFamily(t, func(t *testing.T, f family) {
		serveTCP(t, f.vm1, 80)
		serveTCP(t, f.vm1, 8080)
		mustConnect(t, f.internet, f.vm1, 80)
		mustNotConnect(t, f.internet, f.vm1, 8080)
	})
	nsgctl(t, "reload")
}

// TestAFolderThatTheUserMayNotWriteToIsNamedAtTheStart is about rows that nobody would miss until they are needed.
func TestAFolderThatTheUserMayNotWriteToIsNamedAtTheStart(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy(), "user: nobody", "flowLogs: [{version: vnet4, folder: logs}]")
	readableByAll(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := execute(t, "nsgd", "run", "--config", filepath.Join(dir, lab.ConfigName))
	if a.code != 1 {
		t.Errorf("exit %d, want 1", a.code)
	}
	mustName(t, "nsgd", a, []string{"flowLogs[0].folder", filepath.Join(dir, "logs"), "65534"})
	nothingLeft(t)
}

// TestNeitherPartOutlivesTheOther kills one and waits for the end of the other.
func TestNeitherPartOutlivesTheOther(t *testing.T) {
	d := start(t, labPolicy())
	d.expectErrors = true
	if err := syscall.Kill(d.privilegedPart(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.waitFor(d.stderr, "the privileged part of nsgd has ended")
	<-d.exited
	d.done = true

	again := start(t, labPolicy())
	part, err := unix.PidfdOpen(again.privilegedPart(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(part)
	again.kill()
	ended := []unix.PollFd{{Fd: int32(part), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, int(patience.Milliseconds())); n != 1 || err != nil {
		t.Errorf("the privileged part goes on after the daemon: %d, %v", n, err)
	}
	last := start(t, labPolicy()) // removes what was left
	last.stop(syscall.SIGTERM)
	nothingLeft(t)
}

// runAsNobody runs the daemon as a user that has certain capabilities only.
func runAsNobody(t *testing.T, attachments string, capabilities ...uintptr) *daemon {
	t.Helper()
	dir := configure(t, labPolicy())
	readableByAll(t, dir)
	state, err := os.MkdirTemp("/run", "own") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	if err := os.Chown(state, anybody, anybody); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, lab.ConfigName)
	writeFile(t, file, "policy: [policy/]\nattachments:\n"+attachments+"metrics: {listen: \"off\"}\ncontrol: {socket: "+filepath.Join(state, "nsgd.sock")+"}\n")
	d := &daemon{t: t, stdout: newOutput(), stderr: newOutput(), exited: make(chan struct{})}
	d.cmd = exec.Command(program("nsgd"), "run", "--config", file)
	d.cmd.Stdout, d.cmd.Stderr = d.stdout, d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: anybody, Gid: anybody}, AmbientCaps: capabilities,
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.cmd.Wait(); close(d.exited) }()
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.exited
	})
	return d
}

// TestOneCapabilityIsEnoughInTheOwnNamespace runs the daemon without root.
func TestOneCapabilityIsEnoughInTheOwnNamespace(t *testing.T) {
	needWorld(t)
	// As udev makes it: every user may open it.
	if err := syscall.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount("/dev/net", 0) })
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
		t.Fatal(err)
	}
	const own = "- {networkInterface: vm1-nic, device: nsgd-own1}\n- {internet: true, device: nsgd-own2}\n"
	t.Run("with CAP_NET_ADMIN", func(t *testing.T) {
		d := runAsNobody(t, own, unix.CAP_NET_ADMIN)
		d.waitFor(d.stderr, "msg=ready")
		if got := statusOf(t, d.cmd.Process.Pid, "CapEff"); got != "0000000000000000" {
			t.Errorf("the daemon has capabilities %s", got)
		}
	})
	for _, refused := range []struct {
		name, attachments string
		capabilities      []uintptr
		says              string
	}{
		{"without", own, nil, "CAP_NET_ADMIN"},
		{"in another namespace", "- {internet: true, device: eth0, netns: " + "/proc/self/ns/net" + "}\n", []uintptr{unix.CAP_NET_ADMIN}, "CAP_SYS_ADMIN"},
	} {
		t.Run(refused.name, func(t *testing.T) {
			d := runAsNobody(t, refused.attachments, refused.capabilities...)
			<-d.exited
			if code, text := d.cmd.ProcessState.ExitCode(), d.stderr.String(); code != 1 || !strings.Contains(text, refused.says) {
				t.Errorf("exit %d, %q; want 1 and %s", code, text, refused.says)
			}
		})
	}
}

// TestThePrivilegedPartOfTheUnits does what systemd does with the units: it starts the privileged part for a connection
// to a socket, and the daemon as a user without any right.
func TestThePrivilegedPartOfTheUnits(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	readableByAll(t, dir)
	config, socket := filepath.Join(dir, lab.ConfigName), "/run/nsgd-privileged.sock"
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chown(socket, anybody, -1); err != nil {
		t.Fatal(err)
	}
	part := exec.Command(program("nsgd"), "privileged", "--config", config)
	partOut := newOutput()
	part.Stderr = partOut
	started := make(chan error, 1)
	go func() {
		conn, err := listener.AcceptUnix()
		if err == nil {
			var file *os.File
			if file, err = conn.File(); err == nil {
				part.ExtraFiles = []*os.File{file} // descriptor 3, as systemd passes it
				err = errors.Join(part.Start(), file.Close())
			}
			conn.Close()
		}
		started <- err
	}()

	d := &daemon{t: t, dir: dir, stdout: newOutput(), stderr: newOutput(), exited: make(chan struct{})}
	d.cmd = exec.Command(program("nsgd"), "run", "--config", config, "--privileged", socket)
	d.cmd.Stdout, d.cmd.Stderr = d.stdout, d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: anybody, Gid: anybody}}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.cmd.Wait(); close(d.exited) }()
	d.waitFor(d.stderr, "msg=ready")
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	eachFamily(t, func(t *testing.T, f family) {
		serveTCP(t, f.vm1, 80)
		mustConnect(t, f.internet, f.vm1, 80)
		mustNotConnect(t, f.internet, f.vm1, 8080)
	})
	d.stop(syscall.SIGTERM)
	if err := part.Wait(); err != nil || partOut.String() != "" {
		t.Errorf("the privileged part ended with %v: %s", err, partOut)
	}
	nothingLeft(t)
}
