package tun

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/tun/folder"
	"golang.org/x/sys/unix"
)

const lockName = "nsgd.lock"

// RunningError says who holds a state directory. It is ErrRunning.
type RunningError struct {
	Dir string
	// PID of the other daemon; 0: it has not been written yet.
	PID int
}

// Error names the other daemon.
func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("tun: state directory %s: %v", e.Dir, ErrRunning)
	}
	return fmt.Sprintf("tun: state directory %s: %v: nsgd with pid %d", e.Dir, ErrRunning, e.PID)
}

// Is makes errors.Is(err, ErrRunning) hold.
func (e *RunningError) Is(target error) bool { return target == ErrRunning }

// takeLock locks dir's lock file and writes the process id into it. The kernel gives the lock
// up with the process, however that ends.
func takeLock(dir *os.Root) (*os.File, error) {
	path := filepath.Join(dir.Name(), lockName)
	for {
		f, err := folder.OpenFile(dir, lockName, os.O_RDWR|os.O_CREATE, 0o640)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			continue // another daemon made or removed it meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("tun: state directory: %w", err)
		}
		locked, err := lockFile(f, path)
		if err == unix.EWOULDBLOCK {
			text, _ := io.ReadAll(f)
			f.Close()
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			return nil, &RunningError{Dir: dir.Name(), PID: pid}
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("tun: lock %s: %w", path, err)
		}
		if !locked {
			f.Close()
			continue
		}
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("tun: lock %s: %w", path, err)
		}
		return f, nil
	}
}

// lockFile locks the file that was opened at path. It reports false when the file is no longer
// at path: its last holder removed it after the open.
func lockFile(f *os.File, path string) (bool, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(held, named), nil
}

// HeldBy names another process as the holder of the directory: the daemon, where a process of its own has the State.
func (s *State) HeldBy(pid int) error {
	text := []byte(strconv.Itoa(pid) + "\n")
	_, err := s.lock.WriteAt(text, 0)
	if err == nil {
		err = s.lock.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("tun: lock in %s: %w", s.dir.Name(), err)
	}
	return nil
}
