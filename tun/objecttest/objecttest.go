// Package objecttest holds a package's programs.o, which the kernel runs, to its programs.c.
package objecttest

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// compiler made programs.o. Another version's object differs.
const compiler = "clang version 14.0.6"

// IsOfItsSource fails where the object that is embedded was compiled from another programs.c than the one in this folder.
func IsOfItsSource(t *testing.T, object []byte) {
	t.Helper()
	source, err := os.ReadFile("programs.c")
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	section := file.Section("nsgd.source")
	if section == nil {
		t.Fatal("programs.o has no section nsgd.source")
	}
	stamp, err := section.Data()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(source)
	if got, want := string(bytes.TrimRight(stamp, "\x00")), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("programs.o is of another programs.c: run go generate there")
	}
}

// CompilesTo fails where programs.c of this folder compiles to another object. It skips without the compiler that made it.
func CompilesTo(t *testing.T, object []byte) {
	t.Helper()
	version, err := exec.Command("clang", "--version").Output()
	if err != nil {
		t.Skipf("needs clang: %v", err)
	}
	if !strings.Contains(string(version), compiler) {
		t.Skipf("needs %s, which made programs.o", compiler)
	}
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		t.Skipf("needs libbpf-dev: %v", err)
	}
	out := filepath.Join(t.TempDir(), "programs.o")
	if printed, err := exec.Command("../objecttest/compile", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	built, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(built, object) {
		t.Error("programs.o differs from what programs.c compiles to: run go generate there")
	}
}
