package main

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden outputs in testdata/script")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nsgd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			return lab.WriteTo(filepath.Join(env.WorkDir, "lab"))
		},
	})
}
