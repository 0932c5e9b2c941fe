package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// request is one line of nsgctl verify --requests, in Azure's own names.
type request struct {
	NetworkInterface string `json:"targetNicResourceId"`
	Direction        string `json:"direction"`
	Protocol         string `json:"protocol"`
	LocalAddress     string `json:"localIPAddress"`
	LocalPort        string `json:"localPort"`
	RemoteAddress    string `json:"remoteIPAddress"`
	RemotePort       string `json:"remotePort"`
}

// requestFor asks about a probe at its source's network interface, or at its
// destination's when it comes from the internet.
func requestFor(r lab.Result) request {
	nic := func(h lab.Host) string { return strings.ToLower(h.Name) + "-nic" }
	q := request{nic(r.Source), "Outbound", string(r.Protocol),
		r.Source.Address.String(), "50000", r.Destination.Address.String(), fmt.Sprint(r.Port)}
	if r.Source.Name == internet.Name {
		q = request{nic(r.Destination), "Inbound", string(r.Protocol),
			r.Destination.Address.String(), fmt.Sprint(r.Port), r.Source.Address.String(), "50000"}
	}
	return q
}

// verifyAll answers requests in one run of nsgctl.
func verifyAll(t *testing.T, requests []request, more ...string) []verdict {
	t.Helper()
	var lines strings.Builder
	encoder := json.NewEncoder(&lines)
	for _, q := range requests {
		if err := encoder.Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "requests.jsonl")
	writeFile(t, file, lines.String())
	out := nsgctl(t, append([]string{"verify", "--requests", file, "-o", "json"}, more...)...)
	var verdicts []verdict
	for line := range strings.Lines(out) {
		var v verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %d: %q: %v", len(verdicts)+1, line, err)
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) != len(requests) {
		t.Fatalf("%d answers to %d requests", len(verdicts), len(requests))
	}
	return verdicts
}

func TestVerifyAnswersTenThousandRequestsInOneRun(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		var requests []request
		for i := range 10_000 {
			requests = append(requests, request{"vm1-nic", "Inbound", "TCP",
				f.vm1.Address.String(), fmt.Sprint(i), f.internet.Address.String(), "50000"})
		}
		for port, v := range verifyAll(t, requests) {
			want := "Deny"
			if port == 80 {
				want = "Allow"
			}
			if v.Access != want {
				t.Errorf("port %d: %+v, want %s", port, v, want)
			}
		}
	})
}

func TestVerifySaysWhatTheWireDoesForEveryPairOfTheLab(t *testing.T) {
	policies := []struct {
		name string
		p    groupRules
	}{
		{"under the policy of the figure", labPolicy()},
		{"under a policy that lets nothing through", groups(closed(), closed())},
	}
	for _, tt := range policies {
		t.Run(tt.name, func(t *testing.T) {
			start(t, tt.p)
			carriesTheLab(t)
		})
	}
}

// carriesTheLab sends every probe of the lab's figure, and holds what passes to what nsgctl says.
func carriesTheLab(t *testing.T) {
	t.Helper()
	stop, err := lab.Serve(context.Background(), lab.AllHosts(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	// A first round, without verdicts, is only the list of what is sent.
	first, err := lab.Run(context.Background(), lab.AllHosts(), lab.Options{Timeout: silence})
	if err != nil {
		t.Fatal(err)
	}
	var requests []request
	for _, r := range first {
		requests = append(requests, requestFor(r))
	}
	verdicts := map[request]verdict{}
	for i, v := range verifyAll(t, requests, "--path") {
		verdicts[requests[i]] = v
	}
	results, err := lab.Run(context.Background(), lab.AllHosts(), lab.Options{
		Timeout: 10 * silence, // all are sent at once
		Explain: func(r lab.Result) (string, string, bool) {
			v := verdicts[requestFor(r)]
			return v.NetworkSecurityGroup, v.RuleName, v.Access == "Allow"
		},
	})
	if err != nil {
		var table strings.Builder
		lab.Table(&table, results)
		t.Errorf("%v\n%s", err, &table)
	}
}

func TestLabRunsWithoutAConfiguration(t *testing.T) {
	needWorld(t)
	d := launch(t, "run")
	d.waitFor(d.stdout, "/metrics")
	out := d.stdout.String()
	if rows := strings.Count(out, "TCP/8080"); rows != 20 {
		t.Errorf("%d pairs in the table, want 20:\n%s", rows, out)
	}
	for _, outcome := range []string{"allowed  allowed", "denied   denied"} {
		if !strings.Contains(out, outcome) {
			t.Errorf("nothing is %s over both families:\n%s", outcome, out)
		}
	}
	for _, want := range []string{"IPV4", "IPV6", "DenyAllInBound", "AllowHttpInBound", "nsgctl", "ip netns exec", "9646"} {
		if !strings.Contains(out, want) {
			t.Errorf("output does not name %s:\n%s", want, out)
		}
	}
	if strings.Contains(out, "MISMATCH") {
		t.Errorf("wire and verdict disagree:\n%s", out)
	}
	// It stays up, servers included.
	d.waitFor(d.stdout, "stays up until Ctrl-C")
	for _, pair := range [][2]lab.Host{{internet, vm1}, {vm3, vm1}, {vm1, vm4}, {vm4, internet}} {
		mustConnect(t, pair[0], pair[1], 80)
	}
	mustConnect(t, vm1, vm4, 8080)
	mustNotConnect(t, internet, vm1, 8080)
	for _, url := range []string{"http://10.0.1.4/", "http://[fd00:db8:1:1::4]/"} {
		out, err := exec.Command("ip", "netns", "exec", internet.Namespace, "curl", "-sS", "-m", "30", url).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "VM1 ") {
			t.Errorf("curl %s: %v: %s", url, err, out)
		}
	}
	d.stop(os.Interrupt)
}

func TestToolWithoutADaemonSaysSo(t *testing.T) {
	needWorld(t)
	a := execute(t, "nsgctl", "status")
	if a.code != 3 {
		t.Errorf("exit %d, want 3: %v", a.code, a)
	}
	if _, err := os.Stat(controlSocket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", controlSocket, err)
	}
}
