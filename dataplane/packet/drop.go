package packet

// Drop is why a packet was not carried. Each cause has its own value, so that a parse failure
// never counts as a rule's denial. It is the "reason" label of nsgd_drops_total. To add one: a
// constant, its line in reasons, and the place that returns it.
type Drop uint8

// The reasons, in the order in which a packet meets them. Drop.Description says what each means.
const (
	NotDropped Drop = iota // carried

	// Decode: the bytes.
	DropTruncated
	DropVersion
	DropIPv4Header
	DropSourceRoute
	DropIPLength
	DropMappedAddress
	DropExtension
	DropExtensionLimit
	DropRoutingHeader
	DropTCPHeader
	DropUDPLength
	DropOffload

	// Decode: a fragment that says of itself what it must not be.
	DropFragmentLength
	DropFragmentTooLong
	DropFragmentTiny
	DropFragmentHeader

	// Admission: who sent it, and where to.
	DropFenced
	DropKernelNoise
	DropBroadcast
	DropLand
	DropSpoofed

	// Fragments: what the datagram's other fragments say. When the first fragment was
	// dropped, its reason is that of the later ones.
	DropFragmentNoFirst
	DropFragmentOverlap
	DropFragmentGaps
	DropFragmentLimit

	// Flow: what connection tracking refuses.
	DropTCPFlags
	DropTCPNoSYN
	DropICMPNoFlow
	DropFlowLimit
	DropFlowRate
	DropFlowConflict
	DropTCPState
	DropFlowCut

	// Route and verdict.
	DropNoRoute
	DropRouteNone
	DropNextHop
	DropForwarded
	DropRule
	DropSMTP

	// Translation: what stands between addresses.
	DropClosed
	DropNoFrontend
	DropNoBackend
	DropHairpin
	DropNoOutbound
	DropSNATExhausted
	DropAsymmetric

	// Write.
	DropTransmit
	DropSlowReceiver

	// Anywhere.
	DropPanic

	NumDrops // number of reasons; not a reason
)

// dropSet are the sets that a reason is in.
type dropSet uint8

const (
	expected    dropSet = 1 << iota // Drop.Expected
	translation                     // Drop.OfTranslation
	backends                        // Drop.OfBackends
	ofPolicy                        // Drop.OfPolicy
)

