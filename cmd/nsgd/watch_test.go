package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// watching is a daemon that watches its files.
func watching(t *testing.T) *liveRig {
	r := newLiveRig(t)
	config, err := loadConfig(r.path)
	if err != nil {
		t.Fatal(err)
	}
	config.Watch = true
	d := &daemon{path: r.path, config: config, read: time.Now(), service: r.service, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.watchFiles(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// until waits for the reloads to be as wanted.
func (r *liveRig) until(what string, is func(inspect.Reloads) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !is(r.service.Reloads()); runtime.Gosched() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: never: %+v", what, r.service.Reloads())
		}
		time.Sleep(time.Millisecond)
	}
}

// The second change is in a file that the first one has named.
func TestFilesThatChangeAreReloaded(t *testing.T) {
	r := watching(t)
	policy := filepath.Join(filepath.Dir(r.path), "policy")
	elsewhere := filepath.Join(filepath.Dir(r.path), "elsewhere")
	if err := os.CopyFS(elsewhere, os.DirFS(policy)); err != nil {
		t.Fatal(err)
	}
	r.write(strings.Replace(liveConfig, "policy: [policy]", "policy: [elsewhere]", 1))
	r.until("the configuration", func(s inspect.Reloads) bool {
		return s.LastCause == "watch" && r.service.Status().Policy[0] == elsewhere
	})
	file := filepath.Join(elsewhere, "nsg1.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("a refusal", func(s inspect.Reloads) bool { return s.Failed >= 1 && strings.Contains(s.LastError, "nsg1.json") })
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("the mended file", func(s inspect.Reloads) bool { return s.LastError == "" })
}

// What changed while an upgrade was under way that failed then was never read.
func TestFilesThatChangeDuringAnUpgradeAreReadLater(t *testing.T) {
	r := newLiveRig(t)
	d := &daemon{service: r.service, log: slog.New(slog.DiscardHandler)}
	r.upgrade = func() error {
		if d.readChanged() {
			t.Error("taken, though the reload was refused")
		}
		return errors.New("not prepared")
	}
	r.service.Upgrade(t.Context())
	if !d.readChanged() {
		t.Error("not taken behind it")
	}
}

func TestTheFilesThatAConfigurationNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"policy/a.json", "policy/deep/b.json", "more/c.json", "more/notes.txt", "tags.json"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Config{Policy: []string{"policy", "more/*.json", "late.json"}, ServiceTags: "tags.json",
		Templates: TemplatesConfig{Parameters: []string{"size=3", "values.json"}, Runtime: "runtime.json"}}
	if err := c.complete(dir); err != nil {
		t.Fatal(err)
	}
	files, folders := c.files()
	for _, list := range [][]string{files, folders} {
		for i := range list {
			list[i], _ = filepath.Rel(dir, list[i])
		}
	}
	want := [][]string{{"policy/a.json", "policy/deep/b.json", "more/c.json", "tags.json", "runtime.json", "policy", "more/*.json", "late.json", "values.json"}, {"policy", "more"}}
	if diff := cmp.Diff(want, [][]string{files, folders}); diff != "" {
		t.Error(diff)
	}
}
