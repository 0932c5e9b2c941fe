package template

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// FillPlaceholders replaces the placeholders for generated values with values of their form, as the pipeline of
// Azure's quickstart templates does (its contribution guide, "Parameters File Placeholders"): GEN-UNIQUE[-N],
// GEN-PASSWORD[-AMP] and GEN-GUID. Each place has a value of its own, which is the same in every reading. It returns
// the names of the parameters that it changed, sorted.
func (p *Parameters) FillPlaceholders() (changed []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Values)) {
		if filled, any := fill(p.Values[name], name); any {
			p.Values[name] = filled
			changed = append(changed, name)
		}
	}
	return changed
}

// fill replaces the placeholders in a value. It changes no object or list in place: others may hold it.
func fill(value any, place string) (filled any, changed bool) {
	switch v := value.(type) {
	case string:
		return placeholder(v, place)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			part, any := fill(v[i], place+"."+strconv.Itoa(i))
			out[i], changed = part, changed || any
		}
		return out, changed
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			part, any := fill(v[name], place+"."+name)
			out[name], changed = part, changed || any
		}
		return out, changed
	}
	return value, false
}

// Bounds and default of N in GEN-UNIQUE-N, the length of the value.
const (
	minUnique, maxUnique, defaultUnique = 3, 32, 18
	passwordLength                      = 20
)

// placeholder is the value that a placeholder stands for at a place of its file.
func placeholder(text, place string) (string, bool) {
	kind, ok := strings.CutPrefix(text, "GEN-")
	if !ok {
		return text, false
	}
	sum := sha256.Sum256([]byte(strings.ToLower(place)))
	digits := hex.EncodeToString(sum[:])
	switch kind {
	case "GUID":
		return fmt.Sprintf("%s-%s-4%s-8%s-%s", digits[:8], digits[8:12], digits[12:15], digits[15:18], digits[18:30]), true
	case "PASSWORD":
		return ("cI#" + digits)[:passwordLength], true
	case "PASSWORD-AMP":
		return ("cI&" + digits)[:passwordLength], true
	case "UNIQUE":
		return ("ci" + digits)[:defaultUnique], true
	}
	length, ok := strings.CutPrefix(kind, "UNIQUE-")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < minUnique || n > maxUnique {
		return text, false
	}
	return ("ci" + digits)[:n], true
}
