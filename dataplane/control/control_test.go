package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
)

func question(nic, direction, local string, port int) string {
	return fmt.Sprintf(`{"targetNicResourceId":%q,"direction":%q,"protocol":"TCP","localPort":"%d","remotePort":"60000","localIPAddress":%q,"remoteIPAddress":"203.0.113.10"}`+"\n",
		nic, direction, port, local)
}

func TestDaemonAndPolicyFilesAnswerAlike(t *testing.T) {
	r := newRig(t)
	offline, err := inspect.NewPolicyFiles("", r.policy).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	requests := question("vm1-nic", "Inbound", "10.0.1.4", 80) + question("vm9-nic", "Inbound", "10.0.1.4", 80) +
		"\n" + question("vm3-nic", "Outbound", "10.0.2.4", 1) + "{\n" + strings.TrimSuffix(question("vm1-nic", "Inbound", "10.0.1.4", 22), "\n")
	ctx := context.Background()
	for _, path := range []bool{false, true} {
		var daemon, files bytes.Buffer
		if err := r.client.Verify(ctx, path, strings.NewReader(requests), &daemon); err != nil {
			t.Fatal(err)
		}
		if err := ask.VerifyStream(offline.Snapshot, path, strings.NewReader(requests), &files); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(daemon.String(), files.String()); diff != "" {
			t.Errorf("verify with path %v: %s", path, diff)
		}
		if n := strings.Count(files.String(), "\n"); n != 5 {
			t.Errorf("%d results for 5 requests:\n%s", n, &files)
		}
	}
	for _, nic := range []string{"vm1-nic", "vm2-nic", "vm3-nic", "vm4-nic"} {
		daemon, err := r.client.Effective(ctx, nic)
		if err != nil {
			t.Fatal(err)
		}
		files, err := ask.Effective(offline.Snapshot, nic)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asJSON(t, daemon), asJSON(t, files)); diff != "" {
			t.Errorf("effective %s: %s", nic, diff)
		}
	}
	daemon, err := r.client.Rules(ctx, inspect.RuleFilter{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := inspect.Rules(offline.Snapshot, nil, inspect.RuleFilter{})
	if err != nil {
		t.Fatal(err)
	}
	daemon.Generation = files.Generation
	for i := range daemon.Rules {
		daemon.Rules[i].Counters = nil
	}
	if diff := cmp.Diff(daemon, files); diff != "" {
		t.Error(diff)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVerifyResultHasTheDocumentedForm(t *testing.T) {
	offline, err := inspect.NewPolicyFiles("", labPolicy(t)).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ask.VerifyStream(offline.Snapshot, false, strings.NewReader(question("vm1-nic", "Inbound", "10.0.1.4", 22)), &out); err != nil {
		t.Fatal(err)
	}
	want := `{"access":"Deny","ruleName":"defaultSecurityRules/DenyAllInBound","ruleId":"","networkSecurityGroup":"NSG1","reason":"rule","stages":[{"networkSecurityGroup":"NSG1","association":"subnet","direction":"Inbound","ruleName":"defaultSecurityRules/DenyAllInBound","access":"Deny","priority":65500}]}` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestVerifyAnswersEachRequestBeforeTheNextIsSent(t *testing.T) {
	r := newRig(t)
	requests, send := io.Pipe()
	receive, results := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := r.client.Verify(context.Background(), false, requests, results)
		results.CloseWithError(err)
		done <- err
	}()
	decoder := json.NewDecoder(receive)
	for port := range 3 {
		if _, err := io.WriteString(send, question("vm1-nic", "Inbound", "10.0.1.4", 80+port)); err != nil {
			t.Fatal(err)
		}
		var v ask.Verification
		if err := decoder.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{true: "Allow", false: "Deny"}[port == 0]; v.Access != want {
			t.Errorf("port %d: %s, want %s", 80+port, v.Access, want)
		}
	}
	send.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestVerifyKeepsOrderOverManyRequests(t *testing.T) {
	r := newRig(t)
	var requests strings.Builder
	const n = 10_000
	for port := range n {
		requests.WriteString(question("vm1-nic", "Inbound", "10.0.1.4", port))
	}
	var results bytes.Buffer
	if err := r.client.Verify(context.Background(), false, strings.NewReader(requests.String()), &results); err != nil {
		t.Fatal(err)
	}
	port := 0
	for line := range bytes.Lines(results.Bytes()) {
		if allowed := bytes.Contains(line, []byte(`"access":"Allow"`)); allowed != (port == 80) {
			t.Errorf("port %d: %s", port, line)
		}
		port++
	}
	if port != n {
		t.Errorf("%d results for %d requests", port, n)
	}
}

func TestVerifySkipsALineThatIsTooLong(t *testing.T) {
	offline, err := inspect.NewPolicyFiles("", labPolicy(t)).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 300_000)
	for _, end := range []string{"\n" + question("vm1-nic", "Inbound", "10.0.1.4", 80), "", "\n"} {
		var out bytes.Buffer
		if err := ask.VerifyStream(offline.Snapshot, false, strings.NewReader(long+end), &out); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if !strings.Contains(lines[0], `{"error":"line 1: longer than 65536 bytes"}`) {
			t.Errorf("first line: %s", lines[0])
		}
		if want := 1 + strings.Count(end, "{"); len(lines) != want {
			t.Errorf("%d lines, want %d: %s", len(lines), want, &out)
		}
	}
}

func TestRulesCountWhatWasSent(t *testing.T) {
	r := newRig(t)
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 22))
	ctx := context.Background()
	list, err := r.client.Rules(ctx, inspect.RuleFilter{NetworkSecurityGroup: "NSG1"})
	if err != nil {
		t.Fatal(err)
	}
	hits := map[string]uint64{}
	for _, rule := range list.Rules {
		if rule.NetworkSecurityGroup != "NSG1" {
			t.Errorf("rule of %s", rule.NetworkSecurityGroup)
		}
		if rule.Counters.Hits > 0 {
			hits[rule.RuleName] = rule.Counters.Hits
		}
	}
	want := map[string]uint64{"securityRules/AllowHttpInBound": 1, "defaultSecurityRules/DenyAllInBound": 1}
	if diff := cmp.Diff(want, hits); diff != "" {
		t.Error(diff)
	}
	unused, err := r.client.Rules(ctx, inspect.RuleFilter{NetworkSecurityGroup: "NSG1", Unused: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(unused.Rules) != len(list.Rules)-2 {
		t.Errorf("%d unused of %d rules, want all but 2", len(unused.Rules), len(list.Rules))
	}
}

func TestFlowsAreChosenByFilters(t *testing.T) {
	r := newRig(t)
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.send(internet, udp("203.0.113.11", "10.0.3.4", 53))
	r.send(0, udp("10.0.1.4", "10.0.3.4", 9))
	tests := []struct {
		name   string
		filter inspect.FlowFilter
		want   []string
		status int
	}{
		{"all", inspect.FlowFilter{}, []string{"TCP 203.0.113.10>10.0.1.4", "UDP 10.0.1.4>10.0.3.4", "UDP 203.0.113.11>10.0.3.4"}, 0},
		{"by a network interface at either end", inspect.FlowFilter{NetworkInterface: "VM1-NIC"}, []string{"TCP 203.0.113.10>10.0.1.4", "UDP 10.0.1.4>10.0.3.4"}, 0},
		{"by an address", inspect.FlowFilter{Address: "203.0.113.11"}, []string{"UDP 203.0.113.11>10.0.3.4"}, 0},
		{"by a prefix", inspect.FlowFilter{Address: "10.0.1.7/24"}, []string{"TCP 203.0.113.10>10.0.1.4", "UDP 10.0.1.4>10.0.3.4"}, 0},
		{"by a protocol", inspect.FlowFilter{Protocol: "udp"}, []string{"UDP 10.0.1.4>10.0.3.4", "UDP 203.0.113.11>10.0.3.4"}, 0},
		{"by a protocol's number", inspect.FlowFilter{Protocol: "6"}, []string{"TCP 203.0.113.10>10.0.1.4"}, 0},
		{"by all of them", inspect.FlowFilter{NetworkInterface: "vm4-nic", Address: "10.0.1.4", Protocol: "17"}, []string{"UDP 10.0.1.4>10.0.3.4"}, 0},
		{"none", inspect.FlowFilter{Protocol: "ICMP"}, nil, 0},
		{"an unknown network interface", inspect.FlowFilter{NetworkInterface: "vm9-nic"}, nil, http.StatusNotFound},
		{"no address", inspect.FlowFilter{Address: "here"}, nil, http.StatusBadRequest},
		{"no protocol", inspect.FlowFilter{Protocol: "256"}, nil, http.StatusBadRequest},
		{"a limit beyond the bound", inspect.FlowFilter{Limit: inspect.MaxFlowLimit + 1}, nil, http.StatusBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := r.client.Flows(context.Background(), tt.filter)
			if tt.status != 0 {
				wantRefusal(t, err, tt.status)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range list.Flows {
				got = append(got, fmt.Sprintf("%s %s>%s", f.Protocol, f.Source, f.Destination))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("no more than the limit", func(t *testing.T) {
		list, err := r.client.Flows(context.Background(), inspect.FlowFilter{Limit: 2})
		if err != nil || len(list.Flows) != 2 || !list.Truncated {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err = r.client.Flows(context.Background(), inspect.FlowFilter{Limit: 3}); err != nil || list.Truncated {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func wantRefusal(t *testing.T, err error, status int) *control.Error {
	t.Helper()
	var refusal *control.Error
	if !errors.As(err, &refusal) || refusal.Status != status || refusal.Message == "" {
		t.Fatalf("got %v, want a refusal with status %d", err, status)
	}
	return refusal
}

func TestFlowShowsItsRulesAndItsTraffic(t *testing.T) {
	r := newRig(t)
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	list, err := r.client.Flows(context.Background(), inspect.FlowFilter{})
	if err != nil || len(list.Flows) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	got := list.Flows[0]
	if got.ExpiresInMilliseconds <= 0 {
		t.Errorf("expires in %d ms", got.ExpiresInMilliseconds)
	}
	got.AgeMilliseconds, got.IdleMilliseconds, got.ExpiresInMilliseconds = 0, 0, 0
	want := inspect.Flow{
		Protocol: "TCP", Source: "203.0.113.10", SourcePort: 40000, Destination: "10.0.1.4", DestinationPort: 80,
		From: "internet", To: "vm1-nic", State: "syn_sent", PacketsSent: 1, BytesSent: got.BytesSent, Generation: 1,
		Rules: []inspect.FlowRule{
			{NetworkSecurityGroup: "NSG1", Direction: "Inbound", Name: "AllowHttpInBound"}, {NetworkSecurityGroup: "NSG2", Direction: "Inbound", Name: "AllowHttpInBound"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownNamesAreRefused(t *testing.T) {
	r := newRig(t)
	_, err := r.client.Effective(context.Background(), "vm9-nic")
	if refusal := wantRefusal(t, err, http.StatusNotFound); !strings.Contains(refusal.Message, "vm9-nic") {
		t.Error(refusal)
	}
	_, err = r.client.Rules(context.Background(), inspect.RuleFilter{NetworkSecurityGroup: "NSG9"})
	if refusal := wantRefusal(t, err, http.StatusNotFound); !strings.Contains(refusal.Message, "NSG9") {
		t.Error(refusal)
	}
}

// Only the NSG of the first subnet was listed when another subnet has the same one.
func TestEffectiveListsAnNSGForEverySubnetOfANIC(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.json")
	policy := `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "G", "properties": {}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "v", "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [
			{"name": "a", "addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "g"}},
			{"name": "b", "addressPrefix": "10.0.2.0/24", "networkSecurityGroup": {"id": "G"}}]},
		{"type": "Microsoft.Network/networkInterfaces", "name": "n", "networkSecurityGroup": {"id": "G"}, "ipConfigurations": [
			{"name": "1", "privateIPAddress": "10.0.1.4", "subnet": {"id": "v/A"}},
			{"name": "2", "privateIPAddress": "10.0.2.4", "subnet": {"id": "V/b"}},
			{"name": "3", "privateIPAddress": "10.0.2.5", "subnet": {"id": "V/b"}}]}]`
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	offline, err := inspect.NewPolicyFiles("", file).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	result, err := ask.Effective(offline.Snapshot, "N")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range result.Value {
		place := result.Value[i].Association.NetworkInterface
		if place == nil {
			place = result.Value[i].Association.Subnet
		}
		got = append(got, path.Base(place.ID))
	}
	if want := []string{"a", "n", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
