package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/translate"
	"github.com/nsgd/nsgd/tun"
)

// A connection by an address with enableTcpReset is reset at both ends when it has been silent for
// its timeout. Expire finds it on a goroutine of its own; queues belong to workers, so
// the first one writes the segments.

const (
	resetter  = 0
	maxSilent = 1024 // connections that wait for their resets; more are let go without
)

// reset is conntrack.Options.Silent.
func (e *Engine) reset(s *conntrack.Silence) {
	select {
	case e.silent <- *s:
		e.workers[resetter].wake()
	default:
	}
}

// sendResets resets the connections that wait for it. Its sequence number is the one that the
// receiver expects next, all that counts there (RFC 9293 section 3.10.7.4, RFC 5961 section 3.2).
func (w *worker) sendResets() {
	defer w.survive()
	w.sendTrains()
	for {
		select {
		case s := <-w.engine.silent:
			back := s.ReplyKey.Reverse()
			w.sendReset(s.Key.Zone, s.Key.Reverse(), s.Acks[conntrack.Original], s.Acks[conntrack.Reply], s.Known[conntrack.Original])
			w.sendReset(s.ReplyKey.Zone, back, s.Acks[conntrack.Reply], s.Acks[conntrack.Original], s.Known[conntrack.Reply])
		default:
			w.counters.Flush()
			return
		}
	}
}

func (w *worker) sendReset(to uint16, t packet.Tuple, sequence, ack uint32, known bool) {
	exit, ok := int(to), true
	if _, whole := w.engine.room.Attachment(to); !whole {
		exit, ok = w.engine.room.ExitBeyond(w.engine.Snapshot(), to, t.Dst)
	}
	if !known || !ok {
		return
	}
	var b [tun.HeaderLen + 60]byte
	var p packet.Packet
	frame := translate.Reset(b[:], &t, sequence, ack, &p)
	if drop := w.write(exit, frame, &p, 0); drop != packet.NotDropped {
		w.counters.Drop(drop)
	}
}
