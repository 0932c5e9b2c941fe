package fdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// keptOfEach is how many descriptors the program stands keeps under each of its two names: more than one message takes.
const keptOfEach = maxRights

// stands is a program under a keeper with a standby. It says what it has found, and what becomes of its standby is up to its argument.
func stands() int {
	how := os.Args[1]
	restart := make(chan os.Signal, 1)
	signal.Notify(restart, Restart)
	s, err := StandsBy()
	found, failed := Inherited()
	if err = errors.Join(err, failed); err != nil {
		fmt.Println(err)
		return 1
	}
	if s != nil {
		switch how {
		case "fails":
			s.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // until standbyOf has seen it
			s.conn.Read(make([]byte, 1))
			return 1
		case "is killed too early":
			s.conn.Read(make([]byte, 1))
			return 0
		case "is killed":
			go s.signalWhoRuns(syscall.SIGKILL)
		case "restarts":
			go s.signalWhoRuns(Restart)
		}
		if found, err = s.Await(context.Background()); err != nil {
			return 0 // dismissed
		}
	}
	fmt.Printf("standby %v, %d a, %d b, others %d\n", s != nil, len(found["a"]), len(found[strings.Repeat("b", maxName)]), max(len(found)-2, 0))
	store, _ := Open()
	if len(found) > 0 {
		return 0
	}
	f, err := os.Open(os.DevNull)
	for range keptOfEach {
		err = errors.Join(err, store.Keep("a", f), store.Keep(strings.Repeat("b", maxName), f))
	}
	tell := func(text string) { err = errors.Join(err, store.send(text, nil)) }
	tell("READY=1")
	first := standbyOf(0)
	switch how {
	case "is reloaded":
		tell("RELOADING=1")
		if !gone(first) {
			fmt.Println("it stays")
			return 0
		}
		tell("READY=1")
		if standbyOf(first); err == nil {
			fmt.Println("another one")
		}
		return 0
	case "fails":
		gone(first)
	case "is killed":
		gone(os.Getpid()) // the standby ends it
	case "restarts":
		<-restart
		return RestartStatus
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// signalWhoRuns signals the program beside this standby, once the keeper's socket has what Await says.
func (s *Standby) signalWhoRuns(number syscall.Signal) {
	raw, err := s.conn.SyscallConn()
	for said := 0; said == 0 && err == nil; syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000}) {
		err = raw.Control(func(fd uintptr) { said, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	syscall.Kill(standbyOf(0), number)
}

// standbyOf waits until this program's keeper has another child than this process and before, and returns it.
func standbyOf(before int) (pid int) {
	for ; pid == 0; syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000}) {
		for _, child := range siblings() {
			if child != os.Getpid() && child != before {
				pid = child
			}
		}
	}
	return pid
}

// gone waits until the keeper has not that child; false: it keeps it.
func gone(pid int) bool {
	for range 10_000 {
		if !slices.Contains(siblings(), pid) {
			return true
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
	}
	return false
}

func siblings() (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getppid()))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		for _, field := range strings.Fields(string(text)) {
			var pid int
			fmt.Sscan(field, &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestAStandbyGoesOn(t *testing.T) {
	begins := "standby false, 0 a, 0 b, others 0\n"
	goesOn := fmt.Sprintf("%d a, %d b, others 0\n", keptOfEach, keptOfEach)
	for _, tt := range []struct{ how, want, says string }{
		{"is killed", begins + "standby true, " + goesOn, "starts again"},
		{"is killed too early", begins + "standby false, " + goesOn, "not prepared yet"},
		{"is reloaded", begins + "another one\n", ""},
		{"restarts", begins + "standby false, " + goesOn, ""}, // what the standby has read may be older
		{"fails", begins + "standby false, " + goesOn, "the standby ended"},
	} {
		t.Run(tt.how, func(t *testing.T) {
			out, errs, status := keep(t, "stands", tt.how)
			if out != tt.want || status != 0 || !strings.Contains(errs, tt.says) {
				t.Errorf("status %d: %q, want %q\n%s", status, out, tt.want, errs)
			}
		})
	}
}

func TestAStandbyWithoutAKeeperEnds(t *testing.T) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(standbyVariable, fmt.Sprint(ends[1]))
	s, err := StandsBy()
	if err != nil || s == nil || IsStandby() {
		t.Fatal(s, err)
	}
	syscall.Close(ends[0])
	if found, err := s.Await(t.Context()); !errors.Is(err, ErrDismissed) || found != nil {
		t.Errorf("%v %v", found, err)
	}
}

func TestADescriptorThatIsNoStandbysIsRefused(t *testing.T) {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // StandsBy closes it
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x", "-1", "2", fmt.Sprint(fd)} {
		t.Setenv(standbyVariable, text)
		if s, err := StandsBy(); s != nil || err == nil || !strings.Contains(err.Error(), standbyVariable) {
			t.Errorf("%q: %v %v", text, s, err)
		}
	}
	if s, err := StandsBy(); s != nil || err != nil {
		t.Errorf("without a keeper: %v %v", s, err)
	}
}

func TestTheProgramHearsWhatItsStandbyDoes(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	k := discarded(t)
	ask := func() (state string) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			state = Store{k.address()}.Standby()
		}()
		for {
			select {
			case <-done:
				return state
			default:
				k.takeAll()
				runtime.Gosched()
			}
		}
	}
	for _, tt := range []struct {
		name string
		set  func()
		want string
	}{
		{"a stranger asks", func() { k.main = 1 }, ""},
		{"no standby is asked for", func() { k.main = os.Getpid() }, ""},
		{"it has ended", func() { k.Standby = true }, StandbyNone},
		{"it starts in a second", func() { k.wanted = time.After(time.Hour) }, StandbyPreparing},
		{"it reads the policy", func() { k.wanted, k.standby = nil, &standby{-1, ends[0]} }, StandbyPreparing},
		{"it is prepared", func() { unix.Write(ends[1], []byte{1}) }, StandbyPrepared},
		{"nobody answers", func() { k.socket.Close() }, StandbyUnknown},
	} {
		tt.set()
		if got := ask(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, s := range []Store{{}, {"/run/systemd/notify"}} {
		if got := s.Standby(); got != "" {
			t.Errorf("%v: %q", s, got)
		}
	}
}
