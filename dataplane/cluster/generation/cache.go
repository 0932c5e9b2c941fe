package generation

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/tun/folder"
	"golang.org/x/sys/unix"
)

// Cache is a folder with the generations that a host has seen lately. One process at a time writes to it, once it has
// taken Lock; any may read. Not safe for concurrent use.
type Cache struct {
	path string
	root *os.Root
	key  ed25519.PublicKey // nil: signatures are not asked for
	lock *os.File          // nil: not taken
}

// Unpacked is a generation whose files are in a folder.
type Unpacked struct {
	*Manifest
	Settings Settings
	// Folder holds the files, by absolute path.
	Folder string
}

// Located are the settings with their files where they are on this machine.
func (u *Unpacked) Located() *Settings {
	in := func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(u.Folder, filepath.FromSlash(name))
	}
	s := u.Settings
	s.Policy, s.Templates.Parameters = nil, nil
	for _, name := range u.Settings.Policy {
		s.Policy = append(s.Policy, in(name))
	}
	s.ServiceTags, s.Templates.Runtime = in(s.ServiceTags), in(s.Templates.Runtime)
	for _, p := range u.Settings.Templates.Parameters {
		p.File = in(p.File)
		s.Templates.Parameters = append(s.Templates.Parameters, p)
	}
	return &s
}

const (
	bundleFile, manifestFile, currentFile, lockFile, leaseFile = "bundle", "manifest", "current.json", "lock", "lease.json"
	filesFolder                                                = "files"
	// kept are how many generations besides those in use stay.
	kept = 3
	// lockPatience is how long another process may take to leave the cache.
	lockPatience = 10 * time.Second
)

// OpenCache opens a folder, which it makes if there is none. Only what the owner of key has signed is taken; nil: all is.
func OpenCache(dir string, key ed25519.PublicKey) (*Cache, error) {
	root, err := folder.Open(dir)
	if err != nil {
		return nil, err
	}
	real, err := filepath.Abs(dir)
	return &Cache{path: real, root: root, key: key}, err
}

// Close gives the folder back.
func (c *Cache) Close() error {
	err := c.root.Close()
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
	}
	return err
}

// Lock makes this process the one that writes. It waits a little for one that is about to end.
func (c *Cache) Lock() error {
	f, err := c.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			c.lock = f
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return errors.Join(fmt.Errorf("%s: another nsgd holds it: a host has one: %w", filepath.Join(c.path, lockFile), err), f.Close())
		}
	}
}

// folderOf is a generation's folder in the cache. Two with one number don't share it.
func folderOf(m *Manifest) string { return fmt.Sprintf("%d-%.16s", m.Number, m.Bundle) }

// Put keeps a generation and unpacks it.
func (c *Cache) Put(sealed, compressed []byte) (*Unpacked, error) {
	m, err := Unseal(sealed, c.key)
	if err != nil {
		return nil, err
	}
	b, err := m.Unpack(compressed)
	if err != nil {
		return nil, err
	}
	dir := folderOf(m)
	if err := c.root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.write(path.Join(dir, bundleFile), compressed); err != nil {
		return nil, err
	}
	if err := c.write(path.Join(dir, manifestFile), sealed); err != nil {
		return nil, err
	}
	return c.unpack(m, b)
}

// Get reads a generation that Put has kept, checked by its hashes and its signature.
func (c *Cache) Get(number uint64, bundle Hash) (*Unpacked, error) {
	m := &Manifest{Number: number, Bundle: bundle}
	dir := folderOf(m)
	sealed, err := c.read(path.Join(dir, manifestFile), MaxSealed)
	if err != nil {
		return nil, err
	}
	if m, err = Unseal(sealed, c.key); err != nil {
		return nil, err
	}
	if m.Number != number || m.Bundle != bundle {
		return nil, fmt.Errorf("%s: it is of another generation", path.Join(dir, manifestFile))
	}
	compressed, err := c.read(path.Join(dir, bundleFile), MaxCompressed)
	if err != nil {
		return nil, err
	}
	b, err := m.Unpack(compressed)
	if err != nil {
		return nil, err
	}
	return c.unpack(m, b)
}

