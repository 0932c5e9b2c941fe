package topology

import (
	"net/netip"
	"time"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Kind says what an attachment stands for.
type Kind uint8

const (
	NetworkInterface Kind = iota // one NIC
	Subnet                       // everything of a subnet that has no NIC attachment
	Internet                     // everything outside the virtual networks
	Platform                     // 168.63.129.16 and 169.254.169.254
	Gateway                      // what is on-premises behind a virtual network's gateway
)

// String is the configuration's word for the kind.
func (k Kind) String() string {
	return [...]string{"networkInterface", "subnet", "internet", "platform", "gateway"}[k]
}

// PlatformAddresses are the virtual addresses of the host that serve DHCP, DNS,
// IMDS and health probes.
var PlatformAddresses = []netip.Addr{
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("169.254.169.254"),
}

// Snapshot is one consistent view of policy and topology.
type Snapshot struct {
	// Generation counts the snapshots of a process from 1; Follow sets it.
	Generation uint64
	// Flushed is the last generation that asks for flows to be judged again, any
	// endpoint's; 0: none does. Follow sets it.
	Flushed uint32
	// BlockSMTP says that the subscription lets no TCP port 25 out; the owner sets it.
	BlockSMTP bool
	// Attachments stand in the order of the specs given to Build.
	Attachments []*Attachment
	// Policy is what the snapshot was built from.
	Policy *policy.Set
	// Groups are all rule collections and then all NSGs of the policy, compiled, in the
	// policy's order: one for each meaning that tags have where one stands, one when it
	// stands nowhere.
	Groups []*Group

	members   []*Endpoint // all that virtual networks have
	networks  []*network
	endpoints map[endpointKey]*Endpoint
	outside   *Endpoint
	platform  *Endpoint
	registry  *Registry // that numbers the rules
	alone     bool      // see alone.go
	seed      uint64    // of what load balancers distribute by
	// public are the public addresses of the policy, translates says that it translates anything.
	public     map[packet.Addr]*front
	translates bool
	probes     []*Probe
	routed     bool // a subnet has a route table, or a gateway has learned a default route
	// space holds the address spaces of all virtual networks, and learned what is behind
	// gateways, for telling who is outside.
	space, learned bart.Lite
	// all finds an endpoint from outside, which reaches virtual networks and nothing
	// else; an address of several of them maps to nil.
	all bart.Table[*Endpoint]
}

type endpointKey struct {
	nic  *policy.NetworkInterface
	addr netip.Addr
}

// Attachment is one TUN's place in the topology.
type Attachment struct {
	Index int
	Kind  Kind
	// Name is the NIC's or the subnet's name, or its id when attachments share the
	// name; VNET/GatewaySubnet for a gateway; else "internet" or "platform".
	Name string
	// Addresses are those that the far end of the TUN owns: a NIC's, with the
	// subnet's prefix length, or the platform's. Empty for the others.
	Addresses []netip.Prefix

	id        string         // the NIC's or the subnet's
	endpoints []*Endpoint    // a NIC's, one an ipConfiguration; else nil
	floated   []*Endpoint    // a subnet's that load balancers send floating addresses to
	network   *network       // nil outside the virtual networks
	forwards  bool           // the NIC may send what it does not own
	prefixes  []netip.Prefix // behind a gateway
}

// Endpoint is one address of a virtual network, or the outside: whoever sends
// or receives a packet.
type Endpoint struct {
	// NetworkInterface is nil for a subnet's other addresses and for the outside.
	NetworkInterface *policy.NetworkInterface
	// Subnet is nil for the outside and on-premises.
	Subnet *policy.Subnet
	// Attachment is the index of the attachment that leads here, or -1.
	Attachment int
	// Outbound and Inbound are the stages that judge what the endpoint sends and
	// receives, in Azure's order.
	Outbound, Inbound []Stage
	// AdminOutbound and AdminInbound are the rule collections that stand before them. Of
	// their matching rules the one with the lowest priority number decides, whichever
	// collection has it; the policy's order decides between equal ones.
	AdminOutbound, AdminInbound []Stage
	// Flushed is the last generation in which an NSG with flushConnection changed on the
	// endpoint's way: flows that were judged before are judged again.
	Flushed uint32
	// Stateless is set for a NIC with disableTcpStateTracking.
	Stateless bool
	// Established is the idle timeout of TCP flows (flowTimeoutInMinutes of the
	// virtual network), 0 for the default.
	Established time.Duration
	// Limited is set for a NIC of its own, which Azure gives a flow limit.
	Limited bool

	address packet.Addr
	routes  *routes
	egress  *egresses     // nil: what it sends to the internet leaves as sent
	floats  []packet.Addr // of load balancers that deliver to it what is sent to these
}

// Address is a NIC's; not valid for the others.
func (e *Endpoint) Address() netip.Addr {
	if e.NetworkInterface == nil {
		return netip.Addr{}
	}
	return e.address.Netip()
}

// Has reports whether an address is the endpoint's own, not one that a NIC forwards for;
// the address is one that the endpoint sends from, or that Route has led here.
func (e *Endpoint) Has(a packet.Addr) bool { return e.NetworkInterface == nil || e.address == a }

// Association says where an NSG stands.
type Association uint8

const (
	SubnetAssociation Association = iota
	NetworkInterfaceAssociation
	NetworkManagerAssociation // a rule collection, for all of a virtual network
)

// String is the word of a verify result.
func (a Association) String() string {
	return [...]string{"subnet", "networkInterface", "networkManager"}[a]
}

// Stage is one NSG, or rule collection, on the way of a packet.
type Stage struct {
	Association Association
	Direction   ruleset.Direction
	Group       *Group
	Table       *Table
}

// Group is one NSG, or rule collection of admin rules, compiled for the subnets where tags mean the same.
type Group struct {
	NSG *ruleset.NSG
	// Label is the NSG's name in metrics, see RuleKey.
	Label             string
	Inbound, Outbound Table
	view              *view
	changed           uint32 // of an NSG with flushConnection: generation of the last change
}

// Expand resolves a service tag of the group's rules as its subnets see it;
// nil for any other. The result is shared and must not be changed.
func (g *Group) Expand(tag string) []netip.Prefix { return g.view.tags[tag] }

// ExpandTag resolves a built-in tag, or a service tag that a rule names, in its canonical
// spelling, as a subnet sees it, or with nil as one without any address would; ok is false
// for any other. The result must not be changed.
func (s *Snapshot) ExpandTag(sub *policy.Subnet, tag string) (prefixes []netip.Prefix, ok bool) {
	for _, n := range s.networks {
		if sub != nil && n.vnet == sub.VirtualNetwork {
			return s.tagPrefixes(n.routes[sub.RouteTable].view, tag)
		}
	}
	return s.tagPrefixes(&view{virtualNetwork: ruleset.VirtualNetworkPrefixes(nil)}, tag)
}

// Table is one direction of an NSG.
type Table struct {
	// Match is shared with other snapshots that would compile to the same.
	Match *classifier.Table
	Rules []ruleset.Rule // in priority order, default rules last
	Slots []uint32       // by rule

	compiled []classifier.Rule // what Match was compiled from
	// platform matches the rules that name a service of the platform, platformRules are
	// their places in Rules; nil when there are none.
	platform      *classifier.Table
	platformRules []int
}

// Resolved are the table's rules as they were compiled, in the order of Rules: tags and
// application security groups are prefixes. The result is shared and must not be changed.
func (t *Table) Resolved() []classifier.Rule { return t.compiled }

// network is one virtual network.
type network struct {
	vnet   *policy.VirtualNetwork
	hosts  bart.Table[*Endpoint]          // who has an address; nil for a broadcast address
	routes map[*policy.RouteTable]*routes // of its subnets, by their route table
	peers  []peer
	// gateway is nil when none is attached; learned are the prefixes behind it, and known
	// those behind it or behind the gateway of a peer.
	gateway        *Endpoint
	learned, known []netip.Prefix
	frontends      map[packet.Addr]*front // of internal load balancers
}

// Admit finds the endpoint of a packet's source, or nil when the address does
// not belong to the attachment: a spoofed source. The floating address of a load balancer belongs
// to its backends too, for replies: Way lets no flow begin from it.
func (s *Snapshot) Admit(a *Attachment, src packet.Addr) *Endpoint {
	switch a.Kind {
	case NetworkInterface:
		for _, e := range a.endpoints {
			if e.address == src {
				return e
			}
		}
		for _, e := range a.endpoints {
			if e.floating(src) {
				return e
			}
		}
		if a.forwards && len(a.endpoints) > 0 && !isPlatform(src) {
			return a.endpoints[0]
		}
		return nil
	case Subnet:
		return s.admitSubnet(a, src)
	case Platform:
		if isPlatform(src) {
			return s.platform
		}
		return nil
	case Gateway:
		return s.admitGateway(a, src.Netip())
	}
	if s.public[src] != nil || !s.alone && (s.space.Contains(src.Netip()) || s.learned.Contains(src.Netip())) || isPlatform(src) {
		return nil
	}
	return s.outside
}

// admitSubnet: a subnet's attachment has all addresses that are its own, and the floating ones of the
// backends that are behind it.
func (s *Snapshot) admitSubnet(a *Attachment, src packet.Addr) *Endpoint {
	for _, e := range a.floated {
		if e.floating(src) {
			return e
		}
	}
	if a.network.frontends[src] != nil {
		return nil
	}
	if e, ok := a.network.hosts.Lookup(src.Netip()); ok && e != nil && e.Attachment == a.Index {
		return e
	}
	return nil
}

// Endpoint finds a NIC's address; nil when the NIC has no such address.
func (s *Snapshot) Endpoint(nic *policy.NetworkInterface, addr netip.Addr) *Endpoint {
	return s.endpoints[endpointKey{nic, addr.Unmap()}]
}

func isPlatform(a packet.Addr) bool {
	return a == platformAddrs[0] || a == platformAddrs[1]
}

var platformAddrs = [...]packet.Addr{
	packet.AddrFrom(PlatformAddresses[0]), packet.AddrFrom(PlatformAddresses[1]),
}
