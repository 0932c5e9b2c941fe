package history

import (
	"cmp"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Hit is what a rule decided and carried within a time.
type Hit struct {
	Slot uint32
	counter.Rule
}

// bucket is what a time has left. It is never changed.
type bucket struct {
	from, to      time.Time
	generation    uint64 // that names the slots of hits
	denied, ended []Pair
	hits          []Hit
	otherHits     counter.Rule            // of the rules beyond MaxHits
	drops         [packet.NumDrops]uint64 // of all dropped packets, whether looked at or not
	unseen        uint64                  // dropped packets that were not looked at
	lost          uint64                  // ended flows that found no room
}

// open is the bucket that is filled.
type open struct {
	from          time.Time
	denied, ended *book
}

func newOpen(from time.Time) *open { return &open{from, newBook(), newBook()} }

// counted are counters at one instant.
type counted struct {
	generation   uint64
	rules        []counter.Rule
	drops        [packet.NumDrops]uint64
	unseen, lost uint64
}

// close is the bucket with what was counted since its begin.
func (o *open) close(to time.Time, before, after *counted) *bucket {
	b := &bucket{from: o.from, to: to, generation: after.generation, denied: o.denied.closed(), ended: o.ended.closed(),
		unseen: after.unseen - before.unseen, lost: after.lost - before.lost}
	for reason := range b.drops {
		b.drops[reason] = since(before.drops[reason], after.drops[reason])
	}
	for slot := range after.rules {
		was, is := counter.Rule{}, &after.rules[slot]
		if slot < len(before.rules) {
			was = before.rules[slot]
		}
		if was.Hits > is.Hits || was.Packets > is.Packets { // it was forgotten and is another one's now
			was = counter.Rule{}
		}
		if *is != was {
			b.hits = append(b.hits, Hit{uint32(slot), counter.Rule{Hits: is.Hits - was.Hits, Packets: is.Packets - was.Packets, Bytes: since(was.Bytes, is.Bytes)}})
		}
	}
	if len(b.hits) > MaxHits {
		slices.SortFunc(b.hits, func(x, y Hit) int {
			return cmp.Or(cmp.Compare(y.Hits, x.Hits), cmp.Compare(y.Packets, x.Packets), cmp.Compare(x.Slot, y.Slot))
		})
		for _, h := range b.hits[MaxHits:] {
			addRule(&b.otherHits, &h.Rule)
		}
		b.hits = b.hits[:MaxHits]
	}
	b.hits = slices.Clip(slices.Clone(b.hits))
	return b
}

// since is how far a counter went, also one that was cleared in between.
func since(before, after uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

func addRule(to, r *counter.Rule) {
	to.Hits += r.Hits
	to.Packets += r.Packets
	to.Bytes += r.Bytes
}
