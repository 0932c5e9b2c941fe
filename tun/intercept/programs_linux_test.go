package intercept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// What the programs answer tc.
const (
	pass     = ^uint32(0) // TC_ACT_UNSPEC
	drop     = 2          // TC_ACT_SHOT
	redirect = 7          // TC_ACT_REDIRECT
)

// The kernel runs a program of a test at the interface lo, whose index is 1. It is port, TUN and TUN of the rest.
const lo = uint32(1)

const secret = 0x1234567

var (
	guest   = net.HardwareAddr{2, 0, 0, 0, 0, 4}
	router  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	thief   = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	all     = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	own4    = "10.0.1.4"
	own6    = "fd00:db8:1:1::4"
	others4 = "10.0.1.5"
	// neighbour4 is the address of another port.
	neighbour4 = "10.0.1.6"
	others6    = "fd00:db8:1:1::5"
	link6      = "fe80::4"
	far4       = "203.0.113.10"
	far6       = "2001:db8::10"
)

// skb is the beginning of struct __sk_buff.
type skb struct {
	_, _, Mark, _, _, _, _, _, _ uint32
	IngressIfindex, Ifindex      uint32
}

// loaded are the programs of all tests: the kernel takes 80 ms to verify them.
var loaded = sync.OnceValues(func() (*programs, error) { return load(nil) })

