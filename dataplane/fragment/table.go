// Package fragment remembers what became of the first fragment of each datagram, so
// that the later ones, which have no ports, follow it. Nothing is reassembled.
//
// A datagram is known by its Key. Its first fragment reserves an entry, is judged
// like any packet, and leaves its Verdict there; a later fragment takes that
// verdict over, as long as it is where no other fragment of the datagram was. An
// overlap poisons the datagram: nothing more of it is carried (RFC 5722). What has no
// entry is dropped, so whatever goes wrong here loses fragments and lets none pass.
//
// The table is allocated once: buckets of a few entries, found by a seeded hash and
// each under a lock of its own, so that fragments of one datagram may come in on
// different workers. An entry lives for Options.Lifetime from its first packet and
// nothing extends that. When a bucket has no room, entries go that nobody misses (complete
// or refused datagrams), else the new datagram is refused. One zone has at most half of the
// entries that matter, so that a flood from one attachment leaves room for the others.
//
// With Options.Hold, later fragments that overtook their first one wait for it.
package fragment

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Options configure a Table. The zero value of every field is usable.
type Options struct {
	// Max is the number of datagrams that are followed at a time; 0: 16,384. It
	// is rounded up to a power of two. Each takes about 200 bytes. One zone has half
	// of them at most.
	Max int
	// Zones is the number of zones; 0: 1.
	Zones int
	// Lifetime is how long after its first packet a datagram is forgotten; 0: 2 s.
	Lifetime time.Duration
	// Hold is the number of later fragments that may wait for their first one; 0: none,
	// they are dropped. At most MaxHold, half of them of one zone if there are several, and
	// maxHeld of one datagram. The buffers, of 64 KiB each, are allocated here; the
	// kernel backs what is used of them.
	Hold int
}

const (
	defaultMax      = 16_384
	defaultLifetime = 2 * time.Second
	// MaxDatagrams is the largest Options.Max, MaxHold the largest Options.Hold.
	MaxDatagrams = 1 << 22
	MaxHold      = 4096
)

// Key is a datagram's identity: what all its fragments have in common (RFC 791, RFC
// 8200 section 4.5), and the zone where they come in.
type Key struct {
	Src, Dst packet.Addr
	ID       uint32
	Zone     uint16
	Proto    uint8 // packet.Fragment's
}

// KeyOf is the key of a fragment that came in at a zone.
func KeyOf(p *packet.Packet, zone uint16) Key {
	return Key{Src: p.Src, Dst: p.Dst, ID: p.Fragment.ID, Zone: zone, Proto: p.Fragment.Proto}
}

// Verdict is what became of a datagram's first fragment.
type Verdict struct {
	// Drop is why it was dropped, or packet.NotDropped.
	Drop packet.Drop
	// InFlow says that it was carried as part of the flow with key Flow: later fragments
	// are as long as that lives. Related says that it only quotes the flow, as an ICMP
	// error does, and is not one of its packets.
	InFlow, Related bool
	Flow            conntrack.Key
	// To is the attachment that it went to; valid when it was not dropped.
	To uint16
	// Generation is that of the policy that the fragment met.
	Generation uint64
	// Slots are the rules that decided. Not used with InFlow, where the flow knows them.
	Slots conntrack.Slots
}

type state uint8

const (
	stateFree     state = iota
	stateWaiting        // later fragments wait for the first
	stateJudging        // the first fragment is being judged
	stateOpen           // later fragments follow
	stateDone           // complete; kept for ICMP errors that quote a fragment of it
	stateRefused        // the first fragment was dropped
	statePoisoned       // fragments contradict each other
)

// entry is one datagram; its bucket's lock guards it.
type entry struct {
	key       Key
	state     state
	headerEnd uint16
	serial    uint32 // of the reservation, 0 before it; a late Decide finds another
	expires   time.Duration
	coverage  coverage
	held      held
	verdict   Verdict
}

// counts reports whether the entry takes up room that others may need.
func (e *entry) counts() bool {
	return e.state == stateWaiting || e.state == stateJudging || e.state == stateOpen
}

