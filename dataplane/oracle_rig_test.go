package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/tun"
)

// oracleRig is an engine of one worker and the oracle that it is held against after
// every packet: where it came out or why not, unchanged, and every counter.
type oracleRig struct {
	t        testing.TB
	engine   *Engine
	devices  []*tun.Memory
	clock    time.Duration
	oracle   *oracle
	policies [2]*arm.Set           // to reload among
	prepared [2]*topology.Snapshot // of policies, once it was reloaded
	limits   limits
	// What the engine's counters must say.
	drops       [packet.NumDrops]uint64
	attachments [numPlaces]AttachmentCount
	met         happened
	record      *[]sentFrame // where to keep what is sent, if anywhere
}

type sentFrame struct {
	from  int
	bytes []byte
}

// happened counts what a test met, to keep it from going blind.
type happened struct {
	drops                                                              [packet.NumDrops]int
	begun, passed, errors, readdressed, evicted, restarted, v6, supers int
}

func oracleDevices(t testing.TB) (devices []*tun.Memory) {
	for range numPlaces {
		devices = append(devices, newMemory(t, 1, 2))
	}
	return devices
}

// newOracleRig reads the table's options and the policies from bytes.
func newOracleRig(t testing.TB, devices []*tun.Memory, policy []byte) *oracleRig {
	t.Helper()
	c := choices(policy)
	r := &oracleRig{t: t, devices: devices, clock: time.Hour, limits: limits{4096, 4096}}
	options := c.next(4)
	if options&1 != 0 {
		r.limits = limits{5, 2}
	}
	for i := range r.policies {
		r.policies[i] = policyFrom(&c)
	}
	r.oracle = &oracle{set: r.policies[0], strict: options&2 != 0, now: r.clock,
		flows: map[conntrack.Key]*oracleFlow{}, rules: map[topology.RuleKey]RuleCount{}}
	var err error
	r.engine, err = New(r.policies[0], Options{Attachments: oracleSpecs, Workers: 1, Clock: func() time.Duration { return r.clock },
		Flows: conntrack.Options{Max: r.limits.all, MaxPerZone: r.limits.nic, TCPStrict: r.oracle.strict, Seed: [2]uint64{1, 2}}})
	if err != nil {
		t.Fatal(err)
	}
	var all []tun.Device
	for _, d := range devices {
		d.Drain(0, nil)
		all = append(all, d)
	}
	if err := r.engine.Attach(all); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *oracleRig) wait(d time.Duration) {
	r.clock += d
	r.oracle.now += d
}

func (r *oracleRig) reload(i int) {
	s := r.prepared[i]
	if s == nil {
		var err error
		if s, err = r.engine.Prepare(r.policies[i]); err != nil {
			r.t.Fatal(err)
		}
		r.prepared[i] = s
	}
	if err := r.engine.Swap(s, nil); err != nil {
		r.t.Fatal(err)
	}
	r.oracle.set = r.policies[i]
	before := len(r.oracle.flows)
	r.oracle.readdress()
	r.met.readdressed += before - len(r.oracle.flows)
}

// carry sends one frame and holds what becomes of it against the oracle.
func (r *oracleRig) carry(from int, frame []byte) {
	if !r.devices[from].Inject(0, frame) {
		return // shorter than a header or longer than a slot
	}
	if r.record != nil {
		*r.record = append(*r.record, sentFrame{from, frame})
	}
	before := r.engine.Flows().Stats()
	e := r.oracle.expect(from, frame)
	if err := r.engine.workers[0].burst(from); err != nil {
		r.t.Fatal(err)
	}
	after := r.engine.Flows().Stats()
	var gone []*oracleFlow
	if n := after.Ended[conntrack.EndEvicted] - before.Ended[conntrack.EndEvicted]; n > 0 {
		var err error
		if gone, err = r.oracle.evicted(r.limits, &e, r.engine.Flows(), int(n)); err != nil {
			r.fail(from, frame, &e, err)
		}
		for _, f := range gone {
			r.oracle.remove(f)
		}
	}
	refused := after.Refused[conntrack.RefusedTable]+after.Refused[conntrack.RefusedZone] > before.Refused[conntrack.RefusedTable]+before.Refused[conntrack.RefusedZone]
	if refused {
		if err := r.oracle.mayRefuse(r.limits, &e); err != nil {
			r.fail(from, frame, &e, fmt.Errorf("refused: %w", err))
		}
	}
	r.oracle.settle(&e, refused)
	r.oracle.count(&e)
	r.tally(from, frame, &e, len(gone))
	if err := r.compare(from, frame, &e); err != nil {
		r.fail(from, frame, &e, err)
	}
	if created := after.Created > before.Created; created != (e.begins != nil) {
		r.fail(from, frame, &e, fmt.Errorf("flow created: %t", created))
	}
}

