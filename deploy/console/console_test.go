package console

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"regexp"
	"testing"
)

// maxPages bounds all pages together, compressed, in bytes.
const maxPages = 100_000

// Whoever opens the console gets little, and nothing from another host.
func TestPagesAreSmallAndWhole(t *testing.T) {
	var all bytes.Buffer
	names := regexp.MustCompile(`(?:from|import\(|src=|href=) ?"\.?/?([a-z]+\.(?:js|css|svg))"`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z][a-z0-9.-]+\.[a-z]+`)
	inline := regexp.MustCompile(`<script>|<style|\son[a-z]+=|\sstyle=|javascript:|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(`)
	err := fs.WalkDir(Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Files, path)
		if err != nil {
			return err
		}
		for _, m := range names.FindAllSubmatch(text, -1) {
			if _, err := fs.Stat(Files, string(m[1])); err != nil {
				t.Errorf("%s names %s: %v", path, m[1], err)
			}
		}
		for _, m := range elsewhere.FindAll(text, -1) {
			if string(m) != "http://www.w3.org" {
				t.Errorf("%s names %s", path, m)
			}
		}
		if m := inline.Find(text); m != nil {
			t.Errorf("%s has %q, which the policy of the pages forbids, or which would read text as markup", path, m)
		}
		z := gzip.NewWriter(&all)
		if _, err := z.Write(text); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, compressed one by one", all.Len())
	if all.Len() > maxPages {
		t.Errorf("the pages have %d bytes, compressed: allowed are %d", all.Len(), maxPages)
	}
}
