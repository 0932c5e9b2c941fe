package replay

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// with is the lab's policy with another port open in NSG1.
func with(t testing.TB, port uint16) *policy.Set {
	set := labPolicy(t)
	for _, g := range set.NetworkSecurityGroups {
		for i := range g.Rules {
			if g.Name == "NSG1" && g.Rules[i].Name == "AllowHttpInBound" {
				g.Rules[i].DestinationPorts = []ruleset.PortRange{{First: port, Last: port}}
			}
		}
	}
	return set
}

// told are the changed flows of an answer in lines.
func told(a *Against) (lines []string) {
	for _, f := range a.List {
		lines = append(lines, fmt.Sprintf("%s %s %s:%d>%s:%d %s %d packets %d bytes: %s %s/%s, %s %s/%s", f.Kind, f.Protocol, f.Source, f.SourcePort, f.Destination, f.DestinationPort,
			f.NetworkInterface, f.Packets, f.Bytes, f.Old.Access, f.Old.NetworkSecurityGroup, f.Old.Rule, f.New.Access, f.New.NetworkSecurityGroup, f.New.Rule))
	}
	return lines
}

// A connection whose beginning the other policy denies counts with all its packets: without the SYN there are none.
func TestTheFlowsOfACaptureThatFareOtherwise(t *testing.T) {
	old, new := with(t, 80), with(t, 22)
	file := ngFile(t, []string{"internet", "vm2-nic"},
		sent{0, 0, tcp(world, addr2, 4000, 80, "S", 0), 0},
		sent{1 * time.Millisecond, 1, tcp(addr2, world, 80, 4000, "SA", 0), 0},
		sent{2 * time.Millisecond, 0, tcp(world, addr2, 4000, 80, "A", 100), 0},
		sent{3 * time.Millisecond, 0, tcp(world, addr2, 4001, 22, "S", 0), 0},
		sent{4 * time.Millisecond, 0, tcp(world, addr2, 4001, 22, "S", 0), 0},
		sent{5 * time.Millisecond, 1, tcp(addr2, world, 4002, 443, "S", 0), 0})
	for _, of := range []struct {
		name string
		nics []string
	}{{"the whole path", nil}, {"the rules of a network interface", []string{"vm2-nic"}}} {
		t.Run(of.name, func(t *testing.T) {
			_, s := play(t, Options{Policy: old, Against: new, Changed: 10, NetworkInterfaces: nics(t, old, of.nics...)}, file)
			want := []string{
				"denied TCP 203.0.113.10:4000>10.0.1.5:80  3 packets 220 bytes: Allow NSG1/AllowHttpInBound, Deny NSG1/DenyAllInBound",
				"allowed TCP 203.0.113.10:4001>10.0.1.5:22  2 packets 80 bytes: Deny NSG1/DenyAllInBound, Allow NSG1/AllowHttpInBound",
			}
			if diff := cmp.Diff(want, told(s.Against)); diff != "" {
				t.Error(diff)
			}
			if a := s.Against; a.Flows != 2 || a.Packets != 5 || len(a.ByRule) != 2 || a.Truncated || a.Recorded {
				t.Errorf("%+v", a)
			}
			if s.Allowed.Packets != 4 {
				t.Errorf("%d packets are allowed by the policy itself", s.Allowed.Packets)
			}
		})
	}
}

func TestThePolicyIsComparedWithNothingElse(t *testing.T) {
	set := with(t, 80)
	file := ngFile(t, []string{"internet", "vm2-nic"}, sent{0, 0, syn(world, addr2, 4000, 80), 0}, sent{0, 0, syn(world, addr2, 4000, 81), 0})
	if _, s := play(t, Options{Policy: set}, file); s.Against != nil || s.FlowLogs != nil {
		t.Errorf("%+v, %+v", s.Against, s.FlowLogs)
	}
	if _, s := play(t, Options{Policy: set, Against: with(t, 80), Changed: 10}, file); s.Against.Flows != 0 || len(s.Against.List) != 0 {
		t.Errorf("the same policy: %+v", s.Against)
	}
}

