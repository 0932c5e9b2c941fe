package fdstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// maxKept bounds the descriptors that a Keeper takes.
	maxKept = 1 << 16
	// maxMessage bounds a message to the Keeper, and maxRights the descriptors in it.
	maxMessage, maxRights = 4096, 253
	// maxPath bounds the path of a unix socket, in bytes.
	maxPath = len(unix.RawSockaddrUnix{}.Path) - 1
	// closingAtOnce is how many descriptors close at a time.
	closingAtOnce = 64
	// quick is how long a process runs at least that has not failed at once; after failing at once the next one waits
	// twice as long as the last, from firstPause to lastPause.
	quick                 = time.Second
	firstPause, lastPause = 50 * time.Millisecond, 5 * time.Second
	// patience is how long a process may take to stop.
	patience = 30 * time.Second
	// usageStatus is the exit status of a program that does not understand its command line.
	usageStatus = 2
	// The Keeper gives up after so many failures in a row to be ready: at the beginning soon, and else after ten minutes, in
	// which a configuration can be put right while flows and devices wait.
	maxFirst, maxLater = 8, 120
)

// Keeper runs a program, keeps its descriptors, and starts it again when it fails, or when it asks for that by
// RestartStatus.
type Keeper struct {
	Command []string
	Log     *slog.Logger
	Stdout  io.Writer
	Stderr  io.Writer
	// Standby has another process of the program prepared while one runs. It goes on at once when that one ends, see
	// StandsBy.
	Standby bool

	kept   map[string][]*os.File
	count  int            // of the descriptors that are kept
	closes errgroup.Group // of descriptors that are not kept any more
	socket *net.UnixConn
	raw    syscall.RawConn // of the socket
	folder string
	main   int       // pid; 0: none
	ready  bool      // the program has said so
	begun  bool      // some program has been ready
	failed int       // programs in a row that ended before they were ready
	stop   os.Signal // that ends both; nil: none has come

	standby *standby         // nil: there is none
	wanted  <-chan time.Time // a standby starts then; nil: none does
}

// Signals of a Keeper and of the program under it.
const (
	// Restart has the program end, and leave everything to the next process. systemd sends it as RestartKillSignal=.
	Restart = syscall.SIGUSR1
)

// Run runs the program until it ends in good order, or until SIGTERM or SIGINT comes, which the program gets first. Call
// it in a process of its own: it reaps every child.
func (k *Keeper) Run() (status int, err error) {
	if err := k.listen(); err != nil {
		return 1, err
	}
	defer os.RemoveAll(k.folder)
	defer k.socket.Close()
	// The successor of a process that it has started itself is the Keeper's child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, os.NewSyscallError("PR_SET_CHILD_SUBREAPER", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, Restart, syscall.SIGCHLD)
	defer signal.Stop(signals)
	k.closes.SetLimit(closingAtOnce)
	readable, read := make(chan struct{}), make(chan struct{})
	go k.await(readable, read)
	defer k.dismiss()

	pause := firstPause
	var deadline <-chan time.Time
	if err := k.start(); err != nil {
		return 1, err
	}
	began := time.Now()
	var again <-chan time.Time
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGCHLD:
				list := reap()
				k.takeAll() // one of them may have named its successor, which may have ended too
				for _, ended := range list {
					if k.standby != nil && ended.pid == k.standby.pid {
						if k.forget(); k.stop == nil {
							k.Log.Warn("the standby ended: the next one follows the next reload", "status", ended.text)
						}
					}
					if ended.pid != k.main {
						continue
					}
					k.main, k.wanted = 0, nil
					if k.stop != nil || ended.status == 0 && !ended.restart {
						return ended.status, nil
					}
					if k.givesUp(&ended) {
						return ended.status, nil
					}
					if ended.restart { // what the standby has read may be older than what this start is for
						k.dismiss()
						pause = 0
					} else {
						k.Log.Error("the program ended: it starts again, with what it has left", "status", ended.text)
						if time.Since(began) > quick {
							pause = 0
						}
					}
					again = time.After(pause)
					pause = min(max(2*pause, firstPause), lastPause)
				}
			case syscall.SIGTERM, syscall.SIGINT:
				if k.stop = s; k.main == 0 {
					return 0, nil
				}
				deadline = time.After(patience)
				k.signal(s)
			default:
				k.signal(s)
			}
		case <-readable:
			k.takeAll()
			read <- struct{}{}
		case <-again:
			again, began = nil, time.Now()
			if err := k.start(); err != nil { // a package may be putting another one there
				k.Log.Error("the program does not start: another attempt follows", "after", pause, "error", err)
				again = time.After(pause)
				pause = min(max(2*pause, firstPause), lastPause)
			}
		case <-k.wanted:
			k.wanted = nil
			if err := k.prepare(); err != nil {
				k.Log.Warn("no standby starts", "error", err)
			}
		case <-deadline:
			k.Log.Error("the program does not stop: it is killed", "after", patience)
			k.signal(syscall.SIGKILL)
		}
	}
}

