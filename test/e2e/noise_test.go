package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkLocal is an address that a host has for a test only: nsgd leaves its devices
// without one.
var linkLocal = netip.MustParseAddr("fe80::4")

func TestWhatAKernelSendsByItselfIsDroppedAsNoiseAndNoRuleCountsIt(t *testing.T) {
	start(t, labPolicy())
	addLinkLocal(t, vm1)
	const (
		routerSolicitation = 133
		echoRequest        = 128
	)
	// Reports of groups are repeated by the kernel: others must not be taken for what a
	// row sends. So each row that sends does it often, and those that join are at hosts of
	// their own.
	const often = 20
	tests := []struct {
		name       string
		attachment string
		packets    float64
		send       func(t *testing.T)
	}{
		{"a router solicitation", "vm1-nic", often, func(t *testing.T) { sendICMPv6(t, linkLocal, "ff02::2", routerSolicitation, often) }},
		{"an echo request to all nodes of the link", "vm1-nic", often, func(t *testing.T) { sendICMPv6(t, ipv6.vm1.Address, "ff02::1", echoRequest, often) }},
		{"mDNS over IPv6", "vm1-nic", often, func(t *testing.T) { sendOnDevice(t, ipv6.vm1.Address, "[ff02::fb]:5353", often) }},
		{"mDNS over IPv6 from a link-local address", "vm1-nic", often, func(t *testing.T) { sendOnDevice(t, linkLocal, "[ff02::fb]:5353", often) }},
		{"mDNS over IPv4", "vm1-nic", often, func(t *testing.T) { sendOnDevice(t, ipv4.vm1.Address, "224.0.0.251:5353", often) }},
		{"a datagram from a link-local address to a VM", "vm1-nic", often, func(t *testing.T) { sendOnDevice(t, linkLocal, endpoint(ipv6.vm2, 53), often) }},
		{"a datagram to a link-local address", "vm1-nic", often, func(t *testing.T) { sendOnDevice(t, ipv6.vm1.Address, "[fe80::99]:53", often) }},
		{"a report of an IPv6 group (MLD)", "vm2-nic", 1, func(t *testing.T) { joinGroup(t, ipv6.vm2, "udp6", "[ff15::4d]:5353") }},
		{"a report of an IPv4 group (IGMP)", "vm3-nic", 1, func(t *testing.T) { joinGroup(t, ipv4.vm3, "udp4", "239.1.2.3:5353") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			noise := sampleKey("nsgd_drops_total", map[string]string{"reason": "kernel_noise"})
			received := sampleKey("nsgd_attachment_receive_packets_total", map[string]string{"attachment": tt.attachment})
			before := scrape(t)
			tt.send(t)
			c := since(t, before, func(c counts) bool {
				return c.after[noise] >= before[noise]+tt.packets && c.after[received] >= before[received]+tt.packets
			})
			for key, value := range c.after {
				counts := strings.HasPrefix(key, "nsgd_rule_") || strings.HasPrefix(key, "nsgd_flows_created_total") ||
					strings.HasPrefix(key, "nsgd_drops_total") && key != noise
				if counts && value != before[key] {
					t.Errorf("%s went from %v to %v", key, before[key], value)
				}
			}
		})
	}
}

// addLinkLocal gives a host's device a link-local address, usable at once.
func addLinkLocal(t *testing.T, h lab.Host) {
	t.Helper()
	inside(t, h, func() error {
		device, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(device, &netlink.Addr{
			IPNet: &net.IPNet{IP: linkLocal.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD,
		})
	})
}

// joinGroup makes a host a member of a multicast group until the end of the test.
func joinGroup(t *testing.T, h lab.Host, network, group string) {
	t.Helper()
	var conn *net.UDPConn
	inside(t, h, func() error {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = net.ListenMulticastUDP(network, device, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group)))
		return err
	})
	t.Cleanup(func() { conn.Close() })
}

// sendOnDevice sends datagrams of VM1 through its device, whatever its routes say.
func sendOnDevice(t *testing.T, from netip.Addr, to string, count int) {
	t.Helper()
	conn := listenOnDevice(t, "udp", netip.AddrPortFrom(from, 0).String())
	write(t, conn, []byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)), count)
}

// sendICMPv6 sends messages that hold nothing but their type; the kernel adds the checksum.
func sendICMPv6(t *testing.T, from netip.Addr, to string, kind byte, count int) {
	t.Helper()
	conn := listenOnDevice(t, "ip6:ipv6-icmp", from.String())
	write(t, conn, []byte{kind, 0, 0, 0, 0, 0, 0, 0}, &net.IPAddr{IP: net.ParseIP(to)}, count)
}

func write(t *testing.T, conn net.PacketConn, b []byte, to net.Addr, count int) {
	t.Helper()
	for range count {
		if _, err := conn.WriteTo(b, to); err != nil {
			t.Fatal(err)
		}
	}
}

func listenOnDevice(t *testing.T, network, address string) net.PacketConn {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), "eth0") })
		return errors.Join(err, failed)
	}}
	var conn net.PacketConn
	inside(t, vm1, func() (err error) {
		conn, err = config.ListenPacket(context.Background(), network, address)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}
