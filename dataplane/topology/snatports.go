package topology

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The ports of a shared address that flows may take. A load balancer's frontend gives 64,000.
const (
	firstSharedPort      = 1024
	lastSharedPort       = 65535
	lastBalancerPort     = firstSharedPort + 64000 - 1
	balancerPortBlock    = 8    // ports around a rule's frontend port that outbound flows can't take
	maxDefaultAllocation = 1024 // ports of a backend without an allocation, over all frontends
)

// freePorts are the ports of a frontend's address that outbound flows may take. A block of
// eight ports that holds a rule's port is not free.
func (m *membership) freePorts(a netip.Addr) (list []PortRange) {
	taken := map[uint16]bool{}
	take := func(f *policy.Frontend, first, last uint16) {
		for block := int(first) / balancerPortBlock; f.Address == a && block <= int(last)/balancerPortBlock; block++ {
			taken[uint16(block)] = true
		}
	}
	for _, r := range m.balancer.Rules {
		take(r.Frontend, r.FrontendPort, r.FrontendPort)
	}
	for _, r := range m.balancer.NATRules {
		take(r.Frontend, r.First, r.Last)
	}
	address := packet.AddrFrom(a)
	for first := firstSharedPort; first <= lastBalancerPort; first += balancerPortBlock {
		if taken[uint16(first/balancerPortBlock)] {
			continue
		}
		last := uint16(first + balancerPortBlock - 1)
		if n := len(list); n > 0 && int(list[n-1].Last) == first-1 {
			list[n-1].Last = last
		} else {
			list = append(list, PortRange{address, uint16(first), last})
		}
	}
	return list
}

// defaultPorts are the ports of member i of a pool without an allocation: the pool's size says
// how many of each address, at most 1,024 in all (azure-docs, load-balancer-outbound-connections,
// default port allocation).
func (m *membership) defaultPorts(addresses []netip.Addr, i, size int) (ports []PortRange) {
	n := 32
	for _, step := range []struct{ size, ports int }{{800, 64}, {400, 128}, {200, 256}, {100, 512}, {50, 1024}} {
		if size <= step.size {
			n = step.ports
		}
	}
	for j, a := range addresses {
		if (j+1)*n > maxDefaultAllocation {
			break
		}
		ports = append(ports, cutPorts(m.freePorts(a), i*n, n)...)
	}
	return ports
}

// Share is a host's share of ports where several hosts have the internet, so that no two of them give flows the
// same port: share Index, from 0 on, of Of equal ones. The zero value is all. A host without a port of an address
// lets nothing out by it.
type Share struct{ Index, Of int }

// check says what is wrong with the share.
func (s Share) check(f *faults) {
	if s.Of < 0 || s.Index < 0 || s.Index >= max(s.Of, 1) {
		f.add("share of ports: number %d of %d: allowed are numbers from 0 on that are less than the number of shares", s.Index, s.Of)
	}
}

// of cuts the share out of ranges.
func (s Share) of(ranges []PortRange) []PortRange {
	if s.Of <= 1 || len(ranges) == 0 {
		return ranges
	}
	n := 0
	for i := range ranges {
		n += ranges[i].size()
	}
	first, end := n*s.Index/s.Of, n*(s.Index+1)/s.Of
	return cutPorts(ranges, first, end-first)
}

// cutPorts takes n ports of the ranges, beginning with number from. It returns fewer when there
// are no more.
func cutPorts(ranges []PortRange, from, n int) (list []PortRange) {
	for _, r := range ranges {
		size := int(r.Last) - int(r.First) + 1
		if from >= size {
			from -= size
			continue
		}
		take := min(n, size-from)
		if take <= 0 {
			break
		}
		first := int(r.First) + from
		list = append(list, PortRange{r.Address, uint16(first), uint16(first + take - 1)})
		n, from = n-take, 0
	}
	return list
}

// Choose puts the port and the address that a flow, sent as a tuple, tries first into a way with Ports,
// and returns the number of their range. Snapshots with one seed choose the same.
func (s *Snapshot) Choose(w *Way, sent *packet.Tuple) (at int) {
	n := 0
	for i := range w.Ports {
		n += w.Ports[i].size()
	}
	hash := mix(mix(mix(mix(s.options.Seed, sent.Src.Hi), sent.Src.Lo), sent.Dst.Hi), sent.Dst.Lo)
	hash = spread(mix(hash, uint64(sent.SrcPort)<<32|uint64(sent.DstPort)<<16|uint64(sent.Proto)<<8|7))
	i := below(hash, n)
	for i >= w.Ports[at].size() {
		i -= w.Ports[at].size()
		at++
	}
	w.Arrives.Src, w.Arrives.SrcPort = w.Ports[at].Address, w.Ports[at].First+uint16(i)
	return at
}

func (r *PortRange) size() int { return int(r.Last) - int(r.First) + 1 }
