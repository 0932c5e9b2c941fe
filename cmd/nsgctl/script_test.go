package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/deploy/schema/schematest"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden outputs in testdata/script")

func TestMain(m *testing.M) {
	os.Setenv(arm.ServiceTagsVariable, "") // whatever is installed here
	testscript.Main(m, map[string]func(){"nsgctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv(arm.ServiceTagsVariable, "")
			env.Setenv("PUBLIC", publicCaptures())
			if err := writeCaptures(env.WorkDir); err != nil {
				return err
			}
			translation := filepath.Join("..", "..", "deploy", "lab", "translation")
			if err := os.CopyFS(filepath.Join(env.WorkDir, "lab", "translation"), os.DirFS(translation)); err != nil {
				return err
			}
			return lab.WriteTo(filepath.Join(env.WorkDir, "lab"))
		},
		Condition: func(name string) (bool, error) {
			if name != "public" {
				return false, fmt.Errorf("condition %q: allowed is public", name)
			}
			return publicCaptures() != "", nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"daemon": daemon, "exitcode": exitCode, "valid": valid},
	})
}

// publicCaptures is the folder of captures that come with gopacket's source; empty where that is not at hand.
var publicCaptures = sync.OnceValue(func() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/gopacket").Output()
	if dir := strings.TrimSpace(string(out)); err == nil && dir != "" {
		return filepath.Join(dir, "pcap")
	}
	return ""
})

// daemon serves the lab's policy on $WORK/nsgd.sock, with an engine that has no devices.
func daemon(ts *testscript.TestScript, _ bool, _ []string) {
	policy := ts.MkAbs("lab/policy")
	set, err := inspect.NewPolicyFiles("", policy).Load()
	ts.Check(err)
	engine, err := dataplane.New(set, dataplane.Options{Workers: 1, Attachments: []topology.Spec{{Kind: topology.Internet}}})
	ts.Check(err)
	socket := ts.MkAbs("nsgd.sock")
	listener, err := control.Listen(socket, control.Access{})
	ts.Check(err)
	server := control.NewServer(inspect.NewService(inspect.Options{
		Engine: engine, Policy: inspect.NewPolicyFiles("", policy), Version: "test", Offload: "off", Control: socket,
	}))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	ts.Defer(func() {
		server.Shutdown(context.Background())
		if err := <-done; err != nil {
			ts.Logf("server: %v", err)
		}
	})
}

// exitCode runs nsgctl and compares its exit code: exitcode N ARG...
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("nsgctl", args[1:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("nsgctl %v: exit code %d, want %d", args[1:], got, want)
	}
}

// valid holds a document to a JSON schema of the sources: valid SCHEMA FILE.
func valid(ts *testscript.TestScript, neg bool, args []string) {
	if err := schematest.Validate(args[0], []byte(ts.ReadFile(args[1]))); (err != nil) != neg {
		ts.Fatalf("%s by %s: %v", args[1], args[0], err)
	}
}

// It waited for the next request, so only SIGKILL ended it.
func TestAnInterruptEndsVerifyThatWaitsForRequests(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stdin, requests := io.Pipe()
	defer requests.Close()
	var stderr strings.Builder
	code := make(chan int)
	go func() {
		code <- execute(ctx, []string{"verify", "--requests", "-", "--policy", filepath.Join(dir, "policy")}, stdin, io.Discard, &stderr)
	}()
	if _, err := requests.Write([]byte("{}\n")); err != nil { // it reads now
		t.Fatal(err)
	}
	cancel()
	if got := <-code; got != exitNegative || !strings.Contains(stderr.String(), "verify: ") {
		t.Errorf("exit code %d, stderr %q", got, stderr.String())
	}
}
