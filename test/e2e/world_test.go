package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/vishvananda/netlink"
)

const (
	binariesEnv = "NSGD_E2E_BINARIES"
	raceEnv     = "NSGD_E2E_RACE"
	insideEnv   = "NSGD_E2E_INSIDE" // set in the process that runs the tests
)

// unable is why the tests can't run here; empty when they can.
var unable string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(insideEnv) != "" {
		if err := enterWorld(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: private world:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	unable = whyUnable()
	if unable != "" || flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(runInside())
}

func whyUnable() string {
	if testing.Short() {
		return "end-to-end tests start daemons and wait for timeouts; not with -short"
	}
	if os.Geteuid() != 0 {
		return "end-to-end tests need root: they make network namespaces and TUN devices"
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "end-to-end tests need /dev/net/tun: " + err.Error()
	}
	return ""
}

// runInside builds the programs, since there is no network and no build cache to
// rely on inside, and runs this test binary again in new namespaces.
func runInside() int {
	binaries, remove, err := programs()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build:", err)
		return 1
	}
	defer remove()
	// Pdeathsig is about the thread that started the child, not the process.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A program that was built with the race detector sleeps before it exits, a second by
	// default, which every nsgctl would take. The caller's own GORACE wins.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=20"}, os.Environ()...)
	cmd.Env = append(cmd.Env, insideEnv+"=1", binariesEnv+"="+binaries, arm.ServiceTagsVariable+"=") // no file of this machine's
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "e2e: run inside:", err)
		}
		return 1
	}
	return 0
}

func programs() (dir string, remove func(), err error) {
	if dir := os.Getenv(binariesEnv); dir != "" {
		dir, err := filepath.Abs(dir)
		return dir, func() {}, err
	}
	dir, err = os.MkdirTemp("", "nsgd-e2e-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs the daemon as nobody
		remove()
		return "", nil, err
	}
	args := []string{"build", "-buildvcs=false", "-ldflags", "-X main.version=e2e", "-o", dir}
	if os.Getenv(raceEnv) != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../cmd/nsgd", "../../cmd/nsgctl", "../../deploy/lab/hosts")...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

// enterWorld makes the new namespaces usable: /proc shows the new PIDs, /run is
// empty but for the folders of namespaces and of the daemon, lo is up.
func enterWorld() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{namespaceDir, filepath.Dir(controlSocket)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

func needWorld(t *testing.T) {
	t.Helper()
	if unable != "" {
		t.Skip(unable)
	}
}
