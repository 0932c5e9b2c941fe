package watch

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Standing is a packet's relation to a flow.
type Standing uint8

const (
	NoFlow  Standing = iota // the packet belongs to no flow: it was dropped, or passed by itself
	Begins                  // the packet began a flow
	InFlow                  // the packet belongs to a live flow
	Related                 // the packet is an ICMP error about a packet of a live flow
)

// String is the word of filters and answers.
func (s Standing) String() string {
	return [...]string{"none", "new", "live", "related"}[s]
}

// OutOfWindow is the reason of filters and answers for a packet with Event.OutOfWindow.
const OutOfWindow = "out_of_window"

// MaxRules is how many rules an event can name: those of both ends, and a service of the platform.
const MaxRules = conntrack.MaxSlots + 1

// Event is what became of one packet. It holds no pointer.
type Event struct {
	// Time is when the packet's burst was read: wall clock, in nanoseconds since 1970. A packet
	// that caused another one is earlier, and Read gives it first.
	Time int64
	// Packet is the packet as it came in. A malformed one may have nothing but Segments and WireLen.
	Packet packet.Packet
	// Length is how many bytes were read. The packet's own length field may say less.
	Length uint32
	// Arrives is what the receiver sees, or would have seen of a packet that a rule denied. It is
	// valid when Translated.
	Arrives packet.Tuple
	// Generation is that of the policy that decided.
	Generation uint64
	// From is the attachment that the packet came from, To the one that it went to, or would
	// have gone to; -1 where that is not known.
	From, To int32
	// Drop is why it was not carried, or packet.NotDropped.
	Drop     packet.Drop
	Standing Standing
	// Direction is the packet's in its flow. An ICMP error has the reverse of the packet that it
	// quotes. It is valid when Standing is InFlow or Related.
	Direction  conntrack.Direction
	Translated bool
	// OutOfWindow says that a TCP segment did not fit the windows of its connection: it passed and changed
	// nothing there.
	OutOfWindow bool
	// Rules are the first N, by slot: those that were asked about the packet, or that allowed its
	// flow. Rules of one end are in the order in which they were asked; the receiver's may come
	// before the sender's. A denied packet was denied by the receiver's last rule, or by the
	// sender's last rule when the receiver has none.
	Rules [MaxRules]uint32
	N     uint8
	// Snapped is how many of the packet's bytes Subscription.Bytes has.
	Snapped uint32

	at   uint32 // place of those bytes in the ring's data
	ring uint32
	end  uint64 // place behind them, counted without wrapping
}

// Note adds rules as far as there is room.
func (e *Event) Note(slots conntrack.Slots) {
	for ; slots.More() && int(e.N) < MaxRules; slots = slots.Rest() {
		e.Rules[e.N] = slots.First()
		e.N++
	}
}