// loadTest gives the programs, with a port at lo and nothing learned.
func loadTest(t testing.TB, flags uint32) *programs {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	p, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*ebpf.Map{p.MACs, p.Devices, p.Ports} {
		if err := prune(m, map[uint32]bool{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(prune(p.Peers, map[peerEntry]bool{}), prune(p.Routers, map[peerEntry]bool{}), prune(p.Stations, map[macEntry]bool{}), prune(p.Carried, map[[16]byte]bool{})); err != nil {
		t.Fatal(err)
	}
	none := make([]counts, ebpf.MustPossibleCPU())
	for _, err := range []error{
		p.Settings.Put(uint32(0), settingsEntry{Mark: secret}),
		p.Ports.Put(lo, portEntry{Device: lo, Flags: flags}), p.Counts.Put(lo, none), p.Senders.Put(lo, macOf(router)),
		putOwners(p.Owners, map[[16]byte]uint32{netip.MustParseAddr(own4).As16(): lo, netip.MustParseAddr(own6).As16(): lo, netip.MustParseAddr(neighbour4).As16(): lo + 1}),
		put(p.Rests, map[prefixEntry]restEntry{
			entryOf(netip.MustParsePrefix("0.0.0.0/0")): {lo, 0}, entryOf(netip.MustParsePrefix("2000::/3")): {lo, 0},
			entryOf(netip.MustParsePrefix("10.0.1.0/24")): {lo, 1}, entryOf(netip.MustParsePrefix("fd00:db8:1:1::/64")): {0, 1},
		}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func macOf(a net.HardwareAddr) (m macEntry) { copy(m.Byte[:], a); return m }

// run gives a frame to a program and returns its answer and the counters that moved.
func (p *programs) run(t testing.TB, program *ebpf.Program, frame []byte, context skb) (action uint32, moved []string, out []byte) {
	t.Helper()
	before := p.counted(t)
	out = make([]byte, len(frame)+64)
	options := ebpf.RunOptions{Data: frame, DataOut: out, Context: context}
	action, err := program.Run(&options)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range p.counted(t) {
		if n != before[i] && names[i] != "sent" { // every frame of the NIC is that
			moved = append(moved, names[i])
		}
	}
	return action, moved, options.DataOut
}

func (p *programs) counted(t testing.TB) counts {
	t.Helper()
	var each []counts
	if err := p.Counts.Lookup(lo, &each); err != nil {
		t.Fatal(err)
	}
	return sum(each)
}

// ethernet puts a header before a packet.
func ethernet(from, to net.HardwareAddr, packet []byte) []byte {
	kind := uint16(layers.EthernetTypeIPv4)
	if packet[0]>>4 == 6 {
		kind = uint16(layers.EthernetTypeIPv6)
	}
	return ethernetOf(from, to, kind, packet)
}

func ethernetOf(from, to net.HardwareAddr, kind uint16, payload []byte) []byte {
	return bytes.Join([][]byte{to, from, binary.BigEndian.AppendUint16(nil, kind), payload}, nil)
}

func udp(src, dst string, sport, dport uint16) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: sport, DstPort: dport, Payload: 20})
}

func arpBy(hardware net.HardwareAddr, ip string) []byte {
	l := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPReply,
		SourceHwAddress: hardware, SourceProtAddress: netip.MustParseAddr(ip).AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 0, 1, 1},
	}
	return serialized(l)
}

// arpFor asks for or tells of target.
func arpFor(hardware net.HardwareAddr, ip, target string) []byte {
	b := arpBy(hardware, ip)
	copy(b[24:], netip.MustParseAddr(target).AsSlice())
	return b
}

// withOptions puts no-operations behind the header of IPv4.
func withOptions(b []byte) []byte {
	out := slices.Concat(b[:20], []byte{1, 1, 1, 0}, b[20:])
	out[0] = 0x46
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out
}

// behind puts an extension header of 8 bytes before what a packet of IPv6 has.
func behind(header byte, b []byte) []byte {
	extension := []byte{b[6], 0, 1, 4, 0, 0, 0, 0} // PadN; a destination's or the route's options
	if header == uint8(layers.IPProtocolIPv6Fragment) {
		extension = []byte{b[6], 0, 0, 1, 0, 0, 0, 7} // more follow
	}
	out := slices.Concat(b[:40], extension, b[40:])
	out[6] = header
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// deep puts n headers of destination options there.
func deep(n int, b []byte) []byte {
	for range n {
		b = behind(uint8(layers.IPProtocolIPv6Destination), b)
	}
	return b
}

func serialized(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, l...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// icmp6 is a message of ICMPv6 with a target, as neighbour discovery has it.
func icmp6(src, dst string, hops, kind uint8, target string) []byte {
	body := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return serialized(&layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}, gopacket.Payload(body))
}

// listener is a message of MLD.
func listener(src string, kind uint8) []byte {
	body := append([]byte{58, 0, 5, 2, 0, 0, 1, 0}, make([]byte, 24)...)
	body[8] = kind
	return serialized(&layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolIPv6HopByHop,
		SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::16")}, gopacket.Payload(body))
}

func igmp(src string, ttl, kind uint8) []byte {
	return serialized(&layers.IPv4{Version: 4, IHL: 5, TTL: ttl, Protocol: layers.IPProtocolIGMP,
		SrcIP: net.ParseIP(src), DstIP: net.ParseIP("224.0.0.22")}, gopacket.Payload{kind, 0, 0, 0, 0, 0, 0, 0})
}

const (
	arpType  = uint16(layers.EthernetTypeARP)
	vlanType = uint16(layers.EthernetTypeDot1Q)
	lldpType = uint16(layers.EthernetTypeLinkLayerDiscovery)
)

func TestWhatAGuestSends(t *testing.T) {
	fragment := packettest.UDP(packettest.Spec{Src: "0.0.0.0", Dst: "255.255.255.255", SrcPort: 68, DstPort: 67, MoreFragments: true})
	tests := []struct {
		name  string
		frame []byte
		want  uint32
		count string
	}{
		{"IPv4 goes to nsgd", ethernet(guest, router, udp(own4, far4, 1, 2)), redirect, "capturedOut"},
		{"IPv6 goes to nsgd", ethernet(guest, router, udp(own6, far6, 1, 2)), redirect, "capturedOut"},
		{"another's address goes to nsgd, which refuses it", ethernet(guest, router, udp(others4, far4, 1, 2)), redirect, "capturedOut"},
		{"another's MAC is dropped", ethernet(thief, router, udp(own4, far4, 1, 2)), drop, "spoofed_mac"},
		{"ARP by its own address passes", ethernetOf(guest, all, arpType, arpBy(guest, own4)), pass, "passed"},
		{"an ARP probe passes", ethernetOf(guest, all, arpType, arpBy(guest, "0.0.0.0")), pass, "passed"},
		{"an ARP probe for another guest's address is dropped", ethernetOf(guest, all, arpType, arpFor(guest, "0.0.0.0", neighbour4)), drop, "spoofed_address"},
		{"ARP by another's address is dropped", ethernetOf(guest, all, arpType, arpBy(guest, others4)), drop, "spoofed_address"},
		{"ARP that names another's MAC is dropped", ethernetOf(guest, all, arpType, arpBy(thief, own4)), drop, "spoofed_mac"},
		{"a VLAN tag is dropped", ethernetOf(guest, router, vlanType, append([]byte{0, 5, 8, 0}, udp(own4, far4, 1, 2)...)), drop, "vlan"},
		{"another protocol is dropped", ethernetOf(guest, router, lldpType, make([]byte, 60)), drop, "ethertype"},
		{"a request for DHCP passes", ethernet(guest, all, udp("0.0.0.0", "255.255.255.255", 68, 67)), pass, "passed"},
		{"a request for DHCP to one address by broadcast goes to nsgd", ethernet(guest, all, udp("0.0.0.0", far4, 68, 67)), redirect, "capturedOut"},
		{"a request for DHCPv6 to a group that is routed goes to nsgd", ethernet(guest, net.HardwareAddr{0x33, 0x33, 0, 1, 0, 3}, udp(link6, "ff05::1:3", 546, 547)), redirect, "capturedOut"},
		{"a request for DHCP with options of IP goes to nsgd", ethernet(guest, all, withOptions(udp("0.0.0.0", "255.255.255.255", 68, 67))), redirect, "capturedOut"},
		{"a request for DHCP to one host goes to nsgd", ethernet(guest, router, udp(own4, far4, 68, 67)), redirect, "capturedOut"},
		{"a request for DHCP by another's address is dropped", ethernet(guest, all, udp(others4, "255.255.255.255", 68, 67)), drop, "spoofed_address"},
		{"a fragment that looks like DHCP goes to nsgd", ethernet(guest, all, fragment), redirect, "capturedOut"},
		{"an answer of DHCP is dropped", ethernet(guest, all, udp(own4, "255.255.255.255", 67, 68)), drop, "server_answer"},
		{"an answer of DHCP behind options of IP is dropped", ethernet(guest, router, withOptions(udp(own4, others4, 67, 68))), drop, "server_answer"},
		{"IPv4 of another version is malformed", ethernet(guest, router, append([]byte{0x35}, udp(own4, far4, 1, 2)[1:]...)), drop, "malformed"},
		{"IPv4 with a short header is malformed", ethernet(guest, router, append([]byte{0x44}, udp(own4, far4, 1, 2)[1:]...)), drop, "malformed"},
		{"IPv6 of another version is malformed", ethernetOf(guest, router, uint16(layers.EthernetTypeIPv6), append([]byte{0x40}, udp(own6, far6, 1, 2)[1:]...)), drop, "malformed"},
		{"a request for DHCPv6 passes", ethernet(guest, net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2}, udp(link6, "ff02::1:2", 546, 547)), pass, "passed"},
		{"an answer of DHCPv6 is dropped", ethernet(guest, router, udp(link6, "fe80::1", 547, 546)), drop, "server_answer"},
		{"IGMP passes", ethernet(guest, net.HardwareAddr{1, 0, 0x5e, 0, 0, 22}, igmp(own4, 1, 0x22)), pass, "passed"},
		{"a query of IGMP is dropped", ethernet(guest, net.HardwareAddr{1, 0, 0x5e, 0, 0, 22}, igmp(own4, 1, 0x11)), drop, "server_answer"},
		{"a router of multicast that advertises itself is dropped", ethernet(guest, net.HardwareAddr{1, 0, 0x5e, 0, 0, 22}, igmp(own4, 1, 0x30)), drop, "server_answer"},
		{"IGMP by another's address is dropped", ethernet(guest, net.HardwareAddr{1, 0, 0x5e, 0, 0, 22}, igmp(others4, 1, 0x22)), drop, "spoofed_address"},
		{"IGMP that could travel goes to nsgd", ethernet(guest, router, igmp(own4, 2, 0x22)), redirect, "capturedOut"},
		{"MLD passes", ethernet(guest, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 22}, listener(link6, 143)), pass, "passed"},
		{"a query of MLD is dropped", ethernet(guest, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 22}, listener(link6, 130)), drop, "server_answer"},
		{"MLD by another's address is dropped", ethernet(guest, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 22}, listener(others6, 143)), drop, "spoofed_address"},
		{"a neighbour solicitation passes", ethernet(guest, router, icmp6(own6, others6, 255, 135, others6)), pass, "passed"},
		{"a neighbour advertisement of its own passes", ethernet(guest, router, icmp6(own6, others6, 255, 136, own6)), pass, "passed"},
		{"one of its link-local address passes", ethernet(guest, router, icmp6(link6, others6, 255, 136, link6)), pass, "passed"},
		{"one for another's address is dropped", ethernet(guest, router, icmp6(own6, others6, 255, 136, others6)), drop, "spoofed_address"},
		{"a solicitation by another's address is dropped", ethernet(guest, router, icmp6(others6, own6, 255, 135, own6)), drop, "spoofed_address"},
		{"a claim to another's address is dropped", ethernet(guest, router, icmp6("::", "ff02::1:ff00:5", 255, 135, others6)), drop, "spoofed_address"},
		{"a claim to its own address passes", ethernet(guest, router, icmp6("::", "ff02::1:ff00:4", 255, 135, own6)), pass, "passed"},
		{"a router solicitation passes", ethernet(guest, router, icmp6(link6, "ff02::2", 255, 133, "::")), pass, "passed"},
		{"a router advertisement is dropped", ethernet(guest, router, icmp6(link6, "ff02::1", 255, 134, "::")), drop, "server_answer"},
		{"a redirect is dropped", ethernet(guest, router, icmp6(link6, others6, 255, 137, "::")), drop, "server_answer"},
		{"neighbour discovery for who is far is dropped: a router would carry it there", ethernet(guest, router, icmp6(own6, far6, 255, 135, far6)), drop, "server_answer"},
		{"an advertisement behind destination options is dropped", ethernet(guest, router, behind(60, icmp6(own6, others6, 255, 136, others6))), drop, "server_answer"},
		{"one behind hop-by-hop options is dropped", ethernet(guest, router, behind(0, icmp6(own6, others6, 255, 136, others6))), drop, "server_answer"},
		{"one in a first fragment is dropped", ethernet(guest, router, behind(44, icmp6(own6, others6, 255, 136, others6))), drop, "server_answer"},
		{"one behind eight headers is dropped", ethernet(guest, router, deep(8, icmp6(own6, others6, 255, 136, others6))), drop, "server_answer"},
		{"a ping behind options goes to nsgd", ethernet(guest, router, behind(60, icmp6(own6, others6, 255, 128, "::"))), redirect, "capturedOut"},
		{"neighbour discovery that has travelled goes to nsgd", ethernet(guest, router, icmp6(own6, others6, 254, 136, others6)), redirect, "capturedOut"},
		{"a ping goes to nsgd", ethernet(guest, router, icmp6(own6, far6, 255, 128, "::")), redirect, "capturedOut"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, 0)
			if err := p.MACs.Put(lo, macOf(guest)); err != nil {
				t.Fatal(err)
			}
			expect(t, p, p.Sends, tt.frame, skb{}, tt.want, tt.count)
		})
	}
}

