package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// figure is how a number is called and shown.
type figure struct {
	name, title string
	unit        string
	scale       float64 // from the number as it is noted
	digits      int
}

// figures are in the order of the table.
var figures = slices.Concat(rates, roundTripFigures(), costs, packetFigures())

// roundTripFigures are those that roundTrips notes.
func roundTripFigures() (list []figure) {
	for _, protocol := range []string{"udp", "tcp"} {
		for _, state := range []string{"idle", "load"} {
			name := "rtt_" + protocol + "_" + state + "_"
			title := strings.ToUpper(protocol) + " round trip " + map[string]string{"idle": "idle", "load": "under load"}[state] + ", "
			for _, p := range percentiles {
				list = append(list, figure{name + p.name, title + p.name, "us", 1, 1})
			}
			list = append(list, figure{name + "steady_p99", title + "p99 of a steady beat", "us", 1, 1}, figure{name + "longest", title + "longest", "us", 1, 1})
		}
	}
	return list
}

// packetFigures are those of filters in process.
func packetFigures() (list []figure) {
	for _, kind := range []string{"established-TCP", "established-UDP", "denied"} {
		for _, rules := range []string{"10", "1000"} {
			list = append(list, figure{peerFigure(kind, rules), strings.ReplaceAll(kind, "-", " ") + ", " + rules + " rules", "ns", 1e9, 1})
		}
	}
	return list
}

var rates = []figure{
	{"tcp1", "TCP, 1 stream", "Gbit/s", 1e-9, 2},
	{"tcp1_reverse", "TCP, 1 stream, reverse", "Gbit/s", 1e-9, 2},
	{"tcp8", "TCP, 8 streams", "Gbit/s", 1e-9, 2},
	{"tcp8_reverse", "TCP, 8 streams, reverse", "Gbit/s", 1e-9, 2},
	{"udp64", "UDP, 64 B, 0.5 % loss", "kpps", 1e-3, 1},
	{"udp64_flooded", "UDP, 64 B, received of a flood", "kpps", 1e-3, 1},
	{"udp64x", "UDP, 64 B, a flow a CPU, 0.5 % loss", "kpps", 1e-3, 1},
	{"udp64x_flooded", "UDP, 64 B, a flow a CPU, received of a flood", "kpps", 1e-3, 1},
	{"udp1400", "UDP, 1,400 B, 0.5 % loss", "kpps", 1e-3, 1},
	{"udp1400_flooded", "UDP, 1,400 B, received of a flood", "kpps", 1e-3, 1},
	{"connects", "TCP connects", "1/s", 1, 0},
	{"http_requests", "HTTP, 1,000 connections, a request each", "1/s", 1, 0},
	{"http_p50", "the same, request to answer, p50", "us", 1, 0},
	{"http_p90", "the same, p90", "us", 1, 0},
	{"http_p99", "the same, p99", "us", 1, 0},
	{"http_failed", "the same, failed", "requests", 1, 0},
	{"quic", "QUIC-like, 8 flows both ways", "Gbit/s", 1e-9, 2},
	{"quic_reverse", "QUIC-like, 8 flows both ways, reverse", "Gbit/s", 1e-9, 2},
	{"quic_lost", "QUIC-like, lost", "%", 100, 3},
}

var costs = []figure{
	{"cpu_gigabyte", "CPU a gigabyte, machine", "s", 1, 3},
	{"cpu_gigabyte_process", "CPU a gigabyte, process", "s", 1, 3},
	{"cpu_quic_gigabyte", "CPU a gigabyte of QUIC-like flows, machine", "s", 1, 3},
	{"cpu_quic_gigabyte_process", "CPU a gigabyte of QUIC-like flows, process", "s", 1, 3},
	{"cpu_million", "CPU a million packets, machine", "s", 1, 2},
	{"cpu_million_process", "CPU a million packets, process", "s", 1, 2},
	{"idle", "idle process, share of a core", "%", 100, 2},
}

// report is what the JSON file holds.
type report struct {
	Machine   machine                       `json:"machine"`
	Commit    string                        `json:"commit"` // of the sources, as git describe says it
	Began     time.Time                     `json:"began"`
	Seconds   int                           `json:"seconds"`
	Flows     int                           `json:"flows"`
	Setups    []string                      `json:"setups"`
	Units     map[string]string             `json:"units"`     // of figures, by name
	Generator map[string]float64            `json:"generator"` // figures of sender and receiver alone
	Rounds    []roundFigures                `json:"rounds"`
	Medians   map[string]map[string]float64 `json:"medians"` // by setup and figure
}

