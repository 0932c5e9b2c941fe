package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// ask4 sends a message of the client and returns the answer with its frame; nil for none.
func ask4(t *testing.T, r *Responder, mtu int, q *dhcpv4.DHCPv4, ip layers.IPv4) (*dhcpv4.DHCPv4, gopacket.Packet) {
	t.Helper()
	ip.Version, ip.TTL, ip.Protocol = 4, 64, layers.IPProtocolUDP
	if ip.SrcIP == nil {
		ip.SrcIP = net.IPv4zero
	}
	if ip.DstIP == nil {
		ip.DstIP = net.IPv4bcast
	}
	out := r.answer(frameOf(t, clientMAC, broadcastMAC, layers.EthernetTypeIPv4, &ip, &layers.UDP{SrcPort: 68, DstPort: 67}, gopacket.Payload(q.ToBytes())), mtu)
	if out == nil {
		return nil, nil
	}
	p := decoded(t, out)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if udp == nil || udp.SrcPort != 67 || udp.DstPort != 68 || len(udp.Payload) > maxMessage4 {
		t.Fatalf("the answer %v", p)
	}
	a, err := dhcpv4.FromBytes(udp.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return a, p
}

// message4 is a client's message of a type.
func message4(kind dhcpv4.MessageType, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	q, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(clientMAC)}, modifiers...)...)
	if err != nil {
		panic(err)
	}
	return q
}

func requested(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a).To4()))
}

func chosen(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(a).To4()))
}

func having(a string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(a).To4()) }

// azureLease are the options of a lease that dhclient wrote in Azure for 172.16.3.4 (a file that
// cloudfoundry/bosh-azure-cpi-release has among its tests). The domain is Azure's for that network.
func azureLease(t *testing.T, kind string) map[byte]string {
	return map[byte]string{
		1: "ff ff ff 00", 3: "ac 10 03 01", 6: "a8 3f 81 10", 15: hexOf("ta1qcq3khvnelp4p0x3q10hsjh.ix.internal.cloudapp.net"),
		51: "ff ff ff ff", 53: kind, 54: "a8 3f 81 10", 58: "ff ff ff ff", 59: "ff ff ff ff",
		121: "00 ac 10 03 01 20 a8 3f 81 10 ac 10 03 01 20 a9 fe a9 fe ac 10 03 01", 245: "a8 3f 81 10",
	}
}

