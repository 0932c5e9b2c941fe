//go:build !nocluster

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
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
	port    uint16
	vni     func(context.Context, string) (uint32, error)
	apply   func(fabric.State) error
	counts  func() (fabric.Counts, error)
	// settled is the configuration that is attached, for a policy.
	settled *Config
	set     *policy.Set
}

// lastPlacement joins a host as it was when it last ran; nil: that is not known.
func lastPlacement(cache *generation.Cache, host string) func(*Config, *policy.Set) {
	p, err := savedPlacement(cache)
	if p == nil || err != nil || p.Self != host {
		return nil // the other hosts are found when etcd answers
	}
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
		m.placement, m.numbers = p, p.VNIs
	}
}

// joins is what adds the attachments to other hosts, for the newest placement; nil: there is no cluster.
func (m *member) joins() func(*Config, *policy.Set) {
	if m == nil {
		return nil
	}
	return func(has *Config, set *policy.Set) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.joint.join(has, set)
	}
}

// join adds attachments. What has no VNI yet is left out, and noted as lacking.
func (j *joint) join(has *Config, set *policy.Set) {
	j.lacking = nil
	if j.placement == nil {
		return
	}
	x := plan.New(set, has.specs(), j.placement)
	mtu := j.mtu(has)
	devices, vnis := make([]string, len(x.Specs)), make([]uint32, len(x.Specs))
	for i := range x.Specs {
		if vnis[i] = j.numbers[x.Names[i]]; vnis[i] == 0 {
			j.lacking = append(j.lacking, x.Names[i])
			continue
		}
		devices[i] = fmt.Sprint("nsgdf", vnis[i])
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
	m.mu.Lock()
	m.settled, m.set = c, set
	m.mu.Unlock()
	return m.apply(c.joined.state())
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

// place follows a placement. Where the attachments stay, only what the kernel carries changes.
func (m *member) place(ctx context.Context, p *cluster.Placement) error {
	text, err := json.Marshal(p)
	if err == nil {
		err = m.cache.SavePlacement(text)
	}
	m.mu.Lock()
	m.placement, m.numbers = p, maps.Clone(p.VNIs)
	m.mu.Unlock()
	for range 3 { // the first one may find that VNIs are lacking
		if moved := m.follow(); moved != nil {
			return errors.Join(err, moved)
		}
		m.mu.Lock()
		lacking := m.lacking
		m.mu.Unlock()
		if len(lacking) == 0 {
			return err
		}
		for _, name := range lacking {
			n, failed := m.vni(ctx, name)
			if failed != nil {
				return errors.Join(err, failed)
			}
			m.mu.Lock()
			m.numbers[name] = n
			m.mu.Unlock()
		}
	}
	return errors.Join(err, errors.New("the policy changes faster than its networks get numbers"))
}

// follow brings devices and tunnels into line with the placement.
func (m *member) follow() error {
	m.mu.Lock()
	settled, set := m.settled, m.set
	if settled != nil {
		next := *settled
		next.Attachments = slices.DeleteFunc(slices.Clone(settled.Attachments), func(a AttachmentConfig) bool { return a.fabric != nil })
		m.joint.join(&next, set)
		if len(m.lacking) == 0 && next.same(settled) {
			m.settled = &next
			m.mu.Unlock()
			return m.apply(next.joined.state())
		}
	}
	m.mu.Unlock()
	_, err := m.service.Reload(inspect.ReloadRequest{Cause: "cluster: other hosts"})
	return err
}

// mendEvery is how often what the kernel carries is brought into line, whoever has changed it.
const mendEvery = 30 * time.Second

// mend puts back what somebody has removed from the kernel, until ctx ends.
func (m *member) mend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(mendEvery):
		}
		m.mu.Lock()
		settled := m.settled
		m.mu.Unlock()
		if settled == nil {
			continue
		}
		if err := m.apply(settled.joined.state()); err != nil {
			m.log.Warn("cluster: what leads to other hosts is not all there", "error", err)
		}
	}
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
