package flowlog

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/slab"
)

// Options configure a Recorder.
type Options struct {
	Engine *dataplane.Engine
	// Logs have passed Check.
	Logs []Log
	// Interval is how often the flow table is walked and records are written; 0: a minute, as in
	// Azure. A live flow has a row every fifth time.
	Interval time.Duration
	// Stdout receives the records of logs that are printed.
	Stdout io.Writer
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
	// Log receives what can't be written and what is left out; nil discards it.
	Log *slog.Logger
	// QueueBytes bounds the records that wait for a folder, or for the reader of Stdout; 0: 64 MiB.
	// Rows of denied packets take up a quarter of it at most.
	QueueBytes int
	// Slabs keep what flows have told, and the rows that no file has yet, for the next process; nil: they end with this
	// one. The flow table has NotesPerFlow then.
	Slabs *slab.Slabs
}

const (
	defaultInterval = time.Minute
	// continueEvery is how many intervals lie between two rows of a live flow.
	continueEvery = 5
	// drainEvery is how long ended flows wait at most for their last row.
	drainEvery = 100 * time.Millisecond
	// gatheredBytes bounds the rows that wait for the end of the interval. When there are more,
	// they become records early.
	gatheredBytes = 1 << 20
	// walkPause lies between walkSlices slices of the flow table, so that a walk through a large
	// table leaves the processor to the workers.
	walkPause  = time.Millisecond
	walkSlices = 8
)

// Recorder writes the flow logs of an engine.
type Recorder struct {
	options Options
	log     *slog.Logger
	logs    []*flowLog
	sinks   []*sink
	stores  []*store
	printer *sink // nil: nothing is printed
	ring    *ring
	denied  *watch.Subscription
	events  []watch.Event // of takeDenied, which Run calls, and Close after it

	deniedOut atomic.Uint64 // denied packets left out, so that other rows have room
	errors    atomic.Uint64
	reported  atomic.Int64 // Unix time of the last error in the log

	mu         sync.Mutex // guards the fields below
	router     *router
	flows      []flow // by conntrack.Flow
	walked     uint32 // number of the walk, from 1
	batch      []conntrack.FlowInfo
	gathered   int    // bytes of rows that have no record yet
	deniedTold uint64 // of deniedLost, by tellDenied
	leftTold   uint64 // rows without room in a folder, by tellDenied
	repeated   map[repeatedKey]*repeated
	wal        *wal      // nil: nothing outlives the process
	rows       []walRow  // of the entry that is being made
	recorded   time.Time // of the last records
	now        time.Time // with tick, relates the flow table's clock to the wall clock
	tick       conntrack.Tick
}

// flow is what a Recorder remembers of a live flow: what its rows have told already, and where
// they go. The zero value has had no row. With Options.Slabs it is the flow's note in the flow table, and a change of
// what a field means changes walMagic.
type flow struct {
	packets, bytes [2]uint64
	ends           [2]uint32 // the sender's and the receiver's, in router.ends
	walked         uint32    // the walk of the last row, or lastRow
	created        conntrack.Tick
}

// lastRow says that a flow that was cut has had its last row, though its record stays.
const lastRow = math.MaxUint32

