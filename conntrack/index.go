package conntrack

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// index leads from a key's hash to records: it holds the heads of chains that run through
// the records' links. Readers need no lock and no retry: new entries go in front, and an
// entry that is taken out keeps its link until its record is used again. So a reader meets
// every entry that was there before it began and still is.
type index struct {
	heads []atomic.Uint32 // ref
	mask  uint64
	locks []sync.Mutex // a lock for every len(heads)/len(locks) chains
}

const maxLocks = 4096

// maxChain bounds what one packet can cost. There are two entries for each record and at
// least three heads, so a chain this long means that a sender knows the seed.
const maxChain = 64

func newIndex(maxFlows int) index {
	n := max(64, 1<<bits.Len(uint(3*maxFlows-1)))
	return index{heads: make([]atomic.Uint32, n), mask: uint64(n - 1), locks: make([]sync.Mutex, min(n, maxLocks))}
}

// ref names an entry: a record by one of its two keys.
//
// The tag is six bits of the key's hash and never 0. A reader passes over most entries of
// other keys without reading them. last says that no entry follows, so that not even the link
// is read. last stays true because entries are only added in front; it may be missing after
// entries behind were taken out.
//
//	bits 0-23 record, 24 direction, 25 last, 26-31 tag
type ref uint32

const (
	maxRecords = 1 << 24
	refLast    = 1 << 25
)

func tag(hash uint64) uint32 { return uint32(max(hash>>58, 1)) }

func newRef(f Flow, d Direction, hash uint64) ref {
	return ref(uint32(f) | uint32(d)<<24 | tag(hash)<<26)
}

func (e ref) flow() Flow           { return Flow(e & (maxRecords - 1)) }
func (e ref) direction() Direction { return Direction(e >> 24 & 1) }
func (e ref) tag() uint32          { return uint32(e >> 26) }

// find returns the flow that k belongs to, expired or not. At most one live record has a
// given key. depth is the number of entries passed over.
func (t *Table) find(k *Key, hash uint64) (f Flow, d Direction, depth int, ok bool) {
	want := tag(hash)
	e := ref(t.index.heads[hash&t.index.mask].Load())
	for e != 0 {
		if e.tag() != want && e&refLast != 0 {
			break
		}
		r := &t.records[e.flow()]
		d := e.direction()
		if e.tag() == want {
			same := r.matches(k, d)
			if d == Reply && r.marks&Translated != 0 {
				same = t.translations[e.flow()].matches(r, k)
			}
			if same && status(r.status.Load()).live() {
				return e.flow(), d, depth, true
			}
		}
		e = ref(r.links[d].Load())
		depth++
	}
	return 0, 0, depth, false
}

// lock takes the locks of two hashes' chains, which may be the same one. The order is that of
// the locks' numbers, whatever the order of the hashes: two workers never wait for each other.
func (x *index) lock(a, b uint64) {
	i, j := x.lockOf(a), x.lockOf(b)
	x.locks[min(i, j)].Lock()
	if i != j {
		x.locks[max(i, j)].Lock()
	}
}

func (x *index) unlock(a, b uint64) {
	i, j := x.lockOf(a), x.lockOf(b)
	x.locks[i].Unlock()
	if i != j {
		x.locks[j].Unlock()
	}
}

func (x *index) lockOf(hash uint64) uint64 { return hash & x.mask & uint64(len(x.locks)-1) }

// link puts an entry in front of its chain; the chain's lock is held.
func (t *Table) link(f Flow, d Direction, hash uint64) {
	head := &t.index.heads[hash&t.index.mask]
	first := head.Load()
	t.records[f].links[d].Store(first)
	e := newRef(f, d, hash)
	if first == 0 {
		e |= refLast
	}
	head.Store(uint32(e))
}

// unlink takes an entry out of its chain; the chain's lock is held.
func (t *Table) unlink(f Flow, d Direction, hash uint64) {
	at := &t.index.heads[hash&t.index.mask]
	for e := ref(at.Load()); e != 0; e = ref(at.Load()) {
		link := &t.records[e.flow()].links[e.direction()]
		if e.flow() == f && e.direction() == d {
			at.Store(link.Load())
			return
		}
		at = link
	}
}

// hashes are those of a flow's two keys.
func (t *Table) hashes(f Flow) (a, b uint64) {
	original, reply := t.keys(f)
	return t.secrets.hash(&original), t.secrets.hash(&reply)
}

// unpublish takes both entries of a flow that has ended out of the index; the locks of its hashes are held.
func (t *Table) unpublish(f Flow, a, b uint64) {
	t.unlink(f, Original, a)
	if original, reply := t.keys(f); original != reply {
		t.unlink(f, Reply, b)
	}
}
