package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/tun/fdstore"
	"golang.org/x/sys/unix"
)

// An upgrade: the new process starts as a child of the old one and reads the policy while the old one carries packets.
// Once it is prepared, the old one stops, and the new one goes on with the descriptors that it has got at its start.
//
// The two talk over a socket pair, a line at a time: the child says prepared, or why it is not; the parent, which carries
// nothing any more, says go; the child says release once it carries packets, so that the parent's end takes no time from
// that; then the parent gives back what only one can have, and the child says ready.

const (
	linePrepared = "prepared"
	lineGo       = "go"
	lineRelease  = "release"
	lineReady    = "ready"
	// lineAnew begins the line of a child that can't take over because of errAnew.
	lineAnew = "anew "
	// preparePatience bounds how long a policy may take to load, and takeOverPatience what comes after it.
	preparePatience  = 2 * time.Minute
	takeOverPatience = 30 * time.Second
)

// handshake is an end of the socket pair.
type handshake struct {
	conn  net.Conn
	lines *bufio.Scanner
}

func newHandshake(conn net.Conn) *handshake {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	return &handshake{conn, lines}
}

func (h *handshake) say(line string) error {
	_, err := fmt.Fprintln(h.conn, strings.ReplaceAll(line, "\n", "; "))
	return err
}

// hear waits for a line; any other one is what went wrong.
func (h *handshake) hear(want string, patience time.Duration) error {
	if err := h.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if !h.lines.Scan() {
		if err := h.lines.Err(); err != nil {
			return err
		}
		return errors.New("the other process has ended")
	}
	line := h.lines.Text()
	if line == want {
		return nil
	}
	if what, is := strings.CutPrefix(line, lineAnew); is {
		return fmt.Errorf("%s%w", strings.TrimSuffix(what, errAnew.Error()), errAnew)
	}
	return errors.New(line)
}

// predecessor is the process that this one takes over from; nil: there is none.
func predecessor() (*handshake, error) {
	text := os.Getenv(privileged.SuccessorVariable)
	os.Unsetenv(privileged.SuccessorVariable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: must be a descriptor's number", privileged.SuccessorVariable, text)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "predecessor")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", privileged.SuccessorVariable, text, err)
	}
	return newHandshake(conn), nil
}

// await tells the predecessor that this process is prepared, and waits for its end.
func (h *handshake) await() error {
	if h == nil {
		return nil
	}
	if err := h.say(linePrepared); err != nil {
		return err
	}
	return h.hear(lineGo, takeOverPatience+preparePatience)
}

// release tells the predecessor to give back what it has.
func (h *handshake) release() {
	if h != nil {
		h.say(lineRelease) // it may be gone
	}
}

// done tells the predecessor how the start went; nil: well.
func (h *handshake) done(err error) {
	if h == nil {
		return
	}
	line := lineReady
	if errors.Is(err, errAnew) {
		line = lineAnew + err.Error()
	} else if err != nil {
		line = err.Error()
	}
	h.say(line) // it may be gone
	h.conn.Close()
}

// successor is the process that takes over.
type successor struct {
	*handshake
	pid int
}

// upgrade starts the program that is installed now, waits until it is prepared, and ends this process for it.
func (d *daemon) upgrade(ctx context.Context) (*inspect.Upgraded, error) {
	if !d.inherited.store.Exists() {
		return nil, fmt.Errorf("nobody keeps this process's flows and devices: %s", d.inherited.unkept)
	}
	if d.confirmation.waiting.Load() {
		return nil, errors.New("this run waits for nsgctl confirm")
	}
	// Three processes at a time would take the memory of three.
	if err := d.inherited.store.DismissStandby(); err != nil {
		return nil, err
	}
	s, err := d.beget(ctx)
	if err != nil {
		if !d.inherited.store.IsSystemds() {
			d.notify(notifyReady) // for another standby
		}
		return nil, fmt.Errorf("the new process is not prepared, this one stays: %w", err)
	}
	d.log.Info("the next process is prepared", "pid", s.pid)
	d.next = s
	d.inherited.leave(d.end)
	return &inspect.Upgraded{PID: s.pid}, nil
}

