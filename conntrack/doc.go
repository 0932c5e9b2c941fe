// Package conntrack is the flow table: which packets belong to a flow that the
// rules have allowed, in what state that flow is, and when it is over.
//
// A flow is one record of 128 bytes without pointers. All records lie in a slab that
// New allocates: memory is chosen at start, and the garbage collector has nothing to mark.
// The kernel backs the slab's pages as they are first used.
//
// A hash index leads to a record by two keys: that of the packets which began the flow,
// and that of the replies. Each key has the zone (attachment) where such packets come in.
//
// # Concurrency
//
// Every goroutine that carries packets owns one Worker. Lookup and Pass take no lock:
// they read the index with atomic loads, a record's key does not change while it can be
// found, and all that changes is atomic. Insert and End take the locks of two chains.
//
// The record of a flow that ended is used again only after every worker has called Quiesce
// or is parked. So a Flow stays the same flow for as long as a worker holds it.
//
// # Time
//
// The table has no clock: callers pass the coarse time as a Tick. A flow that has been
// idle for its timeout is absent from that tick on, before Expire frees it. Ticks are
// compared modulo 2^32, so Expire must visit each record at least every 248 days.
package conntrack
