package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// Serve opens the servers that Run asks, on every host: TCP on both ports, which answers an
// HTTP request with the names of both ends and echoes everything else, and an echo of UDP
// datagrams. They answer until ctx ends or stop is called; stop waits until they have ended.
func Serve(ctx context.Context, hosts []Host, options Options) (stop func(), err error) {
	o := options.withDefaults()
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	stop = func() {
		cancel()
		wait.Wait()
	}
	for _, host := range hosts {
		closeAtEnd := func(c io.Closer) { context.AfterFunc(ctx, func() { c.Close() }) }
		err := o.within(host.Namespace, func() error {
			for _, port := range []uint16{o.NamedPort, o.OtherPort} {
				var config net.ListenConfig
				listener, err := config.Listen(ctx, "tcp", netip.AddrPortFrom(host.Address, port).String())
				if err != nil {
					return err
				}
				closeAtEnd(listener)
				wait.Go(func() { serveTCP(ctx, listener, func(c net.Conn) { answerTCP(host.Name, c) }) })
			}
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host.Address, o.UDPPort)))
			if err != nil {
				return err
			}
			closeAtEnd(conn)
			wait.Go(func() { serveUDP(conn, func(b []byte) []byte { return b }) })
			return nil
		})
		if err != nil {
			stop()
			return nil, fmt.Errorf("lab: servers of %s: %w", host.Name, err)
		}
	}
	return stop, nil
}

// answerTCP serves one connection of a host, for curl as well as for nc.
func answerTCP(name string, conn net.Conn) {
	const get = "GET "
	r := bufio.NewReader(conn)
	// A byte first: an echo must not wait for as many bytes as the word of HTTP has.
	if first, _ := r.Peek(1); string(first) == get[:1] {
		if word, _ := r.Peek(len(get)); string(word) == get {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			body := fmt.Sprintf("%s %s answers %s\n", name, conn.LocalAddr(), conn.RemoteAddr())
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
			return
		}
	}
	io.Copy(conn, r)
}

// serveTCP serves each connection, and closes them all when ctx or the listener ends.
func serveTCP(ctx context.Context, listener net.Listener, serve func(net.Conn)) {
	var wait sync.WaitGroup
	defer wait.Wait()
	// A connection whose client was cut off would never end by itself.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		wait.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			serve(conn)
		})
	}
}

// serveUDP answers datagrams until conn is closed. It sends nothing when answer returns nil.
func serveUDP(conn *net.UDPConn, answer func([]byte) []byte) {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if b := answer(buf[:n]); b != nil {
			conn.WriteToUDPAddrPort(b, from)
		}
	}
}
