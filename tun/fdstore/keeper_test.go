package fdstore

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// roleEnv makes the test's own program one of those that the tests start: the keeper, or what it runs.
const roleEnv = "NSGD_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "keeper":
		os.Setenv(roleEnv, os.Args[1])
		k := Keeper{Command: append([]string{"/proc/self/exe"}, os.Args[2:]...), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Stdout: os.Stdout, Stderr: os.Stderr, Standby: os.Args[1] == "stands"}
		status, err := k.Run()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(status)
	default:
		os.Exit(programs[role]())
	}
}

// programs are what keepers run. Each says on its standard output what it has found.
var programs = map[string]func() int{
	// counts in a file that the keeper keeps, and ends as its argument says.
	"counts": func() int {
		found, err := Inherited()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		var f *os.File
		n := 0
		if files := found["counter"]; len(files) == 1 {
			f = files[0]
			text, _ := io.ReadAll(io.NewSectionReader(f, 0, 100))
			n, _ = strconv.Atoi(string(text))
		} else {
			f, _ = os.CreateTemp("", "counter")
			os.Remove(f.Name()) // the descriptor is all that there is
			s, why := Open()
			if err := s.Keep("counter", f); err != nil || why != "" {
				fmt.Println(why)
				fmt.Println(err)
				return 1
			}
		}
		n++
		fmt.Println("run", n)
		f.WriteAt([]byte(strconv.Itoa(n)), 0)
		if n == 3 {
			return 0
		}
		switch os.Args[1] {
		case "killed":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case "restarts":
			return RestartStatus
		}
		return 1
	},
	// ends with the status that its argument says, without a word of being ready.
	"ends": func() int {
		fmt.Println("run")
		status, _ := strconv.Atoi(os.Args[1])
		return status
	},
	// is ready, and ends as a panic does, until it has run three times.
	"panics": func() int {
		f, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		f.WriteString("x")
		if info, _ := f.Stat(); info.Size() == 3 {
			return 0
		}
		if s, why := Open(); why != "" || s.send("READY=1", nil) != nil {
			fmt.Println(why)
			return 1
		}
		return usageStatus
	},
	// names a successor, which says that it is one, and ends.
	"succeeds": func() int {
		if len(os.Args) > 2 {
			fmt.Println("successor of", os.Args[2])
			for fmt.Sprint(os.Getppid()) == os.Args[2] {
				syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
			}
			return 0
		}
		c := exec.Command("/proc/self/exe", "", fmt.Sprint(os.Getpid()))
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		s, _ := Open()
		s.MainPID(c.Process.Pid)
		return 0
	},
	// has a child of its child tell the keeper something.
	"strangers": func() int {
		exe, err := os.Executable()
		if err != nil {
			return 1
		}
		c := exec.Command("sh", "-c", roleEnv+"=stranger "+exe+" & wait")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			fmt.Println(err)
		}
		return 0
	},
	"stands": stands,
	"stranger": func() int {
		s, _ := Open()
		fmt.Println("told", s.MainPID(os.Getpid()))
		return 0
	},
}

// keep runs a program under a keeper in a process of its own.
func keep(t *testing.T, role string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	c := exec.Command("/proc/self/exe", append([]string{role}, args...)...)
	temporary, err := os.MkdirTemp("", "k") // t.TempDir may be too long for the keeper's socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temporary)
	c.Env = append(os.Environ(), roleEnv+"=keeper", "TMPDIR="+temporary)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Run()
	left, _ := filepath.Glob(filepath.Join(temporary, "nsgd-keep-*"))
	if len(left) > 0 {
		t.Errorf("the keeper leaves %v", left)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func TestAKeeperKeepsDescriptorsAndStartsAgain(t *testing.T) {
	for _, how := range []string{"killed", "restarts", "fails"} {
		t.Run(how, func(t *testing.T) {
			out, errs, status := keep(t, "counts", how)
			if out != "run 1\nrun 2\nrun 3\n" || status != 0 {
				t.Errorf("status %d: %q\n%s", status, out, errs)
			}
		})
	}
}

func TestAKeeperGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name, status string
		runs         int
		says         string
	}{
		{"a wrong command line", "2", 1, "does not understand its command line"},
		{"never ready", "1", maxFirst, "never ready"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, status := keep(t, "ends", tt.status)
			if strings.Count(out, "run") != tt.runs || strconv.Itoa(status) != tt.status || !strings.Contains(errs, tt.says) {
				t.Errorf("status %d: %q\n%s", status, out, errs)
			}
		})
	}
}

// TestAPanicOfAProgramThatWasReadyIsNoWrongCommandLine: both end with status 2.
func TestAPanicOfAProgramThatWasReadyIsNoWrongCommandLine(t *testing.T) {
	out, errs, status := keep(t, "panics", filepath.Join(t.TempDir(), "runs"))
	if status != 0 || out != "" {
		t.Errorf("status %d: %q\n%s", status, out, errs)
	}
}

func TestWhoKeepsNothingIsNoStore(t *testing.T) {
	for _, tt := range []struct {
		name, socket, size, pressure string
		want                         string // of why; empty: a store
	}{
		{"nobody", "", "", "", "neither systemd nor nsgd keep"},
		{"systemd from 254 on", "/run/systemd/notify", "128", "/sys/fs/cgroup/memory.pressure", ""},
		{"the same for a user", "/run/user/1000/systemd/notify", "128", "", ""},
		{"systemd from 254 on without a store", "/run/systemd/notify", "", "/sys/fs/cgroup/memory.pressure", "FileDescriptorStoreMax="},
		{"systemd before 254", "/run/systemd/notify", "", "", ""},
		{"its abstract socket", "@run/systemd/notify", "", "", ""},
		{"nsgd keep", "/tmp/nsgd-keep-1/notify", "65536", "", ""},
		{"podman", "/run/notify/notify.sock", "", "", "/run/notify/notify.sock is not systemd's"},
		{"a store of nothing", "/run/systemd/notify", "0", "", "takes no descriptors"},
		{"a size that is none", "/run/systemd/notify", "many", "", "takes no descriptors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(notifySocket, tt.socket)
			t.Setenv(storeSize, tt.size)
			t.Setenv(pressureWatch, tt.pressure)
			s, why := Open()
			if s.Exists() != (tt.want == "") || !strings.Contains(why, tt.want) || (why == "") != s.Exists() {
				t.Errorf("%v: %q", s, why)
			}
		})
	}
}

func TestASuccessorIsFollowed(t *testing.T) {
	out, errs, status := keep(t, "succeeds", "")
	if !strings.Contains(out, "successor of") || status != 0 || strings.Contains(errs, "starts again") {
		t.Errorf("status %d: %q\n%s", status, out, errs)
	}
}

func TestAKeeperHearsNoStrangers(t *testing.T) {
	out, errs, status := keep(t, "strangers")
	if !strings.Contains(out, "told <nil>") || !strings.Contains(errs, "refused") || status != 0 {
		t.Errorf("status %d: %q\n%s", status, out, errs)
	}
}

func TestDescriptorsOfAnotherAreNotTaken(t *testing.T) {
	t.Setenv(listenPID, "1")
	t.Setenv(parentEnv, "1")
	t.Setenv(listenFDs, "2")
	found, err := Inherited()
	if err != nil || len(found) > 0 || os.Getenv(listenFDs) != "" {
		t.Errorf("%v %v", found, err)
	}
}
