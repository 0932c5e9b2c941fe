package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/tun"
)

// within runs f on a thread inside the source's namespace. A socket stays in the namespace
// that it was made in, so only making it needs to happen inside.
type within func(f func() error) error

func echoTCP(ctx context.Context, within within, r *Result) error {
	var conn net.Conn
	err := within(func() (err error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: r.Source.Address.AsSlice()}}
		// The dialer uses the calling goroutine, and so this thread, for one literal address.
		conn, err = dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(r.Destination.Address, r.Port).String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(ctx, conn)
}

func echoUDP(ctx context.Context, within within, r *Result) error {
	var conn *net.UDPConn
	err := within(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Source.Address, 0))
		remote := net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Destination.Address, r.Port))
		conn, err = net.DialUDP("udp", local, remote)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(ctx, conn)
}

// exchange sends a random word and expects it back.
func exchange(ctx context.Context, conn net.Conn) error {
	if err := setDeadline(ctx, conn); err != nil {
		return err
	}
	sent, received := nonce(), make([]byte, 8)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, received); err != nil {
		return err
	}
	if !bytes.Equal(sent, received) {
		return fmt.Errorf("lab: sent %x, received %x", sent, received)
	}
	return nil
}

func setDeadline(ctx context.Context, conn interface{ SetDeadline(time.Time) error }) error {
	deadline, _ := ctx.Deadline()
	return conn.SetDeadline(deadline)
}

func nonce() []byte {
	b := make([]byte, 8)
	rand.Read(b)
	return b
}

// ICMP types of RFC 792 and RFC 4443. Both have the same header.
const (
	icmpEchoReply     = 0
	icmpEchoRequest   = 8
	icmpv6EchoRequest = 128
	icmpv6EchoReply   = 129
	icmpHeaderLen     = 8
)

// Ping sends one ICMP echo request from one host to another and waits for its reply until
// the deadline of ctx. No other ping between the two should use the identifier. Ping needs
// root, for a raw socket.
func Ping(ctx context.Context, from, to Host, identifier uint16) error {
	within := func(f func() error) error { return tun.Do(from.Namespace, f) }
	return echoICMP(ctx, within, &Result{Source: from, Destination: to, Protocol: ICMP}, identifier)
}

// echoICMP sends one echo request and waits for the reply with the same
// identifier, sequence number and payload.
func echoICMP(ctx context.Context, within within, r *Result, identifier uint16) error {
	network, requestType, replyType := "ip4:icmp", uint8(icmpEchoRequest), uint8(icmpEchoReply)
	if r.Source.Family() == IPv6 {
		network, requestType, replyType = "ip6:ipv6-icmp", icmpv6EchoRequest, icmpv6EchoReply
	}
	var conn *net.IPConn
	err := within(func() (err error) {
		conn, err = net.ListenIP(network, &net.IPAddr{IP: r.Source.Address.AsSlice()})
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := setDeadline(ctx, conn); err != nil {
		return err
	}

	request := echoMessage(requestType, identifier, 1, nonce())
	if _, err := conn.WriteToIP(request, &net.IPAddr{IP: r.Destination.Address.AsSlice()}); err != nil {
		return err
	}
	wanted := echoMessage(replyType, identifier, 1, request[icmpHeaderLen:])
	buf := make([]byte, 2048)
	for {
		// A raw socket gets every ICMP message of its namespace, those of other probes too.
		n, from, err := conn.ReadFromIP(buf)
		if err != nil {
			return err
		}
		source, _ := netip.AddrFromSlice(from.IP)
		if source.Unmap() == r.Destination.Address && sameMessage(buf[:n], wanted) {
			return nil
		}
	}
}

// sameMessage compares ICMP messages. It ignores the checksum of ICMPv6, which covers the
// addresses too: on a raw socket the kernel sets and checks it (RFC 3542 section 3.1).
func sameMessage(got, want []byte) bool {
	if len(got) != len(want) || got[0] != want[0] {
		return false
	}
	if want[0] == icmpv6EchoReply {
		return bytes.Equal(got[4:], want[4:])
	}
	return bytes.Equal(got, want)
}

// echoMessage builds an echo message with the checksum of IPv4.
func echoMessage(kind uint8, identifier, sequence uint16, payload []byte) []byte {
	m := make([]byte, icmpHeaderLen, icmpHeaderLen+len(payload))
	m[0] = kind
	binary.BigEndian.PutUint16(m[4:], identifier)
	binary.BigEndian.PutUint16(m[6:], sequence)
	m = append(m, payload...)
	binary.BigEndian.PutUint16(m[2:], internetChecksum(m))
	return m
}

// internetChecksum is the checksum of RFC 1071 over an even number of bytes, with a zero
// in the checksum's own field.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
