// Package report writes findings in the formats that pipelines read: JUnit, SARIF, TAP, the log
// commands of GitHub and Azure DevOps, and Markdown.
package report

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// The formats, as -o has them.
const (
	JUnit       = "junit"
	SARIF       = "sarif"
	TAP         = "tap"
	GitHub      = "github"
	AzureDevOps = "azuredevops"
	Markdown    = "markdown"
)

// Formats lists the formats.
var Formats = []string{JUnit, SARIF, TAP, GitHub, AzureDevOps, Markdown}

// Level says how bad an entry is.
type Level uint8

// The levels, the best first. Pass and Note are no failures.
const (
	Pass Level = iota
	Note
	Warning
	Error
)

func (l Level) String() string { return [...]string{"pass", "note", "warning", "error"}[l] }

// failure reports a level that fails a test.
func (l Level) failure() bool { return l >= Warning }

// Entry is one thing that was checked, or found. Texts may hold anything: each format escapes them.
type Entry struct {
	// Name says in a few words what was checked or found.
	Name string
	// Code is stable, such as NSG101. Check says what all entries of the code are about, where Name is the
	// entry's own; empty: Name does.
	Code, Check string
	Level       Level
	// File is where it is written, absolute or relative to the working directory; empty: nowhere.
	File string
	// Line and Column count from 1; 0: not known. Column counts code points.
	Line, Column int
	// Resource is what the entry is about, such as networkSecurityGroups/web securityRules/ssh.
	Resource string
	// Message is one line, or more where each says something by itself.
	Message string
	// Help says what to do about it; may be empty.
	Help string
}

// Report is what one run of a verb has to say.
type Report struct {
	// Verb is the verb of nsgctl, Version the program's.
	Verb, Version string
	// Directory is the working directory. Files below it are named relative to it.
	Directory string
	Entries   []Entry
}

// Write writes a report in one of Formats. It fails for an unknown format, and when w does.
func (r *Report) Write(w io.Writer, format string) error {
	write := map[string]func(io.Writer, *Report) error{
		JUnit: writeJUnit, SARIF: writeSARIF, TAP: writeTAP, GitHub: writeGitHub, AzureDevOps: writeAzureDevOps, Markdown: writeMarkdown,
	}[format]
	if write == nil {
		return fmt.Errorf("report: format %q: allowed are %s", format, strings.Join(Formats, ", "))
	}
	named := *r
	named.Entries = make([]Entry, len(r.Entries))
	for i, e := range r.Entries {
		e.File = r.relative(e.File)
		named.Entries[i] = e
	}
	return write(w, &named)
}

// relative names a file from the working directory, or by its whole path when it is elsewhere.
func (r *Report) relative(file string) string {
	if file == "" || r.Directory == "" {
		return file
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(r.Directory, file)
	}
	if below, err := filepath.Rel(r.Directory, file); err == nil && filepath.IsLocal(below) {
		return below
	}
	return filepath.Clean(file)
}

// place is such as web.json:12:5; empty without a file.
func (e *Entry) place() string {
	switch {
	case e.File == "" || e.Line == 0:
		return e.File
	case e.Column == 0:
		return fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	return fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
}

// details are an entry's texts behind its name, one a line.
func (e *Entry) details() string {
	var lines []string
	for _, text := range []string{e.Message, e.Resource, e.place(), e.Help} {
		if text != "" {
			lines = append(lines, text)
		}
	}
	return strings.Join(lines, "\n")
}

// title is the name behind the code. A name of its own stands alone: it stays when the result changes.
func (e *Entry) title() string {
	if e.Code == "" || e.Check != "" {
		return e.Name
	}
	return e.Code + " " + e.Name
}

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
