package dataplane

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// carryBurst is burst from an attachment's queue, or from that of bulk flows.
func (w *worker) carryBurst(attachment int) error {
	_, err := w.burst(attachment, w.queues[attachment], false)
	return err
}

// tellingQueue tells of each write.
type tellingQueue struct {
	tun.Queue
	written func(frame []byte)
}

func (q tellingQueue) Write(frame []byte) error {
	q.written(frame)
	return q.Queue.Write(frame)
}

// counted runs a test with and without a count of the packets of sparse flows.
func counted(t *testing.T, test func(t *testing.T, arrivals *atomic.Uint64)) {
	t.Run("counted", func(t *testing.T) { test(t, new(atomic.Uint64)) })
	t.Run("not counted", func(t *testing.T) { test(t, nil) })
}

// sparseRig is one worker of an engine whose devices have a queue of sparse flows each, whose packets are counted; nil: they are not.
func sparseRig(t *testing.T, arrivals *atomic.Uint64) (*worker, []*tuntest.Memory) {
	t.Helper()
	e, err := New(figure(nil, nil), Options{Attachments: figureSpecs, Workers: 1, Flows: conntrack.Options{Max: 1024}, Topology: topology.Options{Seed: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	var memory []*tuntest.Memory
	for range figureSpecs {
		d := newMemory(t, 2, 4096)
		d.CountArrivals(1, arrivals)
		memory, devices = append(memory, d), append(devices, d)
	}
	if err := e.Attach(devices); err != nil {
		t.Fatal(err)
	}
	e.busy = func() time.Duration { return 0 } // a machine on which others work makes no receiver slow
	w := e.workers[0]
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w, memory
}

// turnOnce has the worker carry what is ready. It reports false when nothing is.
func turnOnce(t *testing.T, w *worker) bool {
	t.Helper()
	ready, few, err := w.poller.Wait(0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.few = few
	if err := w.turn(ready); err != nil {
		t.Fatal(err)
	}
	return len(ready)+len(few) > 0
}

func udpFrame(s packettest.Spec) []byte {
	return append(make([]byte, tun.HeaderLen), packettest.UDP(s)...)
}

// A packet of a sparse flow waits for one burst at most, whatever has come before it, and bulk flows go on beside many of them.
func TestSparseFlowsDoNotWaitForBulkOnes(t *testing.T) {
	counted(t, testSparseFlowsDoNotWaitForBulkOnes)
}

func testSparseFlowsDoNotWaitForBulkOnes(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	bulk := udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400})
	sparse := udpFrame(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: 2000, DstPort: 2001, Payload: 16})
	const bulkPackets = 500
	for range bulkPackets {
		devices[vm1].Inject(0, bulk)
	}
	wrote, late, came, most := 0, 0, 0, 0
	w.queues[vm4] = tellingQueue{w.queues[vm4], func(frame []byte) {
		if len(frame) == len(sparse) {
			most, late, came = max(most, late), 0, came+1
			return
		}
		if wrote++; wrote%97 == 5 {
			devices[vm2].Inject(1, sparse) // in the middle of a burst
		}
		if late++; wrote%97 == 4 {
			late = 0
		}
	}}
	for turns := 0; ; turns++ {
		if !turnOnce(t, w) {
			break
		}
		if turns > bulkPackets {
			t.Fatal("it never ends")
		}
	}
	if wrote != bulkPackets || came != 6 {
		t.Errorf("%d bulk and %d sparse packets were written", wrote, came)
	}
	if perBurst := waitingBytes/len(bulk) + groupPackets + 1; most > perBurst {
		t.Errorf("%d bulk packets were written before a sparse one that was there: %d are a burst", most, perBurst)
	}
}

// Whoever floods with sparse flows shares with bulk ones: each gets its bursts in turn.
func TestBulkFlowsGoOnBesideAFloodOfSparseOnes(t *testing.T) {
	counted(t, testBulkFlowsGoOnBesideAFloodOfSparseOnes)
}

func testBulkFlowsGoOnBesideAFloodOfSparseOnes(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	for range 1000 {
		devices[vm1].Inject(0, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400}))
		devices[vm2].Inject(1, udpFrame(packettest.Spec{Src: addr2, Dst: addr3, SrcPort: 2000, DstPort: 2001, Payload: 16}))
	}
	for range 3 {
		turnOnce(t, w)
	}
	if bulk, sparse := devices[vm4].Drain(0, nil), devices[vm3].Drain(0, nil); bulk < 3*maxBursts*(waitingBytes/1500) || sparse < 3*burstPackets || sparse > 3*(maxBursts+1)*burstPackets {
		t.Errorf("in three turns %d bulk and %d sparse packets were carried", bulk, sparse)
	}
}

