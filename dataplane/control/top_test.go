package control_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// top makes a reading that must succeed.
func (r *rig) top(q inspect.TopQuestion) *inspect.TopReading {
	r.t.Helper()
	reading, err := r.client.Top(context.Background(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return reading
}

// wait moves the service's clock on.
func (r *rig) wait(d time.Duration) { r.elapsed.Add(int64(d)) }

func sized(src, dst string, port uint16, size int) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 40000, DstPort: port, Payload: size})
}

const udpHeaders = 28

func TestTopFlowsHaveRatesFromTheSecondReadingOn(t *testing.T) {
	r := newRig(t)
	r.send(2, sized("10.0.2.4", "10.0.3.4", 53, 72))
	r.send(3, sized("10.0.3.4", "10.0.2.4", 123, 172))
	question := inspect.TopQuestion{View: inspect.TopFlows}

	first := r.top(question)
	if first.Seconds != 0 || first.Flows[0].BytesPerSecond != 0 {
		t.Errorf("the first reading has rates: %+v", first)
	}
	if got := ports(first); !cmp.Equal(got, []uint16{123, 53}) {
		t.Errorf("without rates the flows to %v lead, want by bytes", got)
	}

	r.wait(2 * time.Second)
	for range 4 {
		r.send(2, sized("10.0.2.4", "10.0.3.4", 53, 72))
	}
	r.send(2, sized("10.0.2.4", "10.0.3.4", 7, 172))
	second := r.top(question)
	if second.Seconds != 2 {
		t.Errorf("rates over %v seconds, want 2", second.Seconds)
	}
	if got := ports(second); !cmp.Equal(got, []uint16{53, 7, 123}) {
		t.Fatalf("the flows to %v lead by rate", got)
	}
	for i, want := range []float64{4 * (72 + udpHeaders) / 2, (172 + udpHeaders) / 2, 0} {
		if got := second.Flows[i].BytesPerSecond; got != want {
			t.Errorf("row %d: %v bytes/s, want %v", i, got, want)
		}
	}
	if f := second.Flows[0]; f.PacketsPerSecond != 2 || f.PacketsSent != 5 || f.From != "vm3-nic" {
		t.Errorf("%+v", f)
	}
	if tr := second.Traffic; tr.Packets != 7 || tr.PacketsPerSecond != 2.5 {
		t.Errorf("traffic %+v", tr)
	}

	r.wait(100 * time.Millisecond)
	r.send(2, sized("10.0.2.4", "10.0.3.4", 53, 72))
	if again := r.top(question); again.Seconds != 2 || again.Flows[0].BytesPerSecond != 200 || again.Flows[0].PacketsSent != 6 {
		t.Errorf("a reading soon after has other rates or old totals: %+v", again.Flows[0])
	}
	r.wait(time.Hour)
	if late := r.top(question); late.Seconds != 0 || late.Flows[0].BytesPerSecond != 0 {
		t.Errorf("rates over an hour: %+v", late)
	}
}

func ports(r *inspect.TopReading) (list []uint16) {
	for _, f := range r.Flows {
		list = append(list, f.DestinationPort)
	}
	return list
}

func TestTopOrdersLimitsAndFiltersFlows(t *testing.T) {
	r := newRig(t)
	for i, size := range []int{10, 30, 20} {
		r.send(2, sized("10.0.2.4", "10.0.3.4", uint16(1000+i), size))
	}
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	tests := []struct {
		name     string
		question inspect.TopQuestion
		want     []uint16
		matching int
	}{
		{"the greatest first", inspect.TopQuestion{Order: "bytes"}, []uint16{1001, 1002, 80, 1000}, 4},
		{"the smallest first", inspect.TopQuestion{Order: "bytes", Reverse: true}, []uint16{1000, 80, 1002, 1001}, 4},
		{"no more than the limit", inspect.TopQuestion{Order: "bytes", Limit: 2}, []uint16{1001, 1002}, 4},
		{"an address", inspect.TopQuestion{Order: "bytes", Filter: "203.0.113.10"}, []uint16{80}, 1},
		{"the beginning of an address", inspect.TopQuestion{Order: "bytes", Filter: "203.0."}, []uint16{80}, 1},
		{"a prefix", inspect.TopQuestion{Order: "bytes", Filter: "10.0.0.0/23"}, []uint16{80}, 1},
		{"a port", inspect.TopQuestion{Order: "bytes", Filter: ":1002"}, []uint16{1002}, 1},
		{"a protocol", inspect.TopQuestion{Order: "bytes", Filter: "tcp"}, []uint16{80}, 1},
		{"part of an attachment's name", inspect.TopQuestion{Order: "bytes", Filter: "INTER"}, []uint16{80}, 1},
		{"part of a rule's name", inspect.TopQuestion{Order: "bytes", Filter: "AllowHttp"}, []uint16{80}, 1},
		{"a state", inspect.TopQuestion{Order: "bytes", Filter: "syn"}, []uint16{80}, 1},
		{"each word must match", inspect.TopQuestion{Order: "bytes", Filter: "udp vm4 1001"}, []uint16{1001}, 1},
		{"nothing", inspect.TopQuestion{Order: "bytes", Filter: "udp 80"}, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.question.View = inspect.TopFlows
			reading := r.top(tt.question)
			if diff := cmp.Diff(tt.want, ports(reading)); diff != "" || reading.Matching != tt.matching {
				t.Errorf("%d match, -want +got:\n%s", reading.Matching, diff)
			}
		})
	}
}

