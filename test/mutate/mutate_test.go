package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// TestEveryGuardIsWhereTheListSays is the cheap part of make mutate: entries fit the code of today.
func TestEveryGuardIsWhereTheListSays(t *testing.T) {
	guards, err := load(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guards {
		t.Run(g.Name, func(t *testing.T) {
			if _, err := g.broken(root); err != nil {
				t.Error(err)
			}
			run, err := regexp.Compile(g.Run)
			if err != nil {
				t.Fatal(err)
			}
			if !hasTest(t, filepath.Join(root, g.Package), run) {
				t.Errorf("%s has no test %s", g.Package, g.Run)
			}
		})
	}
}

var testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// hasTest reports whether a test of the folder matches what stands before the first slash of run.
func hasTest(t *testing.T, folder string, run *regexp.Regexp) bool {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	top, _, _ := strings.Cut(run.String(), "/")
	run = regexp.MustCompile(top)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllStringSubmatch(string(data), -1) {
			if run.MatchString(m[1]) {
				return true
			}
		}
	}
	return false
}

// inModule makes a module with a guard, a test that notices and one that doesn't.
func inModule(t *testing.T) *bench {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module guarded\n\ngo 1.26\n",
		"guarded.go": `package guarded

func Half(n int) int {
	if n < 0 { return 0 }
	return n / 2
}
`,
		"guarded_test.go": `package guarded

import "testing"

func TestNotices(t *testing.T) { if Half(-2) != 0 { t.Error("negative") } }

func TestIsBlind(t *testing.T) { if Half(2) != 1 { t.Error("wrong") } }

func TestIsRed(t *testing.T) { t.Error("always") }
`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return newBench(folder, t.TempDir())
}

func TestWhatBecomesOfAMutant(t *testing.T) {
	b := inModule(t)
	survived := errSurvived.Error()
	for i, tt := range []struct {
		name  string
		guard guard
		want  string // part of the error; empty: killed
	}{
		{"a test that goes red kills it", guard{Find: "n < 0", Replace: "false", Run: "TestNotices"}, ""},
		{"it survives when its tests stay green", guard{Find: "n < 0", Replace: "false", Run: "TestIsBlind"}, survived},
		{"what does not compile is no kill", guard{Find: "n < 0", Replace: "nonsense", Run: "TestNotices"}, "does not compile"},
		{"a text that is gone is an error", guard{Find: "n < 1", Replace: "false", Run: "TestNotices"}, "0 times"},
		{"a text that occurs twice is an error", guard{Find: "return", Replace: "panic(1)", Run: "TestNotices"}, "2 times"},
		{"a test that is red anyway is no kill", guard{Find: "n < 0", Replace: "false", Run: "TestIsRed"}, "with the guard whole"},
		{"a test that is not there is an error", guard{Find: "n < 0", Replace: "false", Run: "TestNowhere"}, "no test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := tt.guard
			g.Name, g.File = tt.name, "guarded.go"
			if err := g.complete(); err != nil {
				t.Fatal(err)
			}
			killer, err := b.try(t.Context(), i, &g)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("not killed: %v", err)
			case tt.want == "" && killer != tt.guard.Run:
				t.Errorf("killed by %q", killer)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			case (tt.want == survived) != errors.Is(err, errSurvived):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestListsWithMistakesAreRefused(t *testing.T) {
	const whole = "- {name: a, file: f.go, find: x, replace: y, run: TestA}\n"
	for _, tt := range []struct{ name, list, want string }{
		{"a key that nobody knows", "- {name: a, fiel: f.go}\n", "fiel"},
		{"an entry without tests", "- {name: a, file: f.go, find: x}\n", "needed"},
		{"a replacement that changes nothing", "- {name: a, file: f.go, find: x, replace: x, run: TestA}\n", "the same"},
		{"a name twice", whole + whole, "taken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "list.yaml"), []byte(tt.list), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := load(folder); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
