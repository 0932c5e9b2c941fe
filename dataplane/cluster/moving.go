package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Departing is a network interface that a daemon gives up.
type Departing interface {
	// Freeze has the daemon carry nothing from or to it any more.
	Freeze()
	// Write sends its flows. It returns how many there are.
	Write(io.Writer) (flows int, err error)
}

// Arriving is a network interface that a daemon takes over.
type Arriving interface {
	// Read takes in the flows, and no byte behind them. It refuses what it can't understand.
	Read(io.Reader) error
}

// Arrived says what became of the flows of a network interface that has arrived: see MoveState.
type Arrived struct {
	Flows, Joined int
	Lost          map[string]int
	// Carried is for how long the network interface is carried already: clearing away what is left over takes time.
	Carried time.Duration
}

const (
	// inviteWait is how long the new host waits for the old one with all prepared.
	inviteWait = 20 * time.Second
	// knowWait is how long a host tries to learn what became of a claim while the network interface is frozen.
	knowWait = 10 * time.Second
	// maxMoves bounds the moves that a host's record tells of, and maxMoveFault what it says of each, in bytes of JSON.
	maxMoves, maxMoveFault = 32, 512
)

// moving is a host's part in moves. It is of the goroutine that steps.
type moving struct {
	own    tls.Certificate
	mover  string               // hash of own; empty: the host takes no part
	states map[string]MoveState // by network interface
	// invited is the move to this host that is ready, and entrance is where the old host comes in; nil: there is none.
	invited  *Move
	nic      string // of invited
	entrance *entrance
	// unsettled are claims of this host that another host may still take: it carries none of them before it has written the
	// claim anew, so that no such transaction can take place. The values are the claims' revisions.
	unsettled map[string]int64
	// left are revisions of etcd at which others had the network interface: an older view says nothing of it.
	left      map[string]int64
	inherited bool // the claims of the last process were looked at
	hurry     bool // the next step is due now
	outcomes  map[string]uint64
}

func (a *Agent) beginMoving() error {
	a.moving = moving{states: map[string]MoveState{}, unsettled: map[string]int64{}, left: map[string]int64{}, outcomes: map[string]uint64{}}
	if a.Listen == nil {
		return nil
	}
	var err error
	a.moving.own, a.moving.mover, err = newIdentity(time.Now())
	return err
}

// forget drops what is known of claims by their revisions: those of another etcd mean nothing in this one. Claims that it has
// of this host, and that are not attached, are looked at as those of the last process.
func (x *moving) forget() {
	clear(x.unsettled)
	clear(x.left)
	x.inherited = false
}

// end notes how a move ended here.
func (a *Agent) end(nic string, s MoveState, outcome string) {
	if s.Stage != StageDone {
		a.log.Warn("cluster: network interface not moved", "networkInterface", nic, "stage", s.Stage, "error", s.Fault)
	} else {
		a.log.Info("cluster: network interface moved", "networkInterface", nic, "outcome", outcome, "flows", s.Flows, "joined", s.Joined, "lost", s.Lost, "bytes", s.Bytes, "milliseconds", s.Milliseconds)
	}
	s.Fault = cut(s.Fault, maxMoveFault) // the other host's word, perhaps
	a.moving.states[nic] = s
	a.moving.outcomes[outcome]++
	a.moving.hurry = true
}

// answer takes part in a move: this host invites the old host, or departs. It takes part in one at a time.
func (a *Agent) answer(ctx context.Context, view *View, epoch int64) {
	x := &a.moving
	maps.DeleteFunc(x.states, func(nic string, s MoveState) bool { m := view.Moves[nic]; return m == nil || m.Revision != s.Move })
	nic, m := a.present(view)
	if x.invited != nil && (m == nil || x.invited.Revision != m.Revision || epoch == 0) {
		a.shut()
	}
	if m == nil || epoch == 0 || len(x.states) >= maxMoves {
		return
	}
	if err := a.mayMove(view, nic, m, epoch); err != nil {
		a.end(nic, MoveState{Move: m.Revision, Stage: StageRefused, Fault: inBrief(err)}, "refused")
		return
	}
	if m.To == a.Host {
		a.invite(ctx, view, nic, m)
	} else {
		a.depart(ctx, view, nic, m, epoch)
	}
}

// present is the move that this host is to take part in now: the oldest that nobody has ended.
func (a *Agent) present(view *View) (nic string, first *Move) {
	for id, m := range view.Moves {
		if m.From != a.Host && m.To != a.Host || first != nil && m.Revision > first.Revision {
			continue
		}
		ended := a.moving.states[id].Stage.ends()
		for _, name := range []string{m.From, m.To} {
			if h := view.Hosts[name]; name != a.Host && (h == nil || h.Moves[id].Move == m.Revision && h.Moves[id].Stage.ends()) {
				ended = true
			}
		}
		if !ended {
			nic, first = id, m
		}
	}
	return nic, first
}