// log is a flow log of version 2 with these rows of a network interface.
func log(mac string, rows ...string) []byte {
	return fmt.Appendf(nil, `{"records":[{"time":"2026-03-01T12:00:35.3899262Z","category":"NetworkSecurityGroupFlowEvent","resourceId":"/SUBSCRIPTIONS/S/NETWORKSECURITYGROUPS/NSG1",
		"properties":{"Version":2,"flows":[{"rule":"UserRule_AllowHttpInBound","flows":[{"mac":%q,"flowTuples":["%s"]}]}]}}]}`, mac, strings.Join(rows, `","`))
}

const (
	httpBegins = "1772366435,203.0.113.10,10.0.1.5,4000,80,T,I,A,B,,,,"
	httpEnds   = "1772366495,203.0.113.10,10.0.1.5,4000,80,T,I,A,E,3,300,2,200"
	sshDenied  = "1772366436,203.0.113.10,10.0.1.5,4001,22,T,I,D,B,,,,"
	dnsBegins  = "1772366437,10.0.1.5,203.0.113.10,4002,53,U,O,A,B,,,,"
)

func TestFlowLogsUnderTwoPolicies(t *testing.T) {
	denied := "denied TCP 203.0.113.10:4000>10.0.1.5:80 vm2-nic 5 packets 500 bytes: Allow NSG1/AllowHttpInBound, Deny NSG1/DenyAllInBound"
	allowed := "allowed TCP 203.0.113.10:4001>10.0.1.5:22 vm2-nic 0 packets 0 bytes: Deny NSG1/DenyAllInBound, Allow NSG1/AllowHttpInBound"
	tests := []struct {
		name    string
		against *policy.Set
		nics    []string
		rows    []string
		want    []string
		differs uint64
		skipped map[string]uint64
	}{
		{"the other policy opens one port and closes one", with(t, 22), nil, []string{httpBegins, sshDenied, dnsBegins, httpEnds}, []string{denied, allowed}, 0, nil},
		{"the policy as the log records it", nil, nil, []string{httpBegins, sshDenied, dnsBegins, httpEnds}, nil, 0, nil},
		{"a policy that denies what is recorded as allowed", nil, nil, []string{"1772366435,203.0.113.10,10.0.1.5,4000,81,T,I,A,B,,,,"},
			[]string{"denied TCP 203.0.113.10:4000>10.0.1.5:81 vm2-nic 0 packets 0 bytes: Allow NSG1/AllowHttpInBound, Deny NSG1/DenyAllInBound"}, 1, nil},
		{"rows of others than the chosen network interface", with(t, 22), []string{"vm3-nic"}, []string{httpBegins}, nil, 0, map[string]uint64{"other_addresses": 1}},
		{"addresses that the policy has not", with(t, 22), nil, []string{"1772366435,203.0.113.10,10.9.1.5,4000,81,T,I,A,B,,,,"}, nil, 0, map[string]uint64{"other_addresses": 1}},
		{"rows that are not understood", with(t, 22), nil, []string{"x", httpBegins, httpEnds}, []string{denied}, 0, map[string]uint64{"malformed": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := with(t, 80)
			_, s := play(t, Options{Policy: old, Against: tt.against, Changed: 10, NetworkInterfaces: nics(t, old, tt.nics...)}, log("000D3AF87856", tt.rows...))
			if diff := cmp.Diff(tt.want, told(s.Against)); diff != "" {
				t.Error(diff)
			}
			if tt.skipped == nil {
				tt.skipped = map[string]uint64{}
			}
			if diff := cmp.Diff(tt.skipped, s.FlowLogs.Skipped); diff != "" {
				t.Error(diff)
			}
			if l := s.FlowLogs; l.RecordedDiffers != tt.differs || l.Rows != uint64(len(tt.rows)) || l.Records != 1 || len(l.Missing) == 0 || s.Against.Recorded != (tt.against == nil) {
				t.Errorf("%+v, %+v", l, s.Against)
			}
		})
	}
}

