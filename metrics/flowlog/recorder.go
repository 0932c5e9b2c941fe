package flowlog

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/watch"
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
