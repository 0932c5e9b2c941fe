package fdstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// discarded is a keeper that runs nothing yet.
func discarded(t *testing.T) *Keeper {
	t.Helper()
	k := &Keeper{Log: slog.New(slog.DiscardHandler)}
	if err := k.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.socket.Close()
		os.RemoveAll(k.folder)
	})
	return k
}

func TestAFolderTooLongForTheSocketIsRefused(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxPath))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	k := Keeper{Log: slog.New(slog.DiscardHandler)}
	err := k.listen()
	if err == nil || !strings.Contains(err.Error(), "TMPDIR="+long+": ") || !strings.Contains(err.Error(), fmt.Sprint(maxPath, " are allowed")) {
		t.Errorf("says %v", err)
	}
	if left, _ := os.ReadDir(long); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestNobodyIsHeardWhileNoProgramRuns(t *testing.T) {
	k := discarded(t)
	store := Store{filepath.Join(k.folder, "notify")}
	send := func() {
		t.Helper()
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := store.Keep("flows.1", f); err != nil {
			t.Fatal(err)
		}
		k.takeAll()
	}
	if send(); len(k.kept) != 0 {
		t.Error("a stranger's descriptor is kept")
	}
	k.main = os.Getpid()
	if send(); len(k.kept) != 1 {
		t.Error("the program's descriptor is not kept")
	}
}

func TestASuccessorIsStoppedToo(t *testing.T) {
	k := discarded(t)
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	k.stop = syscall.SIGTERM
	k.take(message{text: "MAINPID=" + strconv.Itoa(c.Process.Pid)})
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the successor runs on")
	}
	if w := c.ProcessState.Sys().(syscall.WaitStatus); w.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by %v", c.ProcessState)
	}
}

// lines are a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	hear func(string)
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hear(string(b))
	return l.text.Write(b)
}

func TestAProgramThatIsMissingForAMomentStartsAgain(t *testing.T) {
	dir := t.TempDir()
	program, away := filepath.Join(dir, "program"), filepath.Join(dir, "away")
	script := "#!/bin/sh\nif [ -e " + dir + "/second ]; then exit 0; fi\ntouch " + dir + "/second\nmv " + program + " " + away + "\nexit 1\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	log := &lines{hear: func(line string) {
		if strings.Contains(line, "does not start") {
			os.Rename(away, program)
		}
	}}
	k := &Keeper{Command: []string{program}, Log: slog.New(slog.NewTextHandler(log, nil)), Stdout: os.Stderr, Stderr: os.Stderr}
	if status, err := k.Run(); status != 0 || err != nil {
		t.Errorf("status %d: %v: %s", status, err, &log.text)
	}
	if _, err := os.Stat(filepath.Join(dir, "second")); err != nil {
		t.Error(err)
	}
}

func TestAChildIsNotTakenForAnotherProcess(t *testing.T) {
	for _, key := range []string{listenPID, watchdogPID, standbyVariable} {
		if got := Environment([]string{"A=b", key + "=1"}, nil); !slices.Contains(got, "A=b") || slices.Contains(got, key+"=1") {
			t.Errorf("%s: %q", key, got)
		}
	}
}

// The kernel takes 128 KB of a variable: 5,000 devices have more names.
func TestManyNamesReachAChild(t *testing.T) {
	var names []string
	for i := range 20_000 {
		names = append(names, fmt.Sprintf("q.abcdefgh%d", i))
	}
	again := Environment(Environment(os.Environ(), names), names) // what a child gives to its own
	longest, variables := 0, 0
	for _, e := range again {
		key, value, _ := strings.Cut(e, "=")
		if isListening(key) {
			longest, variables = max(longest, len(e)), variables+1
			if key != parentEnv && key != listenFDs {
				t.Setenv(key, value)
			}
		}
	}
	if longest > 128<<10-1 || variables != 6 {
		t.Errorf("%d variables, the longest of %d bytes", variables, longest)
	}
	t.Setenv(parentEnv, strconv.Itoa(os.Getppid()))
	t.Setenv(listenFDs, "0")
	c := exec.Command("true")
	c.Env = again
	if err := c.Run(); err != nil {
		t.Errorf("a program can't be started with them: %v", err)
	}
	if got := inheritedNames(); !slices.Equal(got, names) {
		t.Errorf("%d names came, not %d", len(got), len(names))
	}
	if _, err := Inherited(); err != nil {
		t.Error(err)
	}
	for _, e := range os.Environ() {
		if key, _, _ := strings.Cut(e, "="); isListening(key) {
			t.Errorf("%s is left for children", key)
		}
	}
}

func TestDescriptorsThatAreNotThereAreRefused(t *testing.T) {
	for _, n := range []string{"1000000000", "60000", "-1", "x"} {
		t.Setenv(parentEnv, strconv.Itoa(os.Getppid()))
		t.Setenv(listenFDs, n)
		if found, err := Inherited(); err == nil {
			t.Errorf("%s=%s: %d names", listenFDs, n, len(found))
		}
	}
}
