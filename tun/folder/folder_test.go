//go:build unix

package folder_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/tun/folder"
)

// stranger is another user.
const stranger = 12345

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needsRoot skips what only root can set up.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files of another user")
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	must(t, os.Chmod(path, mode)) // the umask does not count
	return path
}

func mkdir(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	return chmod(t, path, mode)
}

func TestAFolderIsOpenedOnlyIfNobodyElseCanReplaceItsFiles(t *testing.T) {
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, name) }
	for _, tt := range []struct {
		name  string
		root  bool
		make  func() string
		wrong string // empty: it is opened
	}{
		{"one that is not there", false, func() string { return in("new/folder") }, ""},
		{"a usual one", false, func() string { return mkdir(t, in("usual"), 0o755) }, ""},
		{"a link of ours", false, func() string { must(t, os.Symlink(mkdir(t, in("to"), 0o755), in("link"))); return in("link") }, ""},
		{"everybody's with the sticky bit", false, func() string { return mkdir(t, in("sticky"), 0o777|fs.ModeSticky) }, ""},
		{"everybody's", false, func() string { return mkdir(t, in("open"), 0o777) }, "chmod go-w"},
		{"below everybody's", false, func() string { mkdir(t, in("above/it"), 0o755); chmod(t, in("above"), 0o777); return in("above/it") }, "chmod go-w"},
		{"a new one below everybody's", false, func() string { mkdir(t, in("over"), 0o777); return in("over/it") }, "chmod go-w"},
		{"another group's", true, func() string {
			must(t, os.Chown(mkdir(t, in("group"), 0o770), 0, stranger))
			return chmod(t, in("group"), 0o770)
		}, "chmod go-w"},
		{"another user's", true, func() string { must(t, os.Chown(mkdir(t, in("theirs"), 0o755), stranger, 0)); return in("theirs") }, "user 12345"},
		{"another user's with the sticky bit", true, func() string {
			must(t, os.Chown(mkdir(t, in("sticky2"), 0o755), stranger, 0))
			return chmod(t, in("sticky2"), 0o777|fs.ModeSticky)
		}, "user 12345"},
		{"a link of another user", true, func() string {
			must(t, os.Symlink(mkdir(t, in("to2"), 0o755), in("link2")))
			must(t, os.Lchown(in("link2"), stranger, 0))
			return in("link2")
		}, "user 12345"},
		{"below another user's", true, func() string {
			mkdir(t, in("home/it"), 0o755)
			must(t, os.Chown(in("home"), stranger, 0))
			return in("home/it")
		}, "user 12345"},
		{"below another group's", true, func() string {
			mkdir(t, in("team/it"), 0o755)
			must(t, os.Chown(in("team"), 0, stranger))
			chmod(t, in("team"), 0o775)
			return in("team/it")
		}, "chmod go-w"},
		{"a circle of links", false, func() string { must(t, os.Symlink(in("circle"), in("circle"))); return in("circle") }, "40 links"},
		{"a file", false, func() string { must(t, os.WriteFile(in("file"), nil, 0o600)); return in("file") }, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root {
				needsRoot(t)
			}
			root, err := folder.Open(tt.make())
			if err == nil {
				must(t, root.Close())
			}
			if untrusted := strings.Contains(tt.wrong, "chmod") || strings.Contains(tt.wrong, "user"); errors.Is(err, folder.ErrUntrusted) != untrusted {
				t.Errorf("untrusted %v: %v", !untrusted, err)
			}
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("error %v, want %q", err, tt.wrong)
			}
		})
	}
}

func TestAFileIsOpenedOnlyIfItIsOurs(t *testing.T) {
	dir, outside := mkdir(t, filepath.Join(t.TempDir(), "d"), 0o755), filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(outside, []byte("precious"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "inside"), []byte("precious"), 0o600))
	root, err := folder.Open(dir)
	must(t, err)
	defer root.Close()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		name  string
		root  bool
		make  func() string // its name
		wrong string
	}{
		{"one that is not there", false, func() string { return "new" }, ""},
		{"a usual one", false, func() string { must(t, os.WriteFile(in("usual"), nil, 0o640)); return "usual" }, ""},
		{"a link out of the folder", false, func() string { must(t, os.Symlink(outside, in("out"))); return "out" }, "no regular file"},
		{"a link within the folder", false, func() string { must(t, os.Symlink("inside", in("within"))); return "within" }, "no regular file"},
		{"a link to nothing", false, func() string { must(t, os.Symlink("nothing", in("dangling"))); return "dangling" }, "no regular file"},
		{"a second name of a file", false, func() string { must(t, os.Link(outside, in("hard"))); return "hard" }, "2 names"},
		{"a pipe", false, func() string { must(t, syscall.Mkfifo(in("pipe"), 0o600)); return "pipe" }, "no regular file"},
		{"everybody's", false, func() string {
			must(t, os.WriteFile(in("open"), nil, 0o600))
			chmod(t, in("open"), 0o666)
			return "open"
		}, "chmod go-w"},
		{"everybody's with the sticky bit", false, func() string {
			must(t, os.WriteFile(in("sticky"), nil, 0o600))
			chmod(t, in("sticky"), 0o666|fs.ModeSticky)
			return "sticky"
		}, "remove it"},
		{"another user's", true, func() string {
			must(t, os.WriteFile(in("theirs"), nil, 0o600))
			must(t, os.Chown(in("theirs"), stranger, 0))
			return "theirs"
		}, "user 12345"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root {
				needsRoot(t)
			}
			f, err := folder.OpenFile(root, tt.make(), os.O_RDWR|os.O_CREATE, 0o640)
			if err == nil {
				_, err = io.WriteString(f, "written")
				must(t, errors.Join(err, f.Close()))
			}
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("error %v, want %q", err, tt.wrong)
			}
		})
	}
	for _, path := range []string{outside, in("inside")} {
		if text, err := os.ReadFile(path); string(text) != "precious" || err != nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	if _, err := os.Lstat(in("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing was followed: %v", err)
	}
}

func TestReplaceFollowsNoLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	must(t, os.Symlink(victim, filepath.Join(dir, "list")))
	must(t, os.Symlink(victim, filepath.Join(dir, "list.new")))
	root, err := folder.Open(dir)
	must(t, err)
	defer root.Close()
	must(t, folder.Replace(root, "list", []byte("new"), 0o640))
	for path, want := range map[string]string{victim: "precious", filepath.Join(dir, "list"): "new"} {
		if text, err := os.ReadFile(path); string(text) != want || err != nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, "list")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the list is %v, %v", info.Mode(), err)
	}
}
