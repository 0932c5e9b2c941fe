package report

import (
	"strconv"
	"strings"
	"unicode"
)

// Printable escapes what would move a terminal's cursor, or begin a line that looks like one
// of nsgctl's. Names come from documents that anybody may have written.
func Printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unprintable(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
