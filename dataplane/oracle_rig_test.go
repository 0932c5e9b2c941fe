package dataplane

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// oracleRig is an engine of one worker and the oracle that it is held against after
// every packet: where it came out or why not, unchanged, and every counter.
type oracleRig struct {
	t        testing.TB
	engine   *Engine
	devices  []*tuntest.Memory
	clock    time.Duration
	oracle   *oracle
	policies [2]*policy.Set        // to reload among
	prepared [2]*topology.Snapshot // of policies, once it was reloaded
	limits   limits
	// What the engine's counters must say.
	drops       [packet.NumDrops]uint64
	attachments [enginetest.NumPlaces]counter.Attachment
	met         happened
	record      *[]sentFrame // where to keep what is sent, if anywhere
	gather      int          // frames of one burst at most
	from        int          // where those of frames were sent
	frames      [][]byte     // sent and not yet carried
}

type sentFrame struct {
	from  int
	bytes []byte
}

// happened counts what a test met, to keep it from going blind.
type happened struct {
	drops                                                              [packet.NumDrops]int
	begun, passed, errors, readdressed, evicted, restarted, v6, supers int
	fragments, held                                                    int
	// judged again: the flow lived on, or ended
	kept, cut int
	services  map[string]int // packets of the platform's services
	admin     map[ruleset.Access]int
}

func oracleDevices(t testing.TB) (devices []*tuntest.Memory) {
	for range enginetest.NumPlaces {
		devices = append(devices, newMemory(t, 1, 64))
	}
	return devices
}

// newOracleRig reads the table's options and the policies from bytes.
func newOracleRig(t testing.TB, devices []*tuntest.Memory, policy []byte) *oracleRig {
	t.Helper()
	c := packettest.Choices(policy)
	r := &oracleRig{t: t, devices: devices, clock: time.Hour, limits: limits{4096, 4096}}
	options := c.Next(64)
	if r.gather = 1; options&1 != 0 {
		r.limits = limits{5, 2}
	} else if options&8 != 0 {
		r.gather = 20 // more than the groups in which a burst is carried
	}
	for i := range r.policies {
		r.policies[i] = enginetest.PolicyFrom(&c)
	}
	r.oracle = &oracle{set: r.policies[0], strict: options&2 != 0, now: r.clock, hold: options >> 2 & 1 * 2, blockSMTP: options&48 == 48,
		flows: map[conntrack.Key]*oracleFlow{}, rules: map[topology.RuleKey]counter.Rule{}, datagrams: map[datagramKey]*datagram{}}
	var err error
	subscription := topology.Subscription{}
	if r.oracle.blockSMTP {
		subscription.Type = "payg"
	}
	r.engine, err = New(r.policies[0], Options{Attachments: enginetest.Specs, Workers: 1, Clock: func() time.Duration { return r.clock }, Subscription: subscription,
		// More than a script has, so that none is refused for want of room.
		Fragments: fragment.Options{Max: 512, Hold: r.oracle.hold},
		Flows:     conntrack.Options{Max: r.limits.all, MaxPerZone: r.limits.nic, TCPStrict: r.oracle.strict, Seed: [2]uint64{1, 2}}})
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
	r.flush()
	r.clock += d
	r.oracle.now += d
	if r.oracle.hold > 0 {
		// What waits in vain goes with the sweep or before, as other datagrams need room.
		r.engine.Fragments().Expire(r.clock, time.Hour)
		r.oracle.forgetDatagrams()
	}
}

func (r *oracleRig) reload(i int) {
	r.flush()
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
	was := r.oracle.set
	r.oracle.set = r.policies[i]
	r.oracle.flush(was)
	r.oracle.generation++
	before := len(r.oracle.flows)
	r.oracle.readdress()
	r.met.readdressed += before - len(r.oracle.flows)
}

// carry sends a frame. It may wait for others from the same attachment, to be carried with
// them in one burst.
func (r *oracleRig) carry(from int, frame []byte) {
	if from != r.from {
		r.flush()
	}
	if !r.devices[from].Inject(0, frame) {
		return // shorter than a header or longer than a slot
	}
	r.from, r.frames = from, append(r.frames, frame)
	if r.record != nil {
		*r.record = append(*r.record, sentFrame{from, frame})
	}
	if len(r.frames) >= r.gather {
		r.flush()
	}
}

// flush lets the engine carry the frames that wait and holds what becomes of them against
// the oracle.
func (r *oracleRig) flush() {
	if len(r.frames) == 0 {
		return
	}
	before := r.engine.Flows().Stats()
	if err := r.engine.workers[0].carryBurst(r.from); err != nil {
		r.t.Fatal(err)
	}
	after := r.engine.Flows().Stats()
	var all []expectation
	created := after.Created - before.Created
	for _, frame := range r.frames {
		e := r.oracle.expect(r.from, frame)
		r.oracle.settle(&e, r.room(&e, &before, &after))
		if e.begins != nil {
			created--
		}
		all = append(append(all, e), r.oracle.decided(&e)...)
		r.attachments[r.from].ReceivePackets += uint64(e.packet.Segments)
		r.attachments[r.from].ReceiveBytes += uint64(e.packet.WireLen)
	}
	r.frames = r.frames[:0]
	for i := range all {
		r.oracle.count(&all[i])
		r.tally(&all[i])
	}
	if err := r.compare(all); err != nil {
		r.fail(all, err)
	}
	if created != 0 {
		r.fail(all, fmt.Errorf("%d flows created too many", int64(created)))
	}
}

