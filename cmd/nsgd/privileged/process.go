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

// Split makes two processes of this one: the privileged part as a child, and this one, which starts again from
// the beginning as another user without capabilities. Its process id stays. name is that user's, or its id; empty: it
// stays who it is. It returns only on an error. arguments are the child's.
func Split(name string, arguments ...string) error {
	who, err := lookUp(name)
	if err != nil {
		return err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "privileged")
	child := exec.Command(program, append([]string{Verb}, arguments...)...)
	child.Args[0], child.Stdout, child.Stderr, child.ExtraFiles = os.Args[0], os.Stdout, os.Stderr, []*os.File{theirs}
	again, err := json.Marshal(os.Args[1:])
	if err != nil {
		return err
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
		return fmt.Errorf("start the privileged part: %w", err)
	}
	theirs.Close()
	// Capabilities and ids belong to the thread until it starts the program: the others end then.
	runtime.LockOSThread()
	if err := who.drop(); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(ends[0]), unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	environment := append(os.Environ(), fmt.Sprintf("%s=%d:%d", variable, ends[0], child.Process.Pid))
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

// drop takes every privilege from this thread, for good: no program that it starts gets one back.
func (id identity) drop() error {
	for capability := range uintptr(capabilities) {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		// The kernel has no more (EINVAL). Without CAP_SETPCAP the set stays (EPERM), but PR_SET_NO_NEW_PRIVS keeps
		// programs from getting anything of it.
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break
		}
		if err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	if id.change {
		gid := id.groups[0]
		// These change every thread, which does no harm: only this one stays.
		if err := errors.Join(syscall.Setgroups(id.groups), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(id.uid, id.uid, id.uid)); err != nil {
			return fmt.Errorf("%w: to change to user %d needs root, or CAP_SETUID and CAP_SETGID", err, id.uid)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// Given tells that this process was started by Split.
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
	conn, err := socket(fd)
	if err != nil {
		return nil, err
	}
	c, err := unprivileged(conn)
	if err == nil {
		c.child, err = os.FindProcess(pid)
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
