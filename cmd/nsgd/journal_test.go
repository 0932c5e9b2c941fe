package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLinesOfTheJournalHaveAPriority(t *testing.T) {
	var text bytes.Buffer
	lines := &journalLines{to: &text}
	log := slog.New(journalHandler{slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}), lines})
	log.Debug("one")
	log.With("a", 1).Info("two")
	log.WithGroup("g").Warn("three")
	log.Error("four")
	var got []string
	for line := range strings.Lines(text.String()) {
		priority, rest, _ := strings.Cut(line, "time=")
		_, message, _ := strings.Cut(rest, "msg=")
		got = append(got, priority+message)
	}
	if want := "<7>one\n<6>two a=1\n<4>three\n<3>four\n"; strings.Join(got, "") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The program finds out by JOURNAL_STREAM whose its standard error is: the device and inode of a file that is it.
func TestOnlyTheJournalGetsPriorities(t *testing.T) {
	if os.Getenv("NSGD_TEST_ERROR") != "" {
		os.Exit(execute(t.Context(), []string{"check", "--config", "nowhere.yaml"}, os.Stdout, os.Stderr))
	}
	for name, is := range map[string]bool{"the journal": true, "another file": false} {
		file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		inode := stat.Ino
		if !is {
			inode++
		}
		command := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		command.Env = append(os.Environ(), "NSGD_TEST_ERROR=1", fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, inode))
		command.Stderr = file
		command.Run() // it fails
		text, err := os.ReadFile(file.Name())
		if err != nil || bytes.HasPrefix(text, []byte("<3>nsgd: ")) != is || !bytes.Contains(text, []byte("nowhere.yaml")) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