// ways is the number of entries in a bucket. With half of all in use, fewer than
// one bucket in a hundred is full.
const ways = 16

type bucket struct {
	mu      sync.Mutex
	tags    [ways]uint32 // of the entries' hashes; 0: free
	entries [ways]entry
}

// Table is safe for concurrent use.
type Table struct {
	buckets  []bucket
	seed     maphash.Seed
	lifetime time.Duration
	zoneMax  int64
	zones    []atomic.Int64 // entries that count, by zone
	serials  atomic.Uint32
	holds    holds
	cursor   atomic.Uint32 // next bucket that Expire looks at
}

// New makes a table with all its memory.
func New(o Options) (*Table, error) {
	for _, f := range []struct {
		name              string
		value, low, limit int
	}{{"max", o.Max, 0, MaxDatagrams}, {"hold", o.Hold, 0, MaxHold}, {"zones", o.Zones, 0, 1 << 16}} {
		if f.value < f.low || f.value > f.limit {
			return nil, fmt.Errorf("fragment: %s: %d: must be between %d and %d", f.name, f.value, f.low, f.limit)
		}
	}
	if o.Lifetime < 0 {
		return nil, fmt.Errorf("fragment: lifetime: %v: must not be negative", o.Lifetime)
	}
	if o.Max == 0 {
		o.Max = defaultMax
	}
	if o.Lifetime == 0 {
		o.Lifetime = defaultLifetime
	}
	n := 1 << bits.Len(uint(max(o.Max, ways)/ways-1))
	t := &Table{
		buckets: make([]bucket, n), seed: maphash.MakeSeed(), lifetime: o.Lifetime,
		zoneMax: int64(n * ways / 2), zones: make([]atomic.Int64, max(o.Zones, 1)),
	}
	t.holds.init(o.Hold, len(t.zones))
	return t, nil
}

// Limit is the number of datagrams that the table can follow.
func (t *Table) Limit() int { return len(t.buckets) * ways }

// Datagrams is the number of datagrams that take up room: the first fragment is being
// judged or was allowed, or later ones wait for it, and the end was not seen. Some may be over
// already, see Expire.
func (t *Table) Datagrams() (n int64) {
	for i := range t.zones {
		n += t.zones[i].Load()
	}
	return n
}

// bucket returns k's bucket, locked, and the tag of its entries. The zone has no part in
// it, so that Quoted finds a datagram wherever it came in.
func (t *Table) bucket(k *Key) (b *bucket, tag uint32) {
	var bytes [40]byte
	binary.LittleEndian.PutUint64(bytes[0:], k.Src.Hi)
	binary.LittleEndian.PutUint64(bytes[8:], k.Src.Lo)
	binary.LittleEndian.PutUint64(bytes[16:], k.Dst.Hi)
	binary.LittleEndian.PutUint64(bytes[24:], k.Dst.Lo)
	binary.LittleEndian.PutUint64(bytes[32:], uint64(k.ID)<<8|uint64(k.Proto))
	h := maphash.Bytes(t.seed, bytes[:])
	b, tag = &t.buckets[h&uint64(len(t.buckets)-1)], uint32(h>>32)|1
	b.mu.Lock()
	return b, tag
}

// find returns k's bucket, locked, and the place of its live entry, or -1.
func (t *Table) find(k *Key, now time.Duration) (b *bucket, tag uint32, way int) {
	b, tag = t.bucket(k)
	for i := range b.tags {
		if b.tags[i] != tag || b.entries[i].key != *k {
			continue
		}
		if now >= b.entries[i].expires {
			t.free(b, i)
			return b, tag, -1
		}
		return b, tag, i
	}
	return b, tag, -1
}

