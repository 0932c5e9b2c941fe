package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestBlocksHoldWhatTheRunsLeft(t *testing.T) {
	const before = "# Title\nby hand\n<!-- bench-report run.json tcp1 -->\nold\n<!-- end of bench-report -->\nmore by hand\n<!-- bench-report missing.json -->\nkept\n<!-- end of bench-report -->\nend\n"
	read := func(name string) (*report, error) {
		if name == "missing.json" {
			return nil, nil
		}
		return sampleReport(), nil
	}
	got, err := writeBlocks(before, read)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"by hand\n", "more by hand\n", "kept\n", "commit abc", "| TCP, 1 stream, Gbit/s | 8.00 | 7.20 | 6.40 | 3.20 |", "Ratios to kernel"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	for _, other := range []string{"old\n", "idle process", "UDP, 64 B"} {
		if strings.Contains(got, other) {
			t.Errorf("%q is in\n%s", other, got)
		}
	}
	if again, err := writeBlocks(got, read); err != nil || again != got {
		t.Errorf("the second time, %v, it becomes\n%s", err, again)
	}
}

func TestABlockThatCannotBeWrittenIsNamed(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct{ name, text, want string }{
		{"no end", "a\n<!-- bench-report run.json -->\nold\n", "line 2"},
		{"the end of another", "<!-- bench-report run.json -->\n<!-- bench-report run.json -->\n<!-- end of bench-report -->\n", "line 1"},
		{"no file", "<!-- bench-report -->\n<!-- end of bench-report -->\n", "line 1"},
		{"a folder", "<!-- bench-report ../run.json -->\n<!-- end of bench-report -->\n", "a file without a folder"},
		{"a figure that is none", "<!-- bench-report run.json speed -->\n<!-- end of bench-report -->\n", `"speed"`},
		{"a figure that was not measured", "<!-- bench-report run.json quic -->\n<!-- end of bench-report -->\n", "quic"},
		{"a file that cannot be read", "<!-- bench-report broken.json -->\n<!-- end of bench-report -->\n", "broken"},
	} {
		_, err := writeBlocks(tt.text, func(name string) (*report, error) {
			if name == "broken.json" {
				return nil, broken
			}
			return sampleReport(), nil
		})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestTheBlocksOfTheReadmeCanBeWritten holds the document to figures that there are.
func TestTheBlocksOfTheReadmeCanBeWritten(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	_, err = writeBlocks(string(text), func(string) (*report, error) {
		blocks++
		r := &report{Setups: []string{"nsgd"}}
		t := newTrial(0, 0)
		for _, name := range figureNames() {
			t.figure(name, 1)
		}
		r.add(1, "nsgd", t, nil)
		return r, nil
	})
	if err != nil {
		t.Error(err)
	}
	if blocks == 0 {
		t.Error("no block")
	}
}

func TestASeriesShowsEachSetupsStalls(t *testing.T) {
	r := sampleReport()
	r.Setups = r.Setups[:2]
	for round, longest := range []float64{300, 90_000, 200} {
		r.add(round+1, "copy", &trial{series: map[string][]point{"rtt_udp_load": {{Asked: 5, P50: float64(100 + round), Longest: longest}, {}}}}, nil)
	}
	var got bytes.Buffer
	r.printSeries(&got)
	for _, want := range []string{"| ms | kernel | copy |", "| 0 | - | 101, 90000 |", "| 100 | - | - |"} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("%q is missing in\n%s", want, got.String())
		}
	}
}

func TestEveryPeersBenchmarkHasAFigure(t *testing.T) {
	known := strings.Join(figureNames(), " ") + " "
	for _, tt := range []struct {
		binary        int
		parts         string
		setup, figure string
	}{
		{0, "established-TCP/rules=10/workers=1", "nsgd", "packet_established_tcp_10"},
		{1, "UDP/pipeline", "nsgd-bare", "packet_established_udp_10"},
		{2, "nebula/denied/rules=1000", "nebula", "packet_denied_1000"},
	} {
		setup, figure := peerBinaries[tt.binary].figure(strings.Split(tt.parts, "/"))
		if setup != tt.setup || figure != tt.figure || !strings.Contains(known, figure+" ") {
			t.Errorf("%s: %s, %s, want %s, %s among the figures", tt.parts, setup, figure, tt.setup, tt.figure)
		}
	}
}