// roundFigures are those of one setup in one round.
type roundFigures struct {
	Round   int                `json:"round"`
	Setup   string             `json:"setup"`
	Figures map[string]float64 `json:"figures"`
	Series  map[string][]point `json:"series,omitempty"` // round trips under load over time, by the beginning of their figures' names
	Error   string             `json:"error,omitempty"`  // what is missing, and why
}

func newReport(o *options, setups []setup) *report {
	r := &report{Machine: thisMachine(o), Commit: o.commit, Began: time.Now().UTC(), Seconds: o.seconds, Units: map[string]string{}, Generator: map[string]float64{}}
	for _, s := range setups {
		r.Setups = append(r.Setups, s.name)
	}
	for _, f := range figures {
		r.Units[f.name] = map[float64]string{1e-9: "bit/s", 1e-3: "packets/s", 100: "share", 1e9: "s"}[f.scale]
		if f.scale == 1 {
			r.Units[f.name] = f.unit
		}
	}
	return r
}

// add notes what a setup gave in a round, beside what an earlier run gave with other measures.
func (r *report) add(round int, setup string, t *trial, err error) {
	i := slices.IndexFunc(r.Rounds, func(f roundFigures) bool { return f.Round == round && f.Setup == setup })
	if i < 0 {
		i = len(r.Rounds)
		r.Rounds = append(r.Rounds, roundFigures{Round: round, Setup: setup, Figures: map[string]float64{}, Series: map[string][]point{}})
	}
	f := &r.Rounds[i]
	maps.Copy(f.Figures, t.figures)
	maps.Copy(f.Series, t.series)
	if err != nil {
		f.Error = strings.TrimPrefix(f.Error+"\n"+err.Error(), "\n")
	}
	r.Medians = map[string]map[string]float64{}
	for _, setup := range r.Setups {
		r.Medians[setup] = map[string]float64{}
		for _, f := range figures {
			if v := slices.Collect(maps.Values(r.values(setup, f.name))); len(v) > 0 {
				r.Medians[setup][f.name] = median(v)
			}
		}
	}
}

// values are those of a figure by round.
func (r *report) values(setup, figure string) map[int]float64 {
	values := map[int]float64{}
	for _, f := range r.Rounds {
		if v, ok := f.Figures[figure]; ok && f.Setup == setup {
			values[f.Round] = v
		}
	}
	return values
}

// ratio is the median over rounds of one setup's figure to another's of the same round, so that
// a machine that becomes slower does not count.
func (r *report) ratio(setup, to, figure string) (float64, bool) {
	var ratios []float64
	base := r.values(to, figure)
	for round, v := range r.values(setup, figure) {
		if b := base[round]; b != 0 {
			ratios = append(ratios, v/b)
		}
	}
	if len(ratios) == 0 {
		return 0, false
	}
	return median(ratios), true
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (f *figure) show(v float64) string { return fmt.Sprintf("%.*f", f.digits, v*f.scale) }

// line is one round of a setup, short.
func (r *report) line(t *trial) string {
	var parts []string
	for _, f := range figures {
		if v, ok := t.figures[f.name]; ok {
			parts = append(parts, f.name+" "+f.show(v)+" "+f.unit)
		}
	}
	return strings.Join(parts, ", ")
}

// print writes the medians, and their ratios to the kernel router, to the bare copy and to the first
// nsgd, as tables in Markdown.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\nMedians of %s rounds, commit %s, %s, load %.1f at the beginning: %s%s\n\n", r.counted(), cmp.Or(r.Commit, "unknown"), r.Began.Format(time.DateOnly), r.Machine.Load, r.Machine, r.Machine.tools())
	columns := r.Setups
	if len(r.Generator) > 0 {
		columns = append([]string{generator}, r.Setups...)
	}
	table(w, columns, true, func(setup string, f *figure) string {
		v, ok := r.Medians[setup][f.name]
		if setup == generator {
			v, ok = r.Generator[f.name]
		}
		if ok {
			return f.show(v)
		}
		return ""
	})
	r.printSeries(w)
	for _, c := range r.comparisons() {
		if !slices.ContainsFunc(c.setups, func(setup string) bool { return r.compared(setup, c.base) }) {
			continue
		}
		fmt.Fprintf(w, "\nRatios to %s, medians over rounds\n\n", c.base)
		table(w, c.setups, false, func(setup string, f *figure) string {
			if v, ok := r.ratio(setup, c.base, f.name); ok {
				return fmt.Sprintf("%.2f", v)
			}
			return ""
		})
	}
}

