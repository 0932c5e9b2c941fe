package report

import (
	"fmt"
	"io"
	"strings"
)

// writeMarkdown writes a comment of a pull request: the worst first, what passed in one line.
func writeMarkdown(w io.Writer, r *Report) error {
	var b strings.Builder
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
	fmt.Fprintf(&b, "### nsgctl %s: %s\n", EscapeMarkdown(r.Verb), strings.Join(parts, ", "))
	if count[Pass] < len(r.Entries) {
		b.WriteString("\n| level | what | message | where |\n|---|---|---|---|\n")
	}
	for _, level := range []Level{Error, Warning, Note} {
		for i := range r.Entries {
			e := &r.Entries[i]
			if e.Level != level {
				continue
			}
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
			fmt.Fprintf(&b, "| **%s** | %s | %s | %s |\n", level, EscapeMarkdown(e.title()), strings.Join(lines, "<br>"), where)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// EscapeMarkdown escapes what would be markup, a mention or a new row. Names come from documents that
// anybody may have written.
func EscapeMarkdown(text string) string {
	var b strings.Builder
	for _, r := range Printable(text) {
		switch {
		case strings.ContainsRune("\\`*_{}[]()#+!|~", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case strings.ContainsRune("<>&@", r):
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
