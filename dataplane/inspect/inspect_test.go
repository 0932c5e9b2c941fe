package inspect

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset/azure"
)

func TestACommentIsWordsWhateverTheNamesAre(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet TracedPacket
		want   string
	}{
		{"denied", TracedPacket{Access: "Deny", Reason: "rule_deny", Flow: "none", To: "vm1-nic", Segments: 1,
			Stages: []azure.VerificationStage{{NetworkSecurityGroup: "NSG2", RuleName: "securityRules/a"}, {NetworkSecurityGroup: "NSG1", RuleName: "securityRules/b"}}},
			"verdict=Deny nsg=NSG1 rule=securityRules/b reason=rule_deny flow=none to=vm1-nic by=NSG2/securityRules/a,NSG1/securityRules/b"},
		{"a superpacket", TracedPacket{Access: "Allow", Flow: "live", Direction: "reply", Segments: 44}, "verdict=Allow flow=live direction=reply segments=44"},
		{"a name that would say something else", TracedPacket{Access: "Deny", Flow: "none", To: "x\nverdict=Allow"}, `verdict=Deny flow=none to="x\nverdict=Allow"`},
		{"a name with a comma", TracedPacket{Access: "Deny", Flow: "none", To: "x,y"}, `verdict=Deny flow=none to="x,y"`},
		{"a name with an escape", TracedPacket{Access: "Deny", Flow: "none", To: "\x1b[2J"}, `verdict=Deny flow=none to="\x1b[2J"`},
	} {
		if got := comment(&tt.packet); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Unknown tags came after the faults of all documents.
func TestFaultsOfUnknownTagsComeInTheOrderOfTheDocuments(t *testing.T) {
	const before = `{"type": "Microsoft.Network/networkSecurityGroups", "name": "g-`
	const middle = `", "properties": {"securityRules": [{"name": "r", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow",
		"protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*", "destinationAddressPrefix": "*", "sourceAddressPrefix": "`
	dir := t.TempDir()
	for name, source := range map[string]string{"a": "Sql", "b": "10.0.0.1/8", "c": "Storage", "d": "10.0.0.2/8"} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(before+name+middle+source+`"}}]}}`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := NewPolicyFiles("", dir).Load()
	var policy *PolicyError
	if !errors.As(err, &policy) {
		t.Fatal(err)
	}
	var values []string
	for _, f := range policy.Faults {
		values = append(values, f.Value)
	}
	if want := []string{"Sql", "10.0.0.1/8", "Storage", "10.0.0.2/8"}; !slices.Equal(values, want) {
		t.Errorf("got %q, want %q", values, want)
	}
}

func TestFlowFilterIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		filter FlowFilter
		want   string // of the error; empty: none
	}{
		{"nothing", FlowFilter{}, ""},
		{"the greatest limit", FlowFilter{Limit: MaxFlowLimit}, ""},
		{"a limit beyond the bound", FlowFilter{Limit: MaxFlowLimit + 1}, `limit: "100001": allowed are 1 to 100000`},
		{"a limit below zero", FlowFilter{Limit: -1}, `limit: "-1"`},
		{"an address with a zone", FlowFilter{Address: "fe80::1%eth0"}, `address: "fe80::1%eth0"`},
		{"a mistyped protocol", FlowFilter{Protocol: "TPC"}, `protocol: "TPC": allowed are TCP, UDP`},
	} {
		err := tt.filter.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestTopQuestionsAreBounded(t *testing.T) {
	for limit, ok := range map[int]bool{-1: false, 0: true, 1: true, MaxTopLimit: true, MaxTopLimit + 1: false} {
		if err := (&TopQuestion{View: TopFlows, Limit: limit}).complete(); (err == nil) != ok {
			t.Errorf("limit %d: error %v", limit, err)
		}
	}
}

// device keeps its addresses, and takes the next ones only in part once it is broken.
type device struct {
	now    []netip.Prefix
	broken bool
}

func (d *device) Name() string { return "eth0" }

func (d *device) SetAddresses(list []netip.Prefix) error {
	if d.broken {
		d.broken = false
		d.now = list[:1]
		return errors.New("broken")
	}
	d.now = list
	return nil
}

func TestDevicesGetTheirAddressesBack(t *testing.T) {
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	old, next := prefixes("10.0.0.4/24", "10.0.0.5/24"), prefixes("10.0.0.6/24", "10.0.0.7/24")
	devices := []*device{{now: old}, {now: old, broken: true}, {now: old}}
	var moves []readdressing
	for _, d := range devices {
		moves = append(moves, readdressing{d, old, next})
	}
	if err := readdress(moves); err == nil {
		t.Error("no error")
	}
	for i, d := range devices {
		if !slices.Equal(d.now, old) {
			t.Errorf("device %d has %v", i, d.now)
		}
	}
}
