package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Whoever opens the repository reads this much and no more.
const maxReadmeLines = 200

func TestTheReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > maxReadmeLines {
		t.Errorf("%d lines, at most %d: the rest belongs beside the code", n, maxReadmeLines)
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	heading      = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notAnchor    = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinksOfDocumentsLeadSomewhere follows the links within the repository: to files, folders
// and headings.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	links := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if target, anchor := m[1], m[2]; !strings.Contains(target, "://") {
				links++
				if target == "" {
					target = filepath.Base(path)
				}
				checkLink(t, path, filepath.Join(filepath.Dir(path), target), strings.TrimPrefix(anchor, "#"))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if links == 0 {
		t.Error("no document has a link")
	}
}

func checkLink(t *testing.T, from, target, anchor string) {
	t.Helper()
	if _, err := os.Stat(target); err != nil {
		t.Errorf("%s: %v", from, err)
		return
	}
	if anchor == "" {
		return
	}
	text, err := os.ReadFile(target)
	if err != nil {
		t.Errorf("%s: %v", from, err)
		return
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		// As GitHub names them.
		if strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-") == anchor {
			return
		}
	}
	t.Errorf("%s: %s has no heading #%s", from, target, anchor)
}

func TestTheTableOfDropReasonsNamesNoOther(t *testing.T) {
	text, err := os.ReadFile("../dataplane/README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for d := range packet.NumDrops {
		known[d.String()] = true
	}
	_, table, _ := strings.Cut(string(text), "\n## Drop reasons\n")
	found := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range strings.Split(strings.ReplaceAll(row[1], "`", ""), ", ") {
			found++
			if !known[name] {
				t.Errorf("%s is no drop reason", name)
			}
		}
	}
	if found == 0 {
		t.Error("the table was not found")
	}
}