func hexOf(text string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range []byte(text) {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// mustHave compares all options of an answer, byte by byte.
func mustHave(t *testing.T, a *dhcpv4.DHCPv4, want map[byte]string) {
	t.Helper()
	exact := dhcpv4.Options{}
	for code, digits := range want {
		exact[code] = bytesOf(t, digits)
	}
	got := dhcpv4.Options{}
	for code, value := range a.Options {
		if code != 255 { // the end
			got[code] = value
		}
	}
	if diff := cmp.Diff(map[uint8][]byte(exact), map[uint8][]byte(got)); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

func TestDHCPv4Exchanges(t *testing.T) {
	const offer, ack, nak, none = "02", "05", "06", ""
	tests := []struct {
		name    string
		message *dhcpv4.DHCPv4
		ip      layers.IPv4
		kind    string
		to      string // address and MAC of the answer
	}{
		{"a discover is offered the primary address", message4(1), layers.IPv4{}, offer, "172.16.3.4 00:0d:3a:01:02:03"},
		{"by broadcast where the client asks for it", message4(1, dhcpv4.WithBroadcast(true)), layers.IPv4{}, offer, "255.255.255.255 ff:ff:ff:ff:ff:ff"},
		{"whatever address it would like", message4(1, requested("172.16.3.9")), layers.IPv4{}, offer, "172.16.3.4 00:0d:3a:01:02:03"},
		{"a request for the offer is granted", message4(3, requested("172.16.3.4"), chosen("168.63.129.16")), layers.IPv4{}, ack, "172.16.3.4 00:0d:3a:01:02:03"},
		{"a request to another server is left to it", message4(3, requested("172.16.3.4"), chosen("172.16.3.2")), layers.IPv4{}, none, ""},
		{"a rebooted client gets its address again", message4(3, requested("172.16.3.4")), layers.IPv4{}, ack, "172.16.3.4 00:0d:3a:01:02:03"},
		{"a rebooted client with another network's address is told so", message4(3, requested("10.0.0.4")), layers.IPv4{}, nak, "255.255.255.255 ff:ff:ff:ff:ff:ff"},
		{"a secondary address is no lease", message4(3, requested("172.16.3.5")), layers.IPv4{}, nak, "255.255.255.255 ff:ff:ff:ff:ff:ff"},
		{"renewed by unicast to the platform", message4(3, having("172.16.3.4")),
			layers.IPv4{SrcIP: net.IP{172, 16, 3, 4}, DstIP: net.IP{168, 63, 129, 16}}, ack, "172.16.3.4 00:0d:3a:01:02:03"},
		{"rebound by broadcast, answered by unicast", message4(3, having("172.16.3.4"), dhcpv4.WithBroadcast(true)), layers.IPv4{SrcIP: net.IP{172, 16, 3, 4}}, ack, "172.16.3.4 00:0d:3a:01:02:03"},
		{"renewed for another address", message4(3, having("172.16.3.9")), layers.IPv4{SrcIP: net.IP{172, 16, 3, 9}}, nak, "255.255.255.255 ff:ff:ff:ff:ff:ff"},
		{"a request for nothing", message4(3), layers.IPv4{}, none, ""},
		{"a request for half an address", message4(3, dhcpv4.WithGeneric(dhcpv4.OptionRequestedIPAddress, []byte{172, 16}), having("172.16.3.4")), layers.IPv4{}, none, ""},
		{"a release", message4(7, having("172.16.3.4"), chosen("168.63.129.16")), layers.IPv4{}, none, ""},
		{"a declined address", message4(4, requested("172.16.3.4"), chosen("168.63.129.16")), layers.IPv4{}, none, ""},
		{"a server's own message", message4(5), layers.IPv4{}, none, ""},
		{"a relayed message", message4(1, dhcpv4.WithGatewayIP(net.IP{172, 16, 3, 9})), layers.IPv4{}, none, ""},
		{"a message that has hopped", message4(1, func(q *dhcpv4.DHCPv4) { q.HopCount = 1 }), layers.IPv4{}, none, ""},
		{"a relay's option", message4(1, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 1, 1})), layers.IPv4{}, none, ""},
		{"a reply", message4(1, func(q *dhcpv4.DHCPv4) { q.OpCode = dhcpv4.OpcodeBootReply }), layers.IPv4{}, none, ""},
		{"the name of another machine", message4(1, dhcpv4.WithHwAddr(otherMAC)), layers.IPv4{}, none, ""},
		{"a long client identifier", message4(1, dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, make([]byte, 256))), layers.IPv4{}, none, ""},
		{"a question to the machine's own DHCP server elsewhere", message4(1), layers.IPv4{DstIP: net.IP{172, 16, 3, 9}}, none, ""},
		{"a fragment", message4(1), layers.IPv4{Flags: layers.IPv4MoreFragments}, none, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nic := nicOf("172.16.3.4", "172.16.3.5", "fd00:db8:1::4")
			nic.DomainNameSuffix = "ta1qcq3khvnelp4p0x3q10hsjh.ix.internal.cloudapp.net"
			a, p := ask4(t, responderFor(nic), 1500, tt.message, tt.ip)
			if tt.kind == none {
				if a != nil {
					t.Errorf("answered: %s", a.Summary())
				}
				return
			}
			if a == nil {
				t.Fatal("no answer")
			}
			ethernet, ip := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if to := ip.DstIP.String() + " " + ethernet.DstMAC.String(); to != tt.to || ip.SrcIP.String() != "168.63.129.16" || ethernet.SrcMAC.String() != "12:34:56:78:9a:bc" {
				t.Errorf("from %s %s to %s, want to %s", ip.SrcIP, ethernet.SrcMAC, to, tt.to)
			}
			if a.TransactionID != tt.message.TransactionID || !bytes.Equal(a.ClientHWAddr, clientMAC) {
				t.Errorf("not an answer to the question: %s", a.Summary())
			}
			if tt.kind == nak {
				mustHave(t, a, map[byte]string{53: nak, 54: "a8 3f 81 10"})
				if !a.YourIPAddr.IsUnspecified() || !a.IsBroadcast() {
					t.Errorf("%s", a.Summary())
				}
				return
			}
			mustHave(t, a, azureLease(t, tt.kind))
			if a.YourIPAddr.String() != "172.16.3.4" {
				t.Errorf("leases %s", a.YourIPAddr)
			}
		})
	}
}

func TestAnInformedClientGetsNoLease(t *testing.T) {
	nic := nicOf("172.16.3.4", "172.16.3.5")
	want := azureLease(t, "05")
	want[15] = hexOf("internal.cloudapp.net")
	for _, code := range []byte{51, 58, 59} {
		delete(want, code)
	}
	a, p := ask4(t, responderFor(nic), 1500, message4(8, having("172.16.3.5")), layers.IPv4{SrcIP: net.IP{172, 16, 3, 5}})
	if a == nil {
		t.Fatal("no answer")
	}
	mustHave(t, a, want)
	if to := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4).DstIP.String(); to != "172.16.3.5" || !a.YourIPAddr.IsUnspecified() {
		t.Errorf("to %s: %s", to, a.Summary())
	}
	if a, _ := ask4(t, responderFor(nic), 1500, message4(8, having("172.16.3.9")), layers.IPv4{}); a != nil {
		t.Error("an address of nobody is informed")
	}
}

func TestAnAnswerRepeatsTheClientIdentifier(t *testing.T) {
	a, _ := ask4(t, responderFor(nicOf("172.16.3.4")), 1500, message4(1, dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte{255, 1, 2})), layers.IPv4{})
	if got := a.Options.Get(dhcpv4.OptionClientIdentifier); !bytes.Equal(got, []byte{255, 1, 2}) {
		t.Errorf("%v", got)
	}
}

