package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Names of documents, and comments of captures, come from anybody.
func TestNothingIsPrintedThatATerminalWouldObey(t *testing.T) {
	const evil = "a\x1b[2Jb\r\u009bc"
	var out strings.Builder
	if err := printPacket(&out, &inspect.TracedPacket{From: evil, To: evil, Access: "Deny", Stages: []azure.VerificationStage{{NetworkSecurityGroup: evil, RuleName: evil}}}); err != nil {
		t.Fatal(err)
	}
	each := packetWriter(&out, outputTable)
	if err := each(&replay.Packet{Differs: true, Recorded: &replay.Recorded{Verdict: evil, Reason: evil}}); err != nil {
		t.Fatal(err)
	}
	table := newGrid(&out, "NAME")
	table.row(evil)
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.json")
	if err := os.WriteFile(file, []byte(`{"type": "Microsoft.Network/networkSecurityGroups", "name": "a\u001b[2J"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := execute(context.Background(), []string{"rules", "--policy", file}, nil, &out, &out); code == 0 {
		t.Error("a name that is not allowed is taken")
	}
	for i, line := range strings.Split(out.String(), "\n") {
		if line != report.Printable(line) {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}
