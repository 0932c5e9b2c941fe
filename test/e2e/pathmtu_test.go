package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/sys/unix"
)

func TestPathMTUDiscoveryWorksThoughNoRuleLetsICMPIn(t *testing.T) {
	start(t, labPolicy())
	routeBeyond(t)
	eachFamily(t, func(t *testing.T, f family) {
		far := beyond.in(f)
		t.Run("a connection sends smaller segments and its content arrives whole", func(t *testing.T) {
			mustNotPing(t, far, f.vm1)
			sums := sumUp(t, far, 80)
			conn, err := connect(f.vm1, far, 80, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if mtu := pathMTU(t, f, conn); mtu != 1500 {
				t.Fatalf("path MTU %d before a segment was too big, want 1500", mtu)
			}
			content := make([]byte, 4<<20)
			rand.Read(content)
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(content); err != nil {
				t.Fatal(err)
			}
			conn.(*net.TCPConn).CloseWrite()
			want := sha256.Sum256(content)
			select {
			case got := <-sums:
				if !bytes.Equal(got, want[:]) {
					t.Error("other content arrived than was sent")
				}
			case <-time.After(patience):
				t.Fatalf("the content did not arrive within %v", patience)
			}
			if mtu := pathMTU(t, f, conn); mtu != beyondMTU {
				t.Errorf("path MTU %d afterwards, want %d", mtu, beyondMTU)
			}
		})
		t.Run("a socket that must not fragment is told and sends smaller datagrams", func(t *testing.T) {
			mustNotPing(t, far, f.vm2) // another VM: nobody told its kernel yet
			receiver := bindUDP(t, far, 0)
			conn := dialUDP(t, f.vm2, address(receiver))
			setOption(t, conn, f, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			tooBig := make([]byte, 1400)
			if _, err := conn.Write(tooBig); err != nil {
				t.Fatalf("first datagram: %v", err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Read(tooBig); !errors.Is(err, syscall.EMSGSIZE) {
				t.Fatalf("the socket says %v, want %v", err, syscall.EMSGSIZE)
			}
			if mtu := pathMTU(t, f, conn); mtu != beyondMTU {
				t.Errorf("path MTU %d, want %d", mtu, beyondMTU)
			}
			if _, err := conn.Write(tooBig); !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("second datagram: %v, want %v", err, syscall.EMSGSIZE)
			}
			if _, err := conn.Write(make([]byte, beyondMTU-f.ipHeader-udpHeader)); err != nil {
				t.Fatalf("a datagram that fits: %v", err)
			}
			receive(t, receiver, 1)
		})
	})
}

// sumUp takes connections on a port of a host and hands over the checksum of what each
// sent.
func sumUp(t *testing.T, h lab.Host, port uint16) <-chan []byte {
	t.Helper()
	var listener net.Listener
	inside(t, h, func() (err error) {
		listener, err = net.Listen("tcp", endpoint(h, port))
		return err
	})
	t.Cleanup(func() { listener.Close() })
	sums := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		sum := sha256.New()
		io.Copy(sum, conn)
		sums <- sum.Sum(nil)
	}()
	return sums
}

// dialUDP opens a connected datagram socket, which hears of errors.
func dialUDP(t *testing.T, from lab.Host, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	inside(t, from, func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Address, 0)), net.UDPAddrFromAddrPort(to))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// pathMTU is what the kernel knows of the way to a connection's other end.
func pathMTU(t *testing.T, f family, conn net.Conn) (mtu int) {
	t.Helper()
	control(t, conn, func(fd int) (err error) {
		if f.Family == lab.IPv4 {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		return err
	})
	return mtu
}

// setOption sets the one option or the other, as the family has it.
func setOption(t *testing.T, conn net.Conn, f family, option4, value4, option6, value6 int) {
	t.Helper()
	control(t, conn, func(fd int) error {
		if f.Family == lab.IPv4 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, option4, value4)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option6, value6)
	})
}

func control(t *testing.T, conn net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}
