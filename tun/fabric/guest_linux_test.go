package fabric

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
)

// guest gives the host's NICs of red a machine, in a namespace of its own, whose MTU is larger than the fabric's. What
// it sends is written to red, and the other way round.
func (h *host) guest() (namespace string) {
	h.Helper()
	namespace = uniqueName()
	d, _, err := tun.Open(tun.Config{Name: "eth0", Namespace: namespace, CreateNamespace: true, MTU: tunMTU + 100, Loopback: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix(h.nic4() + "/24"), netip.MustParsePrefix(h.nic6() + "/64")},
		Routes:    []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	})
	h.must(err)
	ends := make(chan bool)
	for _, way := range [][2]tun.Queue{{d.Queues()[0], h.queues["red"]}, {h.queues["red"], d.Queues()[0]}} {
		go func() {
			defer func() { ends <- true }()
			buf := make([]byte, tun.BufferLen)
			for {
				n, err := way[0].Read(buf)
				switch {
				case err == nil:
					_ = way[1].Write(buf[:n]) // what has no room is lost, as on a wire
				case errors.Is(err, os.ErrClosed):
					return
				default:
					unix.Poll([]unix.PollFd{{Fd: int32(way[0].FD()), Events: unix.POLLIN}}, 20)
				}
			}
		}()
	}
	h.Cleanup(func() {
		d.Close()
		h.devices["red"].Close()
		<-ends
		<-ends
	})
	return namespace
}

// TCP begins with what fits the guest's own MTU, in superpackets.
func TestTCPFindsWhatFits(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 2, family.address, 0)
			u.serve()
			client, server := u.hosts[0].guest(), u.hosts[1].guest()
			for _, address := range []string{u.hosts[1].nic4(), u.hosts[1].nic6()} {
				if got, err := transfer(client, server, address); err != nil || got != transferred {
					t.Errorf("to %s: %d bytes of %d arrived: %v", address, got, transferred, err)
				}
			}
			if c, err := u.hosts[0].fabric.Counts(); err != nil || c.Tunnels[red].Dropped["too_big"] == 0 {
				t.Errorf("nothing was too big: %+v, %v", c, err)
			}
		})
	}
}

const transferred = 4 << 20

// transfer sends bytes from one namespace to an address in another, and tells how many arrived.
func transfer(client, server, address string) (arrived int64, err error) {
	var listener net.Listener
	listen := func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(address), 0).String())
		return err
	}
	if err := tun.Do(server, listen); err != nil {
		return 0, err
	}
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- tun.Do(client, func() error {
			d := net.Dialer{Timeout: patience}
			c, err := d.Dial("tcp", listener.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(make([]byte, transferred))
			return err
		})
	}()
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := listener.Accept()
	if err != nil {
		return 0, fmt.Errorf("%w; the client: %w", err, <-sent)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	arrived, err = io.Copy(io.Discard, c)
	return arrived, errors.Join(err, <-sent)
}
