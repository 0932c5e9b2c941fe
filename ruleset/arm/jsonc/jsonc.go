// Package jsonc reads JSON as Azure's tools read it: comments ("//" to the end of the line, "/* */"), strings over
// several lines, and a comma behind the last element of a list or an object. Files are UTF-8 or UTF-16; UTF-16 needs a
// byte order mark.
//
// A key that an object has twice is an error. encoding/json lets the last one win, and ARM does not tell cases apart:
// a reader of such a document could see another value than Azure does.
//
// Errors of documents are of type *Error. Columns count bytes of UTF-8.
package jsonc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Document is a document that was read. It is safe for concurrent use.
type Document struct {
	// Value is its value, with numbers as json.Number.
	Value any
	text  *text

	index index
}

// Parse reads a document of one value. Keys that differ in case alone are the same, unless exact returns true for the
// value; nil stands for a function that returns false.
func Parse(data []byte, exact func(value any) bool) (*Document, error) {
	source, err := decode(data)
	if err != nil {
		return nil, err
	}
	t, err := standardize(source)
	if err != nil {
		return nil, err
	}
	value, err := t.value()
	if err != nil {
		return nil, err
	}
	if err := t.checkKeys(exact == nil || !exact(value)); err != nil {
		return nil, err
	}
	return &Document{Value: value, text: t}, nil
}

// Position is the place of the value at a path of keys and indexes, or of its innermost part that exists. Keys may have
// any case.
func (d *Document) Position(path ...string) Place {
	x := d.indexed()
	defer x.Unlock()
	// From the innermost object of the path on, the text is searched.
	value, at := d.Value, d.text.begin(0)
	rest := path
	for i, name := range path {
		if value = inside(value, name); value == nil {
			break
		}
		if object, ok := value.(map[string]any); ok {
			at, rest = x.objects[Identity(object)], path[i+1:]
		}
	}
	for _, name := range rest {
		next, found := d.text.element(at, name)
		if !found {
			break
		}
		at = next
	}
	return d.place(at)
}

// decode is a file's text in UTF-8 without its byte order mark.
func decode(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe\x00\x00")), bytes.HasPrefix(data, []byte("\x00\x00\xfe\xff")):
		return nil, errorAt(data, 0, "UTF-32 is not read: save the file as UTF-8")
	case len(data) > 1 && (data[0] == 0) != (data[1] == 0):
		return nil, errorAt(data, 0, "the file seems to be UTF-16 without a byte order mark: save it as UTF-8")
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return decode16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return decode16(data[2:], binary.BigEndian)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, n := utf8.DecodeRune(data[i:])
		if n == 1 {
			return nil, errorAt(data, i, "the byte 0x%02x is not UTF-8: save the file as UTF-8", data[i])
		}
		i += n
	}
	return data, nil
}

func decode16(data []byte, order binary.ByteOrder) ([]byte, error) {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i += 2 {
		if i+1 == len(data) {
			return nil, errorAt(out, len(out), "the file is UTF-16 and ends within a character")
		}
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			second := rune(0)
			if i+3 < len(data) {
				second = rune(order.Uint16(data[i+2:]))
			}
			pair := utf16.DecodeRune(r, second)
			if pair == utf8.RuneError {
				return nil, errorAt(out, len(out), "0x%04x is half of a character of UTF-16", r)
			}
			r = pair
			i += 2
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

// text is a document and the same as standard JSON.
type text struct {
	source, standard []byte
	// added are the offsets of bytes in standard that source does not have, in ascending order.
	added []int
}

// standardize blanks comments and needless commas, and escapes the control characters of strings.
func standardize(source []byte) (*text, error) {
	t := &text{source: source, standard: make([]byte, 0, len(source))}
	// last is the last byte outside of strings that is no blank. comma is the offset of the comma that it is, if a
	// value stands before it; else -1.
	last, comma := byte(0), -1
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			t.standard = append(t.standard, c)
			continue
		case c == '"':
			i = t.quoted(i)
		case c == '/' && i+1 < len(source) && (source[i+1] == '/' || source[i+1] == '*'):
			end := endOfComment(source, i)
			if end < 0 {
				return nil, errorAt(source, i, "the comment has no end")
			}
			t.blank(source[i:end])
			i = end - 1
			continue
		case c == ',' && strings.IndexByte("\x00[{:,", last) < 0:
			comma = len(t.standard)
			t.standard = append(t.standard, c)
			last = c
			continue
		case (c == '}' || c == ']') && comma >= 0:
			t.standard[comma] = ' '
			t.standard = append(t.standard, c)
		default:
			t.standard = append(t.standard, c)
		}
		last, comma = c, -1
	}
	return t, nil
}

