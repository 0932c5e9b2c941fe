package main

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// wire carries capacity datagrams a second and loses what is beyond, a share of the rest too; its
// sender can send so many.
type wire struct {
	capacity, sender, share float64
	attempts                int
}

func (w *wire) attempt(rate float64) (outcome, error) {
	w.attempts++
	sent := min(rate, w.sender)
	return outcome{sent, min(sent, w.capacity) * (1 - w.share)}, nil
}

func TestSearchFindsTheHighestRate(t *testing.T) {
	tests := []struct {
		name string
		wire wire
		want float64
	}{
		{"in the middle", wire{capacity: 150_000, sender: 400_000}, 150_000},
		{"just below the sender's", wire{capacity: 390_000, sender: 400_000}, 390_000},
		{"far below the sender's", wire{capacity: 3000, sender: 400_000}, 3000},
		{"with a little loss at every rate", wire{capacity: 150_000, sender: 400_000, share: 0.003}, 150_000},
		{"of a sender that is the limit", wire{capacity: 500_000, sender: 400_000}, 400_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			flooded, _ := tt.wire.attempt(math.Inf(1))
			got, err := search(flooded, tt.wire.attempt)
			if err != nil {
				t.Fatal(err)
			}
			if got.loss() > lossLimit {
				t.Errorf("%.2f %% lost", got.loss()*100)
			}
			if math.Abs(got.received-tt.want) > tt.want*(searchPrecision+lossLimit) {
				t.Errorf("%.0f, want %.0f", got.received, tt.want)
			}
			if tt.wire.attempts > searchTrials+1 {
				t.Errorf("%d attempts, at most %d fit the plan", tt.wire.attempts, searchTrials+1)
			}
		})
	}
}

func TestSearchBeginsBelowWhatAFloodLeaves(t *testing.T) {
	// Flooded, the filter has no time left to carry anything.
	w := wire{capacity: 100_000, sender: 400_000}
	got, err := search(outcome{400_000, 10_000}, w.attempt)
	if err != nil || math.Abs(got.received-100_000) > 3500 {
		t.Errorf("%.0f, %v, want 100000", got.received, err)
	}
}

func TestSearchForgivesOneBadTrial(t *testing.T) {
	w := wire{capacity: 150_000, sender: 400_000}
	got, err := search(outcome{400_000, 150_000}, func(rate float64) (outcome, error) {
		o, err := w.attempt(rate)
		if w.attempts%2 == 1 {
			o.received *= 0.98
		}
		return o, err
	})
	if err != nil || math.Abs(got.received-150_000) > 0.05*150_000 {
		t.Errorf("%.0f, %v, want 150000", got.received, err)
	}
}

