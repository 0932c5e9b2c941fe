package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

func init() { addVerb(newMan) }

// newMan is for those who build packages; make man calls it.
func newMan(*global) *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write a manual page for each command into a folder",
		Example: `  nsgctl man share/man/man1`,
		Hidden:  true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("man: a folder is missing")}
			}
			return noArgs(c, args[1:])
		},
		RunE: func(c *cobra.Command, args []string) error { return writeManual(c.Root(), args[0]) },
	}
}

// writeManual writes the pages NAME.1, nsgctl-VERB.1 and so on. The commands are of no other use afterwards.
func writeManual(root *cobra.Command, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	forMarkdown(root)
	return writePages(root, folder)
}

func writePages(c *cobra.Command, folder string) error {
	header := &doc.GenManHeader{Source: "nsgctl " + version, Manual: "nsgd"}
	var page bytes.Buffer
	if err := doc.GenMan(c, header, &page); err != nil {
		return err
	}
	text := manOption.ReplaceAllString(page.String(), ".TP\n$1\n$2")
	text = strings.Replace(text, header.Date.Format("Jan 2006"), header.Date.UTC().Format(time.DateOnly), 1)
	if err := os.WriteFile(filepath.Join(folder, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			if err := writePages(sub, folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// manOption is an option as package doc writes it. The tab before its text means nothing to man.
var manOption = regexp.MustCompile(`(?m)^(?:\.PP\n)?(\\fB-.*)\n\t(.*)$`)

// forMarkdown escapes the texts of a command and those below it: package doc takes them for Markdown.
func forMarkdown(c *cobra.Command) {
	c.DisableAutoGenTag = true // no line with the day on which it was made
	c.Long = markdownText(c.Long)
	c.Short = markdownWords.Replace(c.Short)
	c.Use = markdownWords.Replace(c.Use)
	for _, flags := range []*pflag.FlagSet{c.PersistentFlags(), c.LocalFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			f.Usage = markdownWords.Replace(strings.ReplaceAll(f.Usage, "\n", " "))
		})
	}
	for _, sub := range c.Commands() {
		forMarkdown(sub)
	}
}

// markdownWords escapes what Markdown has a meaning for.
var markdownWords = strings.NewReplacer("\\", "\\\\", "*", "\\*", "_", "\\_", "<", "\\<", ">", "\\>", "`", "\\`", "[", "\\[", "]", "\\]")

// markdownText escapes a text of several lines. Lines that begin with spaces stay as they are.
func markdownText(text string) string {
	var b strings.Builder
	indented := false
	for _, line := range strings.Split(text, "\n") {
		switch inside := strings.HasPrefix(line, "  "); {
		case inside && !indented:
			b.WriteString("\n```\n" + line + "\n")
			indented = true
		case inside:
			b.WriteString(line + "\n")
		default:
			if indented {
				b.WriteString("```\n\n")
				indented = false
			}
			b.WriteString(markdownWords.Replace(line) + "\n")
		}
	}
	if indented {
		b.WriteString("```\n")
	}
	return strings.TrimSpace(b.String())
}