func (r *oracleRig) fail(from int, frame []byte, e *expectation, err error) {
	r.t.Helper()
	r.t.Fatalf("%v from %d (flags %#x, type %d, frame %x): %v\nexpected: to %d, %s, %v", e.packet.Tuple, from, e.packet.TCPFlags, e.packet.ICMPType, frame, err, e.to, e.drop, e.rules)
}

// tally adds a packet to what the counters must say.
func (r *oracleRig) tally(from int, frame []byte, e *expectation, evicted int) {
	segments, bytes := uint64(e.packet.Segments), uint64(e.packet.WireLen)
	r.attachments[from].ReceivePackets += segments
	r.attachments[from].ReceiveBytes += bytes
	r.met.drops[e.drop]++
	r.met.evicted += evicted
	if e.drop != packet.NotDropped {
		r.drops[e.drop]++
		return
	}
	r.attachments[e.to].TransmitPackets += segments
	r.attachments[e.to].TransmitBytes += bytes
	switch {
	case e.begins != nil:
		r.met.begun++
	case !e.packet.IsICMPError():
		r.met.passed++
	case !e.hit:
		r.met.errors++
	}
	if e.ends != nil {
		r.met.restarted++
	}
	if !e.packet.Src.Is4() {
		r.met.v6++
	}
	if segments > 1 {
		r.met.supers++
	}
}

// compare holds what came out and all that was counted against the expectation.
func (r *oracleRig) compare(from int, frame []byte, e *expectation) (err error) {
	out := 0
	for at, d := range r.devices {
		out += d.Drain(0, func(got []byte) {
			switch {
			case string(got) != string(frame):
				err = fmt.Errorf("came out at %d changed: %x", at, got)
			case e.drop != packet.NotDropped || at != e.to:
				err = fmt.Errorf("came out at %d", at)
			}
		})
	}
	if err != nil {
		return err
	}
	if drops := r.engine.Drops(); drops != r.drops {
		for d := range drops {
			if drops[d] != r.drops[d] {
				return fmt.Errorf("%d drops under %s, want %d", drops[d], packet.Drop(d), r.drops[d])
			}
		}
	}
	if out > 1 || (out == 1) != (e.drop == packet.NotDropped) {
		return fmt.Errorf("came out %d times", out)
	}
	for at, got := range r.engine.AttachmentCounts() {
		if got != r.attachments[at] {
			return fmt.Errorf("attachment %d counted %+v, want %+v", at, got, r.attachments[at])
		}
	}
	return r.compareRules()
}

func (r *oracleRig) compareRules() error {
	keys := r.engine.Registry().Keys()
	for i, got := range r.engine.RuleCounts(len(keys)) {
		if want := r.oracle.rules[keys[i]]; got != want {
			return fmt.Errorf("%+v counted %+v, want %+v", keys[i], got, want)
		}
	}
	return nil
}

// compareFlows holds the flow table against the oracle's memory.
func (r *oracleRig) compareFlows() {
	r.t.Helper()
	r.engine.Flows().Expire(r.engine.Now(), 0)
	alive := r.oracle.alive()
	for got := range r.engine.Flows().Flows {
		f := r.oracle.flows[got.Key]
		if !alive[f] {
			r.t.Fatalf("%+v is not among the oracle's flows", *got)
		}
		delete(alive, f)
		if got.Packets != f.Packets || got.Bytes != f.Bytes || got.ReplyKey != f.keys[1] || got.Idle != r.oracle.now-f.Seen {
			r.t.Fatalf("%+v, want %+v", *got, *f)
		}
	}
	for f := range alive {
		r.t.Fatalf("%v is not in the table", f.keys[0])
	}
}

func (h *happened) add(other *happened) {
	for i, n := range other.drops {
		h.drops[i] += n
	}
	h.begun += other.begun
	h.passed += other.passed
	h.errors += other.errors
	h.readdressed += other.readdressed
	h.evicted += other.evicted
	h.restarted += other.restarted
	h.v6 += other.v6
	h.supers += other.supers
}
