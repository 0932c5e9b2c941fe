package main

import (
	"context"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// walk calls visit with each command of ours, the root too.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" { // those are cobra's
			walk(sub, visit)
		}
	}
}

var shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)

// commandLine checks that nsgctl takes the words behind its name: the command, its flags and their number of
// arguments. It runs nothing.
func commandLine(t *testing.T, line string) {
	t.Helper()
	var words []string
	for _, word := range shellWord.FindAllString(line, -1) {
		words = append(words, strings.Trim(word, `'"`))
	}
	root := newRoot()
	c, rest, err := root.Find(words[1:])
	if err != nil || c == root {
		t.Errorf("%s: no such command: %v", line, err)
		return
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if err := root.PersistentPreRunE(c, nil); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

func TestEveryCommandHasExamplesThatNsgctlTakes(t *testing.T) {
	walk(newRoot(), func(c *cobra.Command) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Example == "" {
				t.Fatal("--help has no example")
			}
			for _, line := range strings.Split(c.Example, "\n") {
				if !strings.HasPrefix(line, "  nsgctl ") {
					t.Errorf("%q does not begin with two spaces and nsgctl", line)
					continue
				}
				if c.HasParent() && !strings.HasPrefix(line, "  "+c.CommandPath()) {
					t.Errorf("%q is of another command", line)
				}
				commandLine(t, line)
			}
		})
	})
}

func TestANearNameIsTold(t *testing.T) {
	tests := []struct {
		name, line, want string
	}{
		{"of a verb", "statsu", `unknown command "statsu"; did you mean status?`},
		{"of several verbs", "effective-nsgs", `unknown command "effective-nsgs"` + "\n"},
		{"of the beginning of verbs", "effe", `did you mean effective or effective-routes?`},
		{"of a verb below a verb", "tags lst", `unknown command "lst"; did you mean list?`},
		{"of a verb to help with", "help tags shwo", `unknown command "shwo"; did you mean show?`},
		{"of a flag", "lint policy --fail-onn error", "lint: unknown flag: --fail-onn; did you mean --fail-on?"},
		{"of a flag of every verb", "status --sokcet x", "status: unknown flag: --sokcet; did you mean --socket?"},
		{"of no flag", "status --frobnicate", "status: unknown flag: --frobnicate\n"},
		{"of no letter", "status -x", "status: unknown shorthand flag: 'x' in -x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr strings.Builder
			code := execute(context.Background(), strings.Fields(tt.line), strings.NewReader(""), io.Discard, &stderr)
			if code != exitUsage || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr.String(), exitUsage, tt.want)
			}
		})
	}
}
