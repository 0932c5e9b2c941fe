package e2e

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
)

var (
	lifeTime = flag.Duration("life.time", 10*time.Second, "how long TestInterfacesLiveThroughAnything goes on")
	lifeSeed = flag.Uint64("life.seed", 0, "its seed; 0: another one each time")
)

// life is a router whose interfaces, whose nsgd and whose configuration change under traffic.
type life struct {
	*testing.T
	random *rand.Rand
	dir    string
	daemon *daemon // nil: none runs
	state  lifeState
	steps  []string
	count  map[string]int // of the steps, by what they did

	mu               sync.Mutex
	epochs           [][]lifeState // what may hold at a time; each probe says in which it was sent
	epoch            atomic.Uint64
	sent             [2][]atomic.Uint64 // probes of this epoch, by family and flow
	got              [2][]atomic.Uint64 // the last epoch whose probe has arrived, plus one
	wrong            atomic.Pointer[string]
	probes, arrivals atomic.Uint64
}

const lifePause = 20 * time.Millisecond // between probes of a flow

var lifeInterfaces = [...]string{"tap-vm1", "tap-vm3"}

// begin opens an epoch in which any of the states may hold.
func (l *life) begin(may ...lifeState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs = append(l.epochs, may)
	for f := range l.sent {
		for i := range l.sent[f] {
			l.sent[f][i].Store(0)
		}
	}
	l.epoch.Store(uint64(len(l.epochs) - 1))
}

// may says whether a probe of an epoch may arrive now.
func (l *life) may(f *lifeFlow, sent uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := false
	for _, states := range l.epochs[sent:] {
		for i := range states {
			left = left || states[i].passes(f, f.from)
			if left && states[i].passes(f, f.to) {
				return true
			}
		}
	}
	return false
}

// hosts are the machines under their addresses of a family, with the address that VM3 takes without having it.
func lifeHosts(f family) (hosts [5]lab.Host, stranger lab.Host) {
	vm1, vm3, stranger, internet, host, _, other := routedHosts(f)
	return [5]lab.Host{lifeVM1: vm1, lifeVM3: vm3, lifeInternet: internet, lifeOther: other, lifeHost: host}, stranger
}

// probe sends probes of a flow, each from another port, so that no live flow carries it.
func (l *life) probe(family, flow int, done <-chan struct{}) {
	f := &lifeFlows[flow]
	hosts, stranger := lifeHosts(families[family])
	from, to := hosts[f.from], hosts[f.to]
	if f.spoofed {
		from = stranger
	}
	tick := time.NewTicker(lifePause)
	defer tick.Stop()
	for port := uint16(10000); ; port++ {
		if port == 60000 {
			port = 10000
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
		epoch := l.epoch.Load()
		if conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Address, port))); err == nil {
			word := binary.BigEndian.AppendUint64([]byte{byte(family), byte(flow)}, epoch)
			if _, err := conn.WriteToUDPAddrPort(word, netip.AddrPortFrom(to.Address, f.port)); err == nil {
				l.probes.Add(1)
			}
			conn.Close()
		} // else: the address is away
		if l.epoch.Load() == epoch {
			l.sent[family][flow].Add(1)
		}
	}
}

// receive holds each probe that arrives against the model.
func (l *life) receive(conn *net.UDPConn) {
	buf := make([]byte, 64)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n != 10 {
			continue
		}
		family, flow, epoch := buf[0], buf[1], binary.BigEndian.Uint64(buf[2:])
		l.arrivals.Add(1)
		if f := &lifeFlows[flow]; !l.may(f, epoch) {
			text := fmt.Sprintf("%s (from %v, port %d, sent in epoch %d, now %d)", f.name, from, f.port, epoch, l.epoch.Load())
			l.wrong.CompareAndSwap(nil, &text)
		}
		last := &l.got[family][flow]
		for now := last.Load(); now < epoch+1 && !last.CompareAndSwap(now, epoch+1); now = last.Load() {
		}
	}
}

