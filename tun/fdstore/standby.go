package fdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// standbyVariable names the descriptor of a standby's socket, by which the Keeper hands over.
	standbyVariable = "NSGD_STANDBY"
	// settled is how long a program has been ready before a Keeper starts its standby: the two don't compete for processors.
	settled = time.Second
)

// ErrDismissed ends a standby that is not needed any more: its Keeper has another one, or has ended.
var ErrDismissed = errors.New("the standby is dismissed")

// What becomes of the standby of a process, as Store.Standby tells it.
const (
	StandbyNone      = "none"      // after a failure a process starts
	StandbyPreparing = "preparing" // the same holds until it is prepared
	StandbyPrepared  = "prepared"
	StandbyUnknown   = "unknown" // the Keeper does not answer
)

const (
	// standbyQuestion comes to the Keeper with an end of a socket, which gets the answer.
	standbyQuestion = "NSGD_STANDBY_STATE"
	// answerPatience bounds how long the Keeper may take to answer.
	answerPatience = time.Second
)

// Standby asks the Keeper what its standby does: one of the constants above. Empty: nobody has one prepared, as systemd,
// and a Keeper without Standby. It takes a few seconds at most. Safe for concurrent use.
func (s Store) Standby() string {
	if !s.Exists() || s.IsSystemds() {
		return ""
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return StandbyUnknown
	}
	defer unix.Close(ends[0])
	limit := unix.NsecToTimeval(int64(answerPatience))
	err = errors.Join(unix.SetsockoptTimeval(ends[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit), s.send(standbyQuestion+"=1", unix.UnixRights(ends[1])))
	if unix.Close(ends[1]); err != nil {
		return StandbyUnknown
	}
	answer := make([]byte, len(StandbyPreparing))
	for end := time.Now().Add(answerPatience); ; {
		n, _, err := unix.Recvfrom(ends[0], answer, 0)
		if err == nil {
			return string(answer[:n])
		}
		if err != unix.EINTR || time.Now().After(end) { // Go's scheduler interrupts who waits
			return StandbyUnknown
		}
	}
}

// DismissStandby has the Keeper end its standby, until this process says again that it is ready. Under systemd it does
// nothing.
func (s Store) DismissStandby() error {
	if s.IsSystemds() {
		return nil
	}
	return s.send("RELOADING=1", nil)
}

// Standby is the Keeper's end in a process that the Keeper has started beside the program that runs.
type Standby struct{ conn *net.UnixConn }

// IsStandby reports that this process was started to stand by.
func IsStandby() bool { return os.Getenv(standbyVariable) != "" }

// StandsBy is the end of the Keeper that has this process stand by; nil: this process starts at once. Call it once,
// before Inherited.
func StandsBy() (*Standby, error) {
	text := os.Getenv(standbyVariable)
	os.Unsetenv(standbyVariable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < firstFD {
		return nil, fmt.Errorf("%s=%q: must be a descriptor's number, %d at least", standbyVariable, text, firstFD)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "keeper")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", standbyVariable, text, err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s=%q: must be a unix socket", standbyVariable, text), conn.Close())
	}
	return &Standby{c}, nil
}

// Await waits until the program has ended and this process is to go on. It returns what Inherited would. The error is
// ErrDismissed where this process is to end. Call it once all is prepared: before, the Keeper does not let it go on.
func (s *Standby) Await(ctx context.Context) (found map[string][]*os.File, err error) {
	defer s.conn.Close()
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	found = map[string][]*os.File{}
	count := 0
	defer func() {
		if err != nil {
			for _, files := range found {
				(&message{files: files}).close()
			}
			found = nil
		}
	}()
	if _, err := s.conn.Write([]byte{1}); err != nil {
		return found, ErrDismissed
	}
	buffer, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxRights))
	for {
		n, oob, flags, _, err := s.conn.ReadMsgUnix(buffer, rights)
		if ctx.Err() != nil || err != nil || n == 0 {
			return found, ErrDismissed
		}
		m := parse(rights[:oob])
		if len(m.files) == 0 { // the last one
			return found, nil
		}
		names := strings.Split(strings.TrimSuffix(string(buffer[:n]), "\n"), ":")
		if count += len(names); flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(names) != len(m.files) || count > maxKept {
			m.close()
			return found, fmt.Errorf("the keeper hands over %d descriptors by %d names: must be as many, %d in all at most", len(m.files), len(names), maxKept)
		}
		for i, name := range names {
			found[name] = append(found[name], m.files[i])
		}
	}
}

