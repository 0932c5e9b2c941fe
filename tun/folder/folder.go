//go:build unix

// Package folder opens folders and files that a daemon of root trusts. What another user could have put there, such as
// a link to a file of root, is an error and stays as it is.
package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links of a path, as the kernel does.
const maxLinks = 40

// writableByOthers are the permissions that only the owner of a trusted folder or file may have.
const writableByOthers = 0o022

// ErrUntrusted says that something is there which another user may have made or may replace.
var ErrUntrusted = errors.New("not trusted")

// Open opens a folder, which it makes if there is none. The folder, those above it and the links on the way belong to
// the process's user or to root. Nobody else may write to these folders, unless the sticky bit keeps others from
// replacing what is in them. Otherwise the error is ErrUntrusted. The caller closes the result.
func Open(path string) (*os.Root, error) {
	real, err := follow(path, makeFolder)
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(real) // nobody else can replace what was followed
}

// Check finds out whether Open would take a folder. It makes nothing: folders that are missing count as made.
func Check(path string) error {
	_, err := follow(path, func(string) error { return errMissing })
	if errors.Is(err, errMissing) {
		return nil
	}
	return err
}

var errMissing = errors.New("missing")

// makeFolder makes one that is missing.
func makeFolder(path string) error { return os.Mkdir(path, 0o750) }

// follow resolves the links of a path, makes the folders that are missing, and checks what lies on the way.
func follow(path string, missing func(string) error) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
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
		if errors.Is(err, fs.ErrNotExist) {
			if err = missing(next); err == nil {
				info, err = os.Lstat(next)
			}
		}
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			if err := trusted(info); err != nil {
				return "", fmt.Errorf("folder %s: %s: %w", path, next, err)
			}
			at = next
			continue
		}
		if err := owned(info); err != nil {
			return "", fmt.Errorf("folder %s: the link %s: %w", path, next, err)
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("folder %s: more than %d links", path, maxLinks)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// owned finds out whether something belongs to the process's user or to root.
func owned(info fs.FileInfo) error {
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && owner != uint32(os.Geteuid()) {
		return fmt.Errorf("%w: it belongs to user %d: allowed are root and user %d, who runs this", ErrUntrusted, owner, os.Geteuid())
	}
	return nil
}

// trusted also finds out whether nobody else may write, or only beside what is there (the sticky bit). A group of root
// or of the process may.
func trusted(info fs.FileInfo) error {
	if err := owned(info); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	others := info.Mode().Perm() & writableByOthers
	if group := info.Sys().(*syscall.Stat_t).Gid; group == 0 || group == uint32(os.Getegid()) {
		others &= 0o002
	}
	if others != 0 {
		return fmt.Errorf("%w: it has mode %v, so that other users can write to it: allowed is chmod go-w", ErrUntrusted, info.Mode())
	}
	return nil
}

// OpenFile opens a regular file of a folder that Open opened. It follows no link, and the file has one name only. It
// belongs to the process's user or to root, and nobody else may write to it. Otherwise the error is ErrUntrusted.
func OpenFile(root *os.Root, name string, flag int, perm fs.FileMode) (*os.File, error) {
	path := filepath.Join(root.Name(), name)
	before, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		flag |= os.O_EXCL // so that what appears meanwhile is an error
	case err != nil:
		return nil, err
	default:
		if err := regular(before); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		flag &^= os.O_CREATE
	}
	f, err := root.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = regular(info)
	}
	if err == nil && before != nil && !os.SameFile(before, info) {
		err = errors.New("it was replaced while it was opened")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

func regular(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no regular file (%v): remove it", ErrUntrusted, info.Mode().Type())
	}
	if links := info.Sys().(*syscall.Stat_t).Nlink; links > 1 {
		return fmt.Errorf("%w: it has %d names: remove it", ErrUntrusted, links)
	}
	if info.Mode()&fs.ModeSticky != 0 { // means nothing at a file
		return fmt.Errorf("%w: it has mode %v: remove it", ErrUntrusted, info.Mode())
	}
	return trusted(info)
}

// Replace writes a file: a crash leaves the old one or the new one.
func Replace(root *os.Root, name string, text []byte, perm fs.FileMode) error {
	made := name + ".new"
	if err := root.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(made, name)
}
