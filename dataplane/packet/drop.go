package packet

// Drop is why a packet was not carried: one value for each cause, so that a
// parse failure is never booked as a rule's denial. It is the "reason" label of
// nsgd_drops_total. To add one: a constant, its name, and the place that returns it.
type Drop uint8

// The reasons, in the order in which a packet meets them.
const (
	NotDropped Drop = iota // carried

	// Decode: the bytes.
	DropTruncated      // fewer bytes than a header or a length field promises
	DropVersion        // neither IPv4 nor IPv6
	DropIPv4Header     // IPv4 header length under 20 bytes or beyond the packet
	DropIPLength       // total or payload length disagrees with the data
	DropMappedAddress  // IPv6 packet with an IPv4-mapped address
	DropExtension      // IPv6 hop-by-hop header that is not the first, or a second fragment header
	DropExtensionLimit // IPv6 extension headers beyond the bound in number or bytes
	DropRoutingHeader  // IPv6 routing header type 0
	DropTCPHeader      // TCP data offset under 5 words or beyond the packet
	DropUDPLength      // UDP length under 8 or beyond the packet
	DropOffload        // virtio-net header that contradicts the packet

	// Decode: a fragment that says of itself what it must not be.
	DropFragmentLength  // empty, or not the last and its length no multiple of eight
	DropFragmentTooLong // ends beyond the largest IP packet
	DropFragmentTiny    // a first fragment without its whole transport header
	DropFragmentHeader  // a later fragment that begins within the transport header

	// Admission: who sent it, and where to.
	DropKernelNoise // what a kernel sends by itself on a TUN: RS, MLD, link-local, mDNS
	DropBroadcast   // broadcast or multicast, which a virtual network does not carry
	DropLand        // source and destination are one address (the land attack)
	DropSpoofed     // source address that does not belong to the attachment

	// Fragments: what the datagram's other fragments say. A datagram whose first
	// fragment was dropped is dropped under that reason.
	DropFragmentNoFirst // a later fragment whose first one was not seen before, or whose flow or policy has gone since
	DropFragmentOverlap // bytes, an end or a beginning that the datagram has already
	DropFragmentGaps    // more gaps in one datagram than are followed
	DropFragmentLimit   // fragment table full, or the half of it that one attachment may have

	// Flow: what connection tracking refuses.
	DropTCPFlags     // impossible TCP flag set
	DropTCPNoSYN     // mid-stream segment without a flow under tcpStrict, or SYN+ACK or RST without a flow
	DropICMPNoFlow   // ICMP reply without a request
	DropFlowLimit    // flow table or NIC at its limit
	DropFlowRate     // more new flows a second than a NIC may have
	DropFlowConflict // replies would belong to another live flow
	DropTCPState     // segment that the flow's TCP state does not allow

	// Route and verdict.
	DropNoRoute   // destination has no attachment
	DropRouteNone // a user-defined route's next hop is None
	DropNextHop   // a user-defined route's next hop is no network interface that forwards, or nothing is attached there
	DropForwarded // a peering takes nothing that is forwarded, and the source is not of the network next to it
	DropRule      // denied by a security rule
	DropSMTP      // TCP port 25 to the internet, which the subscription does not allow

	// Translation: what stands between addresses.
	DropClosed        // by a Standard public IP or load balancer to where no network security group stands
	DropNoFrontend    // a public IP or load balancer frontend that has no rule for the packet
	DropNoBackend     // none of the load balancer's backends is there and up
	DropHairpin       // a load balancer, or a public address, leads back to the sender himself
	DropNoOutbound    // to the internet from a subnet without default outbound access, and no other way out
	DropSNATExhausted // no port of the outbound addresses is free for the destination
	DropAsymmetric    // routes lead the answers past where they would be translated back, to a virtual appliance

	// Write.
	DropTransmit // the destination's device refused the packet

	NumDrops // number of reasons; not a reason
)

var dropNames = [NumDrops]string{
	NotDropped:          "none",
	DropTruncated:       "truncated",
	DropVersion:         "ip_version",
	DropIPv4Header:      "ipv4_header",
	DropIPLength:        "ip_length",
	DropMappedAddress:   "ipv6_mapped_address",
	DropExtension:       "ipv6_extension",
	DropExtensionLimit:  "ipv6_extension_limit",
	DropRoutingHeader:   "ipv6_routing_header",
	DropTCPHeader:       "tcp_header",
	DropUDPLength:       "udp_length",
	DropOffload:         "offload_header",
	DropFragmentLength:  "fragment_length",
	DropFragmentTooLong: "fragment_too_long",
	DropFragmentTiny:    "fragment_tiny",
	DropFragmentHeader:  "fragment_in_header",
	DropKernelNoise:     "kernel_noise",
	DropBroadcast:       "broadcast",
	DropLand:            "land",
	DropSpoofed:         "spoofed_source",
	DropFragmentNoFirst: "fragment_no_first",
	DropFragmentOverlap: "fragment_overlap",
	DropFragmentGaps:    "fragment_gaps",
	DropFragmentLimit:   "fragment_limit",
	DropTCPFlags:        "tcp_flags",
	DropTCPNoSYN:        "tcp_no_syn",
	DropICMPNoFlow:      "icmp_no_flow",
	DropFlowLimit:       "flow_limit",
	DropFlowRate:        "flow_rate",
	DropFlowConflict:    "flow_conflict",
	DropTCPState:        "tcp_state",
	DropNoRoute:         "no_route",
	DropRouteNone:       "route_none",
	DropNextHop:         "next_hop",
	DropForwarded:       "forwarded_traffic",
	DropRule:            "rule_deny",
	DropSMTP:            "smtp_blocked",
	DropClosed:          "closed",
	DropNoFrontend:      "no_frontend",
	DropNoBackend:       "no_backend",
	DropHairpin:         "hairpin",
	DropNoOutbound:      "no_outbound",
	DropSNATExhausted:   "snat_exhausted",
	DropAsymmetric:      "asymmetric_route",
	DropTransmit:        "transmit",
}

// String is the reason's name in metrics and answers.
func (d Drop) String() string {
	if d < NumDrops {
		return dropNames[d]
	}
	return "unknown"
}