// mayMove says why this host can't take part in a move.
func (a *Agent) mayMove(view *View, nic string, m *Move, epoch int64) error {
	from, to := view.Hosts[m.From], view.Hosts[m.To]
	c, claimed := view.Claims[nic]
	switch {
	case m.From == m.To || from == nil || to == nil || from.Epoch != m.FromEpoch || to.Epoch != m.ToEpoch:
		return fmt.Errorf("a host has registered anew since: ask again")
	case !claimed || c.Host != m.From || c.Epoch != m.FromEpoch || c.Revision != m.Claim:
		return fmt.Errorf("%s is not at %s any more", nic, m.From)
	case a.moving.mover == "":
		return fmt.Errorf("this nsgd takes no part in moves")
	case from.Mover == "" || to.Mover == "":
		return fmt.Errorf("the other host's nsgd, %s and %s, can't move network interfaces", from.Version, to.Version)
	case a.carrying == nil:
		return errors.New("this host carries no generation yet")
	case m.To == a.Host && !slices.Contains(a.Daemon.NICs(), nic):
		return fmt.Errorf("the attachments of this host's nsgd.yaml lack it: add a networkInterface with it, and reload")
	}
	for name, h := range map[string]*Host{m.From: from, m.To: to} {
		p := h.placed(h.Epoch)
		if err := p.check(netip.AddrPortFrom(a.Underlay, a.Port)); name != a.Host && err != nil { // its record may say anything
			return fmt.Errorf("nothing goes to host %q: %w", name, err)
		}
	}
	if _, held := a.held[nic]; m.From == a.Host && (!held || !slices.Contains(a.attached, nic)) {
		return fmt.Errorf("%s is not attached here", nic)
	}
	return nil
}

// invite has the old host come in.
func (a *Agent) invite(ctx context.Context, view *View, nic string, m *Move) {
	x := &a.moving
	if x.invited != nil {
		ready := x.states[nic]
		ready.Generation = number(a.carrying)
		x.states[nic] = ready
		return
	}
	l, err := a.Listen(ctx)
	if err != nil {
		a.end(nic, MoveState{Move: m.Revision, Stage: StageRefused, Fault: inBrief(fmt.Errorf("no connection can come in: %w", err))}, "refused")
		return
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	x.invited, x.nic, x.entrance = m, nic, openEntrance(l, x.own, view.Hosts[m.From].Mover)
	x.states[nic] = MoveState{Move: m.Revision, Stage: StageReady, Port: port, Generation: number(a.carrying)}
}

// shut ends an invitation.
func (a *Agent) shut() {
	if x := &a.moving; x.invited != nil {
		x.entrance.close()
		x.invited, x.entrance = nil, nil
	}
}

// welcome takes the network interface that is to come, once this host has told that it is ready.
func (a *Agent) welcome(ctx context.Context, epoch int64) {
	x := &a.moving
	m, nic := x.invited, x.nic
	if text, _ := a.record().text(); m == nil || epoch == 0 || a.wroteRecord != (written{text, epoch}) {
		return
	}
	defer a.shut()
	want := append(slices.Clone(a.attached), nic)
	slices.Sort(want)
	state := MoveState{Move: m.Revision}
	began, bytes, revision := time.Duration(0), int64(0), int64(0)
	arrived, err := a.Daemon.Arrive(a.carrying, want, nic, m.From, func(r Arriving) error {
		conn, err := a.await(ctx, nic, m)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(shakeWait))
		var h hello
		if err := receive(conn, &h); err != nil {
			return named(m.From, err)
		}
		if err := a.mayCome(&h, nic, m); err != nil {
			return errors.Join(err, send(conn, &invitation{Fault: inBrief(err)}))
		}
		began = a.Clock()
		if err := send(conn, &invitation{}); err != nil {
			return named(m.From, err)
		}
		conn.SetDeadline(time.Now().Add(handWait))
		before := conn.bytes
		if !m.WithoutFlows {
			err = named("flows from "+m.From, r.Read(conn))
		}
		var end hello // it is frozen there, whatever it has sent
		if err == nil {
			bytes = conn.bytes - before
			err = named(m.From, receive(conn, &end))
		}
		if err == nil {
			revision, err = a.seize(ctx, nic, m, epoch)
		}
		conn.SetDeadline(time.Now().Add(shakeWait))
		result := &outcome{Taken: err == nil}
		if err != nil {
			result.Fault = inBrief(err)
		}
		if told := send(conn, result); told != nil && err == nil {
			a.log.Warn("cluster: the old host did not hear that its network interface is here", "networkInterface", nic, "error", told)
		}
		return err
	})
	a.placement = nil
	if revision != 0 {
		a.held[nic] = revision
	}
	if err != nil {
		state.Stage, state.Fault = StageFailed, inBrief(err)
		a.end(nic, state, "failed")
		return
	}
	a.attached = want
	state.Stage, state.Flows, state.Joined, state.Lost, state.Bytes = StageDone, arrived.Flows, arrived.Joined, arrived.Lost, bytes
	state.Milliseconds = float64(a.Clock()-arrived.Carried-began) / float64(time.Millisecond)
	a.end(nic, state, "arrived")
}

