package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

func TestANATGatewayLendsItsAddressAndTakesNothingIn(t *testing.T) {
	startTranslation(t)
	serveNamed(t, client, 80)
	serveNamed(t, gatewayVM, 80)
	conn, s := mustAsk(t, gatewayVM, client, 80)
	mustSee(t, conn, s, client, "203.0.113.10:80", gatewayIP)
	mustPing(t, gatewayVM, client)
	mustDrop(t, client, at(gatewayIP), 80, "no_frontend")
}

// connections is how many a NAT gateway carries at a time through one address, to one server.
const connections = 5000

func TestANATGatewayCarriesThousandsOfConnectionsThroughOneAddress(t *testing.T) {
	startTranslation(t)
	setKernel(t, client.Namespace, map[string]string{"core/somaxconn": "8192", "ipv4/tcp_max_syn_backlog": "8192"})
	allowFiles(t, 3*connections)
	accepted := acceptMany(t)
	dialed := dialMany(t)
	seen := map[uint16]bool{}
	for range connections {
		select {
		case from := <-accepted:
			if from.Addr().String() != gatewayIP || seen[from.Port()] {
				t.Fatalf("a connection came from %s, port met before: %v", from, seen[from.Port()])
			}
			seen[from.Port()] = true
		case <-time.After(patience):
			t.Fatalf("%d connections arrived, then none within %v", len(seen), patience)
		}
	}
	if n := scrape(t)["nsgd_translations"]; n < connections {
		t.Errorf("nsgd_translations is %v with %d connections", n, connections)
	}
	// All are open now: each gets back what it sends and nothing else's.
	each(t, dialed, func(i int, conn net.Conn) error {
		word := make([]byte, 1000)
		for j := 0; j < len(word); j += 4 {
			binary.BigEndian.PutUint32(word[j:], uint32(i<<8+j))
		}
		got := make([]byte, len(word))
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(word); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, word) {
			return fmt.Errorf("other data than was sent")
		}
		return nil
	})
	if n := scrape(t).drops("snat_exhausted"); n != 0 {
		t.Errorf("%v packets found no port", n)
	}
}

// allowFiles lets this process have so many open files, until the end of the test.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if before.Cur >= n {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, before.Max)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
}

// acceptMany echoes to everybody at port 80 of the internet's host, and tells who came.
func acceptMany(t *testing.T) <-chan netip.AddrPort {
	t.Helper()
	var listener net.Listener
	inside(t, client, func() (err error) {
		listener, err = net.Listen("tcp", endpoint(client, 80))
		return err
	})
	accepted := make(chan netip.AddrPort, connections)
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range open {
			conn.Close()
		}
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			accepted <- conn.RemoteAddr().(*net.TCPAddr).AddrPort()
			// Between the connections themselves it would splice, with a pipe for each.
			go io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		}
	}()
	return accepted
}

// dialMany opens the connections. A thread in the namespace makes the sockets one after the other.
func dialMany(t *testing.T) []net.Conn {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
	})
	var dialing sync.WaitGroup
	const threads = 16
	for thread := range threads {
		dialing.Go(func() {
			err := tun.Do(gatewayVM.Namespace, func() error {
				for i := thread; i < connections; i += threads {
					conn, err := (&net.Dialer{Timeout: patience}).Dial("tcp", endpoint(client, 80))
					if err != nil {
						return err
					}
					mu.Lock()
					conns = append(conns, conn)
					mu.Unlock()
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	dialing.Wait()
	if len(conns) != connections {
		t.FailNow()
	}
	return conns
}

// each does something with every connection, many at a time.
func each(t *testing.T, conns []net.Conn, do func(i int, conn net.Conn) error) {
	t.Helper()
	var wait sync.WaitGroup
	turns := make(chan struct{}, 256)
	for i, conn := range conns {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			if err := do(i, conn); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wait.Wait()
}

// translatedSenders are hosts whose packets leave with another address, one of each kind.
var translatedSenders = []struct {
	name string
	host lab.Host
}{
	{"a public IP", publicVM}, {"a NAT gateway", gatewayVM}, {"an outbound rule", web1}, {"default outbound access", plainVM},
}

func TestTracerouteAndPathMTUThroughTranslation(t *testing.T) {
	startTranslation(t)
	far := routeBeyondClient(t)
	for _, tt := range translatedSenders {
		for _, way := range []struct {
			name string
			args []string
		}{{"datagrams", nil}, {"echo requests", []string{"-I"}}, {"opening segments", []string{"-T", "-p", "9"}}} {
			t.Run("traceroute with "+way.name+" through "+tt.name, func(t *testing.T) {
				to := far.Address.String()
				traceroute(t, tt.host, to, map[string]string{"1": client.Address.String(), "2": to}, way.args...)
			})
		}
		t.Run("tracepath through "+tt.name, func(t *testing.T) {
			tracepath(t, tt.host, client.Address, far.Address)
		})
		t.Run("ping that must not be fragmented through "+tt.name, func(t *testing.T) {
			command(t, "ip -n "+tt.host.Namespace+" route flush cache")
			out, err := runOn(t, tt.host, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "10", "-M", "do", "-s", "1400", far.Address.String())
			if err == nil || !strings.Contains(out, "mtu") {
				t.Errorf("%v: %s", err, out)
			}
			fits := strconv.Itoa(beyondMTU - 28)
			if out, err := runOn(t, tt.host, "ping", "-n", "-c", "1", "-W", "10", "-M", "do", "-s", fits, far.Address.String()); err != nil {
				t.Errorf("one that fits: %v: %s", err, out)
			}
		})
	}
}

// The way to who is inside, too: the outside must send smaller segments to a backend that has a
// smaller MTU behind it, and is told by it, with the addresses that it knows.
func TestTracerouteFromOutsideToAPublicIP(t *testing.T) {
	d := startTranslation(t)
	setRules(t, d.dir, "vm-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow", source: "Internet"})
	nsgctl(t, "reload")
	for _, args := range [][]string{nil, {"-I"}, {"-T", "-p", "9"}} {
		traceroute(t, client, vmIP, map[string]string{"1": vmIP}, append([]string{"-N", "1"}, args...)...)
	}
}

// routeBeyondClient is a host beyond the internet's, over a link with a smaller MTU.
func routeBeyondClient(t *testing.T) lab.Host {
	t.Helper()
	far := lab.Host{Name: "beyond", Namespace: "nsgd-beyond", Address: netip.MustParseAddr("198.51.100.200")}
	t.Cleanup(func() { command(t, "ip netns del "+far.Namespace) })
	command(t, "ip netns add "+far.Namespace)
	for _, namespace := range []string{far.Namespace, client.Namespace} {
		setKernel(t, namespace, map[string]string{"ipv4/icmp_ratelimit": "0", "ipv4/ip_forward": "1"})
	}
	for _, line := range []string{
		"ip link add beyond netns nsgd-internet type veth peer name eth0 netns nsgd-beyond",
		"ip -n nsgd-internet address add 198.51.100.193/26 dev beyond",
		"ip -n nsgd-beyond address add 198.51.100.200/26 dev eth0",
		"ip -n nsgd-internet link set beyond up mtu " + strconv.Itoa(beyondMTU),
		"ip -n nsgd-beyond link set eth0 up",
		"ip -n nsgd-beyond route add default via 198.51.100.193",
	} {
		command(t, line)
	}
	eventually(t, "a way to "+far.String(), func() bool { return ping(client, far, silence) == nil })
	return far
}
