package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/tun/folder"
)

const (
	// socketMode lets only the daemon's user, root, ask and reload.
	socketMode = 0o600
	// MaxSocketPath is the longest path of a unix socket: the kernel's sun_path, less a zero.
	MaxSocketPath = 107
)

// Listen opens the control socket. It replaces the socket of a daemon that died. The socket of a
// living one, a file that is no socket, or a folder that others may write to is an error; see folder.Open.
func Listen(path string) (net.Listener, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("control socket %s: a unix socket's path has at most %d bytes", path, MaxSocketPath)
	}
	dir, err := folder.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer dir.Close()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := dir.Chmod(filepath.Base(path), socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file of that name is no socket: remove it or configure another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return errors.New("another daemon answers on it")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
