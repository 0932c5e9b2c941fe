package e2e

import "github.com/nsgd/nsgd/dataplane/packet"

// windowDifference is a segment that the two lanes take differently, on purpose.
type windowDifference struct {
	name, reason string
	// goesOn says that the lanes still remember the connection alike.
	goesOn   bool
	explains func(s *windowStep) bool
}

var windowDifferences = []windowDifference{
	{
		name:   "behind a RST",
		reason: "for some seconds what was under way still arrives, and its receiver answers it; it changes nothing",
		goesOn: true,
		explains: func(s *windowStep) bool {
			return s.connection.state == "reset" && s.sameState() && s.nsgd.effect == taken && !s.is(packet.SYN)
		},
	},
	{
		name:   "out of the window",
		reason: "its receiver answers it (RFC 9293 3.10.7.4), so nsgd lets it pass; in both it changes nothing",
		goesOn: true,
		explains: func(s *windowStep) bool {
			return s.sameState() && s.kernel.effect == dropped && s.nsgd.effect == ignored
		},
	},
	{
		name:   "SYN sent once more",
		reason: "whoever still asks for a connection keeps the attempt alive; the kernel lets it time out after its first SYN",
		goesOn: true,
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN) && s.connection.state == "syn_sent" && s.connection.kernelState == kernelSynSent &&
				s.sameState() && s.kernel.effect == ignored && s.nsgd.effect == taken
		},
	},
	{
		name:   "SYN on a live connection",
		reason: "both keep the connection until the other side answers with SYN+ACK; to nsgd the SYN begins a flow, which waits for that",
		goesOn: true,
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN) && s.side == s.connection.opener && s.sameState() && s.kernel.effect == ignored && s.nsgd.effect == taken
		},
	},
	{
		name:   "SYN from the side that did not open",
		reason: "it asks for a connection of its own, which the rules decide about; the kernel calls it invalid",
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN) && s.side != s.connection.opener && s.kernel.effect == dropped && s.nsgd.effect == taken
		},
	},
	{
		name:   "RST whose ACK does not fit",
		reason: "its receiver looks at its sequence number alone (RFC 9293 3.10.7.4), and takes it",
		explains: func(s *windowStep) bool {
			return s.is(packet.RST|packet.ACK) && s.kernel.effect != taken && s.nsgd.state == "reset"
		},
	},
	{
		name:   "SYN+ACK from the side that opened",
		reason: "ends that opened at the same time send it, and any other end answers it",
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN|packet.ACK) && s.side == s.connection.opener && s.kernel.effect == dropped
		},
	},
	{
		name:     "selective acknowledgement that nobody has agreed to",
		reason:   "nsgd keeps no note of that: it believes the option wherever it is, and its bounds hold with it as without",
		explains: (*windowStep).unagreedSACK,
	},
	{
		name:   "data that the SYN's window allows",
		reason: "the side that answers may send so much at once (RFC 9293 3.8.6); to the kernel the ACK of its SYN+ACK is the first to allow anything",
		explains: func(s *windowStep) bool {
			x := s.connection
			return s.side != x.opener && s.kernel.effect != taken && s.nsgd.effect == taken && int32(s.segment.Seq-x.synAllows) <= 0
		},
	},
	{
		name:     "RST elsewhere than at what is expected",
		reason:   "it may be a blind one, and its receiver challenges it (RFC 5961 3.2); the kernel lets it prolong the connection, and end it once a side has sent FIN",
		explains: func(s *windowStep) bool { return s.reset() && s.kernel.effect == taken && s.nsgd.effect == ignored },
	},
	{
		name:   "RST at the end of what its side has sent",
		reason: "when all of that has arrived, its receiver expects it there (RFC 5961 3.2), acknowledged or not, and beyond the window too, which is no wall; the kernel wants what is acknowledged, or what the last segment ended with",
		explains: func(s *windowStep) bool {
			return s.reset() && s.segment.Seq == s.connection.numbers(s.side).End && s.kernel.state != "reset" && s.nsgd.state == "reset"
		},
	},
	{
		name:   "SYN+ACK that answers an earlier SYN",
		reason: "the attempt waits for its answer as long as one without a connection before it; the kernel knows only the last segment",
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN|packet.ACK) && s.connection.attempt != nil && s.kernel.effect == ignored && s.nsgd.state == "syn_sent"
		},
	},
	{
		name:     "after a segment that moved the numbers of one of the two",
		reason:   "one just beyond the window says what may be acknowledged next: to nsgd data alone, and a SYN+ACK, and only forwards; to the kernel a RST too, and backwards. The kernel takes for beyond what only the SYN's window allows",
		explains: func(s *windowStep) bool { return s.kernel.effect != s.nsgd.effect && s.connection.moved },
	},
	{
		name:   "ACK that does not acknowledge the SYN",
		reason: "it is an old one, and completes no handshake",
		explains: func(s *windowStep) bool {
			return s.connection.state == "syn_sent" && s.kernel.effect == taken && s.nsgd.effect == ignored && s.segment.TCPFlags&(packet.SYN|packet.RST) == 0
		},
	},
	{
		name:   "SYN in place of a connection that is over",
		reason: "both sides have sent FIN, one has sent RST, or nobody has answered: the rules judge a new one; the kernel goes on with the old one until the last ACK, or unless the same side has just sent the RST",
		explains: func(s *windowStep) bool {
			x := s.connection
			over := x.state == "reset" || x.state == "time_wait" || x.picked && x.state == "syn_sent"
			return s.is(packet.SYN) && over && s.kernel.effect == ignored && s.nsgd.state == "syn_sent"
		},
	},
	{
		name:   "FIN as the first segment of a flow",
		reason: "a segment in mid-stream that the rules allow takes up its connection again; a FIN is one, though the kernel takes only a bare ACK",
		explains: func(s *windowStep) bool {
			return s.is(packet.FIN|packet.ACK) && s.connection.state == "none" && s.nsgd.effect == taken
		},
	},
	{
		name:     "RST against a side that has been heard alone",
		reason:   "what that side expects is known, and only a RST there ends it; the kernel forgets an unanswered connection upon any",
		explains: func(s *windowStep) bool { return s.reset() && s.connection.picked && s.kernel.state == "none" },
	},
	{
		name:   "RST by a side that has only sent its SYN",
		reason: "it has no connection to reset yet, and the RST would cut the flow's life short before the answer comes",
		explains: func(s *windowStep) bool {
			x := s.connection
			return s.reset() && x.state == "syn_sent" && !x.picked && s.side == x.opener && s.nsgd.effect == dropped
		},
	},
	{
		name:   "RST without ACK in answer to a SYN",
		reason: "an end that refuses a SYN acknowledges it, and the opener ignores a RST that does not (RFC 9293 3.10.7.3): it is a forgery",
		explains: func(s *windowStep) bool {
			x := s.connection
			return s.is(packet.RST) && x.state == "syn_sent" && s.side != x.opener && s.kernel.state == "none" && s.nsgd.state == "syn_sent"
		},
	},
	{
		name:   "RST whose ACK is not the SYN's",
		reason: "the opener ignores it (RFC 9293 3.10.7.3); the kernel forgets an unanswered connection upon any",
		explains: func(s *windowStep) bool {
			x := s.connection
			return s.is(packet.RST|packet.ACK) && x.state == "syn_sent" && s.side != x.opener && s.kernel.state == "none" && s.nsgd.effect == ignored
		},
	},
	{
		name:   "RST that refuses a SYN",
		reason: "nsgd keeps the flow for 5 s after a RST, as Azure does; the kernel forgets it at once",
		explains: func(s *windowStep) bool {
			return s.reset() && s.connection.state == "syn_sent" && s.kernel.state == "none" && s.nsgd.state == "reset"
		},
	},
	{
		name:   "opened at the same time",
		reason: "the two SYN+ACK acknowledge both SYNs (RFC 9293 3.5), and an ACK may stand for one that is lost; the kernel wants SYN+ACK and ACK in its own order",
		explains: func(s *windowStep) bool {
			x := s.connection
			return x.state == "syn_sent" && x.sent[0]&packet.SYN != 0 && x.sent[1]&packet.SYN != 0 && !s.is(packet.SYN) && !s.reset() && s.nsgd.effect == taken
		},
	},
	{
		name:     "picked up, and not answered yet",
		reason:   "one side alone earns no long life; to the kernel one segment in mid-stream makes an established connection",
		goesOn:   true,
		explains: func(s *windowStep) bool { return s.unanswered() && s.kernel.effect == s.nsgd.effect },
	},
	{
		name:   "picked up: numbers that fit nothing",
		reason: "both learn windows from what passes; the kernel then takes everything (be_liberal), nsgd leaves out what is far off",
		goesOn: true,
		explains: func(s *windowStep) bool {
			return s.connection.picked && s.kernel.effect == taken && s.nsgd.effect == ignored
		},
	},
	{
		name:   "second FIN of one side",
		reason: "it ends one direction, however often it is sent, and a half-closed connection lives on; the kernel waits for the last ACK then",
		explains: func(s *windowStep) bool {
			return s.is(packet.FIN|packet.ACK) && s.connection.sent[s.side]&packet.FIN != 0 && s.kernel.state == "time_wait" && s.nsgd.state == "closing"
		},
	},
	{
		name:   "FIN that does not end what its side has sent",
		reason: "a FIN somewhere in the window may be a blind one, and the other side would go on; its ACK counts",
		explains: func(s *windowStep) bool {
			sent, p := s.connection.numbers(s.side), &s.segment
			ends := int32(p.Seq-sent.End) <= 0 && int32(p.SeqEnd()-sent.End) >= 0
			return s.is(packet.FIN|packet.ACK) && !ends && !s.sameState() && s.kernel.effect == taken && s.nsgd.effect == taken
		},
	},
	{
		name:   "RST in TIME-WAIT",
		reason: "it must not end TIME-WAIT (RFC 1337): an old segment could then enter the next connection",
		explains: func(s *windowStep) bool {
			return s.reset() && s.connection.state == "time_wait" && s.nsgd.state == "time_wait"
		},
	},
	{
		name:   "SYN+ACK that fits an open connection",
		reason: "it is a segment as any other, and is answered; the kernel's table of states ignores it whatever its numbers",
		explains: func(s *windowStep) bool {
			return s.is(packet.SYN|packet.ACK) && s.sameState() && s.kernel.effect == ignored && s.nsgd.effect == taken
		},
	},
	{
		name:   "RST against an old connection's answer",
		reason: "it has the number of the ACK that it answers, which belongs to a connection that nobody has seen; the attempt stays, so that its SYN may come again",
		explains: func(s *windowStep) bool {
			x := s.connection
			return s.reset() && s.side == x.opener && x.state == "syn_sent" && s.nsgd.effect == ignored && x.sent[1-s.side]&packet.SYN == 0
		},
	},
}

func (s *windowStep) sameState() bool {
	return s.kernel.state == s.nsgd.state || s.unanswered() && s.kernel.state == "established"
}

// unanswered reports a connection of which one side has been heard, in mid-stream.
func (s *windowStep) unanswered() bool {
	x := s.connection
	return s.nsgd.state == "syn_sent" && !s.is(packet.SYN) && (x.picked || x.state == "none")
}

func (s *windowStep) unagreedSACK() bool {
	return s.segment.SACKed != 0 && !s.connection.sacks[1-s.side]
}

func (s *windowStep) is(flags uint8) bool { return s.segment.TCPFlags&controlBits == flags }

func (s *windowStep) reset() bool { return s.segment.TCPFlags&packet.RST != 0 }

// explainWindow finds the name of a difference, and whether the connection goes on.
func explainWindow(s *windowStep) (name string, goesOn bool) {
	if s.kernel == s.nsgd {
		return "", true
	}
	for i := range windowDifferences {
		if d := &windowDifferences[i]; d.explains(s) {
			return d.name, d.goesOn && s.sameState()
		}
	}
	return "", false
}
