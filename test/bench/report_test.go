package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sampleReport has three rounds, in which the machine becomes slower.
func sampleReport() *report {
	r := &report{Machine: machine{CPU: "a CPU", Cores: 2, Memory: 4, Load: 1.5, Kernel: "6.1", Versions: map[string]string{"go": "go1.26", "bin/nsgd": "nsgd abc", "iperf3": "iperf 3.12"}}, Commit: "abc", Began: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC),
		Setups: []string{"kernel", "copy", "nsgd-10", "nsgd-1000"}, Generator: map[string]float64{"udp64": 900_000}}
	for round, speed := range []float64{1, 0.8, 0.5} {
		for i, setup := range r.Setups {
			t := trial{figures: map[string]float64{"tcp1": speed * []float64{10e9, 9e9, 8e9, 4e9}[i]}}
			if setup != "kernel" {
				t.figure("idle", 0.005)
			}
			r.add(round+1, setup, &t, nil)
		}
	}
	return r
}

func TestReportComparesWithKernelCopyAndTheFirstNsgd(t *testing.T) {
	var got bytes.Buffer
	sampleReport().print(&got)
	want := `
Medians of 3 rounds, commit abc, 2026-11-30, load 1.5 at the beginning: 2 cores of a CPU, 4 GB, Linux 6.1, go1.26, iperf 3.12

| | veth pair, once | kernel | copy | nsgd-10 | nsgd-1000 |
|---|---|---|---|---|---|
| TCP, 1 stream, Gbit/s | - | 8.00 | 7.20 | 6.40 | 3.20 |
| UDP, 64 B, 0.5 % loss, kpps | 900.0 | - | - | - | - |
| idle process, share of a core, % | - | - | 0.50 | 0.50 | 0.50 |

Ratios to kernel, medians over rounds

| | copy | nsgd-10 | nsgd-1000 |
|---|---|---|---|
| TCP, 1 stream | 0.90 | 0.80 | 0.40 |

Ratios to copy, medians over rounds

| | nsgd-10 | nsgd-1000 |
|---|---|---|
| TCP, 1 stream | 0.89 | 0.44 |
| idle process, share of a core | 1.00 | 1.00 |

Ratios to nsgd-10, medians over rounds

| | nsgd-1000 |
|---|---|
| TCP, 1 stream | 0.50 |
| idle process, share of a core | 1.00 |
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestReportSaysHowManyRoundsCount(t *testing.T) {
	r := sampleReport()
	if got := r.counted(); got != "3" {
		t.Errorf("%s rounds, want 3", got)
	}
	r.add(4, "copy", &trial{figures: map[string]float64{"tcp1": 1}}, nil)
	if got := r.counted(); got != "3 to 4" {
		t.Errorf("%s rounds, want 3 to 4", got)
	}
}

func TestReportLeavesOutRatiosThatNobodyHas(t *testing.T) {
	r := &report{Setups: []string{"kernel", "copy"}}
	r.add(1, "kernel", &trial{figures: map[string]float64{"tcp1": 10}}, nil)
	var got bytes.Buffer
	if r.print(&got); strings.Contains(got.String(), "Ratios") {
		t.Errorf("%s", got.String())
	}
}

func TestReportComparesWithinARound(t *testing.T) {
	r := &report{Setups: []string{"kernel", "copy"}}
	// The round that only one of them finished counts for neither ratio.
	r.add(1, "kernel", &trial{figures: map[string]float64{"tcp1": 10}}, nil)
	r.add(1, "copy", &trial{figures: map[string]float64{"tcp1": 5}}, nil)
	r.add(2, "kernel", &trial{figures: map[string]float64{"tcp1": 1000}}, nil)
	r.add(2, "copy", &trial{figures: map[string]float64{}}, errors.New("it broke"))
	if got, ok := r.ratio("copy", "kernel", "tcp1"); !ok || got != 0.5 {
		t.Errorf("ratio %v, %v, want 0.5", got, ok)
	}
	if _, ok := r.ratio("copy", "kernel", "tcp8"); ok {
		t.Error("a ratio of what nobody measured")
	}
	if got := r.Medians["kernel"]["tcp1"]; got != 505 {
		t.Errorf("median %v, want 505", got)
	}
}

func TestReportFileHoldsEveryRoundAndItsErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "bench.json")
	r := sampleReport()
	r.add(4, "copy", &trial{figures: map[string]float64{"connects": 12345}}, errors.New("it broke"))
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"round": 4`, `"connects": 12345`, `"error": "it broke"`, `"kernel": "6.1"`, `"medians"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in the file", want)
		}
	}
}

func TestARunInPiecesHasTheFiguresOfAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	first := sampleReport()
	if err := first.write(path); err != nil {
		t.Fatal(err)
	}
	second := &report{Commit: "abc", Setups: first.Setups}
	if err := second.addTo(path); err != nil {
		t.Fatal(err)
	}
	second.add(2, "copy", &trial{figures: map[string]float64{"connects": 7}, series: map[string][]point{"rtt_udp_load": {{Asked: 3}}}}, nil)
	if len(second.Rounds) != len(first.Rounds) {
		t.Errorf("%d rounds of setups, want %d", len(second.Rounds), len(first.Rounds))
	}
	if got := second.values("copy", "tcp1")[2]; got != 0.8*9e9 {
		t.Errorf("tcp1 of the first piece: %v", got)
	}
	if got := second.Medians["copy"]["connects"]; got != 7 {
		t.Errorf("connects of the second piece: %v", got)
	}
	for _, other := range []*report{{Commit: "abd", Setups: first.Setups}, {Commit: "abc", Setups: first.Setups[1:]}} {
		if err := other.addTo(path); err == nil {
			t.Errorf("commit %s with setups %v was added", other.Commit, other.Setups)
		}
	}
	if err := second.addTo(path + "x"); err != nil {
		t.Errorf("the first piece: %v", err)
	}
}

func TestTheDefaultRunFitsItsBudget(t *testing.T) {
	for setups := 4; setups <= 5; setups++ { // without Open vSwitch and with it
		if got := planned(setups, 5, chooseSeconds(setups, 5, measures), measures); got > budget {
			t.Errorf("%d setups are planned to take %v, more than %v", setups, got, budget)
		}
	}
}
