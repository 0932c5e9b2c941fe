package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/deploy/lab"
)

func TestReloadTakesTheNewPolicyAndKeepsFlowsAndCounters(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "81"`)
	reloaded, err := r.client.Reload(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := &inspect.Reloaded{Generation: 2, PolicyCounts: inspect.PolicyCounts{
		NetworkSecurityGroups: 2, SecurityRules: 2, VirtualNetworks: 1, Subnets: 3, NetworkInterfaces: 4}}
	if diff := cmp.Diff(want, reloaded, cmpopts.IgnoreFields(inspect.Reloaded{}, "ID")); diff != "" {
		t.Error(diff)
	}
	list, err := r.client.Rules(ctx, inspect.RuleFilter{NetworkSecurityGroup: "NSG1"})
	if err != nil {
		t.Fatal(err)
	}
	if rule := list.Rules[0]; rule.DestinationPorts[0] != "81" || rule.Counters.Hits != 1 {
		t.Errorf("%+v %+v", rule, rule.Counters)
	}
	flows, err := r.client.Flows(ctx, inspect.FlowFilter{})
	if err != nil || len(flows.Flows) != 1 {
		t.Errorf("%+v, %v", flows, err)
	}
}

func TestReloadRefusesABadPolicyWhole(t *testing.T) {
	tests := []struct {
		name string
		edit func(*rig)
		want []string // in the message
		code string   // of the first fault; empty: none
	}{
		{"a document that is not JSON", func(r *rig) { r.replaceIn("nsg1.json", `"properties": {`, `"properties": [`) }, []string{"nsg1.json"}, "any"},
		{"two faults at once", func(r *rig) {
			r.replaceIn("nsg1.json", `"priority": 100`, `"priority": 99`)
			r.replaceIn("nsg2.json", `"destinationPortRange": "80"`, `"destinationPortRange": "66600"`)
		}, []string{"nsg1.json", "nsg2.json", "99", "66600"}, "any"},
		{"an expression that only Azure can resolve", func(r *rig) {
			r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "[parameters('port')]"`)
		}, []string{"AllowHttpInBound", "parameters('port')"}, "TemplateExpression"},
		{"an attached network interface that is gone", func(r *rig) {
			if err := os.Remove(filepath.Join(r.policy, "vm1-nic.json")); err != nil {
				r.t.Fatal(err)
			}
		}, []string{"vm1-nic"}, ""},
		{"a service tag that needs a tag file", func(r *rig) { r.replaceIn("nsg1.json", `"Internet"`, `"Sql"`) },
			[]string{"nsg1.json", "networkSecurityGroups/NSG1", "AllowHttpInBound", "sourceAddressPrefix", "Sql", "AzureLoadBalancer"}, "SecurityRuleInvalidAddressPrefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			before := r.service.Snapshot()
			tt.edit(r)
			_, err := r.client.Reload(context.Background(), 0)
			refusal := wantRefusal(t, err, http.StatusUnprocessableEntity)
			for _, want := range tt.want {
				if !strings.Contains(refusal.Message, want) {
					t.Errorf("message lacks %q: %s", want, refusal.Message)
				}
			}
			if (tt.code != "") != (len(refusal.Faults) > 0) || tt.code != "" && tt.code != "any" && refusal.Faults[0].Code != tt.code {
				t.Errorf("faults: %+v", refusal.Faults)
			}
			if r.service.Snapshot() != before {
				t.Error("the running policy was touched")
			}
		})
	}
}

