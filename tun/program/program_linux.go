// Package program gives the kernel programs of BPF, finds what an earlier run has left of them, and puts them at interfaces.
// Each object belongs to a package above, which says what its programs do.
package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// Wanted says what Load loads.
type Wanted struct {
	// Object is a compiled file of programs and maps, as clang writes it.
	Object []byte
	// Earlier are maps of an earlier run, by name. Their content goes on if all of them fit; else none is used. With
	// Whole, they also fit only if no map of Object is missing.
	Earlier map[string]*ebpf.Map
	Whole   bool
	// Kernel says what a kernel needs that lacks something, and Rights which rights are needed; for messages.
	Kernel, Rights string
}

// Load loads programs and maps into the fields of a struct, by their `ebpf` tags. The error is ebpf.ErrNotSupported, which
// is errors.ErrUnsupported, where the kernel lacks something, and fs.ErrPermission without the rights.
func Load(w *Wanted, into any) error {
	limit := rlimit.RemoveMemlock() // kernels before 5.11 count programs there, and the usual limit may be enough
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(w.Object))
	if err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	fits := !w.Whole || len(w.Earlier) == len(spec.Maps)
	for name, m := range w.Earlier {
		fits = fits && spec.Maps[name] != nil && spec.Maps[name].Compatible(m) == nil
	}
	options := ebpf.CollectionOptions{}
	if fits {
		options.MapReplacements = w.Earlier
	}
	err = spec.LoadAndAssign(into, &options)
	if err == nil {
		return nil
	}
	if errors.Is(err, ebpf.ErrNotSupported) && w.Kernel != "" {
		err = fmt.Errorf("%w: %s", err, w.Kernel)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: needs %s", err, w.Rights)
	}
	return errors.Join(fmt.Errorf("load programs: %w", err), limit)
}

// Close closes the descriptors in the fields of a struct that Load has filled. What the kernel uses elsewhere stays.
func Close(loaded any) error {
	var errs []error
	for _, field := range reflect.ValueOf(loaded).Elem().Fields() {
		if c, ok := field.Interface().(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Maps adds to found the maps of a loaded program whose names begin with a prefix. Those that are there already stay.
func Maps(id ebpf.ProgramID, prefix string, found map[string]*ebpf.Map) error {
	loaded, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err
	}
	defer loaded.Close()
	info, err := loaded.Info()
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return err
		}
		about, err := m.Info()
		if err != nil || !strings.HasPrefix(about.Name, prefix) || found[about.Name] != nil {
			m.Close()
			continue
		}
		found[about.Name] = m
	}
	return nil
}
