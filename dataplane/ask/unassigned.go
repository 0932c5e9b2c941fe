package ask

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// unassigned lists what the internet may reach by public addresses that Azure has not chosen yet, as not decided: they are in no
// packet of an answer. What the receiver's rules deny anyway is left out.
func (q *betweenQuery) unassigned(services []analysis.Service) (list []ReachUndecided) {
	if q.to.given || len(q.fromInternet()) == 0 {
		return nil
	}
	ways := waysIn(q.snapshot.Policy)
	for _, e := range q.snapshot.Endpoints() {
		if e.NetworkInterface == nil || q.to.means != nil && !q.to.means(e) {
			continue
		}
		for _, w := range ways[hostKey{e.Subnet.VirtualNetwork, e.Address()}] {
			if w.public.IsValid() || !q.asksFor(&w, services) || !q.opens(e, &w, services) {
				continue
			}
			list = append(list, ReachUndecided{From: []string{topology.Internet.String()}, To: []string{e.NetworkInterface.Name}, Boxes: []DiffBox{},
				Why: w.what + " has no address yet: Azure will choose it"})
		}
	}
	return list
}

// opens reports that an endpoint lets some of the services in by a way, from the senders that are asked about.
func (q *betweenQuery) opens(e *topology.Endpoint, w *wayIn, services []analysis.Service) bool {
	if here := w.services(); here != nil {
		services = here // a load balancer may change the port
	}
	lists := q.chains.Of(e, ruleset.Inbound).Lists
	if q.except.arriving != nil {
		lists = append(analysis.Chain{q.except.arriving}, lists...)
	}
	_, sources := namesAndRanges(q.fromInternet())
	reachable := analysis.Reach(lists, analysis.Options{MaxStates: q.maxStates, Within: analysis.Packets{
		Sources: sources, Destinations: hostPrefix(packet.AddrFrom(w.address)), Services: services}})
	return len(reachable.Allowed)+len(reachable.Undecided) > 0
}

// fromInternet are the senders on the internet.
func (q *betweenQuery) fromInternet() []place {
	return slices.DeleteFunc(slices.Clone(q.sources), func(p place) bool { return q.snapshot.KindOf(p.endpoint) != topology.Internet })
}

// asksFor reports that some of the services, nil for all, come by the way.
func (q *betweenQuery) asksFor(w *wayIn, services []analysis.Service) bool {
	var ports []ruleset.PortRange
	if !q.arriving || q.sentToo {
		ports = append(ports, w.asked)
	}
	if q.arriving {
		ports = append(ports, w.ports)
	}
	transports := map[uint8]policy.Transport{packet.ProtoTCP: policy.TransportTCP, packet.ProtoUDP: policy.TransportUDP}
	return services == nil || slices.ContainsFunc(services, func(s analysis.Service) bool {
		t, ported := transports[s.Protocol]
		if !ported {
			return w.transport == policy.TransportAll
		}
		return w.transport.Overlaps(t) && (s.Ports == nil || len(commonPorts(s.Ports, ports)) > 0)
	})
}
