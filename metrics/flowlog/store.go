package flowlog

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nsgd/nsgd/tun/folder"
)

// store is a folder of flow logs. Only its sink's goroutine uses it; the counts are safe for
// concurrent use.
type store struct {
	folder string
	limit  int64    // bytes
	root   *os.Root // of folder; nil: not opened yet

	size    atomic.Int64  // bytes of all hours' files
	deleted atomic.Uint64 // files
	mended  atomic.Uint64 // files
}

// append adds a record to its file. If the folder is too large, it makes room before.
func (s *store) append(b *block) error {
	if s.root == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.size.Load()+int64(len(b.record)) > s.limit {
		if err := s.prune(); err != nil {
			return err
		}
	}
	path := filepath.FromSlash(b.path)
	if err := s.root.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return errors.Join(err, s.close()) // somebody may have removed the folder: it is made again
	}
	err := s.appendTo(path, b.record)
	if !errors.Is(err, errForeign) {
		return err
	}
	if err := s.root.Rename(path, path+foreignSuffix); err != nil {
		return err
	}
	return s.appendTo(path, b.record)
}

// appendTo adds a record to a file, which it makes if there is none.
func (s *store) appendTo(path string, record []byte) error {
	f, err := folder.OpenFile(s.root, path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	grown, err := appendRecord(f, record)
	s.size.Add(grown)
	return errors.Join(err, f.Close())
}

// foreignSuffix is added to the name of a file that stands in an hour's file's place.
const foreignSuffix = ".foreign"

// hourly is an hour's file in the folder.
type hourly struct {
	path string // in the folder
	hour string // sorts by time
	size int64
}

// list walks through all hours' files and skips other files.
func (s *store) list(each func(hourly) error) error {
	for _, container := range []string{nsgContainer, vnetContainer} {
		err := fs.WalkDir(s.root.FS(), container, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || entry.Name() != hourFile || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			return each(hourly{path, hourOf(path), info.Size()})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hourOf is the part y=.../h=.. of a path, the last one of that form.
func hourOf(path string) string {
	path = filepath.ToSlash(path)
	i := strings.LastIndex(path, "/y=")
	j := strings.LastIndex(path, "/m=00/")
	if i < 0 || j < i {
		return ""
	}
	return path[i+1 : j]
}

// open measures the folder and mends files that a killed run has left torn.
func (s *store) open() (err error) {
	if s.root, err = folder.Open(s.folder); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	size := int64(0)
	err = s.list(func(h hourly) error {
		f, err := folder.OpenFile(s.root, h.path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		mended, err := mend(f, h.size)
		if mended != h.size {
			s.mended.Add(1)
		}
		size += mended
		if errors.Is(err, errForeign) {
			err = nil
		}
		return errors.Join(err, f.Close())
	})
	s.size.Store(size)
	return err
}

// close gives the folder back; append opens it again.
func (s *store) close() error {
	if s.root == nil {
		return nil
	}
	root := s.root
	s.root = nil
	return root.Close()
}

// pruneTo is the part of the limit that stays in use. Room for one record only would mean a walk
// through all files for each record.
const pruneTo = 15.0 / 16

// prune deletes the files of the oldest hours until there is room again.
func (s *store) prune() error {
	var files []hourly
	total := int64(0)
	err := s.list(func(h hourly) error {
		files = append(files, h)
		total += h.size
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b hourly) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.path, b.path))
	})
	for _, f := range files {
		if float64(total) <= float64(s.limit)*pruneTo {
			break
		}
		if err := s.root.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.deleted.Add(1)
		total -= f.size
		s.removeEmpty(filepath.Dir(f.path))
	}
	s.size.Store(total)
	return nil
}

// removeEmpty removes a folder and those above it, as long as nothing is in them.
func (s *store) removeEmpty(dir string) {
	for dir != "." && s.root.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}
