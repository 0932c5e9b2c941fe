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
	Subnet                       // all of a subnet that has no attachment of its own
	Internet                     // everything outside the virtual networks
	Platform                     // PlatformAddresses
	Gateway                      // the on-premises networks behind a virtual network's gateway
	Vacant                       // nothing: the attachment that was here is gone, and sends nothing
	Fabric                       // ends that are attached to other hosts, see FabricSort
)

// String is the configuration's word for the kind.
func (k Kind) String() string {
	return [...]string{"networkInterface", "subnet", "internet", "platform", "gateway", "vacant", "fabric"}[k]
}

// PlatformAddresses are the host's virtual addresses, which serve DHCP, DNS, IMDS and health
// probes. The last one probes IPv6 backends alone.
var PlatformAddresses = []netip.Addr{
	policy.AzureDNS,
	netip.MustParseAddr("169.254.169.254"),
	netip.MustParseAddr("fe80::1234:5678:9abc"),
}

// ProbeSource is the address that a backend is probed from.
func ProbeSource(backend netip.Addr) netip.Addr {
	if backend.Is4() {
		return PlatformAddresses[0]
	}
	return PlatformAddresses[2]
}

// Snapshot is one consistent view of policy and topology.
type Snapshot struct {
	// Generation counts the snapshots of a process from 1; Follow sets it.
	Generation uint64
	// Flushed is the last generation that asks to judge flows of any endpoint again; 0: none
	// does. Follow sets it.
	Flushed uint32
	// Reclaimed is the generation up to which slots may be taken back while the snapshot is in use: what was
	// judged by an earlier one may name them. The owner sets it.
	Reclaimed uint64
	// BlockSMTP says that the subscription blocks TCP port 25 to the internet. The owner sets it
	// before anything else uses the snapshot.
	BlockSMTP bool
	// Attachments stand in the order of the specs given to Build. Their index is their slot: it stays the same
	// for as long as they are attached.
	Attachments []*Attachment
	// Policy is the policy that the snapshot was built from.
	Policy *policy.Set
	// Groups are all rule collections and then all NSGs, compiled, in the policy's order. An NSG
	// has one group for each meaning that tags have in its subnets, and one when it is unused.
	Groups []*Group

	specs             []Spec // that Build was given
	networks          *networkSet
	endpoints         *endpointSet
	outside, platform *Endpoint
	services          *Endpoint // see endpointSet
	// byAddress finds an endpoint from outside, see routedSet.
	byAddress  *bart.Table[*Endpoint]
	public     map[packet.Addr]*frontend // public addresses of the policy
	boundary   *boundary                 // what the internet may send from
	translates bool                      // the policy translates something
	probes     []*Probe
	shared     map[packet.Addr][]*Endpoint // see translation
	userRoutes bool                        // a subnet has a route table, or a gateway has a default route
	options    Options                     // that it was built with
	registry   *Registry                   // that numbers the rules
	reclaimed  uint64                      // of the registry, when the snapshot was built
}

// Attachment is one TUN's place in the topology.
type Attachment struct {
	Index int
	Kind  Kind
	// Name is the NIC's or the subnet's name, VNET/GatewaySubnet for a gateway, or the id when
	// attachments share the name. Otherwise it is "internet" or "platform", or begins with "fabric ".
	Name string
	// Addresses are the far end's own: a NIC's with the subnet's prefix length, or the
	// platform's. Empty for the other kinds.
	Addresses []netip.Prefix
	// Since is the generation of the first snapshot that has the attachment at this index. Follow sets it.
	Since uint64

	identity  string      // see Spec.Identity
	id        string      // the NIC's or the subnet's
	endpoints []*Endpoint // a NIC's, one for each ipConfiguration; else nil
	floating  []*Endpoint // a subnet's backends with floating addresses
	network   *network    // nil outside the virtual networks
	forwards  bool        // the NIC may send what it does not own
	fabric    *fabric     // of the kind Fabric; else nil
}