func expect(t *testing.T, p *programs, program *ebpf.Program, frame []byte, context skb, want uint32, count string) {
	t.Helper()
	action, moved, _ := p.run(t, program, frame, context)
	if action != want || len(moved) != 1 || moved[0] != count {
		t.Errorf("answer %d, counted %v; want %d and %s", int32(action), moved, int32(want), count)
	}
}

func TestWhatAGuestReceives(t *testing.T) {
	tests := []struct {
		name  string
		flags uint32
		frame []byte
		from  uint32 // where it came in
		want  uint32
		count string
	}{
		{"IPv4 for it goes to nsgd", 0, ethernet(router, guest, udp(far4, own4, 1, 2)), 0, redirect, "capturedIn"},
		{"IPv6 for it goes to nsgd", 0, ethernet(router, guest, udp(far6, own6, 1, 2)), 0, redirect, "capturedIn"},
		{"what nobody may send has no device", 0, ethernet(router, guest, udp(others6, own6, 1, 2)), 0, drop, "no_device"},
		{"what a bridge floods is not for it", 0, ethernet(router, all, udp(far4, others4, 1, 2)), 0, drop, "group"},
		{"what is for another is dropped", 0, ethernet(router, guest, udp(far4, others4, 1, 2)), 0, drop, "not_addressed"},
		{"a NIC that forwards gets it", flagForwards, ethernet(router, guest, udp(far4, others4, 1, 2)), 0, redirect, "capturedIn"},
		{"at its own MAC alone", flagForwards, ethernet(router, thief, udp(far4, others4, 1, 2)), 0, drop, "not_addressed"},
		{"multicast is dropped", 0, ethernet(router, net.HardwareAddr{1, 0, 0x5e, 0, 0, 251}, udp(far4, "224.0.0.251", 5353, 5353)), 0, drop, "group"},
		{"ARP passes", 0, ethernetOf(router, guest, arpType, arpBy(router, "10.0.1.1")), 0, pass, "passed"},
		{"neighbour discovery passes", 0, ethernet(router, guest, icmp6("fe80::1", own6, 255, 135, own6)), 0, pass, "passed"},
		{"a router advertisement passes", 0, ethernet(router, guest, icmp6("fe80::1", "ff02::1", 255, 134, "::")), 0, pass, "passed"},
		{"an answer of DHCP by this host passes", 0, ethernet(router, guest, udp("168.63.129.16", own4, 67, 68)), 0, pass, "passed"},
		{"one from near passes", 0, ethernet(router, guest, udp("10.0.1.1", own4, 67, 68)), 7, pass, "passed"},
		{"one to all passes", 0, ethernet(router, all, udp(far4, "255.255.255.255", 67, 68)), 7, pass, "passed"},
		{"one from far goes to nsgd", 0, ethernet(router, guest, udp(far4, own4, 67, 68)), 7, redirect, "capturedIn"},
		{"an answer of DHCPv6 passes", 0, ethernet(router, guest, udp("fe80::1", link6, 547, 546)), 7, pass, "passed"},
		{"one from far goes to nsgd too", 0, ethernet(router, guest, udp(far6, own6, 547, 546)), 7, redirect, "capturedIn"},
		{"a VLAN tag is dropped", 0, ethernetOf(router, guest, vlanType, make([]byte, 60)), 0, drop, "vlan"},
		{"another protocol is dropped", 0, ethernetOf(router, guest, lldpType, make([]byte, 60)), 0, drop, "ethertype"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, tt.flags)
			if err := p.MACs.Put(lo, macOf(guest)); err != nil {
				t.Fatal(err)
			}
			expect(t, p, p.Receives, tt.frame, skb{IngressIfindex: tt.from}, tt.want, tt.count)
		})
	}
}

