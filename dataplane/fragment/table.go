// Package fragment remembers the verdict on the first fragment of each datagram. Later fragments,
// which have no ports, share it. Nothing is reassembled.
//
// The first fragment reserves an entry under the datagram's Key, is judged like any packet, and
// leaves its Verdict there. A later fragment takes that verdict over if its bytes are new. An
// overlap poisons the datagram: nothing more of it is carried (RFC 5722). A later fragment
// without an entry is dropped, so a fault here loses fragments and lets none pass.
//
// The table is allocated once. A seeded hash leads to buckets of a few entries, each with its own
// lock: fragments of one datagram may come in on different workers. An entry lives for
// Options.Lifetime from its first packet; nothing extends that.
//
// When a bucket is full, complete or refused datagrams make room; otherwise the new datagram is
// refused. One zone has at most half of the entries that matter: a flood from one attachment
// leaves room for the others.
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
	// Max is the number of datagrams that are followed at a time; 0: 16,384. It is rounded
	// up to a power of two. Each takes about 200 bytes. One zone has at most half of them.
	Max int
	// Zones is the number of zones; 0: 1.
	Zones int
	// Lifetime is how long after its first packet a datagram is forgotten; 0: 2 s.
	Lifetime time.Duration
	// Hold is the number of later fragments that may wait for their first one, at most
	// MaxHold; 0: they are dropped. One of several zones has at most half of them, and one
	// datagram at most 64. New allocates a buffer of 64 KiB for each; the kernel backs what
	// is used.
	Hold int
}

const (
	defaultMax      = 16_384
	defaultLifetime = 2 * time.Second
	// MaxDatagrams is the largest Options.Max, MaxHold the largest Options.Hold.
	MaxDatagrams = 1 << 22
	MaxHold      = 4096
)

// Key is a datagram's identity: what all its fragments have in common (RFC 791, RFC 8200 section
// 4.5), and the zone where they come in.
type Key struct {
	Src, Dst packet.Addr
	ID       uint32
	Zone     uint16
	Proto    uint8 // packet.Fragment.Proto
}

// KeyOf is the key of a fragment that came in at a zone.
func KeyOf(p *packet.Packet, zone uint16) Key {
	return Key{Src: p.Src, Dst: p.Dst, ID: p.Fragment.ID, Zone: zone, Proto: p.Fragment.Proto}
}

// Verdict is the one on a datagram's first fragment.
type Verdict struct {
	// Drop is why it was dropped, or packet.NotDropped.
	Drop packet.Drop
	// InFlow: it was carried as part of the flow with key Flow, and later fragments are while
	// that flow lives. Related: it is an ICMP error that quotes the flow, not one of the
	// flow's packets.
	InFlow, Related bool
	Flow            conntrack.Key
	// To is the attachment that it went to; valid when it was not dropped.
	To uint16
	// Generation is the policy's that judged.
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
	stateDone           // complete; kept for ICMP errors that quote one of its fragments
	stateRefused        // the first fragment was dropped
	statePoisoned       // fragments contradict each other
)

// entry is one datagram. Its bucket's lock guards it.
type entry struct {
	key       Key
	state     state
	headerEnd uint16
	serial    uint32 // the reservation's, 0 before it; a late Decide finds another one
	expires   time.Duration
	coverage  coverage
	held      held
	verdict   Verdict
}

// counts reports whether the entry takes up room that others may need.
func (e *entry) counts() bool {
	return e.state == stateWaiting || e.state == stateJudging || e.state == stateOpen
}

// ways is the number of entries in a bucket. With half of all entries in use, fewer than one
// bucket in a hundred is full.
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
	zones    []atomic.Int64 // number of entries that count, by zone
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

// Lifetime is how long after its first packet a datagram is forgotten.
func (t *Table) Lifetime() time.Duration { return t.lifetime }

// Limit is the number of datagrams that the table can follow.
func (t *Table) Limit() int { return len(t.buckets) * ways }

// Datagrams is the number of datagrams that take up room: not refused and not complete. Some may
// be over already, see Expire.
func (t *Table) Datagrams() (n int64) {
	for i := range t.zones {
		n += t.zones[i].Load()
	}
	return n
}

// bucket returns k's bucket, locked, and the tag of its entries. It ignores the zone: Quoted finds
// a datagram wherever it came in.
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

// find returns k's bucket, locked, and the index of its live entry, or -1.
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

// take makes an entry for k in its locked bucket and returns its index, or -1 when there is no
// room. The entry replaces one that is over or dispensable.
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

// dispensable ranks an entry that may make room: the higher the sooner, 0 never. A refused
// datagram that is forgotten stays refused: its first fragment is missing.
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

// free forgets an entry and drops the frames that wait in it. The bucket is locked.
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

// Reserve makes room for the datagram that f, a first fragment, begins. The caller then judges f
// and calls Decide. A reason other than NotDropped means that f must not be judged:
// DropFragmentOverlap when the datagram has begun already, DropFragmentLimit when there is no
// room.
func (t *Table) Reserve(k *Key, f *packet.Fragment, now time.Duration) (Reservation, packet.Drop) {
	b, tag, way := t.find(k, now)
	defer b.mu.Unlock()
	if way >= 0 {
		switch e := &b.entries[way]; e.state {
		case stateWaiting:
			t.move(e, stateJudging)
		case stateDone, stateRefused: // another datagram uses the identification again
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

// poison makes the datagram's later fragments drop under why.
func (t *Table) poison(e *entry, why packet.Drop) {
	t.move(e, statePoisoned)
	e.verdict = Verdict{Drop: why}
}

// Decide leaves the verdict on a first fragment for the later ones. It returns those that have
// been waiting for it.
func (t *Table) Decide(r Reservation, v *Verdict) Held {
	r.bucket.mu.Lock()
	defer r.bucket.mu.Unlock()
	e := &r.bucket.entries[r.way]
	if e.serial != r.serial || e.state == stateFree {
		return Held{} // the judgement took longer than a datagram lives
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

// Also leaves a verdict for Quoted under a second key: that of the datagram as its receiver sees
// it. The entry does not count in its zone's share.
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

// Follow sets v to the verdict that f, a later fragment, shares. The result is NotDropped when
// there is one, even one that drops. Otherwise it is why there is none: DropFragmentNoFirst,
// DropFragmentHeader, DropFragmentOverlap or DropFragmentGaps.
//
// When the first fragment has not been judged yet and Options.Hold has room, waits is true and a
// copy of frame is kept for the caller of Decide.
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

// wait begins a datagram with a later fragment that overtook its first one.
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

// Quoted finds the verdict on a datagram that went to attachment to. An ICMP error from there
// quotes a fragment of it. The error does not say where the datagram came in: k.Zone is
// ignored, and of several datagrams the one of the lowest zone counts. Quoted changes nothing.
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

// Expire frees the datagrams that are over in the next buckets. Call it once in every interval: it
// comes round to each bucket five times in a datagram's life. A datagram that is over is
// absent at once, but counts in Datagrams and its zone's share until Expire frees it.
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
