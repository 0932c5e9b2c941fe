package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	nsgd, config     list
	setups, measures string
	rounds, seconds  int
	output, commit   string
	add              bool
}

// measure is a kind of trial; it notes one figure or several.
type measure struct {
	name string
	run  func(t *trial) error
	// length is about what it takes when a transfer takes so many seconds.
	length func(seconds int) time.Duration
}

// measures are in the order in which a setup meets them: idle comes before there are flows.
var measures = []measure{
	{"idle", measureIdle, func(int) time.Duration { return idleSettle + idleSpan }},
	{"tcp1", measureTCP(1), transfers(2)},
	{"tcp8", measureTCP(8), transfers(2)},
	{"udp64", measureUDP("udp64", smallDatagram, 1), searches(1100 * time.Millisecond)},
	{"udp64x", measureUDP("udp64x", smallDatagram, runtime.NumCPU()), searches(0)},
	{"udp1400", measureUDP("udp1400", largeDatagram, 1), searches(0)},
	{"connects", measureConnects, func(seconds int) time.Duration { return time.Duration(seconds) * time.Second }},
	{"quic", measureQUIC, func(seconds int) time.Duration { return time.Duration(seconds) * time.Second }},
	{"http", measureHTTP, func(seconds int) time.Duration { return time.Duration(seconds)*time.Second + 200*time.Millisecond }},
	{"rtt-udp", measureLatency("udp"), latencies},
	{"rtt-tcp", measureLatency("tcp"), latencies},
}

func latencies(seconds int) time.Duration {
	return time.Duration(seconds)*time.Second*3/2 + 200*time.Millisecond
}

func transfers(n int) func(int) time.Duration {
	return func(seconds int) time.Duration {
		return time.Duration(n) * (time.Duration(seconds)*time.Second + 200*time.Millisecond)
	}
}

func searches(more time.Duration) func(int) time.Duration {
	return func(int) time.Duration {
		return more + udpFlood + searchTrials*(udpTrial+30*time.Millisecond)
	}
}

func measureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