// givesUp reports that the program is not started again: its command line is wrong, or it has failed too often. A program
// that was ready may have ended by a panic, with the same status as one that does not understand its command line.
func (k *Keeper) givesUp(e *ended) bool {
	if k.ready || e.restart {
		k.begun, k.failed = k.begun || k.ready, 0
		return false
	}
	k.failed++
	most := maxFirst
	if k.begun {
		most = maxLater
	}
	switch {
	case e.status == usageStatus && !k.begun:
		k.Log.Error("the program does not understand its command line, or fails at once: it is not started again", "command", strings.Join(k.Command, " "), "status", e.text)
	case k.failed >= most:
		k.Log.Error("the program is never ready: it is not started again", "attempts", k.failed, "status", e.text)
	default:
		return false
	}
	return true
}

// listen makes the socket that the program talks to.
func (k *Keeper) listen() (err error) {
	if k.folder, err = os.MkdirTemp("", "nsgd-keep-"); err != nil {
		return err
	}
	path := k.address()
	if len(path) > maxPath {
		return errors.Join(fmt.Errorf("TMPDIR=%s: the path of the keeper's socket, %s, has %d bytes: %d are allowed", os.TempDir(), path, len(path), maxPath), os.RemoveAll(k.folder))
	}
	if k.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		return errors.Join(err, os.RemoveAll(k.folder))
	}
	if k.raw, err = k.socket.SyscallConn(); err != nil {
		return err
	}
	// The program may run as another user.
	if err := errors.Join(os.Chmod(k.folder, 0o711), os.Chmod(path, 0o777)); err != nil {
		return err
	}
	var set error
	if err = k.raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); err == nil {
		err = set
	}
	return err
}

// program is the command that finds what is kept under these names.
func (k *Keeper) program(names []string) *exec.Cmd {
	c := exec.Command(k.Command[0], k.Command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, k.Stdout, k.Stderr
	environ := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, notifySocket+"=") || strings.HasPrefix(e, storeSize+"=")
	})
	c.Env = append(Environment(environ, names), notifySocket+"="+k.address(), fmt.Sprintf("%s=%d", storeSize, maxKept))
	return c
}

// address is the path of the socket that the program talks to.
func (k *Keeper) address() string { return filepath.Join(k.folder, "notify") }

// start has the program go on with what is kept: the standby, or a process that starts now.
func (k *Keeper) start() error {
	if k.promote() {
		return nil
	}
	var names []string
	var files []*os.File
	for _, name := range slices.Sorted(maps.Keys(k.kept)) {
		for _, f := range k.kept[name] {
			names, files = append(names, name), append(files, f)
		}
	}
	c := k.program(names)
	c.ExtraFiles = files
	if err := c.Start(); err != nil {
		return err
	}
	k.main, k.ready = c.Process.Pid, false
	return c.Process.Release() // reap waits for it
}

func (k *Keeper) signal(s os.Signal) {
	if number, ok := s.(syscall.Signal); ok && k.main > 0 {
		if err := syscall.Kill(k.main, number); err != nil && err != syscall.ESRCH {
			k.Log.Warn("the program gets no signal", "signal", s, "error", err)
		}
	}
}

// RestartStatus is the exit status of a program that asks to be started again.
const RestartStatus = 85

// ended is a child that has ended.
type ended struct {
	pid, status int
	restart     bool
	text        string
}

