package dhcp

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// whoHas is an ARP request of the client.
func whoHas(t testing.TB, target, sender string, change func(*layers.ARP)) []byte {
	q := &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
		SourceHwAddress: clientMAC, SourceProtAddress: net.ParseIP(sender).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(target).To4()}
	if change != nil {
		change(q)
	}
	return frameOf(t, clientMAC, broadcastMAC, layers.EthernetTypeARP, q)
}

func TestARP(t *testing.T) {
	tests := []struct {
		name           string
		target, sender string
		change         func(*layers.ARP)
		answered       bool
	}{
		{"the gateway", "172.16.3.1", "172.16.3.4", nil, true},
		{"another machine of the subnet", "172.16.3.9", "172.16.3.4", nil, true},
		{"another subnet of the virtual network", "172.16.200.9", "172.16.3.4", nil, true},
		{"the platform", "169.254.169.254", "172.16.3.4", nil, true},
		{"a probe for another machine's address finds it taken", "172.16.3.9", "0.0.0.0", nil, true},
		{"a probe for the NIC's own address finds it free", "172.16.3.4", "0.0.0.0", nil, false},
		{"and for its second one", "172.16.3.5", "0.0.0.0", nil, false},
		{"an announcement", "172.16.3.9", "172.16.3.9", nil, false},
		{"outside the virtual network", "10.0.0.1", "172.16.3.4", nil, false},
		{"an answer", "172.16.3.1", "172.16.3.4", func(q *layers.ARP) { q.Operation = layers.ARPReply }, false},
		{"in another's name", "172.16.3.1", "172.16.3.4", func(q *layers.ARP) { q.SourceHwAddress = otherMAC }, false},
		{"of another link", "172.16.3.1", "172.16.3.4", func(q *layers.ARP) { q.AddrType = layers.LinkTypePPP }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := responderFor(nicOf("172.16.3.4", "172.16.3.5")).answer(whoHas(t, tt.target, tt.sender, tt.change), 1500)
			if (out != nil) != tt.answered {
				t.Fatalf("answered %t", out != nil)
			}
			if out == nil {
				return
			}
			want := append(append(bytesOf(t, "00 0d 3a 01 02 03 12 34 56 78 9a bc 08 06 00 01 08 00 06 04 00 02 12 34 56 78 9a bc"), net.ParseIP(tt.target).To4()...), clientMAC...)
			if want = append(want, net.ParseIP(tt.sender).To4()...); !cmp.Equal(want, out[:len(want)]) {
				t.Errorf("% x, want % x", out, want)
			}
		})
	}
}

// solicitation is one of the client for a neighbour, or for a router if target is empty.
func solicitation(t testing.TB, from, to, target string, hops uint8) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to)}
	if target == "" {
		return frameOf(t, clientMAC, multicastMAC, layers.EthernetTypeIPv6, ip, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(133, 0)}, &layers.ICMPv6RouterSolicitation{})
	}
	return frameOf(t, clientMAC, multicastMAC, layers.EthernetTypeIPv6, ip, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(135, 0)},
		&layers.ICMPv6NeighborSolicitation{TargetAddress: net.ParseIP(target)})
}

