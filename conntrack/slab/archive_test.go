package slab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
)

func TestAnArchiveHoldsAllSlabs(t *testing.T) {
	s := New(nil, nil)
	large, err := s.Make("large", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	copy(large[10<<20:], "in the middle")
	large[len(large)-1] = 7
	small, err := s.Make("small", 100)
	if err != nil {
		t.Fatal(err)
	}
	copy(small, "all of it")
	var archive bytes.Buffer
	if err := s.Write(&archive); err != nil {
		t.Fatal(err)
	}
	if archive.Len() > 1<<20 {
		t.Errorf("the archive has %d bytes: it holds zeros", archive.Len())
	}
	next := New(nil, nil)
	if err := next.Read(bytes.NewReader(archive.Bytes())); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"large": large, "small": small} {
		if got, err := next.Find(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes: %v", name, len(got), err)
		}
	}
	for n := 0; n < archive.Len(); n += 997 {
		torn := New(nil, nil)
		if err := torn.Read(bytes.NewReader(archive.Bytes()[:n])); !errors.Is(err, ErrArchive) || len(torn.Names()) > 0 {
			t.Fatalf("%d bytes: %v, slabs %v", n, err, torn.Names())
		}
		broken := bytes.Clone(archive.Bytes())
		broken[n] ^= 4
		if err := torn.Read(bytes.NewReader(broken)); err == nil || len(torn.Names()) > 0 {
			t.Fatalf("byte %d is another one, and nobody noticed", n)
		}
	}
}

// Each slab takes address space, however little of it the file holds.
func TestAnArchiveThatAsksForTooMuchIsRefused(t *testing.T) {
	var archive bytes.Buffer
	archive.WriteString(archiveMagic)
	for _, name := range []string{"a", "b"} {
		if err := errors.Join(writeName(&archive, name), writeNumber(&archive, maxSlabSize), writeNumber(&archive, 0), writeNumber(&archive, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeName(&archive, ""); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive.Bytes())
	archive.Write(sum[:])
	s := New(nil, nil)
	if err := s.Read(&archive); !errors.Is(err, ErrArchive) || len(s.Names()) > 0 {
		t.Errorf("%v: slabs %v", err, s.Names())
	}
}
