package privileged

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEveryThreadLosesItsPrivileges is about builds without cgo, which go on instead of starting again.
func TestEveryThreadLosesItsPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: drops privileges")
	}
	if _, _, err := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); err == unix.ENOTSUP {
		t.Skip("needs CGO_ENABLED=0, as scripts/test sets it")
	}
	if os.Getenv(phase) == "" {
		again(t, "drops")
		return
	}
	var ready, done sync.WaitGroup
	end := make(chan struct{})
	const threads = 4
	ready.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread() // and ends with it
			ready.Done()
			<-end
		})
	}
	ready.Wait()
	who, err := lookUp("nobody")
	if err == nil {
		err = who.drop(syscall.AllThreadsSyscall)
	}
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) < threads {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch {
			case strings.HasPrefix(key, "Cap") && strings.Trim(value, "0") != "", key == "NoNewPrivs" && value != "1",
				key == "Uid" && strings.Contains("\t"+value+"\t", "\t0\t"), key == "Gid" && strings.Contains("\t"+value+"\t", "\t0\t"):
				t.Errorf("%s: %s is %s", task, key, value)
			}
		}
	}
	close(end)
	done.Wait()
}
