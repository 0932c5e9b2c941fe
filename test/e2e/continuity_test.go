package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/sys/unix"
)

// startKept runs the lab under nsgd keep.
func startKept(t *testing.T, p groupRules, more ...string) *daemon {
	t.Helper()
	needWorld(t)
	return startKeptIn(t, configure(t, p, more...))
}

// startKeptIn runs the configuration in a folder under nsgd keep.
func startKeptIn(t *testing.T, dir string) *daemon {
	t.Helper()
	readableByAll(t, dir)
	d := launch(t, "keep", "--", program("nsgd"), "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir = dir
	d.waitFor(d.stderr, "msg=ready")
	return d
}

// kept is the process that nsgd keep runs now.
func (d *daemon) kept() (pid int) {
	d.t.Helper()
	eventually(d.t, "nsgd keep has one child", func() bool { // the one before may not be reaped yet
		children := d.children()
		if len(children) != 1 {
			return false
		}
		pid = children[0]
		return true
	})
	return pid
}

func (d *daemon) children() (pids []int) {
	d.t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.cmd.Process.Pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				d.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// succeed ends the kept process by a signal and waits until the next one is ready.
func (d *daemon) succeed(signal syscall.Signal) {
	d.t.Helper()
	d.follow(func() error { return syscall.Kill(d.kept(), signal) })
}

// upgrade has another process take over, and waits until that is ready and the old one has ended.
func (d *daemon) upgrade() {
	d.t.Helper()
	old := d.kept()
	d.follow(func() error { nsgctl(d.t, "upgrade"); return nil })
	eventually(d.t, "the old process has ended", func() bool {
		children := d.children()
		return len(children) == 1 && children[0] != old
	})
}

// follow waits until the process that what brings is ready.
func (d *daemon) follow(what func() error) {
	d.t.Helper()
	ready := strings.Count(d.stderr.String(), "msg=ready")
	if err := what(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "another process", func() bool { return strings.Count(d.stderr.String(), "msg=ready") > ready })
}

func TestFlowsOutliveTheProcess(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"that is killed": syscall.SIGKILL, "that restarts": syscall.SIGUSR1} {
		t.Run(name, func(t *testing.T) {
			d := startKept(t, labPolicy())
			d.expectErrors = true // of keep, which tells that nsgd ended
			var conns []net.Conn
			for _, f := range families {
				serveTCP(t, f.vm1, 80)
				conns = append(conns, mustConnect(t, f.internet, f.vm1, 80))
			}
			groups(nil, nil).write(t, d.dir) // from now on only those that are there
			nsgctl(t, "reload")
			before := scrape(t)
			for range 3 {
				d.succeed(signal)
				for _, conn := range conns {
					mustEcho(t, conn)
				}
				before = scrapeOnwards(t, before, "another process")
			}
			eachFamily(t, func(t *testing.T, f family) { mustNotConnect(t, f.internet, f.vm1, 80) })
			if n := len(flows(t)); n < len(conns) {
				t.Errorf("%d flows", n)
			}
		})
	}
}

func TestAnUpgradeLosesNothing(t *testing.T) {
	t.Run("as root", func(t *testing.T) { upgradeOften(t) })
	t.Run("as another user", func(t *testing.T) { upgradeOften(t, "user: nobody") })
}

// upgradeOften upgrades a daemon with these keys of its configuration.
func upgradeOften(t *testing.T, keys ...string) {
	d := startKept(t, labPolicy(), keys...)
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	groups(nil, nil).write(t, d.dir)
	nsgctl(t, "reload")
	before := scrape(t)
	for range 3 {
		d.upgrade()
		mustEcho(t, conn)
		before = scrapeOnwards(t, before, "an upgrade")
	}
	mustNotConnect(t, internet, vm1, 80)
	writeFile(t, filepath.Join(d.dir, "policy", nsg1+".json"), "{")
	if a := execute(t, "nsgctl", "upgrade"); a.code == 0 || !strings.Contains(a.stderr, "this one stays") {
		t.Errorf("%v", a)
	}
	mustEcho(t, conn)
	d.expectErrors = true
	if err := syscall.Kill(d.kept(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.waitFor(d.stderr, "no restart")
	mustEcho(t, conn)
}

// TestAStandbyGoesOn holds that the process that has read the policy in advance goes on with what holds then.
func TestAStandbyGoesOn(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	readableByAll(t, dir)
	d := launch(t, "keep", "--standby", "--", program("nsgd"), "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir, d.expectErrors = dir, true // of keep, which tells that nsgd ended
	d.waitFor(d.stderr, "msg=ready")
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	standby := func(earlier ...int) (pid int) {
		t.Helper()
		eventually(t, "a standby", func() bool {
			for _, child := range d.children() {
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))                         // it may have ended
				if !slices.Contains(earlier, child) && strings.Contains(string(line), "\x00run\x00") { // no privileged part of one that has ended
					pid = child
				}
			}
			return pid != 0 && isPrepared(t, pid)
		})
		return pid
	}
	carries := status(t).PID
	earlier := []int{carries, standby(carries)} // that has read what holds no more
	groups(nil, nil).write(t, dir)
	nsgctl(t, "reload")
	before := scrape(t)
	for range 3 {
		next := standby(earlier...)
		eventually(t, "nsgctl status says that the standby is prepared", func() bool { return status(t).Standby == "prepared" })
		d.follow(func() error { return syscall.Kill(carries, syscall.SIGKILL) })
		if carries = status(t).PID; carries != next {
			t.Errorf("process %d goes on, and not the standby %d", carries, next)
		}
		earlier = append(earlier, carries)
		mustEcho(t, conn)
		before = scrapeOnwards(t, before, "a standby")
		mustNotConnect(t, internet, vm1, 80)
	}
	nsgctl(t, "upgrade")
	mustEcho(t, conn)
	eventually(t, "the old process has ended", func() bool { return !slices.Contains(d.children(), carries) })
}

// isPrepared reports that a standby has said so: what it has sent waits until its keeper needs it.
func isPrepared(t *testing.T, pid int) bool {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // it may have ended
	for _, file := range files {
		number, err := strconv.Atoi(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			continue // it is closed
		}
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		waiting := 0
		if kind == unix.SOCK_SEQPACKET {
			waiting, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		}
		if unix.Close(fd); waiting > 0 {
			return true
		}
	}
	return false
}

// TestBackendsOutliveTheProcess holds that a backend that stays up does not go down and come up with each process, and that
// one that is down gets no connection meanwhile.
func TestBackendsOutliveTheProcess(t *testing.T) {
	d := startKeptIn(t, translationLab(t))
	serveNamed(t, web1, 8080)
	d.expectErrors = true // of keep, which tells that nsgd ended
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": false})
	before := status(t).Backends
	for _, how := range []func(){func() { d.succeed(syscall.SIGKILL) }, d.upgrade} {
		end := make(chan struct{})
		var asking sync.WaitGroup
		asking.Go(func() {
			for pace := time.NewTicker(5 * time.Millisecond); ; { // or the client runs out of ports
				select {
				case <-end:
					return
				case <-pace.C:
				}
				conn, err := connect(client, at(shopIP), 80, patience)
				if err == nil {
					conn.Close()
				} else if errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("web2, which is down, got a connection: %v", err)
					return
				}
			}
		})
		how()
		close(end)
		asking.Wait()
		after := status(t).Backends
		for i := range before {
			if before[i].NetworkInterface == "web1-nic" && (after[i].Up != before[i].Up || !after[i].Since.Equal(before[i].Since)) {
				t.Errorf("%+v, before %+v", after[i], before[i])
			}
		}
	}
	serveNamed(t, web2, 8080)
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
}

// TestOneDeviceMoreLeavesTheOthers holds that devices stay when one more leaves too few descriptors for queues of small flows.
func TestOneDeviceMoreLeavesTheOthers(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nworkers: 2\nattachments:\n"+attachInternet)
	readableByAll(t, dir)
	const oneHas = 1009 // descriptors, with four queues
	d := launch(t, "keep", "--", "sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, oneHas), program("nsgd"), "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir, d.expectErrors = dir, true // of keep, which tells that nsgd ended
	d.waitFor(d.stderr, "msg=ready")
	nsgctl(t, "attach", strings.TrimPrefix(attachVM1, "- "))
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	for range 2 {
		d.upgrade()
		mustEcho(t, conn)
		d.succeed(syscall.SIGKILL)
		mustEcho(t, conn)
	}
}

func TestAttachOutlivesTheProcess(t *testing.T) {
	dir := configure(t, labPolicy())
	writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nattachments:\n"+attachInternet)
	d := startKeptIn(t, dir)
	d.expectErrors = true // of keep, which tells that nsgd ended
	nsgctl(t, "attach", strings.TrimPrefix(attachVM1, "- "))
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	d.succeed(syscall.SIGKILL)
	mustEcho(t, conn)
	d.upgrade()
	mustEcho(t, conn)
	if got := nsgctl(t, "reload"); !strings.Contains(got, "detached vm1-nic") {
		t.Errorf("reload says %q", got)
	}
	d.succeed(syscall.SIGKILL)
	if s := nsgctl(t, "status"); strings.Contains(s, "vm1-nic") {
		t.Errorf("what a reload has taken back comes back: %s", s)
	}
}

func TestARestartMayChangeTheKindOfQueues(t *testing.T) {
	d := startKept(t, labPolicy(), "workers: 1")
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	path := filepath.Join(d.dir, lab.ConfigName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{"workers: 2", "workers: 1", "workers: 1\noffload: \"off\"", "workers: 3"} {
		writeFile(t, path, strings.Replace(string(text), "workers: 1", change, 1))
		if a := execute(t, "nsgctl", "upgrade"); a.code == 0 || !strings.Contains(a.stderr, "device eth0: its queues are others now: it opens anew") {
			t.Errorf("an upgrade: %v", a)
		}
		d.succeed(syscall.SIGUSR1)
		mustEcho(t, conn)
	}
}

func TestFlowsOutliveAStop(t *testing.T) {
	dir := configure(t, labPolicy(), "state: {file: flows.state}")
	needWorld(t)
	first := startIn(t, dir)
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	mustEcho(t, conn)
	before, tuple := scrape(t), flows(t)[0]
	first.stop(syscall.SIGTERM)
	second := startIn(t, dir)
	list := flows(t)
	if len(list) != 1 || list[0] != tuple {
		t.Errorf("%+v, want %+v", list, tuple)
	}
	if _, err := os.Stat(filepath.Join(dir, "flows.state")); err == nil {
		t.Error("the file is still there: another start would read it again")
	}
	scrapeOnwards(t, before, "a stop")
	second.kill()
	third := startIn(t, dir)
	if n := len(flows(t)); n != 0 {
		t.Errorf("%d flows of a process that was killed without a store", n)
	}
	third.stop(syscall.SIGTERM)
	writeFile(t, filepath.Join(dir, "flows.state"), "something else")
	fourth := startIn(t, dir)
	fourth.expectErrors = true
	fourth.waitFor(fourth.stderr, "the flows in state.file are lost")
}

// replaceProgram puts a program where another one is, as a package does: under a new file of the same name.
func replaceProgram(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", text, 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnUpgradeToAnotherLayoutKeepsEveryFlow(t *testing.T) {
	needWorld(t)
	next := program("nsgd-next")
	if _, err := os.Stat(next); err != nil {
		t.Skip("scripts/next-layout has not built a next version: ", err)
	}
	dir := configure(t, labPolicy())
	path := filepath.Join(dir, "nsgd")
	replaceProgram(t, program("nsgd"), path)
	d := launch(t, "keep", "--", path, "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir = dir
	d.waitFor(d.stderr, "msg=ready")
	serveTCP(t, vm1, 80)
	var conns []net.Conn
	for range 50 {
		conns = append(conns, mustConnect(t, internet, vm1, 80))
	}
	groups(nil, nil).write(t, dir)
	nsgctl(t, "reload")
	before := scrape(t)
	for _, step := range []struct{ program, version string }{{next, "next"}, {program("nsgd"), "e2e"}} { // and back
		replaceProgram(t, step.program, path)
		d.upgrade()
		for _, conn := range conns {
			mustEcho(t, conn)
		}
		before = scrapeOnwards(t, before, step.version)
		if text := d.stderr.String(); strings.Count(text, "copied=true") == 0 || strings.Contains(text, "lost") {
			t.Errorf("the flows were not copied: %s", text)
		}
	}
	if n := strings.Count(d.stderr.String(), "copied=true"); n != 2 {
		t.Errorf("the flows were copied %d times", n)
	}
}
