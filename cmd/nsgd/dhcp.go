package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/nsgd/nsgd/dataplane/dhcp"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/metrics"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go.yaml.in/yaml/v3"
)

// MAC is the hardware address of an Ethernet interface.
type MAC struct{ net.HardwareAddr }

// UnmarshalYAML reads a string such as 52:54:00:12:34:56.
func (m *MAC) UnmarshalYAML(n *yaml.Node) error {
	v, err := net.ParseMAC(n.Value)
	const length, group = 6, 1
	if n.Kind != yaml.ScalarNode || err != nil || len(v) != length || v[0]&group != 0 || bytes.Equal(v, make([]byte, length)) {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not one interface's address such as 52:54:00:12:34:56", n.Line, n.Value)}}
	}
	m.HardwareAddr = v
	return nil
}

// answers is what dhcp does at an attachment, in words.
func (a *AttachmentConfig) answers() string {
	if !a.DHCP {
		return "off"
	}
	words := []string{"on"}
	if a.DefaultGateway {
		words = append(words, "as the gateway")
	}
	if a.DHCPClient.HardwareAddr != nil {
		words = append(words, "for "+a.DHCPClient.String())
	}
	return strings.Join(words, " ")
}

// question is what decides how an interface is answered.
type question struct{ namespace, device, nic, client, how string }

// answering is a responder that runs.
type answering struct {
	*dhcp.Responder
	stop  context.CancelFunc
	ended chan struct{}
}

// responders answer DHCP on the interfaces of the attachments that ask for it, from the policy in force. Safe for
// concurrent use.
type responders struct {
	log      *slog.Logger
	snapshot func() *topology.Snapshot
	open     func(namespace, name string, gateway bool) (fd, mtu int, err error) // dhcp.Open in the privileged part

	mu      sync.Mutex
	start   func(func(context.Context)) // runs something until the daemon ends; nil before serve
	running map[question]*answering
}

// begin starts the responders of a configuration. Those of later ones are started the same way.
func (r *responders) begin(c *Config, start func(func(context.Context))) {
	r.mu.Lock()
	r.start = start
	r.mu.Unlock()
	r.follow(c)
}

// follow ends the responders that a configuration doesn't have, and starts those that are new. Others answer on.
func (r *responders) follow(c *Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start == nil {
		return
	}
	wanted := map[question]*AttachmentConfig{}
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.DHCP {
			wanted[question{a.Netns, a.Interface, a.NetworkInterface, a.DHCPClient.String(), a.answers()}] = a
		}
	}
	for q, one := range r.running { // first, so that no question has two answers
		if wanted[q] == nil {
			one.stop()
			<-one.ended
			delete(r.running, q)
		}
	}
	for q, a := range wanted {
		if r.running[q] == nil {
			r.run(q, a)
		}
	}
}

// run starts a responder. mu is held.
func (r *responders) run(q question, a *AttachmentConfig) {
	var set *policy.Set
	var nic *policy.NetworkInterface
	one := &answering{ended: make(chan struct{}), Responder: dhcp.New(dhcp.Options{
		Open:      func() (fd, mtu int, err error) { return r.open(a.Netns, a.Interface, a.DefaultGateway) },
		Interface: a.Interface, Gateway: a.DefaultGateway, Client: a.DHCPClient.HardwareAddr, Wait: a.Wait, Log: r.log,
		NetworkInterface: func() *policy.NetworkInterface {
			if now := r.snapshot().Policy; now != set { // finding it looks at every NIC
				set = now
				nic, _ = set.NetworkInterface(q.nic)
			}
			return nic
		},
	})}
	var life context.Context
	life, one.stop = context.WithCancel(context.Background())
	if r.running == nil {
		r.running = map[question]*answering{}
	}
	r.running[q] = one
	r.start(func(ctx context.Context) {
		defer close(one.ended)
		defer one.stop()
		defer context.AfterFunc(ctx, one.stop)()
		one.Run(life)
	})
}

// frames are what the responders have counted, by interface.
func (r *responders) frames() (list []metrics.DHCPFrames) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for q, one := range r.running {
		s := one.Stats()
		list = append(list, metrics.DHCPFrames{Interface: q.device, Namespace: q.namespace, Answered: s.Answered, Ignored: s.Ignored, Limited: s.Limited})
	}
	slices.SortFunc(list, func(a, b metrics.DHCPFrames) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Interface, b.Interface))
	})
	return list
}

// interfaces are the interfaces before which the daemon stands, with what their responders have counted.
func (d *daemon) interfaces() []inspect.InterfaceStatus {
	list := d.interception.statuses()
	for _, f := range d.responders.frames() {
		for i := range list {
			if list[i].Interface == f.Interface && list[i].Namespace == f.Namespace {
				list[i].DHCP = &inspect.DHCPUse{Answered: f.Answered, Ignored: f.Ignored, Limited: f.Limited}
			}
		}
	}
	return list
}