// counted is how many rounds a median has; fewer where a trial failed or was left out.
func (r *report) counted() string {
	least, most := math.MaxInt, 0
	for _, setup := range r.Setups {
		for _, f := range figures {
			if n := len(r.values(setup, f.name)); n > 0 {
				least, most = min(least, n), max(most, n)
			}
		}
	}
	if least >= most {
		return fmt.Sprint(most)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// compared says whether a ratio of any figure can be told.
func (r *report) compared(setup, base string) bool {
	return slices.ContainsFunc(figures, func(f figure) bool {
		_, ok := r.ratio(setup, base, f.name)
		return ok
	})
}

// printSeries writes how round trips under load went over time: of all rounds the median of the slices' p50, and the longest.
func (r *report) printSeries(w io.Writer) {
	for _, protocol := range []string{"udp", "tcp"} {
		name := "rtt_" + protocol + "_load"
		points := 0
		for _, f := range r.Rounds {
			points = max(points, len(f.Series[name]))
		}
		if points == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s round trips under load over time, p50 and longest in us\n\n| ms | %s |\n|---|%s\n",
			strings.ToUpper(protocol), strings.Join(r.Setups, " | "), strings.Repeat("---|", len(r.Setups)))
		for i := range points {
			var cells []string
			for _, s := range r.Setups {
				cells = append(cells, r.slice(s, name, i))
			}
			fmt.Fprintf(w, "| %.0f | %s |\n", milliseconds(time.Duration(i)*seriesSlice), strings.Join(cells, " | "))
		}
	}
}

// slice is a cell of a series: one of a setup's slices of time.
func (r *report) slice(setup, name string, i int) string {
	var p50 []float64
	longest := 0.0
	for _, f := range r.Rounds {
		if s := f.Series[name]; f.Setup == setup && i < len(s) && s[i].Asked > 0 {
			p50, longest = append(p50, s[i].P50), max(longest, s[i].Longest)
		}
	}
	if len(p50) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f, %.0f", median(p50), longest)
}

// generator is the column of what senders and receivers can do.
const generator = "veth pair, once"

// comparison is a table of ratios to base.
type comparison struct {
	base   string
	setups []string
}

// comparisons are all with the kernel router, or, without one, with plain forwarding, those in user space with the bare copy, and every
// nsgd with the first one.
func (r *report) comparisons() []comparison {
	var list []comparison
	add := func(beginning string, compared func(setup string) bool) {
		i := slices.IndexFunc(r.Setups, func(s string) bool { return strings.HasPrefix(s, beginning) })
		if i < 0 {
			return
		}
		c := comparison{base: r.Setups[i]}
		for _, s := range r.Setups {
			if s != c.base && compared(s) {
				c.setups = append(c.setups, s)
			}
		}
		if len(c.setups) > 0 {
			list = append(list, c)
		}
	}
	all := func(string) bool { return true }
	if add("kernel", all); len(list) == 0 {
		add("forward", all)
	}
	add("copy", func(s string) bool { return !strings.HasPrefix(s, "kernel") })
	add("nsgd", func(s string) bool { return strings.HasPrefix(s, "nsgd") || slices.Contains(peerSetups, s) })
	return list
}

// table leaves out the figures that nobody has.
func table(w io.Writer, setups []string, units bool, cell func(setup string, f *figure) string) {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(setups, " | "), strings.Repeat("---|", len(setups)))
	for i := range figures {
		f := &figures[i]
		var cells []string
		found := false
		for _, s := range setups {
			c := cell(s, f)
			found = found || c != ""
			cells = append(cells, cmp.Or(c, "-"))
		}
		if !found {
			continue
		}
		title := f.title
		if units {
			title += ", " + f.unit
		}
		fmt.Fprintf(w, "| %s | %s |\n", title, strings.Join(cells, " | "))
	}
}

// write replaces the file.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// addTo takes over what a file holds. Figures of another commit or of other setups don't belong beside those of this run.
func (r *report) addTo(path string) error {
	old, err := readReport(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if old.Commit != r.Commit || !slices.Equal(old.Setups, r.Setups) {
		return fmt.Errorf("-add: %s has commit %q and setups %s, this run %q and %s", path, old.Commit, strings.Join(old.Setups, ", "), r.Commit, strings.Join(r.Setups, ", "))
	}
	r.Began, r.Rounds, r.Generator = old.Began, old.Rounds, old.Generator
	r.Machine.Load = max(r.Machine.Load, old.Machine.Load)
	return nil
}
