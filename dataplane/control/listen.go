package control

import (
	"cmp"
	"context"
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
	// MaxSocketPath is the longest path of a unix socket: the kernel's sun_path, less a zero.
	MaxSocketPath = 107
)

// Access says who may connect to the socket. The zero value lets in the daemon's user and root.
type Access struct {
	// Mode of the socket; 0: 0600.
	Mode fs.FileMode
	// Group is the id of the socket's group; 0: root's. The group may also search the socket's folder.
	Group int
	// User is the id of the socket's owner, who may also search the folder; 0: whoever opens it. To give it away
	// needs root.
	User int
}

// Listen opens the control socket. Who may connect is decided before anybody can. It replaces the socket of a daemon that died. The socket of a
// living one, a file that is no socket, or a folder that others may write to is an error; see folder.Open.
func Listen(path string, access Access) (net.Listener, error) {
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
	l, err := listenAlone(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := access.give(dir, filepath.Base(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

// listenAlone opens a socket that nobody else may connect to for any moment, whatever the umask: the kernel makes it
// with the mode of its descriptor.
func listenAlone(path string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		failed := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), ownMode) })
		return errors.Join(failed, err)
	}}
	return config.Listen(context.Background(), "unix", path)
}

// ownMode is that of a socket which only the daemon's user and root may connect to.
const ownMode = 0o600

// give lets others connect to a socket in a folder.
func (a Access) give(dir *os.Root, name string) error {
	if a.Group != 0 {
		info, err := dir.Stat(".")
		if err == nil && info.Mode()&0o001 == 0 {
			err = errors.Join(dir.Chown(".", -1, a.Group), dir.Chmod(".", info.Mode().Perm()|0o010))
		}
		if err == nil {
			err = dir.Lchown(name, -1, a.Group)
		}
		if err != nil {
			return err
		}
	}
	if err := dir.Chmod(name, cmp.Or(a.Mode, ownMode)); err != nil || a.User == 0 || a.User == os.Geteuid() {
		return err
	}
	// Last: to change what is another user's would need CAP_FOWNER.
	info, err := dir.Stat(".")
	if err == nil {
		err = errors.Join(dir.Chmod(".", info.Mode().Perm()|0o001), dir.Lchown(name, a.User, -1))
	}
	return err
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