// standby is a process that a Keeper has prepared. The Keeper has the other end of its socket.
type standby struct{ pid, fd int }

// prepare starts a standby.
func (k *Keeper) prepare() error {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "standby")
	defer theirs.Close()
	limit := unix.NsecToTimeval(int64(sendPatience))
	c := k.program(nil)
	c.ExtraFiles, c.Env = []*os.File{theirs}, append(c.Env, fmt.Sprintf("%s=%d", standbyVariable, firstFD))
	if err = unix.SetsockoptTimeval(ends[0], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err == nil {
		err = c.Start()
	}
	if err != nil {
		return errors.Join(err, unix.Close(ends[0]))
	}
	k.standby = &standby{c.Process.Pid, ends[0]}
	return c.Process.Release()
}

// dismiss ends the standby, if there is one: what it has read may have changed.
func (k *Keeper) dismiss() {
	k.wanted = nil
	if k.standby != nil {
		syscall.Kill(k.standby.pid, syscall.SIGKILL) // reap waits for it
		k.forget()
	}
}

// forget closes the Keeper's end of a standby.
func (k *Keeper) forget() {
	unix.Close(k.standby.fd)
	k.standby = nil
}

// isPrepared reports that Await has said so. flags may be MSG_PEEK; without it, what was said is read, since a socket that
// closes with something unread resets the other end.
func (s *standby) isPrepared(flags int) bool {
	n, _, _ := unix.Recvfrom(s.fd, make([]byte, 1), flags|unix.MSG_DONTWAIT)
	return n == 1
}

// tellStandby answers Store.Standby. It waits for nobody: the program has chosen the file.
func (k *Keeper) tellStandby(f *os.File) {
	state := StandbyNone
	switch {
	case !k.Standby:
		return
	case k.standby != nil && k.standby.isPrepared(unix.MSG_PEEK):
		state = StandbyPrepared
	case k.standby != nil || k.wanted != nil:
		state = StandbyPreparing
	}
	unix.Send(int(f.Fd()), []byte(state), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// promote has the standby go on as the program; false: there is none that can.
func (k *Keeper) promote() bool {
	if k.standby == nil {
		return false
	}
	if !k.standby.isPrepared(0) {
		k.Log.Info("the standby is not prepared yet: the program starts instead")
		k.dismiss()
		return false
	}
	if err := k.handOver(); err != nil {
		k.Log.Warn("the standby can't go on: the program starts instead", "error", err)
		k.dismiss()
		return false
	}
	k.main, k.ready = k.standby.pid, false
	k.forget()
	return true
}

// handOver sends the standby what is kept.
func (k *Keeper) handOver() error {
	var names []string
	var fds []int
	length := 0
	send := func() error {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		for end := time.Now().Add(sendPatience); ; { // Go's scheduler interrupts who waits
			err := unix.Sendmsg(k.standby.fd, []byte(strings.Join(names, ":")+"\n"), rights, nil, unix.MSG_NOSIGNAL)
			if err != unix.EINTR || time.Now().After(end) {
				names, fds, length = names[:0], fds[:0], 0
				return os.NewSyscallError("sendmsg", err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.kept)) {
		for _, f := range k.kept[name] {
			if len(fds) == maxRights || length+len(name)+1 > maxMessage {
				if err := send(); err != nil {
					return err
				}
			}
			names, fds, length = append(names, name), append(fds, int(f.Fd())), length+len(name)+1
		}
	}
	if len(fds) > 0 {
		if err := send(); err != nil {
			return err
		}
	}
	return send() // without descriptors
}