func TestAGuestTakesNoRoutersPlace(t *testing.T) {
	p := loadTest(t, 0)
	claims := map[string][]byte{
		"an advertisement of its address": ethernet(guest, all, icmp6(link6, "ff02::1", 255, 136, "fe80::1")),
		"a claim to its address":          ethernet(guest, all, icmp6("::", "ff02::1:ff00:1", 255, 135, "fe80::1")),
		"a solicitation from its address": ethernet(guest, all, icmp6("fe80::1", "ff02::1:ff00:5", 255, 135, others6)),
	}
	expect(t, p, p.Receives, ethernet(router, all, icmp6("fe80::1", "ff02::1", 255, 134, "::")), skb{}, pass, "passed")
	for name, frame := range claims {
		t.Run(name, func(t *testing.T) { expect(t, p, p.Sends, frame, skb{}, drop, "spoofed_address") })
	}
	expect(t, p, p.Sends, ethernet(guest, all, icmp6(link6, "ff02::1", 255, 136, link6)), skb{}, pass, "passed")
}

func TestAGuestWithoutAKnownMACHasNeitherTheGatewaysNorAGroups(t *testing.T) {
	p := loadTest(t, 0)
	for name, from := range map[string]net.HardwareAddr{"the gateway's": router, "a group's": all} {
		t.Run(name, func(t *testing.T) {
			expect(t, p, p.Sends, ethernetOf(from, all, arpType, arpBy(from, own4)), skb{}, drop, "spoofed_mac")
			expect(t, p, p.Sends, ethernet(from, all, udp("0.0.0.0", "255.255.255.255", 68, 67)), skb{}, drop, "spoofed_mac")
		})
	}
}