// Where virtual networks have the same address, the MAC address tells; and what is in one policy alone is compared with
// nothing.
func TestWhoARowIsAbout(t *testing.T) {
	two := func() *policy.Set {
		set := with(t, 80)
		other := *set.VirtualNetworks[0]
		other.Name, other.ID, other.Subnets = "other", other.ID+"-other", nil
		subnet := &policy.Subnet{Name: "open", ID: other.ID + "/subnets/open", VirtualNetwork: &other, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
		other.Subnets = []*policy.Subnet{subnet}
		set.VirtualNetworks = append(set.VirtualNetworks, &other)
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: "twin", ID: "/nic/twin", MACAddress: "00-0d-3a-f8-78-56",
			IPConfigurations: []policy.IPConfiguration{{Name: "a", Address: netip.MustParseAddr(addr2), Subnet: subnet, Primary: true}}})
		return set
	}
	for _, tt := range []struct {
		name, mac string
		against   *policy.Set
		skip      string
	}{
		{"the MAC address tells", "000D3AF87856", two(), ""},
		{"it is nobody's", "000D3AF80000", two(), "ambiguous_address"},
		{"the other policy has not the network interface", "000D3AF87856", &policy.Set{}, "not_in_other_policy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, s := play(t, Options{Policy: two(), Against: tt.against, Changed: 10}, log(tt.mac, sshDenied))
			if n := s.FlowLogs.Skipped[tt.skip]; tt.skip != "" && n != 1 || tt.skip == "" && len(s.FlowLogs.Skipped) > 0 {
				t.Errorf("skipped %v", s.FlowLogs.Skipped)
			}
			if tt.skip == "" && s.FlowLogs.RecordedDiffers != 1 { // the twin's subnet has no group
				t.Errorf("%+v", s.FlowLogs)
			}
		})
	}
}

// What is said of a row is what verify says of its flow.
func TestRowsAreJudgedAsVerifyDoes(t *testing.T) {
	set := with(t, 80)
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	own := map[string]string{addr1: "vm1-nic", addr2: "vm2-nic", addr3: "vm3-nic", addr4: "vm4-nic"}
	ends := []string{addr1, addr2, addr3, addr4, world, dns, "10.0.2.77"}
	seen := map[string]int{}
	for range 500 {
		src, dst := ends[r.IntN(4)], ends[r.IntN(len(ends))]
		outbound, port, protocol := r.IntN(2) == 0, []uint16{22, 53, 80}[r.IntN(3)], r.IntN(2)
		q := &azure.Flow{NetworkInterface: own[src], Direction: ruleset.Outbound, Protocol: []uint8{packet.ProtoTCP, packet.ProtoUDP}[protocol],
			Local: netip.MustParseAddr(src), Remote: netip.MustParseAddr(dst), LocalPort: 4000, RemotePort: port}
		row := fmt.Sprintf("1772366435,%s,%s,4000,%d,%s,O,A,B,,,,", src, dst, port, []string{"T", "U"}[protocol])
		if !outbound {
			q.Direction, q.LocalPort, q.RemotePort = ruleset.Inbound, port, 4000
			row = fmt.Sprintf("1772366435,%s,%s,4000,%d,%s,I,A,B,,,,", dst, src, port, []string{"T", "U"}[protocol])
		}
		verified, err := ask.Verify(s, q, false)
		if err != nil {
			t.Fatal(err)
		}
		_, summary := play(t, Options{Policy: set, Changed: 1}, log("", row))
		differs := uint64(0)
		if verified.Access != Allow {
			differs = 1
		}
		if summary.FlowLogs.RecordedDiffers != differs {
			t.Fatalf("%s: %d rows differ from the record, verify says %+v", row, summary.FlowLogs.RecordedDiffers, verified)
		}
		if differs == 1 {
			if o := summary.Against.List[0].New; verified.RuleName != "" && (!strings.HasSuffix(verified.RuleName, "/"+o.Rule) || o.NetworkSecurityGroup != verified.NetworkSecurityGroup) {
				t.Errorf("%s: %+v, verify says %+v", row, o, verified)
			}
		}
		seen[verified.Access]++
	}
	if seen["Allow"] < 50 || seen["Deny"] < 15 {
		t.Errorf("the test is blind: %v", seen)
	}
}