// room follows what the flow table did for want of room, which is its own choice, and
// reports whether it refused a flow. Where room is scarce frames are not gathered.
func (r *oracleRig) room(e *expectation, before, after *conntrack.Stats) (refused bool) {
	if n := after.Ended[conntrack.EndEvicted] - before.Ended[conntrack.EndEvicted]; n > 0 {
		gone, err := r.oracle.evicted(r.limits, e, r.engine.Flows(), int(n))
		if err != nil {
			r.fail([]expectation{*e}, err)
		}
		for _, f := range gone {
			r.oracle.remove(f)
		}
		r.met.evicted += len(gone)
	}
	if after.Refused[conntrack.RefusedTable]+after.Refused[conntrack.RefusedZone] == before.Refused[conntrack.RefusedTable]+before.Refused[conntrack.RefusedZone] {
		return false
	}
	if err := r.oracle.mayRefuse(r.limits, e); err != nil {
		r.fail([]expectation{*e}, fmt.Errorf("refused: %w", err))
	}
	return true
}

func (r *oracleRig) fail(all []expectation, err error) {
	r.t.Helper()
	for i := range all {
		e := &all[i]
		r.t.Errorf("%v from %d (flags %#x, type %d, frame %x) was to go to %d: %s, %v", e.packet.Tuple, r.from, e.packet.TCPFlags, e.packet.ICMPType, e.frame, e.to, e.drop, e.rules)
	}
	r.t.Fatal(err)
}

// tally adds a packet that is carried or dropped to what the counters must say.
func (r *oracleRig) tally(e *expectation) {
	if e.waits {
		r.met.held++
		return
	}
	r.met.drops[e.drop]++
	r.met.decided(e)
	if e.drop != packet.NotDropped {
		r.drops[e.drop]++
		return
	}
	r.attachments[e.to].TransmitPackets += uint64(e.packet.Segments)
	r.attachments[e.to].TransmitBytes += uint64(e.packet.WireLen)
	if e.packet.Fragment.IsLater() {
		r.met.fragments++
	}
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
	if e.packet.Segments > 1 {
		r.met.supers++
	}
}

// compare holds what came out and all that was counted against the expectations.
func (r *oracleRig) compare(all []expectation) error {
	for at, d := range r.devices {
		var got, want []string
		d.Drain(0, func(frame []byte) { got = append(got, string(frame)) })
		for i := range all {
			if all[i].drop == packet.NotDropped && !all[i].waits && all[i].to == at {
				want = append(want, string(all[i].frame))
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%x came out at %d, want %x", got, at, want)
		}
	}
	r.drops[packet.DropFragmentNoFirst] += uint64(r.oracle.inVain)
	r.oracle.inVain = 0
	if drops := r.engine.Drops(); drops != r.drops {
		for d := range drops {
			if drops[d] != r.drops[d] {
				return fmt.Errorf("%d drops under %s, want %d", drops[d], packet.Drop(d), r.drops[d])
			}
		}
	}
	waiting := 0
	for at := range enginetest.NumPlaces {
		waiting += r.oracle.waits(at)
	}
	if n := r.engine.Fragments().Held(); n != int64(waiting) {
		return fmt.Errorf("%d fragments wait, want %d", n, waiting)
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
	for i, got := range r.engine.Counters().Rules(len(keys)) {
		if want := r.oracle.rules[keys[i]]; got != want {
			return fmt.Errorf("%+v counted %+v, want %+v", keys[i], got, want)
		}
	}
	for service, got := range r.engine.Counters().Services() {
		want := r.oracle.rules[serviceKey(topology.Service(service).String())]
		if got != (counter.Platform{Packets: want.Packets, Bytes: want.Bytes}) {
			return fmt.Errorf("service %s counted %+v, want %+v", topology.Service(service), got, want)
		}
	}
	return nil
}

// compareFlows holds the flow table against the oracle's memory.
func (r *oracleRig) compareFlows() {
	r.t.Helper()
	r.flush()
	r.engine.Flows().Expire(r.engine.Now(), 0)
	alive := r.oracle.alive()
	for got := range r.engine.Flows().Flows {
		f := r.oracle.flows[got.Key]
		if got.Waits {
			for _, other := range r.oracle.flows {
				if other.next != nil && other.next.keys[0] == got.Key {
					f = other.next
				}
			}
			if !alive[f] && r.oracle.orphans() > 0 {
				continue
			}
		}
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

func (h *happened) decided(e *expectation) {
	if h.services == nil {
		h.services, h.admin = map[string]int{}, map[ruleset.Access]int{}
	}
	if e.again && e.drop == packet.DropRule {
		h.cut++
	} else if e.again {
		h.kept++
	}
	for _, key := range e.rules {
		if key.NetworkSecurityGroup == "" {
			h.services[key.Rule]++
		}
		if strings.HasPrefix(key.Rule, "admin") {
			h.admin[key.Access]++
		}
	}
}

func (h *happened) add(other *happened) {
	if h.services == nil {
		h.services, h.admin = map[string]int{}, map[ruleset.Access]int{}
	}
	for service, n := range other.services {
		h.services[service] += n
	}
	for access, n := range other.admin {
		h.admin[access] += n
	}
	h.kept += other.kept
	h.cut += other.cut
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
	h.fragments += other.fragments
	h.held += other.held
}
