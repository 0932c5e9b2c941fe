// Package conntrack is the flow table: which packets belong to a flow that the
// rules have allowed, in what state that flow is, and when it is over.
//
// A flow is one 128-byte record without pointers in a slab that is allocated
// once, so the garbage collector has nothing to mark and memory is chosen at
// start. The kernel backs the slab's pages as they are first used. A hash index
// leads to a record by two keys, that of the packets which began the flow
// and that of the replies, each with the zone (attachment) where such packets
// come in.
//
// # Concurrency
//
// Every goroutine that carries packets owns one Worker. Lookup and Pass take no
// lock: chains of the index are read with atomic loads, a record's key does not
// change while it can be found, and whatever does change is atomic. Insert and
// end take the locks of the two chains concerned. A record whose flow ended
// is used again only after every worker has called Quiesce (or is parked), so a
// Flow stays the flow it was for as long as the worker holds it.
//
// # Time
//
// The table has no clock. Callers pass the coarse time as a Tick; a flow that has
// been idle for its timeout is absent from that tick on, whether or not Expire
// has come by to free it. Ticks are compared modulo 2^32, which holds as long as
// Expire visits each record at least every 248 days.
package conntrack
