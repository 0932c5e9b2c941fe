package slab

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// An archive holds slabs, one after the other, and ends with an empty name and a checksum of all before it. A slab is
// its name, its size, and runs of what is not zero: an offset, a length, that many bytes. A run of length zero ends it.
const (
	archiveMagic = "nsgdarc1"
	maxSlabs     = 4096
	maxSlabName  = 255
	// maxSlabSize bounds all slabs of an archive together.
	maxSlabSize = 1 << 40
	runBytes    = 1 << 20
)

// Write writes all slabs. Nobody may change them meanwhile.
func (s *Slabs) Write(to io.Writer) error {
	sum := sha256.New()
	w := io.MultiWriter(to, sum)
	if _, err := io.WriteString(w, archiveMagic); err != nil {
		return err
	}
	for _, name := range s.Names() {
		if err := s.writeOne(w, name); err != nil {
			return fmt.Errorf("slab %s: %w", name, err)
		}
	}
	if err := writeName(w, ""); err != nil {
		return err
	}
	_, err := to.Write(sum.Sum(nil))
	return err
}

func (s *Slabs) writeOne(w io.Writer, name string) error {
	memory, err := s.Find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	file := s.slabs[name].file
	s.mu.Unlock()
	if err := writeName(w, name); err != nil {
		return err
	}
	if err := writeNumber(w, uint64(len(memory))); err != nil {
		return err
	}
	for at := int64(0); at < int64(len(memory)); {
		first, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO { // nothing but zeros follows
			break
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(file.Fd()), first, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for ; first < end; first += runBytes {
			run := memory[first:min(end, first+runBytes)]
			if err := errors.Join(writeNumber(w, uint64(first)), writeNumber(w, uint64(len(run)))); err != nil {
				return err
			}
			if _, err := w.Write(run); err != nil {
				return err
			}
		}
		at = end
	}
	return errors.Join(writeNumber(w, 0), writeNumber(w, 0))
}

func writeName(w io.Writer, name string) error {
	if err := writeNumber(w, uint64(len(name))); err != nil {
		return err
	}
	_, err := io.WriteString(w, name)
	return err
}

func writeNumber(w io.Writer, n uint64) error {
	return binary.Write(w, binary.LittleEndian, n)
}

// ErrArchive is what Read says of a file that is no archive, or not a whole one.
var ErrArchive = errors.New("not a whole archive of slabs")

// Read makes the slabs of an archive. After an error there are none of them.
func (s *Slabs) Read(from io.Reader) error {
	r := &archiveReader{from: from, sum: sha256.New()}
	var made []string
	total := uint64(0)
	err := func() error {
		magic := make([]byte, len(archiveMagic))
		if r.full(magic); r.err != nil || string(magic) != archiveMagic {
			return errors.Join(r.err, ErrArchive)
		}
		for {
			name := r.name()
			if r.err != nil || name == "" {
				break
			}
			if len(made) == maxSlabs || slices.Contains(made, name) {
				return ErrArchive
			}
			size := r.number()
			if r.err != nil || size == 0 || size > maxSlabSize-total {
				return errors.Join(r.err, ErrArchive)
			}
			total += size
			memory, err := s.Make(name, int(size))
			if err != nil {
				return err
			}
			made = append(made, name)
			for {
				at, n := r.number(), r.number()
				if r.err != nil || n == 0 {
					break
				}
				if n > runBytes || at > size-n {
					return ErrArchive
				}
				r.full(memory[at : at+n])
			}
			if r.err != nil {
				return errors.Join(r.err, ErrArchive)
			}
		}
		want, got := r.sum.Sum(nil), make([]byte, sha256.Size)
		if r.full(got); r.err != nil || !slices.Equal(got, want) {
			return errors.Join(r.err, ErrArchive)
		}
		return nil
	}()
	if err != nil {
		for _, name := range made {
			err = errors.Join(err, s.Drop(name))
		}
	}
	return err
}

// archiveReader reads until the first error.
type archiveReader struct {
	from io.Reader
	sum  hash.Hash
	err  error
}

func (r *archiveReader) full(b []byte) {
	if r.err == nil {
		_, r.err = io.ReadFull(r.from, b)
		r.sum.Write(b)
	}
}

func (r *archiveReader) number() uint64 {
	var b [8]byte
	r.full(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (r *archiveReader) name() string {
	n := r.number()
	if r.err == nil && n > maxSlabName {
		r.err = ErrArchive
	}
	if r.err != nil {
		return ""
	}
	b := make([]byte, n)
	r.full(b)
	return string(b)
}
