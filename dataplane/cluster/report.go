package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Status is how a host of a cluster does.
type Status struct {
	Host string
	// Connected says that etcd answers, and Error why it does not.
	Connected bool
	Error     string
	// Registered says that the host has a lease and its name. Carries says for how long it may still carry; negative:
	// it does not. With GoOn it carries anyhow.
	Registered bool
	Carries    time.Duration
	GoOn       bool
	// Generation is what it carries, Current what etcd says is current; 0: none.
	Generation, Current uint64
	// Offered is the generation on offer; 0: none. Refused says why this host refuses one.
	Offered uint64
	Refused *Refusal
	// NICs are attached. Waiting are those that another host has, with its name; empty: nobody has claimed them yet.
	NICs    []string
	Waiting map[string]string
	Faults  []string
	// Reaches counts the network interfaces of other hosts in the placement that the daemon follows.
	Reaches int
	// Hosts and Claims are those of the whole cluster.
	Hosts, Claims int
	// Moves count the moves that this host took part in, by outcome: arrived, left, refused or failed.
	Moves map[string]uint64
}

// record is what the host says of itself to all others.
func (a *Agent) record() *HostRecord {
	r := &HostRecord{Underlay: a.Underlay, Port: a.Port, Version: a.Version, Control: a.Control, Internet: a.Internet != nil && a.Internet(), Probes: a.Health != nil,
		Lease: int64(a.Lease / time.Second), Mover: a.moving.mover}
	if len(a.moving.states) > 0 {
		r.Moves = maps.Clone(a.moving.states)
	}
	if a.MTU != nil {
		r.MTU = a.MTU()
	}
	if a.Gateways != nil {
		r.Gateways = a.Gateways()
	}
	return r
}

// text is a record as it is written. Moves, which others can have a host say, are left out when it is too long: nobody could
// read the record then, and the host would be gone. The error says so.
func (r *HostRecord) text() (text string, err error) {
	if text = encode(r); len(text) > maxRecord {
		err = fmt.Errorf("what this host has to say takes %d bytes: at most %d: moves are left out", len(text), maxRecord)
		r.Moves = nil
		text = encode(r)
	}
	return text, err
}

// state is what the host reports.
func (a *Agent) state() *Report {
	r := &Report{Generation: number(a.carrying), Committed: number(a.committed), Offer: a.tried, Prepared: number(a.offered), Refused: a.refused, Faults: slices.Concat(a.faults, a.unplaced)}
	r.Faults = r.Faults[:min(len(r.Faults), maxFaults)]
	if a.committed != nil {
		r.Bundle = a.committed.Bundle
	}
	return r
}

// tell tells etcd what has changed about this host.
func (a *Agent) tell(ctx context.Context, epoch int64) {
	text, err := a.record().text()
	if err != nil {
		a.fault(err)
	}
	a.write(ctx, epoch, "saying what this host is", a.Store.keys.host(a.Host), text, &a.wroteRecord)
	a.write(ctx, epoch, "reporting", a.Store.keys.report(a.Host), encode(a.state()), &a.wroteReport)
}

// written is what a host has written to etcd, by a registration.
type written struct {
	text  string
	epoch int64
}

// write has etcd hold a text under the host's lease, unless it does already. It does nothing without the registration.
func (a *Agent) write(ctx context.Context, epoch int64, what, key, text string, last *written) {
	next := written{text, epoch}
	lease, now, _, _ := a.session.now()
	if epoch == 0 || now != epoch || *last == next {
		return
	}
	r, err := a.Store.commit(ctx, what, []clientv3.Cmp{same(a.Store.keys.host(a.Host), epoch)}, clientv3.OpPut(key, text, clientv3.WithLease(lease)))
	if isLeaseGone(err) {
		a.session.gone()
	}
	switch {
	case err != nil: // it may be there all the same
		*last = written{}
		a.fault(err)
	case r.Succeeded:
		*last = next
	}
}

// place publishes where everything is, if that has changed.
func (a *Agent) place(ctx context.Context, view *View) {
	a.longestLease = a.Lease
	for _, h := range view.Hosts {
		a.longestLease = max(a.longestLease, min(time.Duration(h.Lease)*time.Second, MaxLease))
	}
	// Without a registration this host was away, and others may have been, too: who is missing may come back.
	calm := view.Hosts[a.Host] == nil || a.Clock() < max(a.calm, a.returned)
	if a.placement != nil && a.placesOf == view.places && !calm {
		for _, fault := range a.unplaced {
			a.fault(errors.New(fault))
		}
		return
	}
	a.placesOf = 0
	p := view.placement(a.Host)
	if _, known := p.Hosts[a.Host]; !known { // it shares the internet's ports with others all the same
		p.Hosts[a.Host] = a.record().placed(0)
	}
	if calm && a.last != nil { // the others carry on by what etcd has forgotten, or come back as this host has
		p.keep(a.last)
	}
	known := len(a.faults)
	defer func() { a.unplaced = slices.Clone(a.faults[known:]) }()
	for _, fault := range p.trustInternet(a.InternetHosts) {
		a.fault(fault)
	}
	for _, fault := range p.Confine(netip.AddrPortFrom(a.Underlay, a.Port)) {
		a.fault(fault)
	}
	if !calm {
		a.placesOf = view.places
	}
	if p.Same(a.placement) {
		return
	}
	a.placement = nil // a part of it may be in force after a fault
	if a.Placed != nil {
		if err := a.Placed(ctx, p); err != nil {
			a.fault(fmt.Errorf("what leads to other hosts is not all there: %w", err))
			return
		}
	}
	a.placement, a.last, a.reaches = p, p, len(p.NICs)-len(p.On(a.Host))
}

func (a *Agent) keepStatus(view *View, lost error) {
	s := Status{Host: a.Host, Connected: lost == nil && view != nil, GoOn: a.GoOn, Generation: number(a.carrying), Refused: a.refused,
		NICs: slices.Clone(a.attached), Waiting: map[string]string{}, Faults: slices.Clone(a.faults), Moves: maps.Clone(a.moving.outcomes)}
	if lost != nil {
		s.Error = lost.Error()
	}
	for nic, host := range a.waiting {
		s.Waiting[nic] = host
	}
	if a.placement != nil {
		s.Reaches = a.reaches
	}
	if view != nil {
		s.Hosts, s.Claims = len(view.Hosts), len(view.Claims)
		if view.Head != nil {
			s.Current = view.Head.Current
		}
		if view.Offer != nil {
			s.Offered = view.Offer.Generation
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = s
}

// Controls are where the hosts of the cluster answer nsgctl, by name, as etcd said last; empty: such a host does nowhere.
// known is false before etcd has answered. Safe for concurrent use.
func (a *Agent) Controls() (controls map[string]string, known bool) {
	view, _, _ := a.watcher.now()
	if view == nil {
		return nil, false
	}
	controls = make(map[string]string, len(view.Hosts))
	for name, h := range view.Hosts {
		controls[name] = h.Control
	}
	return controls, true
}

// Status is how the host does. Safe for concurrent use.
func (a *Agent) Status() Status {
	a.mu.Lock()
	s := a.status
	a.mu.Unlock()
	_, epoch, _, _ := a.session.now()
	s.Host, s.GoOn, s.Registered, s.Carries = a.Host, a.GoOn, epoch != 0, a.session.carriesUntil()-a.Clock()
	return s
}
