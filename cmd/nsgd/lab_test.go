package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A lab that was killed left its documents in the folder of temporary files for ever.
func TestLabFolderRemovesThoseOfLabsThatWereKilled(t *testing.T) {
	parent := t.TempDir()
	killed := filepath.Join(parent, "nsgd-lab-1", "policy")
	if err := os.MkdirAll(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(parent, "nsgd-laboratory")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(parent, "nsgd-lab-2")); err != nil {
		t.Fatal(err)
	}

	first, releaseFirst, err := labFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	second, releaseSecond, err := labFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{filepath.Dir(killed): false, first: true, second: true, other: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", path, err == nil, want)
		}
	}
	for _, release := range []func() error{releaseFirst, releaseSecond} {
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{first, second} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there after its release", path)
		}
	}
}

func TestLabHintsNameTheToolBesideTheDaemon(t *testing.T) {
	for daemon, want := range map[string]string{
		"nsgd": "nsgctl", "./nsgd": "./nsgctl", "bin/nsgd": "bin/nsgctl", "/usr/bin/nsgd": "/usr/bin/nsgctl",
	} {
		if got := besideDaemon(daemon, "nsgctl"); got != want {
			t.Errorf("beside %s: %s, want %s", daemon, got, want)
		}
	}
}
