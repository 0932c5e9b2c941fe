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
	DropFragment       // a fragment
	DropExtension      // IPv6 hop-by-hop header that is not the first
	DropExtensionLimit // IPv6 extension headers beyond the bound in number or bytes
	DropRoutingHeader  // IPv6 routing header type 0
	DropTCPHeader      // TCP data offset under 5 words or beyond the packet
	DropUDPLength      // UDP length under 8 or beyond the packet
	DropOffload        // virtio-net header that contradicts the packet

	// Admission: who sent it, and where to.
	DropKernelNoise // what a kernel sends by itself on a TUN: RS, MLD, link-local, mDNS
	DropBroadcast   // broadcast or multicast, which a virtual network does not carry
	DropSpoofed     // source address that does not belong to the attachment

	// Flow: what connection tracking refuses.
	DropTCPFlags     // impossible TCP flag set
	DropTCPNoSYN     // mid-stream segment without a flow under tcpStrict, or SYN+ACK or RST without a flow
	DropICMPError    // ICMP error message
	DropICMPNoFlow   // ICMP reply without a request
	DropFlowLimit    // flow table or NIC at its limit
	DropFlowConflict // replies would belong to another live flow
	DropTCPState     // segment that the flow's TCP state does not allow

	// Route and verdict.
	DropNoRoute // destination has no attachment
	DropRule    // denied by a security rule

	// Write.
	DropTransmit // the destination's device refused the packet

	NumDrops // number of reasons; not a reason
)

var dropNames = [NumDrops]string{
	NotDropped:         "none",
	DropTruncated:      "truncated",
	DropVersion:        "ip_version",
	DropIPv4Header:     "ipv4_header",
	DropIPLength:       "ip_length",
	DropMappedAddress:  "ipv6_mapped_address",
	DropFragment:       "fragment",
	DropExtension:      "ipv6_extension",
	DropExtensionLimit: "ipv6_extension_limit",
	DropRoutingHeader:  "ipv6_routing_header",
	DropTCPHeader:      "tcp_header",
	DropUDPLength:      "udp_length",
	DropOffload:        "offload_header",
	DropKernelNoise:    "kernel_noise",
	DropBroadcast:      "broadcast",
	DropSpoofed:        "spoofed_source",
	DropTCPFlags:       "tcp_flags",
	DropTCPNoSYN:       "tcp_no_syn",
	DropICMPError:      "icmp_error",
	DropICMPNoFlow:     "icmp_no_flow",
	DropFlowLimit:      "flow_limit",
	DropFlowConflict:   "flow_conflict",
	DropTCPState:       "tcp_state",
	DropNoRoute:        "no_route",
	DropRule:           "rule_deny",
	DropTransmit:       "transmit",
}

// String is the reason's name in metrics and answers.
func (d Drop) String() string {
	if d < NumDrops {
		return dropNames[d]
	}
	return "unknown"
}
