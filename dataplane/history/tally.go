package history

import (
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

// Key is what packets or flows that are summed up have in common. It holds no pointer.
type Key struct {
	Source, Destination packet.Addr
	// Generation is that of the policy by which Slot, From and To have names.
	Generation uint64
	// Slot is the rule that denied the packets, or the last one that allowed the flows; conntrack.NoSlot: none.
	Slot uint32
	// From and To are attachments; -1 where that is not known. Both are Others where several pairs are summed up.
	From, To int32
	// Port is the destination's; 0 where the protocol has none.
	Port     uint16
	Protocol uint8
	// Drop is why the packets were dropped; packet.NotDropped of flows.
	Drop packet.Drop
}

// Others stands for the attachments of pairs that had no room of their own.
const Others int32 = -2

// Sums are those of the packets or flows of a key.
type Sums struct {
	// Count is how many dropped packets or ended flows there were.
	Count uint64
	// Packets are wire segments and Bytes theirs: what was dropped, or what flows carried, by conntrack.Direction.
	Packets, Bytes [2]uint64
	// Last is when the last one was, in nanoseconds since 1970.
	Last int64
}

// Pair is a key with its sums.
type Pair struct {
	Key
	Sums
}

// Add adds other sums.
func (s *Sums) Add(o *Sums) {
	s.Count += o.Count
	for d := range s.Packets {
		s.Packets[d] += o.Packets[d]
		s.Bytes[d] += o.Bytes[d]
	}
	s.Last = max(s.Last, o.Last)
}

// book sums up within bounds: MaxPairs pairs, half of them of one sender's attachment at most, and maxOthers rules or
// reasons beyond them. What is beyond both is one sum.
type book struct {
	pairs  []Pair
	at     map[Key]int   // of pairs
	of     map[int32]int // pairs of an attachment
	others int           // entries of pairs that are for others
}

func newBook() *book { return &book{at: map[Key]int{}, of: map[int32]int{}} }

func (b *book) add(k Key, s *Sums) {
	i, ok := b.at[k]
	if !ok {
		if full := len(b.pairs)-b.others >= MaxPairs || b.of[k.From] >= MaxPairs/2; full {
			k = Key{Generation: k.Generation, Slot: k.Slot, Drop: k.Drop, From: Others, To: Others}
			if i, ok = b.at[k]; !ok && b.others >= maxOthers {
				k = Key{Slot: conntrack.NoSlot, From: Others, To: Others}
				i, ok = b.at[k]
			}
		}
		if !ok {
			i = b.enter(k)
		}
	}
	b.pairs[i].Add(s)
}

func (b *book) enter(k Key) (i int) {
	if k.From == Others {
		b.others++
	} else {
		b.of[k.From]++
	}
	i = len(b.pairs)
	b.pairs, b.at[k] = append(b.pairs, Pair{Key: k}), i
	return i
}

// closed is what was summed up, in no more memory than it takes.
func (b *book) closed() []Pair { return slices.Clip(slices.Clone(b.pairs)) }

// DeniedBy is the slot of the rule that denied a packet; conntrack.NoSlot where none did, or it is forgotten.
func DeniedBy(r *topology.Registry, e *watch.Event) uint32 {
	for _, slot := range e.Rules[:e.N] {
		if k, ok := r.At(slot, e.Generation); ok && k.Access == ruleset.Deny {
			return slot
		}
	}
	return conntrack.NoSlot
}

// drop sums up a dropped packet that the rule of slot has denied.
func (o *open) drop(slot uint32, e *watch.Event) {
	t := &e.Packet.Tuple
	k := Key{Source: t.Src, Destination: t.Dst, Generation: e.Generation, Slot: slot, From: e.From, To: e.To, Protocol: t.Proto, Drop: e.Drop}
	if (t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP) && !e.Packet.Fragment.IsLater() {
		k.Port = t.DstPort
	}
	o.denied.add(k, &Sums{Count: 1, Packets: [2]uint64{uint64(e.Packet.Segments)}, Bytes: [2]uint64{uint64(e.Packet.WireLen)}, Last: e.Time})
}
