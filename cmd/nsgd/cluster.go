//go:build !nocluster

package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun/fabric"
	"golang.org/x/sync/errgroup"
)

// member is the daemon's part in a cluster. Its methods take a nil one, of a daemon without a cluster.
type member struct {
	cache   *generation.Cache
	agent   *cluster.Agent
	service *inspect.Service
	probes  *probe.Prober
	engine  *dataplane.Engine
	host    string // its name
	log     *slog.Logger

	mu      sync.Mutex
	known   map[string]*generation.Unpacked // by folder: those that a reload may ask for; guarded by mu
	wanted  []string                        // network interfaces of the configuration; guarded by mu
	behind  map[string][]netip.Prefix       // gateways of the configuration; guarded by mu
	outside bool                            // the configuration has the internet; guarded by mu
	joint                                   // guarded by mu

	applying sync.Mutex   // held while the kernel is told what to carry, so that the newest comes last
	told     fabric.State // what the kernel was told last; the zero value: not known; guarded by applying
}

// cluster checks a host's place in a cluster.
func (v *validator) cluster(c *Config) {
	for _, key := range []string{"policy", "serviceTags", "templates", "allowPartial", "azureQuirks", "defaultOutboundAddress", "platform"} {
		if len(v.root.Content) > 0 && child(v.root.Content[0], key) != nil {
			v.fail(at(key), "the cluster brings it: leave it out, and give it to nsgctl cluster apply")
		}
	}
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.standsBefore() {
			v.fail(at("attachments", i, a.found()), "%q: not in a cluster: its guest would be open while another host has the network interface", cmp.Or(a.Interface, a.Container, a.Bridge))
		}
	}
	k := c.Cluster
	v.endpoints(k)
	if prefix := cmp.Or(k.Prefix, cluster.DefaultPrefix); cluster.CheckPrefix(prefix) != nil {
		v.fail(at("cluster", "prefix"), "%v", cluster.CheckPrefix(prefix))
	}
	if host, err := k.host(); err != nil {
		v.fail(at("cluster", "host"), "%v", err)
	} else if err := cluster.CheckHost(host); err != nil {
		v.fail(at("cluster", "host"), "%v", err)
	}
	for i, name := range k.InternetHosts {
		if err := cluster.CheckHost(name); err != nil {
			v.fail(at("cluster", "internetHosts", i), "%v", err)
		}
	}
	if u := k.Underlay; !u.IsValid() {
		v.fail(at("cluster", "underlay"), "missing: the address where tunnels to this host end is needed")
	} else if !u.IsGlobalUnicast() || u.Is4In6() || u.Zone() != "" {
		v.fail(at("cluster", "underlay"), "%s: allowed is an address that a host can have", u)
	}
	if k.Port < 1 || k.Port > 65535 {
		v.fail(at("cluster", "port"), "%d: allowed are 1 to 65535; absent means %d", k.Port, defaultClusterPort)
	}
	if d := time.Duration(k.Lease); d != 0 && (d < cluster.MinLease || d > cluster.MaxLease || d%time.Second != 0) {
		v.fail(at("cluster", "lease"), "%v: allowed are whole seconds from %v to %v; absent means %v", d, cluster.MinLease, cluster.MaxLease, cluster.DefaultLease)
	}
	if k.OnLost != onLostStop && k.OnLost != onLostGoOn {
		v.fail(at("cluster", "onLost"), "%q: allowed are %s and %s", k.OnLost, onLostStop, onLostGoOn)
	}
}

// endpoints checks where etcd is, and who asks it.
func (v *validator) endpoints(k *ClusterConfig) {
	if len(k.Endpoints) == 0 || len(k.Endpoints) > cluster.MaxEndpoints {
		v.fail(at("cluster", "endpoints"), "%d of them: allowed are 1 to %d URLs such as https://etcd1:2379", len(k.Endpoints), cluster.MaxEndpoints)
	}
	secure := 0
	for i, e := range k.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" || strings.TrimSuffix(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
			v.fail(at("cluster", "endpoints", i), "%q: allowed is http://HOST:PORT or https://HOST:PORT", e)
			continue
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	files := []struct{ key, value string }{{"certificate", k.TLS.Certificate}, {"key", k.TLS.Key}, {"ca", k.TLS.CA}}
	for _, f := range files {
		if f.value == "" && secure > 0 {
			v.fail(at("cluster", "tls", f.key), "missing: https endpoints need certificate, key and ca")
		}
		if f.value != "" && secure == 0 {
			v.fail(at("cluster", "tls", f.key), "%q: it is for https endpoints, and there is none", f.value)
		}
	}
	if secure > 0 && secure < len(k.Endpoints) {
		v.fail(at("cluster", "endpoints"), "http and https are mixed: one of them is needed for all")
	}
	if (k.Username == "") != (k.PasswordFile == "") {
		v.fail(at("cluster", "username"), "%q with passwordFile %q: both are needed, or none", k.Username, k.PasswordFile)
	}
}

