package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
)

// silence is how long nothing must arrive for a packet to count as dropped. Tests
// that use it also look at the counters of who dropped it. It is shorter than
// the kernel's first retransmission, so one attempt is one packet.
const silence = 300 * time.Millisecond

// inside opens something in a host's namespace.
func inside(t *testing.T, h lab.Host, f func() error) {
	t.Helper()
	if err := tun.Do(h.Namespace, f); err != nil {
		t.Fatalf("%v: %v", h, err)
	}
}

// serveTCP echoes on a port of a host until the test ends.
func serveTCP(t *testing.T, h lab.Host, port uint16) {
	t.Helper()
	acceptTCP(t, h, netip.AddrPortFrom(h.Address, port), func(conn net.Conn) {
		t.Cleanup(func() { conn.Close() })
		go io.Copy(conn, conn)
	})
}

// acceptTCP gives handle the connections to an address of a host, until the test or close ends it.
func acceptTCP(t *testing.T, h lab.Host, address netip.AddrPort, handle func(net.Conn)) (close func()) {
	t.Helper()
	var listener net.Listener
	inside(t, h, func() (err error) {
		listener, err = net.Listen("tcp", address.String())
		return err
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			handle(conn)
		}
	}()
	return func() { listener.Close() }
}

// echoes sends so many bytes to a server that echoes, and has them all come back.
func echoes(t *testing.T, conn net.Conn, size int64) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(conn, zeros{}, size)
		sent <- err
	}()
	if n, err := io.CopyN(io.Discard, conn, size); err != nil {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
		conn.Close()
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// connect opens a TCP connection from one host to another.
func connect(from, to lab.Host, port uint16, timeout time.Duration) (conn net.Conn, err error) {
	err = tun.Do(from.Namespace, func() (err error) {
		dialer := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: from.Address.AsSlice()}}
		conn, err = dialer.DialContext(context.Background(), "tcp", netip.AddrPortFrom(to.Address, port).String())
		return err
	})
	return conn, err
}

// mustConnect opens a connection that has to be allowed, and uses it.
func mustConnect(t *testing.T, from, to lab.Host, port uint16) net.Conn {
	t.Helper()
	conn, err := connect(from, to, port, patience)
	if err != nil {
		t.Fatalf("%v to %v port %d: %v", from, to, port, err)
	}
	t.Cleanup(func() { conn.Close() })
	mustEcho(t, conn)
	return conn
}

// mustNotConnect checks that an opening segment goes unanswered.
func mustNotConnect(t *testing.T, from, to lab.Host, port uint16) {
	t.Helper()
	mustFail(t, from, to, port, isTimeout)
}

// mustFail checks that a connection is not made, and why.
func mustFail(t *testing.T, from, to lab.Host, port uint16, expected func(error) bool) {
	t.Helper()
	conn, err := connect(from, to, port, silence)
	if err == nil {
		conn.Close()
		t.Fatalf("%v reached %v on port %d", from, to, port)
	}
	if !expected(err) {
		t.Fatalf("%v to %v port %d fails otherwise than expected: %v", from, to, port, err)
	}
}

// isTimeout tells silence from a refusal. A dial's and a read's timeouts are not the
// same error.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// mustEcho sends a word over a connection and reads it back.
func mustEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := echo(conn, patience); err != nil {
		t.Fatalf("%s to %s: %v", conn.LocalAddr(), conn.RemoteAddr(), err)
	}
}

func echo(conn net.Conn, timeout time.Duration) error {
	conn.SetDeadline(time.Now().Add(timeout))
	defer conn.SetDeadline(time.Time{})
	word := []byte("hello")
	if _, err := conn.Write(word); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, word)
	return err
}

// bindUDP opens a datagram socket of a host. With port 0 the kernel chooses.
func bindUDP(t *testing.T, h lab.Host, port uint16) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	inside(t, h, func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Address, port)))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

func address(conn *net.UDPConn) netip.AddrPort {
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// send sends datagrams of size bytes.
func send(t *testing.T, from *net.UDPConn, to netip.AddrPort, count, size int) {
	t.Helper()
	for range count {
		if _, err := from.WriteToUDPAddrPort(make([]byte, size), to); err != nil {
			t.Fatal(err)
		}
	}
}

// receive reads count datagrams; fewer are an error.
func receive(t *testing.T, conn *net.UDPConn, count int) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	for i := range count {
		if _, _, err := conn.ReadFromUDPAddrPort(buf); err != nil {
			t.Fatalf("datagram %d of %d at %s: %v", i+1, count, conn.LocalAddr(), err)
		}
	}
}

// receiveNothing checks that no datagram arrives.
func receiveNothing(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(silence))
	if n, from, err := conn.ReadFromUDPAddrPort(make([]byte, 2048)); err == nil {
		t.Fatalf("%d bytes from %s at %s, want nothing", n, from, conn.LocalAddr())
	}
}

var identifiers atomic.Uint32

func ping(from, to lab.Host, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return lab.Ping(ctx, from, to, uint16(identifiers.Add(1)))
}

func mustPing(t *testing.T, from, to lab.Host) {
	t.Helper()
	if err := ping(from, to, patience); err != nil {
		t.Fatalf("ping %v from %v: %v", to, from, err)
	}
}

func mustNotPing(t *testing.T, from, to lab.Host) {
	t.Helper()
	if err := ping(from, to, silence); !isTimeout(err) {
		t.Fatalf("ping %v from %v: %v, want a timeout", to, from, err)
	}
}
