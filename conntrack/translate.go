package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Marks are properties that few flows have.
type Marks uint8

// The marks.
const (
	// Translated: the receiver of a packet sees another tuple than its sender.
	Translated Marks = 1 << iota
	// Floating: the receiver's own address is not the one that packets are sent to.
	Floating
	// Resets: both ends get a RST when the connection falls silent, see Options.Silent.
	Resets
	// Shared: the source port was chosen among those of an address that flows share, see FreePort.
	Shared
)

// translation holds more about a flow with Marks, under the number of its record. The kernel
// backs only pages with such flows. All but acks is written and read like the record's fields
// without atomics.
type translation struct {
	// src to dstPort are the tuple of Init.Arrives.
	src, dst         packet.Addr
	receiver         packet.Addr // the address of the end that such packets reach
	srcPort, dstPort uint16
	// acks are the last acknowledgement numbers that each side sent, by Direction; 0: none.
	acks [2]atomic.Uint32
	_    uint32
}

func (x *translation) set(i *Init) {
	x.src, x.dst, x.srcPort, x.dstPort = i.Arrives.Src, i.Arrives.Dst, i.Arrives.SrcPort, i.Arrives.DstPort
	if x.receiver = x.dst; i.Marks&Floating != 0 {
		x.receiver = i.Receiver
	}
	for d := range x.acks {
		x.acks[d].Store(0)
	}
}

// replyTuple is the tuple of replies, as they come in. Only replyTuple, Init.replyKey and
// matches know that it is the reverse of what arrives.
func (t *Table) replyTuple(f Flow) packet.Tuple {
	r := &t.records[f]
	if r.marks&Translated == 0 {
		return r.tuple().Reverse()
	}
	x := &t.translations[f]
	return packet.Tuple{Src: x.dst, Dst: x.src, SrcPort: x.dstPort, DstPort: x.srcPort, Proto: r.proto}
}

// replyKey is the key of the replies to k.
func (i *Init) replyKey(k *Key) Key {
	if i.Marks&Translated == 0 {
		return Key{k.Reverse(), i.ReplyZone}
	}
	return Key{i.Arrives.Reverse(), i.ReplyZone}
}

// keys are the two keys that a record is found by. They are equal when a host talks to itself
// from a port to the same port.
func (t *Table) keys(f Flow) (original, reply Key) {
	r := &t.records[f]
	return Key{r.tuple(), r.zone}, Key{t.replyTuple(f), r.replyZone}
}

// matches reports whether k is the reply key of a translated record.
func (x *translation) matches(r *record, k *Key) bool {
	return x.src == k.Dst && x.dst == k.Src && x.srcPort == k.DstPort && x.dstPort == k.SrcPort &&
		r.replyZone == k.Zone && r.proto == k.Proto
}

// Marks returns the flow's marks.
func (w *Worker) Marks(f Flow) Marks { return w.table.records[f].marks }

// Becomes is the tuple with which a packet of direction d reaches its receiver.
func (w *Worker) Becomes(f Flow, d Direction) packet.Tuple {
	if d == Reply {
		return w.table.records[f].tuple().Reverse()
	}
	return w.table.replyTuple(f).Reverse()
}

// Receiver is the address of the end that packets of the original direction reach. With
// Floating it is not the one in the packets.
func (w *Worker) Receiver(f Flow) packet.Addr {
	r := &w.table.records[f]
	if r.marks == 0 {
		return r.dst
	}
	return w.table.translations[f].receiver
}

// Acknowledged notes the acknowledgement number of a segment of a flow with Resets. A number
// behind the last one is ignored: segments get reordered.
func (w *Worker) Acknowledged(f Flow, d Direction, number uint32) {
	last := &w.table.translations[f].acks[d]
	for {
		old := last.Load()
		if old != 0 && int32(number-old) <= 0 || last.CompareAndSwap(old, number) {
			return
		}
	}
}

// Silence is a connection with Resets that has been idle for its timeout.
type Silence struct {
	Key, ReplyKey Key
	// Acks are the last acknowledgement numbers that each side sent, by Direction: that side
	// expects this sequence number next. Known says which were seen.
	Acks  [2]uint32
	Known [2]bool
}

// tellSilent calls Options.Silent for an established connection with Resets that Expire ended.
func (t *Table) tellSilent(f Flow, c Class) {
	r := &t.records[f]
	if t.silent == nil || r.marks&Resets == 0 || c != ClassTCPEstablished && c != ClassTCPTwoWay {
		return
	}
	var s Silence
	s.Key, s.ReplyKey = t.keys(f)
	for d := range s.Acks {
		ack := t.translations[f].acks[d].Load()
		s.Acks[d], s.Known[d] = ack, ack != 0
	}
	t.silent(&s)
}
