package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/deploy/lab"
)

// guest makes the namespace of a machine that hosts take over from each other, as one does that migrates.
func (f *fleet) guest(name string) {
	f.t.Helper()
	must(f.t, "ip", "netns", "add", name)
	f.t.Cleanup(func() { must(f.t, "ip", "netns", "del", name) })
	must(f.t, "ip", "-n", name, "link", "set", "lo", "up")
}

// stay makes the routes by a device of a guest better than those that the next host brings, for as long as the device lives.
func stay(t *testing.T, guest, device string) {
	t.Helper()
	for _, r := range [][]string{{"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"}, {"::/0", "::/1", "8000::/1"}} {
		if exec.Command("ip", "-n", guest, "route", "del", r[0], "dev", device).Run() != nil {
			continue // it has none of that family
		}
		for _, half := range r[1:] {
			must(t, "ip", "-n", guest, "route", "add", half, "dev", device)
		}
	}
}

// move moves a network interface.
func (f *fleet) move(nic, host string, more ...string) (m cluster.Moved) {
	f.t.Helper()
	a := execute(f.t, "nsgctl", f.asked(append([]string{"move", nic, host, "-o", "json"}, more...)...)...)
	if a.code != 0 || json.Unmarshal([]byte(a.stdout), &m) != nil {
		f.t.Fatalf("move %s to %s: %v", nic, host, a)
	}
	f.t.Logf("%s to %s: %+v", nic, host, m)
	return m
}

// bytesFlow sends bytes over a connection until it ends. The receiver checks that none is missing, and notes when it heard.
type bytesFlow struct {
	conn  net.Conn
	bytes atomic.Int64
	err   atomic.Pointer[error]
	ended chan struct{}
	gap
}

// gap is the longest silence since the last look.
type gap struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

func (g *gap) heard(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.last.IsZero() {
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
}

func (g *gap) look() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := g.longest
	g.longest = 0
	return longest
}

// bytesTo sends from one host to another until the test ends it.
func bytesTo(t *testing.T, from, to lab.Host, port uint16) *bytesFlow {
	t.Helper()
	came := make(chan net.Conn, 1)
	acceptTCP(t, to, netipPort(to, port), func(c net.Conn) { came <- c })
	conn, err := connect(from, to, port, patience)
	if err != nil {
		t.Fatalf("%v to %v port %d: %v", from, to, port, err)
	}
	return flowOf(t, conn, came)
}

func flowOf(t *testing.T, conn net.Conn, came <-chan net.Conn) *bytesFlow {
	t.Helper()
	s := &bytesFlow{conn: conn, ended: make(chan struct{})}
	var far atomic.Pointer[net.Conn]
	go func() {
		block := make([]byte, 16<<10)
		for n := uint64(0); ; n++ {
			for i := 0; i < len(block); i += 8 {
				binary.BigEndian.PutUint64(block[i:], n)
			}
			if _, err := conn.Write(block); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // else a few streams leave the hosts no processor to move anything
		}
	}()
	go func() {
		defer close(s.ended)
		var c net.Conn
		select {
		case c = <-came:
		case <-time.After(patience):
			err := errors.New("nobody has accepted it")
			s.err.Store(&err)
			return
		}
		far.Store(&c)
		defer c.Close()
		block := make([]byte, 16<<10)
		for n := uint64(0); ; n++ {
			if _, err := io.ReadFull(c, block); err != nil {
				s.err.Store(&err)
				return
			}
			for i := 0; i < len(block); i += 8 {
				if got := binary.BigEndian.Uint64(block[i:]); got != n {
					err := fmt.Errorf("block %d came as %d", n, got)
					s.err.Store(&err)
					return
				}
			}
			s.heard(time.Now())
			s.bytes.Add(int64(len(block)))
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		if c := far.Load(); c != nil {
			(*c).Close()
		}
		<-s.ended
	})
	return s
}

// flows waits until more has come.
func (s *bytesFlow) flows(t *testing.T, what string) {
	t.Helper()
	before := s.bytes.Load()
	eventually(t, what+" flows", func() bool {
		if err := s.err.Load(); err != nil {
			t.Fatalf("%s: %v", what, *err)
		}
		return s.bytes.Load() > before+1<<20
	})
}

// beat sends a numbered datagram every millisecond. lost are those that were sent and have not come.
type beat struct {
	sent, came, doubled atomic.Int64
	gap
}

func beatTo(t *testing.T, from, to lab.Host, port uint16) *beat {
	t.Helper()
	b := &beat{}
	at, out := bindUDP(t, to, port), bindUDP(t, from, port)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			out.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, n), address(at))
			b.sent.Add(1)
		}
	})
	all.Go(func() {
		buf, seen := make([]byte, 64), map[uint64]bool{}
		for {
			n, _, err := at.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if k := binary.BigEndian.Uint64(buf[:n]); seen[k] {
				b.doubled.Add(1)
			} else {
				seen[k] = true
			}
			b.heard(time.Now())
			b.came.Add(1)
		}
	})
	t.Cleanup(func() { close(stop); at.Close(); all.Wait() })
	eventually(t, "datagrams flow", func() bool { return b.came.Load() > 10 })
	return b
}

