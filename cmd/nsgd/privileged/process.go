package privileged

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/nsgd/nsgd/tun/fdstore"
	"golang.org/x/sys/unix"
)

const (
	// Verb is the command line's word for the privileged part. It is hidden: nsgd starts it by itself.
	Verb = "privileged"
	// inherited is the descriptor of its socket, also when systemd has made that (sd_listen_fds).
	inherited = 3
	// variable has the daemon's descriptor and the child's process id, for the second start.
	variable = "NSGD_PRIVILEGED_FD"

	program = "/proc/self/exe"

	// capabilities is how many fit into the kernel's sets.
	capabilities = 64
)

// Split makes two processes of this one: the privileged part as a child, and this one, which goes on as another user without
// capabilities. name is that user's, or its id; empty: it stays who it is. arguments are the child's. A build with cgo, which
// has threads that Go does not know, starts again from the beginning without privileges, and calls Connect: its process id stays.
func Split(name string, arguments ...string) (*Client, error) {
	who, err := lookUp(name)
	if err != nil {
		return nil, err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "privileged")
	child := exec.Command(program, append([]string{Verb}, arguments...)...)
	child.Args[0], child.Stdout, child.Stderr, child.ExtraFiles = os.Args[0], os.Stdout, os.Stderr, []*os.File{theirs}
	again, err := json.Marshal(os.Args[1:])
	if err != nil {
		return nil, err
	}
	child.Env = append(os.Environ(), argumentsVariable+"="+string(again))
	child.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() != 0 {
		child.SysProcAttr.AmbientCaps, err = permitted()
	}
	if err == nil {
		// What this process was started with is for the daemon alone.
		err = fdstore.Shield(os.Getenv(SuccessorVariable), child.Start)
	}
	if err != nil {
		return nil, fmt.Errorf("start the privileged part: %w", err)
	}
	theirs.Close()
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	if errno == unix.ENOTSUP { // cgo
		return nil, who.again(ends[0], child.Process.Pid)
	}
	if err := who.drop(syscall.AllThreadsSyscall); err != nil {
		return nil, fmt.Errorf("drop privileges: %w", err)
	}
	// Another user's process would have its own files in /proc closed to itself.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	return connect(ends[0], child.Process)
}

// again starts the program again without privileges. It returns only on an error.
func (id identity) again(fd, child int) error {
	// Capabilities and ids belong to the thread until it starts the program: the others end then.
	runtime.LockOSThread()
	if err := id.drop(syscall.RawSyscall); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	environment := append(os.Environ(), fmt.Sprintf("%s=%d:%d", variable, fd, child))
	return os.NewSyscallError("execve", syscall.Exec(program, os.Args, environment))
}

// identity is a user with its groups. The zero value changes nothing.
type identity struct {
	change bool
	uid    int
	groups []int // the first is the user's own
}

// UserID is the id of a user by name or by number; 0 for an empty name.
func UserID(name string) (int, error) {
	id, err := lookUp(name)
	return id.uid, err
}

func lookUp(name string) (id identity, err error) {
	if name == "" {
		return id, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return id, fmt.Errorf("user: %q: allowed is a user of this host, by name or number", name)
		}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return id, fmt.Errorf("user: %q: its groups: %w", name, err)
	}
	id.uid, err = strconv.Atoi(u.Uid)
	for _, group := range append([]string{u.Gid}, groups...) {
		gid, bad := strconv.Atoi(group)
		err = errors.Join(err, bad)
		id.groups = append(id.groups, gid)
	}
	id.change = id.uid != os.Geteuid()
	return id, err
}

// noCapability is what capset gets. It is no local variable: a stack may move.
var noCapability = struct {
	header unix.CapUserHeader
	sets   [2]unix.CapUserData
}{header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}

// drop takes every privilege from the threads that call speaks for, for good: no program that they start gets one back.
func (id identity) drop(call func(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err syscall.Errno)) error {
	for capability := range uintptr(capabilities) {
		_, _, err := call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
		// The kernel has no more (EINVAL). Without CAP_SETPCAP the set stays (EPERM), but PR_SET_NO_NEW_PRIVS keeps
		// programs from getting anything of it.
		if err == unix.EINVAL || err == unix.EPERM {
			break
		}
		if err != 0 {
			return os.NewSyscallError("prctl", err)
		}
	}
	if id.change {
		gid := id.groups[0]
		// These change every thread.
		if err := errors.Join(syscall.Setgroups(id.groups), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(id.uid, id.uid, id.uid)); err != nil {
			return fmt.Errorf("%w: to change to user %d needs root, or CAP_SETUID and CAP_SETGID", err, id.uid)
		}
	}
	if _, _, err := call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != 0 {
		return os.NewSyscallError("prctl", err)
	}
	if _, _, err := call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&noCapability.header)), uintptr(unsafe.Pointer(&noCapability.sets[0])), 0); err != 0 {
		return os.NewSyscallError("capset", err)
	}
	if _, _, err := call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != 0 {
		return os.NewSyscallError("prctl", err)
	}
	return nil
}

// Given tells that this process was started again by Split.
func Given() bool { return os.Getenv(variable) != "" }

// Connect connects the daemon to the privileged part that Split has started. It refuses to go on with a capability.
func Connect() (*Client, error) {
	var fd, pid int
	text := os.Getenv(variable)
	os.Unsetenv(variable)
	if n, err := fmt.Sscanf(text, "%d:%d", &fd, &pid); n != 2 || err != nil || fd < inherited {
		return nil, fmt.Errorf("%s: %q: allowed is what nsgd sets by itself", variable, text)
	}
	nameProcess()
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	return connect(fd, process)
}

func connect(fd int, child *os.Process) (*Client, error) {
	conn, err := socket(fd)
	if err != nil {
		return nil, err
	}
	c, err := unprivileged(conn)
	if err == nil {
		c.child = child
	}
	return c, err
}

// nameProcess gives the process back the name that pidof and pgrep look for: the kernel has taken it from the path
// of the program.
func nameProcess() {
	// It is for convenience alone, so that an error does no harm.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
}

// unprivileged makes a client, unless the daemon still has a capability.
func unprivileged(conn *net.UnixConn) (*Client, error) {
	left, err := permitted()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("capabilities %v (linux/capability.h) are left: the daemon runs with none", left)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return NewClient(conn), nil
}

// Dial connects the daemon to a privileged part that systemd starts for a connection to a socket.
func Dial(path string) (*Client, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("privileged part: %w", err)
	}
	return unprivileged(conn)
}

// Run is the privileged part: it serves the daemon at the descriptor that it has inherited, and ends with it. Signals
// that end the daemon don't end it before.
func Run(places func() (*Places, error)) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	nameProcess()
	list, err := arguments()
	if err != nil {
		return err
	}
	conn, err := socket(inherited)
	if err != nil {
		return err
	}
	return Serve(conn, places, list)
}

// socket is the unix socket of a descriptor, which no child gets.
func socket(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "privileged")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.ErrInvalid)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: a socket of the privileged part is needed: %w", fd, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d: a unix socket is needed", fd), c.Close())
	}
	return conn, nil
}

// permitted are the capabilities that this process may use.
func permitted() (list []uintptr, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return nil, os.NewSyscallError("capget", err)
	}
	for i, set := range sets {
		for bit := range 32 {
			if set.Permitted&(1<<bit) != 0 {
				list = append(list, uintptr(32*i+bit))
			}
		}
	}
	return list, nil
}
