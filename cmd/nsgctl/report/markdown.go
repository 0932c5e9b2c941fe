package report

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// maxComment bounds what one verb writes, in bytes. GitHub takes 65,536 characters for a comment, and three verbs share
// one (deploy/ci/check).
const maxComment = 21_000

// Section is a part of a comment: blocks of whole lines between a head and a foot.
type Section struct {
	Head, Foot string
	Blocks     []string
	// Of is what blocks are, in the plural, such as "changes".
	Of string
}

// WriteComment writes a comment of a pull request. Blocks that would make it too long are left out, and counted at its end.
func WriteComment(w io.Writer, title, verb string, sections []Section) error {
	var b strings.Builder
	b.WriteString(title)
	const closing = 500 // what the last sentence takes at most
	var leftOut []string
	for i := range sections {
		s := &sections[i]
		room := maxComment - closing - b.Len() - len(s.Head) - len(s.Foot)
		var fits []string
		for _, block := range s.Blocks {
			if len(block) <= room {
				fits = append(fits, block)
				room -= len(block)
			}
		}
		if len(fits) > 0 {
			b.WriteString(s.Head + strings.Join(fits, "") + s.Foot)
		}
		if n := len(s.Blocks) - len(fits); n > 0 {
			leftOut = append(leftOut, fmt.Sprintf("%d of %d %s", n, len(s.Blocks), s.Of))
		}
	}
	if len(leftOut) > 0 {
		fmt.Fprintf(&b, "\n**Left out**, because a comment has no room for it: %s. `nsgctl %s` shows all.\n", strings.Join(leftOut, "; "), verb)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeMarkdown writes a comment of a pull request: the worst first, what passed in one line.
func writeMarkdown(w io.Writer, r *Report) error {
	count := map[Level]int{}
	for i := range r.Entries {
		count[r.Entries[i].Level]++
	}
	var parts []string
	for _, level := range []Level{Error, Warning, Note, Pass} {
		if n := count[level]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, map[Level]string{Error: "failed", Warning: "warned", Note: "noted", Pass: "passed"}[level]))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing found"}
	}
	rows := Section{Head: "\n| level | what | message | where |\n|---|---|---|---|\n", Of: "rows of the table"}
	for _, level := range []Level{Error, Warning, Note} {
		for i := range r.Entries {
			if e := &r.Entries[i]; e.Level == level {
				rows.Blocks = append(rows.Blocks, e.row())
			}
		}
	}
	title := fmt.Sprintf("### nsgctl %s: %s\n", EscapeMarkdown(r.Verb), strings.Join(parts, ", "))
	return WriteComment(w, title, r.Verb, []Section{rows})
}

// row is an entry's row of the table.
func (e *Entry) row() string {
	where := EscapeMarkdown(e.place())
	if e.Resource != "" && where != "" {
		where = EscapeMarkdown(e.Resource) + "<br>" + where
	} else if e.Resource != "" {
		where = EscapeMarkdown(e.Resource)
	}
	lines := strings.Split(e.message(), "\n")
	for i := range lines {
		lines[i] = EscapeMarkdown(lines[i])
	}
	return fmt.Sprintf("| **%s** | %s | %s | %s |\n", e.Level, EscapeMarkdown(e.title()), strings.Join(lines, "<br>"), where)
}

// EscapeMarkdown escapes what would be markup, a new row, or what GitHub and Azure DevOps make links and pictures of: addresses,
// mentions, issues and emoji. Names come from documents that anybody may have written.
func EscapeMarkdown(text string) string {
	var b strings.Builder
	for _, r := range apart(Printable(text)) {
		switch {
		case strings.ContainsRune("\\`*_{}[]()#+!|~", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case strings.ContainsRune("<>&", r):
			fmt.Fprintf(&b, "&#%d;", r)
		case r == divider:
			b.WriteString("<!-- -->")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// divider is where an empty comment divides a text. Printable has left no such character in it.
const divider = '\x00'

// linked are texts that become links where nothing divides them, though their characters are escaped. Each is
// divided before its last character, or behind its only one.
var linked = regexp.MustCompile(`(?i)www\.|gh-\d|[a-z]+://|mailto:|xmpp:|[@#!]`)

// emoji is what GitHub makes a picture of, also within an address of IPv6.
var emoji = regexp.MustCompile(`:(\w*[A-Za-z_+-][\w+-]*|100|1234):`)

// apart puts a divider into what would become a link or a picture.
func apart(text string) string {
	text = linked.ReplaceAllStringFunc(text, func(found string) string {
		if len(found) == 1 {
			return found + string(divider)
		}
		last := len(found) - 1
		return found[:last] + string(divider) + found[last:]
	})
	for from := 0; ; {
		at := emoji.FindStringIndex(text[from:])
		if at == nil {
			return text
		}
		colon := from + at[0]
		text = text[:colon+1] + string(divider) + text[colon+1:]
		from += at[1] // the closing colon, which has moved by one, may be the next one's
	}
}
