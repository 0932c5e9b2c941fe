package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	controlapi "github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

const (
	allowedPort, deniedPort, flippedPort = 5000, 5001, 5002

	// pace is one datagram of each kind; window is how many may be on their way, so
	// that no queue overflows however slow the machine is.
	pace   = 2 * time.Millisecond
	window = 64
	// freshEvery is how many datagrams come from one socket, that is one flow.
	freshEvery = 8
)

// sink receives numbered datagrams on a port until the test ends.
type sink struct {
	to       netip.AddrPort
	mu       sync.Mutex
	received map[uint64]int // by number
	count    atomic.Int64
}

func newSink(t *testing.T, h lab.Host, port uint16) *sink {
	t.Helper()
	conn := bindUDP(t, h, port)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	s := &sink{to: address(conn), received: map[uint64]int{}}
	go func() {
		buf := make([]byte, 64)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.received[binary.BigEndian.Uint64(buf[:n])]++
			s.mu.Unlock()
			s.count.Add(1)
		}
	}()
	return s
}

func (s *sink) has(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[number] > 0
}

// missing are the numbers below sent that did not arrive exactly once.
func (s *sink) missing(sent uint64) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range sent {
		if n := s.received[i]; n != 1 {
			list = append(list, fmt.Sprintf("%d (%d times)", i, n))
		}
	}
	return list
}

// stream sends numbered datagrams at the pace, from a new socket every few of them,
// until the channel is closed. It returns how many it sent.
func stream(from lab.Host, to *sink, held bool, until <-chan struct{}) (sent uint64, err error) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var conn *net.UDPConn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for {
		select {
		case <-until:
			return sent, nil
		case <-tick.C:
		}
		if held && int64(sent)-to.count.Load() >= window {
			continue
		}
		if sent%freshEvery == 0 {
			if conn != nil {
				conn.Close()
			}
			err := tun.Do(from.Namespace, func() (err error) {
				conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Address, 0)))
				return err
			})
			if err != nil {
				return sent, err
			}
		}
		if _, err := conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, sent), to.to); err != nil {
			return sent, err
		}
		sent++
	}
}

// underTraffic runs senders until the work is done.
type underTraffic struct {
	t     *testing.T
	until chan struct{}
	wait  sync.WaitGroup
}

func (u *underTraffic) run(name string, f func() error) {
	u.wait.Go(func() {
		if err := f(); err != nil {
			u.t.Errorf("%s: %v", name, err)
		}
	})
}

// datagrams sends to a sink; the number sent is there after the end.
func (u *underTraffic) datagrams(from lab.Host, to *sink, held bool) *uint64 {
	sent := new(uint64)
	u.run(from.Name+" to "+to.to.String(), func() (err error) {
		*sent, err = stream(from, to, held, u.until)
		return err
	})
	return sent
}

// over tells that the work is done.
func (u *underTraffic) over() bool {
	select {
	case <-u.until:
		return true
	default:
		return false
	}
}

