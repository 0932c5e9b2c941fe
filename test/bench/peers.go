package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// peerBinary is a test binary with benchmarks of filters in process.
type peerBinary struct {
	path, dir string // the dir is where its tests run
	bench     string
	// figure says where the figure of a benchmark goes, by the parts of its name after the first.
	figure func(parts []string) (setup, figure string)
}

// peerBinaries are nsgd's own benchmarks and those of test/bench/peers, as `make bench-peers` builds them.
var peerBinaries = []peerBinary{
	{"bin/bench-dataplane.test", "dataplane", `^BenchmarkCarry$/^(established-TCP|established-UDP|denied)$/^rules=(10|1000)$/^workers=1$`, func(parts []string) (string, string) {
		return "nsgd", peerFigure(parts[0], parts[1])
	}},
	{"bin/bench-dataplane.test", "dataplane", `^BenchmarkEstablished$/^(TCP|UDP)$/^pipeline$`, func(parts []string) (string, string) {
		return "nsgd-bare", peerFigure("established-"+parts[0], "rules=10")
	}},
	{"bin/bench-peers.test", "test/bench/peers", `^BenchmarkCarry$`, func(parts []string) (string, string) {
		return parts[0], peerFigure(parts[1], parts[2])
	}},
}

// peerSetups are in the order of the columns.
var peerSetups = []string{"nsgd", "nsgd-bare", "tailscale", "nebula"}

// processors end the name of a benchmark where there are several.
var processors = regexp.MustCompile(`-[0-9]+$`)

func peerFigure(kind, rules string) string {
	return "packet_" + strings.ToLower(strings.ReplaceAll(kind, "-", "_")) + "_" + strings.TrimPrefix(rules, "rules=")
}

// runPeers measures packet filters in process, each in turn a round.
func runPeers(o *options) error {
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: allowed are 1 or more", o.rounds)
	}
	var setups []setup
	for _, name := range peerSetups {
		setups = append(setups, setup{name: name})
	}
	r := newReport(o, setups)
	if err := r.Machine.modules("bin/bench-peers.test", "tailscale.com", "github.com/slackhq/nebula"); err != nil {
		return err
	}
	for round := range o.rounds {
		trials := map[string]*trial{}
		var err error
		pause := longestPause(func() {
			for i := range peerBinaries {
				err = errors.Join(err, peerBinaries[(i+round)%len(peerBinaries)].run(trials))
			}
		})
		if err != nil {
			return err
		}
		for _, name := range peerSetups {
			if trials[name] == nil {
				return fmt.Errorf("%s: no benchmark ran", name)
			}
			err := trials[name].judge(pause)
			r.add(round+1, name, trials[name], err)
			if err != nil {
				fmt.Fprintf(os.Stderr, "round %d, %s: %v\n", round+1, name, err)
			}
			fmt.Printf("round %d, %s: %s\n", round+1, name, r.line(trials[name]))
		}
		if err := r.write(o.output); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	fmt.Println("\nevery figure of every round:", o.output)
	return nil
}

// run notes nanoseconds a packet, by setup.
func (p *peerBinary) run(trials map[string]*trial) error {
	path, err := filepath.Abs(p.path)
	if err != nil {
		return err
	}
	c := exec.Command(path, "-test.run", "^$", "-test.bench", p.bench, "-test.benchtime", "200ms", "-test.timeout", "5m")
	c.Dir = p.dir
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", p.path, err, out)
	}
	reader := benchfmt.NewReader(strings.NewReader(string(out)), p.path)
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.Result:
			seconds, ok := record.Value("sec/op")
			if !ok {
				return fmt.Errorf("%s: %s has no time", p.path, record.Name)
			}
			setup, figure := p.figure(strings.Split(processors.ReplaceAllString(record.Name.String(), ""), "/")[1:])
			if trials[setup] == nil {
				trials[setup] = newTrial(0, 0)
			}
			trials[setup].figure(figure, seconds)
		case *benchfmt.SyntaxError:
			return fmt.Errorf("%s: %w", p.path, record)
		}
	}
	return reader.Err()
}
