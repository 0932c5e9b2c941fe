package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

var update = flag.Bool("update", false, "rewrite the golden screens in testdata")

// daemon answers what a test gives it, and keeps the questions.
type daemon struct {
	asked []inspect.TopQuestion
	err   error
}

func (d *daemon) Top(_ context.Context, q inspect.TopQuestion) (*inspect.TopReading, error) {
	d.asked = append(d.asked, q)
	if d.err != nil {
		return nil, d.err
	}
	return reading(q), nil
}

func (d *daemon) last() inspect.TopQuestion { return d.asked[len(d.asked)-1] }

// reading has what each view has to show, long and short.
func reading(q inspect.TopQuestion) *inspect.TopReading {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := &inspect.TopReading{
		Time: at, Seconds: 1, Version: "1.2.3", Started: at.Add(-2*time.Hour - 3*time.Minute), Generation: 7,
		FlowTable: inspect.FlowUse{Live: 1234, Limit: 1000000},
		Traffic:   inspect.Traffic{PacketsPerSecond: 12345, BytesPerSecond: 98765432, DropsPerSecond: 3},
		View:      q.View, Order: q.Order, Reverse: q.Reverse, By: q.By, Filter: q.Filter,
	}
	n := 30
	if q.Filter != "" {
		n = strings.Count(q.Filter, "x")
	}
	r.Matching = n
	for i := range n {
		rate := float64(int(1000000) >> i)
		total := uint64(i+1) * 12345
		switch q.View {
		case inspect.TopRules:
			r.Rules = append(r.Rules, inspect.TopRule{
				Rule: inspect.Rule{NetworkSecurityGroup: fmt.Sprint("nsg-web-", i), Direction: "Inbound", Priority: 100 + i,
					Name: "allow-https-from-the-internet-and-" + strings.Repeat("more", i%4), Access: []string{"Allow", "Deny"}[i%2],
					Protocol: "Tcp", Sources: []string{"Internet"}, Destinations: []string{"10.0.1.0/24", "10.0.2.0/24"}, DestinationPorts: []string{"443"},
					Counters: &inspect.RuleCounters{Hits: uint64(i), Packets: total, Bytes: 700 * total}},
				Position: i, HitsPerSecond: rate / 1000, PacketsPerSecond: rate / 10, BytesPerSecond: rate,
			})
		case inspect.TopFlows:
			r.Flows = append(r.Flows, inspect.TopFlow{
				Flow: inspect.Flow{Protocol: "TCP", Source: fmt.Sprint("10.0.1.", i), SourcePort: 50000, Destination: []string{"10.0.2.4", "fd00:db8:1:2::4"}[i%2],
					DestinationPort: 443, From: "vm1-nic", To: "vm3-nic", State: "established", AgeMilliseconds: int64(i) * 60000,
					IdleMilliseconds: 1200, PacketsSent: total, BytesSent: 700 * total, Rules: []inspect.FlowRule{{NetworkSecurityGroup: "NSG1", Direction: "Inbound", Name: "web"}}},
				PacketsPerSecond: rate / 10, BytesPerSecond: rate,
			})
			if i == 2 {
				r.Flows[len(r.Flows)-1].Translated = &inspect.FlowTuple{Source: "198.51.100.30", SourcePort: 1024, Destination: "10.0.2.5", DestinationPort: 8443}
			}
		case inspect.TopTalkers:
			r.Talkers = append(r.Talkers, inspect.TopTalker{Source: fmt.Sprint("10.0.1.", i), Destination: "10.0.2.4", From: "vm1-nic", To: "vm3-nic",
				Flows: total, Packets: total, BytesSent: 700 * total, BytesReceived: total, PacketsPerSecond: rate / 10, BytesPerSecond: rate})
		case inspect.TopDrops:
			r.Drops = append(r.Drops, inspect.TopDrop{Reason: fmt.Sprint("reason_", i), Packets: total, PacketsPerSecond: rate, Share: 1 / float64(n)})
		}
	}
	return r
}

// bench is a model with its daemon; questions are answered as soon as they are asked.
type bench struct {
	t *testing.T
	d *daemon
	m *Model
}

func newBench(t *testing.T, o Options) *bench {
	if o.View == "" {
		o.View = inspect.TopRules
	}
	o.Interval, o.By = time.Second, inspect.ByPair
	b := &bench{t: t, d: &daemon{}}
	b.m = New(context.Background(), b.d, o)
	b.run(b.m.Init())
	return b
}

// run carries out a command that asks. Others would wait for the clock or end the program.
func (b *bench) run(cmd tea.Cmd) {
	before := len(b.d.asked)
	if cmd == nil || b.m.question == before {
		return
	}
	b.m.Update(cmd())
}

var named = map[string]rune{"up": tea.KeyUp, "down": tea.KeyDown, "pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "end": tea.KeyEnd,
	"home": tea.KeyHome, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace, "tab": tea.KeyTab}

func (b *bench) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		key := tea.KeyPressMsg{Code: named[k]}
		if key.Code == 0 {
			key = tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
		}
		_, cmd := b.m.Update(key)
		b.run(cmd)
	}
}