func reap() (list []ended) {
	for {
		var w unix.WaitStatus
		pid, err := unix.Wait4(-1, &w, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return list
		}
		e := ended{pid: pid, status: w.ExitStatus(), text: fmt.Sprint("exit status ", w.ExitStatus())}
		if w.Signaled() {
			e.status, e.text = 128+int(w.Signal()), "signal: "+w.Signal().String()
		}
		e.restart = w.Exited() && w.ExitStatus() == RestartStatus
		list = append(list, e)
	}
}

// message is what a process has told.
type message struct {
	text  string
	pid   int // of the sender, as the kernel says
	files []*os.File
}

// await says when a message waits, until the socket is closed. It reads none, so that whoever does finds all.
func (k *Keeper) await(readable chan<- struct{}, read <-chan struct{}) {
	for {
		err := k.raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return err != unix.EAGAIN
		})
		if err != nil {
			return
		}
		readable <- struct{}{}
		<-read
	}
}

// takeAll takes the messages that wait. A message comes whole.
func (k *Keeper) takeAll() {
	buffer, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxRights)+unix.CmsgSpace(unix.SizeofUcred))
	for {
		var n, oob, flags int
		var failed error
		err := k.raw.Control(func(fd uintptr) { // Read would wait for await
			n, oob, flags, _, failed = unix.Recvmsg(int(fd), buffer, rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		})
		if err != nil || failed == unix.EAGAIN {
			return
		}
		if failed != nil {
			k.Log.Warn("a message to the keeper is lost", "error", failed)
			return
		}
		m := parse(rights[:oob])
		if m.text = string(buffer[:n]); flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !k.hears(m.pid) {
			k.Log.Warn("a message to the keeper is refused", "pid", m.pid, "bytes", n)
			m.close()
			continue
		}
		k.take(m)
	}
}

// hears reports that a process is the program, or one that it has started.
func (k *Keeper) hears(pid int) bool {
	if pid == k.main || k.main == 0 { // the socket is open to every user
		return k.main > 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name, which may hold anything but this before its end
	var state string
	var parent int
	fmt.Sscan(rest, &state, &parent)
	return parent == k.main
}

func parse(control []byte) (m message) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return m
	}
	for i := range messages {
		if c, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			m.pid = int(c.Pid)
		}
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			m.files = append(m.files, os.NewFile(uintptr(fd), "kept"))
		}
	}
	return m
}

func (m *message) close() {
	for _, f := range m.files {
		f.Close()
	}
}

// take does what a message asks for.
func (k *Keeper) take(m message) {
	fields := map[string]string{}
	for _, line := range strings.Split(m.text, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			fields[key] = value
		}
	}
	if k.Standby && (fields["READY"] == "1" || fields["RELOADING"] == "1") { // what the standby has read may hold no more
		if k.dismiss(); fields["READY"] == "1" {
			k.wanted = time.After(settled)
		}
	}
	k.ready = k.ready || fields["READY"] == "1"
	name := fields["FDNAME"]
	if pid, err := strconv.Atoi(fields["MAINPID"]); err == nil && pid > 0 {
		if k.main = pid; k.stop != nil { // it came to the one before
			k.signal(k.stop)
		}
	}
	switch {
	case fields["FDSTORE"] == "1" && k.count+len(m.files) <= maxKept && name != "" && len(name) <= maxName && !strings.Contains(name, ":"):
		if k.kept == nil {
			k.kept = map[string][]*os.File{}
		}
		k.kept[name] = append(k.kept[name], m.files...)
		k.count += len(m.files)
		return
	case fields["FDSTORE"] == "1":
		k.Log.Warn("a descriptor is not kept", "name", name, "kept", k.count)
	case fields["FDSTOREREMOVE"] == "1":
		old := k.kept[name]
		k.count -= len(old)
		delete(k.kept, name)
		k.closes.Go(func() error { // the kernel takes 20 ms to remove an interface with its last descriptor
			for _, f := range old {
				f.Close()
			}
			return nil
		})
	case fields[standbyQuestion] == "1" && len(m.files) == 1:
		k.tellStandby(m.files[0])
	}
	m.close()
}
