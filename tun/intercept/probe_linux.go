package intercept

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Probe asks the guests whose MAC is not known for it: by ARP and by neighbour solicitation, whose answers the
// programs see. A guest that is silent otherwise gets packets then.
func (i *Interceptor) Probe() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return nil
	}
	type question struct {
		index int
		frame []byte
	}
	var questions []question
	for n := range i.ports {
		p := &i.ports[n]
		l, err := i.link(p)
		if err != nil || p.Host {
			continue
		}
		var known macEntry
		if i.programs.MACs.Lookup(uint32(l.Attrs().Index), &known) == nil {
			continue
		}
		for _, a := range p.Addresses {
			if near(p, a) {
				questions = append(questions, question{l.Attrs().Index, whoHas(l.Attrs().HardwareAddr, a)})
			}
		}
	}
	if len(questions) == 0 {
		return nil
	}
	return i.do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, q := range questions {
			// An interface that is down is no fault: the next probe comes.
			_ = unix.Sendto(fd, q.frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: q.index})
		}
		return nil
	})
}

// near tells private addresses from public ones, which a guest doesn't have itself.
func near(p *Port, a netip.Addr) bool {
	for _, prefix := range p.Near {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// whoHas asks for an address: an ARP probe, which changes no cache, or a solicitation from the link-local address
// of the interface's MAC.
func whoHas(own net.HardwareAddr, a netip.Addr) []byte {
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	ethernet := &layers.Ethernet{SrcMAC: own, DstMAC: net.HardwareAddr{255, 255, 255, 255, 255, 255}, EthernetType: layers.EthernetTypeARP}
	if a.Is4() {
		arp := &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: own, SourceProtAddress: make([]byte, 4), DstHwAddress: make([]byte, 6), DstProtAddress: a.AsSlice(),
		}
		_ = gopacket.SerializeLayers(b, options, ethernet, arp) // these layers always fit
		return b.Bytes()
	}
	target := a.As16()
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]})
	ethernet.DstMAC, ethernet.EthernetType = net.HardwareAddr{0x33, 0x33, 0xff, target[13], target[14], target[15]}, layers.EthernetTypeIPv6
	source := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: own[0] ^ 2, 9: own[1], 10: own[2], 11: 0xff, 12: 0xfe, 13: own[3], 14: own[4], 15: own[5]})
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: source.AsSlice(), DstIP: group.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	solicitation := &layers.ICMPv6NeighborSolicitation{TargetAddress: a.AsSlice(),
		Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: own}}}
	_ = gopacket.SerializeLayers(b, options, ethernet, ip, icmp, solicitation)
	return b.Bytes()
}

func toAddr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}