// take makes an entry for k in its locked bucket, in place of one that is over or that
// nobody misses, and returns its place, or -1 when there is no room.
func (t *Table) take(b *bucket, tag uint32, k *Key, s state, now time.Duration) int {
	way, best := -1, 0
	for i := range b.entries {
		if b.entries[i].state != stateFree && now >= b.entries[i].expires {
			t.free(b, i)
		}
		if r := b.entries[i].dispensable(); r > best {
			way, best = i, r
		}
	}
	if way < 0 {
		return -1
	}
	if t.zones[k.Zone].Add(1) > t.zoneMax {
		t.zones[k.Zone].Add(-1)
		return -1
	}
	t.free(b, way)
	b.tags[way] = tag
	b.entries[way] = entry{key: *k, state: s, expires: now + t.lifetime}
	return way
}

// dispensable ranks an entry as room for another: the higher the better, 0 not at all.
// A refused datagram that is forgotten stays refused, for want of a first fragment.
func (e *entry) dispensable() int {
	switch e.state {
	case stateFree:
		return 3
	case stateDone:
		return 2
	case stateRefused, statePoisoned:
		return 1
	}
	return 0
}

// free forgets an entry and drops what it holds; the bucket is locked.
func (t *Table) free(b *bucket, way int) {
	e := &b.entries[way]
	t.move(e, stateFree)
	t.holds.drop(&e.held, e.key.Zone)
	b.tags[way] = 0
}

// move changes an entry's state and keeps its zone's count in step.
func (t *Table) move(e *entry, to state) {
	counted := e.counts()
	e.state = to
	if counted && !e.counts() {
		t.zones[e.key.Zone].Add(-1)
	}
}

// Reservation is a place in the table for the verdict of a first fragment.
type Reservation struct {
	bucket *bucket
	way    int
	serial uint32
}

// Reserve makes room for the datagram that f, a first fragment, begins. The caller
// judges f and then calls Decide. It returns why f must not be judged at all:
// DropFragmentOverlap when the datagram has begun already, DropFragmentLimit when there
// is no room.
func (t *Table) Reserve(k *Key, f *packet.Fragment, now time.Duration) (Reservation, packet.Drop) {
	b, tag, way := t.find(k, now)
	defer b.mu.Unlock()
	if way >= 0 {
		switch e := &b.entries[way]; e.state {
		case stateWaiting:
			t.move(e, stateJudging)
		case stateDone, stateRefused: // the identification is used again
			t.free(b, way)
			way = -1
		default:
			t.poison(e, packet.DropFragmentOverlap)
			return Reservation{}, packet.DropFragmentOverlap
		}
	}
	if way < 0 {
		if way = t.take(b, tag, k, stateJudging, now); way < 0 {
			return Reservation{}, packet.DropFragmentLimit
		}
	}
	e := &b.entries[way]
	e.serial, e.headerEnd = t.serials.Add(1), f.HeaderEnd
	e.coverage.add(f)
	return Reservation{b, way, e.serial}, packet.NotDropped
}

// poison lets nothing more of a datagram pass.
func (t *Table) poison(e *entry, why packet.Drop) {
	t.move(e, statePoisoned)
	e.verdict = Verdict{Drop: why}
}

// Decide leaves the verdict of a first fragment for the later ones, and returns those
// that have been waiting for it.
func (t *Table) Decide(r Reservation, v *Verdict) Held {
	r.bucket.mu.Lock()
	defer r.bucket.mu.Unlock()
	e := &r.bucket.entries[r.way]
	if e.serial != r.serial || e.state == stateFree {
		return Held{} // it took longer than a datagram lives
	}
	waiting := e.held.release(e.key.Zone)
	if e.state != stateJudging { // poisoned meanwhile
		return waiting
	}
	e.verdict = *v
	if v.Drop != packet.NotDropped {
		t.move(e, stateRefused)
	} else {
		t.move(e, stateOpen)
	}
	return waiting
}

// Also leaves a verdict under another key, that of the datagram as its receiver sees it, for Quoted
// alone. It takes no room that others may need.
func (t *Table) Also(k *Key, v *Verdict, now time.Duration) {
	b, tag, way := t.find(k, now)
	defer b.mu.Unlock()
	if way < 0 {
		if way = t.take(b, tag, k, stateDone, now); way < 0 {
			return
		}
		t.zones[k.Zone].Add(-1) // take counted it
	}
	if e := &b.entries[way]; e.state == stateDone {
		e.verdict = *v
	}
}

