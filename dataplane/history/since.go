package history

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Span is what happened from a time on, in whole buckets, the last one up to now.
type Span struct {
	// From is the begin of the first bucket: at most BucketLength before what was asked for, or when remembering began.
	From, To time.Time
	// Drops counts all dropped packets by reason.
	Drops [packet.NumDrops]uint64
	// Unseen are those among them that were not looked at, because they came too quickly.
	Unseen uint64
	// Lost are ended flows that were not looked at.
	Lost uint64
	// OtherHits are of rules that Hits does not tell apart.
	OtherHits counter.Rule

	buckets []*bucket
}

// Since is what happened from a time on.
func (h *History) Since(t time.Time) *Span {
	h.mu.Lock()
	now := h.now()
	h.takeEnded(now)
	after := h.count()
	s := &Span{From: h.current.from, To: now}
	for _, b := range h.past {
		if b.to.After(t) {
			s.buckets = append(s.buckets, b)
		}
	}
	s.buckets = append(s.buckets, h.current.close(now, &h.before, &after))
	h.mu.Unlock()
	s.From = s.buckets[0].from
	for _, b := range s.buckets {
		for reason, n := range b.drops {
			s.Drops[reason] += n
		}
		s.Unseen += b.unseen
		s.Lost += b.lost
		addRule(&s.OtherHits, &b.otherHits)
	}
	return s
}

// Denied yields the pairs of dropped packets, Ended those of ended flows, bucket by bucket: a pair comes again with
// each bucket that it is in.
func (s *Span) Denied(yield func(*Pair)) {
	for _, b := range s.buckets {
		for i := range b.denied {
			yield(&b.denied[i])
		}
	}
}

// Ended is Denied for ended flows.
func (s *Span) Ended(yield func(*Pair)) {
	for _, b := range s.buckets {
		for i := range b.ended {
			yield(&b.ended[i])
		}
	}
}

// Hits yields what rules did, bucket by bucket with the bucket's begin, and with the generation that names their slots.
func (s *Span) Hits(yield func(from time.Time, generation uint64, h *Hit)) {
	for _, b := range s.buckets {
		for i := range b.hits {
			yield(b.from, b.generation, &b.hits[i])
		}
	}
}
