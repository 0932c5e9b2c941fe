package conntrack

import (
	"fmt"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Tick is the coarse clock: one for every TickLength since any fixed point, modulo 2^32.
type Tick uint32

// TickLength is the length of a Tick.
const TickLength = 10 * time.Millisecond

// MaxTimeout is the longest timeout. It is far below half of the ticks' range, so that
// comparisons hold even if Expire is late by months.
const MaxTimeout = 7 * 24 * time.Hour

// since is the number of ticks from earlier to t. It is 0 if earlier is the later one, which
// another worker's clock can cause.
func (t Tick) since(earlier Tick) uint32 {
	return uint32(max(int32(t-earlier), 0))
}

// Class is a flow's protocol and state. It selects the flow's timeout and its label in metrics.
type Class uint8

// The classes.
const (
	ClassTCPSynSent     Class = iota // no complete handshake; a mid-stream pick-up seen from one side
	ClassTCPEstablished              // both sides spoke and were acknowledged
	ClassTCPClosing                  // one side sent FIN; the other may go on for as long as it likes
	ClassTCPTimeWait                 // both sides sent FIN
	ClassTCPReset                    // RST
	ClassTCPOneWay                   // Init.Stateless, no reply yet
	ClassTCPTwoWay                   // Init.Stateless
	ClassUDPOneWay                   // no reply yet
	ClassUDPTwoWay
	ClassICMPOneWay // no reply yet
	ClassICMPTwoWay
	ClassOtherOneWay // no reply yet
	ClassOtherTwoWay
	ClassTCPCut // denied when it was judged again, see Worker.Cut
	ClassUDPCut
	NumClasses // number of classes; not a class
)

var classNames = [NumClasses]struct{ protocol, state string }{
	ClassTCPSynSent:     {"tcp", "syn_sent"},
	ClassTCPEstablished: {"tcp", "established"},
	ClassTCPClosing:     {"tcp", "closing"},
	ClassTCPTimeWait:    {"tcp", "time_wait"},
	ClassTCPReset:       {"tcp", "reset"},
	ClassTCPOneWay:      {"tcp", "one_way"},
	ClassTCPTwoWay:      {"tcp", "two_way"},
	ClassUDPOneWay:      {"udp", "one_way"},
	ClassUDPTwoWay:      {"udp", "two_way"},
	ClassICMPOneWay:     {"icmp", "one_way"},
	ClassICMPTwoWay:     {"icmp", "two_way"},
	ClassOtherOneWay:    {"other", "one_way"},
	ClassOtherTwoWay:    {"other", "two_way"},
	ClassTCPCut:         {"tcp", "cut"},
	ClassUDPCut:         {"udp", "cut"},
}

// Protocol is "tcp", "udp", "icmp" (both versions) or "other".
func (c Class) Protocol() string { return classNames[c].protocol }

// State is the class's state within its protocol, such as "established" or "one_way".
func (c Class) State() string { return classNames[c].state }

// oneWay is the first class of a protocol other than TCP. The class after it is two-way.
func oneWay(proto uint8) Class {
	switch proto {
	case packet.ProtoUDP:
		return ClassUDPOneWay
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return ClassICMPOneWay
	}
	return ClassOtherOneWay
}

// stateless reports a TCP flow with Init.Stateless.
func (c Class) stateless() bool { return c == ClassTCPOneWay || c == ClassTCPTwoWay }

// unanswered reports an attempt: no reply has come, or no handshake is complete.
func (c Class) unanswered() bool {
	switch c {
	case ClassTCPSynSent, ClassTCPOneWay, ClassUDPOneWay, ClassICMPOneWay, ClassOtherOneWay:
		return true
	}
	return false
}

// Cut reports a flow that has ended, and that is kept so that its other side does not begin it again.
func (c Class) Cut() bool { return c >= ClassTCPCut }

// cutClass is the class of a protocol's flows that were cut; NumClasses: they leave nothing behind. Of ICMP no reply
// begins a flow, and without ports both sides' own flows have the same keys.
func cutClass(proto uint8) Class {
	switch proto {
	case packet.ProtoTCP:
		return ClassTCPCut
	case packet.ProtoUDP:
		return ClassUDPCut
	}
	return NumClasses
}

// evictable ranks the classes that a full table may end for any new flow: the higher the
// sooner, 0 never; ofOthers has the ranks below. Nobody misses a finished connection; an unanswered one may be part of a flood. What was cut
// is kept like an established flow, unless such flows crowd out others.
func (c Class) evictable(crowded bool) int {
	switch {
	case c == ClassTCPTimeWait || c == ClassTCPReset:
		return 6
	case c.unanswered():
		return 5
	case c.Cut() && crowded:
		return 4
	}
	return 0
}

// Timeouts say how long a flow lives after its last packet, by class. A zero
// field takes its default.
type Timeouts struct {
	TCPSyn         time.Duration // handshake not complete, or only one side heard: 30 s
	TCPEstablished time.Duration // 4 min, with Init.Stateless too; a flow's own Init.Established precedes it
	TCPClosing     time.Duration // one side sent FIN; 0: as long as an established flow
	TCPTimeWait    time.Duration // both sides sent FIN: 10 s
	TCPReset       time.Duration // counted from the RST; later packets do not extend it: 5 s
	UDPOneWay      time.Duration // 30 s
	UDPTwoWay      time.Duration // 4 min
	ICMP           time.Duration // 30 s
	Other          time.Duration // 4 min
}

// DefaultTimeouts are what a zero Timeouts means.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		TCPSyn:         30 * time.Second,
		TCPEstablished: 4 * time.Minute,
		TCPTimeWait:    10 * time.Second,
		TCPReset:       5 * time.Second,
		UDPOneWay:      30 * time.Second,
		UDPTwoWay:      4 * time.Minute,
		ICMP:           30 * time.Second,
		Other:          4 * time.Minute,
	}
}

