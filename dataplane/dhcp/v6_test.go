package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

var multicastMAC = net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2}

// frame6Of is a DHCPv6 message of the client.
func frame6Of(t testing.TB, message []byte, from, to string) []byte {
	return frameOf(t, clientMAC, multicastMAC, layers.EthernetTypeIPv6,
		&layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to)},
		&layers.UDP{SrcPort: 546, DstPort: 547}, gopacket.Payload(message))
}

// options6 are a message's options, each as its bytes on the wire.
func options6(list dhcpv6.Options) (out [][]byte) {
	for _, o := range list {
		out = append(out, dhcpv6.Options{o}.ToBytes())
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

const (
	duidOfClient = "00 03 00 01 00 0d 3a 01 02 03"
	withClient   = "00 01 00 0a " + duidOfClient
	withServer   = "00 02 00 0a 00 03 00 01 12 34 56 78 9a bc"
	otherServer  = "00 02 00 0a 00 03 00 01 12 34 56 78 9a bd"
	// asked is an association without an address.
	asked = "00 03 00 0c 00 00 00 07 00 00 00 00 00 00 00 00"
	// leased is the answer: T1 of 50 days, T2 of 80, an address for 100 and 200 days.
	leased = "00 03 00 28 00 00 00 07 00 41 eb 00 00 69 78 00 00 05 00 18 fd 00 0d b8 00 01 00 00 00 00 00 00 00 00 00 04 00 83 d6 00 01 07 ac 00"
	search = "00 18 00 17 08 696e7465726e616c 08 636c6f7564617070 03 6e6574 00" // internal.cloudapp.net
)

// naming is an association with an address.
func naming(digits string) string {
	return "00 03 00 28 00 00 00 07 00 00 00 00 00 00 00 00 00 05 00 18 " + digits + " 00 00 00 00 00 00 00 00"
}

const (
	oursIn, otherIn = "fd 00 0d b8 00 01 00 00 00 00 00 00 00 00 00 04", "fd 00 0d b8 00 01 00 00 00 00 00 00 00 00 00 09"
)

func TestDHCPv6Exchanges(t *testing.T) {
	const solicit, request, confirm, renew, rebind, release, decline, inform = 1, 3, 4, 5, 6, 8, 9, 11
	const advertise, reply, none = 2, 7, 0
	tests := []struct {
		name    string
		message byte
		options []string
		kind    dhcpv6.MessageType
		want    []string
	}{
		{"a solicit is offered the address", solicit, []string{withClient, asked}, advertise, []string{withClient, withServer, leased, search}},
		{"a rapid one gets it at once", solicit, []string{withClient, asked, "00 0e 00 00"}, reply, []string{withClient, withServer, leased, search, "00 0e 00 00"}},
		{"a solicit that knows a server", solicit, []string{withClient, withServer, asked}, none, nil},
		{"a solicit of nobody", solicit, []string{asked}, none, nil},
		{"a request is granted", request, []string{withClient, withServer, asked}, reply, []string{withClient, withServer, leased, search}},
		{"a request to another server", request, []string{withClient, otherServer, asked}, none, nil},
		{"a request to no server", request, []string{withClient, asked}, none, nil},
		{"renewed", renew, []string{withClient, withServer, naming(oursIn)}, reply, []string{withClient, withServer, leased, search}},
		{"rebound by whoever hears it", rebind, []string{withClient, naming(oursIn)}, reply, []string{withClient, withServer, leased, search}},
		{"a rebind that names a server", rebind, []string{withClient, withServer, naming(oursIn)}, none, nil},
		{"an address that the NIC has no more ends", renew, []string{withClient, withServer, naming(otherIn)}, reply, []string{withClient, withServer, search,
			"00 03 00 44 00 00 00 07 00 41 eb 00 00 69 78 00 00 05 00 18 " + oursIn + " 00 83 d6 00 01 07 ac 00 00 05 00 18 " + otherIn + " 00 00 00 00 00 00 00 00"}},
		{"a second association gets nothing", solicit, []string{withClient, asked, "00 03 00 0c 00 00 00 08 00 00 00 00 00 00 00 00"}, advertise,
			[]string{withClient, withServer, leased, search, "00 03 00 12 00 00 00 08 00 00 00 00 00 00 00 00 00 0d 00 02 00 02"}},
		{"no prefix is delegated", solicit, []string{withClient, "00 19 00 0c 00 00 00 07 00 00 00 00 00 00 00 00"}, advertise,
			[]string{withClient, withServer, search, "00 19 00 12 00 00 00 07 00 00 00 00 00 00 00 00 00 0d 00 02 00 06"}},
		{"the NIC's address is confirmed", confirm, []string{withClient, naming(oursIn)}, reply, []string{withClient, withServer, "00 0d 00 02 00 00"}},
		{"another one is not on the link", confirm, []string{withClient, naming(otherIn)}, reply, []string{withClient, withServer, "00 0d 00 02 00 04"}},
		{"nothing is confirmed by silence", confirm, []string{withClient, asked}, none, nil},
		{"a release", release, []string{withClient, withServer, naming(oursIn)}, reply, []string{withClient, withServer, "00 0d 00 02 00 00"}},
		{"a declined address", decline, []string{withClient, withServer, naming(oursIn)}, reply, []string{withClient, withServer, "00 0d 00 02 00 00"}},
		{"information alone", inform, []string{withClient}, reply, []string{withClient, withServer, search}},
		{"information for nobody", inform, nil, reply, []string{withServer, search}},
		{"information of another server", inform, []string{otherServer}, none, nil},
		{"a server's own message", reply, []string{withClient, asked}, none, nil},
		{"a relay", 12, []string{withClient, asked}, none, nil},
		{"a long client identifier", solicit, []string{"00 01 00 83 00 03 00 01 " + hexOf(string(make([]byte, 127))), asked}, none, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			message := []byte{tt.message, 0xab, 0xcd, 0xef}
			for _, o := range tt.options {
				message = append(message, bytesOf(t, o)...)
			}
			out := responderFor(nicOf("172.16.3.4", "fd00:db8:1::4", "fd00:db8:1::5")).answer(frame6Of(t, message, linkLocal.String(), "ff02::1:2"), 1500)
			if tt.kind == none {
				if out != nil {
					t.Errorf("answered: %v", decoded(t, out))
				}
				return
			}
			if out == nil {
				t.Fatal("no answer")
			}
			p := decoded(t, out)
			ethernet, ip, udp := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), p.Layer(layers.LayerTypeIPv6).(*layers.IPv6), p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if ethernet.DstMAC.String() != clientMAC.String() || ip.SrcIP.String() != "fe80::1234:5678:9abc" || ip.DstIP.String() != linkLocal.String() || udp.SrcPort != 547 || udp.DstPort != 546 {
				t.Errorf("%v", p)
			}
			a, err := dhcpv6.MessageFromBytes(udp.Payload)
			if err != nil {
				t.Fatal(err)
			}
			var want [][]byte
			for _, o := range tt.want {
				want = append(want, bytesOf(t, o))
			}
			slices.SortFunc(want, bytes.Compare)
			if diff := cmp.Diff(want, options6(a.Options.Options)); diff != "" || a.MessageType != tt.kind || a.TransactionID != [3]byte{0xab, 0xcd, 0xef} {
				t.Errorf("%s, options (-want +got):\n%s", a.Summary(), diff)
			}
		})
	}
}

