package conntrack

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// A transfer takes flows from one table to another one that lives: that of another host, or of another process. They
// travel in images, which say how they are laid out, so that the two may be of different versions. Each table counts and
// tells what it has seen itself: the counters of a flow begin at zero where it arrives.

// transferFlows is how many flows an image of a transfer has at most.
const transferFlows = 4096

// Export yields images of the flows that pick chooses; yield must not keep them. What a worker carries of a chosen flow
// meanwhile may be in the image or not. The flows stay until Leave.
func (t *Table) Export(pick func(*FlowInfo) bool, yield func(image []byte) error) error {
	s := shapeNow(0)
	var picked []chosen
	flush := func() error {
		if len(picked) == 0 {
			return nil
		}
		image, err := t.transferImage(&s, picked)
		if picked = picked[:0]; err != nil {
			return err
		}
		return yield(image)
	}
	for i := range t.Flows {
		if i.Waits || i.Class.Cut() || !pick(i) {
			continue
		}
		if picked = append(picked, chosen{i.Flow, i.Key}); len(picked) == transferFlows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// chosen is a flow that Export has found.
type chosen struct {
	flow Flow
	key  Key
}

func (t *Table) notesPerFlow() int { return len(t.notes) / len(t.records) }

// transferImage is an image of the chosen flows, without those that have ended since.
func (t *Table) transferImage(s *shape, flows []chosen) ([]byte, error) {
	memory := make([]byte, s.parts(len(flows)).end)
	to, err := makeImage(memory, s, len(flows))
	if err != nil {
		return nil, err
	}
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	n := 0
	for _, c := range flows {
		if f, _, ok := w.Lookup(&c.key, Tick(t.now.Load())); !ok || f != c.flow {
			continue
		}
		from, r := &t.records[c.flow], &to.records[n]
		r.copyFrom(from)
		r.status.Store(from.status.Load())
		r.generation.Store(from.generation.Load())
		to.translations[n] = t.translations[c.flow]
		to.sides[n].copyFrom(&t.sides[c.flow])
		n++
	}
	to.used.Store(uint32(n))
	return memory, nil
}

// copyFrom copies what a flow keeps wherever it goes on. Workers may carry packets of the flow meanwhile.
func (r *record) copyFrom(x *record) {
	r.src, r.dst, r.srcPort, r.dstPort = x.src, x.dst, x.srcPort, x.dstPort
	r.zone, r.replyZone, r.proto, r.icmpType = x.zone, x.replyZone, x.proto, x.icmpType
	r.marks, r.created = x.marks, x.created
	r.lastSeen.Store(x.lastSeen.Load())
	r.established.Store(x.established.Load())
	slots := x.loadSlots()
	r.setSlots(&slots)
}

func (s *sides) copyFrom(x *sides) {
	for d := range x {
		s[d].sent.Store(x[d].sent.Load())
		s[d].taken.Store(x[d].taken.Load())
	}
}

func bytesOf[T any](x *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(x)), unsafe.Sizeof(*x)) }

// Leave ends the flows that pick chooses, because they go on in another table. It returns how many there were.
func (t *Table) Leave(pick func(*FlowInfo) bool) (left int) {
	for i := range t.Flows {
		if !pick(i) {
			continue
		}
		t.control.mu.Lock()
		w := t.control.worker
		w.Unpark()
		if f, _, ok := w.Lookup(&i.Key, Tick(t.now.Load())); ok && f == i.Flow && w.End(f, EndMoved) {
			left++
		}
		w.Park()
		t.control.mu.Unlock()
	}
	return left
}

// Arrivals says what flows of another table are in this one.
type Arrivals struct {
	// Now is this table's time, and Later is by how much the other table's ticks are moved on: its clock is another one.
	Now, Later Tick
	// Place is where a flow goes on, by what it was; nil: its zones and slots are the same, and its generation is 0.
	// It is false for a flow that can't go on. It may change the table: end a flow that has the key, say.
	Place func(*FlowInfo) (Placing, bool)
}

