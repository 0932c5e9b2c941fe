package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/suggest"
)

// What the lab has carried becomes rules: all of it passes under them, live, and nothing else does.
func TestWhatTheLabHasCarriedBecomesRules(t *testing.T) {
	d := start(t, labPolicy(), "tcpStrict: true")
	serveTCP(t, vm1, 80)
	serveTCP(t, vm3, 5432)
	serveTCP(t, vm3, 5433)
	ends := mustConnect(t, internet, vm1, 80)
	if err := ends.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	ends.Close() // with an RST
	live := mustConnect(t, vm1, vm3, 5432)
	mustConnect(t, vm4, vm3, 5432)
	mustNotConnect(t, internet, vm1, 22)
	eventually(t, "a flow has ended", func() bool {
		return len(answered[inspect.EndedList](t, "flows", "--since", "10m").Flows) > 0
	})

	policy := d.dir + "/policy"
	result := answered[suggest.Result](t, "suggest", "--policy", policy)
	p := result.Proof
	if p.Judged == 0 || p.Allowed != p.Judged || len(p.Beyond) != 0 || len(result.Groups) != 2 {
		t.Fatalf("%+v %+v", result.Groups, p)
	}
	for i := range result.Diff.Changes {
		if c := &result.Diff.Changes[i]; c.Kind == "allowed" {
			t.Errorf("newly allowed: %+v", c)
		}
	}
	denied := answered[suggest.Result](t, "suggest", "--policy", policy, "--denied")
	if denied.Seen.Denied == 0 || denied.Proof.Judged <= p.Judged {
		t.Errorf("with what was denied: %+v", denied.Seen)
	}

	// The document's rules take the place of the lab's.
	var document struct {
		Resources []struct {
			Name       string
			Properties map[string]any
		}
	}
	if err := json.Unmarshal([]byte(nsgctl(t, "suggest", "--policy", policy)), &document); err != nil {
		t.Fatal(err)
	}
	for _, r := range document.Resources {
		editDocument(t, d.dir, strings.ToLower(r.Name), func(properties map[string]any) { properties["securityRules"] = r.Properties["securityRules"] })
	}
	nsgctl(t, "reload")
	mustEcho(t, live)
	mustConnect(t, internet, vm1, 80)
	mustConnect(t, vm1, vm3, 5432)
	mustConnect(t, vm4, vm3, 5432)
	mustNotConnect(t, vm1, vm3, 5433)
	mustNotConnect(t, vm3, vm1, 80)
	mustNotConnect(t, internet, vm1, 22)
	if out := nsgctl(t, "optimize", policy, "-o", "table"); !strings.Contains(out, "no rule can go") {
		t.Errorf("optimize finds more: %s", out)
	}
}