func (b *bench) screen() string { return ansi.Strip(b.m.View().Content) }

func (b *bench) shows(text string) {
	b.t.Helper()
	if !strings.Contains(b.screen(), text) {
		b.t.Errorf("the screen does not show %q:\n%s", text, b.screen())
	}
}

// Names and addresses were cut at 80 columns while columns that matter less stayed.
func TestANarrowTableKeepsNamesAndAddresses(t *testing.T) {
	const long = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"
	tests := []struct {
		name   string
		view   inspect.TopView
		change func(*inspect.TopReading)
		want   []string // of the first line of rows
	}{
		{"both ends over IPv6", inspect.TopFlows, func(r *inspect.TopReading) {
			r.Flows[0].Source, r.Flows[0].Destination = "fd00:db8:1:1::4", "fd00:db8:1:2::4"
		},
			[]string{"[fd00:db8:1:1::4]:50000", "[fd00:db8:1:2::4]:443"}},
		{"of addresses that do not fit the middle is left out", inspect.TopFlows, func(r *inspect.TopReading) {
			r.Flows[0].Source, r.Flows[0].SourcePort = "2001:db8:1234:5678:9abc:def0:1234:5678", 65535
			r.Flows[0].Destination, r.Flows[0].DestinationPort = "2001:db8:1234:5678:9abc:def0:1234:5678", 65535
		}, []string{long[:14] + "~" + long[len(long)-15:]}},
		{"a default rule's name", inspect.TopRules, func(r *inspect.TopReading) { r.Rules[0].Name = "AllowAzureLoadBalancerInBound" },
			[]string{"AllowAzureLoadBalancerInBound", "Inbound"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := reading(inspect.TopQuestion{View: tt.view, Order: "bytesPerSecond"})
			tt.change(r)
			g := layOut(r, columnsOf(tt.view, inspect.ByPair), 80, 0, 1, "")
			line := g.line(g.cells[0])
			for _, want := range tt.want {
				if !strings.Contains(line, want) {
					t.Errorf("%q does not show %q", line, want)
				}
			}
			if w := ansi.StringWidth(line); w > 80 {
				t.Errorf("%q is %d wide", line, w)
			}
		})
	}
}

