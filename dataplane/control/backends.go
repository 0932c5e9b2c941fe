package control

import (
	"strings"

	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
)

const (
	unprobed    = "no attachment is platform: true, so no health probe is sent and every backend counts as up"
	notAskedYet = "not asked yet"
	noIPv6Probe = "only IPv4 is probed"
)

// backends lists the backends that load balancers probe, in the topology's order, and says why
// none is asked.
func (s *Service) backends(snapshot *topology.Snapshot) (list []Backend, why string) {
	known := map[*topology.Probe]probe.Health{}
	if s.options.Probes == nil {
		why = unprobed
	} else {
		for _, h := range s.options.Probes.Health() {
			known[h.Probe] = h
		}
	}
	for _, p := range snapshot.Probes() {
		b := showBackend(p)
		h, asked := known[p]
		switch {
		case asked:
			b.Since, b.Reason = &h.Since, h.Reason
			if !h.Asked {
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

func showBackend(p *topology.Probe) Backend {
	balancer, name, _ := strings.Cut(p.Name, "/")
	b := Backend{LoadBalancer: balancer, Probe: name, Address: p.Address.String(), Protocol: p.Protocol.String(), Port: p.Port, Up: p.Up()}
	if p.Target != nil && p.Target.NetworkInterface != nil {
		b.NetworkInterface = p.Target.NetworkInterface.Name
	}
	return b
}
