package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/filewatch"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun/fdstore"
	"golang.org/x/sys/unix"
)

// What a standby has read may be half of a change that no reload has asked for.
func TestAStandbyReadsAgainWhatHasChanged(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, lab.ConfigName)
	all, err := loadAll(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := all.file.files()
	for name, again := range map[string]string{"nothing": "", "the configuration": path, "a file of the policy": files[0]} {
		all.begun = time.Now().Add(100 * time.Millisecond) // all was there before
		for again != "" && !filewatch.Changed(all.begun, again) {
			text, err := os.ReadFile(again)
			if err == nil {
				err = os.WriteFile(again, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		d := &daemon{path: path, inherited: &inheritance{}}
		got, err := d.standBy(t.Context(), promoted(t), all)
		if err != nil || (got == all) != (again == "") {
			t.Errorf("%s has changed: read again: %v: %v", name, got != all, err)
		}
	}
}

// promoted is a standby's end, whose keeper has nothing to hand over and has it go on at once.
func promoted(t *testing.T) *fdstore.Standby {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0]) })
	t.Setenv("NSGD_STANDBY", strconv.Itoa(ends[1]))
	s, err := fdstore.StandsBy()
	if err == nil {
		_, err = unix.Write(ends[0], []byte("\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}