// mayCome says why what the old host begins can't be. Its view may be older than what this host carries.
func (a *Agent) mayCome(h *hello, nic string, m *Move) error {
	own := number(a.carrying)
	switch {
	case h.NIC != nic || h.Move != m.Revision:
		return fmt.Errorf("%s begins another move than it was asked for", m.From)
	case h.Generation == 0:
		return fmt.Errorf("%s does not say which generation it carries: its nsgd is older than this host's: upgrade it, and ask again", m.From)
	case h.Generation != own:
		return errGenerations(m.From, h.Generation, m.To, own)
	}
	return nil
}

// await waits for the old host. It gives up when the move, or the old host's part, has ended.
func (a *Agent) await(ctx context.Context, nic string, m *Move) (*line, error) {
	late := time.After(inviteWait)
	look := time.NewTicker(moveLook)
	defer look.Stop()
	for {
		select {
		case conn := <-a.moving.entrance.come:
			return conn, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late:
			return nil, fmt.Errorf("%s has not come within %v", m.From, inviteWait)
		case <-look.C:
		}
		view, _, _ := a.watcher.now()
		if now := view.Moves[nic]; now == nil || now.Revision != m.Revision {
			return nil, errors.New("nobody asks for the move any more")
		}
		if h := view.Hosts[m.From]; h == nil || h.Moves[nic].Move == m.Revision && h.Moves[nic].Stage.ends() {
			return nil, fmt.Errorf("%s takes no part any more", m.From)
		}
	}
}

// seize makes the claim of the old host this one's, if nobody has written it since. The outcome is known when there is no
// error, or the error is none of a request.
func (a *Agent) seize(ctx context.Context, nic string, m *Move, epoch int64) (revision int64, err error) {
	lease, now, _, _ := a.session.now()
	if now != epoch {
		return 0, errNoLease
	}
	k := a.Store.keys
	conditions := []clientv3.Cmp{same(k.host(a.Host), epoch), same(k.host(m.From), m.FromEpoch), unchanged(k.claim(nic), m.Claim), same(k.move(nic), m.Revision)}
	health, put := a.takeHealth(nic, lease)
	a.tookHealth("", 0) // unless it is known what is there
	put = append(put, clientv3.OpPut(k.claim(nic), a.claimOf(epoch)))
	for end := a.Clock() + knowWait; ; {
		revision, c, err := a.Store.swapClaim(ctx, nic, conditions, put...)
		switch {
		case err == nil && revision != 0:
			a.tookHealth(health, epoch)
			return revision, nil
		case err == nil && c != nil && c.Host == a.Host && c.Epoch == epoch: // by a try whose answer was lost
			a.tookHealth(health, epoch)
			return c.Revision, nil
		case err == nil:
			return 0, errors.New("the claim has changed, or nobody asks for the move any more")
		case ctx.Err() != nil || a.Clock() >= end || isDenied(err):
			return 0, err
		}
		time.Sleep(firstWait)
	}
}

// swapClaim writes a claim under conditions. revision is 0 where they do not hold; then c is the claim, nil without one.
func (s *Store) swapClaim(ctx context.Context, nic string, conditions []clientv3.Cmp, put ...clientv3.Op) (revision int64, c *Claim, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := s.keys.claim(nic)
	r, err := s.client.Txn(ctx).If(conditions...).Then(put...).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, nil, s.failed("moving "+nic, err)
	}
	if r.Succeeded {
		return r.Header.Revision, nil, nil
	}
	for _, kv := range r.Responses[0].GetResponseRange().Kvs {
		c = &Claim{Revision: kv.ModRevision}
		if err := decode(key, kv.Value, &c.ClaimRecord); err != nil {
			return 0, nil, err
		}
	}
	return 0, c, nil
}