func TestAGuestTakesNoOtherGuestsMAC(t *testing.T) {
	p := loadTest(t, 0)
	const other = lo + 1
	probe := ethernetOf(thief, all, arpType, arpBy(thief, "0.0.0.0"))
	if err := errors.Join(p.MACs.Put(other, macOf(thief)), p.Stations.Put(macOf(thief), other)); err != nil {
		t.Fatal(err)
	}
	expect(t, p, p.Sends, probe, skb{}, drop, "spoofed_mac")
	if err := p.MACs.Delete(other); err != nil {
		t.Fatal(err)
	}
	expect(t, p, p.Sends, probe, skb{}, pass, "passed") // the other guest is gone
	expect(t, p, p.Sends, ethernetOf(thief, all, arpType, arpBy(thief, own4)), skb{}, pass, "passed")
	var port uint32
	if err := p.Stations.Lookup(macOf(thief), &port); err != nil || port != lo {
		t.Errorf("its own MAC is of port %d: %v", port, err)
	}
}

func TestWhatThisHostSends(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		want  uint32
		count string
	}{
		{"IPv4 goes to nsgd", ethernet(guest, router, udp(own4, far4, 1, 2)), redirect, "capturedOut"},
		{"from another MAC too", ethernet(thief, router, udp(own4, far4, 1, 2)), redirect, "capturedOut"},
		{"ARP passes", ethernetOf(guest, all, arpType, arpBy(guest, others4)), pass, "passed"},
		{"a request for DHCP passes", ethernet(guest, all, udp("0.0.0.0", "255.255.255.255", 68, 67)), pass, "passed"},
		{"neighbour discovery passes", ethernet(guest, router, icmp6(link6, others6, 255, 136, link6)), pass, "passed"},
		{"another protocol passes", ethernetOf(guest, router, lldpType, make([]byte, 60)), pass, "passed"},
		{"a VLAN tag is dropped", ethernetOf(guest, router, vlanType, make([]byte, 60)), drop, "vlan"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, flagHost)
			expect(t, p, p.Sends, tt.frame, skb{}, tt.want, tt.count)
		})
	}
}