// traffic starts senders and receivers; the end of the test ends them.
func (l *life) traffic() {
	done := make(chan struct{})
	var senders sync.WaitGroup
	hosts, _ := lifeHosts(ipv4)
	for _, to := range []int{lifeVM1, lifeVM3, lifeInternet} {
		for _, port := range []int{lifePublic, lifePrivate, lifeDenied} {
			inside(l.T, hosts[to], func() error {
				conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
				if err == nil {
					l.Cleanup(func() { conn.Close() })
					go l.receive(conn)
				}
				return err
			})
		}
	}
	for family := range families {
		l.sent[family], l.got[family] = make([]atomic.Uint64, len(lifeFlows)), make([]atomic.Uint64, len(lifeFlows))
	}
	for family := range families {
		for flow := range lifeFlows {
			senders.Go(func() {
				tun.Do(hosts[lifeFlows[flow].from].Namespace, func() error { l.probe(family, flow, done); return nil })
			})
		}
	}
	l.Cleanup(func() { close(done); senders.Wait() })
}

// settled waits until each flow has been tried in the state that holds now, and has arrived where the model says so.
func (l *life) settled() {
	l.Helper()
	l.begin(l.state)
	epoch := l.epoch.Load()
	for family := range families {
		for flow := range lifeFlows {
			f := &lifeFlows[flow]
			reaches := l.state.reaches(f)
			for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
				l.check()
				if reaches && l.got[family][flow].Load() > epoch || !reaches && l.sent[family][flow].Load() >= 3 {
					break
				}
				if time.Now().After(deadline) {
					l.Fatalf("%s, %s: closed, and should be open\n%s", f.name, families[family].Family, l.story())
				}
			}
		}
	}
}

// check fails when a probe has arrived that must not.
func (l *life) check() {
	if text := l.wrong.Load(); text != nil {
		l.Fatalf("open: %s\n%s", *text, l.story())
	}
}

func (l *life) story() string {
	const shown = 12
	return fmt.Sprintf("model: %v\nlast steps:\n%s", &l.state, strings.Join(l.steps[max(0, len(l.steps)-shown):], "\n"))
}

// step does something that makes another state of this one.
func (l *life) step(what string, next lifeState, do func()) {
	l.steps = append(l.steps, fmt.Sprintf("%d %s", l.epoch.Load(), what))
	kind, _, _ := strings.Cut(what, ":")
	l.count[kind]++
	l.begin(l.state, next)
	do()
	l.state = next
	l.settled()
}

// name is what an interface is called now.
func (l *life) name(guest int) string {
	if l.state.guests[guest].renamed {
		return lifeInterfaces[guest] + "-x"
	}
	return lifeInterfaces[guest]
}

var lifeAddresses = [...]struct{ gateways, own []string }{
	{[]string{"10.0.1.1/24", "fd00:db8:1:1::1/64"}, []string{"10.0.1.4/24", "fd00:db8:1:1::4/64"}},
	{[]string{"10.0.2.1/24", "fd00:db8:1:2::1/64"}, []string{"10.0.2.4/24", "fd00:db8:1:2::4/64", "10.0.2.77/24", "fd00:db8:1:2::77/64"}},
}

// gateways gives the host its addresses at an interface that is up: the kernel forgets those of IPv6 with the link.
func (l *life) gateways(guest int, name string) {
	for _, a := range lifeAddresses[guest].gateways {
		ip(l.T, ifHost, fmt.Sprintf("addr replace %s dev %s", a, name))
	}
}

// write writes the configuration of a state.
func (l *life) write(s *lifeState) {
	policy := labPolicy()
	public := rule{name: "Public", priority: 105, direction: "Inbound", access: "Allow", protocol: "Udp", source: "Internet", port: fmt.Sprint(lifePublic)}
	policy = policy.with(nsg1, public).with(nsg2, public)
	if s.denied {
		policy = policy.with(nsg1, rule{name: "Denied", priority: 110, direction: "Inbound", access: "Deny", protocol: "Udp", source: "VirtualNetwork", port: fmt.Sprint(lifeDenied)})
	}
	policy.write(l.T, l.dir)
	text := "policy: [policy/]\nmetrics: {listen: 'off'}\nattachments:\n"
	for line := range strings.Lines(routedAttachments) {
		switch {
		case strings.Contains(line, "interface: tap-vm1") && !s.guests[lifeVM1].wanted, strings.Contains(line, "interface: tap-vm3") && !s.guests[lifeVM3].wanted:
		default:
			text += strings.Replace(line, "netns:", "wait: true, netns:", strings.Count(line, "interface: "))
		}
	}
	writeFile(l.T, filepath.Join(l.dir, lab.ConfigName), text)
}

