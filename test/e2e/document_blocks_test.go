package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// repository is the checkout's root, seen from the folder in which tests run.
const repository = "../.."

// A block is a fenced block of a document.
type block struct {
	file string
	line int // of the fence
	// language and kind are the two words of the fence: "sh up".
	language, kind string
	text           string
	// output is the text block that follows directly; empty when there is none.
	output string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// commands are the block's lines without comments, continued lines joined.
func (b block) commands() (list []string) {
	for _, line := range strings.Split(strings.ReplaceAll(b.text, "\\\n", " "), "\n") {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return list
}

// documents lists the Markdown files of the repository. The changelog tells of the past, so
// nobody runs its commands.
func documents(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "bin" || name == "testdata" || len(name) > 2 && name[0] == '.' && name != ".github"):
			return fs.SkipDir
		case filepath.Ext(name) == ".md" && name != "CHANGELOG.md":
			path, err = filepath.Rel(repository, path)
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// readBlocks reads the fenced blocks of a document.
func readBlocks(t *testing.T, file string) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, file))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parseBlocks(file, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

func parseBlocks(file, text string) (blocks []block, err error) {
	const fence = "```"
	var open *block
	follows := false // nothing but blank lines since the last block
	for i, line := range strings.Split(text, "\n") {
		switch {
		case open != nil && line == fence:
			if last := len(blocks) - 1; open.language == "text" && follows && blocks[last].language == "sh" {
				blocks[last].output = open.text
			} else {
				blocks = append(blocks, *open)
			}
			open, follows = nil, true
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, fence):
			open = &block{file: file, line: i + 1}
			open.language, open.kind, _ = strings.Cut(strings.TrimPrefix(line, fence), " ")
			if open.language == "" {
				return nil, fmt.Errorf("%v: the fence does not say what the block is", open)
			}
		case strings.TrimSpace(line) != "":
			follows = false
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%v: the block has no end", open)
	}
	return blocks, nil
}

// outputPattern matches what a text block promises: "..." stands for any part of a line, and
// alone for any number of lines.
func outputPattern(text string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " \n"), "...")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		b.WriteString(strings.Join(parts, `.*`) + ` *\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

var exitComment = regexp.MustCompile(`^(.*\S)\s+# exit code ([0-9]+)\b.*$`)

// script is the block for bash. A line that ends with the comment "# exit code N" must end so;
// every other one must succeed.
func (b block) script() string {
	lines := strings.Split(b.text, "\n")
	for i, line := range lines {
		if m := exitComment.FindStringSubmatch(line); m != nil {
			lines[i] = fmt.Sprintf("code=0; %s || code=$?; [ $code = %s ] || { echo \"exit code $code instead of %s: line %d\" >&2; exit 1; }", m[1], m[2], m[2], i+1)
		}
	}
	return strings.Join(lines, "\n")
}

func TestBlocksOfADocument(t *testing.T) {
	blocks, err := parseBlocks("f.md", "a\n```sh up\nx \\\n  -y # why\n# z\n```\n\n```text\none\n```\nb\n```text\ntwo\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 || blocks[0].output != "one\n" || blocks[0].kind != "up" || blocks[0].line != 2 || blocks[1].text != "two\n" {
		t.Errorf("%+v", blocks)
	}
	if got := blocks[0].commands(); len(got) != 1 || strings.Join(strings.Fields(got[0]), " ") != "x -y" {
		t.Errorf("commands %q", got)
	}
	for _, faulty := range []string{"```\nx\n```\n", "```sh\nx\n"} {
		if _, err := parseBlocks("f.md", faulty); err == nil {
			t.Errorf("%q is read", faulty)
		}
	}
	for output, want := range map[string]bool{"a 1 b\nc\n": true, "a 1 b\n1\n2\nc\n": true, "a 1\nc\n": false, "a 1 b\nc\nd\n": false} {
		if got := outputPattern("a ... b\n...\nc\n").MatchString(output); got != want {
			t.Errorf("%q matches: %v", output, got)
		}
	}
}