// Placing is where a flow goes on.
type Placing struct {
	Zone, ReplyZone uint16 // see Key.Zone
	Slots           Slots
	Generation      uint32
	// Plain is the tuple of a flow that is not translated here, whatever it was; nil: the flow is what it was.
	Plain *packet.Tuple
}

// put gives a record that only the caller knows its place.
func (p *Placing) put(r *record) {
	r.zone, r.replyZone = p.Zone, p.ReplyZone
	r.setSlots(&p.Slots)
	r.generation.Store(p.Generation)
	if t := p.Plain; t != nil {
		r.src, r.dst, r.srcPort, r.dstPort, r.marks = t.Src, t.Dst, t.SrcPort, t.DstPort, 0
	}
}

// Import takes over the flows of an image that Export has made. Those that can't go on are counted in Lost. The error says
// why the image as a whole is of no use; then nothing has changed. Flows above the table's limits evict others, or are lost.
func (t *Table) Import(memory []byte, o *Arrivals) (a Adoption, err error) {
	head, was, converters, err := openTransfer(memory)
	if err != nil {
		return a, err
	}
	from := was.parts(int(head.number))
	for n := range int(head.used.Load()) {
		var x arrival
		converters[0].copy(bytesOf(&x.record), 0, memory[from.records:], n)
		converters[1].copy(bytesOf(&x.translation), 0, memory[from.translations:], n)
		converters[2].copy(bytesOf(&x.sides), 0, memory[from.sides:], n)
		if why, ok := t.arrive(&x, o); !ok {
			a.Lost[why]++
		} else {
			a.Flows++
		}
	}
	return a, nil
}

// CheckTransfer says how many flows an image has, or why Import would refuse it. The image may come from anybody.
func CheckTransfer(memory []byte) (flows int, err error) {
	head, _, _, err := openTransfer(memory)
	if err != nil {
		return 0, err
	}
	return int(head.used.Load()), nil
}

// openTransfer checks an image and says how its flows become this version's.
func openTransfer(memory []byte) (head *imageHead, was shape, converters [3]converter, err error) {
	if head, was, err = readShape(memory, 0); err != nil {
		return nil, was, converters, err
	}
	if was.Meaning > meaning {
		return nil, was, converters, fmt.Errorf("conntrack: flows of a newer version (meaning %d, this one knows %d)", was.Meaning, meaning)
	}
	s := shapeNow(0)
	var missing []string
	for i, l := range [][2]*layout{{&was.Record, &s.Record}, {&was.Translation, &s.Translation}, {&was.Sides, &s.Sides}} {
		c, lacks := convert(l[0], l[1])
		converters[i] = c
		missing = append(missing, slices.DeleteFunc(lacks, func(name string) bool { return slices.Contains(mayLack, name) })...)
	}
	if len(missing) > 0 {
		return nil, was, converters, fmt.Errorf("conntrack: the flows of another version lack %s", strings.Join(missing, ", "))
	}
	return head, was, converters, nil
}

// arrival is a flow of another table.
type arrival struct {
	record
	translation
	sides
}

// arrive records one flow.
func (t *Table) arrive(x *arrival, o *Arrivals) (why Loss, ok bool) {
	r := &x.record
	st := status(r.status.Load())
	if st.class() >= NumClasses || st.class().Protocol() != protocolOf(r.proto) || !st.live() || st.class().Cut() || st&statusWaits != 0 {
		return LostDamaged, false
	}
	for d := range r.tallies {
		r.tallies[d].reset() // counted here, and whoever sends them may say anything
	}
	r.created += o.Later
	r.lastSeen.Add(uint32(o.Later))
	if seen := Tick(r.lastSeen.Load()); o.Now.since(seen) == 0 { // in the future it would live until then
		r.lastSeen.Store(uint32(o.Now))
	}
	r.established.Store(min(r.established.Load(), ticks(MaxTimeout)))
	var info FlowInfo
	t.infoOf(r, &x.translation, st, o.Now, &info)
	place, placed := Placing{Zone: r.zone, ReplyZone: r.replyZone, Slots: r.loadSlots()}, true
	if o.Place != nil {
		place, placed = o.Place(&info)
	}
	if !placed || int(place.Zone) >= len(t.zones) || int(place.ReplyZone) >= len(t.zones) || info.ExpiresIn == 0 {
		return LostZone, false
	}
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	f, ok := t.allocate()
	if !ok {
		return LostRoom, false
	}
	t.settleArrival(f, x)
	place.put(&t.records[f])
	if _, ok := w.reserve(place.Zone, place.ReplyZone, o.Now); !ok {
		t.release(f)
		return LostRoom, false
	}
	if !w.publishCopy(f, st, o.Now) {
		t.release(f)
		t.unreserve(place.Zone, place.ReplyZone)
		return LostDouble, false
	}
	return 0, true
}