func TestDHCPv6IsAnsweredOnTheLinkAlone(t *testing.T) {
	message := append([]byte{1, 1, 2, 3}, bytesOf(t, withClient+asked)...)
	for _, tt := range []struct{ name, from, to string }{
		{"to the server alone", linkLocal.String(), "fe80::1234:5678:9abc"},
		{"to all servers of a site", linkLocal.String(), "ff05::1:3"},
		{"from an address of no link", "fd00:db8:1::4", "ff02::1:2"},
		{"from nowhere", "::", "ff02::1:2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out := responderFor(nicOf("fd00:db8:1::4")).answer(frame6Of(t, message, tt.from, tt.to), 1500); out != nil {
				t.Errorf("answered: %v", decoded(t, out))
			}
		})
	}
	if out := responderFor(nicOf("172.16.3.4")).answer(frame6Of(t, message, linkLocal.String(), "ff02::1:2"), 1500); out != nil {
		t.Error("a NIC without IPv6 is answered")
	}
}

// One message may hold a thousand associations and addresses; each of them would have its answer.
func TestADHCPv6AnswerIsBounded(t *testing.T) {
	q := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeRebind}
	q.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: clientMAC}))
	for i := range 20 {
		one := &dhcpv6.OptIANA{IaId: [4]byte{byte(i)}}
		for j := range 20 {
			one.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: netip.AddrFrom16([16]byte{0xfd, 15: byte(j)}).AsSlice()})
		}
		q.AddOption(one)
		q.AddOption(&dhcpv6.OptIAPD{IaId: [4]byte{byte(i)}})
	}
	a := settingsOf(nicOf("fd00:db8:1::4"), 1500).answer6(q)
	if n := len(a.Options.IANA()); n != maxAssociations {
		t.Errorf("%d associations of addresses, want %d", n, maxAssociations)
	}
	if n := len(a.Options.IAPD()); n != maxAssociations {
		t.Errorf("%d of prefixes, want %d", n, maxAssociations)
	}
	if n := len(a.Options.IANA()[0].Options.Addresses()); n != maxNamed+1 {
		t.Errorf("%d addresses, want %d", n, maxNamed+1)
	}
}
