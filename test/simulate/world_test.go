package simulate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The subnets. Two networks have the same addresses and do not know of each other.
const (
	behindGateway = iota // NICs behind a NAT gateway; the first ones are the load balancer's backends too
	withPublic           // NICs, some with public addresses, and nothing else leads out
	shared               // one attachment for the whole subnet
	twin                 // the other network's, with the addresses of the first subnet and a gateway of its own
	numSubnets
)

// The hosts, by subnet and then outside.
const (
	numHosts     = 20
	firstPublic  = 5 // of withPublic
	firstShared  = 9
	firstTwin    = 12
	firstOutside = 15
	mover        = 4 // has another address in some plans
	sometimes    = 7 // has a public address in some plans
	numBackends  = 3 // the first hosts are behind the load balancer
)

// The attachments: one for each NIC outside the shared subnet, then those of many.
const (
	atShared = iota + 12
	atOutside
	numAttachments
)

// host is somebody who sends and receives.
type host struct {
	at     int
	subnet int // -1: on the internet
	v4, v6 netip.Addr
	nic    int // index of its NIC's group in a plan; -1: it has no NIC
}

var subnetPrefixes = [numSubnets][2]netip.Prefix{
	{netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("fd00:a:0:1::/64")},
	{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:a:0:2::/64")},
	{netip.MustParsePrefix("10.1.3.0/24"), netip.MustParsePrefix("fd00:a:0:3::/64")},
	{netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("fd00:a:0:1::/64")},
}

var (
	space4, space6 = netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:a::/48")
	gatewayOf      = [numSubnets]netip.Addr{behindGateway: netip.MustParseAddr("198.51.100.1"), twin: netip.MustParseAddr("198.51.100.2")}
	frontend       = netip.MustParseAddr("198.51.100.30")
)

const frontendPort, backendPort = 80, 8080

// publicOf is the public address that a host of withPublic may have.
func publicOf(h int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(h)}) }

var hosts = func() (list [numHosts]host) {
	at := 0
	add := func(i, subnet int) {
		h := &list[i]
		h.subnet, h.nic, h.at = subnet, i, at
		v4, v6 := subnetPrefixes[subnet][0].Addr().As4(), subnetPrefixes[subnet][1].Addr().As16()
		n := byte(4 + i)
		if subnet == twin {
			n = byte(4 + i - firstTwin)
		}
		v4[3], v6[15] = n, n
		h.v4, h.v6 = netip.AddrFrom4(v4), netip.AddrFrom16(v6)
		if subnet == shared {
			h.at = atShared
			if i > firstShared {
				h.nic = -1
			}
			return
		}
		at++
	}
	for i := range firstOutside {
		switch {
		case i < firstPublic:
			add(i, behindGateway)
		case i < firstShared:
			add(i, withPublic)
		case i < firstTwin:
			add(i, shared)
		default:
			add(i, twin)
		}
	}
	for i := firstOutside; i < numHosts; i++ {
		n := byte(i - firstOutside + 1)
		list[i] = host{at: atOutside, subnet: -1, nic: -1,
			v4: netip.AddrFrom4([4]byte{20, 40, 0, n}), v6: netip.MustParseAddr(fmt.Sprintf("2600:1::%d", n))}
	}
	return list
}()

// movedTo is where the mover is in some plans.
var movedTo = netip.MustParseAddr("10.1.1.99")

// network tells the two virtual networks apart; -1 is the internet.
func (h *host) network() int {
	switch h.subnet {
	case -1:
		return -1
	case twin:
		return 1
	}
	return 0
}

// plan is a policy as the simulation sees it.
type plan struct {
	groups    []*ruleset.NSG
	ofSubnet  [numSubnets]int // index of groups, or -1
	ofNIC     [firstOutside]int
	moved     bool // the mover has its other address
	extra     bool // sometimes has its public address
	gateway   bool // the first subnet has its NAT gateway
	balancer  bool
	generated int // its number
}

// v4 is a host's IPv4 address.
func (p *plan) v4(h int) netip.Addr {
	if h == mover && p.moved {
		return movedTo
	}
	return hosts[h].v4
}

func (p *plan) addr(h int, v6 bool) packet.Addr {
	if v6 {
		return packet.AddrFrom(hosts[h].v6)
	}
	return packet.AddrFrom(p.v4(h))
}

// public is a host's own public address, if it has one.
func (p *plan) public(h int) (netip.Addr, bool) {
	if h == firstPublic || h == firstPublic+1 || h == sometimes && p.extra {
		return publicOf(h), true
	}
	return netip.Addr{}, false
}

// out is the address by which a host's packets leave for the internet. own means that nobody shares it.
func (p *plan) out(h int) (a netip.Addr, own, ok bool) {
	switch subnet := hosts[h].subnet; {
	case subnet == behindGateway && p.gateway, subnet == twin:
		return gatewayOf[subnet], false, true
	}
	a, ok = p.public(h)
	return a, true, ok
}