// The sums of absurd rows wrapped around: two of the largest counter made nearly nothing.
func TestCountersOfAbsurdRowsStopAtTheLargestNumber(t *testing.T) {
	const most = "18446744073709551615"
	absurd := "1772366495,203.0.113.10,10.0.1.5,4000,80,T,I,A,E," + most + "," + most + "," + most + "," + most
	_, s := play(t, Options{Policy: with(t, 80), Against: with(t, 22), Changed: 10}, log("000D3AF87856", httpBegins, absurd, absurd))
	for _, got := range []uint64{s.FlowLogs.Packets, s.FlowLogs.Bytes, s.Against.Packets, s.Against.Bytes, s.Against.List[0].Bytes, s.Against.ByRule[0].Packets} {
		if got != math.MaxUint64 {
			t.Errorf("%d, want %s: %+v", got, most, s.Against)
		}
	}
	if a := s.Against; a.Flows != 1 || a.Denied != 1 || a.Allowed != 0 {
		t.Errorf("%+v, want one flow that is newly denied", a)
	}
}

func TestRowsThatAreNotUnderstoodAreCountedByField(t *testing.T) {
	bad := "1772366435,a,10.0.0.4,59831,443,T,I,A,B,,,,"
	_, s := play(t, Options{Policy: with(t, 80)}, log("", bad, "x", bad, httpBegins))
	if d := cmp.Diff(map[string]uint64{"address": 2, "fields": 1}, s.FlowLogs.MalformedBy); d != "" {
		t.Error(d)
	}
	if !strings.Contains(s.FlowLogs.Malformed, `address "a"`) {
		t.Errorf("the first is %q", s.FlowLogs.Malformed)
	}
}

// Many flows that differ fill neither the list nor the memory.
func TestChangesAreBounded(t *testing.T) {
	c := newChanges(3)
	for i := range maxChanged + 10 {
		k := flowKey{Tuple: packet.Tuple{SrcPort: uint16(i), DstPort: uint16(i >> 16), Proto: packet.ProtoUDP}}
		f := c.begin(k, Opinion{Access: Allow, Rule: fmt.Sprint(i % (maxByRule + 7))}, Opinion{Access: Deny}, noon, true)
		c.count(f, 1, uint64(i), noon.Add(time.Second))
	}
	a := c.result()
	if len(c.flows) != maxChanged || len(a.List) != 3 || len(a.ByRule) != maxByRule || !a.Truncated || a.Flows != maxChanged+10 || a.Packets != maxChanged+10 {
		t.Errorf("%d flows kept, %d listed, %d rules, %d counted, %d packets", len(c.flows), len(a.List), len(a.ByRule), a.Flows, a.Packets)
	}
	if a.List[0].Bytes != maxChanged-1 {
		t.Errorf("the largest has %d bytes", a.List[0].Bytes)
	}
}

func TestAFlowLogThatIsCutOffCountsAsFarAsItGoes(t *testing.T) {
	file := log("", httpBegins)
	two := append(bytes.TrimSuffix(file, []byte("]}")), ',')
	r, err := New(Options{Policy: with(t, 80)})
	if err != nil {
		t.Fatal(err)
	}
	err = r.File(context.Background(), "f", bytes.NewReader(two))
	if err == nil || !strings.Contains(err.Error(), "f: after row 1: the file ends in the middle of a record") {
		t.Errorf("error %v", err)
	}
	if s, err := r.Summary(); err != nil || s.Complete || s.FlowLogs.Rows != 1 || s.Files[0].Rows != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
