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

// traffic is what the last look has seen of a port's traffic.
type traffic struct {
	index           int
	out, in         uint64 // captured from the NIC and delivered to it
	lastOut, lastIn time.Time

	// The time since which the TUN device has got nothing though the NIC sent, and what was counted then.
	since           time.Time
	frames, handled uint64 // the NIC's, as the interface and the programs count them
	captured        uint64
	arrived         uint64 // read from the TUN device
}

// look notes what the counters of a port say now.
func (i *Interceptor) look(p *Port, l netlink.Link, c *counts) *traffic {
	now, before := i.now(), i.seen[p.Interface]
	t := traffic{index: l.Attrs().Index, out: c[capturedOut], in: c[delivered], since: now, handled: c[sent], captured: c[capturedOut]}
	t.frames = framesOf(p, l)
	if device, err := i.handle.LinkByName(p.Device); err == nil && device.Attrs().Statistics != nil {
		t.arrived = device.Attrs().Statistics.TxPackets
	}
	if before != nil && before.index == t.index {
		t.lastOut, t.lastIn = before.lastOut, before.lastIn
		if t.out != before.out {
			t.lastOut = now
		}
		if t.in != before.in {
			t.lastIn = now
		}
		unseen := t.frames-before.frames > t.handled-before.handled || t.captured != before.captured
		if t.arrived == before.arrived && unseen {
			t.since, t.frames, t.handled, t.captured = before.since, before.frames, before.handled, before.captured
		}
	}
	i.seen[p.Interface] = &t
	return &t
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
func (t *traffic) silence(p *Port, now time.Time) error {
	if now.Sub(t.since) < silenceAfter {
		return nil
	}
	return fmt.Errorf("its own counter has grown for %v or more, and no packet came to nsgd at %q: somebody takes frames before nsgd, or the programs drop them",
		silenceAfter, p.Device)
}

// trouble says what is wrong at a port whose interface is there.
func (i *Interceptor) trouble(p *Port, l netlink.Link, t *traffic) error {
	return errors.Join(i.ahead(l), t.silence(p, i.now()))
}

// absence says what has become of a port's interface that is missing; nil: it is not there.
func (i *Interceptor) absence(p *Port) error {
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
		if l, err := i.handle.LinkByName(p.Interface); err == nil {
			c := i.counted(uint32(l.Attrs().Index))
			trouble = i.trouble(p, l, i.look(p, l, &c))
		}
		i.say(p.Interface, trouble, tell)
	}
}

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
	if name == "" {
		tell(fmt.Errorf("intercept: %w", trouble))
		return
	}
	tell(&Trouble{name, trouble})
}
