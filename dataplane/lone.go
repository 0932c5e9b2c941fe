package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

const (
	// A flow is a lone one when it has sent the last loneBytes of a worker's bulk flows, without a gap of loneGap: the receivers of
	// others don't wait for its processor, and none of its packets is among those of sparse flows.
	loneBytes, loneGap = 8 << 20, 100 * time.Millisecond
	// Behind a lone flow, a worker carries loneBursts before it looks at other queues, and packets of sparse flows are looked for
	// once in loneLook instead of behind each group: answers that leave one by one wake their receivers one by one. See
	// test/bench/README.md.
	loneBursts, loneLook = 16, 150 * time.Microsecond
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
	seen       time.Duration // when it last sent
	looked     time.Duration // when packets of sparse flows were last looked for
}

// is reports whether there is a lone flow.
func (l *lone) is() bool { return l.sent >= loneBytes }

// follows notes a group that was read from an attachment's queue of bulk flows. It reports whether all of it is a lone flow's.
func (l *lone) follows(now time.Duration, attachment int, group []slot) bool {
	if now-l.seen >= loneGap {
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
	return l.is()
}
