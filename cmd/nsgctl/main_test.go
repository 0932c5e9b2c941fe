package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/sys/unix"
)

// They went on until they had an answer.
func TestASignalEndsVerbsThatCompute(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy")
	for sent, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(interruption{sent})
		for _, args := range [][]string{{"lint", policy}, {"lint", policy, "-o", "sarif"}, {"diff", policy, policy}, {"test", "--init", policy}, {"reach", "--policy", policy}} {
			var out, stderr strings.Builder
			if got := execute(ctx, args, strings.NewReader(""), &out, &stderr); got != want || out.Len() > 0 || !strings.Contains(stderr.String(), "ended by a signal: ") {
				t.Errorf("%v: exit code %d, want %d; %q, %q", args, got, want, out.String(), stderr.String())
			}
		}
	}
}

func TestTheEndOfAContextDoesNotWaitForTheAnswer(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	begun, forever := make(chan bool), make(chan bool)
	defer close(forever)
	go func() {
		<-begun
		cancel(io.EOF)
	}()
	if _, err := interruptible(ctx, func() (int, error) { close(begun); <-forever; return 1, nil }); !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want the cause", err)
	}
	if n, err := interruptible(t.Context(), func() (int, error) { return 1, io.EOF }); n != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v, want what the function returns", n, err)
	}
}

// Nobody reads what the verb writes, so that it can't end by itself.
func TestASignalEndsAVerbThatHangs(t *testing.T) {
	hang := func(t *testing.T) *exec.Cmd {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { reader.Close() })
		defer writer.Close()
		size, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command("nsgctl", "completion", "bash")
		c.Stdout = writer
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		for waiting := 0; waiting < size; {
			if waiting, err = unix.IoctlGetInt(int(reader.Fd()), unix.TIOCINQ); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	t.Run("a signal, after a while", func(t *testing.T) {
		c := hang(t)
		c.Process.Signal(syscall.SIGTERM)
		if c.Wait(); c.ProcessState.ExitCode() != 143 {
			t.Errorf("it ended so: %v; want exit code 143", c.ProcessState)
		}
	})
	t.Run("the second signal, at once", func(t *testing.T) {
		c := hang(t)
		over := make(chan error)
		go func() { over <- c.Wait() }()
		for ended := false; !ended; {
			c.Process.Signal(syscall.SIGTERM) // until one comes after the first was taken
			select {
			case <-over:
				ended = true
			default:
			}
		}
		if status := c.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
			t.Errorf("it ended so: %v; want the signal's ordinary effect", c.ProcessState)
		}
	})
}