var reasons = [NumDrops]struct {
	name, description string
	sets              dropSet
}{
	NotDropped: {"none", "carried", 0},

	DropTruncated:      {"truncated", "fewer bytes than a header or a length field promises", 0},
	DropVersion:        {"ip_version", "neither IPv4 nor IPv6", 0},
	DropIPv4Header:     {"ipv4_header", "IPv4 header length under 20 bytes or beyond the packet, or an option whose length is wrong", 0},
	DropSourceRoute:    {"ipv4_source_route", "IPv4 source route, loose or strict", 0},
	DropIPLength:       {"ip_length", "total or payload length disagrees with the data", 0},
	DropMappedAddress:  {"ipv6_mapped_address", "IPv6 packet with an IPv4-mapped address", 0},
	DropExtension:      {"ipv6_extension", "IPv6 hop-by-hop header that is not the first, or a second fragment header", 0},
	DropExtensionLimit: {"ipv6_extension_limit", "IPv6 extension headers beyond the bound in number or bytes", 0},
	DropRoutingHeader:  {"ipv6_routing_header", "IPv6 routing header type 0, or one that leads on to another host", 0},
	DropTCPHeader:      {"tcp_header", "TCP data offset under 5 words or beyond the packet", 0},
	DropUDPLength:      {"udp_length", "UDP length under 8 or beyond the packet", 0},
	DropOffload:        {"offload_header", "virtio-net header that contradicts the packet", 0},

	DropFragmentLength:  {"fragment_length", "fragment that is empty, or not the last and its length no multiple of eight", 0},
	DropFragmentTooLong: {"fragment_too_long", "fragment that ends beyond the largest IP packet", 0},
	DropFragmentTiny:    {"fragment_tiny", "first fragment without its whole transport header", 0},
	DropFragmentHeader:  {"fragment_in_header", "later fragment that begins within the transport header", 0},

	DropFenced:      {"fenced", "the host's lease in its cluster has ended: another host may have its network interfaces", 0},
	DropKernelNoise: {"kernel_noise", "what a kernel sends by itself on a TUN: router solicitations, MLD, link-local, mDNS", expected},
	DropBroadcast:   {"broadcast", "broadcast or multicast, which a virtual network does not carry", expected},
	DropLand:        {"land", "source and destination are one address (the land attack)", 0},
	DropSpoofed:     {"spoofed_source", "source address that does not belong to the attachment", ofPolicy},

	DropFragmentNoFirst: {"fragment_no_first", "later fragment whose first one was not seen before, or whose flow or policy has gone since", 0},
	DropFragmentOverlap: {"fragment_overlap", "fragment with bytes, an end or a beginning that the datagram has already", 0},
	DropFragmentGaps:    {"fragment_gaps", "more gaps in one datagram than are followed", 0},
	DropFragmentLimit:   {"fragment_limit", "fragment table full, or the half of it that one attachment may have", 0},

	DropTCPFlags:     {"tcp_flags", "TCP flags that no host sends together", 0},
	DropTCPNoSYN:     {"tcp_no_syn", "segment in mid-stream without a flow under tcpStrict, or SYN+ACK or RST without a flow", expected},
	DropICMPNoFlow:   {"icmp_no_flow", "ICMP reply without a request", expected},
	DropFlowLimit:    {"flow_limit", "flow table or network interface at its limit", expected},
	DropFlowRate:     {"flow_rate", "more new flows a second than a network interface may have", expected},
	DropFlowConflict: {"flow_conflict", "replies would belong to another live flow", expected},
	DropTCPState:     {"tcp_state", "segment that the flow's TCP state does not allow", expected},
	DropFlowCut:      {"flow_cut", "would begin a flow again that the rules have ended, from its other side", expected},

	DropNoRoute:   {"no_route", "destination has no attachment", expected | backends | ofPolicy},
	DropRouteNone: {"route_none", "a user-defined route's next hop is None", expected | ofPolicy},
	DropNextHop:   {"next_hop", "a user-defined route's next hop is no network interface that forwards and no load balancer before one, or nothing is attached there", ofPolicy},
	DropForwarded: {"forwarded_traffic", "a peering takes nothing that is forwarded, and the source is not of the network next to it", expected | ofPolicy},
	DropRule:      {"rule_deny", "denied by a security rule", expected | ofPolicy},
	DropSMTP:      {"smtp_blocked", "TCP port 25 to the internet, which the subscription does not allow", expected | ofPolicy},

	DropClosed:        {"closed", "from the internet to a network interface that a Standard public IP or load balancer leads to, and no network security group stands there", expected | translation | ofPolicy},
	DropNoFrontend:    {"no_frontend", "a public IP or load balancer frontend has no rule for the packet", expected | translation | ofPolicy},
	DropNoBackend:     {"no_backend", "none of the load balancer's backends is there and up", translation | backends},
	DropHairpin:       {"hairpin", "a load balancer leads back to the sender itself", translation | backends | ofPolicy},
	DropNoOutbound:    {"no_outbound", "to the internet without a way out, or untranslated to a public address of the policy", expected | translation | ofPolicy},
	DropSNATExhausted: {"snat_exhausted", "no port of the outbound addresses is free for the destination", translation},
	DropAsymmetric:    {"asymmetric_route", "routes lead the answers past where they would be translated back, to a virtual appliance", ofPolicy},

	DropTransmit: {"transmit", "the destination's device refused the packet", 0},

	DropSlowReceiver: {"slow_receiver", "the receiver's own network stack is too slow for what it is sent", 0},

	DropPanic: {"panic", "nsgd failed at the packet, or at one of its burst, by a fault of its own that the log describes", 0},
}

// String is the reason's name in metrics and answers.
func (d Drop) String() string {
	if d < NumDrops {
		return reasons[d].name
	}
	return "unknown"
}

// Description says what the reason means, in a few words without a full stop.
func (d Drop) Description() string { return reasons[d].description }

// Expected reports a reason that a sound network has too: what rules, routes and the subscription
// ask for, what hosts send by themselves or too late, and what flow limits refuse. It calls
// for no alert.
func (d Drop) Expected() bool { return reasons[d].sets&expected != 0 }

// OfTranslation reports a reason that only public addresses, NAT gateways and load balancers give.
func (d Drop) OfTranslation() bool { return reasons[d].sets&translation != 0 }

// OfBackends reports a reason that comes and goes with a load balancer's backends. A flow that has
// its translation already keeps it meanwhile.
func (d Drop) OfBackends() bool { return reasons[d].sets&backends != 0 }

// OfPolicy reports a reason that another policy could take away: rules, routes, addresses, peerings and translation give
// it, whatever is live, attached or up.
func (d Drop) OfPolicy() bool { return reasons[d].sets&ofPolicy != 0 }
