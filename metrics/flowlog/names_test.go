package flowlog

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMACAddresses(t *testing.T) {
	for _, written := range []string{"00-0d-3a-F8-78-56", "000d3af87856", "00:0D:3A:F8:78:56"} {
		if got := macOf(written, "/nic"); got != macA {
			t.Errorf("%s is %s", written, got)
		}
	}
	made := regexp.MustCompile(`^02[0-9A-F]{10}$`)
	for _, written := range []string{"", "[parameters('mac')]", "00-0D-3A", "00-0D-3A-F8-78-5G"} {
		got := macOf(written, "/NIC/a")
		if !made.MatchString(got) || got != macOf("", "/nic/A") || got == macOf("", "/nic/b") {
			t.Errorf("%q is %s", written, got)
		}
	}
}

func TestIDsLeadNowhereButBelow(t *testing.T) {
	for id, want := range map[string]string{
		"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/n": "/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/N",
		"/subscriptions//resourceGroups//providers/Microsoft.Network/networkSecurityGroups/n":   "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/NSGD/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/N",
		"/a/../../../etc/cron.d/x":                      "/A/_*/_*/_*/ETC/CRON.D/X",
		"/a//" + strings.Repeat("x", 300) + "/\x00\n\\": "/A/_*/_*/___",
	} {
		got := strings.TrimPrefix(nsgFolder(id), nsgContainer+"/resourceId=")
		if ok, err := filepath.Match(want, got); !ok || err != nil {
			t.Errorf("%q leads to %q, want %q", id, got, want)
		}
	}
}

func TestTheMostParticularLogHasTheRows(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	r := newRig(t, midnight,
		Log{Version: VNet, Target: "net", Folder: in("network")}, Log{Version: VNet, Target: "net/front", Folder: in("subnet")},
		Log{Version: VNet, Target: shop + "networkInterfaces/b", Folder: in("nic")},
		Log{Version: NSG, Folder: in("others")}, Log{Version: NSG, Target: "nic-nsg", Folder: in("nsg")})
	for port := range uint16(3) {
		r.send(vmB, packettest.UDP(packettest.Spec{Src: addrB, Dst: addrA, SrcPort: 1000 + port, DstPort: 53}))
		r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 2000 + port, DstPort: 123}))
	}
	r.wait(time.Second)
	r.minute()
	r.end()
	for name, want := range map[string]int{"subnet": 12, "nic": 6, "nsg": 6, "others": 6} {
		rows, err := flowlogtest.ReadFolder(in(name))
		if err != nil || len(rows) != want {
			t.Errorf("%s has %d rows, want %d: %v", name, len(rows), want, err)
		}
	}
	if rows, err := flowlogtest.ReadFolder(in("network")); err == nil {
		t.Errorf("the network's log has %d rows", len(rows))
	}
}

// The flow logs of a policy's network watchers say what Azure would log, and under which names.
func TestTheLogsOfThePolicyHaveTheirRows(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, midnight, Log{Version: VNet, FromPolicy: true, Folder: filepath.Join(folder, "vnet")}, Log{Version: NSG, FromPolicy: true, Folder: filepath.Join(folder, "nsg")})
	p := testPolicy("web", "no-evil")
	p.FlowLogs = []*policy.FlowLog{{Name: "of-front", Subnet: p.VirtualNetworks[0].Subnets[0]}, {Name: "of-nic", NetworkSecurityGroup: p.NetworkSecurityGroups[1]}}
	r.reload(p)
	for port := range uint16(3) {
		r.send(vmB, packettest.UDP(packettest.Spec{Src: addrB, Dst: addrA, SrcPort: 1000 + port, DstPort: 53}))
		r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 2000 + port, DstPort: 123}))
	}
	r.wait(time.Second)
	r.minute()
	r.end()
	for name, want := range map[string]int{"vnet": 12, "nsg": 6} {
		rows, err := flowlogtest.ReadFolder(filepath.Join(folder, name))
		if err != nil || len(rows) != want {
			t.Errorf("%s has %d rows, want %d: %v", name, len(rows), want, err)
		}
	}
	if named, err := filepath.Glob(filepath.Join(folder, "vnet", vnetContainer, "flowLogResourceID=", "*", "*_OF-FRONT")); err != nil || len(named) != 1 {
		t.Errorf("named %v, %v", named, err)
	}
}

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	p := testPolicy("web", "no-evil")
	for name, tt := range map[string]struct {
		logs []Log
		want string
	}{
		"an NSG that is not there":       {[]Log{{Version: VNet}, {Version: NSG, Target: "nig-nsg"}}, `flowLogs[1].target: network security group "nig-nsg"`},
		"a network that is not there":    {[]Log{{Version: VNet, Target: "nett"}}, `flowLogs[0].target: "nett" is no virtual network, subnet or network interface`},
		"a target twice":                 {[]Log{{Version: VNet, Target: "net"}, {Version: NSG}, {Version: VNet, Target: p.VirtualNetworks[0].ID}}, "flowLogs[0] logs that already"},
		"everything twice":               {[]Log{{Version: NSG}, {Version: NSG}}, "flowLogs[0] logs that already"},
		"everything once in each format": {[]Log{{Version: NSG}, {Version: VNet}}, ""},
	} {
		err := Check(p, tt.logs)
		if got := ""; err != nil || tt.want != "" {
			if err != nil {
				got = err.Error()
			}
			if tt.want == "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %q, want %q", name, got, tt.want)
			}
		}
	}
}

// A reload that takes a log's target away ends its rows, not the daemon.
func TestATargetThatIsGoneIsAnErrorThatIsCounted(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Target: "nic-nsg", Folder: t.TempDir()})
	p := testPolicy("web", "no-evil")
	p.NetworkSecurityGroups, p.NetworkInterfaces[0].NetworkSecurityGroup = p.NetworkSecurityGroups[:1], nil
	r.reload(p)
	r.minute()
	if n := r.recorder.Stats().Errors; n != 1 {
		t.Errorf("%d errors, want 1", n)
	}
	r.end()
}

func TestMetricsPassTheLinter(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	problems, err := testutil.CollectAndLint(r.recorder)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n := testutil.CollectAndCount(r.recorder); n != 12 {
		t.Errorf("%d series, want 12", n)
	}
	r.end()
}
