//go:build !nocluster

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// What a member of a cluster does when its agent asks, and what it tells of the cluster.

// generation is the one in a folder that a reload may ask for; nil: there is none.
func (m *member) generation(folder string) *generation.Unpacked {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[folder]
}

var _ cluster.Daemon = (*member)(nil)

// with makes a generation known for as long as a call takes.
func (m *member) with(u *generation.Unpacked, call func() error) error {
	m.mu.Lock()
	m.known[u.Folder] = u
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.known, u.Folder)
	}()
	return call()
}

// Try implements cluster.Daemon.
func (m *member) Try(u *generation.Unpacked) error {
	return m.with(u, func() error {
		err := m.service.Try(inspect.Edit{Generation: u.Folder, All: true})
		m.mu.Lock()
		defer m.mu.Unlock()
		m.tried, m.triedOf = m.lacking, u.Folder
		return err
	})
}

// Carry implements cluster.Daemon.
func (m *member) Carry(u *generation.Unpacked, nics []string) error {
	return m.with(u, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), numberPatience)
		defer cancel()
		refused := map[string]bool{}
		m.mu.Lock()
		if m.triedOf == u.Folder {
			m.lacking = m.tried
		}
		m.mu.Unlock()
		for tries := 0; ; tries++ { // a policy may need what leads to other hosts, and that has no number yet
			numbered := m.number(ctx, refused)
			_, err := m.service.Reload(inspect.ReloadRequest{
				Cause: fmt.Sprintf("cluster: generation %d, %d network interfaces", u.Number, len(nics)),
				Edit:  inspect.Edit{Generation: u.Folder, NetworkInterfaces: append([]string{}, nics...)},
			})
			if errors.Is(err, inspect.ErrUnconfirmed) || errors.Is(err, inspect.ErrUpgrading) {
				return fmt.Errorf("later: %w", err)
			}
			if err == nil {
				return nil
			}
			if tries == 2 || len(m.unnumbered(refused)) == 0 {
				return errors.Join(err, numbered)
			}
		}
	})
}

// numberPatience bounds how long a generation waits for numbers of its networks.
const numberPatience = 10 * time.Second

// gateways are those of the configuration, for cluster.AgentOptions.
func (m *member) gateways() map[string][]netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.behind
}

// internet is for cluster.AgentOptions.
func (m *member) internet() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outside
}

// underlayMTU is for cluster.AgentOptions.
func (m *member) underlayMTU() int {
	mtu, err := m.mtuOf()
	if err != nil {
		return 0
	}
	return mtu
}

// NICs implements cluster.Daemon.
func (m *member) NICs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.wanted)
}

// status is for nsgctl status; nil without a cluster.
func (m *member) status() *inspect.ClusterStatus {
	if m == nil || m.agent == nil {
		return nil
	}
	s := m.agent.Status()
	c := &inspect.ClusterStatus{
		Host: s.Host, Connected: s.Connected, Error: s.Error, Registered: s.Registered, Generation: s.Generation, Current: s.Current, Offered: s.Offered,
		Attached: append([]string{}, s.NICs...), Waiting: []inspect.WaitingForAttached{}, Faults: append(m.gate.faults(), s.Faults...), Reaches: s.Reaches, Hosts: s.Hosts, Claims: s.Claims,
	}
	if !s.GoOn {
		seconds := s.Carries.Seconds()
		c.CarriesSeconds = &seconds
	}
	if r := s.Refused; r != nil {
		c.Refused, c.RefusedFor = r.Generation, r.Fault
	}
	for _, nic := range slices.Sorted(maps.Keys(s.Waiting)) {
		c.Waiting = append(c.Waiting, inspect.WaitingForAttached{NetworkInterface: nic, Host: s.Waiting[nic]})
	}
	return c
}

// hosts are where the hosts of the cluster answer.
func (m *member) hosts() (*inspect.ClusterHosts, error) {
	if m == nil || m.agent == nil {
		return nil, inspect.ErrNoCluster
	}
	controls, known := m.agent.Controls()
	if !known {
		return nil, errors.New("the hosts of the cluster are not known until etcd answers")
	}
	list := &inspect.ClusterHosts{Host: m.agent.Host, Hosts: []inspect.ClusterHost{}}
	for _, name := range slices.Sorted(maps.Keys(controls)) {
		list.Hosts = append(list.Hosts, inspect.ClusterHost{Name: name, Control: controls[name]})
	}
	return list, nil
}

// advertised is where others find a listener: at the underlay's address if it takes all addresses.
func advertised(listens string, underlay netip.Addr) string {
	a, err := netip.ParseAddrPort(listens)
	switch {
	case err != nil:
		return ""
	case a.Addr().IsUnspecified():
		return netip.AddrPortFrom(underlay, a.Port()).String()
	case a.Addr().IsLoopback():
		return ""
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// collectors are the metrics of the cluster.
func (m *member) collectors() []prometheus.Collector {
	if m == nil {
		return nil
	}
	return []prometheus.Collector{metrics.Fabric(m.carried), metrics.Cluster(func() metrics.ClusterState {
		s := m.agent.Status()
		return metrics.ClusterState{
			Connected: s.Connected, Registered: s.Registered, Carries: s.GoOn || s.Carries > 0, Generation: s.Generation, Current: s.Current,
			Refuses: s.Refused != nil, Attached: len(s.NICs), Waiting: len(s.Waiting), Faults: len(s.Faults), Moves: s.Moves,
		}
	})}
}
