package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryCommandHasAManualPageWithItsFlags(t *testing.T) {
	folder := t.TempDir()
	if err := writeManual(newRoot(), folder); err != nil {
		t.Fatal(err)
	}
	walk(newRoot(), func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
			return
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(string(text), `\fB--`+f.Name+`\fP`) {
				t.Errorf("%s does not have --%s", name, f.Name)
			}
		})
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.Contains(string(text), strings.ReplaceAll(line, `\`, `\e`)) {
				t.Errorf("%s does not have the example %q", name, line)
			}
		}
	})
	pages, err := filepath.Glob(filepath.Join(folder, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	for checker, args := range map[string][]string{
		"groff":  {"-man", "-Tutf8", "-z", "-ww"}, // as man --warnings does, and with all warnings
		"mandoc": {"-T", "lint", "-W", "warning"},
	} {
		t.Run(checker+" finds nothing wrong", func(t *testing.T) {
			if _, err := exec.LookPath(checker); err != nil {
				t.Skipf("no %s here", checker)
			}
			c := exec.Command(checker, append(args, pages...)...)
			c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
			var stderr strings.Builder
			c.Stderr = &stderr
			out, err := c.Output()
			if checker == "mandoc" { // which says on standard output what is wrong
				stderr.Write(out)
			}
			if err != nil || stderr.Len() > 0 {
				t.Errorf("%v\n%s", err, stderr.String())
			}
		})
	}
}

// Packages that were built in Tokyo in the evening of the 30th had pages of the 1st.
func TestAManualPagesDateIsTheSameEverywhere(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1796081162") // 2026-11-30 23:26 UTC
	defer func(before *time.Location) { time.Local = before }(time.Local)
	for _, hours := range []int{-12, 0, 9} {
		time.Local = time.FixedZone("", hours*3600)
		folder := t.TempDir()
		if err := writeManual(newRoot(), folder); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(folder, "nsgctl.1"))
		if err != nil || !strings.Contains(string(text), `"2026-11-30"`) {
			first, _, _ := strings.Cut(strings.TrimPrefix(string(text), ".nh\n"), "\n")
			t.Errorf("%d hours from UTC: %s: %v", hours, first, err)
		}
	}
}
