package conntrack

import "github.com/nsgd/nsgd/dataplane/packet"

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
// backs only pages with such flows. It is written and read like the record's fields
// without atomics.
type translation struct {
	// src to dstPort are the tuple of Init.Arrives.
	src, dst         packet.Addr
	receiver         packet.Addr // the address of the end that such packets reach
	srcPort, dstPort uint16
	_                [12]byte
}

func (x *translation) set(i *Init) {
	x.src, x.dst, x.srcPort, x.dstPort = i.Arrives.Src, i.Arrives.Dst, i.Arrives.SrcPort, i.Arrives.DstPort
	if x.receiver = x.dst; i.Marks&Floating != 0 {
		x.receiver = i.Receiver
	}
}

// replyTuple is the tuple of replies, as they come in. Only replyTuple, Init.replyKey and
// matches know that it is the reverse of what arrives.
func (t *Table) replyTuple(f Flow) packet.Tuple { return replyTuple(&t.records[f], &t.translations[f]) }

func replyTuple(r *record, x *translation) packet.Tuple {
	if r.marks&Translated == 0 {
		return r.tuple().Reverse()
	}
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

// Silence is a connection with Resets that has been idle for its timeout.
type Silence struct {
	Key, ReplyKey Key
	// Acks are the sequence numbers that each side expects next, by Direction. Known says which were seen.
	Acks  [2]uint32
	Known [2]bool
}

// tellSilent calls Options.Silent for an established connection with Resets that Expire ended.
func (t *Table) tellSilent(f Flow, c Class) {
	r := &t.records[f]
	if t.silent == nil || r.marks&Resets == 0 || c != ClassTCPEstablished && c != ClassTCPClosing && c != ClassTCPTwoWay {
		return
	}
	var s Silence
	s.Key, s.ReplyKey = t.keys(f)
	for d := range s.Acks {
		taken := t.sides[f][d].taken.Load()
		s.Acks[d], s.Known[d] = uint32(taken>>32), taken != 0
	}
	t.silent(&s)
}
