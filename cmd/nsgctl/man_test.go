package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