// depart gives a network interface to the host that has invited this one.
func (a *Agent) depart(ctx context.Context, view *View, nic string, m *Move, epoch int64) {
	to := view.Hosts[m.To]
	theirs := to.Moves[nic]
	if theirs.Move != m.Revision || theirs.Stage != StageReady {
		return
	}
	if own := number(a.carrying); own != theirs.Generation {
		a.end(nic, MoveState{Move: m.Revision, Stage: StageRefused, Fault: errGenerations(m.From, own, m.To, theirs.Generation).Error()}, "refused")
		return
	}
	want := slices.DeleteFunc(slices.Clone(a.attached), func(other string) bool { return other == nic })
	state := MoveState{Move: m.Revision, Stage: StageDone}
	err := a.Daemon.Depart(a.carrying, want, nic, func(d Departing) error {
		conn, err := call(ctx, a.Dial, netip.AddrPortFrom(to.Underlay, theirs.Port).String(), a.moving.own, to.Mover)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(shakeWait))
		var yes invitation
		if err = send(conn, &hello{nic, m.Revision, number(a.carrying)}); err == nil {
			err = receive(conn, &yes)
		}
		err = named(m.To, err)
		if err == nil && yes.Fault != "" {
			err = errors.New(yes.Fault)
		}
		if err == nil { // a process that follows must not begin with it
			err = a.session.without(nic)
		}
		if err != nil {
			return err
		}
		conn.SetDeadline(time.Now().Add(handWait))
		frozen := a.Clock()
		d.Freeze()
		taken, err := hand(conn, d, nic, m, &state)
		if taken {
			a.moving.unsettled[nic] = m.Claim
		} else if mine, why := a.know(ctx, nic, m, epoch); why != nil { // it stays off until that is known
			state.Stage, state.Fault = StageFailed, inBrief(fmt.Errorf("whether %s has it is not known: %w", m.To, cmp.Or(err, why)))
			a.moving.unsettled[nic] = m.Claim
		} else if mine {
			return err
		}
		state.Milliseconds = float64(a.Clock()-frozen) / float64(time.Millisecond)
		return nil
	})
	a.placement = nil
	if err != nil {
		state.Stage, state.Fault = StageFailed, inBrief(err)
		a.end(nic, state, "failed")
		return
	}
	a.attached = want
	delete(a.held, nic)
	outcome := "left"
	if state.Stage != StageDone {
		outcome = "failed"
	}
	a.end(nic, state, outcome)
}

// know finds out whether a network interface that was handed over is this host's still. If it is, no other host can take it by
// that move any more. The error says that it is not known.
func (a *Agent) know(ctx context.Context, nic string, m *Move, epoch int64) (mine bool, err error) {
	for end := a.Clock() + knowWait; ; {
		mine, err = a.reclaim(ctx, nic, m.Claim, epoch)
		if err == nil || ctx.Err() != nil || errors.Is(err, errNoLease) || a.Clock() >= end {
			return mine, err
		}
		time.Sleep(firstWait)
	}
}

// reclaim writes a claim anew, if it is still that of a revision. mine says whether this host has it then.
func (a *Agent) reclaim(ctx context.Context, nic string, revision, epoch int64) (mine bool, err error) {
	if _, now, _, _ := a.session.now(); now != epoch || epoch == 0 {
		return false, errNoLease
	}
	key := a.Store.keys.claim(nic)
	next, c, err := a.Store.swapClaim(ctx, nic, []clientv3.Cmp{unchanged(key, revision), same(a.Store.keys.host(a.Host), epoch)},
		clientv3.OpPut(key, a.claimOf(epoch)))
	switch {
	case err != nil:
		return false, err
	case next != 0:
		a.held[nic] = next
		return true, nil
	case c != nil && c.Revision == revision: // the registration has gone
		return false, errNoLease
	case c != nil && c.Host == a.Host && c.Epoch == epoch:
		a.held[nic] = c.Revision
		return true, nil
	}
	delete(a.held, nic)
	if c != nil {
		a.moving.left[nic] = c.Revision
	}
	return false, nil
}

// settleClaims finds out about claims that another host may have taken, or may still take. Claims of the last process that
// were not attached are such: it may have ended within a move.
func (a *Agent) settleClaims(ctx context.Context, epoch int64) {
	x := &a.moving
	if epoch == 0 {
		return
	}
	if !x.inherited {
		x.inherited = true
		for nic, revision := range a.held {
			if epoch != a.registered && !slices.Contains(a.attached, nic) {
				x.unsettled[nic] = revision
			}
		}
	}
	for _, nic := range slices.Sorted(maps.Keys(x.unsettled)) {
		if _, err := a.reclaim(ctx, nic, x.unsettled[nic], epoch); err != nil {
			a.fault(fmt.Errorf("%s is carried here once it is known that no other host has it: %w", nic, err))
			continue
		}
		delete(x.unsettled, nic)
	}
}
