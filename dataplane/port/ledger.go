package port

import (
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/tun"
)

// Ledger keeps what is counted for attachments, also for those that are gone for now. It is not safe for concurrent use.
type Ledger struct {
	// Counters are the workers'.
	Counters counter.Sets
	// Store keeps the ledger beyond the process; nil: it ends with it.
	Store *continuity.Store

	departed counter.Departed
	numbers  counter.Numbers
}

// Resume makes the counters of the last process's attachments those of attachments that are gone. Call it first.
func (l *Ledger) Resume() {
	for identity, n := range l.Store.Cells() {
		if !l.numbers.Claim(n) {
			l.Store.ForgetCell(identity)
			continue
		}
		counted := l.Counters.ResumeTally(n)
		counted.SetBefore(l.Store.KernelDrops(identity))
		l.Leave(identity, counted)
	}
}

// Leave keeps the counters of an attachment that is gone.
func (l *Ledger) Leave(identity string, counted counter.Tally) {
	if forgotten := l.departed.Keep(identity, counted); forgotten.Cells != nil {
		l.numbers.Give(forgotten.Number)
		l.Store.ForgetCell(forgotten.Identity)
	}
}

// Port is that of an attachment that comes, or comes back.
func (l *Ledger) Port(identity string) Port {
	counted := l.departed.Take(identity)
	if counted.Cells == nil {
		counted = l.Counters.NewTally(l.numbers.Take())
		l.Store.SetCell(identity, counted.Number)
	}
	return Port{Tally: counted, Identity: identity}
}

// SetDevice gives a port another device.
func (l *Ledger) SetDevice(p *Port, d tun.Device) {
	if p.Device == d {
		return
	}
	p.Succeed(drops(p.Device), drops(d))
	p.Device = d
	receive, transmit := p.Before()
	l.Store.SetKernelDrops(p.Identity, receive, transmit)
}
