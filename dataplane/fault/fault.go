// Package fault keeps a panic from ending the process where nothing that others use is half written. Where something may
// be, the process ends, and the next one goes on with its flows.
package fault

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Part is where a panic was.
type Part uint8

// The parts that go on after a panic.
const (
	Lane      Part = iota // a write to a slow receiver
	Expiry                // the search for flows whose timeout has passed
	Judgement             // of a flow, by a new policy
	Probe                 // of a load balancer's backend
	DenyLog               // a line about a denied packet
	Services              // an answer of the platform's services
	NumParts
)

// String is the part's label in metrics.
func (p Part) String() string {
	return [NumParts]string{"lane", "expiry", "judgement", "probe", "deny_log", "services"}[p]
}

const (
	// maxStack bounds what a log line shows of a stack, which ends at the panic's place.
	maxStack = 4 << 10
	// every is how often a part logs a panic: a sender may repeat what causes it.
	every = time.Minute
)

// Log counts panics and logs them. A nil Log does neither. Safe for concurrent use.
type Log struct {
	log    *slog.Logger
	now    func() time.Duration
	counts [NumParts]atomic.Uint64
	told   [NumParts]atomic.Int64 // when a panic was last logged; 0: never
}

// NewLog makes a Log of a monotonic clock.
func NewLog(log *slog.Logger, now func() time.Duration) *Log { return &Log{log: log, now: now} }

// Counts are the panics so far, by part.
func (l *Log) Counts() (n [NumParts]uint64) {
	if l == nil {
		return n
	}
	for p := range n {
		n[p] = l.counts[p].Load()
	}
	return n
}

// Caught notes a panic that its part has recovered from. Call it where recover was called: it logs the stack.
func (l *Log) Caught(p Part, fault any) {
	if l == nil {
		return
	}
	l.counts[p].Add(1)
	now, last := max(int64(l.now()), 1), l.told[p].Load()
	if last != 0 && now-last < int64(every) || !l.told[p].CompareAndSwap(last, now) {
		return
	}
	l.log.Error("nsgd goes on after a fault of its own: please report it", "part", p.String(), "panic", fmt.Sprint(fault), "stack", Stack())
}

// Try reports whether do has ended without a panic.
func (l *Log) Try(p Part, do func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		if fault := recover(); fault != nil {
			l.Caught(p, fault)
		}
	}()
	do()
	return true
}

// Stack is the goroutine's stack. The calls next to the panic come first.
func Stack() string {
	stack := debug.Stack()
	return string(stack[:min(len(stack), maxStack)])
}

// End ends the process if its caller panics, whoever would recover from that. Defer it where others use what is half
// written then.
func End() {
	if fault := recover(); fault != nil {
		end(fault)
	}
}

// EndIf is End where something may be half written, as halfWritten says. Else the panic goes on.
func EndIf(halfWritten func() bool) {
	if !halfWritten() {
		return
	}
	if fault := recover(); fault != nil {
		end(fault)
	}
}

func end(fault any) {
	text := fmt.Sprintf("%v\n\n%s", fault, debug.Stack())
	go panic(text)
	select {} // until the process has ended
}
