package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// MoveRecord asks two hosts to move a network interface. It is under the lease of who asks: when that ends before the
// claim has changed, the move does not take place.
type MoveRecord struct {
	From string `json:"from"`
	To   string `json:"to"`
	// FromEpoch and ToEpoch are those of the hosts' registrations, Claim is the claim's revision.
	FromEpoch int64 `json:"fromEpoch"`
	ToEpoch   int64 `json:"toEpoch"`
	Claim     int64 `json:"claim"`
	// WithoutFlows leaves the flows behind.
	WithoutFlows bool      `json:"withoutFlows,omitempty"`
	By           string    `json:"by"`
	Since        time.Time `json:"since"` // by the clock of By
}

// Move is a move that somebody asks for.
type Move struct {
	MoveRecord
	// Revision is the move's own number.
	Revision int64
}

// Stage is how far a move is at a host.
type Stage string

// The stages. The last three are ends.
const (
	StageReady   Stage = "ready"   // the new host waits for the old one
	StageDone    Stage = "done"    // the network interface has moved
	StageRefused Stage = "refused" // the host can't take part
	StageFailed  Stage = "failed"  // the network interface is where it was, unless Fault says that this is not known
)

func (s Stage) ends() bool { return s == StageDone || s == StageRefused || s == StageFailed }

// MoveState is what a host says of a move.
type MoveState struct {
	// Move is the Move's Revision.
	Move  int64  `json:"move"`
	Stage Stage  `json:"stage"`
	Fault string `json:"fault,omitempty"`
	// Port is where the new host waits, by TCP at its underlay's address.
	Port uint16 `json:"port,omitempty"`
	// Generation is what the new host carries while it waits.
	Generation uint64 `json:"generation,omitempty"`
	// Flows went along: of the old host those that it has sent, of the new one those that go on. Joined of them are one
	// with what the new host knew of the other end; Lost do not go on, by why.
	Flows  int            `json:"flows,omitempty"`
	Joined int            `json:"joined,omitempty"`
	Lost   map[string]int `json:"lost,omitempty"`
	Bytes  int64          `json:"bytes,omitempty"`
	// Milliseconds are how long the network interface was carried by nobody, as the host saw it: the old one until the new
	// one had the claim, the new one until it carried.
	Milliseconds float64 `json:"milliseconds,omitempty"`
}

// MoveOptions say what to move.
type MoveOptions struct {
	// NIC is a network interface's id, or its name where that is clear.
	NIC string
	To  string
	By  string
	// WithoutFlows leaves the flows behind.
	WithoutFlows bool
	// Wait bounds how long both hosts may take.
	Wait time.Duration
	Now  func() time.Time
	// Tell hears of each step; nil: nobody does.
	Tell func(string)
}

// Moved is a move that has taken place.
type Moved struct {
	NIC  string `json:"networkInterface"`
	From string `json:"from"`
	To   string `json:"to"`
	// Flows go on at To; Sent is how many From has sent. The others are as in MoveState.
	Flows  int            `json:"flows"`
	Sent   int            `json:"sent"`
	Joined int            `json:"joined"`
	Lost   map[string]int `json:"lost"`
	Bytes  int64          `json:"bytes"`
	// GapMilliseconds is for how long nobody has carried it, by the clock of To.
	GapMilliseconds float64 `json:"gapMilliseconds"`
	WithoutFlows    bool    `json:"withoutFlows"`
}

// moveLease is how long a move outlives who asks for it.
const moveLease = 15 * time.Second

// MoveError is why a network interface has not moved.
type MoveError struct {
	// Host says so; empty: nobody was asked.
	Host string
	err  error
}

// Error says why.
func (e *MoveError) Error() string {
	if e.Host == "" {
		return e.err.Error()
	}
	return e.Host + ": " + e.err.Error()
}

// Unwrap is for errors.As.
func (e *MoveError) Unwrap() error { return e.err }

