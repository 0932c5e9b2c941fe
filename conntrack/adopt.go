package conntrack

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unsafe"
)

// Adoption is what became of the flows that the last process has left.
type Adoption struct {
	// Flows go on.
	Flows int
	// Lost were live, and do not go on.
	Lost [NumLosses]int
	// Copied says that the image had another size or another layout.
	Copied bool
	// Refused says why the image as a whole is of no use; nil: it is.
	Refused error
}

// Loss is why a flow of the last process does not go on.
type Loss uint8

// The losses.
const (
	LostDamaged Loss = iota // its record says what no record can say
	LostZone                // an end of it has no attachment any more
	LostRoom                // the table is smaller than it was
	LostWaiting             // it waited in another flow's place; its SYN comes again
	LostDouble              // another flow has its key
	NumLosses
)

// String names the loss in messages.
func (l Loss) String() string {
	return [NumLosses]string{"damaged", "attachment gone", "no room", "waiting", "double"}[l]
}

// mayLack are the fields that an image of an older version need not have, with what their zero means.
var mayLack = []string{}

// openImage takes over the last process's image, or makes a new one.
func (t *Table) openImage(o *Options, number int) error {
	if o.Images == nil {
		t.image = newImage(number, o.Workers, o.NotesPerFlow)
		t.counters.Store(uint32(o.Workers + 2))
		return nil
	}
	s := shapeNow(o.NotesPerFlow)
	t.floor = make([]byte, s.parts(number).end)
	last, err := o.Images.Last()
	if err != nil {
		t.adoption.Refused, last = err, nil
	}
	var head *imageHead
	var was shape
	if last != nil {
		if head, was, err = readShape(last, o.NotesPerFlow); err == nil && was.Meaning > meaning {
			err = fmt.Errorf("conntrack: the image of a newer version (meaning %d, this one knows %d)", was.Meaning, meaning)
		}
		if t.adoption.Refused = err; err != nil {
			last = nil
		}
	}
	if last != nil && head.number == uint64(number) && reflect.DeepEqual(was, s) && o.sameZones() && o.Later == 0 {
		t.image = cutImage(last, &s, number)
	} else {
		memory, err := o.Images.Make(s.parts(number).end)
		if err != nil {
			return fmt.Errorf("conntrack: %w", err)
		}
		if t.image, err = makeImage(memory, &s, number); err != nil {
			return err
		}
		if last != nil {
			t.adoption.Copied = true
			t.adoption.Refused = t.copyImage(o, last, head, &was, memory, &s)
		}
		if err := o.Images.Commit(); err != nil {
			return fmt.Errorf("conntrack: %w", err)
		}
	}
	t.counters.Store(max(t.counters.Load(), uint32(o.Workers+2)))
	return nil
}

// NoZone stands for no zone in Options.OldZones.
const NoZone = 1<<16 - 1

// sameZones reports that every zone of the last process is the same now.
func (o *Options) sameZones() bool {
	for was, now := range o.OldZones {
		if now != NoZone && int(now) != was {
			return false
		}
	}
	return true
}

// zoneNow is what a zone of the last process is now.
func (o *Options) zoneNow(was uint16) uint16 {
	switch {
	case o.OldZones == nil:
		return was
	case int(was) < len(o.OldZones):
		return o.OldZones[was]
	}
	return NoZone
}

// rezone gives a record its zones of now. It is false for one whose attachment is gone.
func (o *Options) rezone(r *record) bool {
	r.zone, r.replyZone = o.zoneNow(r.zone), o.zoneNow(r.replyZone)
	return r.zone != NoZone && r.replyZone != NoZone
}

// copyImage copies the records of another image, those that live.
func (t *Table) copyImage(o *Options, last []byte, head *imageHead, was *shape, memory []byte, s *shape) error {
	var converters [4]converter
	var missing []string
	for i, l := range [][2]*layout{{&was.Record, &s.Record}, {&was.Translation, &s.Translation}, {&was.Sides, &s.Sides}, {&was.Counts, &s.Counts}} {
		c, lacks := convert(l[0], l[1])
		if converters[i] = c; i < 3 { // counts that are new begin at zero
			missing = append(missing, slices.DeleteFunc(lacks, func(name string) bool { return slices.Contains(mayLack, name) })...)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("conntrack: the image of another version lacks %s", strings.Join(missing, ", "))
	}
	from, to := was.parts(int(head.number)), s.parts(int(t.number))
	n, ended := 0, uint64(0)
	var one record
	lose := func(why Loss) {
		t.adoption.Lost[why]++
		if !status(one.status.Load()).class().Cut() {
			ended++
		}
	}
	for f := range int(head.used.Load()) {
		converters[0].copy(unsafe.Slice((*byte)(unsafe.Pointer(&one)), unsafe.Sizeof(one)), 0, last[from.records:], f)
		if !status(one.status.Load()).live() {
			continue
		}
		if !o.rezone(&one) {
			lose(LostZone)
			continue
		}
		if n == int(t.number) {
			lose(LostRoom)
			continue
		}
		converters[0].copy(memory[to.records:], n, last[from.records:], f)
		r := &t.records[n]
		r.zone, r.replyZone = one.zone, one.replyZone
		r.created += o.Later
		r.lastSeen.Add(uint32(o.Later))
		if one.marks != 0 {
			converters[1].copy(memory[to.translations:], n, last[from.translations:], f)
		}
		converters[2].copy(memory[to.sides:], n, last[from.sides:], f)
		if was.NotesPerFlow == s.NotesPerFlow && s.NotesPerFlow > 0 {
			size := s.NotesPerFlow
			copy(memory[to.notes+n*size:][:size], last[from.notes+f*size:][:size])
		}
		n++
	}
	t.used.Store(uint32(n))
	for i := range int(head.counters.Load()) {
		converters[3].copy(memory[to.counts:], i, last[from.counts:], i)
	}
	t.counts[0].ended[EndFlushed].Add(ended)
	t.counters.Store(head.counters.Load())
	t.endedPackets.Store(head.endedPackets.Load())
	t.endedBytes.Store(head.endedBytes.Load())
	return nil
}