// What carries IP inside it would pass the rules by. What doesn't is the link's own business.
func TestNothingOfThisHostsCarriesIPPastTheRules(t *testing.T) {
	const mplsGroup, macsec, provider, trill, batman, nsh, session, discovery, eapol, slow = 0x8848, 0x88e5, 0x88e7, 0x22f3, 0x4305, 0x894f, 0x8864, 0x8863, 0x888e, 0x8809
	for _, tt := range []struct {
		want  uint32
		count string
		types []uint16
	}{
		{drop, "ethertype", []uint16{session, uint16(layers.EthernetTypeMPLSUnicast), mplsGroup, macsec, provider, trill, batman, nsh}},
		{pass, "passed", []uint16{lldpType, arpType, discovery, eapol, slow}},
	} {
		for _, kind := range tt.types {
			t.Run(fmt.Sprintf("%#04x", kind), func(t *testing.T) {
				p := loadTest(t, flagHost)
				frame := ethernetOf(router, guest, kind, make([]byte, 60))
				expect(t, p, p.Sends, frame, skb{}, tt.want, tt.count)
				expect(t, p, p.Receives, frame, skb{}, tt.want, tt.count)
			})
		}
	}
}

func TestWhatNsgdSent(t *testing.T) {
	frame := ethernet(guest, router, udp(own4, far4, 1, 2))
	tests := []struct {
		name    string
		sends   bool
		flags   uint32
		context skb
		ours    bool
	}{
		{"what goes on from a guest has the mark", true, 0, skb{Mark: secret}, true},
		{"another mark is nobody's", true, 0, skb{Mark: secret + 1}, false},
		{"no mark is nobody's", true, 0, skb{}, false},
		{"a device of nsgd is no proof where frames come in", true, 0, skb{IngressIfindex: lo}, false},
		{"what a guest gets came in at a device of nsgd", false, 0, skb{IngressIfindex: lo}, true},
		{"the mark is no proof where frames leave", false, 0, skb{Mark: secret}, false},
		{"what this host sends on came in at a device of nsgd", true, flagHost, skb{IngressIfindex: lo}, true},
		{"what this host gets has the mark", false, flagHost, skb{Mark: secret}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, tt.flags)
			if err := p.Devices.Put(lo, lo); err != nil {
				t.Fatal(err)
			}
			program, f := p.Receives, ethernet(router, guest, udp(far4, own4, 1, 2))
			if tt.sends {
				program, f = p.Sends, frame
			}
			action, moved, _ := p.run(t, program, f, tt.context)
			if ours := action == pass && len(moved) == 0; ours != tt.ours {
				t.Errorf("answer %d, counted %v: ours %v, want %v", int32(action), moved, ours, tt.ours)
			}
		})
	}
}

