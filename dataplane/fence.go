package dataplane

import "time"

// CarryUntil has the engine carry nothing from a moment of Clock on, whatever happens to whoever would have to stop it: a
// process that was stopped for a while finds the moment passed. Every worker looks once a burst, so one that is
// stopped within a burst still finishes that. Packets are dropped under packet.DropFenced. An engine that nobody
// fences carries for ever. Safe for concurrent use.
func (e *Engine) CarryUntil(moment time.Duration) { e.fence.Store(int64(moment)) }

// Clock is the engine's: monotonic, and unless Options say otherwise the same in all processes of the machine.
func (e *Engine) Clock() time.Duration { return e.clock() }

// unfenced is a moment that does not come.
const unfenced = 1<<63 - 1

// isFenced tells of a burst that may not be carried any more.
func (e *Engine) isFenced(now time.Duration) bool { return int64(now) >= e.fence.Load() }