// A machine changes hosts and keeps its connections: to others on the old host, on the new one and on a third one, in both
// directions, there and back. The other host's clocks are a day ahead.
func TestANetworkInterfaceMovesWithItsFlows(t *testing.T) {
	f := startFleet(t)
	f.guest("nsgd-vm1")
	const attached = "- {networkInterface: vm1-nic, netns: nsgd-vm1, device: %s, mtu: 1400}\n"
	one := f.run(f.host("one", fmt.Sprintf(attached, "eth0")+small(attachVM2)))
	eventually(t, "one is registered", func() bool { return f.status("one").Registered })
	f.ctl("apply", filepath.Join(configure(t, openPolicy()), "policy"))
	f.has("one", 1, 2)
	two := f.run(f.host("two", fmt.Sprintf(attached, "eth1")+small(attachVM3)), dayAhead...)
	three := f.run(f.host("three", small(attachVM4)+small(attachInternet)))
	f.has("two", 1, 1)
	f.has("three", 1, 1)
	vm2 := ipv4.vm2
	eventually(t, "all are reached", func() bool {
		return ping(vm1, vm2, time.Second) == nil && ping(vm1, vm3, time.Second) == nil && ping(vm1, vm4, time.Second) == nil && ping(vm4, vm1, time.Second) == nil
	})
	streams := map[string]*bytesFlow{}
	for i, other := range []lab.Host{vm2, vm3, vm4, internet} {
		streams["to "+other.Name] = bytesTo(t, vm1, other, uint16(8000+i))
		if other != internet {
			streams["from "+other.Name] = bytesTo(t, other, vm1, uint16(8100+i))
		}
	}
	beats := map[string]*beat{"to vm4": beatTo(t, vm1, vm4, 9001), "from vm4": beatTo(t, vm4, vm1, 9002), "from vm2": beatTo(t, vm2, vm1, 9003)}
	for name, s := range streams {
		s.flows(t, name)
	}
	from, device := "one", "eth0"
	for _, to := range []string{"two", "one"} {
		stay(t, "nsgd-vm1", device)
		for _, b := range beats {
			b.look()
		}
		for _, s := range streams {
			s.look()
		}
		m := f.move("vm1-nic", to)
		if m.From != from || m.Flows < len(streams)+len(beats) || m.Sent != m.Flows {
			t.Errorf("%+v", m)
		}
		for name, s := range streams {
			s.flows(t, name)
			t.Logf("%s: silent for %v at most", name, s.look())
		}
		for name, b := range beats {
			before := b.came.Load()
			eventually(t, "datagrams flow "+name, func() bool { return b.came.Load() > before+100 })
			t.Logf("datagrams %s: silent for %v at most, %d sent, %d came, %d twice", name, b.look(), b.sent.Load(), b.came.Load(), b.doubled.Load())
			if b.doubled.Load() > 0 {
				t.Errorf("datagrams %s: %d came twice", name, b.doubled.Load())
			}
		}
		f.has(to, 1, 2)
		f.has(from, 1, 1)
		from, device = to, "eth1"
	}
	if out := f.ctl("nics"); strings.Count(out, "vm1-nic") != 1 {
		t.Errorf("nics: %s", out)
	}
	for _, d := range []*daemon{one, two, three} {
		d.end(syscall.SIGTERM)
	}
	f.leave()
}

// bytesOver sends over a connection, to whoever has accepted it.
func bytesOver(t *testing.T, conn, far net.Conn) *bytesFlow {
	t.Helper()
	came := make(chan net.Conn, 1)
	came <- far
	return flowOf(t, conn, came)
}

