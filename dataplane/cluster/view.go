package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The bounds of a view. What is beyond them is left out, and Faults says so.
const (
	MaxHosts  = 10_000
	MaxClaims = 200_000
	MaxMoves  = 1000
	MaxVNIs   = 100_000
)

// Host is a host that lives.
type Host struct {
	HostRecord
	// Report is zero in what hosts watch, and before the host has written one.
	Report
	// Epoch rises with each registration under the name.
	Epoch int64
	lease clientv3.LeaseID
}

// Claim is a network interface's place.
type Claim struct {
	ClaimRecord
	// Revision is the claim's own number: a later claim of the same NIC has a higher one.
	Revision int64
}

// View is what etcd holds of a cluster, at a revision, without what generations consist of.
type View struct {
	// Revision of etcd, and the etcd cluster's own id.
	Revision int64
	Store    uint64
	Head     *Head // nil: there is none
	Offer    *Offer
	Age      *Age             // nil: nobody has looked yet
	Hosts    map[string]*Host // by name
	Claims   map[string]Claim // by NIC, see NormalNIC
	Moves    map[string]*Move // by NIC
	VNIs     map[string]uint32
	// Health is what hosts say of their backends, by host.
	Health map[string]*HealthRecord
	// Faults are records that can't be read, by key.
	Faults map[string]string

	reports map[string]Report // by host

	headRevision, offerCreated, ageCreated int64
	keys                                   keys
	// places changes with all that a placement is made of, and differs between views that were read anew.
	places uint64
	// healths changes with all that Health is made of, besides placements.
	healths uint64
	// shared says that a clone has the maps of claims and VNIs too.
	shared bool
}

// placesEver numbers what View.places and View.healths count, over all views.
var placesEver atomic.Uint64

// ownMaps makes the maps of claims and VNIs this view's alone, before one changes.
func (v *View) ownMaps() {
	if v.shared {
		v.Claims, v.VNIs, v.shared = maps.Clone(v.Claims), maps.Clone(v.VNIs), false
	}
}

// moved notes that a placement of the view would be another one.
func (v *View) moved() { v.places = placesEver.Add(1) }

// Registered reports that the host of a claim has the registration still by which it has claimed.
func (v *View) Registered(c *ClaimRecord) bool {
	h := v.Hosts[c.Host]
	return h != nil && h.Epoch == c.Epoch
}

// standsAs reports that a host is, for a placement, what another record says; either may be nil.
func (h *Host) standsAs(other *Host) bool {
	return h != nil && other != nil && h.Epoch == other.Epoch && h.Underlay == other.Underlay && h.Port == other.Port && h.MTU == other.MTU && h.Internet == other.Internet &&
		maps.EqualFunc(h.Gateways, other.Gateways, slices.Equal)
}

func newView(k keys) *View {
	v := &View{keys: k, Hosts: map[string]*Host{}, Claims: map[string]Claim{}, Moves: map[string]*Move{}, VNIs: map[string]uint32{}, Health: map[string]*HealthRecord{}, Faults: map[string]string{}, reports: map[string]Report{}}
	v.moved() // an empty one too is not the one before
	return v
}

// maxViewFaults bounds View.Faults.
const maxViewFaults = 100

func (v *View) fault(key string, err error) {
	if len(v.Faults) < maxViewFaults {
		v.Faults[key] = inBrief(err)
	}
}

// clone is a view that later events don't change. Hosts are replaced, never changed.
func (v *View) clone() *View {
	v.shared = true
	c := *v
	c.Hosts, c.Health, c.Faults, c.Moves, c.reports = maps.Clone(v.Hosts), maps.Clone(v.Health), maps.Clone(v.Faults), maps.Clone(v.Moves), maps.Clone(v.reports)
	return &c
}

