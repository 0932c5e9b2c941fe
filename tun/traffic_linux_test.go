package tun

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pair is two namespaces with a device each, and workers that copy between them:
// worker i owns queue i of both.
type pair struct {
	namespaces [2]string
	devices    [2]Device
	level      [2]Offload
	// seen[i] is what came out of device i.
	seen [2]struct {
		longest     atomic.Int64 // packet, without header
		superpacket [256]atomic.Int64
		partial     atomic.Int64 // FlagNeedsCsum
	}
}

// newPair gives side i the addresses 10.77.i.1 and fd77:i::1. They are in different
// networks, so that everything goes through the default routes.
func newPair(t testing.TB, offloads [2]Offload, queues int) *pair {
	t.Helper()
	s := newState(t)
	p := &pair{}
	for i := range 2 {
		p.namespaces[i] = uniqueName()
		p.devices[i], p.level[i] = openDevice(t, Config{
			Name: "eth0", Namespace: p.namespaces[i], CreateNamespace: true, State: s, Loopback: true,
			Addresses: prefixes(p.addr(i, 4).String()+"/24", p.addr(i, 6).String()+"/64"),
			Routes:    prefixes("0.0.0.0/0", "::/0"), Queues: queues, Offload: offloads[i],
		})
	}
	var wait sync.WaitGroup
	var pollers []*Poller
	for q := range queues {
		poller := newPoller(t, []Queue{p.devices[0].Queues()[q], p.devices[1].Queues()[q]})
		pollers = append(pollers, poller)
		wait.Go(func() { p.copy(t, poller, q) })
	}
	t.Cleanup(func() {
		for _, poller := range pollers {
			poller.Close()
		}
		wait.Wait()
	})
	return p
}

func (p *pair) addr(side, family int) netip.Addr {
	if family == 6 {
		return netip.MustParseAddr(fmt.Sprintf("fd77:%d::1", side))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.77.%d.1", side))
}

func (p *pair) copy(t testing.TB, poller *Poller, queue int) {
	buf, ready := make([]byte, BufferLen), make([]int, 0, 2)
	for {
		var err error
		if ready, _, err = poller.Wait(-1, ready, nil); err != nil {
			if err != os.ErrClosed {
				t.Errorf("wait: %v", err)
			}
			return
		}
		for _, i := range ready {
			for range 64 {
				n, err := p.devices[i].Queues()[queue].Read(buf)
				if err == ErrAgain {
					break
				}
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				p.count(i, buf[:n])
				if err := p.devices[1-i].Queues()[queue].Write(buf[:n]); err != nil && err != ErrAgain {
					t.Errorf("write of %d bytes with header %x: %v", n, buf[:HeaderLen], err)
				}
			}
		}
	}
}

func (p *pair) count(i int, frame []byte) {
	var h Header
	h.Decode((*[HeaderLen]byte)(frame))
	seen := &p.seen[i]
	seen.longest.Store(max(seen.longest.Load(), int64(len(frame)-HeaderLen))) // close enough with several workers
	seen.superpacket[h.GSOType&^GSOECN].Add(1)
	if h.Flags&FlagNeedsCsum != 0 {
		seen.partial.Add(1)
	}
}

func TestTCPArrivesIntact(t *testing.T) {
	tests := []struct {
		offload        Offload
		family, queues int
		gso            int // type that must be seen, unless Off
	}{
		{Auto, 4, 1, GSOTCPv4},
		{Auto, 6, 1, GSOTCPv6},
		{TSO, 4, 2, GSOTCPv4},
		{Auto, 4, 4, GSOTCPv4},
		{Off, 4, 1, GSONone},
		{Off, 6, 2, GSONone},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%v over IPv%d with %d queues", test.offload, test.family, test.queues), func(t *testing.T) {
			p := newPair(t, [2]Offload{test.offload, test.offload}, test.queues)
			p.transfer(t, test.family)
			longest, super := p.seen[0].longest.Load(), p.seen[0].superpacket[test.gso].Load()
			if p.level[0] == Off {
				if longest > DefaultMTU || super == 0 || p.seen[0].partial.Load() > 0 {
					t.Errorf("plain: longest packet %d, %d of %d unfinished", longest, p.seen[0].partial.Load(), super)
				}
				return
			}
			if longest <= DefaultMTU || super == 0 {
				t.Errorf("offload: no superpacket: longest packet %d", longest)
			}
		})
	}
}

// transfer sends 8 MiB from side 0 to side 1 and compares.
func (p *pair) transfer(t *testing.T, family int) {
	t.Helper()
	want := make([]byte, 8<<20)
	random := rand.NewChaCha8([32]byte{byte(family)})
	random.Read(want)
	var listener net.Listener
	inside(t, p.namespaces[1], func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(p.addr(1, family), 0).String())
		return err
	})
	defer listener.Close()
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		b, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("receive: %v", err)
		}
		got <- b
	}()
	inside(t, p.namespaces[0], func() error {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		_, err = conn.Write(want)
		return err
	})
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("received %d bytes, not the %d that were sent", len(b), len(want))
	}
}

