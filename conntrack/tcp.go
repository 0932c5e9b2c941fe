package conntrack

import "github.com/nsgd/nsgd/dataplane/packet"

// peer is what one side of a TCP connection has done so far. It does not say whether the
// side's FIN was acknowledged: no timeout depends on it.
type peer uint8

const (
	peerSilent   peer = iota // nothing seen
	peerOpening              // sent SYN or SYN+ACK, not yet acknowledged
	peerJoined               // heard in mid-stream, its SYN never seen, not yet acknowledged
	peerOpen                 // acknowledged by the other side
	peerFinished             // sent FIN
)

// tcpState is what each side of a connection did, by Direction, and whether it was reset. A
// segment also tells what the other side did before.
type tcpState struct {
	peers [2]peer
	reset bool
}

// firstTCP is the state after the segment that begins a flow.
func firstTCP(flags uint8) tcpState {
	switch {
	case flags&packet.SYN != 0:
		return tcpState{peers: [2]peer{Original: peerOpening}}
	case flags&packet.FIN != 0:
		return tcpState{peers: [2]peer{Original: peerFinished}}
	}
	return tcpState{peers: [2]peer{Original: peerJoined}}
}

// class is the class that selects the timeout. While one side is silent, the connection is no
// more than an attempt: segments of one side alone never earn a longer life.
func (s tcpState) class() Class {
	a, b := s.peers[Original], s.peers[Reply]
	switch {
	case s.reset:
		return ClassTCPReset
	case a == peerSilent || b == peerSilent:
		return ClassTCPSynSent
	case a == peerFinished && b == peerFinished:
		return ClassTCPTimeWait
	case a == peerFinished || b == peerFinished:
		return ClassTCPClosing
	case a == peerOpen && b == peerOpen:
		return ClassTCPEstablished
	}
	return ClassTCPSynSent
}

// impossibleTCP reports flag sets that no TCP sends: none of SYN, ACK, RST and
// FIN (null scan, URG or PSH alone), SYN or RST together with FIN, SYN with RST,
// FIN without ACK (FIN and Xmas scans).
func impossibleTCP(flags uint8) bool {
	switch flags & (packet.SYN | packet.ACK | packet.RST | packet.FIN) {
	case packet.SYN, packet.SYN | packet.ACK, packet.RST, packet.RST | packet.ACK,
		packet.ACK, packet.FIN | packet.ACK:
		return false
	}
	return true
}

