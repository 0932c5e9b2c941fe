package e2e

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// portless are protocols whose flows are known by their addresses alone. Over IPv6
// an authentication header is one of the extension headers: the packet is what stands
// behind it, here nothing (59).
var portless = []struct {
	name   string
	number int
	shown  map[lab.Family]string // by nsgctl flows
}{
	{"ESP", 50, map[lab.Family]string{lab.IPv4: "ESP", lab.IPv6: "ESP"}},
	{"AH", 51, map[lab.Family]string{lab.IPv4: "AH", lab.IPv6: "59"}},
	{"GRE", 47, map[lab.Family]string{lab.IPv4: "GRE", lab.IPv6: "GRE"}},
}

// authentication is a header of RFC 4302: nothing follows (59), 6 words, SPI 1, number 1.
// Of the other protocols it is a payload like any other.
var authentication = []byte{59, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// bindIP opens a raw socket of a host for an IP protocol.
func bindIP(t *testing.T, h lab.Host, protocol int) *net.IPConn {
	t.Helper()
	var conn *net.IPConn
	inside(t, h, func() (err error) {
		conn, err = net.ListenIP(fmt.Sprintf("ip%d:%d", h.Family(), protocol), &net.IPAddr{IP: h.Address.AsSlice()})
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

func sendIP(t *testing.T, from, to *net.IPConn) {
	t.Helper()
	if _, err := from.WriteTo(authentication, to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
}

func receiveIP(t *testing.T, conn *net.IPConn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	n, _, err := conn.ReadFromIP(buf)
	if err != nil {
		t.Fatalf("at %s: %v", conn.LocalAddr(), err)
	}
	if !bytes.Equal(buf[:n], authentication) {
		t.Errorf("at %s: %x, want %x", conn.LocalAddr(), buf[:n], authentication)
	}
}

func receiveNothingIP(t *testing.T, conn *net.IPConn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(silence))
	if n, from, err := conn.ReadFromIP(make([]byte, 2048)); err == nil {
		t.Fatalf("%d bytes from %s at %s, want nothing", n, from, conn.LocalAddr())
	}
}

func TestAReplyWithoutPortsNeedsNoRule(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		var want []flow
		for _, p := range portless {
			t.Run(p.name, func(t *testing.T) {
				vm, world := bindIP(t, f.vm1, p.number), bindIP(t, f.internet, p.number)
				before := scrape(t)
				sendIP(t, world, vm)
				deniedBy(t, before, deniedIn(nsg1), nsg2)
				receiveNothingIP(t, vm)

				sendIP(t, vm, world)
				receiveIP(t, world)
				sendIP(t, world, vm)
				receiveIP(t, vm)
				want = append(want, flow{p.shown[f.Family], f.vm1.Address, f.internet.Address, 0, 0})
			})
		}
		list := flows(t)
		for _, f := range want {
			if !slices.Contains(list, f) {
				t.Errorf("flows %+v, want %+v among them", list, f)
			}
		}
	})
}

func TestRuleOfAProtocolWithoutPortsDecidesAboutItAlone(t *testing.T) {
	tests := []struct {
		protocol string // of the rule
		allowed  map[lab.Family][]string
	}{
		{"Esp", map[lab.Family][]string{lab.IPv4: {"ESP"}, lab.IPv6: {"ESP"}}},
		{"Ah", map[lab.Family][]string{lab.IPv4: {"AH"}}},
		{"Udp", nil},
		{"*", map[lab.Family][]string{lab.IPv4: {"ESP", "AH", "GRE"}, lab.IPv6: {"ESP", "AH", "GRE"}}},
	}
	for _, tt := range tests {
		t.Run(tt.protocol, func(t *testing.T) {
			allow := closed(rule{name: "Allow", priority: 200, direction: "Inbound", access: "Allow", protocol: tt.protocol})
			start(t, groups(allow, allow))
			eachFamily(t, func(t *testing.T, f family) {
				for _, p := range portless {
					t.Run(p.name, func(t *testing.T) {
						vm, world := bindIP(t, f.vm1, p.number), bindIP(t, f.internet, p.number)
						before := scrape(t)
						sendIP(t, world, vm)
						if !slices.Contains(tt.allowed[f.Family], p.name) {
							deniedBy(t, before, decided{nsg1, "Inbound", denyAllIn.name, "Deny"}, nsg2)
							arrived := sampleKey("nsgd_attachment_transmit_packets_total", map[string]string{"attachment": "vm1-nic"})
							if after := scrape(t); after[arrived] != before[arrived] {
								t.Errorf("%v packets went to VM1, want none", after[arrived]-before[arrived])
							}
							return
						}
						receiveIP(t, vm)
						sendIP(t, vm, world) // nothing may go out of its own accord
						receiveIP(t, world)
						for _, group := range []string{nsg1, nsg2} {
							since(t, before, func(c counts) bool {
								return c.rule(decided{group, "Inbound", "Allow", "Allow"}).hits == 1
							})
						}
					})
				}
			})
		})
	}
}
