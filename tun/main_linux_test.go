package tun

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// childDir in the environment makes the test binary the daemon that TestAKilled... kills.
const childDir = "NSGD_TUN_TEST_CHILD_DIR"

// The process's first thread can't end: without the lock a test that leaves a thread to its
// end could get that one.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// needRoot skips a test that makes namespaces and devices where that can't be done.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if _, err := os.Stat(tunPath); err != nil {
		t.Skipf("needs %s: %v", tunPath, err)
	}
	if ns, err := netns.Get(); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	} else {
		ns.Close()
	}
}

// uniqueName is a namespace's name that no other test, also of another process, uses.
func uniqueName() string {
	return fmt.Sprintf("nsgd-test-%d-%08x", os.Getpid(), rand.Uint32())
}

func newState(t testing.TB) *State {
	t.Helper()
	needRoot(t)
	s, err := OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newNamespace makes a namespace without a State and removes it after the test.
func newNamespace(t testing.TB) (string, identity) {
	t.Helper()
	needRoot(t)
	name := uniqueName()
	var id identity
	err := createNamespace(name, func(i identity) error { id = i; return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNamespace(name, id) })
	return name, id
}

func openDevice(t testing.TB, c Config) (Device, Offload) {
	t.Helper()
	d, level, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, level
}

func prefixes(list ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, s := range list {
		p[i] = netip.MustParsePrefix(s)
	}
	return p
}

// eventually polls a condition that another process or the kernel brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func namespaceExists(name string) bool {
	_, err := os.Lstat(filepath.Join(namespaceDir, name))
	return err == nil
}

func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	return len(files)
}
