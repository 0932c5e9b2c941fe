package e2e

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// Whatever counts packets counts the same ones: the metrics, the flow logs, and a replay of the
// capture that ran meanwhile.
func TestMetricsFlowLogsAndReplayOfTheCaptureAgree(t *testing.T) {
	needWorld(t)
	folder, file := filepath.Join(t.TempDir(), "logs"), filepath.Join(t.TempDir(), "all.pcapng")
	d := start(t, labPolicy(), "flowLogInterval: 1s", "flowLogs: [{version: nsg2, folder: "+folder+"}]")
	before := scrape(t)
	capture := watchPackets(t, "capture", "-w", file)
	sent := 0
	eachFamily(t, func(t *testing.T, f family) {
		trafficOfAllKinds(t, f)
		sent++
	})
	counted := atRest(t, func(s samples) bool {
		return s.drops("rule_deny")-before.drops("rule_deny") >= float64(sent*deniedOfAllKinds)
	})
	capture.end()
	if !strings.Contains(capture.stderr.String(), " 0 lost") {
		t.Fatalf("%s", capture.stderr)
	}
	answer := execute(t, "nsgctl", "replay", "--policy", filepath.Join(d.dir, "policy"), "--compare", "-o", "json", file)
	if answer.code != 0 {
		t.Fatal(answer)
	}
	again := replayed(t, answer.stdout)
	d.stop(syscall.SIGTERM)
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}

	if superpackets := tshark(t, file, "frame.comment"); !strings.Contains(joined(superpackets), "segments=") {
		t.Error("no superpacket was captured")
	}
	agreeWithReplay(t, before, counted, again)
	agreeWithFlowLogs(t, before, counted, rows)
}

// deniedOfAllKinds is how many packets of trafficOfAllKinds rules deny at least: a refused SYN, datagrams,
// an echo request.
const deniedOfAllKinds = 1 + 20 + 1

// trafficOfAllKinds is TCP, UDP and ICMP, allowed and denied, small packets and superpackets.
func trafficOfAllKinds(t *testing.T, f family) {
	t.Helper()
	serveTCP(t, f.vm3, 80)
	serveTCP(t, f.vm4, 8080)
	for _, conn := range []net.Conn{mustConnect(t, f.internet, f.vm3, 80), mustConnect(t, f.vm1, f.vm4, 8080)} {
		const size = 768 << 10 // echoed, in superpackets; of all connections less than what a capture holds that nobody reads
		echoes(t, conn, size)
		conn.Close()
	}
	mustNotConnect(t, f.internet, f.vm1, 8080)
	vm3, vm4 := bindUDP(t, f.vm3, 0), bindUDP(t, f.vm4, 0)
	send(t, vm3, address(vm4), 25, 1000)
	receive(t, vm4, 25)
	send(t, vm4, address(vm3), 5, 60)
	receive(t, vm3, 5)
	send(t, bindUDP(t, f.internet, 0), address(vm3), 20, 64)
	mustPing(t, f.vm4, f.vm1)
	mustNotPing(t, f.internet, f.vm1)
}

// summary is what replay -o json says at its end.
type summary struct {
	Complete         bool
	OutOfOrder       uint64
	Skipped, Dropped map[string]uint64
	Flows            struct{ Created uint64 }
	Comparison       struct{ Compared, Differences uint64 }
	Rules            []struct {
		NetworkSecurityGroup, Direction, Name, Access string
		Counters                                      struct{ Hits, Packets, Bytes float64 }
	}
}

func replayed(t *testing.T, lines string) *summary {
	t.Helper()
	text := strings.TrimSpace(lines)
	var last struct{ Summary *summary }
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &last); err != nil || last.Summary == nil {
		t.Fatalf("%v in %s", err, text)
	}
	return last.Summary
}

func joined(rows [][]string) string {
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	return b.String()
}

