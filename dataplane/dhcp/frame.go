package dhcp

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// ttl of an answer that leaves the link nowhere.
const ttl = 64

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// answer is the one frame that answers a frame, or nil. UDP and ICMP checksums aren't looked at: a machine leaves
// them to its device, and this one is memory.
func (r *Responder) answer(frame []byte, mtu int) []byte {
	var ethernet layers.Ethernet
	if ethernet.DecodeFromBytes(frame, gopacket.NilDecodeFeedback) != nil || !r.serves(ethernet.SrcMAC) {
		return nil
	}
	s := settingsOf(r.options.NetworkInterface(), mtu)
	switch {
	case s == nil:
	case ethernet.EthernetType == layers.EthernetTypeIPv4:
		return s.frame4(&ethernet)
	case ethernet.EthernetType == layers.EthernetTypeIPv6:
		return s.frame6(&ethernet, r.options.Gateway)
	case ethernet.EthernetType == layers.EthernetTypeARP && r.options.Gateway:
		return s.resolve(&ethernet)
	}
	return nil
}

// serves reports that a frame's sender is answered: one machine, by its own address.
func (r *Responder) serves(from net.HardwareAddr) bool {
	const group = 1
	return from[0]&group == 0 && !bytes.Equal(from, gatewayMAC) && (r.options.Client == nil || bytes.Equal(from, r.options.Client))
}

// frame4 answers DHCPv4 that is sent to everybody or to the platform. Another server's questions are left to it.
func (s *settings) frame4(ethernet *layers.Ethernet) []byte {
	var ip layers.IPv4
	var udp layers.UDP
	if ip.DecodeFromBytes(ethernet.Payload, gopacket.NilDecodeFeedback) != nil || ip.Protocol != layers.IPProtocolUDP ||
		ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 ||
		!ip.DstIP.Equal(net.IPv4bcast) && addressOf(ip.DstIP) != server ||
		udp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback) != nil || udp.DstPort != dhcpv4.ServerPort {
		return nil
	}
	q, err := dhcpv4.FromBytes(udp.Payload)
	if err != nil {
		return nil
	}
	a := s.answer4(q, ethernet.SrcMAC)
	if a == nil {
		return nil
	}
	// RFC 2131, section 4.1
	to, mac := a.YourIPAddr, ethernet.SrcMAC
	switch {
	case a.MessageType() == dhcpv4.MessageTypeNak:
		to, mac = net.IPv4bcast, broadcastMAC
	case addressOf(q.ClientIPAddr).IsValid() && !q.ClientIPAddr.IsUnspecified():
		to = q.ClientIPAddr
	case q.IsBroadcast():
		to, mac = net.IPv4bcast, broadcastMAC
	}
	out := &layers.IPv4{Version: 4, TTL: ttl, Protocol: layers.IPProtocolUDP, SrcIP: server.AsSlice(), DstIP: to.To4()}
	return datagram(mac, layers.EthernetTypeIPv4, out, dhcpv4.ServerPort, dhcpv4.ClientPort, a.ToBytes())
}

// frame6 answers DHCPv6 and, for a gateway, solicitations.
func (s *settings) frame6(ethernet *layers.Ethernet, gateway bool) []byte {
	var ip layers.IPv6
	if ip.DecodeFromBytes(ethernet.Payload, gopacket.NilDecodeFeedback) != nil {
		return nil
	}
	if ip.NextHeader == layers.IPProtocolICMPv6 && gateway {
		return s.solicited(ethernet, &ip)
	}
	var udp layers.UDP
	from, _ := netip.AddrFromSlice(ip.SrcIP)
	// A message to one server alone is refused: RFC 8415, section 16. Relays have other types.
	if ip.NextHeader != layers.IPProtocolUDP || !from.IsLinkLocalUnicast() || !ip.DstIP.Equal(dhcpv6.AllDHCPRelayAgentsAndServers) ||
		udp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback) != nil || udp.DstPort != dhcpv6.DefaultServerPort {
		return nil
	}
	q, err := dhcpv6.MessageFromBytes(udp.Payload)
	if err != nil {
		return nil
	}
	a := s.answer6(q)
	if a == nil {
		return nil
	}
	out := &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: layers.IPProtocolUDP, SrcIP: server6.AsSlice(), DstIP: ip.SrcIP}
	return datagram(ethernet.SrcMAC, layers.EthernetTypeIPv6, out, dhcpv6.DefaultServerPort, dhcpv6.DefaultClientPort, a.ToBytes())
}

// network is a header with which a checksum is made.
type network interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
}

// datagram is a frame of the gateway with one UDP datagram.
func datagram(to net.HardwareAddr, kind layers.EthernetType, ip network, from, port layers.UDPPort, payload []byte) []byte {
	udp := &layers.UDP{SrcPort: from, DstPort: port}
	udp.SetNetworkLayerForChecksum(ip)
	return serialize(to, kind, ip, udp, gopacket.Payload(payload))
}

// serialize is a frame of the gateway; nil if it can't be made, which no input brings about.
func serialize(to net.HardwareAddr, kind layers.EthernetType, parts ...gopacket.SerializableLayer) []byte {
	buffer := gopacket.NewSerializeBuffer()
	ethernet := &layers.Ethernet{SrcMAC: gatewayMAC, DstMAC: to, EthernetType: kind}
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{ethernet}, parts...)...)
	if err != nil {
		return nil
	}
	return buffer.Bytes()
}
