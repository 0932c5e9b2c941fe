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
		k := Keeper{Command: append([]string{"/proc/self/exe"}, os.Args[2:]...), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Stdout: os.Stdout, Stderr: os.Stderr}
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
			if err := Open().Keep("counter", f); err != nil {
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
		Open().MainPID(c.Process.Pid)
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
	"stranger": func() int {
		fmt.Println("told", Open().MainPID(os.Getpid()))
		return 0
	},
}

// keep runs a program under a keeper in a process of its own.
func keep(t *testing.T, role string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	c := exec.Command("/proc/self/exe", append([]string{role}, args...)...)
	c.Env = append(os.Environ(), roleEnv+"=keeper", "TMPDIR="+t.TempDir())
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Run()
	left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "nsgd-keep-*"))
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
