package filewatch

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stateOf looks at a file or folder behind its links.
func stateOf(path string) state {
	var s unix.Stat_t
	for {
		err := unix.Stat(path, &s)
		if err == nil {
			return state{identity{s.Dev, s.Ino}, s.Size, s.Mtim, s.Ctim}
		}
		if err != unix.EINTR {
			return state{}
		}
	}
}

// below adds a folder, those below it, and what lies around it. Folders that begin with a dot are passed over: in them
// nothing counts but what a link leads to.
func below(root string, folders map[string]bool) {
	around(root, folders)
	root = strings.TrimSuffix(root, "/") + "/" // a root that is a link is walked as a folder
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case len(folders) > maxFolders:
			return fs.SkipAll
		case err != nil || !entry.IsDir():
			return nil
		case path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		}
		folders[filepath.Clean(path)] = true
		return nil
	})
}

// around adds the folders whose entries decide what a path leads to: that of each link on the way, and that of its end.
// Of a path that ends early it adds the folder in which the next name may appear.
func around(path string, folders map[string]bool) {
	at, rest := "/", strings.Split(filepath.Clean(path), "/")
	for links := 0; len(rest) > 0 && links < maxLinks && len(folders) <= maxFolders; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil || len(rest) == 0 {
			folders[at] = true
		}
		if err != nil {
			return
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			folders[at] = true
			target, err := os.Readlink(next)
			if err != nil {
				return
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			links++
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		at = next
	}
}