// ofTheFlow is a lifetime that each flow has of its own.
const ofTheFlow = 0

// lifetimes are the timeouts in ticks, by class, and that of an established flow without one of its own.
func (o Timeouts) lifetimes() (l [statusClasses]uint32, established uint32, err error) {
	d := DefaultTimeouts()
	for _, f := range []struct {
		name       string
		value, def time.Duration
		classes    []Class
	}{
		{"tcpSyn", o.TCPSyn, d.TCPSyn, []Class{ClassTCPSynSent, ClassTCPOneWay}},
		{"tcpEstablished", o.TCPEstablished, d.TCPEstablished, []Class{ClassTCPEstablished, ClassTCPTwoWay}},
		{"tcpClosing", o.TCPClosing, d.TCPClosing, []Class{ClassTCPClosing}},
		{"tcpTimeWait", o.TCPTimeWait, d.TCPTimeWait, []Class{ClassTCPTimeWait}},
		{"tcpReset", o.TCPReset, d.TCPReset, []Class{ClassTCPReset}},
		{"udpOneWay", o.UDPOneWay, d.UDPOneWay, []Class{ClassUDPOneWay}},
		{"udpTwoWay", o.UDPTwoWay, d.UDPTwoWay, []Class{ClassUDPTwoWay}},
		{"icmp", o.ICMP, d.ICMP, []Class{ClassICMPOneWay, ClassICMPTwoWay}},
		{"other", o.Other, d.Other, []Class{ClassOtherOneWay, ClassOtherTwoWay}},
	} {
		if f.value < 0 || f.value > MaxTimeout {
			return l, 0, fmt.Errorf("conntrack: timeout %s: %v: must be between 0 and %v", f.name, f.value, MaxTimeout)
		}
		if f.value == 0 {
			f.value = f.def
		}
		for _, c := range f.classes {
			l[c] = ticks(f.value)
		}
	}
	established, l[ClassTCPEstablished], l[ClassTCPTwoWay] = l[ClassTCPEstablished], ofTheFlow, ofTheFlow
	return l, established, nil
}

// ticks rounds up, so that nothing times out early.
func ticks(d time.Duration) uint32 {
	return uint32((min(d, MaxTimeout) + TickLength - 1) / TickLength)
}
