package dhcp

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/ruleset/policy"
)

var (
	clientMAC = net.HardwareAddr{0x00, 0x0d, 0x3a, 0x01, 0x02, 0x03}
	otherMAC  = net.HardwareAddr{0x00, 0x0d, 0x3a, 0x0a, 0x0b, 0x0c}
	linkLocal = netip.MustParseAddr("fe80::20d:3aff:fe01:203")
)

// nicOf is a NIC of addresses, the first one primary, in 172.16.3.0/24 and fd00:db8:1::/64 of one virtual network.
func nicOf(addresses ...string) *policy.NetworkInterface {
	v := &policy.VirtualNetwork{Name: "v", AddressSpace: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd00:db8::/32")}}
	s := &policy.Subnet{Name: "s", VirtualNetwork: v, Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.3.0/24"), netip.MustParsePrefix("fd00:db8:1::/64")}}
	n := &policy.NetworkInterface{Name: "nic"}
	for i, a := range addresses {
		n.IPConfigurations = append(n.IPConfigurations, policy.IPConfiguration{Address: netip.MustParseAddr(a), Subnet: s, Primary: i == 0})
	}
	return n
}

// responderFor answers for a NIC as its gateway.
func responderFor(n *policy.NetworkInterface) *Responder {
	return New(Options{NetworkInterface: func() *policy.NetworkInterface { return n }, Gateway: true})
}

// frameOf is a frame of the client; a nil layer is left out.
func frameOf(t testing.TB, from, to net.HardwareAddr, kind layers.EthernetType, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	list := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: kind}}
	for i, p := range parts {
		if ip, ok := p.(gopacket.NetworkLayer); ok && i+1 < len(parts) {
			switch next := parts[i+1].(type) {
			case *layers.UDP:
				next.SetNetworkLayerForChecksum(ip)
			case *layers.ICMPv6:
				next.SetNetworkLayerForChecksum(ip)
			}
		}
		list = append(list, p)
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// decoded is an answer as gopacket, which knows nothing of this package, reads it.
func decoded(t testing.TB, frame []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("the answer is malformed: %v", e.Error())
	}
	return p
}

// bytesOf reads hexadecimal digits with spaces.
func bytesOf(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fakeConn is an interface in memory: a test puts frames in and takes answers out.
type fakeConn struct {
	in  chan []byte
	out chan []byte

	mu       sync.Mutex
	deadline chan struct{} // closed when it has passed; guarded by mu
	closed   chan struct{}
	once     sync.Once
}

func newFakeConn() *fakeConn {
	return &fakeConn{in: make(chan []byte), out: make(chan []byte, 16), deadline: make(chan struct{}), closed: make(chan struct{})}
}

// SetReadDeadline takes a time to have passed when it isn't after the test's clock, which stands at noon.
func (c *fakeConn) SetReadDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = make(chan struct{})
	if !at.After(noon) {
		close(c.deadline)
	}
	return nil
}

func (c *fakeConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	passed := c.deadline
	c.mu.Unlock()
	select {
	case <-passed:
		return 0, os.ErrDeadlineExceeded
	default:
	}
	select {
	case frame := <-c.in:
		if frame == nil {
			return 0, net.UnknownNetworkError("down")
		}
		return copy(b, frame), nil
	case <-passed:
		return 0, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }

func (c *fakeConn) Write(b []byte) (int, error) { c.out <- b; return len(b), nil }

func (c *fakeConn) Close() error { c.once.Do(func() { close(c.closed) }); return nil }

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