// bareSYN reports the segment that asks for a new connection.
func bareSYN(flags uint8) bool {
	return flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// restartedBy reports whether a segment asks for a new connection in place of one that is over: a SYN
// from either side once both have sent FIN or one RST, or on a pick-up in mid-stream without an answer.
func (s tcpState) restartedBy(flags uint8) bool {
	if !bareSYN(flags) {
		return false
	}
	a, b := s.peers[Original], s.peers[Reply]
	return s.reset || a == peerFinished && b == peerFinished || a != peerOpening && b == peerSilent
}

// succeededBy reports whether a SYN from side d asks for a new connection while this one lives. The SYN of an
// attempt may come again, and the other side may ask at the same time (RFC 9293 section 3.5).
func (s tcpState) succeededBy(x *sides, d Direction, p *packet.Packet) bool {
	if !bareSYN(p.TCPFlags) || s.restartedBy(p.TCPFlags) {
		return false
	}
	switch s.peers[d] {
	case peerOpening:
		return !x.repeats(d, p)
	case peerOpen:
		return s.peers[1-d] != peerOpening || !x.repeats(d, p) // its answer may be lost
	case peerSilent, peerJoined:
		return s.peers[1-d] != peerOpening
	}
	return true
}

// next is the state after a segment from side d that fits the windows. refresh says whether the segment
// extends the flow's life. A dropped segment changes nothing.
func (s tcpState) next(d Direction, flags uint8) (to tcpState, refresh bool, drop packet.Drop) {
	switch {
	case flags&packet.RST != 0:
		return s.afterRST(d, flags)
	case bareSYN(flags):
		if s.peers[d] == peerSilent || s.peers[d] == peerJoined {
			s.peers[d] = peerOpening
		}
		return s, d == Original, packet.NotDropped
	case flags&packet.SYN != 0:
		return s.afterSYNACK(d)
	case flags&packet.FIN != 0:
		s = s.afterACK(d)
		s.peers[d] = peerFinished
		return s, true, packet.NotDropped
	}
	return s.afterACK(d), true, packet.NotDropped
}

// fits notes a segment if it fits the windows, and reports whether it does and which of its flags count.
// What next drops fits. scaled is from with the scale that a SYN offers.
func (x *sides) fits(from status, d Direction, p *packet.Packet) (flags uint8, scaled status, fits bool) {
	s, flags := from.tcp(), p.TCPFlags
	self, other := s.peers[d], s.peers[1-d]
	loose, picked := from&statusLoose != 0, from&statusPicked != 0
	switch {
	case flags&packet.RST != 0:
		switch {
		case loose, self == peerOpening && other == peerSilent:
			return flags, from, true
		case self == peerOpening && other == peerJoined && !picked:
			return flags, from, false // of its answer, an old connection's, no number is known
		case self == peerSilent && !picked:
			return flags, from, flags&packet.ACK == 0 || x.answers(d, p.Ack)
		case self == peerJoined && other == peerOpening && !picked: // what it expects is not known
			return flags, from, flags&packet.ACK != 0 && x.answers(d, p.Ack)
		}
		return flags, from, x.resets(d, p)
	case bareSYN(flags):
		if self != peerOpening {
			x.answer(d, p)
			from = from.withScale(d, p)
		}
		return flags, from, true
	case flags&packet.SYN != 0 && other == peerSilent:
		return flags, from, true
	case flags&packet.SYN != 0 && !picked && (self == peerSilent || self == peerJoined || self == peerOpening):
		if !loose && !x.answers(d, p.Ack) {
			return flags, from, false
		}
		x.answer(d, p)
		return flags, from.withScale(d, p), true
	case other == peerOpening && !loose && behind(p.Ack, uint32(x[d].taken.Load()>>32)) < 0:
		return flags, from, false // it does not acknowledge the SYN
	}
	if flags&packet.FIN != 0 && !loose && !x.finishes(d, p) {
		flags &^= packet.FIN
	}
	return flags, from, x.pass(from, d, p)
}

// afterSYNACK is for an answer to the other side's SYN, so that side must have been heard.
func (s tcpState) afterSYNACK(d Direction) (tcpState, bool, packet.Drop) {
	self, other := &s.peers[d], &s.peers[1-d]
	if *other == peerSilent {
		return s, false, packet.DropTCPState
	}
	if *self == peerSilent || *self == peerJoined {
		*self = peerOpening
	}
	if *other == peerOpening || *other == peerJoined {
		*other = peerOpen
	}
	return s, true, packet.NotDropped
}

// afterACK is for every segment without SYN and RST. One case is special: a side that was
// silent answers a SYN with a plain ACK. That is an old connection's answer to a new one
// (RFC 5961 section 4): it acknowledges nothing, and the opener will reset it.
func (s tcpState) afterACK(d Direction) tcpState {
	self, other := &s.peers[d], &s.peers[1-d]
	if *self == peerSilent {
		if *other == peerOpening {
			*self = peerJoined
			return s
		}
		*self = peerOpen
	}
	switch {
	case *other == peerOpening && *self != peerJoined:
		*other = peerOpen
	case *other == peerJoined:
		*other = peerOpen
		if *self == peerOpening || *self == peerJoined {
			*self = peerOpen
		}
	}
	return s
}

// afterRST resets the connection if that side could have sent the RST. A side that has only
// sent its SYN has nothing to reset. An answer to a SYN carries ACK; hosts ignore it otherwise
// (RFC 9293 3.10.7.3). In TIME-WAIT a RST passes without effect (RFC 1337).
func (s tcpState) afterRST(d Direction, flags uint8) (tcpState, bool, packet.Drop) {
	self, other := s.peers[d], s.peers[1-d]
	switch {
	case s.class() == ClassTCPTimeWait:
		return s, false, packet.NotDropped
	case self == peerOpening && other == peerSilent:
		return s, false, packet.DropTCPState
	case self == peerSilent && other == peerOpening && flags&packet.ACK == 0:
		return s, false, packet.DropTCPState
	}
	s.reset = true
	return s, true, packet.NotDropped
}
