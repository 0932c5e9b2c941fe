package watch

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Standing is how a packet stands to a flow.
type Standing uint8

const (
	NoFlow  Standing = iota // it belongs to none: dropped, or let pass by itself
	Begins                  // it has begun a flow
	InFlow                  // it is one of a live flow's packets
	Related                 // it is an ICMP error about one of them
)

// String is the word of filters and answers.
func (s Standing) String() string {
	return [...]string{"none", "new", "live", "related"}[s]
}

// MaxRules is how many rules an event can name: those of both ends, and a service of the platform.
const MaxRules = conntrack.MaxSlots + 1

// Event is what became of one packet. It holds no pointer.
type Event struct {
	// Time is when the packet was read, with others: wall clock, in nanoseconds since 1970. What
	// has caused another packet is earlier than that, and Read gives it first.
	Time int64
	// Packet is the packet as it came in. Of a malformed one only Segments and WireLen may be
	// known.
	Packet packet.Packet
	// Length is how many bytes were read, which may be more than the packet says of itself.
	Length uint32
	// Arrives is what the receiver sees, or would have seen of a packet that a rule denied; valid when
	// Translated.
	Arrives packet.Tuple
	// Generation is that of the policy that decided.
	Generation uint64
	// From is the attachment that the packet came from, To the one that it went to, or would
	// have gone to; -1 where that is not known.
	From, To int32
	// Drop is why it was not carried, or packet.NotDropped.
	Drop     packet.Drop
	Standing Standing
	// Direction is the packet's in its flow, or that of the packet that it quotes, reversed;
	// valid when Standing is InFlow or Related.
	Direction  conntrack.Direction
	Translated bool
	// Rules are the first N, by slot: those that were asked about the packet, or that had
	// allowed its flow. The rules of one end are in the order in which they were asked, but
	// those of the receiver's may stand before those of the sender's. Of a packet that is denied
	// the receiver's last rule has denied it, or the sender's if that has no other.
	Rules [MaxRules]uint32
	N     uint8
	// Snapped is how many of the packet's bytes Subscription.Bytes has.
	Snapped uint32

	at   uint32 // where they are in the ring's data
	ring uint32
	end  uint64 // where the ring's data goes on behind them
}

// Note adds rules as far as there is room.
func (e *Event) Note(slots conntrack.Slots) {
	for ; slots.More() && int(e.N) < MaxRules; slots = slots.Rest() {
		e.Rules[e.N] = slots.First()
		e.N++
	}
}