// start starts nsgd, which says whether it takes the configuration.
func (l *life) start(taken bool) {
	l.Helper()
	d := launch(l.T, "run", "--config", filepath.Join(l.dir, lab.ConfigName))
	d.dir, d.expectErrors = l.dir, true
	if taken {
		l.Cleanup(func() {
			if !d.done {
				d.end(syscall.SIGTERM)
			}
		})
		d.waitFor(d.stderr, "msg=ready")
		l.daemon = d
		return
	}
	d.done = true
	d.wait()
	if text := d.stderr.String(); d.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "mtu") {
		l.Fatalf("a start with several MTUs: %v\n%s", d.cmd.ProcessState, text)
	}
}

// attached waits until nsgd says so of an interface.
func (l *life) attached(guest int) {
	l.Helper()
	eventually(l.T, lifeInterfaces[guest]+" is attached", func() bool {
		s := interfaceStatus(l.T)[lifeInterfaces[guest]]
		return s.State == "attached" || s.State == "down"
	})
}

// act takes one random step. false: the step makes no sense now.
func (l *life) act() bool {
	next, guest := l.state, l.random.IntN(2)
	g := &next.guests[guest]
	name, machine := l.name(guest), []string{"if-vm1", "if-vm3"}[guest]
	switch l.random.IntN(12) {
	case 0: // nsgd ends
		if !l.state.alive {
			return false
		}
		next.alive = false
		if l.random.IntN(3) > 0 {
			l.step("kill -9", next, func() { l.daemon.kill() })
		} else {
			l.step("stop", next, func() { l.daemon.end(syscall.SIGTERM) })
		}
	case 1, 2: // it starts
		if l.state.alive {
			return false
		}
		if !next.starts() {
			l.step("a start that is refused", next, func() { l.start(false) })
			break
		}
		next.alive = true
		next.take()
		l.step("start", next, func() { l.start(true) })
	case 3, 4: // a reload
		if !l.state.alive {
			return false
		}
		switch l.random.IntN(3) {
		case 0:
			next.denied = !next.denied
		default:
			g.wanted = !g.wanted
		}
		if !next.guests[lifeVM1].wanted && !next.guests[lifeVM3].wanted {
			return false // the devices of the rest can't change from one kind to the other
		}
		if !next.starts() {
			l.step("a reload that is refused", l.state, func() {
				l.write(&next)
				if a := execute(l.T, "nsgctl", "reload"); a.code != 1 || !strings.Contains(a.String(), "mtu") {
					l.Fatalf("a reload with several MTUs: %v", a)
				}
				l.write(&l.state)
			})
			break
		}
		next.take()
		l.step(fmt.Sprintf("reload: VM1 %v, VM3 %v, denied %v", next.guests[0].wanted, next.guests[1].wanted, next.denied), next, func() {
			l.write(&next)
			nsgctl(l.T, "reload")
		})
	case 5: // an interface goes or comes
		if g.there {
			g.there, g.up, g.renamed, g.programs = false, false, false, false
			l.step("goes: "+name, next, func() { ip(l.T, ifHost, "link del "+name) })
			break
		}
		*g = lifeGuest{there: true, up: true, addressed: true, mtu: 1500, wanted: g.wanted, programs: l.state.alive && g.wanted}
		open := next // until nsgd has seen it
		open.guests[guest].programs = false
		early := l.random.IntN(2) > 0 // there is traffic before
		l.step("comes: "+name, next, func() {
			cable(l.T, lifeInterfaces[guest], machine)
			if early {
				l.begin(open, next)
			} else if g.programs {
				l.attached(guest)
			}
			l.gateways(guest, lifeInterfaces[guest])
			addressed(l.T, machine, lifeAddresses[guest].own...)
			if early && g.programs {
				l.attached(guest)
			}
		})
	case 6: // down or up
		if !g.there {
			return false
		}
		g.up = !g.up
		l.step(fmt.Sprintf("up: %s %v", name, g.up), next, func() {
			if !g.up {
				ip(l.T, ifHost, "link set "+name+" down")
				return
			}
			ip(l.T, ifHost, "link set "+name+" up")
			l.gateways(guest, name)
		})
	case 7: // another MTU, of one or of both
		if !g.there {
			return false
		}
		mtu := 1500 + 1400 - g.mtu
		for i := range next.guests {
			if next.guests[i].there && (i == guest || l.random.IntN(2) > 0) {
				next.guests[i].mtu = mtu
			}
		}
		l.step(fmt.Sprintf("mtu: %d, %d", next.guests[0].mtu, next.guests[1].mtu), next, func() {
			for i := range next.guests {
				if next.guests[i].there {
					ip(l.T, ifHost, fmt.Sprintf("link set %s mtu %d", l.name(i), next.guests[i].mtu))
					ip(l.T, []string{"if-vm1", "if-vm3"}[i], fmt.Sprintf("link set eth0 mtu %d", next.guests[i].mtu))
				}
			}
		})
	case 8: // the guest takes other addresses, or its own again
		if !g.there {
			return false
		}
		g.addressed = !g.addressed
		l.step(fmt.Sprintf("addresses: %s its own %v", name, g.addressed), next, func() {
			if g.addressed {
				addressed(l.T, machine, lifeAddresses[guest].own...)
				return
			}
			ip(l.T, machine, "addr flush dev eth0 scope global\naddr add 10.0.9.77/24 dev eth0")
		})
	case 9: // another name, or its own again
		if !g.there {
			return false
		}
		g.renamed = !g.renamed
		if !g.renamed && l.state.alive && g.wanted {
			g.programs = true
		}
		after := lifeInterfaces[guest]
		if g.renamed {
			after += "-x"
		}
		l.step("name: "+after, next, func() {
			ip(l.T, ifHost, fmt.Sprintf("link set %s down\nlink set %s name %s", name, name, after))
			switch {
			case !g.programs || !l.state.alive:
			case g.renamed: // until nsgd has seen it, the rules decide
				eventually(l.T, name+" has another name", func() bool {
					return strings.Contains(interfaceStatus(l.T)[name].Trouble, "it is called")
				})
			default:
				l.attached(guest)
			}
			if g.up {
				ip(l.T, ifHost, "link set "+after+" up")
				l.gateways(guest, after)
			}
		})
	case 10: // another network namespace, and back: the kernel takes the filters away
		if !g.there || g.renamed {
			return false
		}
		g.up, g.programs = true, l.state.alive && g.wanted
		away := l.state
		away.guests[guest].there = false
		l.step("moves: "+name, next, func() {
			ip(l.T, ifHost, "link set "+name+" netns if-other")
			l.begin(away, next)
			ip(l.T, "if-other", "link set "+name+" netns if-host")
			if g.programs {
				l.attached(guest)
			}
			ip(l.T, ifHost, "link set "+name+" up")
			l.gateways(guest, name)
		})
	case 11: // somebody opens the interfaces
		if !l.state.alive {
			for i := range next.guests {
				next.guests[i].programs = false
			}
			l.step("nsgd detach", next, func() { nsgdDetach(l.T) })
			break
		}
		if !g.there || g.renamed || !g.programs {
			return false
		}
		g.tampered = true
		open := next
		hook := []string{"ingress", "egress"}[l.random.IntN(2)]
		l.steps = append(l.steps, fmt.Sprintf("%d tampered with %s at %s", l.epoch.Load(), name, hook))
		l.count["tampered"]++
		l.begin(l.state, open)
		must(l.T, "ip", "netns", "exec", ifHost, "tc", "filter", "del", "dev", name, hook)
		l.attached(guest)
		l.settled()
	}
	return true
}