// New makes a Recorder. Call it before the engine carries anything, and then Run and Close.
func New(o Options) (*Recorder, error) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = queueBytes
	}
	if err := Check(o.Engine.Snapshot().Policy, o.Logs); err != nil {
		return nil, err
	}
	r := &Recorder{options: o, log: o.Log, ring: newRing(endedFlows), flows: make([]flow, o.Engine.Flows().Records()), events: make([]watch.Event, deniedAtOnce), repeated: map[repeatedKey]*repeated{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.openLogs()
	r.router = newRouter(o.Engine, r.logs, r.failed)
	if o.Slabs != nil {
		if err := r.keep(); err != nil {
			return nil, err
		}
	}
	r.router.follow()
	var err error
	if r.denied, err = r.watchDenied(); err != nil {
		return nil, err
	}
	for _, s := range r.sinks {
		s.renewDenied(hourPath(o.Now()))
		go s.run()
	}
	o.Engine.Flows().OnEnd(r.ring.push)
	return r, nil
}

// openLogs gives each folder a sink, and all printed logs one sink together.
func (r *Recorder) openLogs() {
	folders := map[string]*sink{}
	for _, l := range r.options.Logs {
		if l.MaxSize == 0 {
			l.MaxSize = DefaultMaxSize
		}
		if l.Folder != "" {
			l.Folder = filepath.Clean(l.Folder) // a/ and a are one
		}
		running := &flowLog{Log: l}
		r.logs = append(r.logs, running)
		if l.Folder != "" {
			if folders[l.Folder] == nil {
				st := &store{folder: l.Folder, limit: l.MaxSize}
				folders[l.Folder] = r.addSink(sinkFolder, st.append)
				folders[l.Folder].deniedPerHour = int(l.MaxSize / deniedOfFolder)
				r.stores = append(r.stores, st)
			}
			running.sinks = append(running.sinks, folders[l.Folder])
		}
		if l.Stdout {
			if r.printer == nil {
				r.printer = r.addSink(sinkPrinter, func(b *block) error {
					_, err := r.options.Stdout.Write(append(b.record[:len(b.record):len(b.record)], '\n'))
					return err
				})
			}
			running.sinks = append(running.sinks, r.printer)
		}
	}
}

func (r *Recorder) addSink(kind int, deliver func(*block) error) *sink {
	s := newSink(kind, r.options.QueueBytes, deliver, r.failed)
	r.sinks = append(r.sinks, s)
	return s
}

// failed counts an error and logs it, once a minute at most.
func (r *Recorder) failed(err error) {
	r.errors.Add(1)
	now := r.options.Now().Unix()
	if last := r.reported.Load(); last != 0 && now-last < 60 && now >= last {
		return
	}
	r.reported.Store(now)
	r.log.Warn("flow logs", "error", err)
}

// Run logs until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	next := r.nextWalk()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.ring.wake:
		}
		r.drain()
		r.takeDenied()
		if r.due(next) {
			r.walk(false, r.pause)
			next = r.nextWalk()
		}
	}
}

// nextWalk is at a whole interval of the clock, so that each hour ends with a walk.
func (r *Recorder) nextWalk() time.Time {
	return r.options.Now().Truncate(r.options.Interval).Add(r.options.Interval)
}

// due reports that the time of a walk has come. It has also come when the clock was set back,
// because the planned time may then be hours ahead.
func (r *Recorder) due(next time.Time) bool {
	left := next.Sub(r.options.Now())
	return left <= 0 || left > r.options.Interval
}

// patience bounds how long a walk waits until the records of its earlier slices are written.
const patience = 2 * time.Second

// pause lets workers and sinks run between the slices of a walk. It still takes ended flows and
// denied packets, since their rings hold those of a moment only.
func (r *Recorder) pause() {
	time.Sleep(walkPause)
	for waited := walkPause; waited < patience && r.crowded(); waited += walkPause {
		r.drain()
		r.takeDenied()
		time.Sleep(walkPause)
	}
	r.drain()
	r.takeDenied()
}

func (r *Recorder) crowded() bool {
	for _, s := range r.sinks {
		if s.crowded() {
			return true
		}
	}
	return false
}

// drain makes the rows of ended flows.
func (r *Recorder) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookAtClocks()
	r.ring.drain(r.fromRing)
}

// lookAtClocks also follows the policy. mu is held, as for the methods below.
func (r *Recorder) lookAtClocks() {
	r.router.follow()
	r.now, r.tick = r.options.Now(), r.options.Engine.Now()
}

// walk goes through the flow table and makes the rows that are due, then records of all rows.
// With last every flow gets its last row; the engine has stopped.
func (r *Recorder) walk(last bool, pause func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.walked++
	if r.wal != nil {
		r.wal.head.walks.Store(r.walked)
	}
	r.router.forget()
	table := r.options.Engine.Flows()
	for first, n := conntrack.Flow(0), 1; ; n++ {
		r.lookAtClocks()
		next := table.Slice(first, r.batch[:0], func(batch []conntrack.FlowInfo) {
			// Flows that had these records before come first. None of the batch is among them.
			r.ring.drain(r.fromRing)
			r.batch = batch
		})
		for i := range r.batch {
			if last {
				r.ended(&r.batch[i])
			} else {
				r.goesOn(&r.batch[i])
			}
		}
		if first = next; first == 0 {
			break
		}
		if n%walkSlices == 0 {
			r.mu.Unlock()
			pause()
			r.mu.Lock()
		}
	}
	r.addRepeated()
	r.write()
	for _, s := range r.router.shares {
		s.denied = 0
	}
	for _, s := range r.sinks {
		s.renewDenied(hourPath(r.options.Now()))
	}
	r.tellDenied()
}

