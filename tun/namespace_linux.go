package tun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where iproute2 keeps named namespaces, one bind mount each.
const namespaceDir = "/run/netns"

var errUnfinished = errors.New("tun: function ended its goroutine inside the namespace")

// Do runs f on a thread inside the named namespace and returns its error. An empty name means the
// process's own. Sockets, devices and commands of f stay in that namespace. Only f's own
// goroutine runs inside: f must not hand the work to others. net.Dial does that for names with
// addresses of both families; give it literal addresses.
func Do(namespace string, f func() error) error {
	if namespace == "" {
		return elsewhere(f)
	}
	ns, err := openNamespace(namespace)
	if err != nil {
		return fmt.Errorf("tun: %w", err)
	}
	defer ns.Close()
	return doIn(ns, f)
}

// doIn is Do for an open namespace.
func doIn(ns netns.NsHandle, f func() error) error {
	return elsewhere(func() error {
		return onThread(func() error { return netns.Set(ns) }, f)
	})
}

// elsewhere runs f on a goroutine of its own, which may end together with its thread.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errUnfinished // what stays if f calls runtime.Goexit
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// onThread lets enter change this thread's namespace, runs f and changes back. Call it within
// elsewhere: a thread that can't return must never run other code again. It stays locked, and so
// ends with its goroutine.
func onThread(enter, f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("tun: own network namespace: %w", err)
	}
	defer func() {
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	if err := enter(); err != nil {
		return fmt.Errorf("tun: enter network namespace: %w", lacks(err, "CAP_SYS_ADMIN"))
	}
	return f()
}

// lacks adds to a refusal of the kernel the capability that it asks for.
func lacks(err error, capability string) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: needs root, or %s", err, capability)
	}
	return err
}

// openNamespace opens a named namespace.
func openNamespace(name string) (netns.NsHandle, error) {
	if err := CheckNamespaceName(name); err != nil {
		return netns.None(), fmt.Errorf("%w: namespace %w", ErrConfig, err)
	}
	ns, err := findNamespace(name)
	if errors.Is(err, os.ErrNotExist) && IsCreatable(name) {
		return netns.None(), fmt.Errorf("namespace %q: %w: `ip netns add %s` makes it", name, ErrNoNamespace, name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return netns.None(), fmt.Errorf("namespace %q: %w", name, ErrNoNamespace)
	}
	if err != nil {
		return netns.None(), fmt.Errorf("namespace %q: %w", name, err)
	}
	if !isNamespace(int(ns)) {
		ns.Close()
		return netns.None(), fmt.Errorf("namespace %q: %w: %s is an ordinary file, left over by something that was interrupted",
			name, ErrNoNamespace, filepath.Join(namespaceDir, name))
	}
	return ns, nil
}

// findNamespace opens a namespace by its name, its path or a process in it.
func findNamespace(name string) (netns.NsHandle, error) {
	if pid, isPID := strings.CutPrefix(name, pidPrefix); isPID {
		return netns.GetFromPath(filepath.Join("/proc", pid, "ns/net"))
	}
	if filepath.IsAbs(name) {
		return netns.GetFromPath(name)
	}
	return netns.GetFromName(name)
}

func isNamespace(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// identity tells a network namespace from every other, also from a later one of the same name.
type identity struct {
	// Boot is the kernel's boot id: the numbers below start afresh with each boot.
	Boot string `json:"boot"`
	// Cookie is the kernel's number of the namespace, never used twice; 0 before kernel 5.14.
	Cookie uint64 `json:"cookie"`
	// Inode is the number in /proc/PID/ns/net. The kernel uses it again.
	Inode uint64 `json:"inode"`
}

// identify reads the identity of ns.
func identify(ns netns.NsHandle) (id identity, err error) {
	err = doIn(ns, func() error {
		id, err = identifyThread(ns)
		return err
	})
	return id, err
}

// identifyThread reads the identity of ns, which must be this thread's namespace.
func identifyThread(ns netns.NsHandle) (identity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return identity{}, os.NewSyscallError("fstat", err)
	}
	id := identity{Boot: strings.TrimSpace(string(boot)), Inode: st.Ino}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return identity{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	id.Cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil && err != unix.ENOPROTOOPT {
		return identity{}, os.NewSyscallError("getsockopt", err)
	}
	return id, nil
}

// createNamespace makes a named namespace that `ip netns` can use. It calls announce with the
// namespace's identity before the name appears.
func createNamespace(name string, announce func(identity) error) error {
	if err := checkCreatable(name); err != nil {
		return fmt.Errorf("%w: namespace %w", ErrConfig, err)
	}
	if _, err := os.Lstat(filepath.Join(namespaceDir, name)); err == nil {
		return fmt.Errorf("namespace %q: %w and was not made by nsgd: don't ask for its creation, or remove it with `ip netns del %s`",
			name, ErrNamespaceExists, name)
	}
	return elsewhere(func() error {
		return onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
			ns, err := netns.Get()
			if err != nil {
				return err
			}
			defer ns.Close()
			id, err := identifyThread(ns)
			if err != nil {
				return fmt.Errorf("namespace %q: %w", name, err)
			}
			if err := announce(id); err != nil {
				return err
			}
			return mountNamespace(name)
		})
	})
}