// Find is the live flow with a key, in either direction; ok is false without one.
func (t *Table) Find(k *Key) (i FlowInfo, ok bool) {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	now := Tick(t.now.Load())
	f, _, ok := w.Lookup(k, now)
	if ok {
		i = w.Info(f, now)
	}
	return i, ok
}

// Rezone gives a flow other zones and slots, where its ends are behind other attachments now. It is false where the flow
// has ended, or where another one has its new keys: then it ends. What a worker carries of it meanwhile may not count.
func (t *Table) Rezone(i *FlowInfo, to *Placing) bool {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	now := Tick(t.now.Load())
	old, _, ok := w.Lookup(&i.Key, now)
	if !ok || old != i.Flow {
		return false
	}
	st := status(t.records[old].status.Load()) &^ statusWaits
	f, ok := t.allocate()
	if !ok {
		return false
	}
	var x arrival
	x.record.copyFrom(&t.records[old])
	x.translation = t.translations[old]
	x.sides.copyFrom(&t.sides[old])
	t.settleArrival(f, &x)
	to.put(&t.records[f])
	if _, ok := w.reserve(to.Zone, to.ReplyZone, now); !ok {
		t.release(f)
		return false
	}
	w.End(old, EndMoved)
	if !w.publishCopy(f, st, now) {
		t.release(f)
		t.unreserve(to.Zone, to.ReplyZone)
		return false
	}
	return true
}

// settleArrival writes a record that only the caller knows. It does not live yet.
func (t *Table) settleArrival(f Flow, x *arrival) {
	r := &t.records[f]
	r.copyFrom(&x.record)
	r.successor.Store(0)
	for d := range r.tallies {
		r.tallies[d].reset()
		r.links[d].Store(0)
	}
	if r.marks != 0 {
		t.translations[f] = x.translation
	}
	t.sides[f].copyFrom(&x.sides)
	clear(t.notes[int(f)*t.notesPerFlow():][:t.notesPerFlow()])
}

const noFlow = Flow(maxRecords)

// publishCopy puts a settled record into the index. It does not where a flow that lives has one of its keys.
func (w *Worker) publishCopy(f Flow, st status, now Tick) (done bool) {
	t := w.table
	original, reply := t.keys(f)
	a, b := t.secrets.hash(&original), t.secrets.hash(&reply)
	var over [2]Flow
	n := 0
	t.index.lock(a, b)
	defer func() {
		t.index.unlock(a, b)
		for _, other := range over[:n] {
			if done && other != noFlow {
				w.bury(other)
			}
		}
	}()
	for _, k := range []struct {
		key  *Key
		hash uint64
	}{{&original, a}, {&reply, b}} {
		other, _, depth, found := t.find(k.key, k.hash)
		if depth >= maxChain {
			return false
		}
		if !found || n > 0 && over[0] == other {
			continue
		}
		s := status(t.records[other].status.Load())
		if !s.class().Cut() && t.expiresIn(&t.records[other], s, now) > 0 {
			return false
		}
		over[n] = other
		n++
	}
	for i, other := range over[:n] {
		if !w.claim(other, t.timedOut(other)) { // another worker has, and buries it
			over[i] = noFlow
		}
	}
	w.counts.live[st.class()].Add(1)
	if t.records[f].marks&Translated != 0 {
		w.counts.translated.Add(1)
	}
	t.portChanges(f, 1)
	t.records[f].status.Store(uint32(st))
	if reply != original {
		t.link(f, Reply, b)
	}
	t.link(f, Original, a)
	return true
}
