package probe

import (
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/dataplane/topology"
)

// Told is what is known of a backend that another host probes.
type Told struct {
	Up bool
	// Host has its network interface; empty: no host has.
	Host string
	// Unprobed: that host probes nothing, so that its backends count as up.
	Unprobed bool
}

// other is a backend that is attached to another host, or to none.
type other struct {
	probe *topology.Probe
	known bool // a host has told of it, now or to an earlier process; before, it counts as up
	told  Told
	since time.Time
}

// share keeps the probes whose backends other hosts probe, and returns those of this host. What was known of a backend
// stays, whichever host has it next. p.mu is held.
func (p *Prober) share(probes []*topology.Probe) (own []*topology.Probe) {
	if !p.options.Shared {
		return probes
	}
	before := p.others
	p.others = make(map[string]*other)
	for _, t := range probes {
		if t.Here() {
			own = append(own, t)
			continue
		}
		o := before[t.Identity()]
		if o == nil {
			o = &other{told: Told{Up: true}, since: time.Now()}
			if up, since, known := p.options.Memory.Find(t.Identity()); known {
				o.known, o.told.Up, o.since = true, up, since
			}
		}
		o.probe = t
		t.Set(o.told.Up)
		p.others[t.Identity()] = o
		p.hear(o)
	}
	return own
}

// Hear has other hosts say what they know of their backends. It asks again at each Follow. told says false where
// nobody has told anything yet.
func (p *Prober) Hear(told func(*topology.Probe) (Told, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = told
	for _, o := range p.others {
		p.hear(o)
	}
}

// hear takes over what other hosts know of a backend. p.mu is held.
func (p *Prober) hear(o *other) {
	if p.told == nil {
		return
	}
	t, known := p.told(o.probe)
	if !known {
		return
	}
	changed := t.Up != o.told.Up
	o.told = t
	if changed {
		o.since = time.Now()
		o.probe.Set(t.Up)
	}
	if changed || !o.known {
		p.options.Memory.Set(o.probe.Identity(), t.Up, o.since)
	}
	o.known = true
	if !changed {
		return
	}
	log := p.options.Log.With("probe", o.probe.Name, "backend", netip.AddrPortFrom(o.probe.Address, o.probe.Port), "host", t.Host)
	if t.Up {
		log.Info("backend up at another host")
	} else {
		log.Warn("backend down at another host")
	}
}

// health is what is known of it.
func (o *other) health() Health {
	h := Health{Probe: o.probe, Asked: o.known, Up: o.told.Up, Since: o.since, Host: o.told.Host}
	switch {
	case !o.known:
		h.Reason = "its host has not told yet"
	case o.told.Unprobed:
		h.Reason = "its host sends no health probes"
	case o.told.Up:
	case o.told.Host == "":
		h.Reason = "no host has its network interface"
	default:
		h.Reason = "its host says that it is down"
	}
	return h
}

// Answering are the identities of this host's probes that are answered. Those that arrive are among them, as their host
// says of them; nil: none does.
func (p *Prober) Answering(arrives func(*topology.Probe) bool) (identities []string) {
	for _, h := range p.Health() {
		if h.Up && h.Probe.Here() {
			identities = append(identities, h.Probe.Identity())
		}
	}
	if arrives == nil {
		return identities
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for identity, o := range p.others {
		if up, known := o.answered(); up && known && arrives(o.probe) {
			identities = append(identities, identity)
		}
	}
	return identities
}

// answered tells what its host's own probes say of it, if they do.
func (o *other) answered() (up, known bool) {
	return o.told.Up, o.known && o.told.Host != "" && !o.told.Unprobed
}

// Sends reports that it sends probes.
func (p *Prober) Sends() bool { return p.options.Socket != nil }