// put takes a key in.
func (v *View) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	name, kind := v.kind(key)
	before := v.Hosts[name]
	v.remove(key)
	var err error
	switch kind {
	case headKey:
		h := &Head{}
		if err = decode(key, kv.Value, h); err == nil {
			v.Head, v.headRevision = h, kv.ModRevision
		}
	case offerKey:
		o := &Offer{}
		if err = decode(key, kv.Value, o); err == nil {
			v.Offer, v.offerCreated = o, kv.CreateRevision
		}
	case ageKey:
		g := &Age{}
		if err = decode(key, kv.Value, g); err == nil {
			v.Age, v.ageCreated = g, kv.CreateRevision
		}
	case hostKey:
		h := &Host{Report: v.reports[name], Epoch: kv.CreateRevision, lease: clientv3.LeaseID(kv.Lease)}
		if err = decode(key, kv.Value, &h.HostRecord); err == nil {
			if err = CheckHost(name); err == nil && len(v.Hosts) == MaxHosts {
				err = fmt.Errorf("more than %d hosts", MaxHosts)
			}
		}
		if err == nil {
			v.Hosts[name] = h
		}
	case reportKey:
		var r Report
		if err = decode(key, kv.Value, &r); err == nil && len(v.reports) == MaxHosts {
			err = fmt.Errorf("more than %d hosts", MaxHosts)
		}
		if err == nil {
			v.reported(name, &r)
		}
	case healthKey:
		h := &HealthRecord{}
		if err = decode(key, kv.Value, h); err == nil && len(v.Health) == MaxHosts {
			err = fmt.Errorf("more than %d hosts", MaxHosts)
		}
		if err == nil {
			v.Health[name] = h
		}
	case claimKey:
		c := Claim{Revision: kv.ModRevision}
		if err = decode(key, kv.Value, &c.ClaimRecord); err == nil {
			if err = CheckHost(c.Host); err == nil && len(v.Claims) == MaxClaims {
				err = fmt.Errorf("more than %d claims", MaxClaims)
			}
		}
		if err == nil {
			v.Claims[name] = c
		}
	case moveKey:
		m := &Move{Revision: kv.CreateRevision}
		if err = decode(key, kv.Value, &m.MoveRecord); err == nil && len(v.Moves) == MaxMoves {
			err = fmt.Errorf("more than %d moves", MaxMoves)
		}
		if err == nil {
			v.Moves[name] = m
		}
	case vniKey:
		var n uint32
		if err = decode(key, kv.Value, &n); err == nil && (n == 0 || n > MaxVNI || len(v.VNIs) == MaxVNIs) {
			err = fmt.Errorf("%d: allowed are 1 to %d, and %d of them", n, MaxVNI, MaxVNIs)
		}
		if err == nil {
			v.VNIs[name] = n
		}
	}
	if kind == claimKey || kind == vniKey || kind == hostKey && !before.standsAs(v.Hosts[name]) {
		v.moved()
	}
	if h := v.Hosts[name]; kind == healthKey || kind == hostKey && (before == nil || h == nil || before.Probes != h.Probes) {
		v.healths = placesEver.Add(1)
	}
	if err != nil {
		v.fault(key, err)
	}
}

// drop takes a key out.
func (v *View) drop(key string) {
	v.remove(key)
	switch _, kind := v.kind(key); kind {
	case claimKey, vniKey, hostKey:
		v.moved()
	}
	v.healths = placesEver.Add(1)
}

// reported notes what a host reports; nil: nothing any more.
func (v *View) reported(name string, r *Report) {
	if r == nil {
		delete(v.reports, name)
	} else {
		v.reports[name] = *r
	}
	if h := v.Hosts[name]; h != nil {
		next := *h
		next.Report = v.reports[name]
		v.Hosts[name] = &next
	}
}