// host is the name of this host.
func (k *ClusterConfig) host() (string, error) {
	if k.Host != "" {
		return k.Host, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("missing, and the machine has no name: %w", err)
	}
	return name, nil
}

// key is who signs generations; nil: nobody needs to.
func (k *ClusterConfig) key() (ed25519.PublicKey, error) {
	if k.PublicKey == "" {
		return nil, nil
	}
	text, err := os.ReadFile(k.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("cluster.publicKey: %w", err)
	}
	key, err := generation.ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("cluster.publicKey: %s: %w", k.PublicKey, err)
	}
	return key, nil
}

// lastShare is what the cluster had given to this host when it last ran. trouble is why that is not known; the host
// then begins with nothing.
func lastShare(path string) (s *share, trouble, err error) {
	s = &share{}
	c, err := loadConfig(path)
	if err != nil || c.Cluster == nil {
		return s, nil, err
	}
	key, err := c.Cluster.key()
	if err != nil {
		return nil, nil, err
	}
	host, err := c.Cluster.host()
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(c.Cluster.Cache); errors.Is(err, fs.ErrNotExist) {
		return s, nil, nil
	}
	cache, err := generation.OpenCache(c.Cluster.Cache, key)
	if err != nil {
		return s, fmt.Errorf("cluster.cache: %w", err), nil
	}
	defer cache.Close()
	if s.generation, trouble = cache.Current(); trouble != nil {
		return s, fmt.Errorf("cluster.cache: what was carried last can't be used: %w", trouble), nil
	}
	if s.generation != nil {
		s.join = lastPlacement(cache, host)
		s.nics, _, trouble = cluster.LastNICs(cache, host, bootID(), continuity.SinceBoot(), c.Cluster.OnLost == onLostGoOn)
	}
	return s, trouble, nil
}

// fence has the engine carry no longer than the last process's lease: adopted devices carry before this process joins.
func (d *daemon) fence() {
	k := d.config.Cluster
	if k == nil {
		return
	}
	var until time.Duration
	host, err := k.host()
	if err == nil {
		var cache *generation.Cache
		if cache, err = generation.OpenCache(k.Cache, nil); err == nil {
			_, until, err = cluster.LastNICs(cache, host, bootID(), continuity.SinceBoot(), k.OnLost == onLostGoOn)
			err = errors.Join(err, cache.Close())
		}
	}
	if err != nil {
		d.log.Warn("cluster: the last process's lease is not known: nothing is carried until this host has one", "error", err)
	}
	d.engine.CarryUntil(until)
}

// bootEnv says what bootID is where /proc does not show it, as under the systemd unit.
const bootEnv = "NSGD_BOOT_ID"

// bootID names the machine's boot; empty: that is not known.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return os.Getenv(bootEnv)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "") // as systemd writes it
}

// openMember takes the cache, which one process of a host has.
func (d *daemon) openMember() error {
	k := d.config.Cluster
	if k == nil {
		return nil
	}
	key, err := k.key()
	if err != nil {
		return err
	}
	cache, err := generation.OpenCache(k.Cache, key)
	if err != nil {
		return fmt.Errorf("cluster.cache: %w", err)
	}
	d.onStop(cache.Close)
	if err := cache.Lock(); err != nil {
		return fmt.Errorf("cluster.cache: %w", err)
	}
	d.member = &member{cache: cache, known: map[string]*generation.Unpacked{}, log: d.log, joint: joint{port: uint16(k.Port), counts: d.privileged.FabricCounts, mtuOf: d.privileged.UnderlayMTU}}
	d.member.apply = func(s fabric.State) error {
		err := d.privileged.Fabric(s)
		if err == nil {
			d.member.gate.open()
		}
		return err
	}
	d.member.resume(d.log)
	return nil
}

