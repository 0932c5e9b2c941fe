package control_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nsgd.sock")
	listener, err := control.Listen(path, control.Access{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket for its owner only", info.Mode())
	}
	t.Run("a path that no socket can have is refused with the bound", func(t *testing.T) {
		long := filepath.Join(t.TempDir(), strings.Repeat("x", control.MaxSocketPath))
		if _, err := control.Listen(long, control.Access{}); err == nil || !strings.Contains(err.Error(), "at most 107 bytes") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the socket of a living daemon is left alone", func(t *testing.T) {
		if _, err := control.Listen(path, control.Access{}); err == nil || !strings.Contains(err.Error(), "another daemon") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the socket of a dead daemon is replaced", func(t *testing.T) {
		listener.(*net.UnixListener).SetUnlinkOnClose(false)
		listener.Close()
		again, err := control.Listen(path, control.Access{})
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
	t.Run("a file that is no socket is left alone", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := control.Listen(file, control.Access{}); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	})
}

func TestNobodyOnTheSocketIsErrNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nsgd.sock")
	if _, err := control.NewClient(path).Status(context.Background()); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("no socket: %v", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	if _, err := control.NewClient(path).Reload(context.Background(), 0); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("a dead daemon's socket: %v", err)
	}
}

func TestShutdownRemovesTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nsgd.sock")
	listener, err := control.Listen(path, control.Access{})
	if err != nil {
		t.Fatal(err)
	}
	server := control.NewServer(inspect.NewService(inspect.Options{}))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	if err := server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Serve may have started after Shutdown: then it closed the listener itself.
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
