package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// atLeisure is a limit that no document of a test comes near.
var atLeisure = &options{limit: time.Minute}

func table(t *testing.T, folder string) (string, []*outcome) {
	t.Helper()
	files, err := documents(folder)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []*outcome
	for _, file := range files {
		outcomes = append(outcomes, read(atLeisure, folder, file))
	}
	var b strings.Builder
	if err := printOutcomes(&b, outcomes, false); err != nil {
		t.Fatal(err)
	}
	return b.String(), outcomes
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", golden, diff)
	}
}

// The table has a row for each document with what was read of it, and the sums say why what is open is open.
func TestTableOfOutcomes(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/documents.txtar")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(folder, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, outcomes := table(t, folder)
	var sums strings.Builder
	printSums(&sums, outcomes)
	got += regexp.MustCompile(`(?m)^time: .*\n`).ReplaceAllString(sums.String(), "")
	compare(t, "testdata/documents.golden", got)
}

// Templates of public repositories, and documents that were once read wrong, lose nothing from one day to the next.
func TestSharedDocuments(t *testing.T) {
	for golden, folder := range map[string]string{
		"templates": "data/templates", "cases-templates": "cases/templates", "cases-recorded": "cases/recorded", "cases-reports": "cases/reports",
	} {
		t.Run(golden, func(t *testing.T) {
			folder := filepath.Join("../../../shared", folder)
			if _, err := os.Stat(folder); err != nil {
				t.Skipf("the shared documents are not here: %v", err)
			}
			got, _ := table(t, folder)
			compare(t, filepath.Join("testdata", golden+".golden"), got)
		})
	}
}

// A template that does not end in its time is an outcome, and no wait for ever.
func TestADocumentEndsInItsTime(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "main.json")
	text := `{"resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "[string(length(map(range(0, 10000), lambda('i', length(map(range(0, 10000), lambda('j', lambdaVariables('j'))))))))]"}]}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := read(&options{limit: time.Nanosecond}, folder, file); got.result != tooSlow {
		t.Errorf("the outcome is %q, want %q", got.result, tooSlow)
	}
}
