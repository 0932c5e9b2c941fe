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
