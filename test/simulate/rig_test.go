package simulate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// device is a memory device that can refuse what is written to it.
type device struct {
	*tuntest.Memory
	refuses atomic.Bool
	closed  bool
	queues  []tun.Queue
}

type queue struct {
	tun.Queue
	d *device
}

var errRefused = errors.New("the device refuses")

func (q *queue) Write(b []byte) error {
	if q.d.refuses.Load() {
		return errRefused
	}
	return q.Queue.Write(b)
}

func (q *queue) WriteParts(parts [][]byte) error {
	if q.d.refuses.Load() {
		return errRefused
	}
	return q.Queue.WriteParts(parts)
}

// Queues are the device's queues.
func (d *device) Queues() []tun.Queue { return d.queues }

// ringLen is how many packets a device's queue holds, either way; a batch is smaller.
const ringLen = 128

func newDevice(at, workers int) (*device, error) {
	m, err := tuntest.NewMemory(fmt.Sprint("at", at), workers, ringLen, tuntest.WithSlotLen(2048))
	if err != nil {
		return nil, err
	}
	d := &device{Memory: m}
	for _, q := range m.Queues() {
		d.queues = append(d.queues, &queue{q, d})
	}
	return d, nil
}

// rig is the running engine and its devices, with a clock that stands still until it is moved.
type rig struct {
	engine  *dataplane.Engine
	workers int
	clock   atomic.Int64
	devices []*device
	stop    context.CancelFunc
	done    chan error

	injected  uint64
	collected uint64           // of devices
	number    uint64           // of the last packet
	waiting   map[uint64]*sent // later fragments that have not come out yet
	decoder   packet.Decoder
}

func newRig(p *plan, workers int, flows conntrack.Options, fragments fragment.Options, idle time.Duration) (*rig, error) {
	r := &rig{workers: workers, waiting: map[uint64]*sent{}}
	r.clock.Store(int64(time.Minute))
	var err error
	r.engine, err = dataplane.New(p.set(), dataplane.Options{Attachments: specs, Workers: workers, Flows: flows, Fragments: fragments,
		TranslationIdle: idle, Clock: r.now, Topology: topology.Options{Seed: 1}})
	if err != nil {
		return nil, err
	}
	for at := range numAttachments {
		d, err := newDevice(at, workers)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.devices = append(r.devices, d)
	}
	return r, r.start()
}

func (r *rig) now() time.Duration { return time.Duration(r.clock.Load()) }

func (r *rig) start() error {
	list := make([]tun.Device, len(r.devices))
	for i, d := range r.devices {
		list[i] = d
	}
	if err := r.engine.Attach(list); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan error, 1)
	go func() { r.done <- r.engine.Run(ctx) }()
	// Each worker reads something now: a device that ends before it is watched would end the engine.
	for worker := range r.workers {
		if r.devices[0].Inject(worker, make([]byte, tun.HeaderLen+1)) {
			r.injected++
		}
	}
	return r.settled()
}

func (r *rig) halt() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	r.stop = nil
	return <-r.done
}

func (r *rig) close() error {
	err := r.halt()
	for _, d := range r.devices {
		if !d.closed {
			err = errors.Join(err, d.Close())
		}
	}
	return err
}

// fail closes a device: the engine goes on without it.
func (r *rig) fail(at int) error {
	r.devices[at].closed = true
	return r.devices[at].Close()
}

// mend stops the engine, gives it a device in place of each that was closed, and lets it go on with its flows.
func (r *rig) mend() error {
	closed := false
	for _, d := range r.devices {
		d.refuses.Store(false)
		closed = closed || d.closed
	}
	if !closed {
		return nil
	}
	if err := r.halt(); err != nil {
		return err
	}
	for at, d := range r.devices {
		if !d.closed {
			continue
		}
		var err error
		if r.devices[at], err = newDevice(at, r.workers); err != nil {
			return err
		}
	}
	return r.start()
}

func (r *rig) faulty(at int) bool { return r.devices[at].closed || r.devices[at].refuses.Load() }

// tail is what every packet ends with: a mark and its number. Nothing changes it on the way.
const tail, tailMark = 12, 0x51d0_51d0

