package generation

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
)

// The bounds of a bundle.
const (
	// MaxFiles is how many files it has at most.
	MaxFiles = 4096
	// MaxExpanded is how long its archive is at most, in bytes.
	MaxExpanded = 64 << 20
	// MaxCompressed is how long the compressed archive is at most, in bytes.
	MaxCompressed = 16 << 20
)

// settingsName is the archive's first entry. No file of a bundle has its name: they are in folders.
const settingsName = "settings.json"

// Bundle is what a generation consists of.
type Bundle struct {
	Settings Settings
	// Files by name: a path below the bundle with slashes.
	Files map[string][]byte
}

// Hash is SHA-256; as text it is hexadecimal.
type Hash [sha256.Size]byte

// HashOf is the hash of data.
func HashOf(data []byte) Hash { return sha256.Sum256(data) }

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash %.80q: allowed are %d hexadecimal digits", text, hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// check holds the bundle against its bounds.
func (b *Bundle) check() error {
	if len(b.Files) == 0 || len(b.Files) > MaxFiles {
		return fmt.Errorf("bundle: %d files: allowed are 1 to %d", len(b.Files), MaxFiles)
	}
	for name := range b.Files {
		if err := checkName(name); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		for folder := path.Dir(name); folder != "." && folder != "/"; folder = path.Dir(folder) {
			if _, file := b.Files[folder]; file {
				return fmt.Errorf("bundle: %q is a file and the folder of %q", folder, name)
			}
		}
	}
	if _, taken := b.Files[settingsName]; taken {
		return fmt.Errorf("bundle: a file is named %q, which is the settings' name", settingsName)
	}
	return b.Settings.check(b.Files)
}

// archive is the bundle as bytes: equal bundles have equal archives.
func (b *Bundle) archive() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	settings, err := json.Marshal(&b.Settings)
	if err != nil {
		return nil, err
	}
	out := &bytes.Buffer{}
	w := tar.NewWriter(out)
	add := func(name string, data []byte) error {
		err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil && out.Len() > MaxExpanded {
			err = fmt.Errorf("bundle: more than %d MiB", MaxExpanded>>20)
		}
		return err
	}
	if err := add(settingsName, settings); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if err := add(name, b.Files[name]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// Packed is a bundle ready to be stored.
type Packed struct {
	// Tree is the hash of the archive, so that equal policies have equal ones.
	Tree Hash
	// Compressed is the archive, compressed.
	Compressed []byte
	// Expanded is the archive's length in bytes.
	Expanded int64
}

// Pack checks and compresses a bundle.
func (b *Bundle) Pack() (*Packed, error) {
	archive, err := b.archive()
	if err != nil {
		return nil, err
	}
	out := &bytes.Buffer{}
	w, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(archive); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > MaxCompressed {
		return nil, fmt.Errorf("bundle: %d bytes compressed: at most %d MiB", out.Len(), MaxCompressed>>20)
	}
	return &Packed{Tree: HashOf(archive), Compressed: out.Bytes(), Expanded: int64(len(archive))}, nil
}

// Unpack expands and checks what Pack has made, whoever hands it over.
func Unpack(compressed []byte) (*Bundle, Hash, error) {
	var none Hash
	if len(compressed) > MaxCompressed {
		return nil, none, fmt.Errorf("bundle: %d bytes compressed: at most %d MiB", len(compressed), MaxCompressed>>20)
	}
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, none, fmt.Errorf("bundle: %w", err)
	}
	archive, err := io.ReadAll(io.LimitReader(z, MaxExpanded+1))
	if err != nil {
		return nil, none, fmt.Errorf("bundle: %w", err)
	}
	if len(archive) > MaxExpanded {
		return nil, none, fmt.Errorf("bundle: it expands to more than %d MiB", MaxExpanded>>20)
	}
	b, err := readArchive(archive)
	if err != nil {
		return nil, none, fmt.Errorf("bundle: %w", err)
	}
	return b, HashOf(archive), b.check()
}

// readArchive reads the entries, each once.
func readArchive(archive []byte) (*Bundle, error) {
	b := &Bundle{Files: map[string][]byte{}}
	r := tar.NewReader(bytes.NewReader(archive))
	for first := true; ; first = false {
		h, err := r.Next()
		if errors.Is(err, io.EOF) && !first {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("entry %.80q is no regular file", h.Name)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		if first != (h.Name == settingsName) {
			return nil, fmt.Errorf("entry %.80q: %s is needed first, and once", h.Name, settingsName)
		}
		if first {
			d := json.NewDecoder(bytes.NewReader(data))
			d.DisallowUnknownFields() // a setting of a newer nsgd must not be lost in silence
			if err := d.Decode(&b.Settings); err != nil {
				return nil, fmt.Errorf("%s: %w", settingsName, err)
			}
			continue
		}
		if _, twice := b.Files[h.Name]; twice || len(b.Files) == MaxFiles {
			return nil, fmt.Errorf("entry %.80q: it is there twice, or one of more than %d", h.Name, MaxFiles)
		}
		b.Files[h.Name] = data
	}
}
