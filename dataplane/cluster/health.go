package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maxAnswering is how many backends a record can say are up. With more, the rest count as down elsewhere.
	maxAnswering = 6000
	// healthPause lies between two reports of health at least, so that backends which come and go cost no more.
	healthPause = time.Second
	// probeDigest is how many bytes of a hash stand for a probe.
	probeDigest = 8
)

// HealthRecord says which backends of a host answer its probes, under its lease.
type HealthRecord struct {
	// Up are the first 8 bytes of the SHA-256 of each probe's identity, in ascending order. What is not among them is down.
	Up []byte `json:"up"`
}

// newHealthRecord is of the probes that are answered. left is how many are too many.
func newHealthRecord(identities []string) (r *HealthRecord, left int) {
	digests := make([][]byte, len(identities))
	for i, identity := range identities {
		sum := sha256.Sum256([]byte(identity))
		digests[i] = sum[:probeDigest]
	}
	slices.SortFunc(digests, bytes.Compare)
	taken := min(len(digests), maxAnswering)
	return &HealthRecord{slices.Concat(digests[:taken]...)}, len(digests) - taken
}

// has reports that a probe is answered.
func (r *HealthRecord) has(identity string) bool {
	sum := sha256.Sum256([]byte(identity))
	at := func(i int) int { return bytes.Compare(r.Up[i*probeDigest:(i+1)*probeDigest], sum[:probeDigest]) }
	n := len(r.Up) / probeDigest
	i := sort.Search(n, func(i int) bool { return at(i) >= 0 })
	return i < n && at(i) == 0
}

// Health is what the hosts of a cluster have told of their backends. It is not changed once it is published.
type Health struct {
	nics  map[string]PlacedNIC
	hosts map[string]toldHealth
}

// toldHealth is what a host has told.
type toldHealth struct {
	probes bool          // it sends probes
	record *HealthRecord // nil: nothing answers
}

// Of says whether a backend takes new flows by what the host of its network interface says. host is that one; empty: no
// host has it, and it is down. unprobed: that host sends no probes, and it counts as up. nic is its resource id, probe
// the identity of its probe.
func (h *Health) Of(nic, probe string) (up bool, host string, unprobed bool) {
	at, claimed := h.nics[NormalNIC(nic)]
	told, known := h.hosts[at.Host]
	switch {
	case !claimed || !known:
		return false, "", false
	case !told.probes:
		return true, at.Host, true
	}
	return told.record != nil && told.record.has(probe), at.Host, false
}

// health is what a view says of the hosts of a placement. Of hosts that the view has forgotten the last word counts.
func (v *View) health(p *Placement, last *Health) *Health {
	h := &Health{nics: p.NICs, hosts: make(map[string]toldHealth, len(p.Hosts))}
	for name := range p.Hosts {
		if host := v.Hosts[name]; host != nil {
			h.hosts[name] = toldHealth{host.Probes, v.Health[name]}
		} else if last != nil {
			h.hosts[name] = last.hosts[name]
		}
	}
	return h
}

// tellHealth tells the others which backends answer this host's probes. New claims come later, so that nobody takes a backend
// for up that has not been asked. takeHealth is for those that another host has asked.
func (a *Agent) tellHealth(ctx context.Context, epoch int64) {
	a.healthDue = 0
	if epoch == 0 || a.Health == nil {
		return
	}
	if wakes := a.wakes.Load(); wakes != a.healthWakes || a.healthText == "" { // nothing changes without a call of Wake
		record, left := newHealthRecord(a.Health(""))
		a.healthText, a.healthLeft, a.healthWakes = encode(record), left, wakes
	}
	if a.healthLeft > 0 {
		a.fault(fmt.Errorf("%d backends are up: at most %d can be told to other hosts, where the rest count as down", a.healthLeft+maxAnswering, maxAnswering))
	}
	text := a.healthText
	if a.wroteHealth == (written{text, epoch}) {
		return
	}
	if epoch == a.wroteHealth.epoch && a.Clock() < a.healthAt+healthPause {
		a.healthDue = a.healthAt + healthPause
		return
	}
	a.healthAt = a.Clock()
	a.write(ctx, epoch, "telling the health of backends", a.Store.keys.health(a.Host), text, &a.wroteHealth)
}

// takeHealth is tellHealth for a network interface that arrives: the others hear of its backends with the claim. So none counts
// as down that its old host has found up.
func (a *Agent) takeHealth(nic string, lease clientv3.LeaseID) (text string, put []clientv3.Op) {
	if a.Health == nil {
		return "", nil
	}
	record, _ := newHealthRecord(a.Health(nic))
	text = encode(record)
	return text, []clientv3.Op{clientv3.OpPut(a.Store.keys.health(a.Host), text, clientv3.WithLease(lease))}
}

// tookHealth notes what takeHealth has written.
func (a *Agent) tookHealth(text string, epoch int64) {
	if a.Health != nil {
		a.healthText, a.healthAt, a.wroteHealth = "", a.Clock(), written{text, epoch}
	}
}

// hearHealth passes on what other hosts tell of their backends.
func (a *Agent) hearHealth(view *View) {
	if a.Hear == nil || a.last == nil || view.healths == a.healthsOf && a.last == a.healthIn {
		return
	}
	a.healthsOf, a.healthIn, a.heard = view.healths, a.last, view.health(a.last, a.heard)
	a.Hear(a.heard)
}