func TestSearchSaysThatNoRateIsCarried(t *testing.T) {
	w := wire{capacity: 100_000, sender: 400_000, share: 0.2}
	if got, err := search(outcome{400_000, 80_000}, w.attempt); err == nil || !strings.Contains(err.Error(), "was lost at every rate") {
		t.Errorf("%v, %v", got, err)
	}
	broken := errors.New("broken")
	if _, err := search(outcome{400_000, 80_000}, func(float64) (outcome, error) { return outcome{}, broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median of %v: %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		sorted   []time.Duration
		perMille int
		want     time.Duration
	}{{hundred, 500, 50}, {hundred, 990, 99}, {hundred, 999, 100}, {hundred[:10], 990, 10}, {hundred[:1], 500, 1}, {hundred[:3], 500, 2}} {
		if got := percentile(tt.sorted, tt.perMille); got != tt.want {
			t.Errorf("%d in a thousand of 1 to %d: %d, want %d", tt.perMille, len(tt.sorted), got, tt.want)
		}
	}
}

func TestASteadyBeatAsksDuringAStall(t *testing.T) {
	got := steady([]time.Duration{pingGap / 2, pingGap, 3*pingGap + 1})
	want := []time.Duration{1, pingGap / 2, pingGap, pingGap + 1, 2*pingGap + 1, 3*pingGap + 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAStallIsSeenOverTime(t *testing.T) {
	const us = time.Microsecond
	got := overTime([]roundTrip{{0, 100 * us}, {seriesSlice - 1, 300 * us}, {seriesSlice, 250 * time.Millisecond}, {seriesSlice * 7 / 2, 200 * us}})
	want := []point{
		{At: 0, Asked: 2, P50: 100, P99: 300, Longest: 300},
		{At: 100, Asked: 1, P50: 250_000, P99: 250_000, Longest: 250_000},
		{At: 200},
		{At: 300, Asked: 1, P50: 200, P99: 200, Longest: 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseStatAddsUpWhatNoProgramHad(t *testing.T) {
	got, err := parseStat("cpu  100 20 30 4000 500 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if want := 45800 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if _, err := parseStat("intr 1 2"); err == nil {
		t.Error("no error for a file that has no CPUs")
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"end":{"sum_received":{"bytes":2e9,"bits_per_second":8e9}}}`))
	if err != nil || got != (transfer{8e9, 2e9}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{`{"error":"unable to connect"}`, `{}`, `nothing`} {
		if _, err := parseIperf([]byte(text)); err == nil {
			t.Errorf("no error for %s", text)
		}
	}
}

func TestMergeConfigReplacesKeys(t *testing.T) {
	tests := []struct {
		name, keys, want string
	}{
		{"none", "", "a: 1\nm: {x: 1, y: 2}\n"},
		{"a new one", "offload: off", "a: 1\nm: {x: 1, y: 2}\noffload: off\n"},
		{"one of a map", "m: {y: 3}", "a: 1\nm: {x: 1, y: 3}\n"},
		{"several", "{a: 2, b: 3}", "a: 2\nb: 3\nm: {x: 1, y: 2}\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			merged, err := mergeConfig([]byte("a: 1\nm: {x: 1, y: 2}\n"), tt.keys)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(yaml.Unmarshal(merged, &got), yaml.Unmarshal([]byte(tt.want), &want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, keys := range []string{"offload", "[a]", "policy: [x]"} {
		if _, err := mergeConfig([]byte("a: 1\n"), keys); err == nil {
			t.Errorf("no error for %q", keys)
		}
	}
}

func TestParseWrk(t *testing.T) {
	answer := "  Latency Distribution\n     50%   80.21us\n     75%    1.20ms\n     90%   22.01ms\n     99%    1.05s \n  31 requests in 2.00s, 10.00KB read\n"
	rate := "Requests/sec:  15405.12\nTransfer/sec:      1.20MB\n"
	tests := []struct {
		name, out string
		failed    float64
	}{
		{"all answered", answer + rate, 0},
		{"some failed", answer + "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n" + rate, 54321},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseWrk(tt.out)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]float64{"requests": 15405.12, "p50": 80.21, "p90": 22010, "p99": 1_050_000, "failed": tt.failed}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, out := range []string{"", answer, rate, answer + "Requests/sec:      0.00\n", "unable to connect to 10.0.3.4:8081 Connection refused\n"} {
		if _, err := parseWrk(out); err == nil {
			t.Errorf("no error for %q", out)
		}
	}
}

func TestAnAcknowledgementOpensTheWindowAndTellsWhatIsLost(t *testing.T) {
	ack := func(number, count uint64) []byte {
		b := make([]byte, quicAckSize)
		b[0] = quicAck
		binary.LittleEndian.PutUint64(b[1:], number)
		binary.LittleEndian.PutUint64(b[9:], count)
		return b
	}
	e := &quicEnd{sent: 100}
	for _, tt := range []struct {
		name                  string
		datagram              []byte
		acked, known, missing uint64
	}{
		{"all arrived", ack(10, 10), 10, 10, 0},
		{"some did not", ack(30, 25), 30, 25, 5},
		{"a late one", ack(20, 20), 30, 25, 5},
		{"what was late has come", ack(30, 30), 30, 30, 0},
		{"of what was never sent", ack(101, 101), 30, 30, 0},
		{"too short", ack(50, 50)[:quicAckSize-1], 30, 30, 0},
	} {
		e.take(tt.datagram)
		if e.acked != tt.acked || e.known != tt.known || e.declared != tt.missing {
			t.Errorf("%s: acked %d, known %d, lost %d, want %d, %d, %d", tt.name, e.acked, e.known, e.declared, tt.acked, tt.known, tt.missing)
		}
	}
}

func TestSegmentSizeIsWhatTheKernelSays(t *testing.T) {
	control := segmentControl()
	if got, err := segmentSize(nil, 700); err != nil || got != 700 {
		t.Errorf("without a message %d, %v, want 700", got, err)
	}
	// UDP_GRO's message holds an int, UDP_SEGMENT's a 16-bit number.
	gro := make([]byte, unix.CmsgSpace(4))
	copy(gro, control)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&gro[0]))
	h.Type = unix.UDP_GRO
	h.SetLen(unix.CmsgLen(4))
	if got, err := segmentSize(gro, 3000); err != nil || got != quicSize {
		t.Errorf("%d, %v, want %d", got, err, quicSize)
	}
	binary.NativeEndian.PutUint32(gro[unix.CmsgLen(0):], 0)
	if _, err := segmentSize(gro, 3000); err == nil {
		t.Error("no error for datagrams of no bytes")
	}
}

func TestATrialDuringAPauseDoesNotCount(t *testing.T) {
	for _, tt := range []struct {
		pause time.Duration
		left  int
	}{{0, 1}, {maxPause, 1}, {maxPause + 1, 0}} {
		trial := newTrial(1, 0)
		trial.figure("tcp1", 1)
		trial.series["rtt_udp_load"] = []point{{}}
		if err := trial.judge(tt.pause); (err == nil) != (tt.left == 1) || len(trial.figures) != tt.left || len(trial.series) != tt.left {
			t.Errorf("after %v: %v, %d figures and %d series, want %d of each", tt.pause, err, len(trial.figures), len(trial.series), tt.left)
		}
	}
	ran := false
	if longestPause(func() { ran = true }); !ran {
		t.Error("what is watched did not run")
	}
}
