package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden outputs in testdata/script")

func TestMain(m *testing.M) {
	os.Setenv(arm.ServiceTagsVariable, "") // whatever is installed here
	testscript.Main(m, map[string]func(){"nsgd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv(arm.ServiceTagsVariable, "")
			return lab.WriteTo(filepath.Join(env.WorkDir, "lab"))
		},
	})
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"done", []string{"--version"}, 0},
		{"a configuration that isn't there", []string{"check", "--config", "nowhere.yaml"}, 1},
		{"no command", nil, 2},
		{"an unknown command", []string{"walk"}, 2},
		{"an unknown flag", []string{"run", "--fast"}, 2},
		{"an argument too many", []string{"run", "now"}, 2},
		{"check without a configuration", []string{"check"}, 2},
		{"help for a command", []string{"help", "run"}, 0},
		{"help for a command that there is not", []string{"help", "nosuch"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := execute(context.Background(), tt.args, &stdout, &stderr); got != tt.want {
				t.Errorf("exit code %d, want %d: %s", got, tt.want, &stderr)
			}
			if strings.Contains(stderr.String(), "nsgd: nsgd") {
				t.Errorf("the name comes twice: %s", &stderr)
			}
		})
	}
}
