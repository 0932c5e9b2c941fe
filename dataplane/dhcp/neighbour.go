package dhcp

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const (
	// routerLifetime is what machines in Azure show: seconds, and the most that RFC 4861 allows.
	routerLifetime = 9000
	// advertiseEvery is the usual longest interval: RFC 4861, section 6.2.1.
	advertiseEvery = 10 * time.Minute
	// onlyLocal is the hop limit of what no router has carried.
	onlyLocal = 255

	managed = 1 << 7 // addresses come by DHCPv6
	onLink  = 1 << 7 // of a prefix; without the flag for addresses that machines make themselves

	router, solicited, override = 1 << 7, 1 << 6, 1 << 5
)

var (
	allNodes    = netip.IPv6LinkLocalAllNodes()
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// resolve answers ARP. The machine's own addresses have no answer, so that it finds them free.
func (s *settings) resolve(ethernet *layers.Ethernet) []byte {
	var q layers.ARP
	// gopacket believes the lengths that a message gives for its addresses, and panics where it is shorter.
	const lengths, whole = 4, 28
	if b := ethernet.Payload; len(b) < whole || b[lengths] != 6 || b[lengths+1] != net.IPv4len {
		return nil
	}
	if q.DecodeFromBytes(ethernet.Payload, gopacket.NilDecodeFeedback) != nil || q.Operation != layers.ARPRequest ||
		q.AddrType != layers.LinkTypeEthernet || q.Protocol != layers.EthernetTypeIPv4 || !bytes.Equal(q.SourceHwAddress, ethernet.SrcMAC) {
		return nil
	}
	target, from := addressOf(q.DstProtAddress), addressOf(q.SourceProtAddress)
	if !target.IsValid() || !from.IsValid() || target == from || !s.elsewhere(target) {
		return nil
	}
	return serialize(ethernet.SrcMAC, layers.EthernetTypeARP, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPReply,
		SourceHwAddress: gatewayMAC, SourceProtAddress: q.DstProtAddress, DstHwAddress: q.SourceHwAddress, DstProtAddress: q.SourceProtAddress,
	})
}

// solicited answers solicitations of routers and neighbours.
func (s *settings) solicited(ethernet *layers.Ethernet, ip *layers.IPv6) []byte {
	var icmp layers.ICMPv6
	if ip.HopLimit != onlyLocal || icmp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback) != nil || icmp.TypeCode.Code() != 0 {
		return nil
	}
	from, _ := netip.AddrFromSlice(ip.SrcIP)
	if from.IsMulticast() {
		return nil
	}
	to, mac := from, ethernet.SrcMAC
	if from.IsUnspecified() {
		to, mac = allNodes, allNodesMAC
	}
	switch icmp.TypeCode.Type() {
	case layers.ICMPv6TypeRouterSolicitation:
		return s.advertise(to, mac)
	case layers.ICMPv6TypeNeighborSolicitation:
		return s.neighbour(&icmp, to, mac)
	}
	return nil
}

// neighbour answers a neighbour solicitation. What the gateway stands for gives way to a machine that answers itself.
func (s *settings) neighbour(icmp *layers.ICMPv6, to netip.Addr, mac net.HardwareAddr) []byte {
	var q layers.ICMPv6NeighborSolicitation
	if q.DecodeFromBytes(icmp.Payload, gopacket.NilDecodeFeedback) != nil {
		return nil
	}
	target, _ := netip.AddrFromSlice(q.TargetAddress)
	if !target.Is6() || target == to || !s.elsewhere(target) {
		return nil
	}
	flags := 0
	if target == server6 {
		flags |= router | override
	}
	if !to.IsMulticast() {
		flags |= solicited
	}
	return icmp6(to, mac, layers.ICMPv6TypeNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{
		Flags: uint8(flags), TargetAddress: q.TargetAddress, Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: gatewayMAC}},
	})
}

// advertise is the advertisement that nobody asked for; nil where it isn't the gateway's to send.
func (r *Responder) advertise(mtu int) []byte {
	s := settingsOf(r.options.NetworkInterface(), mtu)
	if s == nil || !r.options.Gateway {
		return nil
	}
	return s.advertise(allNodes, allNodesMAC)
}

// advertise is a router advertisement; nil for a NIC without IPv6. The subnet is on the link, as machines in Azure
// show it, and its addresses come by DHCPv6.
func (s *settings) advertise(to netip.Addr, mac net.HardwareAddr) []byte {
	if !s.address6.IsValid() {
		return nil
	}
	prefix := make([]byte, 30) // RFC 4861, section 4.6.2, without type and length
	prefix[0], prefix[1] = byte(s.address6.Bits()), onLink
	binary.BigEndian.PutUint32(prefix[2:], math.MaxUint32)
	binary.BigEndian.PutUint32(prefix[6:], math.MaxUint32)
	copy(prefix[14:], s.address6.Masked().Addr().AsSlice())
	options := layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: gatewayMAC}, {Type: layers.ICMPv6OptPrefixInfo, Data: prefix}}
	if s.mtu != usualMTU {
		options = append(options, layers.ICMPv6Option{Type: layers.ICMPv6OptMTU, Data: binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(s.mtu))})
	}
	return icmp6(to, mac, layers.ICMPv6TypeRouterAdvertisement, &layers.ICMPv6RouterAdvertisement{Flags: managed, RouterLifetime: routerLifetime, Options: options})
}

// icmp6 is a frame of the gateway with one message of neighbour discovery.
func icmp6(to netip.Addr, mac net.HardwareAddr, kind uint8, message gopacket.SerializableLayer) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: onlyLocal, NextHeader: layers.IPProtocolICMPv6, SrcIP: server6.AsSlice(), DstIP: to.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	return serialize(mac, layers.EthernetTypeIPv6, ip, icmp, message)
}