// What a flow has sent before it became a bulk flow comes first, however much that is, and also if it is sent while a group of
// bulk flows is read.
func TestAFlowThatBecomesABulkFlowStaysInOrder(t *testing.T) {
	counted(t, testAFlowThatBecomesABulkFlowStaysInOrder)
}

func testAFlowThatBecomesABulkFlowStaysInOrder(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	sent := 0
	send := func(queue, packets int) {
		for range packets {
			sent++
			devices[vm1].Inject(queue, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 16, ID: uint16(sent)}))
		}
	}
	came := 0
	carry := func() {
		t.Helper()
		for {
			if !turnOnce(t, w) {
				break
			}
		}
		devices[vm4].Drain(0, func(frame []byte) {
			came++
			if id := int(frame[tun.HeaderLen+4])<<8 | int(frame[tun.HeaderLen+5]); id != came {
				t.Fatalf("packet %d came as number %d", id, came)
			}
		})
		if came != sent {
			t.Fatalf("%d of %d packets came", came, sent)
		}
	}
	send(1, 3*burstPackets)
	send(0, 40)
	carry()
	devices[vm1].Inject(0, udpFrame(packettest.Spec{Src: addr1, Dst: addr2, SrcPort: 1, DstPort: 1})) // of another flow
	once := sync.OnceFunc(func() {
		send(1, 10)
		send(0, 10)
	})
	w.queues[vm1] = tellingReads{w.queues[vm1], once}
	carry()
}

// tellingReads tells of each read.
type tellingReads struct {
	tun.Queue
	before func()
}

func (q tellingReads) Read(buf []byte) (int, error) {
	q.before()
	return q.Queue.Read(buf)
}

// A packet at which nsgd panics costs those of its own burst their turn, and no bulk flow its own.
func TestAPanicAtASparseFlowLeavesBulkOnesCarried(t *testing.T) {
	counted(t, testAPanicAtASparseFlowLeavesBulkOnesCarried)
}

func testAPanicAtASparseFlowLeavesBulkOnesCarried(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	const poison = 666
	w.queues[vm4] = &faulty{Queue: w.queues[vm4], port: poison}
	for turn := range 5 {
		devices[vm2].Inject(1, udpFrame(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: poison, DstPort: 1, Payload: 16}))
		devices[vm1].Inject(0, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400}))
		turnOnce(t, w)
		if n := devices[vm4].Drain(0, nil); n != 1 {
			t.Errorf("turn %d: %d packets of the bulk flow came", turn, n)
		}
	}
}

// What comes while a group of bulk flows is read is carried before it. A panic there leaves the group the attachment's that sent it.
func TestAPanicAheadOfBulkFlowsLeavesThemCarried(t *testing.T) {
	counted(t, testAPanicAheadOfBulkFlowsLeavesThemCarried)
}

func testAPanicAheadOfBulkFlowsLeavesThemCarried(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	const poison = 666
	w.queues[vm4] = &faulty{Queue: w.queues[vm4], port: poison}
	w.queues[vm1] = tellingReads{w.queues[vm1], sync.OnceFunc(func() {
		devices[vm2].Inject(1, udpFrame(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: poison, DstPort: 1, Payload: 16}))
	})}
	devices[vm1].Inject(0, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400}))
	turnOnce(t, w)
	if n := devices[vm4].Drain(0, nil); n != 1 {
		t.Errorf("%d packets of the bulk flow came", n)
	}
}

// However many are ready, a turn is short: a reload, and whoever watches the worker, wait for its end.
func TestATurnIsBoundedBesideFloods(t *testing.T) { counted(t, testATurnIsBoundedBesideFloods) }