// chooseMeasures reads -measures.
func chooseMeasures(beginnings string) ([]measure, error) {
	if beginnings == "all" {
		return measures, nil
	}
	chosen := map[string]bool{}
	for beginning := range strings.SplitSeq(beginnings, ",") {
		found := false
		for _, name := range measureNames() {
			if beginning != "" && strings.HasPrefix(name, beginning) {
				chosen[name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("-measures: %q: allowed are beginnings of %s, or all", beginning, strings.Join(measureNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool { return !chosen[m.name] }), nil
}

// trial is one setup in one round.
type trial struct {
	network *network
	seconds int     // of one transfer
	idle    float64 // CPU seconds a second that the machine uses when nothing runs
	figures map[string]float64
	series  map[string][]point // by the beginning of its figures' names
}

func newTrial(seconds int, idle float64) *trial {
	return &trial{seconds: seconds, idle: idle, figures: map[string]float64{}, series: map[string][]point{}}
}

func (t *trial) figure(name string, value float64) { t.figures[name] = value }

const (
	// budget is what a run without -seconds may take.
	budget = 12 * time.Minute
	// between is about what starting and ending a setup takes, and calibration what
	// finding out about senders and receivers does.
	between, calibration = time.Second, 5 * time.Second
)

// planned is about how long the rounds take.
func planned(setups, rounds, seconds int, measures []measure) time.Duration {
	each := between
	for _, m := range measures {
		each += m.length(seconds)
	}
	return calibration + time.Duration(rounds)*(time.Duration(setups)*each+idleSpan)
}

// chooseSeconds is the length of a transfer with which a run fits its budget, 1 or 2.
func chooseSeconds(setups, rounds int, measures []measure) int {
	if planned(setups, rounds, 2, measures) <= budget {
		return 2
	}
	return 1
}

func run(o *options) error {
	if o.rounds < 1 || o.seconds < 0 {
		return fmt.Errorf("-rounds %d, -seconds %d: allowed are 1 or more, and 0 or more", o.rounds, o.seconds)
	}
	measures, err := chooseMeasures(o.measures)
	if err != nil {
		return err
	}
	setups, err := makeSetups(o)
	if err != nil {
		return err
	}
	if o.seconds == 0 {
		o.seconds = chooseSeconds(len(setups), o.rounds, measures)
	}
	if err := privateWorld(); err != nil {
		return err
	}
	// A goroutine that comes back from a system call finds a processor of Go's at once.
	runtime.GOMAXPROCS(4 * runtime.NumCPU())
	r := newReport(o, setups)
	if o.add {
		if err := r.addTo(o.output); err != nil {
			return err
		}
	}
	fmt.Printf("%s\n%d rounds of %d setups (%s), transfers of %d s: about %v\n", r.Machine, o.rounds, len(setups),
		strings.Join(r.Setups, ", "), o.seconds, planned(len(setups), o.rounds, o.seconds, measures).Round(time.Second))
	if err := calibrate(r, measures); err != nil {
		return err
	}
	whole, err := r.rounds(o, setups, measures)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	fmt.Println("\nevery figure of every round:", o.output)
	if !whole {
		return errors.New("some measurements failed, see above")
	}
	return nil
}

// rounds makes them, and says whether nothing failed.
func (r *report) rounds(o *options, setups []setup, measures []measure) (whole bool, err error) {
	whole = true
	missing := map[string]bool{}
	for round := range o.rounds {
		idle, err := watchIdle(0)
		if err != nil {
			return false, err
		}
		for i := range setups {
			s := &setups[(i+round)%len(setups)] // none always comes first
			if missing[s.name] {
				continue
			}
			t := newTrial(o.seconds, idle.machine.Seconds()/idle.length().Seconds())
			err := s.measure(t, measures)
			r.add(round+1, s.name, t, err)
			fmt.Printf("round %d, %s: %s\n", round+1, s.name, r.line(t))
			switch {
			case errors.Is(err, errStart) && s.optional:
				missing[s.name] = true
				r.Setups = slices.DeleteFunc(r.Setups, func(name string) bool { return name == s.name })
				fmt.Fprintf(os.Stderr, "%v; it is left out\n", err)
			case errors.Is(err, errStart):
				return false, err
			case err != nil:
				whole = false
				fmt.Fprintf(os.Stderr, "round %d, %s: %v\n", round+1, s.name, err)
			}
			if err := r.write(o.output); err != nil {
				return false, err
			}
		}
	}
	return whole, nil
}

// errStart is what a setup's error wraps that did not start.
var errStart = errors.New("does not start")

// measure runs all measures; one that fails leaves the others to be made.
func (s *setup) measure(t *trial, measures []measure) error {
	n, err := s.start()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", s.name, errStart, err)
	}
	defer n.stop()
	t.network = n
	var errs []error
	pause := longestPause(func() {
		for _, m := range measures {
			if err := m.run(t); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			}
		}
	})
	return errors.Join(append(errs, t.judge(pause))...)
}

// calibrated are the measures whose traffic this program makes itself, by the beginning of their
// names.
var calibrated = []string{"udp", "connects"}

// calibrate finds out what senders and receivers can do where nothing is between them.
func calibrate(r *report, measures []measure) error {
	own := slices.DeleteFunc(slices.Clone(measures), func(m measure) bool {
		return !slices.ContainsFunc(calibrated, func(beginning string) bool { return strings.HasPrefix(m.name, beginning) })
	})
	if len(own) == 0 {
		return nil
	}
	d := direct()
	t := newTrial(1, 0)
	if err := d.measure(t, own); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	maps.Copy(r.Generator, t.figures)
	fmt.Printf("%s, what senders and receivers can do: %s\n", d.name, r.line(t))
	return nil
}
