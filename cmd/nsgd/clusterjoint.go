//go:build !nocluster

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/cluster/plan"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/metrics"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun/fabric"
)

// joint is what joins this host to the others: attachments of the kind fabric, and what the kernel carries for them.
type joint struct {
	placement *cluster.Placement
	// numbers are VNIs by name: the placement's, and those that this host has asked for since.
	numbers map[string]uint32
	lacking []string // names that a configuration needed and that have no number yet
	tried   []string // names that a try needed and that had no number
	triedOf string   // the folder of the generation that was tried
	doubled []string // names that a configuration needed and whose number another one has
	port    uint16
	vni     func(context.Context, string) (uint32, error)
	apply   func(fabric.State) error
	counts  func() (fabric.Counts, error)
	mtuOf   func() (int, error) // of the underlay
	gate    *gate
	// settled is the configuration that is attached, for a policy.
	settled *Config
	set     *policy.Set
	// planned is the last plan: a generation that is tried, carried and settled has one.
	planned planned
	saved   *cluster.Placement // that on disk; nil: not known
}

// planned is a plan with what it was made of.
type planned struct {
	set       *policy.Set
	own       []topology.Spec
	placement *cluster.Placement
	plan      *plan.Plan
}

// plan joins this host to the others for a policy and attachments.
func (j *joint) plan(set *policy.Set, own []topology.Spec) *plan.Plan {
	if p := &j.planned; p.set != set || p.placement != j.placement || !reflect.DeepEqual(p.own, own) {
		j.planned = planned{set, own, j.placement, plan.New(set, own, j.placement)}
	}
	return j.planned.plan
}

// lastPlacement joins a host as it was when it last ran; nil: that is not known.
func lastPlacement(cache *generation.Cache, host string) func(*Config, *policy.Set, bool) {
	p, err := savedPlacement(cache)
	if p == nil || err != nil || p.Self != host {
		return nil // the other hosts are found when etcd answers
	}
	p.Confine(netip.AddrPort{})
	return (&joint{placement: p, numbers: p.VNIs}).join
}

func savedPlacement(cache *generation.Cache) (p *cluster.Placement, err error) {
	text, err := cache.Placement()
	if text == nil || err != nil {
		return nil, err
	}
	return p, json.Unmarshal(text, &p)
}

// resume takes up the placement of the last process.
func (m *member) resume(log *slog.Logger) {
	p, err := savedPlacement(m.cache)
	if err != nil {
		log.Warn("cluster: where the other hosts were is not known until etcd answers", "error", err)
	}
	if p != nil && err == nil {
		for _, fault := range p.Confine(netip.AddrPort{}) {
			log.Warn("cluster", "fault", fault)
		}
		m.placement, m.numbers = p, p.VNIs
	}
}

// joins is what adds the attachments to other hosts, for the newest placement; nil: there is no cluster.
func (m *member) joins() func(*Config, *policy.Set, bool) {
	if m == nil {
		return nil
	}
	return func(has *Config, set *policy.Set, all bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.joint.join(has, set, all)
	}
}

// device is the TUN device of a fabric. It follows from the fabric's name alone: whatever number the name has, what was
// written for one network is never sent to another one.
func device(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("nsgdf%x", sum[:5])
}

// join adds attachments. What has no VNI of its own is noted as lacking or doubled, and left out unless all are asked for.
func (j *joint) join(has *Config, set *policy.Set, all bool) {
	j.lacking, j.doubled = nil, nil
	if j.placement == nil {
		return
	}
	x := j.plan(set, has.specs())
	mtu := j.mtu(has)
	devices, vnis := make([]string, len(x.Specs)), make([]uint32, len(x.Specs))
	for i := range x.Specs {
		name := x.Names[i]
		switch n := j.numbers[name]; {
		case n == 0:
			j.lacking = append(j.lacking, name)
		case slices.Contains(vnis[:i], n):
			j.doubled = append(j.doubled, name)
		default:
			vnis[i] = n
		}
	}
	x.Numbered(vnis)
	for i := range x.Specs {
		if vnis[i] == 0 && !all {
			continue
		}
		devices[i] = device(x.Names[i])
		has.Attachments = append(has.Attachments, AttachmentConfig{fabric: &x.Specs[i], Device: devices[i], MTU: mtu})
	}
	port, placement, underlay := uint16(has.Cluster.Port), j.placement, has.Cluster.Underlay.Addr
	has.joined = &joined{host: j.placement.Self, share: x.Share, state: func() fabric.State {
		s := fabric.State{Underlay: underlay, Port: port, Device: fabricDevice, Tunnels: x.Tunnels(set, devices, vnis, mtu)}
		for _, name := range slices.Sorted(maps.Keys(placement.Hosts)) {
			if name != placement.Self {
				s.Hosts = append(s.Hosts, fabric.Host{Name: name, Underlay: placement.Hosts[name].Underlay})
			}
		}
		return s
	}}
}