func (v *View) remove(key string) {
	delete(v.Faults, key)
	switch name, kind := v.kind(key); kind {
	case headKey:
		v.Head, v.headRevision = nil, 0
	case offerKey:
		v.Offer, v.offerCreated = nil, 0
	case ageKey:
		v.Age, v.ageCreated = nil, 0
	case hostKey:
		delete(v.Hosts, name)
	case reportKey:
		v.reported(name, nil)
	case healthKey:
		delete(v.Health, name)
	case claimKey:
		v.ownMaps()
		delete(v.Claims, name)
	case moveKey:
		delete(v.Moves, name)
	case vniKey:
		v.ownMaps()
		delete(v.VNIs, name)
	}
}

// keyKind is what a key is of.
type keyKind int

const (
	otherKey keyKind = iota
	headKey
	offerKey
	hostKey
	reportKey
	healthKey
	claimKey
	moveKey
	vniKey
	ageKey
)

func (v *View) kind(key string) (name string, kind keyKind) {
	switch key {
	case v.keys.head():
		return "", headKey
	case v.keys.offer():
		return "", offerKey
	case v.keys.age():
		return "", ageKey
	}
	if name, ok := strings.CutPrefix(key, v.keys.hosts()); ok {
		return name, hostKey
	}
	if name, ok := strings.CutPrefix(key, v.keys.reports()); ok {
		return name, reportKey
	}
	if name, ok := strings.CutPrefix(key, v.keys.healths()); ok {
		return name, healthKey
	}
	for prefix, kind := range map[string]keyKind{v.keys.claims(): claimKey, v.keys.moves(): moveKey, v.keys.vnis(): vniKey} {
		if text, ok := strings.CutPrefix(key, prefix); ok {
			if name, ok := unescape(text); ok {
				return name, kind
			}
		}
	}
	return "", otherKey
}

// ranges are the keys of a view: all that is watched, without manifests and chunks.
func (k keys) ranges(reports bool) [][2]string {
	list := [][2]string{{k.claims(), k.generations()}, {clientv3.GetPrefixRangeEnd(k.generations()), k.watchEnd()}}
	if reports {
		list = append([][2]string{{k.reports(), clientv3.GetPrefixRangeEnd(k.reports())}}, list...)
	}
	return list
}

// watchEnd is the end of what is watched.
func (k keys) watchEnd() string { return clientv3.GetPrefixRangeEnd(string(k) + "vni/") }

// View reads the cluster as it is at one revision.
func (s *Store) View(ctx context.Context) (*View, error) { return s.view(ctx, true) }

// view is View with what hosts report, or without.
func (s *Store) view(ctx context.Context, reports bool) (*View, error) {
	v := newView(s.keys)
	for _, r := range s.keys.ranges(reports) {
		err := s.each(ctx, r[0], r[1], v.Revision, func(r *clientv3.GetResponse) {
			v.Revision, v.Store = r.Header.Revision, r.Header.ClusterId
		}, func(kv *mvccpb.KeyValue) { v.put(kv) })
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// each reads a range page by page, at a revision; 0: the newest, which the first answer tells.
func (s *Store) each(ctx context.Context, from, end string, revision int64, first func(*clientv3.GetResponse), one func(*mvccpb.KeyValue), more ...clientv3.OpOption) error {
	known := revision != 0
	for {
		options := append([]clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page)}, more...)
		if revision != 0 {
			options = append(options, clientv3.WithRev(revision))
		}
		r, err := s.page(ctx, from, options)
		if err != nil {
			return err
		}
		if !known {
			known, revision = true, r.Header.Revision
			if first != nil {
				first(r)
			}
		}
		for _, kv := range r.Kvs {
			one(kv)
		}
		if !r.More || len(r.Kvs) == 0 {
			return nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) page(ctx context.Context, from string, options []clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Get(ctx, from, options...)
	if err != nil {
		return nil, s.failed("reading "+from, err)
	}
	return r, nil
}

// generationIs says that an offer or head is of a generation.
func generationIs(u *generation.Unpacked, number uint64, bundle generation.Hash) bool {
	return u != nil && u.Number == number && u.Bundle == bundle
}
