package intercept

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// silenceAfter is how long an interface may send while nothing of it reaches nsgd.
const silenceAfter = 30 * time.Second

// Trouble is what Watch tells of an interface that is not as it should be. Status shows it as long as it lasts.
type Trouble struct {
	Interface string
	Err       error
}

// Error implements error.
func (t *Trouble) Error() string {
	return fmt.Sprintf("intercept: interface %q: %v", t.Interface, t.Err)
}

// Unwrap implements what errors.Is asks.
func (t *Trouble) Unwrap() error { return t.Err }

// tally is what is counted at a port.
type tally struct {
	frames    uint64 // the NIC's, by the interface's own count
	handled   uint64 // the NIC's, by the programs' count
	captured  uint64 // of these, what went to the TUN device
	arrived   uint64 // what nsgd has read there
	delivered uint64 // to the NIC
}

// traffic is what the last look has seen of a port's traffic.
type traffic struct {
	index           int
	seen            tally
	lastOut, lastIn time.Time

	// When and with which counters nothing was missed for the last time, and when the NIC sent after that.
	whole     time.Time
	atWhole   tally
	lastFrame time.Time
}

// look notes what the counters of a port say now.
func (i *Interceptor) look(p *Port, l netlink.Link, c *counts) *traffic {
	now, before := i.now(), i.seen[p.String()]
	seen := tally{frames: framesOf(p, l), handled: c[sent], captured: c[capturedOut], delivered: c[delivered]}
	if device, err := i.handle.LinkByName(p.Device); err == nil && device.Attrs().Statistics != nil {
		seen.arrived = device.Attrs().Statistics.TxPackets
	}
	t := &traffic{index: l.Attrs().Index, seen: seen, whole: now, atWhole: seen, lastFrame: now}
	i.seen[p.String()] = t
	if before == nil || before.index != t.index {
		return t
	}
	t.lastOut, t.lastIn = before.lastOut, before.lastIn
	if seen.captured != before.seen.captured {
		t.lastOut = now
	}
	if seen.delivered != before.seen.delivered {
		t.lastIn = now
	}
	w := &before.atWhole
	missed := seen.frames-w.frames > seen.handled-w.handled || seen.captured != w.captured
	if seen.arrived == w.arrived && missed {
		t.whole, t.atWhole, t.lastFrame = before.whole, *w, before.lastFrame
		if seen.frames != before.seen.frames {
			t.lastFrame = now
		}
	}
	return t
}

// framesOf counts what the NIC has sent, by the interface's own count.
func framesOf(p *Port, l netlink.Link) uint64 {
	s := l.Attrs().Statistics
	switch {
	case s == nil:
		return 0
	case p.Host:
		return s.TxPackets
	}
	return s.RxPackets
}

// silence says that nothing of what the NIC sends reaches nsgd.
func (t *traffic) silence(p *Port) error {
	if t.lastFrame.Sub(t.whole) < silenceAfter {
		return nil
	}
	return fmt.Errorf("its own counter has grown for %v or more, and no packet came to nsgd at %q: somebody takes frames before nsgd, or the programs drop them",
		silenceAfter, p.Device)
}

// trouble says what is wrong at a port whose interface is there.
func (i *Interceptor) trouble(p *Port, l netlink.Link, t *traffic) error {
	return errors.Join(i.ahead(l), i.unfit(p, l), t.silence(p))
}

// absence says what has become of a port's interface that is missing; nil: it is not there.
func (i *Interceptor) absence(p *Port) error {
	if p.Interface == "" {
		return nil // search says why it is not found
	}
	for index, name := range i.names {
		if name != p.Interface {
			continue
		}
		if l, err := i.handle.LinkByIndex(index); err == nil {
			return fmt.Errorf("it is called %q now: it is closed until it has its name again or the attachment is gone", l.Attrs().Name)
		}
	}
	if i.moved[p.Interface] {
		return errors.New("it was moved to another network namespace, where nothing of nsgd is: it is open there")
	}
	return nil
}

// review tells what has become wrong since the last review.
func (i *Interceptor) review(tell func(error)) {
	for n := range i.ports {
		p := &i.ports[n]
		trouble := i.absence(p)
		if l, err := i.link(p); err == nil {
			c := i.counted(uint32(l.Attrs().Index))
			trouble = i.trouble(p, l, i.look(p, l, &c))
		}
		i.say(p.String(), trouble, tell)
	}
}

// ofTables stands for the tables of nft where say has no interface. No interface has a space in its name.
const ofTables = "tables of nft"

// say tells of a trouble once; nil: it is over. Without an interface it is nsgd that failed.
func (i *Interceptor) say(name string, trouble error, tell func(error)) {
	if trouble == nil {
		delete(i.told, name)
		return
	}
	text := trouble.Error()
	if i.told[name] == text {
		return
	}
	i.told[name] = text
	if name == "" || name == ofTables {
		tell(fmt.Errorf("intercept: %w", trouble))
		return
	}
	tell(&Trouble{name, trouble})
}
