package counter

import "slices"

// KernelDrops is what the kernel has dropped at the devices of an attachment.
type KernelDrops struct {
	Receive  uint64 // found the queue to the worker full
	Transmit uint64 // were refused behind the device
	Known    bool   // the others are valid
}

// Tally is what is counted for an attachment, whichever devices it has had.
type Tally struct {
	Cells []*Cell // by worker
	// Number of the cells; see Set.NewCell.
	Number int
	// before is what the kernel has dropped at earlier devices, less what it had dropped at this one before it was
	// the attachment's.
	before KernelDrops
}

// All is what was dropped at every device of the attachment; now is at the one that it has.
func (t *Tally) All(now KernelDrops) KernelDrops {
	return KernelDrops{now.Receive + t.before.Receive, now.Transmit + t.before.Transmit, now.Known}
}

// Succeed counts on when the attachment gets another device: was is at the one before, is at the new one.
func (t *Tally) Succeed(was, is KernelDrops) {
	t.before.Receive += was.Receive - is.Receive
	t.before.Transmit += was.Transmit - is.Transmit
}

// Before is what the kernel has dropped at earlier devices, to be taken up by SetBefore in a later process.
func (t *Tally) Before() (receive, transmit uint64) { return t.before.Receive, t.before.Transmit }

// SetBefore takes up what Before gave.
func (t *Tally) SetBefore(receive, transmit uint64) {
	t.before = KernelDrops{Receive: receive, Transmit: transmit}
}

// maxDeparted bounds the attachments that are gone and whose counters are kept.
const maxDeparted = 4096

// Departed are the counters of attachments that are gone, by identity. The zero value has none.
type Departed struct {
	tallies map[string]Tally
	order   []string // the one that left first comes first
}

// Forgotten are counters that nobody keeps any more.
type Forgotten struct {
	Identity string
	Tally
}

// Keep keeps the counters of an attachment that goes. It returns those that are forgotten for that; without
// Cells: none.
func (d *Departed) Keep(identity string, counted Tally) (forgotten Forgotten) {
	if len(d.order) == maxDeparted {
		forgotten = Forgotten{d.order[0], d.tallies[d.order[0]]}
		delete(d.tallies, forgotten.Identity)
		d.order = d.order[1:]
	}
	if d.tallies == nil {
		d.tallies = map[string]Tally{}
	}
	d.tallies[identity] = counted
	d.order = append(d.order, identity)
	return forgotten
}

// Take returns the counters of an attachment that comes back, or empty ones.
func (d *Departed) Take(identity string) Tally {
	counted, back := d.tallies[identity]
	if back {
		delete(d.tallies, identity)
		d.order = slices.DeleteFunc(d.order, func(other string) bool { return other == identity })
	}
	return counted
}
