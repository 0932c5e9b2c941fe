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

	used map[string]int64  // bytes by owner, see ownerOf
	full map[string]string // by owner: the hour in which there was nothing more to delete for it

	size    atomic.Int64  // bytes of all hours' files
	deleted atomic.Uint64 // files
	mended  atomic.Uint64 // files
	leftOut atomic.Uint64 // rows that had no room
}

// errLeftOut says that a record has no room in its folder, and that it was counted.
var errLeftOut = errors.New("no room in the folder of the flow log")

// append adds a record to its file. If the folder is too large, it makes room before. It fails with errLeftOut.
func (s *store) append(b *block) error {
	if s.root == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	path := filepath.FromSlash(b.path)
	if b.recovered {
		if there, err := s.has(path, b); there || err != nil {
			return err
		}
	}
	if err := s.makeRoom(b); err != nil {
		return err
	}
	if err := s.root.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return errors.Join(err, s.close()) // somebody may have removed the folder: it is made again
	}
	err := s.appendTo(path, b.record)
	if !errors.Is(err, errForeign) && !errors.Is(err, folder.ErrUntrusted) {
		return err
	}
	if err := s.root.Rename(path, path+foreignSuffix); err != nil {
		return err
	}
	return s.appendTo(path, b.record)
}

// has reports that a killed process has written a record, as the last one of its file.
func (s *store) has(path string, b *block) (bool, error) {
	f, err := folder.OpenFile(s.root, path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, folder.ErrUntrusted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	there, err := endsWith(f, b.record[:min(recordTime, len(b.record))], b.length)
	return there, errors.Join(err, f.Close())
}

// appendTo adds a record to a file, which it makes if there is none.
func (s *store) appendTo(path string, record []byte) error {
	f, err := folder.OpenFile(s.root, path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	grown, err := appendRecord(f, record)
	s.grow(path, grown)
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
	s.size.Store(0)
	s.used, s.full = map[string]int64{}, map[string]string{}
	err = s.list(func(h hourly) error {
		f, err := folder.OpenFile(s.root, h.path, os.O_RDWR, 0)
		if errors.Is(err, folder.ErrUntrusted) { // append replaces it
			s.grow(h.path, h.size)
			return nil
		}
		if err != nil {
			return err
		}
		mended, err := mend(f, h.size)
		if mended != h.size {
			s.mended.Add(1)
		}
		s.grow(h.path, mended)
		if errors.Is(err, errForeign) {
			err = nil
		}
		return errors.Join(err, f.Close())
	})
	return err
}

// grow counts bytes of a file.
func (s *store) grow(path string, bytes int64) {
	s.size.Add(bytes)
	s.used[ownerOf(path)] += bytes
}

// ownerOf is who has a share of the folder: the part of a path above the date, which names an NSG or what a log covers.
func ownerOf(path string) string {
	owner, _, _ := strings.Cut(filepath.ToSlash(path), "/y=")
	return owner
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

const (
	// pruneBy is the part of the limit that pruning frees beyond what is needed, one in so many bytes. Room for one
	// record only would mean a walk through all files for each record.
	pruneBy = 16
	// sparedFor is the part of the limit that owners above their share leave to the others, one in so many bytes.
	sparedFor = 8
)

// share is what each owner has of the folder at least.
func (s *store) share(owner string) int64 {
	n := len(s.used)
	if _, known := s.used[owner]; !known {
		n++
	}
	return s.limit / int64(n)
}

// makeRoom deletes files of past hours until a record has room. An owner above its share makes no other owner
// lose anything below that one's share.
func (s *store) makeRoom(b *block) error {
	owner, hour := ownerOf(b.path), hourOf(b.path)
	size := int64(len(opening) + len(b.record) + len(",\n"+closing))
	room := func() int64 {
		bound := s.limit
		if len(s.used) > 1 && s.used[owner]+size > s.share(owner) {
			bound -= s.limit / sparedFor
		}
		return bound - s.size.Load() - size
	}
	if room() >= 0 {
		return nil
	}
	if s.full[owner] != hour {
		if err := s.prune(owner, hour, func() bool { return room() >= s.limit/pruneBy }); err != nil {
			return err
		}
	}
	if room() < 0 {
		s.full[owner] = hour
		s.leftOut.Add(b.rows)
		return errLeftOut
	}
	return nil
}

// prune deletes files, the oldest of whoever has the most first, until there is enough room. It deletes no file of
// the hour. What owners have as their share goes for an owner's own records only.
func (s *store) prune(owner, hour string, enough func() bool) error {
	files := map[string][]hourly{} // by owner
	s.size.Store(0)
	s.used = map[string]int64{}
	err := s.list(func(h hourly) error {
		s.grow(h.path, h.size)
		if h.hour < hour {
			files[ownerOf(h.path)] = append(files[ownerOf(h.path)], h)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, list := range files {
		slices.SortFunc(list, func(a, b hourly) int {
			return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.path, b.path))
		})
	}
	for !enough() {
		victim, most := "", int64(-1)
		for o := range files {
			if used := s.used[o]; used > most && (o == owner || used > s.share(owner)) {
				victim, most = o, used
			}
		}
		if most < 0 {
			return nil
		}
		f := files[victim][0]
		if err := s.root.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.deleted.Add(1)
		s.grow(f.path, -f.size)
		s.removeEmpty(filepath.Dir(f.path))
		if files[victim] = files[victim][1:]; len(files[victim]) == 0 {
			delete(files, victim)
		}
	}
	return nil
}

// removeEmpty removes a folder and those above it, as long as nothing is in them.
func (s *store) removeEmpty(dir string) {
	for dir != "." && s.root.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}