// Follow finds the verdict that f, a later fragment, shares, and sets v to it. The
// result is why f has none: DropFragmentNoFirst, DropFragmentHeader,
// DropFragmentOverlap or DropFragmentGaps. It is NotDropped when f follows,
// also into a verdict that drops.
//
// When its first fragment has not been seen, frame is kept for the caller of Decide if
// Options.Hold has room, and waits is true.
func (t *Table) Follow(k *Key, f *packet.Fragment, frame []byte, now time.Duration, v *Verdict) (drop packet.Drop, waits bool) {
	b, tag, way := t.find(k, now)
	defer b.mu.Unlock()
	if way < 0 {
		return t.wait(b, tag, k, frame, now)
	}
	e := &b.entries[way]
	switch e.state {
	case stateDone:
		return packet.DropFragmentNoFirst, false
	case stateWaiting, stateJudging:
		if t.holds.keep(&e.held, frame, k.Zone) {
			return packet.NotDropped, true
		}
		return packet.DropFragmentNoFirst, false
	case stateRefused, statePoisoned:
		*v = e.verdict
		return packet.NotDropped, false
	}
	if f.Start < e.headerEnd {
		drop = packet.DropFragmentHeader
	} else {
		drop = e.coverage.add(f)
	}
	switch drop {
	case packet.NotDropped:
		*v = e.verdict
		if e.coverage.complete() {
			t.move(e, stateDone)
		}
	case packet.DropFragmentGaps:
	default:
		t.poison(e, drop)
	}
	return drop, false
}

// wait keeps the first of a datagram's later fragments that overtook its first one.
func (t *Table) wait(b *bucket, tag uint32, k *Key, frame []byte, now time.Duration) (packet.Drop, bool) {
	if t.holds.full(k.Zone) {
		return packet.DropFragmentNoFirst, false
	}
	way := t.take(b, tag, k, stateWaiting, now)
	if way < 0 {
		return packet.DropFragmentNoFirst, false
	}
	if !t.holds.keep(&b.entries[way].held, frame, k.Zone) { // another worker took the last
		t.free(b, way)
		return packet.DropFragmentNoFirst, false
	}
	return packet.NotDropped, true
}

// Quoted finds the verdict of a datagram that went to attachment to, of which an ICMP
// error from there quotes a fragment. Where the datagram came in is not known: k.Zone
// means nothing, and of several datagrams that of the lowest zone counts. It changes nothing.
func (t *Table) Quoted(k *Key, to uint16, now time.Duration, v *Verdict) bool {
	b, tag := t.bucket(k)
	defer b.mu.Unlock()
	want, found := *k, false
	var zone uint16
	for i := range b.entries {
		e := &b.entries[i]
		want.Zone = e.key.Zone
		if b.tags[i] != tag || e.key != want || now >= e.expires || e.verdict.To != to ||
			e.state != stateOpen && e.state != stateDone || found && zone < e.key.Zone {
			continue
		}
		*v, zone, found = e.verdict, e.key.Zone, true
	}
	return found
}

// Expire frees what is over among the next buckets: as many of all as interval is of
// a fifth of a datagram's life. What is over is absent before that, but until then counts
// in Datagrams and in its zone's share. Call it once in every interval.
func (t *Table) Expire(now, interval time.Duration) {
	n := len(t.buckets)
	if fifth := t.lifetime / 5; interval < fifth {
		n = int(int64(n)*int64(interval)/int64(fifth)) + 1
	}
	for range n {
		b := &t.buckets[int(t.cursor.Add(1)-1)%len(t.buckets)]
		b.mu.Lock()
		for i := range b.entries {
			if b.entries[i].state != stateFree && now >= b.entries[i].expires {
				t.free(b, i)
			}
		}
		b.mu.Unlock()
	}
}
