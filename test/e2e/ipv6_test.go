package e2e

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIPv6ExtensionHeadersHideNoPortsAndCostNoPacket(t *testing.T) {
	start(t, labPolicy())
	server := bindUDP(t, ipv6.vm1, 0)
	inside := withDestinationOptions(t, bindUDP(t, ipv6.vm4, 0))
	send(t, inside, address(server), 3, 100)
	receive(t, server, 3)
	send(t, server, address(inside), 3, 100)
	receive(t, inside, 3)

	outside := withDestinationOptions(t, bindUDP(t, ipv6.internet, 0))
	before := scrape(t)
	send(t, outside, address(server), 3, 100)
	receiveNothing(t, server)
	c := since(t, before, func(c counts) bool { return c.rule(deniedIn(nsg1)).hits >= 3 })
	size := float64(ipv6.ipHeader + 8 + udpHeader + 100)
	if got, want := c.rule(deniedIn(nsg1)), (ruleCount{3, 3, 3 * size}); got != want {
		t.Errorf("the denying rule counted %+v, want %+v", got, want)
	}
}

// withDestinationOptions gives every datagram of a socket a destination options header
// that holds nothing but padding.
func withDestinationOptions(t *testing.T, conn *net.UDPConn) *net.UDPConn {
	t.Helper()
	padding := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // next header and length are the kernel's; PadN of 6 bytes
	control(t, conn, func(fd int) error {
		return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding)
	})
	return conn
}
