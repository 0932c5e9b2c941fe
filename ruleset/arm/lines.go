package arm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
)

// maxLocated is for how many faults of resources that are given again lines are looked for:
// each reads the documents again.
const maxLocated = 20

// lines says in which lines two givings of a resource stand; empty when that is not known.
func (l *loader) lines(a, b *resource) string {
	if l.located++; l.located > maxLocated {
		return ""
	}
	nth := 0
	if a.file == b.file {
		nth = 1
	}
	first, second := l.line(a, 0), l.line(b, nth)
	if first == 0 || second == 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d of %s, line %d of %s)", first, a.file, second, b.file)
}

// line is where the nth object with a resource's name, and no other type, begins; 0 when it
// is not known.
func (l *loader) line(r *resource, nth int) int {
	data, err := l.source.read(r.file)
	if err != nil {
		return 0
	}
	document, err := jsonc.Parse(data, nil)
	if err != nil {
		return 0
	}
	type level struct {
		offset    int64
		object    bool
		awaitsKey bool
		key       string
		fields    map[string]any
	}
	var open []level
	for decoder := json.NewDecoder(bytes.NewReader(document.Standard())); ; {
		token, err := decoder.Token()
		if err != nil {
			return 0
		}
		switch delimiter, _ := token.(json.Delim); delimiter {
		case '{', '[':
			open = append(open, level{offset: decoder.InputOffset() - 1, object: delimiter == '{', awaitsKey: true, fields: map[string]any{}})
			continue
		case '}', ']':
			closed := open[len(open)-1]
			open = open[:len(open)-1]
			if closed.object && r.isNamedBy(closed.fields) {
				if nth == 0 {
					return document.Line(int(closed.offset))
				}
				nth--
			}
		}
		if len(open) == 0 || !open[len(open)-1].object {
			continue
		}
		at := &open[len(open)-1]
		if text, _ := token.(string); at.awaitsKey {
			at.key = text
		} else {
			at.fields[at.key] = text
		}
		at.awaitsKey = !at.awaitsKey
	}
}

// isNamedBy reports whether texts of an object name the resource.
func (r *resource) isNamedBy(fields map[string]any) bool {
	name, _ := lookup(fields, "name").(string)
	k, _ := kindOf(fields, r.parent)
	return strings.EqualFold(lastSegment(name), r.name) && (k == r.kind || k == otherKind && typeOf(fields) == "" && r.parent != nil)
}