func TestWhatNsgdWrites(t *testing.T) {
	tests := []struct {
		name     string
		behind   uint32 // port of the device; 0: the rest
		packet   []byte
		mac      bool // the guest's is known
		peer     string
		want     uint32
		count    string
		from, to net.HardwareAddr
	}{
		{"IPv4 to the guest", lo, udp(far4, own4, 1, 2), true, "", redirect, "delivered", router, guest},
		{"IPv6 to the guest", lo, udp(far6, own6, 1, 2), true, "", redirect, "delivered", router, guest},
		{"to a guest that never spoke", lo, udp(far4, own4, 1, 2), false, "", drop, "no_mac", nil, nil},
		{"to whom the guest sent", 0, udp(own4, far4, 1, 2), true, far4, redirect, "sentOn", guest, thief},
		{"IPv6 to whom the guest sent", 0, udp(own6, far6, 1, 2), true, far6, redirect, "sentOn", guest, thief},
		{"to whom the guest never sent: its last sender", 0, udp(own4, far4, 1, 2), true, others4, redirect, "sentOn", guest, router},
		{"from a guest that never spoke", 0, udp(own4, far4, 1, 2), false, far4, drop, "no_mac", nil, nil},
		{"from nobody's address", 0, udp(others4, far4, 1, 2), true, far4, drop, "no_sender", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, 0)
			errs := []error{p.Devices.Put(lo, tt.behind)}
			if tt.mac {
				errs = append(errs, p.MACs.Put(lo, macOf(guest)))
			}
			if tt.peer != "" {
				key := peerEntry{lo, netip.MustParseAddr(tt.peer).As16()}
				errs = append(errs, p.Peers.Put(key, macOf(thief)))
			}
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			// The kernel's test wants an Ethernet header; the program puts its own before it.
			frame := ethernet(net.HardwareAddr{0, 0, 0, 0, 0, 0}, net.HardwareAddr{0, 0, 0, 0, 0, 0}, tt.packet)
			action, moved, out := p.run(t, p.Writes, frame, skb{})
			if action != tt.want || len(moved) != 1 || moved[0] != tt.count {
				t.Fatalf("answer %d, counted %v; want %d and %s", int32(action), moved, int32(tt.want), tt.count)
			}
			if tt.want != redirect {
				return
			}
			want := append(ethernet(tt.from, tt.to, tt.packet)[:14:14], frame...)
			if !bytes.Equal(out, want) {
				t.Errorf("frame\n% x, want\n% x", out, want)
			}
		})
	}
}

