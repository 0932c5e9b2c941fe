// Package fdstore keeps descriptors while no process runs: in systemd's descriptor store, or with a Keeper, which
// speaks its protocol (sd_notify, sd_listen_fds).
package fdstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	notifySocket = "NOTIFY_SOCKET"
	// storeSize is how many descriptors the store takes: systemd sets it from version 254 on where there is a store.
	storeSize = "FDSTORE"
	// pressureWatch is set by systemd from version 254 on, in most services.
	pressureWatch = "MEMORY_PRESSURE_WATCH"
	listenPID     = "LISTEN_PID"
	listenFDs     = "LISTEN_FDS"
	listenNames   = "LISTEN_FDNAMES"
	// parentEnv is in the place of LISTEN_PID where the one who starts a process can't know its number: it has its own.
	parentEnv = "NSGD_LISTEN_PARENT"
	// moreNames begins the variables that go on where listenNames is full: the kernel takes 128 KB of each. systemd has no such.
	moreNames = "NSGD_LISTEN_FDNAMES_"
	// namesLen bounds each of them, in bytes.
	namesLen = 100_000
	// watchdogPID is the process that the service manager wants to hear from, if it is set. It hears its main process.
	watchdogPID = "WATCHDOG_PID"

	firstFD = 3 // SD_LISTEN_FDS_START
	// maxName is the longest name that systemd takes.
	maxName = 255
)

// Inherited are the descriptors that this process was started with, by name; a name may have several. The environment
// forgets them, so that no child takes them for its own. Call it once, before descriptors are opened.
func Inherited() (map[string][]*os.File, error) {
	defer func() {
		for _, e := range os.Environ() {
			if key, _, _ := strings.Cut(e, "="); isListening(key) {
				os.Unsetenv(key)
			}
		}
	}()
	if os.Getenv(listenPID) != strconv.Itoa(os.Getpid()) && os.Getenv(parentEnv) != strconv.Itoa(os.Getppid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv(listenFDs))
	if err != nil || n < 0 || n > maxKept {
		return nil, fmt.Errorf("%s=%q: must be a number of descriptors, at most %d", listenFDs, os.Getenv(listenFDs), maxKept)
	}
	for fd := firstFD; fd < firstFD+n; fd++ { // before any is owned, and closed with its owner: they may be others'
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("%s=%d: descriptor %d: %w", listenFDs, n, fd, os.NewSyscallError("F_GETFD", err))
		}
	}
	names := inheritedNames()
	files := map[string][]*os.File{}
	for i := range n {
		fd := firstFD + i
		unix.CloseOnExec(fd)
		name := "unknown"
		if i < len(names) {
			name = names[i]
		}
		files[name] = append(files[name], os.NewFile(uintptr(fd), name))
	}
	return files, nil
}

// inheritedNames are those of the descriptors that this process was started with, as far as the environment says.
func inheritedNames() []string {
	names := strings.Split(os.Getenv(listenNames), ":")
	for i := 1; ; i++ {
		more, there := os.LookupEnv(moreNames + strconv.Itoa(i))
		if !there {
			return names
		}
		names = append(names, strings.Split(more, ":")...)
	}
}

// Shield keeps the inherited descriptors, a standby's, and one more by its number, from a process that start starts. They stay for a
// program that this process becomes.
func Shield(more string, start func() error) error {
	n, err := strconv.Atoi(os.Getenv(listenFDs))
	if err != nil {
		n = 0
	}
	fds := make([]int, 0, n+1)
	for i := range n {
		fds = append(fds, firstFD+i)
	}
	for _, text := range []string{more, os.Getenv(standbyVariable)} {
		if fd, err := strconv.Atoi(text); err == nil {
			fds = append(fds, fd)
		}
	}
	set := func(flags int) {
		for _, fd := range fds {
			unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags) // who has no such descriptor has nothing to keep
		}
	}
	set(unix.FD_CLOEXEC)
	defer set(0)
	return start()
}

// Store is whoever keeps this process's descriptors. The zero value keeps nothing.
type Store struct{ socket string }