func TestSolicitations(t *testing.T) {
	const own, nobody = "fd00:db8:1::4", "::"
	local := linkLocal.String()
	advertised := func(flags, target string) string {
		return "88 00 " + flags + " 00 00 00 " + target + " 02 01 12 34 56 78 9a bc"
	}
	const gateway, machine = "fe80 0000 0000 0000 0000 1234 5678 9abc", "fd00 0db8 0001 0000 0000 0000 0000 0009"
	router := func(mtu string) string { // gopacket writes the last option first
		return "86 00 00 80 23 28 00 00 00 00 00 00 00 00 " + mtu +
			"03 04 40 80 ff ff ff ff ff ff ff ff 00 00 00 00 fd 00 0d b8 00 01 00 00 00 00 00 00 00 00 00 00 01 01 12 34 56 78 9a bc"
	}
	tests := []struct {
		name         string
		from, target string
		hops         uint8
		mtu          int
		to, want     string // the answer's address and ICMP without its checksum; empty: none
	}{
		{"the gateway", local, "fe80::1234:5678:9abc", 255, 1500, local, advertised("e0", gateway)},
		{"another machine, for which the gateway stands", own, "fd00:db8:1::9", 255, 1500, own, advertised("40", machine)},
		{"an address of the gateway that somebody tries finds its owner", nobody, "fe80::1234:5678:9abc", 255, 1500, "ff02::1", advertised("a0", gateway)},
		{"the machine's own address is free", nobody, own, 255, 1500, "", ""},
		{"its address of the link is free", nobody, local, 255, 1500, "", ""},
		{"another network", local, "fd01::1", 255, 1500, "", ""},
		{"from behind a router", local, "fe80::1234:5678:9abc", 254, 1500, "", ""},
		{"from a group", "ff02::1", "fe80::1234:5678:9abc", 255, 1500, "", ""},
		{"a router", local, "", 255, 1500, local, router("")},
		{"a router, before there is an address", nobody, "", 255, 1500, "ff02::1", router("")},
		{"a router of another MTU", local, "", 255, 1400, local, router("05 01 00 00 00 00 05 78 ")},
		{"a router, from behind one", local, "", 64, 1500, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := responderFor(nicOf("172.16.3.4", own)).answer(solicitation(t, tt.from, "ff02::1", tt.target, tt.hops), tt.mtu)
			if out == nil || tt.want == "" {
				if out != nil || tt.want != "" {
					t.Errorf("answered %t", out != nil)
				}
				return
			}
			p := decoded(t, out)
			ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
			mac := clientMAC
			if tt.to == "ff02::1" {
				mac = allNodesMAC
			}
			if ip.HopLimit != 255 || ip.DstIP.String() != tt.to || ip.SrcIP.String() != "fe80::1234:5678:9abc" || p.LinkLayer().LinkFlow().Dst().String() != mac.String() {
				t.Errorf("%v", p)
			}
			got := append([]byte{ip.Payload[0], ip.Payload[1]}, ip.Payload[4:]...)
			if want := bytesOf(t, tt.want); !cmp.Equal(want, got) {
				t.Errorf("% x, want % x", got, want)
			}
		})
	}
	if out := responderFor(nicOf("172.16.3.4")).answer(solicitation(t, local, "ff02::2", "", 255), 1500); out != nil {
		t.Error("a NIC without IPv6 has a router")
	}
}

func TestWithoutAGatewayOnlyDHCPIsAnswered(t *testing.T) {
	nic := nicOf("172.16.3.4", "fd00:db8:1::4")
	r := New(Options{NetworkInterface: func() *policy.NetworkInterface { return nic }})
	for name, frame := range map[string][]byte{
		"ARP":                      whoHas(t, "172.16.3.1", "172.16.3.4", nil),
		"a neighbour solicitation": solicitation(t, linkLocal.String(), "ff02::1", "fe80::1234:5678:9abc", 255),
		"a router solicitation":    solicitation(t, linkLocal.String(), "ff02::2", "", 255),
	} {
		if out := r.answer(frame, 1500); out != nil {
			t.Errorf("%s: %v", name, decoded(t, out))
		}
	}
	if out := r.advertise(1500); out != nil {
		t.Error("it advertises itself")
	}
}

func TestASenderHasAnAddressOfItsOwn(t *testing.T) {
	r := responderFor(nicOf("172.16.3.4"))
	for name, mac := range map[string]net.HardwareAddr{"a group": broadcastMAC, "the gateway": gatewayMAC} {
		q := whoHas(t, "172.16.3.1", "172.16.3.4", func(q *layers.ARP) { q.SourceHwAddress = mac })
		copy(q[6:], mac)
		if out := r.answer(q, 1500); out != nil {
			t.Errorf("%s: %v", name, decoded(t, out))
		}
	}
}

func TestAddressesWithoutASubnetThatHasThem(t *testing.T) {
	nic := nicOf("172.16.3.4")
	nic.IPConfigurations[0].Subnet.Prefixes = nil
	if s := settingsOf(nic, 1500); s.address != netip.MustParsePrefix("172.16.3.4/32") {
		t.Errorf("%v", s.address)
	}
	if settingsOf(&policy.NetworkInterface{}, 1500) != nil {
		t.Error("a NIC without an address has settings")
	}
}
