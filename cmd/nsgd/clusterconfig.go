package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun/fabric"
	"go.yaml.in/yaml/v3"
)

// ClusterConfig is this host's place in a cluster, which then brings the policy.
type ClusterConfig struct {
	// Endpoints are etcd's, as http:// or https:// URLs.
	Endpoints []string         `yaml:"endpoints"`
	TLS       ClusterTLSConfig `yaml:"tls"`
	// Username is etcd's, with its password in PasswordFile; empty: the certificate says who asks.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"passwordFile"`
	// Prefix of all keys; empty: /nsgd.
	Prefix string `yaml:"prefix"`
	// Host is this host's name; empty: the machine's.
	Host string `yaml:"host"`
	// Underlay is where tunnels to this host end, with Port; 0: 4790.
	Underlay Address `yaml:"underlay"`
	Port     int     `yaml:"port"`
	// InternetHosts are the other hosts that may have the internet; empty: whichever say so.
	InternetHosts []string `yaml:"internetHosts"`
	// Lease is how long this host may be away before others may have its network interfaces; 0: 10 seconds.
	Lease Duration `yaml:"lease"`
	// OnLost is stop, which is the default, or goOn: what the host does without a lease.
	OnLost string `yaml:"onLost"`
	// Cache is a folder with the generations that were carried last; empty: /var/lib/nsgd/cluster.
	Cache string `yaml:"cache"`
	// PublicKey is a file with the ed25519 key of whoever signs generations; empty: what etcd has is taken.
	PublicKey string `yaml:"publicKey"`
}

// ClusterTLSConfig are files of PEM, relative to the configuration file.
type ClusterTLSConfig struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	CA          string `yaml:"ca"`
}

// The values of ClusterConfig.OnLost.
const (
	onLostStop = "stop"
	onLostGoOn = "goOn"
)

const (
	defaultClusterPort  = 4790 // VXLAN-GPE's
	fabricDevice        = "nsgdvx"
	defaultClusterCache = "/var/lib/nsgd/cluster"
)

// complete makes paths independent of the working directory.
func (c *ClusterConfig) complete(absolute func(string) string) {
	for _, file := range []*string{&c.TLS.Certificate, &c.TLS.Key, &c.TLS.CA, &c.PasswordFile, &c.PublicKey} {
		if *file != "" {
			*file = absolute(*file)
		}
	}
	if c.Cache == "" {
		c.Cache = defaultClusterCache
	}
	c.Cache = filepath.Clean(absolute(c.Cache))
	if c.Port == 0 {
		c.Port = defaultClusterPort
	}
	if c.OnLost == "" {
		c.OnLost = onLostStop
	}
}

// share is what a cluster gives a host. The zero value is that of a host that has got nothing yet.
type share struct {
	// generation is the policy; nil: there is none yet, and the policy is empty.
	generation *generation.Unpacked
	// nics are the ids in lower case of the network interfaces to attach. With all, every one is attached.
	nics []string
	all  bool
	// join adds what leads to other hosts to a configuration for a policy; nil: nothing does. With all, also what has no
	// number yet: to ask whether the policy takes it.
	join func(has *Config, set *policy.Set, all bool)
}

// joined is what joins a host to others.
type joined struct {
	host  string
	share topology.Share // of the ports of public addresses
	// state is what the kernel carries.
	state func() fabric.State
}

// take is adopt, and checks it: who has written a generation may have had another nsgd.
func (c *Config) take(s *share) error {
	if s.generation == nil {
		return nil
	}
	c.adopt(s.generation)
	v := validator{file: fmt.Sprintf("generation %d", s.generation.Number), root: &yaml.Node{}}
	v.meaning(c)
	return errors.Join(v.faults...)
}

// adopt sets what a generation brings.
func (c *Config) adopt(u *generation.Unpacked) {
	s := u.Located()
	c.Policy, c.ServiceTags = s.Policy, s.ServiceTags
	t := &s.Templates
	c.Templates = TemplatesConfig{Subscription: t.Subscription, ResourceGroup: t.ResourceGroup, Location: t.Location, Runtime: t.Runtime, Timeout: Duration(t.Timeout)}
	for _, p := range t.Parameters {
		c.Templates.Parameters = append(c.Templates.Parameters, p.File+p.Value)
	}
	c.AllowPartial, c.AzureQuirks, c.DefaultOutboundAddress = s.AllowPartial, s.AzureQuirks, Address{s.DefaultOutboundAddress}
	c.Platform = PlatformConfig{Subscription: s.Platform.Subscription, CreatedBefore20171115: s.Platform.CreatedBefore20171115, SMTPExempt: s.Platform.SMTPExempt}
}

// having is the configuration without the network interfaces that the share does not give.
func (c *Config) having(s *share, set *policy.Set) *Config {
	if c.Cluster == nil {
		return c
	}
	has := *c
	has.Attachments = slices.DeleteFunc(slices.Clone(c.Attachments), func(a AttachmentConfig) bool {
		return !s.all && a.NetworkInterface != "" && !slices.Contains(s.nics, a.nic(set))
	})
	if s.join != nil {
		s.join(&has, set, s.all)
	}
	return &has
}

// nic is the id of the attachment's network interface in lower case; empty: it is none, or not of the policy.
func (a *AttachmentConfig) nic(set *policy.Set) string {
	if a.NetworkInterface == "" {
		return ""
	}
	nic, err := set.NetworkInterface(a.NetworkInterface)
	if err != nil {
		return ""
	}
	return strings.ToLower(nic.ID)
}

// nics are the network interfaces that a configuration attaches, as nic has them.
func (c *Config) nics(set *policy.Set) (list []string) {
	for i := range c.Attachments {
		if id := c.Attachments[i].nic(set); id != "" {
			list = append(list, id)
		}
	}
	return list
}