// agreeWithReplay holds every rule's counters, the drops and the flows against those of the replay.
func agreeWithReplay(t *testing.T, before, after samples, again *summary) {
	t.Helper()
	if !again.Complete || len(again.Skipped) > 0 || again.OutOfOrder > 0 || again.Comparison.Compared == 0 {
		t.Errorf("the replay is not whole: %+v", again)
	}
	met := map[string]bool{}
	for _, r := range again.Rules {
		key := decided{r.NetworkSecurityGroup, r.Direction, r.Name, r.Access}
		got := (counts{t, before, after}).rule(key)
		if want := (ruleCount{r.Counters.Hits, r.Counters.Packets, r.Counters.Bytes}); got != want {
			t.Errorf("%+v: metrics %+v, replay %+v", key, got, want)
		}
		met[sampleKey("nsgd_rule_packets_total", map[string]string{"network_security_group": key.group, "direction": key.direction, "rule": key.rule, "access": key.access})] = true
	}
	reasons := 0
	for key, value := range after {
		switch reason, isDrop := strings.CutPrefix(key, "nsgd_drops_total,reason="); {
		case strings.HasPrefix(key, "nsgd_rule_packets_total,") && value != before[key] && !met[key]:
			t.Errorf("%s went from %v to %v, and the replay has none", key, before[key], value)
		case isDrop && reason != kernelNoise && value-before[key] != float64(again.Dropped[reason]):
			t.Errorf("%v packets dropped as %s, %d in the replay", value-before[key], reason, again.Dropped[reason])
		case isDrop:
			reasons++
		}
	}
	if reasons == 0 || len(met) < 6 {
		t.Errorf("%d reasons and %d rules were compared", reasons, len(met))
	}
	if created := after[sampleKey("nsgd_flows_created_total", nil)] - before[sampleKey("nsgd_flows_created_total", nil)]; created != float64(again.Flows.Created) {
		t.Errorf("%v flows, %d in the replay", created, again.Flows.Created)
	}
}

// kernelNoise is what kernels send at any time: it may come between a scrape and the capture's beginning
// or end, and meets no rule.
const kernelNoise = "kernel_noise"

// agreeWithFlowLogs holds the rules of TCP and UDP, which alone are logged, against the rows. A flow is logged
// under one NSG of each end, so NSG1's and NSG2's rules for what VM1 sends are the same rows.
func agreeWithFlowLogs(t *testing.T, before, after samples, rows []flowlogtest.Row) {
	t.Helper()
	sums, _, _ := addUp(rows)
	vm1Out := sums[logKey{nsg1, "O", "DefaultRule_AllowVnetOutBound"}]
	for _, tt := range []struct {
		key  logKey
		rule decided
		also logged // rows of other flows on which the rule counts too
		icmp float64
	}{
		{key: logKey{nsg2, "I", "UserRule_" + allowHTTPIn.name}, rule: allowedIn(nsg2)},
		{key: logKey{nsg2, "O", "DefaultRule_AllowVnetOutBound"}, rule: decided{nsg2, "Outbound", "AllowVnetOutBound", "Allow"}, also: vm1Out},
		{key: logKey{nsg1, "O", "DefaultRule_AllowVnetOutBound"}, rule: decided{nsg1, "Outbound", "AllowVnetOutBound", "Allow"}},
		{key: logKey{nsg2, "I", "DefaultRule_DenyAllInBound"}, rule: deniedIn(nsg2)},
		{key: logKey{nsg1, "I", "DefaultRule_DenyAllInBound"}, rule: deniedIn(nsg1), icmp: 2}, // an echo request a family
	} {
		got, want := sums[tt.key], (counts{t, before, after}).rule(tt.rule)
		if got.packets+tt.also.packets+got.denied != want.packets-tt.icmp || got.packets+got.denied == 0 {
			t.Errorf("%+v: flow logs %+v and %+v, metrics %+v, of which ICMP %v", tt.key, got, tt.also, want, tt.icmp)
		}
		if got.denied == 0 && got.bytes+tt.also.bytes != want.bytes {
			t.Errorf("%+v: flow logs %+v and %+v, metrics %+v", tt.key, got, tt.also, want)
		}
	}
}
