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

// portLooks bounds how many ports are tried for one flow. With 60,000 of 64,512 in use, 14 are
// enough on average. With fewer than fifty left, a flow may be refused though a port is free.
const portLooks = 2000

// Choice goes through the ports that a flow may take, in an order of its own.
type Choice struct {
	ranges   []PortRange
	hash     uint64
	n, tried uint32
}

// Choose makes the Choice among a way's Ports for a flow that is sent as a tuple. Snapshots with
// one seed try the ports in the same order.
func (s *Snapshot) Choose(w *Way, sent *packet.Tuple) Choice {
	c := Choice{ranges: w.Ports}
	for i := range c.ranges {
		c.n += uint32(c.ranges[i].Last-c.ranges[i].First) + 1
	}
	c.hash = mix(mix(mix(mix(s.seed, sent.Src.Hi), sent.Src.Lo), sent.Dst.Hi), sent.Dst.Lo)
	c.hash = mix(c.hash, uint64(sent.SrcPort)<<32|uint64(sent.DstPort)<<16|uint64(sent.Proto)<<8|7)
	return c
}

// Next puts the next port and its address into arrives. It is false when none is left, or when
// portLooks have been tried. Up to portLooks ports are tried once each; of more, some at random.
func (c *Choice) Next(arrives *packet.Tuple) bool {
	if c.tried >= min(c.n, portLooks) {
		return false
	}
	i := uint32(0)
	if c.n <= portLooks {
		i = (uint32(below(c.hash, int(c.n))) + c.tried) % c.n
	} else {
		i = uint32(below(mix(c.hash, uint64(c.tried)), int(c.n)))
	}
	c.tried++
	for r := range c.ranges {
		n := uint32(c.ranges[r].Last-c.ranges[r].First) + 1
		if i < n {
			arrives.Src, arrives.SrcPort = c.ranges[r].Address, c.ranges[r].First+uint16(i)
			return true
		}
		i -= n
	}
	return false
}
