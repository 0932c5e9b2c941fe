package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
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