func TestTopTalkersAddFlowsUp(t *testing.T) {
	r := newRig(t)
	r.send(2, sized("10.0.2.4", "10.0.3.4", 1, 72))
	r.send(2, sized("10.0.2.4", "10.0.3.4", 2, 72))
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	pair := inspect.TopTalker{Source: "10.0.2.4", Destination: "10.0.3.4", From: "vm3-nic", To: "vm4-nic", Flows: 2, Packets: 2, BytesSent: 200}
	web := inspect.TopTalker{Source: "203.0.113.10", Destination: "10.0.1.4", From: "internet", To: "vm1-nic", Flows: 1, Packets: 1, BytesSent: 40}
	source, destination := pair, web
	source.Destination, source.To = "", ""
	destination.Source, destination.From = "", ""
	tests := []struct {
		by   inspect.TalkersBy
		row  int
		want inspect.TopTalker
	}{{inspect.ByPair, 0, pair}, {inspect.ByPair, 1, web}, {inspect.BySource, 0, source}, {inspect.ByDestination, 1, destination}}
	for _, tt := range tests {
		reading := r.top(inspect.TopQuestion{View: inspect.TopTalkers, By: tt.by})
		if reading.Matching != 2 || reading.Approximate {
			t.Fatalf("by %s: %+v", tt.by, reading)
		}
		if diff := cmp.Diff(tt.want, reading.Talkers[tt.row]); diff != "" {
			t.Errorf("by %s, -want +got:\n%s", tt.by, diff)
		}
	}
}

func TestTopRulesAndDrops(t *testing.T) {
	r := newRig(t)
	rules, drops := inspect.TopQuestion{View: inspect.TopRules}, inspect.TopQuestion{View: inspect.TopDrops}
	r.top(rules)
	r.wait(500 * time.Millisecond)
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	for range 3 {
		r.send(internet, syn("203.0.113.10", "10.0.1.4", 22))
	}
	r.send(0, syn("192.0.2.1", "10.0.1.4", 22))

	reading := r.top(rules)
	lead := reading.Rules[0]
	if lead.Name != "DenyAllInBound" || lead.HitsPerSecond != 6 || lead.Counters.Hits != 3 || lead.BytesPerSecond != 240 {
		t.Errorf("leading rule %+v", lead)
	}
	if reading.Traffic.Drops != 4 || reading.Traffic.DropsPerSecond != 8 {
		t.Errorf("traffic %+v", reading.Traffic)
	}
	all, err := r.client.Rules(t.Context(), inspect.RuleFilter{})
	if err != nil {
		t.Fatal(err)
	}
	rules.Order = "evaluation"
	reading = r.top(rules)
	if reading.Matching != len(all.Rules) {
		t.Errorf("%d rules, want %d", reading.Matching, len(all.Rules))
	}
	for i, row := range reading.Rules {
		if diff := cmp.Diff(all.Rules[i], row.Rule); diff != "" || row.Position != i {
			t.Errorf("position %d, -want +got:\n%s", row.Position, diff)
		}
	}
	rules.Filter = "nsg2 deny inbound"
	if reading = r.top(rules); len(reading.Rules) != 1 || reading.Rules[0].Name != "DenyAllInBound" {
		t.Errorf("filtered: %+v", reading.Rules)
	}
	want := []inspect.TopDrop{{Reason: "rule_deny", Packets: 3, PacketsPerSecond: 6, Share: 0.75}, {Reason: "spoofed_source", Packets: 1, PacketsPerSecond: 2, Share: 0.25}}
	if diff := cmp.Diff(want, r.top(drops).Drops); diff != "" {
		t.Errorf("drops, -want +got:\n%s", diff)
	}
}

func TestTopRefusesWhatItDoesNotUnderstand(t *testing.T) {
	r := newRig(t)
	tests := []struct {
		name     string
		question inspect.TopQuestion
		message  string
	}{
		{"a view", inspect.TopQuestion{View: "nics"}, `view: "nics": allowed are rules, flows, talkers and drops`},
		{"an order of another view", inspect.TopQuestion{View: inspect.TopDrops, Order: "hits"}, `order: "hits": allowed for drops are packetsPerSecond, packets`},
		{"what a talker is", inspect.TopQuestion{View: inspect.TopTalkers, By: "port"}, `by: "port": allowed are pair, source and destination`},
		{"more rows than bounded", inspect.TopQuestion{View: inspect.TopFlows, Limit: 1001}, `limit: "1001": allowed are 1 to 1000`},
		{"a long filter", inspect.TopQuestion{View: inspect.TopFlows, Filter: strings.Repeat("x", 201)}, `filter: 201 bytes: allowed are 200`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.client.Top(context.Background(), tt.question)
			var refusal *control.Error
			if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest || refusal.Message != tt.message {
				t.Errorf("got %v, want %q", err, tt.message)
			}
		})
	}
}

func TestSortPutsAReadingIntoAnotherOrder(t *testing.T) {
	r := newRig(t)
	for i, size := range []int{10, 30, 20} {
		r.send(2, sized("10.0.2.4", "10.0.3.4", uint16(1000+i), size))
	}
	for _, reverse := range []bool{false, true} {
		want := r.top(inspect.TopQuestion{View: inspect.TopFlows, Order: "bytes", Reverse: reverse})
		got := r.top(inspect.TopQuestion{View: inspect.TopFlows, Order: "bytes", Reverse: !reverse})
		if err := got.Sort("bytes", reverse); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ports(want), ports(got)); diff != "" || got.Reverse != reverse {
			t.Errorf("reverse %v, -server +Sort:\n%s", reverse, diff)
		}
	}
	if err := new(inspect.TopReading).Sort("bytes", false); err == nil {
		t.Error("an order of no view is taken")
	}
}