// Find is the id of a claimed network interface by its id or by its name.
func (v *View) Find(name string) (id string, err error) {
	if _, ok := v.Claims[NormalNIC(name)]; ok {
		return NormalNIC(name), nil
	}
	var all []string
	for id := range v.Claims {
		if strings.HasSuffix(id, "/"+NormalNIC(name)) {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	switch len(all) {
	case 0:
		return "", fmt.Errorf("network interface %q: no host has it: nsgctl cluster nics lists those that hosts have", name)
	case 1:
		return all[0], nil
	}
	return "", fmt.Errorf("network interface %q: there are %d of that name: give one's id, %s or %s", name, len(all), all[0], all[1])
}

// Move has a network interface move to another host, with its flows.
func (s *Store) Move(ctx context.Context, o *MoveOptions) (*Moved, error) {
	tell := o.Tell
	if tell == nil {
		tell = func(string) {}
	}
	view, err := s.View(ctx)
	if err != nil {
		return nil, err
	}
	nic, m, err := view.plan(o)
	if err != nil {
		return nil, &MoveError{"", err}
	}
	tell(fmt.Sprintf("%s is at %s", nic, m.From))
	asking, cancel := context.WithTimeout(ctx, patience)
	granted, err := s.client.Grant(asking, int64(moveLease/time.Second))
	cancel()
	if err != nil {
		return nil, s.failed("asking for a lease", err)
	}
	late := context.WithoutCancel(ctx)
	defer func() {
		ctx, cancel := context.WithTimeout(late, patience)
		defer cancel()
		s.client.Revoke(ctx, granted.ID) // else it ends by itself
	}()
	r, err := s.commit(ctx, "asking for a move", []clientv3.Cmp{absent(s.keys.move(nic)), unchanged(s.keys.claim(nic), m.Claim)},
		clientv3.OpPut(s.keys.move(nic), encode(&m.MoveRecord), clientv3.WithLease(granted.ID)))
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		return nil, &MoveError{"", fmt.Errorf("%s: somebody moves it just now, or its host has changed: try again", nic)}
	}
	m.Revision = r.Header.Revision
	return s.follow(ctx, nic, m, granted.ID, o.Wait, tell)
}

// plan says what a move would be, or why there can't be one.
func (v *View) plan(o *MoveOptions) (nic string, m *Move, err error) {
	if nic, err = v.Find(o.NIC); err != nil {
		return "", nil, err
	}
	c := v.Claims[nic]
	from, to := v.Hosts[c.Host], v.Hosts[o.To]
	switch {
	case to == nil:
		return "", nil, fmt.Errorf("host %q: there is no such host alive: there are %s", o.To, strings.Join(slices.Sorted(maps.Keys(v.Hosts)), ", "))
	case c.Host == o.To:
		return "", nil, fmt.Errorf("%s is at %s already", nic, o.To)
	case from == nil || from.Epoch != c.Epoch:
		return "", nil, fmt.Errorf("%s: its host %q is gone: it is free once that host's lease has ended, and its flows are lost", nic, c.Host)
	case v.Moves[nic] != nil:
		return "", nil, fmt.Errorf("%s is moved to %s by %s already", nic, v.Moves[nic].To, v.Moves[nic].By)
	case from.Generation != to.Generation:
		return "", nil, errGenerations(c.Host, from.Generation, o.To, to.Generation)
	}
	for name, h := range map[string]*Host{c.Host: from, o.To: to} {
		if h.Mover == "" {
			return "", nil, fmt.Errorf("host %q, with nsgd %s, can't move network interfaces", name, h.Version)
		}
	}
	return nic, &Move{MoveRecord: MoveRecord{From: c.Host, To: o.To, FromEpoch: from.Epoch, ToEpoch: to.Epoch, Claim: c.Revision, WithoutFlows: o.WithoutFlows, By: o.By, Since: o.Now()}}, nil
}

// errGenerations refuses a move between hosts that carry different generations.
func errGenerations(from string, old uint64, to string, next uint64) error {
	return fmt.Errorf("%s carries generation %d, and %s carries %d: ask again when they carry the same", from, old, to, next)
}

// moveLook is how often a move is looked at.
const moveLook = 50 * time.Millisecond

// follow waits for what the hosts say of a move.
func (s *Store) follow(ctx context.Context, nic string, m *Move, lease clientv3.LeaseID, wait time.Duration, tell func(string)) (*Moved, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	told := map[string]Stage{}
	var done, failed time.Time
	last := ""
	for renewed := time.Now(); ; {
		now, err := s.moveNow(ctx, nic, m)
		if from, to, at := now.from, now.to, now.at; err == nil {
			for _, one := range []struct {
				host  string
				state MoveState
			}{{m.To, to}, {m.From, from}} {
				if one.state.Stage != "" && told[one.host] != one.state.Stage {
					told[one.host] = one.state.Stage
					last = fmt.Sprintf("%s: %s", one.host, one.state)
					tell(last)
				}
			}
			switch {
			case to.Stage == StageDone && at == m.To && (from.Stage.ends() || !done.IsZero() && time.Since(done) > patience):
				return moved(nic, m, &from, &to), nil
			case to.Stage == StageDone && done.IsZero():
				done = time.Now()
			case from.Stage.ends() && from.Stage != StageDone && at != m.To:
				return nil, &MoveError{m.From, errors.New(from.Fault)}
			case to.Stage.ends() && to.Stage != StageDone && at != m.To:
				if to.Stage == StageRefused || !failed.IsZero() && time.Since(failed) > time.Second { // else the old host may say more
					return nil, &MoveError{m.To, errors.New(to.Fault)}
				}
				if failed.IsZero() {
					failed = time.Now()
				}
			case now.gone != "" && at != m.To: // the claim can't change any more by this move
				return nil, &MoveError{"", fmt.Errorf("%s has not moved: %s is not registered any more as it was: its lease has ended, or it has begun anew; %s", nic, now.gone, now.where())}
			}
		}
		if time.Since(renewed) > moveLease/5 {
			renewed = time.Now()
			s.client.KeepAliveOnce(ctx, lease)
		}
		select {
		case <-ctx.Done():
			return nil, s.gaveUp(context.WithoutCancel(ctx), nic, m, last)
		case <-time.After(moveLook):
		}
	}
}

// String is a state in words.
func (s MoveState) String() string {
	switch s.Stage {
	case StageReady:
		return "ready to take it"
	case StageDone:
		return "done"
	case StageRefused:
		return "refuses: " + s.Fault
	}
	return "failed: " + s.Fault
}

// gaveUp says where a network interface is whose move took too long, and who has kept it waiting. last is what was said last.
func (s *Store) gaveUp(ctx context.Context, nic string, m *Move, last string) error {
	now, err := s.moveNow(ctx, nic, m)
	if err != nil {
		return &MoveError{"", fmt.Errorf("%s has not moved in time; where it is now is not known: %w", nic, err)}
	}
	var why []string
	if last != "" {
		why = append(why, last)
	}
	view, _ := s.View(ctx) // without it less is said
	for _, one := range []struct {
		host  string
		stage Stage
	}{{m.From, now.from.Stage}, {m.To, now.to.Stage}} {
		if one.stage == "" {
			why = append(why, one.host+" has not answered"+view.busy(one.host, m))
		}
	}
	return &MoveError{"", fmt.Errorf("%s has not moved in time (%s); %s", nic, strings.Join(why, "; "), now.where())}
}

// busy says which older move a host takes part in first; empty: none.
func (v *View) busy(host string, m *Move) string {
	if v == nil {
		return ""
	}
	for _, nic := range slices.Sorted(maps.Keys(v.Moves)) {
		if o := v.Moves[nic]; o.Revision < m.Revision && (o.From == host || o.To == host) {
			return ": it moves " + nic + " first"
		}
	}
	return ""
}

// moveNow is how a move stands at one revision of etcd.
type moveNow struct {
	from, to MoveState
	at       string // the host that has the claim; empty: none
	gone     string // a host that is not registered as it was; empty: both are
}

func (n *moveNow) where() string {
	if n.at == "" {
		return "no host has it"
	}
	return "it is at " + n.at
}

// moveNow reads what both hosts say of a move, and the claim.
func (s *Store) moveNow(ctx context.Context, nic string, m *Move) (now moveNow, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	hosts := []struct {
		name  string
		epoch int64
		state *MoveState
	}{{m.From, m.FromEpoch, &now.from}, {m.To, m.ToEpoch, &now.to}}
	claim := s.keys.claim(nic)
	r, err := s.client.Txn(ctx).Then(clientv3.OpGet(s.keys.host(m.From)), clientv3.OpGet(s.keys.host(m.To)), clientv3.OpGet(claim)).Commit()
	if err != nil {
		return now, s.failed("reading a move", err)
	}
	for i, h := range hosts {
		kvs := r.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].CreateRevision != h.epoch {
			now.gone = h.name
			continue
		}
		var record HostRecord
		err = errors.Join(err, decode(s.keys.host(h.name), kvs[0].Value, &record))
		if state, ok := record.Moves[nic]; ok && state.Move == m.Revision {
			*h.state = state
		}
	}
	for _, kv := range r.Responses[len(hosts)].GetResponseRange().Kvs {
		var c ClaimRecord
		err = errors.Join(err, decode(claim, kv.Value, &c))
		now.at = c.Host
	}
	return now, err
}

func moved(nic string, m *Move, from, to *MoveState) *Moved {
	x := &Moved{NIC: nic, From: m.From, To: m.To, Flows: to.Flows, Sent: from.Flows, Joined: to.Joined, Lost: to.Lost, Bytes: to.Bytes, GapMilliseconds: to.Milliseconds, WithoutFlows: m.WithoutFlows}
	if x.Lost == nil {
		x.Lost = map[string]int{}
	}
	return x
}

// unchanged is a condition: nobody has written a key since.
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}