// Open finds the store that this process was started under. Where there is none, why says so: a service manager that is
// told when a process is ready need not keep descriptors.
func Open() (s Store, why string) {
	socket, size := os.Getenv(notifySocket), os.Getenv(storeSize)
	switch n, err := strconv.Atoi(size); {
	case socket == "":
		return Store{}, "neither systemd nor nsgd keep runs this process"
	case size != "" && (err != nil || n <= 0):
		return Store{}, fmt.Sprintf("%s=%q: the service manager's store takes no descriptors", storeSize, size)
	case size != "":
		return Store{socket}, ""
	case !Store{socket}.IsSystemds():
		return Store{}, fmt.Sprintf("%s=%s is not systemd's, and there is no %s: whoever hears it keeps no descriptors; run nsgd by nsgd keep", notifySocket, socket, storeSize)
	case os.Getenv(pressureWatch) != "":
		return Store{}, "systemd keeps no descriptors for this service: set FileDescriptorStoreMax="
	}
	return Store{socket}, "" // of a systemd before 254, which does not tell
}

// managers are the folders of systemd's own sockets.
var managers = []string{"/run/systemd", "@run/systemd"}

// Supervised reports that whoever has started this process hears when it is ready, and may start it again.
func Supervised() bool { return os.Getenv(notifySocket) != "" }

// IsSystemds reports that systemd keeps the descriptors.
func (s Store) IsSystemds() bool {
	return s.socket != "" && (slices.Contains(managers, filepath.Dir(s.socket)) || strings.HasPrefix(s.socket, "/run/user/"))
}

// Exists reports that somebody keeps descriptors.
func (s Store) Exists() bool { return s.socket != "" }

// Keep implements slab.Keeper.
func (s Store) Keep(name string, f *os.File) error {
	if len(name) > maxName || strings.ContainsAny(name, ":\n") {
		return fmt.Errorf("descriptor %q: a name has at most %d bytes, without a colon", name, maxName)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = s.KeepFD(name, int(fd)) })
	return errors.Join(err, sent)
}

// KeepFD is Keep for a bare descriptor. Nothing is asked of it: a device that goes away stays in the store.
func (s Store) KeepFD(name string, fd int) error {
	return s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

// Forget implements slab.Keeper.
func (s Store) Forget(name string) error { return s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil) }

// MainPID says which process goes on.
func (s Store) MainPID(pid int) error { return s.send(fmt.Sprintf("MAINPID=%d", pid), nil) }

func (s Store) send(text string, rights []byte) error {
	if s.socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(sendPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("SO_SNDTIMEO", err)
	}
	for end := time.Now().Add(sendPatience); ; {
		err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: s.socket}, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if err != unix.EINTR || time.Now().After(end) { // Go's scheduler interrupts who waits, and SO_SNDTIMEO forbids the kernel to go on by itself
			return fmt.Errorf("tell %s: %w", s.socket, err)
		}
	}
}

// sendPatience bounds how long whoever keeps descriptors may be busy.
const sendPatience = 5 * time.Second

// Environment is how a child of this process, to which files go from descriptor 3 on, finds them by their names.
func Environment(environ []string, names []string) []string {
	kept := make([]string, 0, len(environ)+3)
	for _, e := range environ {
		if key, _, _ := strings.Cut(e, "="); !isListening(key) && key != watchdogPID {
			kept = append(kept, e)
		}
	}
	kept = append(kept, fmt.Sprintf("%s=%d", parentEnv, os.Getpid()), fmt.Sprintf("%s=%d", listenFDs, len(names)))
	for i, key := 0, listenNames; ; key = moreNames + strconv.Itoa(i) {
		n, length := 0, 0
		for n < len(names) && (n == 0 || length+len(names[n]) < namesLen) {
			length += len(names[n]) + 1
			n++
		}
		kept = append(kept, key+"="+strings.Join(names[:n], ":"))
		if names, i = names[n:], i+1; len(names) == 0 {
			return kept
		}
	}
}

// isListening tells of a variable that says which descriptors a process was started with.
func isListening(key string) bool {
	return key == listenPID || key == listenFDs || key == listenNames || key == parentEnv || key == standbyVariable || strings.HasPrefix(key, moreNames)
}
