package conntrack

import "github.com/nsgd/nsgd/dataplane/packet"

// peer is what one side of a TCP connection has done so far. It does not say whether the
// side's FIN was acknowledged: without sequence numbers every ACK would look like that one,
// and no timeout depends on it.
type peer uint8

const (
	peerSilent   peer = iota // nothing seen
	peerOpening              // sent SYN or SYN+ACK, not yet acknowledged
	peerJoined               // heard in mid-stream, its SYN never seen, not yet acknowledged
	peerOpen                 // acknowledged by the other side
	peerFinished             // sent FIN
)

// tcpState is what each side of a connection did, by Direction, and whether it was reset. A
// segment also tells what the other side did before. Sequence numbers are not looked at.
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

// restartedBy reports whether a segment asks for a new connection in place of this one: a SYN
// from either side once a FIN or RST was seen, or on a pick-up in mid-stream without an answer.
func (s tcpState) restartedBy(flags uint8) bool {
	if !bareSYN(flags) {
		return false
	}
	a, b := s.peers[Original], s.peers[Reply]
	return s.reset || a == peerFinished || b == peerFinished || a == peerJoined && b == peerSilent
}

// next is the state after a segment from side d. refresh says whether the segment extends the
// flow's life. A dropped segment changes nothing.
func (s tcpState) next(d Direction, flags uint8) (to tcpState, refresh bool, drop packet.Drop) {
	switch {
	case impossibleTCP(flags):
		return s, false, packet.DropTCPFlags
	case s.restartedBy(flags): // the caller should have asked Restarts first
		return s, false, packet.DropTCPState
	case s.reset: // the tail of what was under way
		return s, false, packet.NotDropped
	case flags&packet.RST != 0:
		return s.afterRST(d, flags)
	case bareSYN(flags):
		return s.afterSYN(d)
	case flags&packet.SYN != 0:
		return s.afterSYNACK(d)
	case flags&packet.FIN != 0:
		s = s.afterACK(d)
		s.peers[d] = peerFinished
		return s, true, packet.NotDropped
	}
	return s.afterACK(d), true, packet.NotDropped
}

// afterSYN is for a repeated SYN or a simultaneous open.
//
// In an established connection a SYN of the original side passes without extending the flow's
// life: the peer answers it with an ACK (RFC 9293 3.10.7.4). A SYN of the reply side is
// refused: the rules never allowed that side to begin a connection.
func (s tcpState) afterSYN(d Direction) (tcpState, bool, packet.Drop) {
	if s.class() == ClassTCPEstablished {
		if d == Reply {
			return s, false, packet.DropTCPState
		}
		return s, false, packet.NotDropped
	}
	if s.peers[d] == peerSilent || s.peers[d] == peerJoined {
		s.peers[d] = peerOpening
	}
	return s, true, packet.NotDropped
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