// mountNamespace gives this thread's namespace a name, the way ip-netns(8) does.
func mountNamespace(name string) error {
	dir, err := lockNamespaceDir()
	if err != nil {
		return fmt.Errorf("namespace %q: %w", name, lacks(err, "CAP_DAC_OVERRIDE"))
	}
	defer dir.Close()
	path := filepath.Join(namespaceDir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("namespace %q: %w", name, ErrNamespaceExists)
	}
	if err != nil {
		return fmt.Errorf("namespace %q: %w", name, lacks(err, "CAP_DAC_OVERRIDE"))
	}
	f.Close()
	if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("namespace %q: %w", name, lacks(os.NewSyscallError("mount", err), "CAP_SYS_ADMIN"))
	}
	return nil
}

// lockNamespaceDir takes iproute2's lock on /run/netns, which is held until the file closes. It
// makes the folder a shared mount: mounts of namespaces, and their ends, then reach other mount
// namespaces.
func lockNamespaceDir() (*os.File, error) {
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(namespaceDir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	err = unix.Mount("", namespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == unix.EINVAL { // not a mount point yet
		err = unix.Mount(namespaceDir, namespaceDir, "none", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", namespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("share %s: %w", namespaceDir, lacks(os.NewSyscallError("mount", err), "CAP_SYS_ADMIN"))
	}
	return dir, nil
}

// removeNamespace removes the name if it still names the namespace of that identity, or if the
// creation was interrupted before the mount. It reports whether it removed something. Another
// namespace of that name, or none, is no error.
func removeNamespace(name string, id identity) (bool, error) {
	path := filepath.Join(namespaceDir, name)
	ns, err := netns.GetFromName(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("tun: remove namespace %q: %w", name, lacks(err, "CAP_SYS_ADMIN"))
	}
	defer ns.Close()
	if !isNamespace(int(ns)) {
		return removeEmpty(path)
	}
	now, err := identify(ns)
	if err != nil || now != id {
		return false, err
	}
	if err := netns.DeleteNamed(name); err != nil {
		return false, fmt.Errorf("tun: remove namespace %q: %w", name, lacks(err, "CAP_SYS_ADMIN"))
	}
	return true, nil
}

// removeEmpty removes the empty file that a namespace would have been mounted on.
func removeEmpty(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
		return false, err
	}
	err = os.Remove(path)
	return err == nil, err
}

// Namespaces names every network namespace that has a name or a process, each once. The process's own comes first,
// as "".
func Namespaces() ([]string, error) {
	seen := map[uint64]bool{}
	var list []string
	add := func(name, path string) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			list = append(list, name)
		}
	}
	add("", "/proc/thread-self/ns/net")
	named, err := os.ReadDir(namespaceDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("tun: %w", err)
	}
	for _, f := range named {
		add(f.Name(), filepath.Join(namespaceDir, f.Name()))
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("tun: %w", err)
	}
	for _, p := range processes {
		add(pidPrefix+p.Name(), filepath.Join("/proc", p.Name(), "ns/net"))
	}
	return list, nil
}