// packet makes a packet that a host sends of its bytes, which end with at least tail bytes of payload.
func (r *rig) packet(from int, b []byte) *sent {
	r.number++
	s := &sent{number: r.number, from: from, at: hosts[from].at, when: r.now(), bytes: b}
	end := b[len(b)-tail:]
	binary.BigEndian.PutUint32(end, tailMark)
	binary.BigEndian.PutUint64(end[4:], r.number)
	complete(b)
	s.decode(&r.decoder)
	return s
}

func (s *sent) decode(d *packet.Decoder) {
	s.drop = d.Decode(s.bytes, 0, &s.p)
	s.quotes = false
	if s.drop == packet.NotDropped && s.p.IsICMPError() {
		s.quoted, s.quotes = packet.DecodeQuote(s.bytes, &s.p)
	}
}

// complete sets the transport checksum of a whole IPv4 packet.
func complete(b []byte) {
	if b[0]>>4 != 4 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return
	}
	header := int(b[0]&15) * 4
	at, pseudo := 0, []byte{0, b[9], byte((len(b) - header) >> 8), byte(len(b) - header)}
	switch b[9] {
	case packet.ProtoICMP:
		at, pseudo = header+2, nil
	case packet.ProtoTCP:
		at = header + 16
	case packet.ProtoUDP:
		at = header + 6
	default:
		return
	}
	b[at], b[at+1] = 0, 0
	parts := [][]byte{pseudo, b[header:]}
	if pseudo != nil {
		parts = append(parts, b[12:20])
	}
	var sum uint32
	for _, x := range parts {
		for i := range x {
			sum += uint32(x[i]) << (8 - i%2*8)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum = ^sum & 0xffff; sum == 0 && b[9] == packet.ProtoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], uint16(sum))
}

// patience is how long the engine may take for a batch before the simulation calls it stuck.
const patience = 2 * time.Minute

// carry sends packets and waits until the engine has carried them. meanwhile, if not nil, runs beside it.
// worker says on which queue a packet comes in. late are fragments of earlier batches that had to wait.
func (r *rig) carry(batch []*sent, worker func(i int) int, meanwhile func() error) (late []*sent, err error) {
	other := make(chan error, 1)
	if meanwhile != nil {
		go func() { other <- meanwhile() }()
	}
	frame := make([]byte, 0, 2048)
	byNumber := map[uint64]*sent{}
	for i, s := range batch {
		byNumber[s.number] = s
		frame = append(append(frame[:0], make([]byte, tun.HeaderLen)...), s.bytes...)
		if r.devices[s.at].Inject(worker(i), frame) {
			r.injected++
		}
	}
	if meanwhile != nil {
		if err := <-other; err != nil {
			return nil, err
		}
	}
	if err := r.settled(); err != nil {
		return nil, err
	}
	if err := r.collect(byNumber); err != nil {
		return nil, err
	}
	for n, s := range r.waiting {
		if s.arrival != nil {
			late = append(late, s)
		}
		if s.arrival != nil || r.now()-s.when > time.Minute {
			delete(r.waiting, n)
		}
	}
	for _, s := range batch {
		if s.arrival == nil && s.p.Fragment.IsLater() {
			r.waiting[s.number] = s
		}
	}
	return late, nil
}

// settled waits until the engine has carried all that was injected, and each packet was written, dropped for
// a reason or kept until its datagram's first fragment comes.
func (r *rig) settled() error {
	began := time.Now()
	for n := 1; ; n++ {
		read := uint64(0)
		for _, w := range r.engine.Counters().Workers() {
			read += w.Packets
		}
		if read == r.injected {
			received, transmitted, dropped := r.counters()
			kept := uint64(r.engine.Fragments().Held())
			if received == r.injected && received == transmitted+dropped+kept {
				return nil
			}
			if n%1024 == 0 && time.Since(began) > patience {
				return fmt.Errorf("counters do not add up: %d received of %d, %d transmitted, %d dropped, %d kept", received, r.injected, transmitted, dropped, kept)
			}
		} else if n%1024 == 0 && time.Since(began) > patience {
			return fmt.Errorf("the engine is stuck: it has read %d of %d packets", read, r.injected)
		}
		select {
		case err := <-r.done:
			r.stop = nil
			return fmt.Errorf("the engine has ended: %v", err)
		default:
			runtime.Gosched()
		}
	}
}

func (r *rig) counters() (received, transmitted, dropped uint64) {
	for _, c := range r.engine.AttachmentCounts() {
		received += c.ReceivePackets
		transmitted += c.TransmitPackets
	}
	for _, n := range r.engine.Drops() {
		dropped += n
	}
	return received, transmitted, dropped
}

