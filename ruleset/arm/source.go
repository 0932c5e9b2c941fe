package arm

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxTries is how often files that change while they are read are read again.
	maxTries = 10
	// firstPause lies between two tries at first, and doubles up to lastPause.
	firstPause, lastPause = 10 * time.Millisecond, 500 * time.Millisecond
	// recently is how old a file is at most whose content is compared too: its time may not tell of a second change.
	recently = 2 * time.Second
)

// source reads the files of one reading, and knows afterwards whether they are still what was read. Safe for concurrent use.
type source struct {
	// open reads a file; readRegular but in tests.
	open func(file string) ([]byte, fs.FileInfo, error)
	now  func() time.Time // time.Now but in tests

	mu   sync.Mutex
	seen map[string]seenFile // guarded by mu
}

// seenFile is a file as it was read. Of one that could not be read, info is nil.
type seenFile struct {
	info   fs.FileInfo
	digest digest
	recent bool
}

// read reads a regular file.
func (s *source) read(file string) ([]byte, error) {
	data, _, err := s.readWith(file)
	return data, err
}

// readWith is read. The info, unless it is nil, tells of each later change.
func (s *source) readWith(file string) ([]byte, fs.FileInfo, error) {
	begun := s.now()
	data, info, err := s.open(file)
	seen := seenFile{info: info}
	if err != nil {
		seen.info = nil
	} else if begun.Sub(changed(info)) < recently {
		seen.recent, seen.digest = true, sha256.Sum256(data)
	}
	s.see(file, seen)
	if seen.recent || !timesTell(file) {
		info = nil
	}
	return data, info, err
}

func (s *source) see(file string, seen seenFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.seen[file]; !again { // the first reading is the earliest
		s.seen[file] = seen
	}
}

// still reports that a file is what it was when an earlier source had it with an info; nil: that is not known.
func (s *source) still(file string, was fs.FileInfo) bool {
	if was == nil {
		return false
	}
	info, err := os.Stat(file)
	if err != nil || !sameFile(was, info) {
		return false
	}
	s.see(file, seenFile{info: was})
	return true
}

// timesTell reports that a file is on a file system whose times tell of each change: other ones let a program choose all times,
// or are asked through a cache.
func timesTell(file string) bool {
	var s unix.Statfs_t
	if unix.Statfs(file, &s) != nil {
		return false
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}

// changed is when a file, its name or its times changed last: no program can choose that.
func changed(info fs.FileInfo) time.Time {
	last := info.ModTime()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if t := time.Unix(stat.Ctim.Unix()); t.After(last) {
			last = t
		}
	}
	return last
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changed(a).Equal(changed(b))
}

// exists reports whether there is a file.
func (s *source) exists(file string) bool {
	_, err := os.Stat(file)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.seen[file]; err != nil && !known {
		s.seen[file] = seenFile{}
	}
	return err == nil
}

// taken are the files that could be read, sorted.
func (s *source) taken() (files []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for file, seen := range s.seen {
		if seen.info != nil {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// changed is a file that is no longer what was read; empty: there is none.
func (s *source) changed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for file, was := range s.seen {
		info, err := os.Stat(file)
		switch {
		case was.info == nil && err == nil && info.Mode().IsRegular() && !unreadable(file):
			return file
		case was.info == nil:
		case err != nil || !sameFile(was.info, info):
			return file
		case was.recent:
			data, _, err := s.open(file)
			if err != nil || sha256.Sum256(data) != was.digest {
				return file
			}
		}
	}
	return ""
}

// unreadable reports a file that can't be opened, so that it is as it was.
func unreadable(file string) bool {
	_, _, err := readRegular(file)
	return err != nil
}

// readRegular reads a regular file. Reading a pipe or device could last for ever. The info is of the time before
// the first byte was read.
func readRegular(file string) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("not a regular file")
	}
	data, err := io.ReadAll(f)
	return data, info, err
}

// Files lists the documents that Load would read, each once.
func Files(paths ...string) []string { return newLoader().files(paths) }

// unsettled is a file of the policy that changed while it was read, or that came or went; empty: there is none.
func (r *Reader) unsettled(s *source, files []string) string {
	if file := s.changed(); file != "" {
		return file
	}
	now := Files(r.paths...)
	if slices.Equal(files, now) {
		return ""
	}
	for _, list := range [][2][]string{{files, now}, {now, files}} {
		for _, file := range list[0] {
			if !slices.Contains(list[1], file) {
				return file
			}
		}
	}
	return now[0] // the order has changed
}