func TestReloadsAreBooked(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := r.service.Reloads(); got != (inspect.Reloads{Loaded: at}) {
		t.Errorf("before the first: %+v", got)
	}
	reloaded, err := r.client.Reload(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inspect.Reloads{Succeeded: 1, Last: &at, LastID: reloaded.ID, LastCause: fmt.Sprintf("user %d", os.Geteuid()), Loaded: at}, r.service.Reloads()); diff != "" {
		t.Error(diff)
	}
	r.replaceIn("nsg1.json", `"priority": 100`, `"priority": 1`)
	_, err = r.client.Reload(ctx, 0)
	refusal := wantRefusal(t, err, http.StatusUnprocessableEntity)
	want := inspect.Reloads{Succeeded: 1, Failed: 1, Last: &at, LastID: refusal.Reload, LastCause: fmt.Sprintf("user %d", os.Geteuid()), Loaded: at, LastError: refusal.Message}
	if diff := cmp.Diff(want, r.service.Reloads()); diff != "" {
		t.Error(diff)
	}
	r.replaceIn("nsg1.json", `"priority": 1,`, `"priority": 100,`)
	if _, err := r.client.Reload(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if got := r.service.Reloads(); got.LastError != "" || got.Succeeded != 2 {
		t.Errorf("after it was mended: %+v", got)
	}
}

func TestReloadMovesAddresses(t *testing.T) {
	r := newRig(t)
	r.replaceIn("vm1-nic.json", "10.0.1.4", "10.0.1.44")
	if _, err := r.client.Reload(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.1.44/24"), netip.MustParsePrefix("fd00:db8:1:1::4/64")}
	if diff := cmp.Diff(want, r.devices[0].Addresses(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if got := r.devices[1].Addresses(); got != nil {
		t.Errorf("a device without a change was set to %v", got)
	}
	status, err := r.client.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.0.1.44/24", "fd00:db8:1:1::4/64"}, status.Attachments[0].Addresses); diff != "" {
		t.Error(diff)
	}
}

func TestReloadThatCannotMoveAnAddressPutsTheOthersBack(t *testing.T) {
	r := newRig(t)
	before := r.service.Snapshot()
	r.replaceIn("vm1-nic.json", "10.0.1.4", "10.0.1.44")
	r.replaceIn("vm2-nic.json", "10.0.1.5", "10.0.1.55")
	r.broken[1].Store(true)
	_, err := r.client.Reload(context.Background(), 0)
	if refusal := wantRefusal(t, err, http.StatusUnprocessableEntity); !strings.Contains(refusal.Message, "10.0.1.55/24") {
		t.Error(refusal)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.1.4/24"), netip.MustParsePrefix("fd00:db8:1:1::4/64")}
	if diff := cmp.Diff(want, r.devices[0].Addresses(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if r.service.Snapshot() != before {
		t.Error("the running policy was touched")
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t)
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 22))
	r.eventually("the drop is counted", func() bool { return r.engine.Drops()[packet.DropRule] == 1 })
	got, err := r.client.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.Attachments[internet].ReceivePackets != 1 || len(got.Attachments) != 5 {
		t.Errorf("attachments: %+v", got.Attachments)
	}
	got.Attachments = got.Attachments[:1]
	want := &inspect.Status{
		Version: "test", PID: os.Getpid(), Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Workers: 1, Offload: "off",
		Control: r.socket, Policy: []string{r.policy}, Generation: 1, Reloads: inspect.Reloads{Loaded: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		Flows: inspect.FlowUse{Limit: got.Flows.Limit}, Fragments: inspect.FragmentUse{Limit: 16384}, Dropped: map[string]uint64{"rule_deny": 1},
		Attachments: []inspect.AttachmentStatus{{Name: "vm1-nic", Kind: "networkInterface", Device: "eth0", Namespace: "ns1",
			MTU: 1500, Addresses: []string{"10.0.1.4/24", "fd00:db8:1:1::4/64"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// logged calls said with each message.
type logged struct {
	slog.Handler
	said func(message string)
}

func (l logged) Enabled(context.Context, slog.Level) bool { return true }

func (l logged) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l logged) Handle(_ context.Context, r slog.Record) error {
	l.said(r.Message)
	return nil
}

// The prober learned of the next policy's backends after the policy was published, and until then
// a new backend counted as up.
func TestANewBackendIsDownBeforeThePolicyDecides(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, lab.Translation()); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, policy: filepath.Join(dir, "translation")}
	files := inspect.NewPolicyFiles("", r.policy)
	set, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Attachments: specs[internet:], Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 1)
	prober := probe.New(probe.Options{Socket: func(netip.Addr) (fd, zone int, err error) { return 0, 0, errors.New("nobody answers") }, Changed: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	prober.Follow(engine.Snapshot().Probes())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { prober.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	warned := false
	service := inspect.NewService(inspect.Options{Engine: engine, Policy: files, Probes: prober, Log: slog.New(logged{slog.DiscardHandler, func(message string) {
		// The policy's warnings come right behind its publication.
		warned = warned || message == "policy"
		for _, p := range engine.Snapshot().Probes() {
			if p.Up() {
				t.Errorf("%q: backend %s counts as up", message, p.Address)
			}
		}
	}})})
	r.replaceIn("shop-lb.json", `"port": 8080`, `"port": 8081`)
	const everything = `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "g"}, {"type": "Microsoft.Network/routeTables", "name": "t", "properties":
		{"routes": [{"name": "all", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualNetworkGateway"}}]}},
		{"type": "Microsoft.Network/virtualNetworks", "name": "spoke", "properties": {"addressSpace": {"addressPrefixes": ["172.16.0.0/16"]}, "subnets":
		[{"name": "a", "properties": {"addressPrefix": "172.16.1.0/24", "routeTable": {"id": "t"}, "networkSecurityGroup": {"id": "g"}}}]}}]`
	if err := os.WriteFile(filepath.Join(r.policy, "spoke.json"), []byte(everything), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if len(engine.Snapshot().Probes()) == 0 || !warned {
		t.Errorf("%d backends, warned %v", len(engine.Snapshot().Probes()), warned)
	}
	asked := func(h probe.Health) bool { return h.Asked && h.Probe.Port == 8081 }
	for slices.ContainsFunc(prober.Health(), func(h probe.Health) bool { return !asked(h) }) {
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("the new backends are not asked: %+v", prober.Health())
		}
	}
}
