package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/serve/servetest"
	"github.com/nsgd/nsgd/deploy/lab"
)

// generation is that of the running policy.
func generation(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(nsgctl(t, "status", "--query", "generation"))
}

// TestADaemonIsReloadedFromElsewhereByItsFilesAndBack reloads by a client with a certificate, takes back what nobody
// confirms, and follows its files.
func TestADaemonIsReloadedFromElsewhereByItsFilesAndBack(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	ca := servetest.NewAuthority(t, dir, "ca")
	for _, name := range []string{"server", "alice", "bob"} {
		ca.Issue(name, nil)
	}
	edit(t, filepath.Join(dir, lab.ConfigName), "control: {", `watch: true
control: {listen: "127.0.0.1:0", certificate: server.crt, key: server.key, clientCA: ca.crt, mayChange: [alice], `)
	d := startIn(t, dir)
	d.expectErrors = true // what is taken back and what is refused is one
	host := strings.TrimSpace(nsgctl(t, "status", "-o", "tsv", "--query", "controlListen"))
	as := func(name string, args ...string) answer {
		return execute(t, "nsgctl", append(args, "--host", host, "--cert", ca.Path(name+".crt"), "--key", ca.Path(name+".key"), "--ca", ca.Path("ca.crt"))...)
	}
	if a := as("bob", "status"); a.code != 0 || !strings.Contains(a.stdout, "vm1-nic") {
		t.Errorf("bob looks: %v", a)
	}
	if a := as("bob", "reload"); a.code != 1 || !strings.Contains(a.stderr, "permission denied: ") {
		t.Errorf("bob reloads: %v", a)
	}
	if a := as("alice", "reload", "--confirm", "1s"); a.code != 0 || !strings.Contains(a.stdout, "generation 2") {
		t.Fatalf("alice reloads: %v", a)
	}
	eventually(t, "what nobody confirms is taken back", func() bool { return generation(t) == "3" })
	if got := nsgctl(t, "status"); !strings.Contains(got, "the policy from before is in force again") {
		t.Errorf("the status says\n%s", got)
	}
	if a := as("alice", "reload", "--confirm", "1h"); a.code != 0 {
		t.Errorf("alice reloads: %v", a)
	}
	if a := as("alice", "confirm"); a.code != 0 || a.stdout != "confirmed\n" {
		t.Errorf("alice confirms: %v", a)
	}

	edit(t, policyFile(dir, "nsg1"), `"80"`, `"8080"`)
	eventually(t, "the changed file is in force", func() bool { return strings.Contains(nsgctl(t, "rules", "--nsg", nsg1, "-o", "json"), "8080") })
	writeFile(t, policyFile(dir, "nsg1"), "{")
	eventually(t, "the faulty file is refused", func() bool { return strings.Contains(nsgctl(t, "status"), "refused for") })
	if got := nsgctl(t, "rules", "--nsg", nsg1, "-o", "json"); !strings.Contains(got, "8080") {
		t.Errorf("the rules are\n%s", got)
	}
}
