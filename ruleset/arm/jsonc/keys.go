package jsonc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// few is how many keys of an object are compared one by one.
const few = 24

// SameName reports whether two names are the same in any case. Azure folds the letters of ASCII alone, and the other
// ones that Unicode folds to them are longer.
func SameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// key is one of an open object.
type key struct {
	text []byte // without escapes
	at   int    // offset of its quote
}

// object is one that is open, or a list.
type object struct {
	list  bool
	first int            // of its keys
	known map[string]int // by folded text, of an object with more than few keys
}

// checkKeys fails at the first key that an object has twice, with both places. With anyCase, keys that differ in case
// alone are the same. The text is valid JSON.
func (t *text) checkKeys(anyCase bool) error {
	data := t.standard
	c := checker{text: t, data: data, anyCase: anyCase}
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			c.open = append(c.open, object{list: data[i] == '[', first: len(c.keys)})
			c.expectsKey = data[i] == '{'
		case '}', ']':
			if n := len(c.open) - 1; n >= 0 {
				c.keys = c.keys[:c.open[n].first]
				c.open = c.open[:n]
			}
			c.expectsKey = false
		case ',':
			c.expectsKey = len(c.open) > 0 && !c.open[len(c.open)-1].list
		case '"':
			end := endOfText(data, i+1)
			if c.expectsKey {
				c.expectsKey = false
				if err := c.take(i, end); err != nil {
					return err
				}
			}
			i = end
		}
	}
	return nil
}

// endOfText is the offset of the quote that ends a text.
func endOfText(data []byte, i int) int {
	for i < len(data) {
		n := bytes.IndexByte(data[i:], '"')
		if n < 0 {
			return len(data)
		}
		i += n
		escapes := 0
		for j := i - 1; j >= 0 && data[j] == '\\'; j-- {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
		i++
	}
	return i
}

type checker struct {
	text       *text
	data       []byte
	anyCase    bool
	open       []object
	keys       []key // of all open objects
	expectsKey bool
}

// take compares a key with those that its object has already.
func (c *checker) take(from, end int) error {
	k := key{text: c.data[from+1 : end], at: from}
	if bytes.IndexByte(k.text, '\\') >= 0 {
		var text string
		if err := json.Unmarshal(c.data[from:min(end+1, len(c.data))], &text); err == nil {
			k.text = []byte(text)
		}
	}
	o := &c.open[len(c.open)-1]
	others := c.keys[o.first:]
	c.keys = append(c.keys, k)
	if len(others) < few {
		for i := range others {
			if c.same(&others[i], &k) {
				return c.twice(&others[i], &k)
			}
		}
		return nil
	}
	if o.known == nil {
		o.known = make(map[string]int, 2*few)
		for i := range others {
			o.known[c.folded(&others[i])] = i
		}
	}
	text := c.folded(&k)
	if i, known := o.known[text]; known {
		return c.twice(&others[i], &k)
	}
	o.known[text] = len(others)
	return nil
}

func (c *checker) same(a, b *key) bool {
	if !c.anyCase {
		return bytes.Equal(a.text, b.text)
	}
	return len(a.text) == len(b.text) && bytes.EqualFold(a.text, b.text)
}

// folded is the same text for keys that are the same.
func (c *checker) folded(k *key) string {
	if !c.anyCase {
		return string(k.text)
	}
	return strconv.Itoa(len(k.text)) + strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' && r != 'k' && r != 's' { // these two have a third form
			return r - 'a' + 'A'
		}
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, string(k.text))
}

func (c *checker) twice(first, second *key) error {
	again := ""
	if !bytes.Equal(first.text, second.text) {
		again = fmt.Sprintf(" as %q; case does not count", clip(first.text))
	}
	return &Error{c.text.position(second.at), fmt.Sprintf("the object has the key %q twice: %s%s", clip(second.text), c.text.position(first.at), again)}
}

func clip(text []byte) string {
	const most = 120
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "..."
	}
	return string(text)
}