// connections keeps one connection talking and opens others beside it.
func (u *underTraffic) connections(from, to lab.Host, port uint16) {
	kept := mustConnect(u.t, from, to, port)
	u.run("a connection that lasts", func() error {
		for !u.over() {
			if err := echo(kept, patience); err != nil {
				return err
			}
		}
		return nil
	})
	u.run("new connections", func() error {
		for !u.over() {
			conn, err := connect(from, to, port, patience)
			if err != nil {
				return err
			}
			err = echo(conn, patience)
			conn.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// refusedConnections tries a port that is denied.
func (u *underTraffic) refusedConnections(from, to lab.Host, port uint16) {
	u.run("denied connections", func() error {
		for !u.over() {
			conn, err := connect(from, to, port, silence)
			if err == nil {
				conn.Close()
				return fmt.Errorf("port %d was reached", port)
			}
			if !isTimeout(err) {
				return err
			}
		}
		return nil
	})
}

// reloadPolicy has rules of large tags before those that decide; the flipped port is
// open in every other policy.
func reloadPolicy(open bool) groupRules {
	inbound := rules(
		rule{name: "DenyAzureCloud", priority: 100, direction: "Inbound", access: "Deny", source: "AzureCloud"},
		rule{name: "AllowSql", priority: 110, direction: "Inbound", access: "Allow", source: "Sql", protocol: "Tcp"},
		rule{name: "AllowDatagrams", priority: 120, direction: "Inbound", access: "Allow", protocol: "Udp", source: "Internet", port: fmt.Sprint(allowedPort)},
		rule{name: "AllowHttpInBound", priority: 130, direction: "Inbound", access: "Allow", protocol: "Tcp", source: "Internet", port: "80"},
	)
	if open {
		inbound = append(inbound, rule{name: "Flip", priority: 140, direction: "Inbound", access: "Allow", protocol: "Udp", source: "Internet", port: fmt.Sprint(flippedPort)})
	}
	return groups(rules(allowHTTPIn), inbound)
}

// flipRule gives a rule of an NSG that no host of the test has another port.
func flipRule(t *testing.T, dir string, i int) {
	t.Helper()
	const groups = manyGroups
	document := string(armtest.Group(i%groups, manyRules))
	if i/groups%2 == 0 {
		document = strings.Replace(document, `"20001"`, `"30001"`, 1)
	}
	writeFile(t, armtest.GroupFile(filepath.Join(dir, "policy"), i%groups), document)
}

const (
	reloadCount = 20 // a hundred take minutes, in which the senders run out of sockets
	manyGroups  = 48 // and the lab's two
	manyRules   = 12
	// flipEvery and scrapeEvery are reloads from one change of the rule that is probed,
	// and from one look at the counters, to the next.
	flipEvery, scrapeEvery = 5, 10
)

func TestReloadsUnderTrafficLoseAndMisjudgeNothing(t *testing.T) {
	needWorld(t)
	dir := configure(t, reloadPolicy(false), "serviceTags: "+armtest.ServiceTags(t))
	armtest.WriteGroups(t, filepath.Join(dir, "policy"), manyGroups, manyRules)
	d := startIn(t, dir)

	outside, inside := newSink(t, vm3, allowedPort), newSink(t, ipv6.vm2, allowedPort)
	denied, flipped := newSink(t, vm3, deniedPort), newSink(t, vm3, flippedPort)
	serveTCP(t, vm3, 80)
	serveTCP(t, vm3, 81)
	begin := scrape(t)

	u := &underTraffic{t: t, until: make(chan struct{})}
	end := sync.OnceFunc(func() { close(u.until); u.wait.Wait() })
	defer end()
	sentOutside, sentInside := u.datagrams(internet, outside, true), u.datagrams(ipv6.vm4, inside, true)
	sentDenied := u.datagrams(internet, denied, false)
	u.connections(internet, vm3, 80)
	u.refusedConnections(internet, vm3, 81)
	reloadOften(t, d, flipped, begin)
	end()

	outside.receivedAll(t, *sentOutside)
	inside.receivedAll(t, *sentInside)
	allowDatagrams := decided{nsg2, "Inbound", "AllowDatagrams", "Allow"}
	c := since(t, begin, func(c counts) bool { return c.rule(allowDatagrams).packets >= float64(*sentOutside) })
	if got := c.rule(allowDatagrams).packets; got != float64(*sentOutside) {
		t.Errorf("%v packets counted as allowed, %d sent", got, *sentOutside)
	}
	since(t, begin, func(c counts) bool { return c.rule(deniedIn(nsg2)).packets >= float64(*sentDenied) })
	if n := denied.count.Load(); n != 0 {
		t.Errorf("%d of %d denied datagrams arrived", n, *sentDenied)
	}
	t.Logf("%d reloads; %d datagrams from outside, %d from inside, %d denied", reloadCount, *sentOutside, *sentInside, *sentDenied)
}

// reloadOften reloads with another policy each time, and looks whether the new one
// decides and the counters only grow.
func reloadOften(t *testing.T, d *daemon, flipped *sink, begin samples) {
	t.Helper()
	client := controlapi.NewClient(controlSocket)
	defer client.Close()
	opened := map[uint64]bool{}
	last := begin
	for i := range reloadCount {
		flipRule(t, d.dir, i)
		open := i/flipEvery%2 == 0
		d.setPolicy(reloadPolicy(open))
		reloaded, err := client.Reload(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(i + 2); reloaded.Generation != want {
			t.Errorf("generation %d, want %d", reloaded.Generation, want)
		}
		if i%flipEvery == 0 {
			opened[uint64(i)] = open
			flipped.probe(t, uint64(i), open)
		}
		if i%scrapeEvery == 0 {
			last = scrapeOnwards(t, last, fmt.Sprintf("reload %d", i))
		}
	}
	scrapeOnwards(t, last, "the end")
	for i, open := range opened {
		if got := flipped.has(i); got != open {
			t.Errorf("after reload %d the datagram arrived: %v, want %v", i, got, open)
		}
	}
}

// probe sends a datagram that begins a flow of its own, to be judged by the new policy.
func (s *sink) probe(t *testing.T, number uint64, open bool) {
	t.Helper()
	conn := bindUDP(t, internet, uint16(20000+number))
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, number), s.to); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a datagram by the rule that was added arrives", func() bool { return !open || s.has(number) })
}

// receivedAll waits for as many datagrams as were sent, and checks that each came once.
func (s *sink) receivedAll(t *testing.T, sent uint64) {
	t.Helper()
	eventually(t, "every allowed datagram arrives at "+s.to.String(), func() bool { return s.count.Load() >= int64(sent) })
	if missing := s.missing(sent); missing != nil || sent < reloadCount {
		t.Errorf("%s: %d sent, not once each: %v", s.to, sent, missing)
	}
}