// collect finds out what has come out.
func (r *rig) collect(batch map[uint64]*sent) (err error) {
	for at, d := range r.devices {
		for worker := range r.workers {
			d.Drain(worker, func(frame []byte) {
				r.collected++
				b := append([]byte(nil), frame[tun.HeaderLen:]...)
				a := &arrival{at: at, bytes: b}
				var number uint64
				if len(b) >= tail && binary.BigEndian.Uint32(b[len(b)-tail:]) == tailMark {
					number = binary.BigEndian.Uint64(b[len(b)-8:])
				}
				s := batch[number]
				if s == nil {
					s = r.waiting[number]
				}
				switch drop := r.decoder.Decode(b, 0, &a.p); {
				case s == nil:
					err = errors.Join(err, fmt.Errorf("a packet came out at %d that nobody has sent now: %x", at, b))
				case s.arrival != nil:
					err = errors.Join(err, fmt.Errorf("%v came out twice, at %d too", s, at))
				case drop != packet.NotDropped:
					err = errors.Join(err, fmt.Errorf("%v came out malformed: %v: %x", s, drop, b))
				default:
					s.arrival = a
				}
			})
		}
	}
	if _, transmitted, _ := r.counters(); transmitted != r.collected {
		err = errors.Join(err, fmt.Errorf("counters do not add up: %d packets transmitted, %d came out", transmitted, r.collected))
	}
	return err
}

// swap brings a plan into force.
func (r *rig) swap(p *plan) error {
	for {
		s, err := r.engine.Prepare(p.set())
		if err == nil {
			err = r.engine.Swap(s, nil)
		}
		if !errors.Is(err, dataplane.ErrPrepared) {
			return err
		}
	}
}

// leaks reports what is left when everything has timed out.
func (r *rig) leaks() error {
	r.expire()
	var left []string
	note := func(what string, n int64) {
		if n != 0 {
			left = append(left, fmt.Sprint(n, " ", what))
		}
	}
	flows := r.engine.Flows()
	s := flows.Stats()
	note("flows", s.Flows)
	note("translations", s.Translated)
	for class, n := range s.Live {
		note(fmt.Sprint("flows of class ", class), n)
	}
	ended := uint64(0)
	for _, n := range s.Ended {
		ended += n
	}
	note("flows that never ended", int64(s.Created-ended))
	for zone := range 2 * numAttachments {
		note(fmt.Sprint("flows in zone ", zone), flows.ZoneFlows(uint16(zone)))
	}
	flows.Flows(func(f *conntrack.FlowInfo) bool {
		left = append(left, fmt.Sprint("flow ", f.Key))
		return true
	})
	note("datagrams", r.engine.Fragments().Datagrams())
	note("fragments that wait", r.engine.Fragments().Held())
	if len(left) > 0 {
		return errors.New("left when all is over: " + strings.Join(left, ", "))
	}
	return nil
}

// expire frees what has timed out.
func (r *rig) expire() {
	r.engine.Flows().Expire(r.engine.Now(), conntrack.MaxFlows)
	for range 2 {
		r.engine.Fragments().Expire(r.now(), 24*time.Hour)
	}
}

// rules is how many rules the engine counts, and how many of them are in force.
func (r *rig) rules() (counted, inForce int) {
	for _, k := range r.engine.Registry().Keys() {
		if k != (topology.RuleKey{}) {
			counted++
		}
	}
	for _, n := range r.engine.Snapshot().MarkSlots(nil) {
		if n {
			inForce++
		}
	}
	return counted, inForce
}

// denials holds the packets that rules have denied to the counters of rules that deny: each is counted by one.
// It holds while no rule was forgotten.
func (r *rig) denials() error {
	keys := r.engine.Registry().Keys()
	counts := r.engine.Counters().Rules(len(keys))
	denied := uint64(0)
	for slot, k := range keys {
		if k.Access == 0 && k != (topology.RuleKey{}) {
			denied += counts[slot].Packets
		}
	}
	if drops := r.engine.Drops()[packet.DropRule]; drops != denied {
		return fmt.Errorf("rules denied %d packets and count %d", drops, denied)
	}
	return nil
}

var _ tun.Device = (*device)(nil)