// goesOn makes the row of a live flow when it is due. A flow that has counted no packet yet waits
// for the next walk, because it may still be withdrawn.
func (r *Recorder) goesOn(i *conntrack.FlowInfo) {
	if !r.known(i) && i.Packets == [2]uint64{} {
		return
	}
	f := r.flows[i.Flow]
	if !r.meet(i, &f) {
		return
	}
	switch {
	case f.walked == lastRow:
	case i.Class.Cut():
		r.count(i, &f, stateEnd)
		f.walked = lastRow
	case r.walked-f.walked >= continueEvery:
		f.walked = r.walked
		r.count(i, &f, stateContinue)
	}
	if f != r.flows[i.Flow] {
		r.commit(i.Flow, &f, 0)
	}
}

// fromRing takes the next flow of the ring.
func (r *Recorder) fromRing(i *conntrack.FlowInfo) { r.endAs(i, r.ring.head.Load()+1) }

// ended makes the last row of a flow, and its first row if it had none. A flow without packets
// was withdrawn: its first packet began another flow.
func (r *Recorder) ended(i *conntrack.FlowInfo) { r.endAs(i, 0) }

// endAs is ended for a flow whose place in the ring is before a position; 0: it is not from there.
func (r *Recorder) endAs(i *conntrack.FlowInfo, position uint64) {
	if int(i.Flow) >= len(r.flows) || !r.known(i) && i.Packets == [2]uint64{} { // the former in a ring that is damaged
		return
	}
	f := r.flows[i.Flow]
	if !r.meet(i, &f) {
		return
	}
	if f.walked != lastRow {
		r.count(i, &f, stateEnd)
	}
	r.commit(i.Flow, &flow{}, position)
}

// commit ends a change of a flow: its rows have gathered, and it is remembered as f from now on; noFlow: there is none.
// position is as for endAs. The write-ahead log has all of that before. mu is held.
func (r *Recorder) commit(n conntrack.Flow, f *flow, position uint64) {
	if r.wal != nil && !r.wal.addRows(n, f, position, r.rows, len(r.router.places)) && r.wal.left == uint64(len(r.rows)) {
		r.failed(errors.New("the log of rows that no file has yet is full: a crash would lose the rows that come now"))
	}
	if n != noFlow {
		r.flows[n] = *f
	}
	if r.wal != nil {
		if position > 0 {
			r.ring.head.Store(position)
		}
		r.wal.apply()
		r.rows = r.rows[:0]
	}
	if r.gathered > gatheredBytes {
		r.write()
	}
}

// known reports that a flow has had a row.
func (r *Recorder) known(i *conntrack.FlowInfo) bool {
	f := &r.flows[i.Flow]
	return f.walked != 0 && f.created == i.Created
}

// meet makes a flow's first row, if what is remembered is not of this flow. It is false for a flow that is not logged.
func (r *Recorder) meet(i *conntrack.FlowInfo, f *flow) bool {
	if !logged(i.Key.Proto) {
		return false
	}
	if r.known(i) {
		return true
	}
	// Anything else that is remembered belongs to a flow that was lost when it ended.
	*f = flow{created: i.Created, walked: max(r.walked, 1)}
	if topology.ServiceOfSlot(lastSlot(i.Slots)) == topology.NoService {
		decided := uint64(i.Generation)
		generation := cmp.Or(decided, r.router.first) // 0: the policy of another process decided
		v := r.router.viewOf(generation)
		for n, d := range [...]ruleset.Direction{ruleset.Outbound, ruleset.Inbound} {
			key := &i.Key
			if d == ruleset.Inbound {
				key = &i.ReplyKey
			}
			f.ends[n] = r.router.endAt(v, generation, key.Zone, key.Src, d, r.router.deciding(i.Slots, decided, d))
		}
	}
	r.addRows(i, f, &row{time: r.millis(i.Created), state: stateBegin})
	return true
}

// lastSlot is the slot of a platform service if the platform let the flow pass.
func lastSlot(s conntrack.Slots) (last uint32) {
	for ; s.More(); s = s.Rest() {
		last = s.First()
	}
	return last
}

// count makes a row with the packets and bytes since the flow's last row. A flow may have begun
// after the clocks were read; its row is then no earlier than its beginning.
func (r *Recorder) count(i *conntrack.FlowInfo, f *flow, s state) {
	w := &row{time: max(r.now.UnixMilli(), r.millis(i.Created)), state: s}
	for d := range w.packets {
		// A process that was killed may have lost a unit of a tally, see conntrack.
		w.packets[d] = max(i.Packets[d], f.packets[d]) - f.packets[d]
		w.bytes[d] = max(i.Bytes[d], f.bytes[d]) - f.bytes[d]
	}
	f.packets, f.bytes = i.Packets, i.Bytes
	r.addRows(i, f, w)
}

