package dataplane

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/denylog"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// dies runs the test that calls it in a child, which must end by a panic that nobody recovers from. It is true in the child.
func dies(t *testing.T, want string) (child bool) {
	t.Helper()
	const childEnv = "NSGD_TEST_DIES"
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), childEnv+"="+t.Name())
	out, _ := c.CombinedOutput()
	if status := c.ProcessState.ExitCode(); status != 2 || !strings.Contains(string(out), "panic: "+want) {
		t.Errorf("status %d, want a panic with %q: %s", status, want, out)
	}
	return false
}

// recovering is a caller that recovers from a panic, as net/http does.
func recovering(do func()) {
	defer func() { recover() }()
	do()
}

// TestASweepGoesOnBehindAFlowAtWhichItPanics has connections by a load balancer fall silent, and nobody who hears of it.
func TestASweepGoesOnBehindAFlowAtWhichItPanics(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	const connections = 3
	for port := uint16(40000); port < 40000+connections; port++ {
		s := spec{Flags: "S", Seq: 99}
		at := r.pass(internet, framed(packettest.TCP(with(s, world, port, balanced, 80)))).at
		s = spec{Flags: "SA", Seq: 499, Ack: 100}
		r.pass(at, framed(packettest.TCP(with(s, map[int]string{vm3: addr3, vm4: addr4}[at], 8080, world, port))))
		s = spec{Flags: "A", Seq: 100, Ack: 500}
		r.pass(internet, framed(packettest.TCP(with(s, world, port, balanced, 80))))
	}
	close(r.engine.silent) // so that reset panics
	r.clock += 6 * time.Minute
	for range connections {
		r.engine.sweeper.Step()
	}
	if n := r.engine.Flows().Stats().Flows; n != 0 {
		t.Errorf("%d flows are left", n)
	}
	if n := r.engine.Faults().Counts()[fault.Expiry]; n != connections {
		t.Errorf("%d faults, want %d", n, connections)
	}
}

// TestAPanicWhileRecordsAreReclaimedEndsTheProcess has whoever hears of ended flows panic.
func TestAPanicWhileRecordsAreReclaimedEndsTheProcess(t *testing.T) {
	if !dies(t, "half a list") {
		return
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	r.engine.Flows().OnEnd(func(*conntrack.FlowInfo) { panic("half a list") })
	r.send(vm1, packettest.UDP(packettest.Spec{Src: addr1, Dst: addr2, SrcPort: 1, DstPort: 53}))
	r.clock += time.Hour
	r.engine.workers[0].flows.Park()
	for range 5 {
		recovering(r.engine.sweeper.Step)
	}
}

func TestAnErrandThatPanicsEndsTheProcess(t *testing.T) {
	if !dies(t, "half a worker") {
		return
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	recovering(func() { r.engine.everyWorker(func(*worker) { panic("half a worker") }) })
}

func TestAReloadThatPanicsHalfwayEndsTheProcess(t *testing.T) {
	if !dies(t, "runtime error") {
		return
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	next, err := r.engine.Prepare(figureOfTheSeed())
	if err != nil {
		t.Fatal(err)
	}
	r.engine.flows = nil // Swap finds out after the setting is stored
	recovering(func() { r.engine.Swap(next, nil) })
}

// TestAFlowAtWhichItsJudgementPanicsEnds judges flows by a snapshot that lacks everything.
func TestAFlowAtWhichItsJudgementPanicsEnds(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	r.send(vm1, packettest.UDP(packettest.Spec{Src: addr1, Dst: addr2, SrcPort: 1, DstPort: 53}))
	if n := r.engine.Flows().Stats().Flows; n != 1 {
		t.Fatalf("%d flows", n)
	}
	r.engine.followFlows(nil, &topology.Snapshot{}, r.engine.flows.Flows)
	if n := r.engine.Flows().Stats().Flows; n != 0 {
		t.Errorf("%d flows go on that nobody could judge", n)
	}
	if n := r.engine.Faults().Counts()[fault.Judgement]; n != 1 {
		t.Errorf("%d faults", n)
	}
}

// choking panics at its first line about a denied packet.
type choking struct {
	slog.Handler
	choked *bool
}

func (h choking) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "denied" && !*h.choked {
		*h.choked = true
		panic("a fault for a test")
	}
	return h.Handler.Handle(ctx, r)
}

func TestAPanicAtADeniedPacketCostsItsLine(t *testing.T) {
	l := make(lines, 4096)
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	r.engine.log = slog.New(choking{slog.NewJSONHandler(l, nil), new(bool)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- denylog.Run(ctx, r.engine, r.engine.log, denylog.MaxPerSecond) }()
	eventually(t, "the log watches", func() bool { return r.engine.watchers.Now() != nil })
	r.send(internet, syn(world, addr1, 22))
	r.send(internet, syn(world, addr1, 23))
	notShown := 0.0
	for line := (map[string]any)(nil); line["destination"] != addr1+":23"; {
		line = l.next(t) // what was not shown may have a line of its own
		n, _ := line["notShown"].(float64)
		notShown += n
	}
	if notShown != 1 {
		t.Errorf("%v denied packets were not shown, want 1", notShown)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := r.engine.Faults().Counts()[fault.DenyLog]; n != 1 {
		t.Errorf("%d faults", n)
	}
}