func TestUDPArrivesIntact(t *testing.T) {
	tests := []struct {
		name     string
		offloads [2]Offload
		family   int
	}{
		{"with offload", [2]Offload{Auto, Auto}, 4},
		{"with offload over IPv6", [2]Offload{Auto, Auto}, 6},
		{"plain", [2]Offload{Off, Off}, 4},
		{"a plain device completes the checksums that the other leaves", [2]Offload{TSO, Off}, 4},
		{"also over IPv6", [2]Offload{TSO, Off}, 6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, test.offloads, 2)
			client, server := p.udp(t, test.family)
			sent, got := make([]byte, 1400), make([]byte, 2000)
			for i := range 100 {
				payload := sent[:1+i*14]
				for j := range payload {
					payload[j] = byte(i + j)
				}
				n := exchange(t, client, server, payload, got)
				if !bytes.Equal(got[:n], payload) {
					t.Fatalf("datagram %d: got %d bytes, want %d", i, n, len(payload))
				}
			}
			if unfinished := p.seen[0].partial.Load(); (unfinished > 0) != (p.level[0] != Off) {
				t.Errorf("level %v: %d unfinished checksums", p.level[0], unfinished)
			}
		})
	}
}

// udp gives a socket in namespace 0 that is connected to one in namespace 1.
func (p *pair) udp(t *testing.T, family int) (client, server *net.UDPConn) {
	t.Helper()
	inside(t, p.namespaces[1], func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.addr(1, family), 0)))
		return err
	})
	t.Cleanup(func() { server.Close() })
	inside(t, p.namespaces[0], func() (err error) {
		client, err = net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
		return err
	})
	t.Cleanup(func() { client.Close() })
	return client, server
}

// exchange sends until the datagram arrives: on a machine under load one may be lost.
func exchange(t *testing.T, client, server *net.UDPConn, payload, got []byte) int {
	t.Helper()
	for range 30 {
		if _, err := client.Write(payload); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := server.Read(got)
			if err != nil {
				break
			}
			if n == len(payload) { // not a late copy of an earlier one
				return n
			}
		}
	}
	t.Fatalf("a datagram of %d bytes never arrived", len(payload))
	return 0
}

func TestUDPSuperpacketsPassWithUSO(t *testing.T) {
	p := newPair(t, [2]Offload{Auto, Auto}, 1)
	if p.level[0] != USO {
		t.Skipf("the kernel grants %v only", p.level[0])
	}
	client, server := p.udp(t, 4)
	raw, err := client.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const size, count = 1000, 20
	var option error
	raw.Control(func(fd uintptr) { option = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	if option != nil {
		t.Skipf("the kernel has no UDP_SEGMENT: %v", option)
	}
	payload := make([]byte, size*count)
	for i := range payload {
		payload[i] = byte(i / size)
	}
	if _, err := client.Write(payload); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, 2000)
	for i := range count {
		n, err := server.Read(got)
		if err != nil || !bytes.Equal(got[:n], payload[i*size:(i+1)*size]) {
			t.Fatalf("segment %d: %d bytes, %v", i, n, err)
		}
	}
	if p.seen[0].superpacket[GSOUDPL4].Load() != 1 || p.seen[0].longest.Load() != 28+size*count {
		t.Errorf("%d UDP superpackets, longest packet %d", p.seen[0].superpacket[GSOUDPL4].Load(), p.seen[0].longest.Load())
	}
}

func TestStatisticsCountWhatPasses(t *testing.T) {
	p := newPair(t, [2]Offload{Off, Off}, 1)
	client, server := p.udp(t, 4)
	exchange(t, client, server, make([]byte, 100), make([]byte, 200))
	// The kernel counts a packet that a queue wrote after it has delivered it.
	eventually(t, "both ends count the packet", func() bool {
		from, ok0 := p.devices[0].Stats()
		to, ok1 := p.devices[1].Stats()
		return ok0 && ok1 && from.TxPackets > 0 && from.TxBytes >= 128 && to.RxPackets > 0 && to.RxBytes >= 128
	})
}

func TestAFullQueueShowsInStatistics(t *testing.T) {
	s := newState(t)
	name := uniqueName()
	d, _ := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Addresses: prefixes("10.0.0.1/24"), TxQueueLen: 1})
	var conn net.Conn
	inside(t, name, func() (err error) {
		conn, err = net.Dial("udp", "10.0.0.2:9")
		return err
	})
	defer conn.Close()
	eventually(t, "a queue of one that nobody reads drops", func() bool {
		for range 100 {
			conn.Write([]byte("x"))
		}
		stats, ok := d.Stats()
		return ok && stats.TxDropped > 0
	})
}

// Stats reads the kernel's structure itself; the library reads it too, with all else of a link.
func TestStatisticsAreThoseOfTheLink(t *testing.T) {
	p := newPair(t, [2]Offload{Off, Off}, 1)
	client, server := p.udp(t, 4)
	exchange(t, client, server, make([]byte, 100), make([]byte, 200))
	p.devices[0].Queues()[0].Write(make([]byte, HeaderLen+20)) // IP version 0
	// Either reading may come before the kernel counts what it has delivered.
	for i, d := range p.devices {
		eventually(t, "device "+strconv.Itoa(i)+" and its link count the same", func() bool {
			var want Stats
			inside(t, d.(*kernelDevice).config.Namespace, func() error {
				link, err := netlink.LinkByName(d.Name())
				if err == nil {
					s := link.Attrs().Statistics
					want = Stats{
						RxPackets: s.RxPackets, RxBytes: s.RxBytes, RxDropped: s.RxDropped, RxErrors: s.RxErrors,
						TxPackets: s.TxPackets, TxBytes: s.TxBytes, TxDropped: s.TxDropped, TxErrors: s.TxErrors,
					}
				}
				return err
			})
			got, ok := d.Stats()
			return ok && got == want && got.RxBytes+got.TxBytes > 0 && (i > 0 || got.RxDropped+got.RxErrors > 0)
		})
	}
}
