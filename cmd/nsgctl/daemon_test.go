package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/serve/servetest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
)

// serveElsewhere serves the lab's policy at an address, until the test ends.
func serveElsewhere(t *testing.T) (address string, ca *servetest.Authority) {
	t.Helper()
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	files := inspect.NewPolicyFiles("", dir+"/policy")
	set, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Workers: 1, Attachments: []topology.Spec{{Kind: topology.Internet}}})
	if err != nil {
		t.Fatal(err)
	}
	ca = servetest.NewAuthority(t, dir, "ca")
	for _, name := range []string{"server", "alice", "bob"} {
		ca.Issue(name, nil)
	}
	mutual, err := serve.NewMutual(serve.MutualFiles{Certificate: ca.Path("server.crt"), Key: ca.Path("server.key"), CA: ca.Path("ca.crt")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := control.NewServer(inspect.NewService(inspect.Options{Engine: engine, Policy: files, Version: "elsewhere"}))
	done := make(chan error, 1)
	go func() { done <- server.ServeRemote(l, mutual, []string{"alice"}) }()
	t.Cleanup(func() {
		server.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), ca
}

func TestADaemonElsewhereIsAsked(t *testing.T) {
	address, ca := serveElsewhere(t)
	certificate := func(name string) string {
		return " --cert " + ca.Path(name+".crt") + " --key " + ca.Path(name+".key") + " --ca " + ca.Path("ca.crt")
	}
	for _, tt := range []struct {
		name, args, env string
		code            int
		want            string // of either output
	}{
		{"by flags", "status -o json --host " + address + certificate("bob"), "", 0, `"version": "elsewhere"`},
		{"who looks changes nothing", "reload --host " + address + certificate("bob"), "", exitNegative, "control.mayChange"},
		{"who may change does", "reload --host " + address + certificate("alice"), "", 0, "reloaded: generation 2"},
		{"by the environment", "status -o json" + certificate("bob"), address, 0, `"version": "elsewhere"`},
		{"the socket's flag holds against the environment", "status --socket none.sock", address, exitNoDaemon, "none.sock"},
		{"two places", "status --socket none.sock --host " + address + certificate("bob"), "", exitUsage, "--socket and --host exclude each other"},
		{"no certificate", "status --host " + address, "", exitUsage, "--host needs --cert, --key and --ca"},
		{"a certificate for the socket", "status --cert x.crt", "", exitUsage, "--cert goes with --host"},
		{"no port", "status --host localhost" + certificate("bob"), "", exitUsage, "allowed is NAME:PORT"},
		{"a key that is not there", "status --host " + address + certificate("nobody"), "", exitNegative, "nobody.crt: no such file"},
		{"files of this host", "diff --running policy --host " + address + certificate("alice"), "", exitUsage, "files of its own host"},
		{"nobody listens", "status --host 127.0.0.1:1" + certificate("bob"), "", exitNoDaemon, "no daemon answers on 127.0.0.1:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NSGCTL_HOST", tt.env)
			var out bytes.Buffer
			if code := execute(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &out, &out); code != tt.code || !strings.Contains(out.String(), tt.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, tt.code, tt.want, &out)
			}
		})
	}
}