// Translated connections go on too: out through a NAT gateway, and in through a load balancer, when the machine leaves the
// host with the internet and when it comes back.
func TestTranslatedFlowsMove(t *testing.T) {
	f := startFleet(t)
	f.guest("nsgd-app")
	f.guest("nsgd-web1")
	const attached = "- {networkInterface: app-nic, netns: nsgd-app, device: %[1]s, mtu: 1400}\n- {networkInterface: web1-nic, netns: nsgd-web1, device: %[1]s, mtu: 1400}\n"
	dir := translationLab(t)
	setRules(t, dir, "web-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow"})
	one := f.run(f.host("one", fmt.Sprintf(attached, "eth0")+"- {internet: true, netns: nsgd-internet, create: true, device: eth0, mtu: 1400, addresses: [203.0.113.10/24, 203.0.113.11/24]}\n"))
	eventually(t, "one is registered", func() bool { return f.status("one").Registered })
	f.ctl("apply", filepath.Join(dir, "policy"))
	f.has("one", 1, 2)
	two := f.run(f.host("two", fmt.Sprintf(attached, "eth1")))
	eventually(t, "two waits", func() bool { return len(f.status("two").Waiting) == 2 })

	out := bytesTo(t, gatewayVM, client, 8000)
	came := make(chan net.Conn, 8)
	acceptTCP(t, web1, netipPort(web1, 8080), func(c net.Conn) { came <- c })
	var in *bytesFlow
	eventually(t, "the load balancer leads to web1", func() bool { // nobody has web2
		conn, err := connect(client, at(shopIP), 80, silence)
		if err != nil {
			return false
		}
		t.Cleanup(func() { conn.Close() })
		in = bytesOver(t, conn, <-came)
		return true
	})
	out.flows(t, "out")
	in.flows(t, "in")
	device := "eth0"
	for _, to := range []string{"two", "one"} {
		for _, nic := range []string{"app", "web1"} {
			stay(t, "nsgd-"+nic, device)
			m := f.move(nic+"-nic", to)
			if m.Flows < 1 || to == "one" && m.Joined < 1 {
				t.Errorf("%+v", m)
			}
			out.flows(t, "out")
			in.flows(t, "in")
		}
		device = "eth1"
	}
	for _, d := range []*daemon{one, two} {
		d.end(syscall.SIGTERM)
	}
	f.leave()
}

// Whoever dies within a move, one host has the network interface at the end, and it is reached.
func TestAHostOrEtcdDiesWithinAMove(t *testing.T) {
	f := startFleet(t)
	f.guest("nsgd-vm1")
	const attached = "- {networkInterface: vm1-nic, netns: nsgd-vm1, device: %s, mtu: 1400}\n"
	hosts := map[string]*daemon{}
	configs := map[string]string{"one": f.host("one", fmt.Sprintf(attached, "eth0"))}
	hosts["one"] = f.run(configs["one"])
	eventually(t, "one is registered", func() bool { return f.status("one").Registered })
	f.ctl("apply", filepath.Join(configure(t, openPolicy()), "policy"))
	f.has("one", 1, 1)
	configs["two"], configs["three"] = f.host("two", fmt.Sprintf(attached, "eth1")), f.host("three", small(attachVM4))
	for _, name := range []string{"two", "three"} {
		hosts[name] = f.run(configs[name])
	}
	f.has("three", 1, 1)
	at := func() (holder string) {
		holders := 0
		for name, device := range map[string]string{"one": "eth0", "two": "eth1"} {
			s := f.status(name)
			if len(s.Attached) == 1 && s.CarriesSeconds != nil && *s.CarriesSeconds > 0 && exec.Command("ip", "-n", "nsgd-vm1", "link", "show", device).Run() == nil {
				holder, holders = name, holders+1
			}
		}
		if holders != 1 {
			return ""
		}
		return holder
	}
	for i, dies := range []string{"one", "two", "etcd", "one", "two", "etcd"} {
		from := ""
		eventually(t, "one host has it", func() bool { from = at(); return from != "" })
		eventually(t, "it is reached", func() bool { return ping(vm4, vm1, time.Second) == nil })
		device := map[string]string{"one": "eth0", "two": "eth1"}[from]
		if out, _ := exec.Command("ip", "-n", "nsgd-vm1", "route", "show", "0.0.0.0/1").Output(); len(out) == 0 {
			stay(t, "nsgd-vm1", device)
		}
		to := map[string]string{"one": "two", "two": "one"}[from]
		moving := exec.Command(program("nsgctl"), f.asked("move", "vm1-nic", to, "--wait", "5s")...)
		stderr, err := moving.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := moving.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(stderr); lines.Scan() && !strings.Contains(lines.Text(), "ready to take it"); {
		}
		time.Sleep(time.Duration(i) * 15 * time.Millisecond)
		if dies == "etcd" {
			f.killEtcd()
		} else {
			hosts[dies].kill()
		}
		go io.Copy(io.Discard, stderr)
		t.Logf("%s dies while it moves from %s to %s: %v", dies, from, to, moving.Wait())
		if dies == "etcd" {
			f.startEtcd()
		} else {
			hosts[dies] = f.run(configs[dies])
		}
	}
	eventually(t, "one host has it", func() bool { return at() != "" })
	eventually(t, "it is reached", func() bool { return ping(vm4, vm1, time.Second) == nil })
	for _, d := range hosts {
		d.end(syscall.SIGTERM)
	}
	f.leave()
}

func netipPort(h lab.Host, port uint16) netip.AddrPort { return netip.AddrPortFrom(h.Address, port) }

// small gives attachments an MTU that goes whole between hosts.
func small(attachments string) string {
	return strings.ReplaceAll(attachments, "}\n", ", mtu: 1400}\n")
}

// openPolicy is the lab's, with all open between its machines.
func openPolicy() groupRules {
	open := rule{name: "OpenInBound", priority: 150, direction: "Inbound", access: "Allow", protocol: "*", source: "VirtualNetwork", port: "*"}
	return labPolicy().with(nsg1, open).with(nsg2, open)
}
