package tun

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netns"
)

func threadNamespace(t testing.TB) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return link
}

func TestDoRunsInsideAndLeavesEveryThreadAtHome(t *testing.T) {
	name, id := newNamespace(t)
	home := threadNamespace(t)
	for range 20 {
		err := Do(name, func() error {
			inside := threadNamespace(t)
			if inside == home {
				t.Error("f ran at home")
			}
			return Do("", func() error {
				if threadNamespace(t) != home {
					t.Error("the empty name is not the process's own namespace")
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if threadNamespace(t) != home {
				t.Error("a thread was left inside")
			}
		})
	}
	wait.Wait()
	ns, err := openNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if got, err := identify(ns); err != nil || got != id {
		t.Errorf("identity: got %+v, %v; want %+v", got, err, id)
	}
}

func TestDoReturnsWhatItsFunctionDid(t *testing.T) {
	name, _ := newNamespace(t)
	cause := errors.New("cause")
	if err := Do(name, func() error { return cause }); err != cause {
		t.Errorf("got %v, want the function's error", err)
	}
	if err := Do(name, func() error { runtime.Goexit(); return nil }); err != errUnfinished {
		t.Errorf("Goexit: got %v", err)
	}
}

func TestSocketsOpenedInsideStayThere(t *testing.T) {
	name, _ := newNamespace(t)
	// The same port is free at home, unless somebody else has it; lo is down inside.
	eventually(t, "a port inside is free at home", func() bool {
		var listener net.Listener
		inside(t, name, func() (err error) {
			listener, err = net.Listen("tcp4", "0.0.0.0:0")
			return err
		})
		defer listener.Close()
		again, err := net.Listen("tcp4", strings.Replace(listener.Addr().String(), "0.0.0.0", "127.0.0.1", 1))
		if err == nil {
			again.Close()
		}
		return err == nil
	})
}

func TestNamespacesThatCantBeEntered(t *testing.T) {
	needRoot(t)
	file := uniqueName()
	path := filepath.Join(namespaceDir, file)
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	tests := []struct {
		name, namespace, want string
		is                    error
	}{
		{"one that is missing", uniqueName(), "ip netns add", ErrNoNamespace},
		{"a file without its mount", file, "ordinary file", ErrNoNamespace},
		{"a path", "../etc", "without /", ErrConfig},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Do(test.namespace, func() error { t.Error("f ran"); return nil })
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.namespace) {
				t.Errorf("got %v", err)
			}
			_, _, err = Open(Config{Name: "eth0", Namespace: test.namespace})
			if !errors.Is(err, test.is) {
				t.Errorf("Open: got %v", err)
			}
		})
	}
}

func TestIproute2KnowsOurNamespaces(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal("needs iproute2, which scripts/setup installs: ", err)
	}
	name, _ := newNamespace(t)
	out, err := exec.Command(ip, "netns", "exec", name, ip, "-o", "link").CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "lo:") {
		t.Errorf("ip netns exec: %v\n%s", err, out)
	}
	if out, err := exec.Command(ip, "netns", "del", name).CombinedOutput(); err != nil || namespaceExists(name) {
		t.Errorf("ip netns del: %v\n%s", err, out)
	}
	// And the other way round.
	if out, err := exec.Command(ip, "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v\n%s", err, out)
	}
	if err := Do(name, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := netns.DeleteNamed(name); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheNamespaceOfThatIdentityIsRemoved(t *testing.T) {
	name, id := newNamespace(t)
	for _, other := range []identity{
		{Boot: "another boot", Cookie: id.Cookie, Inode: id.Inode},
		{Boot: id.Boot, Cookie: id.Cookie + 1, Inode: id.Inode}, // an inode used again
		{Boot: id.Boot, Cookie: id.Cookie, Inode: id.Inode + 1},
	} {
		if removed, err := removeNamespace(name, other); removed || err != nil || !namespaceExists(name) {
			t.Fatalf("%+v: removed %v, %v", other, removed, err)
		}
	}
	if removed, err := removeNamespace(name, id); !removed || err != nil || namespaceExists(name) {
		t.Errorf("removed %v, %v", removed, err)
	}
	if removed, err := removeNamespace(name, id); removed || err != nil {
		t.Errorf("a second time: removed %v, %v", removed, err)
	}
}

func TestANamespaceIsFoundByItsPathAndByAProcessInIt(t *testing.T) {
	name, id := newNamespace(t)
	inside := func(reference string) (found identity) {
		t.Helper()
		err := Do(reference, func() error {
			ns, err := netns.Get()
			if err != nil {
				return err
			}
			defer ns.Close()
			found, err = identifyThread(ns)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	own := inside("")
	if got := inside(filepath.Join(namespaceDir, name)); got != id {
		t.Errorf("by its path: %v, want %v", got, id)
	}
	if got := inside(fmt.Sprint(pidPrefix, os.Getpid())); got != own {
		t.Errorf("by this process: %v, want %v", got, own)
	}
	if err := Do(pidPrefix+"4194305", func() error { return nil }); !errors.Is(err, ErrNoNamespace) { // beyond pid_max
		t.Errorf("by a process that is not there: %v, want %v", err, ErrNoNamespace)
	}
}
