// Command bench measures nsgd on the network side by side with what a user would
// otherwise run, in one run on one machine: `make bench-net`. It needs root,
// iperf3, nft and ip, and makes everything inside namespaces of its own, which
// end with it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	nsgd := flag.String("nsgd", "bin/nsgd", "the daemon to measure")
	rounds := flag.Int("rounds", 5, "alternating rounds over all setups; medians are reported")
	seconds := flag.Int("seconds", 3, "length of one measurement")
	flooded := flag.Bool("flood", false, "measure one TCP stream under floods instead")
	only := flag.String("only", "", "with -flood: leave out the kinds that this regular expression does not match, the first two apart")
	flag.Parse()
	if os.Getenv(insideEnv) == "" {
		os.Exit(reexec())
	}
	measure := run
	if *flooded {
		measure = runFloods
	}
	onlyFloods = regexp.MustCompile(*only)
	if err := measure(*nsgd, *rounds, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// insideEnv marks the process that runs inside its own namespaces.
const insideEnv = "NSGD_BENCH_INSIDE"

// reexec runs this program again in new mount, PID and network namespaces, so
// that names and ports inside are its own and nothing survives it.
func reexec() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: must run as root: it makes network namespaces and TUN devices")
		return 2
	}
	// Ctrl-C reaches the child, which is in the same process group, and whose end
	// takes its PID namespace with it.
	signal.Ignore(os.Interrupt)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// setup is one thing to measure.
type setup struct {
	name string
	// start makes the network and returns how to end it. Afterwards the namespace
	// client reaches an iperf3 server at address in the namespace server.
	start          func() (stop func(), err error)
	client, server string
	address        string
}

// measure is one figure of a setup.
type measure struct {
	name string
	args []string // iperf3 client arguments besides address and time
}

var measures = []measure{
	{"TCP 1 stream", nil},
	{"TCP 8 streams", []string{"-P", "8"}},
	{"TCP 1 stream, reverse", []string{"-R"}},
}

func run(nsgd string, rounds, seconds int) error {
	if err := privateWorld(); err != nil {
		return err
	}
	setups := []setup{
		kernelRouter(),
		daemon("nsgd, offload auto", nsgd, "auto"),
		daemon("nsgd, offload off", nsgd, "off"),
	}
	results := map[string][]float64{}
	began := time.Now()
	for range rounds {
		for _, s := range setups {
			if err := measureSetup(&s, seconds, results); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	report(setups, results, rounds, time.Since(began))
	return nil
}

func measureSetup(s *setup, seconds int, results map[string][]float64) error {
	stop, err := s.start()
	if err != nil {
		return err
	}
	defer stop()
	for _, m := range measures {
		bps, err := iperf(s, m.args, seconds)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		key := s.name + "/" + m.name
		results[key] = append(results[key], bps)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// report prints medians in Gbit/s, each with its ratio to the last setup's, the
// plain backend.
func report(setups []setup, results map[string][]float64, rounds int, took time.Duration) {
	base := setups[len(setups)-1]
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "medians of %d alternating rounds\t", rounds)
	for _, m := range measures {
		fmt.Fprintf(w, "%s\tratio\t", m.name)
	}
	fmt.Fprintln(w)
	for _, s := range setups {
		fmt.Fprintf(w, "%s\t", s.name)
		for _, m := range measures {
			v := median(results[s.name+"/"+m.name])
			fmt.Fprintf(w, "%.2f Gbit/s\t%.1f\t", v/1e9, v/median(results[base.name+"/"+m.name]))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Printf("ratio: to %q; %s in all\n", base.name, took.Round(time.Second))
}
