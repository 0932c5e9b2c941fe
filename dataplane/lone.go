package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

const (
	// A flow is a lone one when it has sent the last loneBytes of a worker's bulk flows, without a gap of loneGap. A bulk flow stays
	// one for longer than that, so no packet of a lone flow is among those of sparse flows. Its fragments may be.
	loneBytes, loneGap = 8 << 20, 100 * time.Millisecond
	// A lone flow's worker does not yield: sched_yield costs it the rest of its time slice. It carries up to loneBursts, for loneTurn.
	loneBursts, loneTurn = 16, time.Millisecond
	// Beside a lone flow, packets of sparse flows are looked for once in loneLook, not behind each group. Answers that leave one by
	// one wake their receivers one by one. See test/bench/README.md.
	loneLook = 150 * time.Microsecond
)

// flowBytes are what packets of a flow have in common, as they stand in their headers.
type flowBytes struct {
	version, protocol uint8
	ends              [36]byte // addresses and ports
}

// bytesOf returns false for a packet whose ports are not where they mostly are, such as a fragment.
func bytesOf(frame []byte) (b flowBytes, ok bool) {
	if len(frame) < tun.HeaderLen+24 {
		return b, false
	}
	switch p := frame[tun.HeaderLen:]; {
	case p[0] == 0x45 && p[6]&0x3f|p[7] == 0:
		b.version, b.protocol = 4, p[9]
		copy(b.ends[:], p[12:24])
	case p[0]>>4 == 6 && len(p) >= 44:
		b.version, b.protocol = 6, p[6]
		copy(b.ends[:], p[8:44])
	}
	return b, b.protocol == packet.ProtoTCP || b.protocol == packet.ProtoUDP
}

// lone is the flow that has sent a worker's last bulk packet.
type lone struct {
	attachment int
	flow       flowBytes
	sent       int           // bytes since another flow did
	seen       time.Duration // when a bulk flow last sent
	looked     time.Duration // when packets of sparse flows were last looked for
}

// is reports whether there is a lone flow.
func (l *lone) is() bool { return l.sent >= loneBytes }

// goesOn reports whether a turn that has taken so long may be longer than others are.
func (l *lone) goesOn(took time.Duration) bool { return l.is() && took < loneTurn }

// follows notes a group that was read from an attachment's queue of bulk flows. It reports whether all of it is a lone flow's. There is
// none unless packets of sparse flows are apart, and counted: else a flow may begin as a sparse one again at any time.
func (l *lone) follows(now time.Duration, attachment int, group []slot, apart bool) bool {
	if now-l.seen >= loneGap || !apart {
		l.sent = 0
	}
	l.seen = now
	for i := range group {
		b, ok := bytesOf(group[i].frame)
		if !ok || b != l.flow || attachment != l.attachment {
			l.flow, l.attachment, l.sent = b, attachment, 0
			return false
		}
		l.sent += len(group[i].frame)
	}
	return apart && l.is()
}

// looks reports whether packets of sparse flows are looked for before a group that was read from an attachment's queue of bulk flows.
func (w *worker) looks(attachment int, group []slot) bool {
	l, now := &w.lone, w.time
	if l.is() {
		now = w.engine.clock() // the process may have been stopped since
	}
	if l.follows(now, attachment, group, w.sparse[attachment] != nil && w.poller.Counts()) && now-l.looked < loneLook {
		return false
	}
	l.looked = now
	return true
}
