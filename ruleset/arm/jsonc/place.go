package jsonc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Place is a line and a column of a document, counted from 1. The zero value is a place that is not known.
type Place struct{ Line, Column int }

// String is the place in words.
func (p Place) String() string { return fmt.Sprintf("line %d, column %d", p.Line, p.Column) }

// Error is what is wrong at a place of a document.
type Error struct {
	Place
	Message string
}

// Error begins with the place.
func (e *Error) Error() string { return e.Place.String() + ": " + e.Message }

func errorAt(data []byte, offset int, format string, args ...any) error {
	return &Error{placeIn(data, offset), fmt.Sprintf(format, args...)}
}

// placeIn is the place of an offset.
func placeIn(data []byte, offset int) Place {
	before := data[:min(offset, len(data))]
	return Place{1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')}
}

// PlaceOf is the place of a field's value in an object of Value, or of the object itself if it has no such field, or if
// field is empty. The field may have any case. Objects that are not part of Value have no known place.
func (d *Document) PlaceOf(object map[string]any, field string) Place {
	x := d.indexed()
	defer x.Unlock()
	at, ok := x.objects[Identity(object)]
	if !ok || object == nil {
		return Place{}
	}
	key := fieldOf{at, field}
	if found, known := x.fields[key]; known {
		return d.place(found)
	}
	if inside, found := d.text.valueOf(at, field); found {
		at = inside
	}
	x.fields[key] = at
	return d.place(at)
}

// index has the places of a document that were asked for.
type index struct {
	sync.Mutex
	objects  map[uintptr]int // the offsets of Value's objects in text.standard, by identity; nil: not asked for yet
	fields   map[fieldOf]int // the offsets of their fields
	newlines []int           // the offsets of newlines in text.source
}

// fieldOf is a field of the object at an offset.
type fieldOf struct {
	object int
	name   string
}

// Identity tells objects apart, as long as they are in use.
func Identity(object map[string]any) uintptr { return reflect.ValueOf(object).Pointer() }

// indexed is the index, locked. It is made when it is first asked for.
func (d *Document) indexed() *index {
	x := &d.index
	x.Lock()
	if x.objects != nil {
		return x
	}
	x.objects, x.fields = map[uintptr]int{}, map[fieldOf]int{}
	w := walker{text: d.text.standard, objects: x.objects}
	w.value(d.Value)
	for i, c := range d.text.source {
		if c == '\n' {
			x.newlines = append(x.newlines, i)
		}
	}
	return x
}

// place is that of an offset in standard. The index is locked.
func (d *Document) place(offset int) Place {
	offset = d.text.offset(offset)
	newlines := d.index.newlines
	line, _ := slices.BinarySearch(newlines, offset)
	column := offset + 1
	if line > 0 {
		column = offset - newlines[line-1]
	}
	return Place{line + 1, column}
}

// walker goes through a document's value and its text together.
type walker struct {
	text    []byte
	at      int
	objects map[uintptr]int // by identity; needed where there is a value
}

// next goes to the next byte that is no blank and no separator, and returns it.
func (w *walker) next() byte {
	for w.at < len(w.text) && strings.IndexByte(" \t\r\n:,", w.text[w.at]) >= 0 {
		w.at++
	}
	if w.at == len(w.text) {
		return 0
	}
	return w.text[w.at]
}

// value goes past the value at hand.
func (w *walker) value(v any) {
	switch w.next() {
	case '{':
		object, _ := v.(map[string]any)
		if object != nil {
			w.objects[Identity(object)] = w.at
		}
		for w.at++; w.next() == '"'; {
			key := w.string()
			w.value(object[key])
		}
		w.at++
	case '[':
		list, _ := v.([]any)
		w.at++
		for i := 0; w.next() != ']' && w.at < len(w.text); i++ {
			var element any
			if i < len(list) {
				element = list[i]
			}
			w.value(element)
		}
		w.at++
	case '"':
		w.at = endOfText(w.text, w.at+1) + 1
	default:
		for w.at < len(w.text) && strings.IndexByte(" \t\r\n,]}", w.text[w.at]) < 0 {
			w.at++
		}
	}
}

// string goes past a text and returns it.
func (w *walker) string() string {
	end := endOfText(w.text, w.at+1)
	raw := w.text[w.at+1 : min(end, len(w.text))]
	if bytes.IndexByte(raw, '\\') >= 0 {
		var text string
		if json.Unmarshal(w.text[w.at:min(end+1, len(w.text))], &text) == nil {
			w.at = end + 1
			return text
		}
	}
	w.at = end + 1
	return string(raw)
}

// valueOf is the offset of the value of a field of the object that begins at an offset.
func (t *text) valueOf(object int, field string) (offset int, found bool) {
	if field == "" {
		return 0, false
	}
	w := walker{text: t.standard, at: object + 1}
	for w.next() == '"' {
		key := w.string()
		w.next()
		if SameName(key, field) {
			return w.at, true
		}
		w.value(nil)
	}
	return 0, false
}

// element is the offset of the value at a key of the object, or at an index of the list, that begins at an offset.
func (t *text) element(at int, name string) (offset int, found bool) {
	if at >= len(t.standard) || t.standard[at] != '[' {
		if at < len(t.standard) && t.standard[at] == '{' {
			return t.valueOf(at, name)
		}
		return 0, false
	}
	w := walker{text: t.standard, at: at + 1}
	for i := 0; w.next() != ']' && w.at < len(w.text); i++ {
		if strconv.Itoa(i) == name {
			return w.at, true
		}
		w.value(nil)
	}
	return 0, false
}

// inside is the value at a key of an object, in any case, or at an index of a list; nil when there is none.
func inside(value any, name string) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			if SameName(key, name) {
				return v[key]
			}
		}
	case []any:
		if i, err := strconv.Atoi(name); err == nil && 0 <= i && i < len(v) {
			return v[i]
		}
	}
	return nil
}
