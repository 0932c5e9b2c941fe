package inspect

import (
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
)

const (
	unprobed     = "no attachment is platform: true, so no health probe is sent and every backend counts as up"
	notAskedYet  = "not asked yet"
	noIPv6Probe  = "only IPv4 is probed"
	unprobedHere = "no attachment of this host is platform: true, so it sends no health probe and its own backends count as up"
)

// Backend is what a health probe has found out about one backend.
type Backend struct {
	LoadBalancer     string `json:"loadBalancer"`
	Probe            string `json:"probe"`
	NetworkInterface string `json:"networkInterface"`
	Address          string `json:"address"`
	Protocol         string `json:"protocol"` // Tcp, Http or Https
	Port             uint16 `json:"port"`
	// Up says whether the backend takes new flows.
	Up bool `json:"up"`
	// Since is when Up changed last; absent when no probe is sent.
	Since *time.Time `json:"since,omitempty"`
	// Host is the host of the cluster that probes it; absent: this one does, or none.
	Host string `json:"host,omitempty"`
	// Reason is why the last probe failed, or why none was sent; absent when it was answered.
	Reason string `json:"reason,omitempty"`
}

// backends lists the backends that load balancers probe, in the topology's order. why says why
// no probe is sent; it is empty when probes are sent, and when there is no backend.
func (s *Service) backends(snapshot *topology.Snapshot) (list []Backend, why string) {
	known := map[string]probe.Health{}
	if s.options.Probes == nil {
		why = unprobed
	} else {
		if !s.options.Probes.Sends() {
			why = unprobedHere
		}
		for _, h := range s.options.Probes.Health() {
			known[h.Probe.Identity()] = h
		}
	}
	for _, p := range snapshot.Probes() {
		b := describeBackend(p)
		h, asked := known[p.Identity()]
		switch {
		case asked:
			b.Since, b.Reason, b.Host = &h.Since, h.Reason, h.Host
			if !h.Asked && b.Reason == "" {
				b.Reason = notAskedYet
			}
		case why == "" && p.Address.Is6():
			b.Reason = noIPv6Probe
		}
		list = append(list, b)
	}
	if len(list) == 0 {
		why = ""
	}
	return list, why
}

func describeBackend(p *topology.Probe) Backend {
	balancer, name, _ := strings.Cut(p.Name, "/")
	b := Backend{LoadBalancer: balancer, Probe: name, Address: p.Address.String(), Protocol: p.Protocol.String(), Port: p.Port, Up: p.Up()}
	if p.Target != nil && p.Target.NetworkInterface != nil {
		b.NetworkInterface = p.Target.NetworkInterface.Name
	}
	return b
}