// addRows adds a flow's row at each of its ends, with the addresses that this end sees.
func (r *Recorder) addRows(i *conntrack.FlowInfo, f *flow, w *row) {
	w.tuple = i.Key.Tuple
	r.addRow(f.ends[0], w)
	w.tuple = i.ReplyKey.Reverse()
	r.addRow(f.ends[1], w)
}

func (r *Recorder) addRow(number uint32, w *row) {
	if int(number) >= len(r.router.ends) { // of a note that is damaged
		return
	}
	e := &r.router.ends[number]
	w.outbound = e.outbound
	for v, g := range e.groups {
		if g == nil {
			continue
		}
		grown := g.add(w)
		r.gathered += grown
		if r.wal != nil {
			to := len(g.tuples)
			if g.rows > 1 {
				grown-- // a comma
			}
			r.rows = append(r.rows, walRow{g, number, Version(v), w.state == stateDenied, to - grown, to})
		}
	}
}

func (r *Recorder) millis(t conntrack.Tick) int64 {
	return r.now.Add(-time.Duration(int32(r.tick-t)) * conntrack.TickLength).UnixMilli()
}

// timeStep is what a record's time is a multiple of.
const timeStep = 100 * time.Nanosecond

// write makes records of the rows that have gathered. No file gets two of one time: that is how the next process
// knows them.
func (r *Recorder) write() {
	now := r.options.Now().Truncate(timeStep)
	if early := r.recorded.Sub(now); early >= 0 && early < time.Second { // more: the clock was set back
		now = r.recorded.Add(timeStep)
	}
	r.recorded = now
	for _, p := range r.router.places {
		if len(p.busy) == 0 {
			continue
		}
		b := p.record(now)
		if r.wal != nil {
			r.wal.addBlock(b, p, now.UnixNano())
		}
		for _, s := range p.log.sinks {
			s.put(b)
		}
	}
	r.gathered = 0
	if r.wal != nil {
		if left := r.wal.turn(); left > 0 {
			r.log.Warn("flow logs: the log of rows that no file has yet has room again", "rows without", left)
		}
	}
}

// closePatience is how long Close waits for a disk or a reader.
const closePatience = 10 * time.Second

// Close writes the last rows of all flows and waits until they are written. Call it once, after
// the engine has stopped.
func (r *Recorder) Close() error {
	r.closeDenied()
	table := r.options.Engine.Flows()
	// Flows that have ended or timed out come first. The steps are smaller than the ring.
	for done := 0; done < table.Records()+3*endedFlows/4; done += endedFlows / 4 {
		table.Expire(r.options.Engine.Now(), endedFlows/4)
		r.drain()
	}
	deadline := time.Now().Add(closePatience)
	r.walk(true, func() {
		if time.Now().Before(deadline) {
			r.pause()
		}
	})
	return r.closeSinks(false)
}

// Leave is Close for a process that the next one follows, with Options.Slabs: live flows go on and get no last row.
func (r *Recorder) Leave() error {
	r.closeDenied()
	table := r.options.Engine.Flows()
	// The table has not told of all ended flows yet. It needs some steps until it knows that no worker holds them.
	for n, quiet := 0, 0; quiet < 4 && n < table.Records(); n++ {
		tail := r.ring.tail.Load()
		table.Expire(r.options.Engine.Now(), 0)
		r.drain()
		if quiet++; r.ring.tail.Load() != tail {
			quiet = 0
		}
	}
	r.mu.Lock()
	r.addRepeated()
	r.write()
	r.mu.Unlock()
	return r.closeSinks(true)
}

// closeDenied takes the denied packets that wait.
func (r *Recorder) closeDenied() {
	r.denied.Close()
	for r.takeDenied() {
	}
}

// closeSinks waits until all is written. What is not is lost, unless the next process finds it.
func (r *Recorder) closeSinks(next bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	lost := uint64(0)
	for _, s := range r.sinks {
		before := s.lost.Load()
		s.close(ctx, next)
		lost += s.lost.Load() - before
	}
	if lost > 0 {
		return errors.New("flow logs: rows could not be written before the end: see the log")
	}
	return nil
}
