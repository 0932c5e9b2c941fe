package conntrack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Images keeps a table's memory beyond the process. It keeps one image at a time.
type Images interface {
	// Last is the image that the last process has left, nil without one.
	Last() ([]byte, error)
	// Make makes an image of zeros of that size, which becomes the last one with Commit.
	Make(size int) ([]byte, error)
	Commit() error
}

// image is a table's memory: what a process leaves to the next one. Index, locks, free lists and limits are not in it:
// they follow from the records.
type image struct {
	*imageHead
	records      []record
	translations []translation
	sides        []sides
	counts       []workerCounts // of workers
	notes        []byte
}

// imageHead is the beginning of an image.
type imageHead struct {
	magic  [8]byte
	number uint64        // of records
	used   atomic.Uint32 // records ever used; all from this number on are free
	// counters is how many of the counts have been used.
	counters atomic.Uint32

	endedPackets, endedBytes atomic.Uint64

	size   uint64 // of shape
	shapes [imageHeadSize - 64]byte
}

const (
	imageMagic    = "nsgdflw1"
	imageHeadSize = 16 << 10
	imageAlign    = 4096
)

// shape says how an image is laid out, so that another version can read it.
type shape struct {
	// Meaning changes when a field of the same name and size means something else.
	Meaning      int
	Record       layout
	Translation  layout
	Sides        layout
	Counts       layout
	NotesPerFlow int
}

// meaning is the Meaning of this version.
const meaning = 1

// layout is a struct's.
type layout struct {
	Size   int
	Fields []field
}

// field is a number in a struct, or in a struct or an array within it.
type field struct {
	Name         string
	Offset, Size int
}

// layoutOf is the layout of a struct of numbers.
func layoutOf(t reflect.Type) layout {
	l := layout{Size: int(t.Size())}
	l.add("", 0, t)
	return l
}

func (l *layout) add(name string, offset int, t reflect.Type) {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.Name != "_" && f.Type.Size() > 0 {
				l.add(name+"."+f.Name, offset+int(f.Offset), f.Type)
			}
		}
	case reflect.Array:
		for i := range t.Len() {
			l.add(fmt.Sprintf("%s[%d]", name, i), offset+i*int(t.Elem().Size()), t.Elem())
		}
	default:
		l.Fields = append(l.Fields, field{name, offset, int(t.Size())})
	}
}

func shapeNow(notes int) shape {
	return shape{
		Meaning: meaning, NotesPerFlow: notes,
		Record: layoutOf(reflect.TypeFor[record]()), Translation: layoutOf(reflect.TypeFor[translation]()),
		Sides: layoutOf(reflect.TypeFor[sides]()), Counts: layoutOf(reflect.TypeFor[workerCounts]()),
	}
}

// text is how an image says its shape.
func (s *shape) text() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it is numbers and names
	}
	return text
}

// parts are where an image's slices begin, and where it ends.
type parts struct{ counts, records, translations, sides, notes, end int }

func (s *shape) parts(number int) parts {
	var p parts
	at := imageHeadSize
	next := func(size int) int {
		first := at
		at += (size + imageAlign - 1) &^ (imageAlign - 1)
		return first
	}
	p.counts = next((maxWorkers + 2) * s.Counts.Size)
	p.records, p.translations = next(number*s.Record.Size), next(number*s.Translation.Size)
	p.sides, p.notes = next(number*s.Sides.Size), next(number*s.NotesPerFlow)
	p.end = at
	return p
}

// newImage makes an image in Go memory.
func newImage(number, workers, notes int) image {
	return image{
		imageHead: &imageHead{}, records: make([]record, number), translations: make([]translation, number), sides: make([]sides, number),
		counts: make([]workerCounts, workers+2), notes: make([]byte, number*notes),
	}
}

// makeImage makes an image of memory that holds zeros.
func makeImage(memory []byte, s *shape, number int) (image, error) {
	text := s.text()
	head := (*imageHead)(unsafe.Pointer(&memory[0]))
	if len(text) > len(head.shapes) {
		return image{}, fmt.Errorf("conntrack: the shape of an image takes %d bytes of %d", len(text), len(head.shapes))
	}
	copy(head.magic[:], imageMagic)
	head.number, head.size = uint64(number), uint64(copy(head.shapes[:], text))
	return cutImage(memory, s, number), nil
}