// onRestart has the next process go on whenever whoever keeps this process's descriptors asks for that, until ctx ends.
func (d *daemon) onRestart(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, fdstore.Restart)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				d.restart(ctx)
			}
		}
	}()
}

// restart has the next process go on: as an upgrade, where that can start beside this one. systemd ends whoever this one
// starts, and starts the next one by itself.
func (d *daemon) restart(ctx context.Context) {
	if !d.serving.Load() || !d.inherited.store.Exists() || d.inherited.store.IsSystemds() {
		d.inherited.leave(d.end)
		return
	}
	_, err := d.service.Upgrade(ctx)
	switch {
	case errors.Is(err, errAnew):
		d.log.Info("ends before the next process starts", "because", errors.Unwrap(err)) // this one does not stay
		d.inherited.leave(d.end)
	case err != nil && ctx.Err() == nil:
		d.log.Error("no restart", "error", err)
	}
}

// beget starts the next process and waits until it is prepared.
func (d *daemon) beget(ctx context.Context) (*successor, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	files := d.inherited.slabs.Files()
	defer func() {
		for name, f := range files {
			if strings.HasPrefix(name, queueName) {
				f.Close()
			}
		}
	}()
	if err := d.devices.duplicate(files); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	pid, kill, err := d.startSuccessor(files, theirs)
	theirs.Close() // so that the next process's end is heard
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	s := &successor{newHandshake(ours), pid}
	stop := context.AfterFunc(ctx, func() { ours.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.hear(linePrepared, preparePatience); err != nil {
		kill()
		return nil, errors.Join(err, ours.Close())
	}
	return s, nil
}

// startSuccessor starts the program that is installed now, with descriptors and an end of a socket pair. Where this process
// has started its privileged part, that one does: this one could start none with privileges. The child of another ends
// by itself once its socket is closed.
func (d *daemon) startSuccessor(files map[string]*os.File, theirs *os.File) (pid int, kill func(), err error) {
	names, list := make([]string, 0, len(files)), make([]*os.File, 0, len(files)+1)
	for name, f := range files {
		names, list = append(names, name), append(list, f)
	}
	if d.privileged.Splits() {
		pid, err = d.privileged.Succeed(list, names, theirs)
		return pid, func() {}, err
	}
	path, err := privileged.Installed()
	if err != nil {
		return 0, nil, err
	}
	c := privileged.SuccessorCommand(path, os.Args[1:], names, append(list, theirs))
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return 0, nil, err
	}
	go c.Wait()
	return c.Process.Pid, func() { c.Process.Kill() }, nil
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(pair[0]), "successor")
	defer f.Close()
	theirs = os.NewFile(uintptr(pair[1]), "successor")
	if ours, err = net.FileConn(f); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// duplicate adds the queues of all devices to files.
func (l *liveDevices) duplicate(files map[string]*os.File) error {
	for i := range l.list {
		p, queues := &l.list[i].plan, l.list[i].device.Queues()
		for n, name := range queueNames(p.Namespace, p.Name, len(queues), len(queues) == 2*l.workers) {
			fd, err := unix.FcntlInt(uintptr(queues[n].FD()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("F_DUPFD_CLOEXEC", err)
			}
			files[name] = os.NewFile(uintptr(fd), name)
		}
	}
	return nil
}

// handOver lets the next process go on: this one carries nothing any more. From now on it writes to nothing that the next
// one finds, and gives back what it has while packets flow there.
func (d *daemon) handOver() error {
	left := errors.Join(d.stopRecording(), d.inherited.close())
	if left != nil {
		d.log.Error("the next process may not find everything", "error", left)
	}
	d.inherited.kept.Close()
	if err := d.inherited.store.MainPID(d.next.pid); err != nil { // it must not go on beside the one that would start next
		return err
	}
	if err := d.next.say(lineGo); err != nil {
		return err
	}
	return d.next.follows(lineRelease)
}

// follows waits until the next process says so.
func (s *successor) follows(line string) error {
	if err := s.hear(line, takeOverPatience); err != nil {
		return fmt.Errorf("the next process failed: %w", err)
	}
	return nil
}