// groupsOf are the groups that judge a host; nil stands for none.
func (p *plan) groupsOf(h int) (of [2]*ruleset.NSG) {
	if subnet := hosts[h].subnet; subnet >= 0 {
		if i := p.ofSubnet[subnet]; i >= 0 {
			of[0] = p.groups[i]
		}
	}
	if n := hosts[h].nic; n >= 0 {
		if i := p.ofNIC[n]; i >= 0 {
			of[1] = p.groups[i]
		}
	}
	return of
}

// openPlan is one without a group at the hosts that talk privately, so that they may.
func openPlan() *plan {
	p := &plan{gateway: true}
	for i := range p.ofSubnet {
		p.ofSubnet[i] = -1
	}
	for i := range p.ofNIC {
		p.ofNIC[i] = -1
	}
	return p
}

// choices makes plans.
type choices struct {
	random *rand.Rand
	names  int  // of rules so far
	fresh  bool // rules never have the name of an earlier one
	plans  int
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// plan is a random plan.
func (c *choices) plan() *plan {
	p := openPlan()
	for i := range 1 + c.random.IntN(5) {
		g := &ruleset.NSG{Name: fmt.Sprint("nsg", i), ID: fmt.Sprint("/nsg/nsg", i), FlushConnection: c.random.IntN(3) == 0}
		g.Rules = c.rules()
		p.groups = append(p.groups, g)
	}
	for i := range p.ofSubnet {
		p.ofSubnet[i] = c.random.IntN(len(p.groups)+1) - 1
	}
	for i := range p.ofNIC {
		p.ofNIC[i] = -1
		if c.random.IntN(2) == 0 {
			p.ofNIC[i] = c.random.IntN(len(p.groups))
		}
	}
	p.moved, p.extra = c.random.IntN(3) == 0, c.random.IntN(3) > 0
	p.gateway, p.balancer = c.random.IntN(6) > 0, c.random.IntN(3) > 0
	c.plans++
	p.generated = c.plans
	return p
}

// change is a plan that differs a little from another one.
func (c *choices) change(from *plan) *plan {
	if len(from.groups) == 0 || c.random.IntN(8) == 0 {
		return c.plan()
	}
	p := *from
	p.groups = slices.Clone(from.groups)
	c.plans++
	p.generated = c.plans
	for range 1 + c.random.IntN(3) {
		switch c.random.IntN(10) {
		case 0:
			p.ofSubnet[c.random.IntN(numSubnets)] = c.random.IntN(len(p.groups)+1) - 1
		case 1:
			p.ofNIC[c.random.IntN(firstOutside)] = c.random.IntN(len(p.groups)+1) - 1
		case 2:
			p.moved = !p.moved
		case 3:
			p.extra = !p.extra
		case 4:
			p.gateway, p.balancer = c.random.IntN(6) > 0, c.random.IntN(3) > 0
		default:
			p.regroup(c.random.IntN(len(p.groups)), c.rules(), c.random.IntN(3) == 0)
		}
	}
	return &p
}

// regroup gives a group other rules; the plan must own its list of groups.
func (p *plan) regroup(i int, rules []ruleset.Rule, flush bool) {
	g := *p.groups[i]
	g.Rules, g.FlushConnection = rules, flush
	p.groups[i] = &g
}

func (c *choices) rules() (list []ruleset.Rule) {
	for i := range c.random.IntN(7) {
		name := fmt.Sprint("rule", i)
		if c.fresh {
			c.names++
			name = fmt.Sprint("rule", c.names)
		}
		list = append(list, ruleset.Rule{
			Name: name, Priority: 100 + 8*c.random.IntN(200) + i,
			Direction: pick(c.random, ruleset.Inbound, ruleset.Outbound),
			Access:    pick(c.random, ruleset.Allow, ruleset.Allow, ruleset.Deny),
			Protocol:  pick(c.random, ruleset.AnyProtocol, ruleset.AnyProtocol, ruleset.TCP, ruleset.UDP, ruleset.ICMP),
			Source:    c.peer(), Destination: c.peer(),
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: c.ports(),
		})
	}
	return list
}

func (c *choices) peer() ruleset.Peer {
	switch c.random.IntN(6) {
	case 0, 1:
		return ruleset.Peer{Any: true}
	case 2:
		return ruleset.Peer{Tag: ruleset.TagVirtualNetwork}
	case 3:
		return ruleset.Peer{Tag: ruleset.TagInternet}
	}
	var p ruleset.Peer
	for range 1 + c.random.IntN(2) {
		h := &hosts[c.random.IntN(numHosts)]
		bits4, bits6 := pick(c.random, 32, 32, 24, 16), pick(c.random, 128, 64, 48)
		prefix, _ := h.v4.Prefix(bits4)
		if c.random.IntN(4) == 0 {
			prefix, _ = h.v6.Prefix(bits6)
		}
		p.Prefixes = append(p.Prefixes, prefix)
	}
	return p
}

func (c *choices) ports() []ruleset.PortRange {
	return pick(c.random,
		[]ruleset.PortRange{ruleset.AllPorts}, []ruleset.PortRange{ruleset.AllPorts},
		[]ruleset.PortRange{{First: 80, Last: 80}}, []ruleset.PortRange{{First: 8080, Last: 8080}},
		[]ruleset.PortRange{{First: 53, Last: 443}}, []ruleset.PortRange{{First: 80, Last: 80}, {First: 1024, Last: 65535}})
}

var specs = func() (list []topology.Spec) {
	for i, h := range hosts[:firstOutside] {
		if h.subnet != shared {
			list = append(list, topology.Spec{Kind: topology.NetworkInterface, Reference: nicName(i)})
		}
	}
	return append(list, topology.Spec{Kind: topology.Subnet, Reference: "net0/subnet2"}, topology.Spec{Kind: topology.Internet})
}()

func nicName(i int) string { return fmt.Sprintf("nic%d", i) }

// minimalIdle is the least idle timeout that Azure's documents take; Options.TranslationIdle bounds it.
const minimalIdle = 4 * time.Minute

// set is the plan as the engine takes it.
func (p *plan) set() *policy.Set {
	s := &policy.Set{NetworkSecurityGroups: p.groups}
	group := func(i int) *ruleset.NSG {
		if i < 0 {
			return nil
		}
		return p.groups[i]
	}
	address := func(name string, a netip.Addr) *policy.PublicIPAddress {
		x := &policy.PublicIPAddress{Name: name, ID: "/pip/" + name, SKU: policy.SKUStandard, Address: a, IdleTimeout: minimalIdle}
		s.PublicIPAddresses = append(s.PublicIPAddresses, x)
		return x
	}
	for n := range 2 {
		name := fmt.Sprint("net", n)
		s.VirtualNetworks = append(s.VirtualNetworks, &policy.VirtualNetwork{Name: name, ID: "/net/" + name, AddressSpace: []netip.Prefix{space4, space6}})
	}
	var subnets [numSubnets]*policy.Subnet
	for i := range subnets {
		v := s.VirtualNetworks[0]
		if i == twin {
			v = s.VirtualNetworks[1]
		}
		name := fmt.Sprint("subnet", i)
		subnets[i] = &policy.Subnet{Name: name, ID: v.ID + "/" + name, VirtualNetwork: v, Prefixes: subnetPrefixes[i][:],
			NetworkSecurityGroup: group(p.ofSubnet[i]), DisableDefaultOutbound: true}
		if i == behindGateway && p.gateway || i == twin {
			name := fmt.Sprint("gateway", i)
			g := &policy.NATGateway{Name: name, ID: "/gateway/" + name, SKU: policy.SKUStandard, IdleTimeout: minimalIdle,
				Addresses: []*policy.PublicIPAddress{address(name, gatewayOf[i])}}
			s.NATGateways, subnets[i].NATGateway = append(s.NATGateways, g), g
		}
		v.Subnets = append(v.Subnets, subnets[i])
	}
	for i := range firstOutside {
		h := &hosts[i]
		if h.nic < 0 {
			continue
		}
		n := &policy.NetworkInterface{Name: nicName(i), ID: "/nic/" + nicName(i), NetworkSecurityGroup: group(p.ofNIC[i])}
		c := policy.IPConfiguration{Name: "v4", Address: p.v4(i), Subnet: subnets[h.subnet], Primary: true}
		if a, ok := p.public(i); ok {
			c.PublicIPAddress = address(nicName(i), a)
		}
		n.IPConfigurations = []policy.IPConfiguration{c, {Name: "v6", Address: h.v6, Subnet: subnets[h.subnet]}}
		s.NetworkInterfaces = append(s.NetworkInterfaces, n)
	}
	if p.balancer {
		f := &policy.Frontend{Name: "f", ID: "/lb/f", PublicIPAddress: address("lb", frontend), Address: frontend}
		pool := &policy.BackendPool{Name: "p", ID: "/lb/p"}
		for i := range numBackends {
			pool.Backends = append(pool.Backends, policy.Backend{NetworkInterface: s.NetworkInterfaces[i], VirtualNetwork: s.VirtualNetworks[0], Address: p.v4(i)})
		}
		s.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{f}, Pools: []*policy.BackendPool{pool},
			Rules: []*policy.LoadBalancingRule{{Name: "web", Frontend: f, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP,
				FrontendPort: frontendPort, BackendPort: backendPort, DisableOutboundSNAT: true, IdleTimeout: minimalIdle}}}}
	}
	return s
}