// beyond are attachments for questions about what this host carries nothing for, and, of another policy than the one in force,
// about what it would carry then.
func (m *member) beyond(set *policy.Set) []topology.Spec {
	m.mu.Lock()
	p, settled, now := m.placement, m.settled, m.set
	m.mu.Unlock()
	if p == nil || settled == nil {
		return nil
	}
	own := settled.specs()
	list := plan.Beyond(set, own, p)
	if set == now {
		return list
	}
	attached := map[string]bool{}
	for i := range own {
		attached[own[i].Identity(set)] = true
	}
	for _, s := range plan.New(set, own, p).Specs {
		if !attached[s.Identity(set)] {
			list = append(list, s)
		}
	}
	return list
}

// mtu is what every host's underlay takes with what a tunnel adds.
func (j *joint) mtu(c *Config) int {
	const usual = 1500
	least := 0
	for _, h := range j.placement.Hosts {
		if h.MTU > 0 && (least == 0 || h.MTU < least) {
			least = h.MTU
		}
	}
	return cmp.Or(least, usual) - fabric.Overhead(c.Cluster.Underlay.Addr)
}

// settle has the kernel carry what an attached configuration needs.
func (m *member) settle(c *Config, set *policy.Set) error {
	if m == nil || c.joined == nil {
		return nil
	}
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.Lock()
	if next := m.rejoined(c, set); next.same(c) { // c may be of an earlier placement
		c = next
	}
	m.settled, m.set = c, set
	m.mu.Unlock()
	return m.tell(c.joined.state())
}

// tell has the kernel carry a state, unless it was told just that: mend puts back what others remove. applying is held.
func (m *member) tell(s fabric.State) error {
	if reflect.DeepEqual(m.told, s) {
		return nil
	}
	m.told = fabric.State{} // after an error a part of s may be in force
	err := m.apply(s)
	if err == nil {
		m.told = s
	}
	return err
}

// close has the kernel know the devices of a configuration before the first packet is written to them: what is written to
// one that it does not know reaches this host itself. Those that were opened it does not know, even if it knew others of their
// names. undo has it carry again what it does now.
func (m *member) close(c *Config, set *policy.Set, opened map[string]bool) (undo func() error, err error) {
	undo = func() error { return nil }
	if m == nil || c.joined == nil {
		return undo, nil
	}
	m.mu.Lock()
	settled := m.settled
	m.mu.Unlock()
	known := func(a AttachmentConfig) bool {
		return a.fabric == nil || settled != nil && !opened[a.Device] && slices.ContainsFunc(settled.Attachments, func(b AttachmentConfig) bool { return b.fabric != nil && b.Device == a.Device })
	}
	if !slices.ContainsFunc(c.Attachments, func(a AttachmentConfig) bool { return !known(a) }) {
		return undo, nil
	}
	m.applying.Lock()
	defer m.applying.Unlock()
	m.told = fabric.State{}
	if settled != nil {
		undo = func() error {
			m.applying.Lock()
			defer m.applying.Unlock()
			return m.tell(settled.joined.state())
		}
	}
	return undo, m.tell(c.joined.state())
}

// rejoined is a configuration with what the newest placement adds. mu is held.
func (m *member) rejoined(c *Config, set *policy.Set) *Config {
	next := *c
	next.Attachments = slices.DeleteFunc(slices.Clone(c.Attachments), func(a AttachmentConfig) bool { return a.fabric != nil })
	m.joint.join(&next, set, false)
	return &next
}

// same reports that a configuration attaches what another one does to other hosts.
func (c *Config) same(other *Config) bool {
	fabrics := func(c *Config) (list []AttachmentConfig) {
		for _, a := range c.Attachments {
			if a.fabric != nil {
				list = append(list, a)
			}
		}
		return list
	}
	return c.joined.share == other.joined.share && slices.EqualFunc(fabrics(c), fabrics(other), func(a, b AttachmentConfig) bool {
		return a.Device == b.Device && a.MTU == b.MTU && a.fabric.Sort == b.fabric.Sort && a.fabric.Reference == b.fabric.Reference && a.fabric.Host == b.fabric.Host &&
			slices.Equal(a.fabric.Prefixes, b.fabric.Prefixes)
	})
}

