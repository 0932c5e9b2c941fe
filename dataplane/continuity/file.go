package continuity

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/tun/folder"
	"golang.org/x/sys/unix"
)

// keySaved is when a state file was written: by the wall clock, and by SinceBoot.
const keySaved = "saved"

// maxAway is how long the machine may be away: the longest timeout of a flow.
const maxAway = 7 * 24 * time.Hour

// Save writes all slabs to a file, for a process after the machine's next start. Nothing may use them any more.
func (s *Store) Save(path string, now time.Time) error {
	if s.before[keySaved] == "" { // else nobody has moved the records on since they came from a file
		if err := s.journal.Put(keySaved, fmt.Append(nil, now.UnixNano(), " ", int64(SinceBoot()))); err != nil {
			return err
		}
	}
	root, err := folder.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Base(path)
	next := name + ".new"
	if err := root.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := folder.OpenFile(root, next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(s.slabs.Write(w), w.Flush(), f.Sync(), f.Close())
	if err == nil {
		err = root.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(next))
	}
	return nil
}

// Load makes the slabs that Save has written, and removes the file, so that it is read once. found is false when there is
// no file. After an error there are no slabs.
func Load(slabs *slab.Slabs, path string) (found bool, err error) {
	root, err := folder.Open(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	defer root.Close()
	f, err := folder.OpenFile(root, filepath.Base(path), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, errors.Join(slabs.Read(bufio.NewReaderSize(f, 1<<20)), root.Remove(filepath.Base(path)))
}

// Later is by how much the clock of the flows' records has to be moved on, so that those of a state file have been idle
// while the machine was away too; 0: they come from no file.
func (s *Store) Later() time.Duration {
	if s == nil {
		return 0
	}
	return s.later
}

// sinceFile finds out Later.
func (s *Store) sinceFile(now time.Time) error {
	text := s.before[keySaved]
	if text == "" {
		return nil
	}
	var wall, clock int64
	if _, err := fmt.Sscan(text, &wall, &clock); err != nil {
		return fmt.Errorf("continuity: when the state file was written: %w", err)
	}
	away := max(0, now.Sub(time.Unix(0, wall))) // the wall clock may have been set back
	if away > maxAway {
		return fmt.Errorf("continuity: the state file was written %v ago: at most %v", away, maxAway)
	}
	s.later = SinceBoot() - time.Duration(clock) - away
	return nil
}

// SinceBoot is the monotonic clock, which is the same in all processes until the machine starts again.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
