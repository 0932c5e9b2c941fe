package conntrack

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// A transfer takes flows from one table to another one that lives: that of another host, or of another process. They
// travel in images, which say how they are laid out, so that the two may be of different versions. Each table counts and
// tells what it has seen itself: the counters of a flow begin at zero where it arrives.

// transferFlows is how many flows an image of a transfer has at most.
const transferFlows = 4096

// Export yields images of the flows that pick chooses; yield must not keep them. No worker may carry a packet of a
// chosen flow meanwhile. The flows stay until Leave.
func (t *Table) Export(pick func(*FlowInfo) bool, yield func(image []byte) error) error {
	s := shapeNow(0)
	var chosen []Flow
	flush := func() error {
		if len(chosen) == 0 {
			return nil
		}
		image, err := t.transferImage(&s, chosen)
		if chosen = chosen[:0]; err != nil {
			return err
		}
		return yield(image)
	}
	for i := range t.Flows {
		if i.Waits || i.Class.Cut() || !pick(i) {
			continue
		}
		if chosen = append(chosen, i.Flow); len(chosen) == transferFlows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (t *Table) notesPerFlow() int { return len(t.notes) / len(t.records) }

func (t *Table) transferImage(s *shape, flows []Flow) ([]byte, error) {
	memory := make([]byte, s.parts(len(flows)).end)
	to, err := makeImage(memory, s, len(flows))
	if err != nil {
		return nil, err
	}
	to.used.Store(uint32(len(flows)))
	for n, f := range flows {
		copy(bytesOf(&to.records[n]), bytesOf(&t.records[f]))
		to.translations[n] = t.translations[f]
		copy(bytesOf(&to.sides[n]), bytesOf(&t.sides[f]))
	}
	return memory, nil
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
	// It is false for a flow that can't go on.
	Place func(*FlowInfo) (Placing, bool)
	// Join is asked when a flow arrives whose key a live flow of this table has. With true the two are the ends of one
	// flow: this table's goes on, with the slots. Nil: never.
	Join func(here, arriving *FlowInfo) (Slots, bool)
}

// Placing is where a flow goes on.
type Placing struct {
	Zone, ReplyZone uint16 // see Key.Zone
	Slots           Slots
	Generation      uint32
}

// Import takes over the flows of an image that Export has made. Those that can't go on are counted in Lost. The error says
// why the image as a whole is of no use; then nothing has changed. Flows above the table's limits evict others, or are lost.
func (t *Table) Import(memory []byte, o *Arrivals) (a Adoption, err error) {
	head, was, err := readShape(memory, 0)
	if err != nil {
		return a, err
	}
	if was.Meaning > meaning {
		return a, fmt.Errorf("conntrack: flows of a newer version (meaning %d, this one knows %d)", was.Meaning, meaning)
	}
	s := shapeNow(0)
	var converters [3]converter
	var missing []string
	for i, l := range [][2]*layout{{&was.Record, &s.Record}, {&was.Translation, &s.Translation}, {&was.Sides, &s.Sides}} {
		c, lacks := convert(l[0], l[1])
		converters[i] = c
		missing = append(missing, slices.DeleteFunc(lacks, func(name string) bool { return slices.Contains(mayLack, name) })...)
	}
	if len(missing) > 0 {
		return a, fmt.Errorf("conntrack: the flows of another version lack %s", strings.Join(missing, ", "))
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
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	f, ok := t.allocate()
	if !ok {
		return LostRoom, false
	}
	r.created += o.Later
	r.lastSeen.Add(uint32(o.Later))
	t.settleArrival(f, x)
	var info FlowInfo
	t.info(f, st, o.Now, &info)
	place, placed := Placing{Zone: r.zone, ReplyZone: r.replyZone, Slots: r.loadSlots()}, true
	if o.Place != nil {
		place, placed = o.Place(&info)
	}
	own := &t.records[f]
	if !placed || int(place.Zone) >= len(t.zones) || int(place.ReplyZone) >= len(t.zones) || info.ExpiresIn == 0 {
		t.release(f)
		return LostZone, false
	}
	own.zone, own.replyZone = place.Zone, place.ReplyZone
	own.setSlots(&place.Slots)
	own.generation.Store(place.Generation)
	if _, ok := w.reserve(place.Zone, place.ReplyZone, o.Now); !ok {
		t.release(f)
		return LostRoom, false
	}
	other, done := w.publishCopy(f, st, o.Now)
	if done {
		return 0, true
	}
	if other != noFlow && o.Join != nil {
		var here FlowInfo
		t.info(f, st, o.Now, &info)
		t.info(other, status(t.records[other].status.Load()), o.Now, &here)
		if slots, joins := o.Join(&here, &info); joins {
			w.Judged(other, here.Generation, &slots)
			done = true
		}
	}
	t.release(f)
	t.unreserve(place.Zone, place.ReplyZone)
	return LostDouble, done
}

// Rezone gives a flow other zones and slots, where its ends are behind other attachments now. It is false where the flow
// has ended, or where another one has its new keys: then it ends. No worker may carry a packet of the flow meanwhile.
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
	copy(bytesOf(&x.record), bytesOf(&t.records[old]))
	x.translation = t.translations[old]
	copy(bytesOf(&x.sides), bytesOf(&t.sides[old]))
	t.settleArrival(f, &x)
	r := &t.records[f]
	r.zone, r.replyZone = to.Zone, to.ReplyZone
	r.setSlots(&to.Slots)
	r.generation.Store(to.Generation)
	if _, ok := w.reserve(to.Zone, to.ReplyZone, now); !ok {
		t.release(f)
		return false
	}
	w.End(old, EndMoved)
	if _, done := w.publishCopy(f, st, now); !done {
		t.release(f)
		t.unreserve(to.Zone, to.ReplyZone)
		return false
	}
	return true
}

// settleArrival writes a record that only the caller knows. It does not live yet.
func (t *Table) settleArrival(f Flow, x *arrival) {
	r := &t.records[f]
	r.src, r.dst, r.srcPort, r.dstPort = x.record.src, x.record.dst, x.record.srcPort, x.record.dstPort
	r.zone, r.replyZone, r.proto, r.icmpType = x.zone, x.replyZone, x.proto, x.icmpType
	r.marks, r.created = x.marks, x.created
	r.lastSeen.Store(x.lastSeen.Load())
	r.established.Store(x.established.Load())
	r.successor.Store(0)
	slots := x.loadSlots()
	r.setSlots(&slots)
	for d := range r.tallies {
		r.tallies[d].reset()
		r.links[d].Store(0)
	}
	if r.marks != 0 {
		t.translations[f] = x.translation
	}
	for d := range x.sides {
		t.sides[f][d].sent.Store(x.sides[d].sent.Load())
		t.sides[f][d].taken.Store(x.sides[d].taken.Load())
	}
	clear(t.notes[int(f)*t.notesPerFlow():][:t.notesPerFlow()])
}

const noFlow = Flow(maxRecords)

// publishCopy puts a settled record into the index. It does not where a flow that lives has one of its keys: then it returns
// that one.
func (w *Worker) publishCopy(f Flow, st status, now Tick) (other Flow, done bool) {
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
			return noFlow, false
		}
		if !found || n > 0 && over[0] == other {
			continue
		}
		s := status(t.records[other].status.Load())
		if !s.class().Cut() && t.expiresIn(&t.records[other], s, now) > 0 {
			return other, false
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
	return noFlow, true
}