// TestInterfacesLiveThroughAnything makes random changes under traffic: to interfaces, names, addresses, MTUs, the
// configuration and nsgd itself. A plain model says who may reach whom. What it forbids never arrives, and what it allows
// does. `make life TIME=1h` goes on for longer.
func TestInterfacesLiveThroughAnything(t *testing.T) {
	makeRouter(t)
	seed := *lifeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	l := &life{T: t, random: rand.New(rand.NewPCG(seed, 0)), dir: interfaceConfig(t, routedAttachments), count: map[string]int{}}
	whole := lifeGuest{there: true, up: true, addressed: true, mtu: 1500, wanted: true}
	l.state = lifeState{guests: [2]lifeGuest{whole, whole}}
	l.write(&l.state)
	t.Cleanup(func() { execute(t, "nsgd", "detach") })
	defer func() {
		t.Logf("seed %d: %d steps %v, %d probes sent, %d arrived", seed, len(l.steps), l.count, l.probes.Load(), l.arrivals.Load())
	}()
	l.begin(l.state)
	l.traffic()
	l.settled()
	next := l.state
	next.alive = true
	next.take()
	l.step("start", next, func() { l.start(true) })
	for end := time.Now().Add(*lifeTime); time.Now().Before(end); {
		l.act()
	}
}