// place follows a placement. Where the attachments stay, only what the kernel carries changes. A network without a number
// costs that network alone.
func (m *member) place(ctx context.Context, p *cluster.Placement) error {
	m.mu.Lock()
	if p.Same(m.placement) { // another policy decides
		p = m.placement
	}
	m.placement, m.numbers = p, maps.Clone(p.VNIs)
	saved := m.saved == p
	if m.settled != nil {
		m.rejoined(m.settled, m.set) // finds what is lacking
	}
	m.mu.Unlock()
	var err error
	if !saved {
		err = m.save(p)
	}
	refused := map[string]bool{}
	for range 3 { // what a reload attaches may be lacking then
		err = errors.Join(err, m.number(ctx, refused))
		if moved := m.follow(); moved != nil {
			return errors.Join(err, moved)
		}
		if len(m.unnumbered(refused)) == 0 {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, name := range m.doubled {
				err = errors.Join(err, fmt.Errorf("%q: VNI %d is that of another network of this policy too: nothing goes there", name, m.numbers[name]))
			}
			return err
		}
	}
	return errors.Join(err, errors.New("the policy changes faster than its networks get numbers"))
}

// save has a placement on disk.
func (m *member) save(p *cluster.Placement) error {
	text, err := json.Marshal(p)
	if err == nil {
		err = m.cache.SavePlacement(text)
	}
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.saved = p
	}
	return err
}

// unnumbered are the names that lack a number which was not refused.
func (m *member) unnumbered(refused map[string]bool) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.lacking {
		if !refused[name] {
			names = append(names, name)
		}
	}
	return names
}

// number asks for the numbers that are lacking, and notes the names that get none.
func (m *member) number(ctx context.Context, refused map[string]bool) (err error) {
	for _, name := range m.unnumbered(refused) {
		n, failed := m.vni(ctx, name)
		if failed != nil {
			refused[name], err = true, errors.Join(err, failed)
			continue
		}
		m.mu.Lock()
		if m.numbers == nil {
			m.numbers = map[string]uint32{}
		}
		m.numbers[name] = n
		m.mu.Unlock()
	}
	return err
}

// mendEvery is how often what the kernel carries is brought into line, whoever has changed it.
const mendEvery = 30 * time.Second

// mendSoon is how soon that is tried again while nothing is carried.
const mendSoon = time.Second

// mend puts back what somebody has removed from the kernel, until ctx ends.
func (m *member) mend(ctx context.Context) {
	for {
		wait := mendEvery
		if len(m.gate.faults()) > 0 {
			wait = mendSoon
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := m.reapply(); err != nil && wait == mendEvery {
			m.log.Warn("cluster: what leads to other hosts is not all there", "error", err)
		}
	}
}

func (m *member) reapply() error {
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.Lock()
	settled := m.settled
	m.mu.Unlock()
	if settled == nil {
		return nil
	}
	m.told = fabric.State{}
	return m.tell(settled.joined.state())
}

// carried is what the kernel has carried, for metrics.
func (m *member) carried() (*metrics.FabricState, error) {
	counts, err := m.counts()
	if err != nil {
		return nil, err
	}
	s := &metrics.FabricState{}
	s.Sent, s.Received, s.Dropped = counts.Sum()
	return s, nil
}

// follow brings devices and tunnels into line with the placement.
func (m *member) follow() error {
	if same, err := m.retune(); same {
		return err
	}
	_, err := m.service.Reload(inspect.ReloadRequest{Cause: "cluster: other hosts", Edit: inspect.Edit{Placed: true}})
	return err
}

// retune has the kernel carry what the newest placement says, if that attaches the same.
func (m *member) retune() (same bool, err error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.Lock()
	if m.settled == nil {
		m.mu.Unlock()
		return false, nil
	}
	next := m.rejoined(m.settled, m.set)
	if !next.same(m.settled) {
		m.mu.Unlock()
		return false, nil
	}
	m.settled = next
	m.mu.Unlock()
	return true, m.tell(next.joined.state())
}

// gateways are the networks behind the gateways that a configuration attaches, as cluster.HostRecord has them.
func (c *Config) gateways(set *policy.Set) map[string][]netip.Prefix {
	list := map[string][]netip.Prefix{}
	for i := range c.Attachments {
		s := c.Attachments[i].spec()
		if s.Kind != topology.Gateway {
			continue
		}
		if v, err := set.VirtualNetwork(s.Reference); err == nil {
			list[strings.ToLower(v.ID)] = s.Prefixes
		}
	}
	return list
}
