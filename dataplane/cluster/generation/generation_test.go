package generation

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func bundle() *Bundle {
	return &Bundle{
		Settings: Settings{Policy: []string{"policy/net"}, ServiceTags: "serviceTags/t.json", AzureQuirks: true},
		Files:    map[string][]byte{"policy/net/a.json": []byte("{}"), "policy/net/sub/b.json": []byte("[1]"), "serviceTags/t.json": []byte("tags")},
	}
}

func pack(t *testing.T, b *Bundle) *Packed {
	t.Helper()
	p, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestABundleComesBackAsItWas(t *testing.T) {
	p := pack(t, bundle())
	b, tree, err := Unpack(p.Compressed)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(bundle(), b, cmp.Comparer(func(a, b Settings) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); d != "" || tree != p.Tree {
		t.Errorf("tree %v, want %v; %s", tree, p.Tree, d)
	}
	if again := pack(t, bundle()); again.Tree != p.Tree || !bytes.Equal(again.Compressed, p.Compressed) {
		t.Error("the same bundle has another archive")
	}
	other := bundle()
	other.Settings.AzureQuirks = false
	if pack(t, other).Tree == p.Tree {
		t.Error("another setting has the same tree")
	}
}

// archive makes one by hand, as somebody hostile would.
func archive(t *testing.T, entries ...[2]string) []byte {
	t.Helper()
	out := &bytes.Buffer{}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e[0], Size: int64(len(e[1])), Mode: 0o644, Typeflag: tar.TypeReg}
		if e[1] == "LINK" {
			h.Size, h.Typeflag, h.Linkname = 0, tar.TypeSymlink, "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte(e[1]))
		}
	}
	w.Close()
	z.Close()
	return out.Bytes()
}

func TestAHostileBundleIsRefused(t *testing.T) {
	settings := [2]string{"settings.json", `{"policy":["p"]}`}
	long := strings.Repeat("x/", maxDepth+1) + "f"
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"no archive", []byte("hello, world: no archive"), "gzip: invalid header"},
		{"an entry above the bundle", archive(t, settings, [2]string{"../evil", "x"}), `name "../evil": allowed is a path below`},
		{"an absolute entry", archive(t, settings, [2]string{"/etc/x", "x"}), `name "/etc/x": allowed is a path below`},
		{"an entry deeper than any policy", archive(t, settings, [2]string{long, "x"}), "at most 32 folders"},
		{"a name that steers a terminal", archive(t, settings, [2]string{"p\x1b[2J", "x"}), "a character that file names must not have"},
		{"a link", archive(t, settings, [2]string{"p", "LINK"}), "is no regular file"},
		{"an entry twice", archive(t, settings, [2]string{"p", "x"}, [2]string{"p", "y"}), "it is there twice"},
		{"a file that is a folder too", archive(t, settings, [2]string{"p", "x"}, [2]string{"p/q", "y"}), `"p" is a file and the folder of "p/q"`},
		{"settings at the end", archive(t, [2]string{"p", "x"}, settings), "settings.json is needed first"},
		{"settings twice", archive(t, settings, settings), "settings.json is needed first, and once"},
		{"a setting of a newer nsgd", archive(t, [2]string{"settings.json", `{"policy":["p"],"later":1}`}, [2]string{"p", "x"}), `unknown field "later"`},
		{"a setting that names a file elsewhere", archive(t, [2]string{"settings.json", `{"policy":["../../etc"]}`}, [2]string{"p", "x"}), `settings: policy: name "../../etc"`},
		{"a tag file that is missing", archive(t, [2]string{"settings.json", `{"policy":["p"],"serviceTags":"q"}`}, [2]string{"p", "x"}), `settings: serviceTags: "q" is not in the bundle`},
		{"no file", archive(t, settings), "0 files: allowed are 1 to"},
		{"one that expands without end", archive(t, settings, [2]string{"p", strings.Repeat("\x00", MaxExpanded)}), "it expands to more than 64 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := Unpack(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAManifestIsHeldAgainstItsSignatureAndItsChunks(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(nil)
	other, _, _ := ed25519.GenerateKey(nil)
	p := pack(t, bundle())
	m := &Manifest{Number: 7, Who: "me"}
	m.Describe(p)
	signed, err := m.Seal(private)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := m.Seal(nil)
	if got, err := Unseal(signed, public); err != nil || got.Number != 7 {
		t.Errorf("signed: %v, %v", got, err)
	}
	for name, bad := range map[string]struct {
		data []byte
		key  ed25519.PublicKey
		want string
	}{
		"nobody has signed it":     {plain, public, "it is not signed"},
		"somebody else has":        {signed, other, "its signature is not by the owner"},
		"a number was changed":     {bytes.Replace(signed, []byte(`"number":7`), []byte(`"number":8`), 1), public, "its signature is not by the owner"},
		"number 0":                 {bytes.Replace(plain, []byte(`"number":7`), []byte(`"number":0`), 1), nil, "number 0"},
		"a size without end":       {bytes.Replace(plain, []byte(`"size":`), []byte(`"size":999`), 1), nil, "chunks for"},
		"it is longer than it may": {append(plain, make([]byte, MaxSealed)...), nil, "at most"},
	} {
		if _, err := Unseal(bad.data, bad.key); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %q", name, err, bad.want)
		}
	}
	if _, err := m.Join([][]byte{[]byte("other")}); err == nil || !strings.Contains(err.Error(), "chunk 1 is not what its name says") {
		t.Errorf("a forged chunk: %v", err)
	}
	whole, err := m.Join([][]byte{p.Compressed})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Unpack(whole); err != nil {
		t.Error(err)
	}
}

func TestAFolderIsGatheredWithWhatItNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, linked, tags, values := write("net/a.json", "a"), write("common/l.json", "l"), write("net/tags.json", "t"), write("prod.json", "v")
	b := &Bundle{}
	err := b.Gather(&Sources{Policy: []string{filepath.Join(dir, "net")}, ServiceTags: tags, Parameters: []string{values, "n=1"},
		IsValue: func(p string) bool { return p == "n=1" }, Read: []string{a, linked, tags, values}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"policy/net/a.json": []byte("a"), "policy/common/l.json": []byte("l"), "serviceTags/tags.json": []byte("t"), "parameters/1/prod.json": []byte("v")}
	if d := cmp.Diff(want, b.Files); d != "" {
		t.Error(d)
	}
	if got := fmt.Sprintf("%v %v %v", b.Settings.Policy, b.Settings.ServiceTags, b.Settings.Templates.Parameters); got != "[policy/net] serviceTags/tags.json [{parameters/1/prod.json } { n=1}]" {
		t.Error(got)
	}
}

func newCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func put(t *testing.T, c *Cache, number uint64) *Unpacked {
	t.Helper()
	p := pack(t, bundle())
	m := &Manifest{Number: number}
	m.Describe(p)
	sealed, err := m.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := c.Put(sealed, p.Compressed)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestACacheGivesBackWhatItKept(t *testing.T) {
	dir := t.TempDir()
	c := newCache(t, dir)
	if u, err := c.Current(); u != nil || err != nil {
		t.Fatalf("empty: %v, %v", u, err)
	}
	u := put(t, c, 3)
	if err := c.SetCurrent(u); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(u.Folder, "policy/net/a.json")
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newCache(t, dir).Current(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "{}" {
		t.Errorf("a file that was changed on disk is %q", text)
	}
	os.WriteFile(filepath.Join(u.Folder, "policy/net/more.json"), []byte("{}"), 0o600)
	again, err := newCache(t, dir).Current()
	if err != nil || again.Number != 3 {
		t.Fatalf("%v, %v", again, err)
	}
	if _, err := os.Stat(filepath.Join(u.Folder, "policy/net/more.json")); err == nil {
		t.Error("a file that was added on disk stays")
	}
	kept := filepath.Join(dir, folderOf(u.Manifest), bundleFile)
	text, _ := os.ReadFile(kept)
	text[len(text)/2] ^= 1
	os.WriteFile(kept, text, 0o600)
	if _, err := newCache(t, dir).Current(); err == nil || !strings.Contains(err.Error(), "the bundle is not what the manifest says") {
		t.Errorf("a bundle that has rotted: %v", err)
	}
}

func TestACacheForgetsWhatIsOldAndNotInUse(t *testing.T) {
	c := newCache(t, t.TempDir())
	var all []*Unpacked
	for n := range uint64(9) {
		all = append(all, put(t, c, n+1))
	}
	if err := c.Tidy(all[0], all[8]); err != nil {
		t.Fatal(err)
	}
	var there []uint64
	for _, u := range all {
		if _, err := os.Stat(u.Folder); err == nil {
			there = append(there, u.Number)
		}
	}
	if fmt.Sprint(there) != "[1 7 8 9]" {
		t.Errorf("there are %v", there)
	}
}
