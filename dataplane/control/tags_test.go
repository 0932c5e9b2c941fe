package control_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// The daemon and the policy files give the same answers, and the same refusals.
func TestDaemonAndPolicyFilesDiagnoseAlike(t *testing.T) {
	r := newRig(t)
	offline, err := inspect.NewPolicyFiles("", r.policy).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	same := func(name string, online, files func() (any, error)) {
		t.Helper()
		fromDaemon, daemonErr := online()
		fromFiles, filesErr := files()
		if (daemonErr == nil) != (filesErr == nil) || daemonErr != nil && daemonErr.Error() != filesErr.Error() {
			t.Errorf("%s: daemon %v, files %v", name, daemonErr, filesErr)
		}
		if diff := cmp.Diff(asJSON(t, fromDaemon), asJSON(t, fromFiles)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	ctx := t.Context()
	question := func(nic, source, level string) *azure.NetworkConfigurationDiagnosticParameters {
		return &azure.NetworkConfigurationDiagnosticParameters{TargetResourceID: nic, VerbosityLevel: level, Profiles: []azure.NetworkConfigurationDiagnosticProfile{
			{Direction: "Inbound", Protocol: "TCP", Source: source, Destination: "10.0.1.4", DestinationPort: "80"},
		}}
	}
	for _, q := range []*azure.NetworkConfigurationDiagnosticParameters{
		question("vm1-nic", "203.0.113.10", ""), question("vm1-nic", "*", "Full"), question("vm9-nic", "*", ""), question("vm1-nic", "nowhere/8", ""),
	} {
		same("diagnose", func() (any, error) { return r.client.Diagnose(ctx, q) }, func() (any, error) { return ask.Diagnose(offline.Snapshot, q) })
	}
	for _, nic := range []string{"vm1-nic", "vm4-nic", "vm9-nic"} {
		same("security group view", func() (any, error) { return r.client.SecurityGroupView(ctx, nic) }, func() (any, error) { return ask.SecurityGroupView(offline.Snapshot, nic) })
	}
	same("tags", func() (any, error) { return r.client.Tags(ctx) }, func() (any, error) { return offline.Tags(), nil })
	for _, q := range []inspect.TagQuestion{
		{Name: "internet", Subnet: "Subnet1"}, {Name: "VirtualNetwork", NetworkInterface: "vm2-nic"}, {Name: "Internet"}, {Name: "Sql"}, {Name: "Internet", Subnet: "x"},
	} {
		same("tag "+q.Name, func() (any, error) { return r.client.Tag(ctx, q) }, func() (any, error) { return offline.Tag(q) })
	}
}

func TestAQuestionThatIsNoneIsABadRequest(t *testing.T) {
	r := newRig(t)
	transport := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	defer transport.CloseIdleConnections()
	for name, body := range map[string]string{
		"no JSON": "{", "an unknown key": `{"targetResourceID2": "x"}`, "two values": `{"targetResourceId": "vm1-nic", "profiles": [{"direction": "Inbound", "protocol": "TCP", "source": "*", "destination": "10.0.1.4", "destinationPort": "80"}]} {}`, "no profile": `{"targetResourceId": "vm1-nic", "profiles": []}`,
		"more than a megabyte": `{"targetResourceId": "vm1-nic",` + strings.Repeat(" ", 1<<20) + `"profiles": [{"direction": "Inbound", "protocol": "TCP", "source": "*", "destination": "10.0.1.4", "destinationPort": "80"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			response, err := transport.Post("http://nsgd/v1/diagnose", "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("status %d", response.StatusCode)
			}
		})
	}
}

// A reload told nothing about what a new service tag file changed.
func TestReloadTellsWhatANewServiceTagFileChangesForRules(t *testing.T) {
	s := newTagged(t)
	reload := func() *inspect.TagChanges {
		t.Helper()
		reloaded, err := s.service.Reload(inspect.ReloadRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return reloaded.ServiceTagChanges
	}
	if got := reload(); got != nil {
		t.Errorf("the same file: %+v", got)
	}
	s.write("377", "192.0.2.0/24")
	if got := reload(); got != nil {
		t.Errorf("another edition with the same prefixes: %+v", got)
	}
	s.write("378", `198.51.100.0/24", "192.0.2.0/25`)
	want := &inspect.TagChanges{
		Old:     inspect.ServiceTags{File: s.tags, ChangeNumber: "377", Cloud: "Public", Tags: 1},
		New:     inspect.ServiceTags{File: s.tags, ChangeNumber: "378", Cloud: "Public", Tags: 1},
		Added:   []inspect.TagSize{},
		Removed: []inspect.TagSize{},
		Changed: []inspect.TagChange{{Name: "Sql", AddedPrefixes: []string{"198.51.100.0/24", "192.0.2.0/25"}, RemovedPrefixes: []string{"192.0.2.0/24"}}},
		Rules: []inspect.RuleTagChange{{NetworkSecurityGroup: "NSG1", Direction: "Inbound", Rule: "AllowHttpInBound", Field: "sourceAddressPrefix",
			Tag: "Sql", Added: 2, Removed: 1}},
	}
	if diff := cmp.Diff(want, reload()); diff != "" {
		t.Error(diff)
	}
	s.write("379", "203.0.113.0/24")
	s.edit("nsg1.json", `"Sql"`, `"Internet"`)
	if got := reload(); got != nil {
		t.Errorf("no rule names the tag any more: %+v", got)
	}
	s.edit("nsg1.json", `"Internet"`, `"Sql"`)
	if got := reload(); got != nil {
		t.Errorf("a rule that is new has nothing from before: %+v", got)
	}
}

func TestAReloadLogsWhatANewServiceTagFileChanges(t *testing.T) {
	var log bytes.Buffer
	s := newTagged(t)
	s.logged(slog.New(slog.NewTextHandler(&log, nil)))
	s.write("377", "198.51.100.0/24")
	if _, err := s.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if want := `from=376 to=377 tags=1 rules=1 changes="rule AllowHttpInBound of NSG NSG1: Sql: +1 -1 prefixes"`; !strings.Contains(log.String(), want) {
		t.Errorf("%q is missing in\n%s", want, &log)
	}
}

// logged replaces the service by one that logs.
func (s *tagged) logged(log *slog.Logger) {
	s.t.Helper()
	files := inspect.NewPolicyFiles(s.tags, s.policy)
	set, err := files.Load()
	if err != nil {
		s.t.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	s.service = inspect.NewService(inspect.Options{Engine: engine, Policy: files, Log: log})
}

func TestATagThatNoRuleNamesIsReadFromTheFileAgain(t *testing.T) {
	s := newTagged(t)
	s.write("376", `192.0.2.0/24"]}}, {"name": "Storage.West", "properties": {"region": "west", "addressPrefixes": ["203.0.113.0/25", "2001:db8::/32`)
	if _, err := s.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	want := &inspect.TagDetails{Prefixes: []string{"203.0.113.0/25", "2001:db8::/32"},
		TagSummary: inspect.TagSummary{Name: "Storage.West", Kind: inspect.ServiceTagKind, Region: "west", IPv4: 1, IPv6: 1}}
	got, err := s.service.Tag(inspect.TagQuestion{Name: "storage.WEST"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	used, err := s.service.Tag(inspect.TagQuestion{Name: "SQL"})
	if err != nil || used.Rules != 1 || used.IPv4 != 1 {
		t.Errorf("%+v, %v", used, err)
	}
	t.Run("a file that is another one now is not", func(t *testing.T) {
		s.write("377", "198.51.100.0/24")
		if got, err := s.service.Tag(inspect.TagQuestion{Name: "Storage.West"}); err == nil || !strings.Contains(err.Error(), "has changed since it was read: reload") {
			t.Errorf("%+v, %v", got, err)
		}
		if list := s.service.Tags(); list.ServiceTags.ChangeNumber != "376" || len(list.Tags) < 5 {
			t.Errorf("%+v", list)
		}
	})
}

// bigTags is a policy whose NIC has rules for the largest tags, and the service tag file.
func bigTags(tb testing.TB) (policy, serviceTags string) {
	tb.Helper()
	policy = filepath.Join(tb.TempDir(), "policy.json")
	text := `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "nsg", "properties": {"securityRules": [
		{"name": "cloud", "properties": {"priority": 100, "direction": "Outbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
			"sourcePortRange": "*", "destinationAddressPrefix": "azurecloud", "destinationPortRange": "443"}},
		{"name": "storage", "properties": {"priority": 110, "direction": "Inbound", "access": "Deny", "protocol": "*", "sourceAddressPrefix": "STORAGE",
			"sourcePortRange": "*", "destinationAddressPrefix": "VirtualNetwork", "destinationPortRange": "*"}}]}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [
			{"name": "a", "properties": {"addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "nsg"}}}]}},
		{"type": "Microsoft.Network/networkInterfaces", "name": "nic", "properties": {"networkSecurityGroup": {"id": "nsg"}, "ipConfigurations": [
			{"name": "1", "properties": {"privateIPAddress": "10.0.1.4", "subnet": {"id": "v/a"}}}]}}]`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return policy, armtest.ServiceTags(tb)
}

func TestEffectiveExpandsTheLargestTagsWholly(t *testing.T) {
	policy, serviceTags := bigTags(t)
	offline, err := inspect.NewPolicyFiles(serviceTags, policy).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	result, err := ask.Effective(offline.Snapshot, "nic")
	if err != nil {
		t.Fatal(err)
	}
	file, err := arm.ReadServiceTags(serviceTags)
	if err != nil {
		t.Fatal(err)
	}
	texts := func(tag string) (list []string) {
		for _, p := range file.Prefixes(tag) {
			list = append(list, p.String())
		}
		return list
	}
	cloud, storage := texts("AzureCloud"), texts("Storage")
	if len(cloud) < 10_000 || len(storage) < 500 {
		t.Fatalf("AzureCloud has %d prefixes, Storage %d", len(cloud), len(storage))
	}
	if len(result.Value) != 2 {
		t.Fatalf("%d groups", len(result.Value))
	}
	for i := range result.Value {
		g := &result.Value[i]
		if (g.Association.Subnet == nil) == (g.Association.NetworkInterface == nil) {
			t.Errorf("association %+v", g.Association)
		}
		found := 0
		for j := range g.EffectiveSecurityRules {
			r := &g.EffectiveSecurityRules[j]
			switch r.Name {
			case "securityRules/cloud":
				found++
				if diff := cmp.Diff(cloud, r.ExpandedDestinationAddressPrefix); diff != "" || r.ExpandedSourceAddressPrefix != nil {
					t.Error(diff)
				}
				if *r.SourceAddressPrefix != "0.0.0.0/0" || *r.DestinationAddressPrefix != "AzureCloud" || *r.DestinationPortRange != "443-443" || *r.SourcePortRange != "0-65535" {
					t.Errorf("%+v", r)
				}
			case "securityRules/storage":
				found++
				if diff := cmp.Diff(storage, r.ExpandedSourceAddressPrefix); diff != "" || r.Protocol != "All" {
					t.Error(diff)
				}
				if diff := cmp.Diff([]string{"10.0.0.0/16", "168.63.129.16/32"}, r.ExpandedDestinationAddressPrefix); diff != "" {
					t.Error(diff)
				}
			}
		}
		if diff := cmp.Diff(cloud, g.TagMap["AzureCloud"]); found != 2 || diff != "" {
			t.Errorf("%d rules, tag map %s", found, diff)
		}
	}
}

// From the files to the answer: what nsgctl effective does.
func BenchmarkEffectiveOfTheLargestTags(b *testing.B) {
	policy, serviceTags := bigTags(b)
	b.ReportAllocs()
	for b.Loop() {
		offline, err := inspect.NewPolicyFiles(serviceTags, policy).Open(topology.Options{})
		if err != nil {
			b.Fatal(err)
		}
		result, err := ask.Effective(offline.Snapshot, "nic")
		if err != nil || len(result.Value) != 2 {
			b.Fatal(result, err)
		}
	}
}
