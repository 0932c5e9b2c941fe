// Command bench measures nsgd on the network side by side with what a user would
// otherwise run, in one run on one machine: `make bench-net`. It needs root,
// iperf3, wrk, nft and ip, and makes everything inside namespaces of its own, which
// end with it.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/nsgd/nsgd/dataplane/cluster"
)

// list is a flag that can be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ", ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if len(os.Args) == 2 && os.Args[1] == copyCommand {
		exit(copyPackets())
	}
	if len(os.Args) == 3 && os.Args[1] == fabricCommand {
		exit(copyBetweenHosts(os.Args[2]))
	}
	var o options
	flag.Var(&o.nsgd, "nsgd", "the daemon to measure; repeated: each of them (default bin/nsgd)")
	flag.Var(&o.config, "config", "keys that replace those of the daemon's configuration, such as 'offload: off'; repeated: each of them, '' is the plain one")
	flag.StringVar(&o.setups, "setups", defaultSetups, "what to measure, of "+strings.Join(setupNames(), ", ")+" and nsgd-RULES")
	flag.StringVar(&o.measures, "measures", "all", "beginnings of the names of "+strings.Join(measureNames(), ", ")+", or all")
	flag.IntVar(&o.rounds, "rounds", 5, "alternating rounds over all setups; medians are reported")
	flag.IntVar(&o.seconds, "seconds", 0, "length of one transfer; 0: as long as the whole run fits into 12 minutes, 2 at most; with -flood 3")
	flag.StringVar(&o.output, "o", "bin/bench-net.json", "file for all figures of all rounds")
	flag.BoolVar(&o.add, "add", false, "add to the figures in the file instead of replacing it, so that a long run can be made in pieces, of one commit")
	flag.StringVar(&o.commit, "commit", "", "the commit of what is measured, for the file")
	readme := flag.String("report", "", "write what runs have left in bin into the blocks of this document, and measure nothing")
	peers := flag.Bool("peers", false, "measure packet filters of other projects in process, beside nsgd's: make bench-peers")
	logs := flag.Bool("flow-logs", false, "measure the daemon without and with flow logs, in turn, by tcp1, udp64 and connects unless -measures says otherwise")
	traces := flag.Bool("traces", false, "measure the daemon while nobody traces, after a trace of everything, and during one, with nsgctl beside nsgd; measures as with -flow-logs")
	looked := flag.Bool("consoles", false, "measure the daemon while nobody looks at its console, and while ten do, by tcp1 and connects unless -measures says otherwise")
	flooded := flag.Bool("flood", false, "measure one TCP stream under floods instead")
	only := flag.String("only", "", "with -flood: leave out the kinds that this regular expression does not match, the first two apart")
	var restarts restartOptions
	flag.IntVar(&restarts.restarts, "restarts", 0, "measure what is lost when one process follows another, so many times each way; 0: not")
	flag.IntVar(&restarts.connections, "connections", 1000, "with -restarts: TCP connections")
	flag.IntVar(&restarts.flows, "flows", 100_000, "with -restarts: flows of one datagram")
	flag.IntVar(&restarts.rate, "rate", 50_000, "with -restarts: datagrams a second")
	flag.StringVar(&restarts.kinds, "kinds", "kill,restart,upgrade", "with -restarts: the ways")
	flag.BoolVar(&restarts.standby, "standby", false, "with -restarts: under nsgd keep --standby")
	var clusters clusterOptions
	flag.IntVar(&clusters.losses, "losses", 0, "measure what is lost when something happens to a cluster of three hosts and an etcd, so many times each; 0: not")
	flag.DurationVar(&clusters.lease, "lease", cluster.MinLease, "with -losses: that of the hosts")
	flag.StringVar(&clusters.row, "row", "", "with -losses: only rows whose name has this in it")
	flag.IntVar(&clusters.rate, "datagrams", 2000, "with -losses: datagrams a second each way")
	var fleet fleetOptions
	flag.IntVar(&fleet.hosts, "fleet", 0, "measure a rule change on a cluster of so many hosts, with an nsgd on each; 0: not")
	flag.IntVar(&fleet.nics, "nics", 5000, "with -fleet: network interfaces of the policy")
	flag.IntVar(&fleet.attached, "attached", 2, "with -fleet: network interfaces of each host")
	flag.IntVar(&fleet.changes, "changes", 3, "with -fleet: changes")
	var many policyOptions
	flag.IntVar(&many.groups, "groups", 0, "measure a policy of so many network security groups, and what is asked of it; 0: not")
	flag.IntVar(&many.rules, "rules", maxRules, "with -groups: rules of each")
	flag.IntVar(&many.interfaces, "interfaces", 5000, "with -groups: network interfaces")
	flag.StringVar(&many.tags, "service-tags", "", "with -groups: Microsoft's service tag file; empty: no rule names a tag")
	flag.IntVar(&many.flows, "live", 0, "with -groups: flows that live meanwhile")
	sizes := flag.Bool("sizes", false, "measure how long a start takes, by NICs and by flows, and how much memory nsgd needs")
	flag.Parse()
	if flag.NArg() > 0 {
		exit(fmt.Errorf("unexpected argument %q: -h shows what is allowed", flag.Arg(0)))
	}
	if *logs {
		o.withFlowLogs()
	}
	if *traces {
		o.withTraces()
	}
	if *looked {
		o.withConsoles()
	}
	if len(o.nsgd) == 0 {
		o.nsgd = list{"bin/nsgd"}
	}
	if len(o.config) == 0 {
		o.config = list{""}
	}
	if *readme != "" {
		exit(writeReadme(*readme, "bin"))
	}
	if *peers {
		exit(runPeers(&o))
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(reexec())
	}
	endWithSignal()
	if *flooded {
		expression, err := regexp.Compile(*only)
		if err != nil {
			exit(fmt.Errorf("-only: %w", err))
		}
		onlyFloods = expression
		exit(runFloods(o.nsgd[0], o.rounds, cmp.Or(o.seconds, 3)))
	}
	if *sizes {
		exit(runSizes(o.nsgd[0], o.rounds))
	}
	if many.groups > 0 {
		exit(runPolicy(o.nsgd[0], &many, o.rounds))
	}
	if fleet.hosts > 0 {
		exit(runFleet(o.nsgd[0], fleet))
	}
	if clusters.losses > 0 {
		exit(runLosses(o.nsgd[0], clusters))
	}
	if restarts.restarts > 0 {
		exit(runRestarts(o.nsgd[0], restarts))
	}
	exit(run(&o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// insideEnv marks the process that runs inside its own namespaces.
const insideEnv = "NSGD_BENCH_INSIDE"

// endSignals end a run.
var endSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

// endWithSignal ends this process, and with it everything in its PID namespace. Being the first in there,
// it gets only the signals that it asks for.
func endWithSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignals...)
	go func() {
		s := <-signals
		fmt.Fprintln(os.Stderr, "bench:", s)
		os.Exit(1)
	}()
}

// reexec runs this program again in new mount, PID and network namespaces, so
// that names and ports inside are its own and nothing survives it.
func reexec() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: must run as root: it makes network namespaces and TUN devices")
		return 2
	}
	// A killed parent takes the child along, for which the thread that started it has to stay.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignals...)
	go func() {
		for range signals {
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	if err := cmd.Wait(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 0 {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
