package fdstore

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Go's scheduler interrupts threads by signals. A daemon once ended so on a busy machine, when its keeper was slow to hear.
func TestWhoTellsASlowKeeperIsNotInterrupted(t *testing.T) {
	folder, err := os.MkdirTemp("", "k") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "notify")
	keeper, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	full, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	raw, err := full.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Write(func(fd uintptr) bool {
		for err == nil {
			_, err = unix.Write(int(fd), []byte("x"))
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	thread, told := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		thread <- unix.Gettid()
		told <- Store{path}.send("READY=1", nil)
	}()
	id := <-thread
	for interrupted := 0; interrupted < 5; runtime.Gosched() {
		select {
		case err := <-told:
			t.Fatalf("told a keeper that hears nothing: %v", err)
		default:
		}
		if waits(t, id) {
			if err := unix.Tgkill(os.Getpid(), id, unix.SIGURG); err != nil {
				t.Fatal(err)
			}
			interrupted++
		}
	}
	for buf := make([]byte, 16); ; {
		n, err := keeper.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "READY=1" {
			break
		}
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
}

// waits reports that a thread of this process waits in sendmsg.
func waits(t *testing.T, id int) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(id) + "/syscall")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(text), strconv.Itoa(unix.SYS_SENDMSG)+" ")
}