// Endpoint is what sends or receives packets: one address of a NIC, the other addresses of a
// subnet, a gateway, the platform or the outside.
type Endpoint struct {
	// NetworkInterface is nil for a subnet's other addresses and for the outside.
	NetworkInterface *policy.NetworkInterface
	// Subnet is nil for the outside and on-premises.
	Subnet *policy.Subnet
	// Attachment is the index of the attachment that leads here, or -1.
	Attachment int
	// Elsewhere says that the attachment is of the kind Fabric: the end is attached to another host, which
	// judges what it sends and receives. The outside is elsewhere where no attachment here is the internet.
	Elsewhere bool
	// Outbound and Inbound are the stages that judge the packets that the endpoint sends and
	// receives, in Azure's order.
	Outbound, Inbound []Stage
	// AdminOutbound and AdminInbound are the rule collections before them. The matching rule
	// with the lowest priority number decides, whichever collection has it. Between equal
	// numbers the policy's order decides.
	AdminOutbound, AdminInbound []Stage
	// Flushed is the last generation in which an NSG with flushConnection changed that judges
	// the endpoint. Flows that were judged before it must be judged again.
	Flushed uint32
	// Stateless is set for a NIC with disableTcpStateTracking.
	Stateless bool
	// Established is the idle timeout of TCP flows (flowTimeoutInMinutes of the
	// virtual network), 0 for the default.
	Established time.Duration
	// Limited is set for a NIC with an attachment of its own. Azure limits a NIC's flows.
	Limited bool

	address packet.Addr
	routes  *routes
	// receivesForeign is set for a NIC or a gateway with a fabric of its own.
	receivesForeign bool
	egress          *egresses // nil: packets leave to the internet as sent
	// closed is set for a NIC without an NSG that has a Standard public address, or that is
	// behind a public frontend of a Standard load balancer. Nothing from the internet reaches it, by none of
	// its addresses. closedAt holds such backends among a subnet's other addresses.
	closed   bool
	closedAt map[packet.Addr]bool
	// floating are the frontends of load balancers that deliver to it without a rewrite.
	floating []packet.Addr
}

// Address is the address of a NIC's endpoint. It is not valid for other endpoints.
func (e *Endpoint) Address() netip.Addr {
	if e.NetworkInterface == nil {
		return netip.Addr{}
	}
	return e.address.Netip()
}

// Has reports whether an address is the endpoint's own, and not one that a NIC forwards for.
// The endpoint must send from the address, or Route must lead here.
func (e *Endpoint) Has(a packet.Addr) bool { return e.NetworkInterface == nil || e.address == a }

// closesAt reports that nothing from the internet reaches an address of the endpoint.
func (e *Endpoint) closesAt(a packet.Addr) bool { return e.closed || e.closedAt[a] }

// Association says what an NSG is associated with.
type Association uint8

// The associations.
const (
	SubnetAssociation Association = iota
	NetworkInterfaceAssociation
	NetworkManagerAssociation // a rule collection, for a whole virtual network
)

// String is the word of a verify result.
func (a Association) String() string {
	return [...]string{"subnet", "networkInterface", "networkManager"}[a]
}

// Stage is one NSG or rule collection that judges a packet.
type Stage struct {
	Association Association
	Direction   ruleset.Direction
	Group       *Group
	Table       *Table
}

// Group is one NSG or collection of admin rules, compiled for all subnets where tags mean the
// same.
type Group struct {
	NSG *ruleset.NSG
	// Label is the NSG's name in metrics, see RuleKey.
	Label             string
	Inbound, Outbound Table
	view              *view
	changed           uint32 // generation of the last change, of an NSG with flushConnection
}

// Expand resolves a service tag that the group's rules name, as its subnets see it. It is nil
// for any other tag. The result is shared and must not be changed.
func (g *Group) Expand(tag string) []netip.Prefix { return g.view.tags[tag] }

// ExpandTag resolves a built-in tag or a service tag in its canonical spelling, as a subnet
// sees it. Without a subnet, VirtualNetwork has no address space. ok is false for an unknown
// tag. The result must not be changed.
func (s *Snapshot) ExpandTag(sub *policy.Subnet, tag string) (prefixes []netip.Prefix, ok bool) {
	for _, n := range s.networks.list {
		if sub != nil && n.vnet == sub.VirtualNetwork {
			return tagPrefixes(s.Policy, n.routesOf(sub).view, tag)
		}
	}
	return tagPrefixes(s.Policy, &view{virtualNetwork: ruleset.VirtualNetworkPrefixes(nil)}, tag)
}

// Table is one direction of an NSG.
type Table struct {
	// Match is shared with snapshots that would compile the same.
	Match *classifier.Table
	Rules []ruleset.Rule // in priority order, default rules last
	Slots []uint32       // by rule

	compiled []classifier.Rule // what Match was compiled from
	open     []int             // the rules that name something: what that stands for may change
	// platform matches the rules that name a service of the platform. platformRules are their
	// indexes in Rules. Both are nil when there are none.
	platform      *classifier.Table
	platformRules []int
}

// Resolved are the table's rules as they were compiled, in the order of Rules, with prefixes in
// place of tags and application security groups. The result is shared and must not be changed.
func (t *Table) Resolved() []classifier.Rule { return t.compiled }

// platformAddrs are PlatformAddresses as packets have them.
var platformAddrs = [...]packet.Addr{
	packet.AddrFrom(PlatformAddresses[0]), packet.AddrFrom(PlatformAddresses[1]), packet.AddrFrom(PlatformAddresses[2]),
}