func testATurnIsBoundedBesideFloods(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	for _, from := range []struct {
		device   int
		src, dst string
	}{{vm1, addr1, addr4}, {vm2, addr2, addr3}, {vm3, addr3, addr1}, {vm4, addr4, addr2}} {
		for range 4000 {
			s := packettest.Spec{Src: from.src, Dst: from.dst, SrcPort: 1000, DstPort: 1001, Payload: 16}
			devices[from.device].Inject(0, udpFrame(s))
			devices[from.device].Inject(1, udpFrame(s))
		}
	}
	ready, few, err := w.poller.Wait(0, nil, nil)
	if err != nil || len(ready) != 4 || len(few) != 4 {
		t.Fatalf("%v, %v, %v", ready, few, err)
	}
	w.few = few
	if err := w.turn(ready); err != nil {
		t.Fatal(err)
	}
	carried := 0
	for _, d := range devices {
		carried += d.Drain(0, nil)
	}
	if most := (len(few)+turnBursts*(1+4))*burstPackets + turnBursts*aheadPackets; carried == 0 || carried > most {
		t.Errorf("a turn carried %d packets, at most %d are allowed", carried, most)
	}
}

// A device that goes away is watched no more, whichever of its queues says so.
func TestAnAttachmentIsLostByItsQueueOfSparseFlows(t *testing.T) {
	counted(t, testAnAttachmentIsLostByItsQueueOfSparseFlows)
}

func testAnAttachmentIsLostByItsQueueOfSparseFlows(t *testing.T, arrivals *atomic.Uint64) {
	w, devices := sparseRig(t, arrivals)
	var sparse int
	w.sparse[vm1] = lostQueue{w.sparse[vm1], &sparse}
	devices[vm1].Inject(1, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 1}))
	ready, few, err := w.poller.Wait(time.Second, nil, nil)
	if err != nil || len(few) != 1 {
		t.Fatalf("%v, %v, %v", ready, few, err)
	}
	w.few = few
	if err := w.turn(ready); err != nil {
		t.Fatal(err)
	}
	devices[vm1].Inject(0, udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 1}))
	if ready, few, err := w.poller.Wait(0, nil, nil); len(ready)+len(few) > 0 || err != nil || sparse != 1 {
		t.Errorf("%v, %v, %v after %d reads", ready, few, err, sparse)
	}
}

// lostQueue fails.
type lostQueue struct {
	tun.Queue
	reads *int
}

func (q lostQueue) Read([]byte) (int, error) { *q.reads++; return 0, errors.New("gone") }

// readsQueue counts what is read in vain.
type readsQueue struct {
	tun.Queue
	vain *int
}

func (q readsQueue) Read(buf []byte) (int, error) {
	n, err := q.Queue.Read(buf)
	if err != nil {
		*q.vain++
	}
	return n, err
}

// Answers that come one by one beside bulk flows are mostly read where they are, and no queue is read in vain.
func TestFewQuestionsAreAskedForSparseFlows(t *testing.T) {
	w, devices := sparseRig(t, new(atomic.Uint64))
	vain := 0
	for i := range w.sparse {
		w.sparse[i] = readsQueue{w.sparse[i], &vain}
	}
	bulk := udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400})
	answer := udpFrame(packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 1001, DstPort: 1000, Payload: 16})
	const packets, each = 4000, groupPackets
	for range packets {
		devices[vm1].Inject(0, bulk)
	}
	sent := 0
	w.queues[vm4] = tellingQueue{w.queues[vm4], func([]byte) {
		if sent++; sent%each == 0 {
			devices[vm4].Inject(1, answer)
		}
	}}
	for turnOnce(t, w) {
		devices[vm4].Drain(0, nil)
	}
	answers := devices[vm1].Drain(0, nil)
	if sent != packets || answers != packets/each {
		t.Fatalf("%d packets and %d answers were carried", sent, answers)
	}
	if vain > answers/2 { // at the beginning of a turn they are, and now and then
		t.Errorf("queues of sparse flows were read %d times in vain, for %d answers", vain, answers)
	}
}