// unpack writes the bundle's files, unless they are there already, and nothing else.
func (c *Cache) unpack(m *Manifest, b *Bundle) (*Unpacked, error) {
	dir := path.Join(folderOf(m), filesFolder)
	u := &Unpacked{Manifest: m, Settings: b.Settings, Folder: filepath.Join(c.path, dir)}
	if c.has(dir, b) {
		return u, nil
	}
	next := dir + ".new"
	if err := errors.Join(c.root.RemoveAll(next), c.root.RemoveAll(dir)); err != nil {
		return nil, err
	}
	for name, data := range b.Files {
		file := path.Join(next, name)
		if err := c.root.MkdirAll(path.Dir(file), 0o700); err != nil {
			return nil, err
		}
		if err := c.root.WriteFile(file, data, 0o600); err != nil {
			return nil, err
		}
	}
	return u, c.root.Rename(next, dir)
}

// has reports that a folder holds the bundle's files and nothing else.
func (c *Cache) has(dir string, b *Bundle) bool {
	found := 0
	err := fs.WalkDir(c.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, ours := b.Files[strings.TrimPrefix(name, dir+"/")]
		if !ours || !d.Type().IsRegular() {
			return fs.ErrExist
		}
		data, err := c.read(name, int64(len(want)))
		if err != nil || !bytes.Equal(data, want) {
			return errors.Join(fs.ErrInvalid, err)
		}
		found++
		return nil
	})
	return err == nil && found == len(b.Files)
}

// read reads a regular file of at most so many bytes.
func (c *Cache) read(name string, most int64) ([]byte, error) {
	f, err := c.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > most) {
		err = fmt.Errorf("%s: a regular file of at most %d bytes is needed", name, most)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: longer than %d bytes", name, most)
	}
	return data, err
}

// write replaces a file at once, and has it on disk.
func (c *Cache) write(name string, data []byte) error {
	next := name + ".new"
	f, err := c.root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.root.Rename(next, name)
}

// current is the content of currentFile.
type current struct {
	Number uint64 `json:"number"`
	Bundle Hash   `json:"bundle"`
}

// maxCurrent bounds the small files of the cache, in bytes.
const maxCurrent = 4 << 20

// SetCurrent notes the generation to start with.
func (c *Cache) SetCurrent(u *Unpacked) error {
	text, err := json.Marshal(&current{u.Number, u.Bundle})
	if err != nil {
		return err
	}
	return c.write(currentFile, text)
}

// Current is the generation to start with; nil: there is none yet.
func (c *Cache) Current() (*Unpacked, error) {
	text, err := c.read(currentFile, maxCurrent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var now current
	if err == nil {
		err = json.Unmarshal(text, &now)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(c.path, currentFile), err)
	}
	u, err := c.Get(now.Number, now.Bundle)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	return u, nil
}

// Tidy removes generations that are old and not in use.
func (c *Cache) Tidy(inUse ...*Unpacked) error {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	var newest uint64
	numbers, use := map[string]uint64{}, map[string]bool{}
	for _, u := range inUse {
		if u != nil {
			use[folderOf(u.Manifest)] = true
			newest = max(newest, u.Number)
		}
	}
	for _, e := range entries {
		text, _, ok := strings.Cut(e.Name(), "-")
		if n, err := strconv.ParseUint(text, 10, 64); ok && err == nil && e.IsDir() {
			numbers[e.Name()] = n
		}
	}
	var errs []error
	for name, n := range numbers {
		if !use[name] && n+kept <= newest {
			errs = append(errs, c.root.RemoveAll(name))
		}
	}
	return errors.Join(errs...)
}

// SaveLease notes what a process that follows needs of this one's lease. It survives the process, not the machine.
func (c *Cache) SaveLease(text []byte) error {
	if err := c.root.WriteFile(leaseFile+".new", text, 0o600); err != nil {
		return err
	}
	return c.root.Rename(leaseFile+".new", leaseFile)
}

const placementFile = "placement.json"

// SavePlacement notes where everything is, for a start without etcd.
func (c *Cache) SavePlacement(text []byte) error { return c.write(placementFile, text) }

// Placement is what SavePlacement has noted; nil: nothing.
func (c *Cache) Placement() ([]byte, error) {
	text, err := c.read(placementFile, maxPlacement)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// maxPlacement bounds a placement, in bytes.
const maxPlacement = 64 << 20

// Lease is what SaveLease has noted; nil: nothing.
func (c *Cache) Lease() ([]byte, error) {
	text, err := c.read(leaseFile, maxCurrent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