// quoted copies the string that begins at offset i, and returns the offset of its end.
func (t *text) quoted(i int) int {
	const hex = "0123456789abcdef"
	begin := i
	for i++; i < len(t.source); i++ {
		switch c := t.source[i]; {
		case c == '"':
			t.standard = append(t.standard, t.source[begin:i+1]...)
			return i
		case c == '\\':
			i++
		case c < ' ' && c != 0: // a NUL stays an error
			t.standard = append(t.standard, t.source[begin:i]...)
			t.standard = append(t.standard, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			for n := 5; n > 0; n-- {
				t.added = append(t.added, len(t.standard)-n)
			}
			begin = i + 1
		}
	}
	t.standard = append(t.standard, t.source[min(begin, len(t.source)):]...)
	return len(t.source)
}

// endOfComment is the offset behind the comment that begins at offset i; -1 when it has no end.
func endOfComment(source []byte, i int) int {
	if source[i+1] == '/' {
		if n := bytes.IndexByte(source[i:], '\n'); n >= 0 {
			return i + n
		}
		return len(source)
	}
	n := bytes.Index(source[i+2:], []byte("*/"))
	if n < 0 {
		return -1
	}
	return i + 2 + n + 2
}

// blank adds a comment as blanks.
func (t *text) blank(comment []byte) {
	for _, c := range comment {
		if c != '\n' {
			c = ' '
		}
		t.standard = append(t.standard, c)
	}
}

// value decodes the document. Malformed JSON is read a second time: only Unmarshal's error has the place, and only it
// finds text after the value.
func (t *text) value() (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(t.standard))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	if err == nil && len(bytes.TrimLeft(t.standard[decoder.InputOffset():], " \t\r\n")) == 0 {
		return value, nil
	}
	var whole json.RawMessage
	err = cmp.Or(json.Unmarshal(t.standard, &whole), err)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at := max(0, int(syntax.Offset)-1)
		return nil, &Error{t.position(at), err.Error() + t.unquoted(at)}
	}
	return nil, err
}

// unquoted is what to say where JavaScript's looser form stands, which no source shows Azure to take: names without
// quotes, and single ones.
func (t *text) unquoted(at int) string {
	before := bytes.TrimRight(t.standard[:min(at, len(t.standard))], " \t\r\n")
	behindComma := len(before) > 0 && strings.IndexByte("{,", before[len(before)-1]) >= 0
	if at == len(t.standard) || t.standard[at] != '\'' && (!behindComma || !unicode.IsLetter(rune(t.standard[at]))) {
		return ""
	}
	return ": names and strings stand in double quotes"
}

// begin is the offset of the next value in standard at or behind an offset.
func (t *text) begin(offset int) int {
	for offset < len(t.standard) && strings.IndexByte(" \t\r\n:,", t.standard[offset]) >= 0 {
		offset++
	}
	return offset
}

// position is the place of an offset in standard.
func (t *text) position(offset int) Place { return placeIn(t.source, t.offset(offset)) }

// offset is the offset in source of one in standard.
func (t *text) offset(offset int) int {
	before, _ := slices.BinarySearch(t.added, offset)
	return min(offset-before, len(t.source))
}
