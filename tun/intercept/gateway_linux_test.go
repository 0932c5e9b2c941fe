package intercept

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

// On a bridge a neighbour or the host would answer too: a guest then sees two answers.
func TestWhatAGuestAsksItsGatewayReachesNobodyElse(t *testing.T) {
	request := func(from, target string) []byte {
		return ethernetOf(guest, all, arpType, serialized(&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: guest, SourceProtAddress: netip.MustParseAddr(from).AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: netip.MustParseAddr(target).AsSlice(),
		}))
	}
	const gateway6 = "fe80::1234:5678:9abc"
	for _, tt := range []struct {
		name  string
		frame []byte
		asked bool // of the gateway
	}{
		{"ARP for the gateway", request(own4, "10.0.1.1"), true},
		{"ARP for a neighbour", request(own4, others4), true},
		{"an ARP probe for a neighbour's address", request("0.0.0.0", others4), true},
		{"an ARP probe for its own address", request("0.0.0.0", own4), false},
		{"its own address, told to all", request(own4, own4), false},
		{"an answer of ARP", ethernetOf(guest, router, arpType, arpBy(guest, own4)), false},
		{"a solicitation of a neighbour", ethernet(guest, router, icmp6(own6, others6, 255, 135, others6)), true},
		{"a solicitation of the gateway", ethernet(guest, router, icmp6(link6, gateway6, 255, 135, gateway6)), true},
		{"a solicitation of a neighbour's address of the link", ethernet(guest, router, icmp6(link6, "fe80::5", 255, 135, "fe80::5")), false},
		{"a search for who has its own address", ethernet(guest, router, icmp6("::", own6, 255, 135, own6)), false},
		{"an advertisement of its own address", ethernet(guest, router, icmp6(own6, others6, 255, 136, own6)), false},
		{"a solicitation of routers", ethernet(guest, router, icmp6(link6, "ff02::2", 255, 133, "::")), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for flags, asked := range map[uint32]bool{0: false, flagGateway: tt.asked} {
				p := loadTest(t, flags)
				want, count := uint32(pass), "passed"
				if asked {
					want, count = drop, "for_gateway"
				}
				action, moved, _ := p.run(t, p.Sends, tt.frame, skb{Ifindex: lo})
				if action != want || len(moved) != 1 || moved[0] != count {
					t.Errorf("flags %d: action %d, counted %v; want %d, %s", flags, action, moved, want, count)
				}
			}
		})
	}
}
