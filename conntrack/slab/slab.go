// Package slab is memory that outlives the process: sealed memfds, mapped, which somebody keeps meanwhile and gives to
// the next process by their names.
//
// What is in a slab was written by another process, perhaps of another version, which may have been killed at any
// instruction. Whoever finds a slab checks what it reads.
package slab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Keeper keeps descriptors while no process runs.
type Keeper interface {
	// Keep gives a descriptor to the keeper, which duplicates it.
	Keep(name string, f *os.File) error
	// Forget closes the keeper's descriptors of that name.
	Forget(name string) error
}

// Slabs are the slabs of a process. Safe for concurrent use.
type Slabs struct {
	keeper Keeper

	mu    sync.Mutex
	slabs map[string]mapped
}

// mapped is a slab; memory is nil until somebody asks for it.
type mapped struct {
	file   *os.File
	memory []byte
}

// seals are set on every slab: its size never changes, so that no access to the mapping can fail.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// New takes over the slabs that an earlier process has left, by name. Whoever keeps them for the next is told of changes.
func New(found map[string]*os.File, keeper Keeper) *Slabs {
	s := &Slabs{keeper: keeper, slabs: map[string]mapped{}}
	for name, f := range found {
		s.slabs[name] = mapped{file: f}
	}
	return s
}

// Names are those of the slabs there are, sorted.
func (s *Slabs) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.slabs))
	for name := range s.slabs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Find maps a slab that an earlier process has left. It is nil where there is none.
func (s *Slabs) Find(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.slabs[name]
	if !ok || m.memory != nil {
		return m.memory, nil
	}
	got, err := unix.FcntlInt(m.file.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("slab %s: %w", name, os.NewSyscallError("F_GET_SEALS", err))
	}
	if got&seals != seals {
		return nil, fmt.Errorf("slab %s: its size is not sealed (seals %#x): it is not ours", name, got)
	}
	info, err := m.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("slab %s: %w", name, err)
	}
	if m.memory, err = mapFile(m.file, int(info.Size())); err != nil {
		return nil, fmt.Errorf("slab %s: %w", name, err)
	}
	s.slabs[name] = m
	return m.memory, nil
}

// Make makes a slab of zeros, in the place of one of that name. The kernel backs what is written.
func (s *Slabs) Make(name string, size int) ([]byte, error) {
	memory, err := s.make(name, size)
	if err != nil {
		return nil, fmt.Errorf("slab %s: %w", name, err)
	}
	return memory, nil
}

func (s *Slabs) make(name string, size int) ([]byte, error) {
	if err := s.Drop(name); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("nsgd:"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = f.Truncate(int64(size))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		err = os.NewSyscallError("F_ADD_SEALS", err)
	}
	var memory []byte
	if err == nil {
		memory, err = mapFile(f, size)
	}
	if err == nil && s.keeper != nil {
		err = s.keeper.Keep(name, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slabs[name] = mapped{f, memory}
	return memory, nil
}

func mapFile(f *os.File, size int) ([]byte, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	return memory, os.NewSyscallError("mmap", err)
}

// Release is Drop for a slab that nobody reads any more: its memory is gone.
func (s *Slabs) Release(name string) error {
	s.mu.Lock()
	memory := s.slabs[name].memory
	s.mu.Unlock()
	err := s.Drop(name)
	if memory != nil {
		err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(memory)))
	}
	return err
}

// Drop forgets a slab, if there is one. Its mapping stays, for who still reads it.
func (s *Slabs) Drop(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.slabs[name]
	if !ok {
		return nil
	}
	delete(s.slabs, name)
	err := m.file.Close()
	if s.keeper != nil {
		err = errors.Join(err, s.keeper.Forget(name))
	}
	return err
}

// Files are the descriptors by name, for a process that this one starts.
func (s *Slabs) Files() map[string]*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := make(map[string]*os.File, len(s.slabs))
	for name, m := range s.slabs {
		files[name] = m.file
	}
	return files
}