func TestScreens(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {200, 50}, {40, 10}} {
		for _, view := range inspect.TopViews() {
			name := fmt.Sprintf("%s-%dx%d.txt", view, size.width, size.height)
			t.Run(name, func(t *testing.T) {
				b := newBench(t, Options{View: view})
				b.m.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
				lines := strings.Split(b.screen(), "\n")
				for i, line := range lines {
					if w := ansi.StringWidth(line); w > size.width {
						t.Errorf("line %d is %d wide: %q", i, w, line)
					}
					lines[i] = strings.TrimRight(line, " ")
				}
				if len(lines) != size.height {
					t.Errorf("%d lines", len(lines))
				}
				golden(t, name, strings.Join(lines, "\n")+"\n")
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNoSizeBreaksTheScreen(t *testing.T) {
	for _, view := range inspect.TopViews() {
		b := newBench(t, Options{View: view})
		for width := 0; width < 120; width += 3 {
			for _, height := range []int{0, 1, 4, 5, 6, 24} {
				b.m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				lines := strings.Split(b.screen(), "\n")
				if len(lines) > max(1, height) {
					t.Fatalf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if ansi.StringWidth(line) > width {
						t.Fatalf("%dx%d: too wide: %q", width, height, line)
					}
				}
			}
		}
	}
}

func TestSortKeysAskTheDaemonAndShowTheOrder(t *testing.T) {
	b := newBench(t, Options{})
	b.shows("B/S▼")
	for _, order := range inspect.TopOrders(inspect.TopRules)[1:] {
		b.press("s")
		if q := b.d.last(); q.Order != order || q.Reverse {
			t.Errorf("asked %+v, want order %s", q, order)
		}
	}
	b.shows("PRIO▲") // the first to be tried first
	b.press("s", "S", "r")
	if q := b.d.last(); q.Order != "evaluation" || !q.Reverse {
		t.Errorf("asked %+v", q)
	}
	b.shows("PRIO▼")
}

func TestTheColumnOfTheOrderIsShownInANarrowTerminal(t *testing.T) {
	b := newBench(t, Options{})
	b.m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	if strings.Contains(b.screen(), "HITS/S") {
		t.Fatal("80 columns hold everything: the test tests nothing")
	}
	b.press("s", "s")
	b.shows("HITS/S▼")
}

func TestAFilterIsTypedTakenAndTakenAway(t *testing.T) {
	b := newBench(t, Options{})
	asked := len(b.d.asked)
	b.press("/", "x", "q", "1", "backspace", "backspace", "x")
	b.shows("/xx_")
	if len(b.d.asked) != asked {
		t.Error("asked while the filter was typed")
	}
	b.press("enter")
	if q := b.d.last(); q.Filter != "xx" {
		t.Errorf("asked %+v", q)
	}
	b.shows(`filter "xx"  1-2 of 2`)
	b.press("/", "y", "esc")
	b.shows(`filter "xx"`)
	b.press("2")
	if q := b.d.last(); q.Filter != "" || q.View != inspect.TopFlows {
		t.Errorf("another view has the filter: %+v", q)
	}
	b.press("1", "esc")
	b.shows("1-19 of 30")
	b.press("/", "z", "enter")
	b.shows(`no rules match "z"`)
}

func TestScrollingStaysAmongTheRows(t *testing.T) {
	b := newBench(t, Options{})
	for _, step := range []struct{ key, shows string }{
		{"down", "2-20 of 30"}, {"up", "1-19 of 30"}, {"up", "1-19 of 30"}, {"pgdown", "12-30 of 30"}, {"pgdown", "12-30 of 30"},
		{"home", "1-19 of 30"}, {"end", "12-30 of 30"}, {"pgup", "1-19 of 30"},
	} {
		b.press(step.key)
		b.shows(step.shows)
	}
	b.press("end")
	b.m.Update(tea.WindowSizeMsg{Width: 80, Height: 34})
	b.shows("2-30 of 30")
}

func TestPauseKeepsWhatIsShown(t *testing.T) {
	b := newBench(t, Options{})
	b.press("p")
	b.shows("PAUSED")
	asked := len(b.d.asked)
	if _, cmd := b.m.Update(due{b.m.question}); cmd != nil {
		t.Error("asks while paused")
	}
	b.press("s", "r", "s")
	if len(b.d.asked) != asked {
		t.Error("sorting asks while paused")
	}
	first := b.m.state().reading.Rules[0]
	if first.HitsPerSecond > b.m.state().reading.Rules[1].HitsPerSecond {
		t.Error("not sorted in reverse")
	}
	b.press("p")
	if len(b.d.asked) != asked+1 {
		t.Error("does not ask after the pause")
	}
}

func TestALateAnswerIsNotShown(t *testing.T) {
	b := newBench(t, Options{})
	late := b.m.ask()
	b.press("2")
	b.m.Update(late())
	if r := b.m.state().reading; r.View != inspect.TopFlows {
		t.Errorf("flows show %s", r.View)
	}
}

func TestTheDaemonGoesAndComesBack(t *testing.T) {
	b := newBench(t, Options{})
	b.d.err = fmt.Errorf("control: top: %w on /run/x.sock", control.ErrNoDaemon)
	_, cmd := b.m.Update(due{b.m.question})
	b.run(cmd)
	b.shows("no daemon answers on /run/x.sock")
	b.shows("asking again every 1s")
	b.shows("nsg-web-1 ")
	b.d.err = errors.New("control: broken\x1b[2J")
	_, cmd = b.m.Update(due{b.m.question})
	b.run(cmd)
	b.shows("control: broken?[2J")
	b.d.err = nil
	_, cmd = b.m.Update(due{b.m.question})
	b.run(cmd)
	b.shows("nsgd 1.2.3  policy generation 7")
}

func TestTalkersAreByPairSourceOrDestination(t *testing.T) {
	b := newBench(t, Options{View: inspect.TopTalkers})
	b.press("b")
	if q := b.d.last(); q.By != inspect.BySource {
		t.Errorf("asked %+v", q)
	}
	b.shows("by source")
	if strings.Contains(b.screen(), "DESTINATION") {
		t.Error("destinations of sources")
	}
}

func TestWithoutRatesThereAreNoNumbersForThem(t *testing.T) {
	b := newBench(t, Options{})
	b.m.last.Seconds = 0
	b.shows("- packets/s")
	if fields := strings.Fields(strings.Split(b.screen(), "\n")[4]); !slices.Equal(fields[len(fields)-2:], []string{"-", "-"}) {
		t.Errorf("row %q", fields)
	}
}

func TestHelpListsEveryKey(t *testing.T) {
	b := newBench(t, Options{})
	b.press("?")
	for _, k := range bindings() {
		b.shows(k.shown + " ")
		b.shows(k.long)
	}
	b.press("q")
	b.shows("NSG")
}

func TestKeysAreBoundOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range bindings() {
		for _, k := range b.keys {
			if seen[k] {
				t.Errorf("%s is bound twice", k)
			}
			seen[k] = true
		}
	}
}

func TestUnits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7: "7", 0.25: "0.25", 999: "999", 999.4: "999", 999.7: "1.00k", 1000: "1.00k", 9996: "10.0k",
		12345: "12.3k", 123456: "123k", 999600: "1.00M", 1e18: "1.00E", 1e21: "1000E", -1: "0"} {
		if got := amount(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[time.Duration]string{1200 * time.Millisecond: "1.2s", 59 * time.Second: "59s", 245 * time.Second: "4m05s",
		2*time.Hour + 3*time.Minute: "2h03m", 124 * time.Hour: "5d04h"} {
		if got := span(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func TestOnceHasEveryColumn(t *testing.T) {
	var out strings.Builder
	for _, view := range inspect.TopViews() {
		o := Options{View: view, By: inspect.ByPair, Interval: time.Millisecond}
		r, err := Once(context.Background(), &daemon{}, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteTable(&out, r); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "once.txt", out.String())
}