// cutImage finds the parts of an image of this version's layouts.
func cutImage(memory []byte, s *shape, number int) image {
	p := s.parts(number)
	return image{
		imageHead:    (*imageHead)(unsafe.Pointer(&memory[0])),
		counts:       cut[workerCounts](memory[p.counts:], maxWorkers+2),
		records:      cut[record](memory[p.records:], number),
		translations: cut[translation](memory[p.translations:], number),
		sides:        cut[sides](memory[p.sides:], number),
		notes:        memory[p.notes:][:number*s.NotesPerFlow],
	}
}

func cut[T any](memory []byte, n int) []T { return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), n) }

// readShape checks the head of an image that another process has left. notes are this one's bytes for each record.
func readShape(memory []byte, notes int) (head *imageHead, s shape, err error) {
	if len(memory) < imageHeadSize {
		return nil, s, fmt.Errorf("conntrack: an image of %d bytes has no head", len(memory))
	}
	head = (*imageHead)(unsafe.Pointer(&memory[0]))
	if string(head.magic[:]) != imageMagic {
		return nil, s, fmt.Errorf("conntrack: an image begins with %q: must be %q", head.magic[:], imageMagic)
	}
	if head.size > uint64(len(head.shapes)) {
		return nil, s, fmt.Errorf("conntrack: the shape of an image has %d bytes: at most %d", head.size, len(head.shapes))
	}
	if now := shapeNow(notes); bytes.Equal(now.text(), head.shapes[:head.size]) {
		s = now // as it mostly is, and packets wait
	} else if err := json.Unmarshal(head.shapes[:head.size], &s); err != nil {
		return nil, s, fmt.Errorf("conntrack: the shape of an image: %w", err)
	}
	for _, l := range []*layout{&s.Record, &s.Translation, &s.Sides, &s.Counts} {
		if err := l.check(); err != nil {
			return nil, s, err
		}
	}
	if head.number > maxRecords || s.NotesPerFlow < 0 || s.NotesPerFlow > maxStruct || s.parts(int(head.number)).end != len(memory) || uint64(head.used.Load()) > head.number || head.counters.Load() > maxWorkers+2 {
		return nil, s, fmt.Errorf("conntrack: an image of %d bytes for %d records, of which %d are used: it is damaged", len(memory), head.number, head.used.Load())
	}
	return head, s, nil
}

// maxStruct bounds the structs of another version.
const maxStruct = 1 << 12

func (l *layout) check() error {
	if l.Size <= 0 || l.Size > maxStruct {
		return fmt.Errorf("conntrack: a struct of an image has %d bytes: must be 1 to %d", l.Size, maxStruct)
	}
	for _, f := range l.Fields {
		if f.Size <= 0 || f.Offset < 0 || f.Offset > l.Size-f.Size {
			return fmt.Errorf("conntrack: field %s of an image, %d bytes at %d, is not within its %d bytes", f.Name, f.Size, f.Offset, l.Size)
		}
	}
	return nil
}

// converter copies a struct of another layout, field by field.
type converter struct {
	from, to int // sizes
	moves    []move
}

type move struct{ from, to, size int }

// convert says how a struct of a layout becomes one of another. missing are the fields that the former lacks.
func convert(from, to *layout) (c converter, missing []string) {
	c = converter{from: from.Size, to: to.Size}
	for _, f := range to.Fields {
		i := slices.IndexFunc(from.Fields, func(g field) bool { return g.Name == f.Name && g.Size == f.Size })
		if i < 0 {
			missing = append(missing, f.Name)
			continue
		}
		c.moves = append(c.moves, move{from.Fields[i].Offset, f.Offset, f.Size})
	}
	return c, missing
}

// copy copies struct number n to number m.
func (c *converter) copy(to []byte, m int, from []byte, n int) {
	to, from = to[m*c.to:], from[n*c.from:]
	for _, x := range c.moves {
		copy(to[x.to:x.to+x.size], from[x.from:x.from+x.size])
	}
}
