package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// serve opens the echo servers of every host inside its namespace. The returned
// function closes them and waits until they have ended.
func serve(ctx context.Context, hosts []Host, o Options) (stop func(), err error) {
	var wait sync.WaitGroup
	var open []io.Closer
	stop = func() {
		for _, c := range open {
			c.Close()
		}
		wait.Wait()
	}
	for _, host := range hosts {
		err := o.within(host.Namespace, func() error {
			for _, port := range []uint16{o.NamedPort, o.OtherPort} {
				var config net.ListenConfig
				listener, err := config.Listen(ctx, "tcp", netip.AddrPortFrom(host.Address, port).String())
				if err != nil {
					return err
				}
				open = append(open, listener)
				wait.Go(func() { serveTCP(ctx, listener, func(c net.Conn) { io.Copy(c, c) }) })
			}
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host.Address, o.UDPPort)))
			if err != nil {
				return err
			}
			open = append(open, conn)
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

// serveTCP has each connection served, and closes them all when ctx or the listener ends.
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

// serveUDP answers datagrams until conn is closed; nil is no answer.
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