// join makes the daemon a host of the cluster. It fences before the first packet is carried.
func (m *member) join(d *daemon) error {
	if m == nil {
		return nil
	}
	k := d.config.Cluster
	m.service, m.probes, m.engine = d.service, d.probes, d.engine
	m.wants(withEdits(d.file, d.edits, d.engine.Snapshot().Policy), d.engine.Snapshot().Policy)
	m.gate = &gate{engine: d.engine.CarryUntil}
	if err := m.settle(d.config, d.engine.Snapshot().Policy); err != nil {
		d.log.Warn("cluster: nothing is carried until the kernel carries packets between hosts", "error", err)
		m.gate.shut(err)
	}
	host, err := k.host()
	if err != nil {
		return err
	}
	key, err := k.key()
	if err != nil {
		return err
	}
	m.host = host
	store, err := k.open()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	d.onStop(store.Close)
	m.vni = store.VNI
	var health func(string) []string
	if m.probes.Sends() {
		health = m.answering
	}
	m.agent, err = cluster.NewAgent(cluster.AgentOptions{
		Store: store, Cache: m.cache, Host: host, Underlay: k.Underlay.Addr, Port: uint16(k.Port), MTU: m.underlayMTU,
		Version: version, Control: advertised(d.remote.address(), k.Underlay.Addr), Internet: m.internet, InternetHosts: k.InternetHosts,
		Health: health, Hear: m.hear, Lease: cmp.Or(time.Duration(k.Lease), cluster.DefaultLease), GoOn: k.OnLost == onLostGoOn,
		Gateways: m.gateways, Placed: m.place, Key: key, Boot: bootID(), Clock: d.engine.Clock, Fence: m.gate.fence, Start: d.share.generation,
		Attached: d.config.nics(d.engine.Snapshot().Policy), Daemon: m, Listen: k.listen, Dial: k.dial, Log: d.log,
	})
	return err
}

// open is etcd's part of the cluster.
func (k *ClusterConfig) open() (*cluster.Store, error) {
	o := cluster.StoreOptions{
		Endpoints: k.Endpoints, TLS: cluster.TLSFiles{Certificate: k.TLS.Certificate, Key: k.TLS.Key, CA: k.TLS.CA},
		Username: k.Username, Prefix: cmp.Or(k.Prefix, cluster.DefaultPrefix),
	}
	if k.PasswordFile != "" {
		text, err := os.ReadFile(k.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("passwordFile: %w", err)
		}
		o.Password = strings.TrimRight(string(text), "\r\n")
	}
	return cluster.Open(o)
}

func (m *member) run(ctx context.Context) error {
	if m == nil {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.agent.Run(ctx) })
	group.Go(func() error { m.mend(ctx); return nil })
	return group.Wait()
}

// wants notes the network interfaces that a configuration attaches.
func (m *member) wants(c *Config, set *policy.Set) {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.wanted, m.behind, m.outside = c.nics(set), c.gateways(set), slices.ContainsFunc(c.Attachments, func(a AttachmentConfig) bool { return a.Internet })
	m.mu.Unlock()
	if m.agent != nil {
		m.agent.Wake()
	}
}

// healthChanged tells the others that a backend of this host went up or down.
func (m *member) healthChanged() {
	if m != nil && m.agent != nil {
		m.agent.Wake()
	}
}

// answering are the probes that are answered, also those of a network interface that arrives; empty: none does.
func (m *member) answering(arrives string) []string {
	if arrives == "" {
		return m.probes.Answering(nil)
	}
	return m.probes.Answering(func(p *topology.Probe) bool {
		nic := p.Target.NetworkInterface
		return nic != nil && cluster.NormalNIC(nic.ID) == arrives
	})
}

// hear takes over what other hosts say of their backends.
func (m *member) hear(h *cluster.Health) {
	m.probes.Hear(func(p *topology.Probe) (probe.Told, bool) {
		if p.Target.NetworkInterface == nil { // nothing leads to it from other hosts
			return probe.Told{}, true
		}
		up, host, unprobed := h.Of(p.Target.NetworkInterface.ID, p.Identity())
		return probe.Told{Up: up, Host: host, Unprobed: unprobed}, true
	})
}
