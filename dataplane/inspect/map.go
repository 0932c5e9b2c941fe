package inspect

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// MaxMapNodes bounds the network interfaces of a map. Those beyond are part of their subnet's node.
const MaxMapNodes = 400

// Map is who is where under the policy in force: the nodes between which TrafficMap has edges.
type Map struct {
	Generation uint64 `json:"generation"`
	// Nodes have their parents before them.
	Nodes []MapNode `json:"nodes"`
	// Hidden counts network interfaces beyond MaxMapNodes.
	Hidden int `json:"hidden"`
}

// MapNode is a place on the map.
type MapNode struct {
	// Kind is internet, platform, gateway, loadBalancer, virtualNetwork, subnet or networkInterface.
	Kind string `json:"kind"`
	// Name is of the resource; a subnet's is VNET/SUBNET.
	Name string `json:"name"`
	// Parent is the index of the node around this one; -1: none is.
	Parent int `json:"parent"`
	// Addresses are the node's addresses or prefixes, at most maxMapAddresses.
	Addresses []string `json:"addresses"`
	// NetworkSecurityGroup is the node's own; absent without one.
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	// Attached says that a device leads there, or to its subnet.
	Attached bool `json:"attached"`
	// Members are the indexes of a load balancer's backends.
	Members []int `json:"members,omitempty"`
}

const maxMapAddresses = 8

// atlas finds the nodes of ends.
type atlas struct {
	Map
	snapshot  *topology.Snapshot
	outside   int
	platform  int // -1: nothing is attached for it
	nics      map[*policy.NetworkInterface]int
	subnets   map[*policy.Subnet]int
	gateways  map[int]int        // by attachment
	balancers map[netip.Addr]int // by frontend
}

func newAtlas(s *topology.Snapshot) *atlas {
	a := &atlas{Map: Map{Generation: s.Generation}, snapshot: s, platform: -1, nics: map[*policy.NetworkInterface]int{},
		subnets: map[*policy.Subnet]int{}, gateways: map[int]int{}, balancers: map[netip.Addr]int{}}
	kinds := map[topology.Kind]bool{}
	for _, at := range s.Attachments {
		kinds[at.Kind] = true
	}
	attached := map[*policy.Subnet]bool{}
	for _, e := range s.Endpoints() {
		if e.NetworkInterface == nil && e.Attachment >= 0 {
			attached[e.Subnet] = true
		}
	}
	a.outside = a.add(MapNode{Kind: "internet", Name: "internet", Parent: -1, Attached: kinds[topology.Internet]})
	if kinds[topology.Platform] {
		a.platform = a.add(MapNode{Kind: "platform", Name: "platform", Parent: -1, Attached: true})
	}
	for _, at := range s.Attachments {
		if at.Kind == topology.Gateway {
			a.gateways[at.Index] = a.add(MapNode{Kind: "gateway", Name: at.Name, Parent: -1, Attached: true})
		}
	}
	for _, v := range s.Policy.VirtualNetworks {
		a.network(v, attached)
	}
	a.interfaces()
	for _, b := range s.Policy.LoadBalancers {
		a.balancer(b)
	}
	return a
}

func (a *atlas) add(n MapNode) int {
	if len(n.Addresses) > maxMapAddresses {
		n.Addresses = n.Addresses[:maxMapAddresses]
	}
	n.Addresses = append([]string{}, n.Addresses...)
	a.Nodes = append(a.Nodes, n)
	return len(a.Nodes) - 1
}

func (a *atlas) network(v *policy.VirtualNetwork, attached map[*policy.Subnet]bool) {
	at := a.add(MapNode{Kind: "virtualNetwork", Name: v.Name, Parent: -1, Addresses: texts(v.AddressSpace), Attached: true})
	for _, sub := range v.Subnets {
		a.subnets[sub] = a.add(MapNode{Kind: "subnet", Name: v.Name + "/" + sub.Name, Parent: at, Addresses: texts(sub.Prefixes),
			NetworkSecurityGroup: a.label(sub.NetworkSecurityGroup), Attached: attached[sub]})
	}
}

func (a *atlas) interfaces() {
	for _, nic := range a.snapshot.Policy.NetworkInterfaces {
		sub := nic.IPConfigurations[0].Subnet
		if len(a.nics) == MaxMapNodes {
			a.Hidden++
			continue
		}
		n := MapNode{Kind: "networkInterface", Name: nic.Name, Parent: a.subnets[sub],
			NetworkSecurityGroup: a.label(nic.NetworkSecurityGroup)}
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			n.Addresses = append(n.Addresses, c.Address.String())
			e := a.snapshot.Endpoint(nic, c.Address)
			n.Attached = n.Attached || e != nil && e.Attachment >= 0
		}
		a.nics[nic] = a.add(n)
	}
}

func (a *atlas) balancer(b *policy.LoadBalancer) {
	n := MapNode{Kind: "loadBalancer", Name: b.Name, Parent: -1, Attached: true}
	for _, f := range b.Frontends {
		if f.Address.IsValid() {
			n.Addresses = append(n.Addresses, f.Address.String())
			a.balancers[f.Address] = len(a.Nodes)
		}
	}
	for _, pool := range b.Pools {
		for i := range pool.Backends {
			if at, shown := a.nics[pool.Backends[i].NetworkInterface]; shown && !slices.Contains(n.Members, at) {
				n.Members = append(n.Members, at)
			}
		}
	}
	a.add(n)
}

// label is an NSG's name as counters have it; empty for nil.
func (a *atlas) label(g *ruleset.NSG) string {
	for _, group := range a.snapshot.Groups {
		if g != nil && group.NSG == g {
			return group.Label
		}
	}
	return ""
}

func texts[T interface{ String() string }](list []T) (all []string) {
	for _, one := range list[:min(len(list), maxMapAddresses)] {
		all = append(all, one.String())
	}
	return all
}

// node is an endpoint's node, or -1.
func (a *atlas) node(e *topology.Endpoint) int {
	if e == nil {
		return -1
	}
	if at, shown := a.nics[e.NetworkInterface]; shown {
		return at
	}
	if e.Subnet != nil {
		return a.subnets[e.Subnet]
	}
	switch a.snapshot.KindOf(e) {
	case topology.Platform:
		return a.platform
	case topology.Gateway:
		if at, shown := a.gateways[e.Attachment]; shown {
			return at
		}
		return -1
	}
	return a.outside
}

// through is the load balancer that has an address, or -1.
func (a *atlas) through(address packet.Addr) int {
	if at, is := a.balancers[address.Netip()]; is {
		return at
	}
	return -1
}

// Map shows who is where.
func (s *Service) Map() *Map {
	s.top.mu.Lock()
	defer s.top.mu.Unlock()
	s.top.touch()
	return &s.top.atlasOf(s.Snapshot()).Map
}

// atlasOf is made once for a snapshot, as long as somebody looks at maps. mu is held.
func (b *topMemory) atlasOf(snapshot *topology.Snapshot) *atlas {
	if b.atlas == nil || b.atlas.snapshot != snapshot {
		b.atlas = newAtlas(snapshot)
	}
	return b.atlas
}