func TestAGuestsMACIsLearnedFromItsOwnAddresses(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		known bool
	}{
		{"IPv4", ethernet(guest, router, udp(own4, far4, 1, 2)), true},
		{"IPv6", ethernet(guest, router, udp(own6, far6, 1, 2)), true},
		{"ARP", ethernetOf(guest, all, arpType, arpBy(guest, own4)), true},
		{"an advertisement from its link-local address", ethernet(guest, router, icmp6(link6, others6, 255, 136, own6)), true},
		{"not from another's address", ethernet(guest, router, udp(others4, far4, 1, 2)), false},
		{"not from an ARP probe", ethernetOf(guest, all, arpType, arpBy(guest, "0.0.0.0")), false},
		{"not from a request for DHCP", ethernet(guest, all, udp("0.0.0.0", "255.255.255.255", 68, 67)), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := loadTest(t, 0)
			p.run(t, p.Sends, tt.frame, skb{})
			var got macEntry
			err := p.MACs.Lookup(lo, &got)
			if known := err == nil && got == macOf(guest); known != tt.known {
				t.Errorf("known %v (%v, %v), want %v", known, got, err, tt.known)
			}
			if !tt.known {
				return
			}
			p.run(t, p.Sends, ethernetOf(thief, all, arpType, arpBy(thief, own4)), skb{})
			if err := p.MACs.Lookup(lo, &got); err != nil || got != macOf(guest) {
				t.Errorf("a second MAC took its place: %v, %v", got, err)
			}
		})
	}
}

func TestANICThatForwardsIsFoundBySourcesThatItSentFrom(t *testing.T) {
	p := loadTest(t, flagForwards)
	p.run(t, p.Sends, ethernetOf(guest, all, arpType, arpBy(guest, own4)), skb{})
	p.run(t, p.Sends, ethernet(guest, thief, udp("192.168.7.7", far4, 1, 2)), skb{})
	if err := p.Devices.Put(lo, uint32(0)); err != nil {
		t.Fatal(err)
	}
	frame := ethernet(make([]byte, 6), make([]byte, 6), udp("192.168.7.7", far4, 1, 2))
	expect(t, p, p.Writes, frame, skb{}, redirect, "sentOn")
}

func TestAnInterfaceWithoutAPortIsClosed(t *testing.T) {
	p := loadTest(t, 0)
	if err := p.Ports.Delete(lo); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]*ebpf.Program{"sends": p.Sends, "receives": p.Receives, "writes": p.Writes} {
		if action, _, _ := p.run(t, program, ethernetOf(guest, all, arpType, arpBy(guest, own4)), skb{}); action != drop {
			t.Errorf("%s: answer %d, want %d", name, int32(action), drop)
		}
	}
}

func TestAPortThatIsClosedDropsEverything(t *testing.T) {
	p := loadTest(t, 0)
	if err := p.Ports.Put(lo, closedPort("guest")); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]*ebpf.Program{"sends": p.Sends, "receives": p.Receives} {
		if action, _, _ := p.run(t, program, ethernetOf(guest, all, arpType, arpBy(guest, own4)), skb{}); action != drop {
			t.Errorf("%s: answer %d, want %d", name, int32(action), drop)
		}
	}
}

func TestWithoutAConfirmationAnInterfaceOpens(t *testing.T) {
	p := loadTest(t, 0)
	i := &Interceptor{programs: p}
	if err := i.OpenAfter(1); err != nil { // a nanosecond
		t.Fatal(err)
	}
	spoofed := ethernet(guest, router, udp(own4, far4, 1, 2))
	for _, program := range []*ebpf.Program{p.Sends, p.Receives} {
		if action, _, _ := p.run(t, program, spoofed, skb{}); action != pass {
			t.Errorf("after the time: answer %d, want -1", int32(action))
		}
	}
	if err := i.OpenAfter(0); err != nil {
		t.Fatal(err)
	}
	expect(t, p, p.Sends, spoofed, skb{}, redirect, "capturedOut")
}