func TestWhatAClientIsToldComesFromThePolicy(t *testing.T) {
	own, ofNetwork := netip.MustParseAddr("172.16.3.10"), netip.MustParseAddr("172.16.3.11")
	tests := []struct {
		name   string
		change func(*policy.NetworkInterface)
		mtu    int
		want   map[byte]string // what differs; empty: absent
	}{
		{"nothing is said of DNS", func(n *policy.NetworkInterface) {}, 1500, nil},
		{"the network's servers", func(n *policy.NetworkInterface) {
			n.IPConfigurations[0].Subnet.VirtualNetwork.DNSServers = []netip.Addr{ofNetwork, netip.MustParseAddr("fd00::53")}
		}, 1500, map[byte]string{6: "ac 10 03 0b", 15: hexOf("reddog.microsoft.com")}},
		{"the NIC's go before them", func(n *policy.NetworkInterface) {
			n.IPConfigurations[0].Subnet.VirtualNetwork.DNSServers = []netip.Addr{ofNetwork}
			n.DNSServers = []netip.Addr{own, ofNetwork}
		}, 1500, map[byte]string{6: "ac 10 03 0a ac 10 03 0b", 15: hexOf("reddog.microsoft.com")}},
		{"the NIC goes back to Azure's", func(n *policy.NetworkInterface) {
			n.IPConfigurations[0].Subnet.VirtualNetwork.DNSServers = []netip.Addr{ofNetwork}
			n.DNSServers = []netip.Addr{policy.AzureDNS}
		}, 1500, nil},
		{"servers of IPv6 alone", func(n *policy.NetworkInterface) { n.DNSServers = []netip.Addr{netip.MustParseAddr("fd00::53")} }, 1500,
			map[byte]string{6: "", 15: hexOf("reddog.microsoft.com")}},
		{"another MTU", func(n *policy.NetworkInterface) {}, 1400, map[byte]string{26: "05 78"}},
		{"the primary address isn't the first", func(n *policy.NetworkInterface) {
			n.IPConfigurations = append(n.IPConfigurations, n.IPConfigurations[0])
			n.IPConfigurations[0].Primary, n.IPConfigurations[0].Address = false, netip.MustParseAddr("172.16.3.7")
		}, 1500, nil},
		{"a long domain and many servers leave no room for the domain", func(n *policy.NetworkInterface) {
			n.DomainNameSuffix = strings.Repeat("a.", 120) + "net"
		}, 1400, map[byte]string{15: "", 26: "05 78"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nic := nicOf("172.16.3.4")
			tt.change(nic)
			want := azureLease(t, "05")
			want[15] = hexOf("internal.cloudapp.net")
			for code, value := range tt.want {
				if want[code] = value; value == "" {
					delete(want, code)
				}
			}
			a, _ := ask4(t, responderFor(nic), tt.mtu, message4(3, requested("172.16.3.4")), layers.IPv4{})
			if a == nil {
				t.Fatal("no answer")
			}
			mustHave(t, a, want)
		})
	}
}

func TestNoMoreServersAreToldThanTheirBound(t *testing.T) {
	nic := nicOf("172.16.3.4")
	for i := range 100 {
		nic.DNSServers = append(nic.DNSServers, netip.AddrFrom4([4]byte{172, 16, 4, byte(i)}))
	}
	a, _ := ask4(t, responderFor(nic), 1500, message4(1), layers.IPv4{})
	if n := len(a.DNS()); n != maxServers {
		t.Errorf("%d servers, want %d", n, maxServers)
	}
}

func TestAReloadChangesTheAnswer(t *testing.T) {
	nic := nicOf("172.16.3.4")
	r := New(Options{NetworkInterface: func() *policy.NetworkInterface { return nic }})
	for _, address := range []string{"172.16.3.4", "172.16.3.8"} {
		nic = nicOf(address)
		if a, _ := ask4(t, r, 1500, message4(1), layers.IPv4{}); a == nil || a.YourIPAddr.String() != address {
			t.Errorf("%v, want %s", a, address)
		}
	}
	for name, gone := range map[string]*policy.NetworkInterface{"the NIC has gone": nil, "it has IPv6 alone": nicOf("fd00:db8:1::4")} {
		nic = gone
		if a, _ := ask4(t, r, 1500, message4(1), layers.IPv4{}); a != nil {
			t.Errorf("%s: %s", name, a.Summary())
		}
	}
}

func TestOnlyTheConfiguredClientIsAnswered(t *testing.T) {
	nic := nicOf("172.16.3.4")
	for _, tt := range []struct {
		name     string
		client   net.HardwareAddr
		answered bool
	}{{"none is configured", nil, true}, {"this one", clientMAC, true}, {"another one", otherMAC, false}} {
		r := New(Options{NetworkInterface: func() *policy.NetworkInterface { return nic }, Client: slices.Clone(tt.client)})
		if a, _ := ask4(t, r, 1500, message4(1), layers.IPv4{}); (a != nil) != tt.answered {
			t.Errorf("%s: answered %t", tt.name, a != nil)
		}
	}
}
