package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
)

// The size of the comparison: always the same one by default, with NSGD_E2E_KERNEL_POLICIES
// as many policies and a new seed each time. NSGD_E2E_KERNEL_SEED repeats one of those.
const (
	kernelPoliciesEnv = "NSGD_E2E_KERNEL_POLICIES"
	kernelSeedEnv     = "NSGD_E2E_KERNEL_SEED"

	packetsPerPolicy = 150
	// maxDisagreements ends a comparison that has gone wrong altogether.
	maxDisagreements = 5
)

// Random policies, each as nftables on a Linux router and as ARM JSON in nsgd, and the
// same packets through both. Every second policy changes the rules under the flows of the
// one before it.
func TestKernelRouterAndNsgdAgreeOnEveryPacketButForListedDifferences(t *testing.T) {
	needWorld(t)
	needNftables(t)
	// A program with the race detector would sleep a second at its end, nsgctl after
	// every reload.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	policies, seed := comparisonSize(t, kernelPoliciesEnv, 200)
	t.Logf("%d policies, %s=%d", policies, kernelSeedEnv, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newScenario(random, 0)
	d := startFigure(t, s)
	r := newRouter(t)
	c := &comparison{t: t, wire: newWire(t, kernelLane(t), nsgdLane(t)), traffic: &traffic{random: random}, met: map[string]int{}}
	for n := range policies {
		c.policy = n
		next := newScenario(random, n/2)
		live := n%2 == 1 // the flows of the policy before
		s = next
		writeFile(t, figureFile(d.dir), s.document())
		nsgctl(t, "reload")
		r.apply(s, live)
		if live {
			c.traffic.scenario = s
		} else {
			c.traffic.begin(s)
		}
		for range packetsPerPolicy {
			c.compare(c.traffic.next())
		}
		if t.Failed() {
			t.Logf("policy %d:\n%s\n%s", n, s.nftables(), nsgctl(t, "status"))
			break
		}
	}
	c.report(policies, seed)
}

// comparisonSize is usual and seed 1, or what the environment wants.
func comparisonSize(t *testing.T, env string, usual int) (size int, seed uint64) {
	t.Helper()
	size, seed = usual, 1
	if text := os.Getenv(env); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number above 0", env, text)
		}
		size, seed = n, rand.Uint64()
	}
	if text := os.Getenv(kernelSeedEnv); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q: want a number", kernelSeedEnv, text)
		}
		seed = n
	}
	return size, seed
}

func figureFile(dir string) string { return filepath.Join(dir, "policy", "figure.json") }

// figureNamespace is where nsgd puts a host.
func figureNamespace(host int) string { return fmt.Sprintf("figure-%d", host) }

// startFigure starts nsgd on the figure. One worker keeps the order of all packets.
func startFigure(t *testing.T, s *scenario) *daemon {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	var config strings.Builder
	fmt.Fprintf(&config, "policy: [policy/]\nworkers: 1\nattachments:\n")
	for host := range figureHosts {
		what := fmt.Sprintf("networkInterface: vm%d-nic", host+1)
		if host == figureInternet {
			what = "internet: true, addresses: [203.0.113.10/24, '2001:db8::10/64']"
		}
		fmt.Fprintf(&config, "- {%s, netns: %s, create: true, device: eth0}\n", what, figureNamespace(host))
	}
	fmt.Fprintf(&config, "timeouts: {tcpSyn: 10m, tcpClosing: 10m, tcpTimeWait: 10m, tcpReset: 10m, udpOneWay: 10m, icmp: 10m}\n")
	writeFile(t, filepath.Join(dir, lab.ConfigName), config.String())
	writeFile(t, figureFile(dir), s.document())
	d := startIn(t, dir)
	for host := range figureHosts {
		// The hosts' kernels have addresses here; they are not to answer.
		err := tun.Do(figureNamespace(host), func() error { return mute("prerouting", "output") })
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func nsgdLane(t *testing.T) *lane {
	t.Helper()
	return newLane(t, "nsgd", func(host int) (string, string) { return figureNamespace(host), "eth0" }, nil)
}

func kernelLane(t *testing.T) *lane {
	t.Helper()
	return newLane(t, "kernel", func(host int) (string, string) { return hostsNamespace, fmt.Sprintf("h%d", host) },
		func(host int) (mac net.HardwareAddr) {
			err := tun.Do(routerNamespace, func() error {
				link, err := netlink.LinkByName(fmt.Sprintf("r%d", host))
				if err == nil {
					mac = link.Attrs().HardwareAddr
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return mac
		})
}

// comparison holds what both lanes did against each other.
type comparison struct {
	t       *testing.T
	wire    *wire
	traffic *traffic
	policy  int

	packets, carried, dropped int            // both did
	met                       map[string]int // differences by name
	disagreements             int
}

// compare sends one packet through both lanes.
func (c *comparison) compare(p *probe) {
	if c.t.Failed() && c.disagreements == 0 || c.disagreements >= maxDisagreements {
		return
	}
	kernel, nsgd, err := c.wire.exchange(p.from, p.frames, c.marker(p))
	if err != nil {
		c.t.Fatalf("policy %d, packet %d: %v", c.policy, c.packets, err)
	}
	c.packets++
	byKernel, byNsgd := c.delivered(p, "kernel", kernel), c.delivered(p, "nsgd", nsgd)
	p.byNsgd = byNsgd
	if p.kind == repeated && byNsgd == carries {
		// The kernel puts together what it had first; a receiver behind nsgd may do otherwise.
		c.t.Errorf("policy %d, packet %d: %s: nsgd carries bytes of a datagram twice", c.policy, c.packets, p.what)
	}
	outcome := fmt.Sprintf("kernel %v, nsgd %v", byKernel, byNsgd)
	if p.talk != nil {
		p.talk.said = append(p.talk.said, fmt.Sprintf("from side %d: %s: %s", p.side, p.what, outcome))
	}
	switch {
	case byKernel == byNsgd:
		c.agreed(p, byNsgd == carries)
		return
	case p.talk != nil:
		defer c.traffic.retire(p.talk)
	}
	if name, ok := explain(p, byKernel, byNsgd); ok {
		c.met[name]++
		return
	}
	c.disagreements++
	c.t.Errorf("policy %d, packet %d: %s (host %d to %d): %s", c.policy, c.packets, p.what, p.from, p.to, outcome)
	if p.talk != nil {
		c.t.Logf("the conversation, %v:\n  %s", p.talk, strings.Join(p.talk.said, "\n  "))
	}
}

// carriage is how much of a probe came out.
type carriage int

const (
	drops   carriage = iota
	partly           // some of its fragments
	carries          // all of it
)

func (c carriage) String() string { return [...]string{"drops", "carries a part", "carries"}[c] }

func (c *comparison) marker(p *probe) marker {
	address := func(host int) string {
		if host == figureInternet {
			return outside[0][0].String()
		}
		return c.traffic.scenario.address[host][0].String()
	}
	return marker{p.from, p.peer, packettest.Spec{Src: address(p.from), Dst: address(p.peer)}}
}

// agreed takes note of what both lanes have seen now.
func (c *comparison) agreed(p *probe, carried bool) {
	if carried {
		c.carried++
	} else {
		c.dropped++
	}
	if p.talk != nil && carried && p.kind != icmpError {
		p.talk.heard[p.side] = true
	}
	if p.talk != nil && p.kind == lastHop {
		// A router tracks before it counts hops, so what the kernel dropped for want of
		// hops may have moved its connection on.
		c.traffic.retire(p.talk)
	}
	if p.talk == nil || p.talk.protocol != packet.ProtoTCP || p.kind != ordinary && p.kind != behindAH {
		return
	}
	h := &p.talk.tcp
	switch {
	case carried && h.forgotten && !is(p, packet.SYN):
		// The end of the old connection to nsgd, the middle of a new one to the kernel.
		c.traffic.retire(p.talk)
	case carried:
		h.carried(p.side, p.flags)
	case is(p, packet.SYN) && h.closing():
		// The kernel forgets a connection in TIME-WAIT when a SYN comes, and only then asks
		// the rules; nsgd keeps what a denied SYN would have replaced.
		c.traffic.retire(p.talk)
	}
}

// delivered is what came out of a lane. It checks that nothing else did, and that the
// bytes are those that were sent.
func (c *comparison) delivered(p *probe, lane string, arrivals []arrival) carriage {
	wrong := func(format string, args ...any) {
		c.t.Errorf("policy %d, packet %d, %s: %s %s", c.policy, c.packets, p.what, lane, fmt.Sprintf(format, args...))
	}
	left := slices.Clone(p.frames)
	var came [][]byte
	for _, a := range arrivals {
		switch {
		case tagOf(a.bytes) != p.tag:
			wrong("lets another packet out at host %d: % x", a.host, a.bytes)
			continue
		case a.host != p.to:
			wrong("takes it to host %d, not %d", a.host, p.to)
		}
		came = append(came, a.bytes)
		same := slices.IndexFunc(left, func(sent []byte) bool {
			return bytes.Equal(a.bytes, sent) || lane == "kernel" && (p.rewritten || sameButForHop(a.bytes, sent))
		})
		switch {
		case same >= 0:
			left = slices.Delete(left, same, same+1)
		case lane == "nsgd" || p.whole == nil:
			wrong("delivers what was not sent, or not so often: % x", a.bytes)
		}
	}
	switch {
	case len(came) == 0:
		return drops
	case len(left) == 0, lane == "kernel" && p.whole != nil && reassemble(p.whole, came):
		return carries
	}
	return partly
}

// tagOf is the number that a packet was given: the IPv4 identification or the low half of
// the IPv6 flow label.
func tagOf(b []byte) uint16 {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return binary.BigEndian.Uint16(b[4:])
	case len(b) >= 40 && b[0]>>4 == 6:
		return binary.BigEndian.Uint16(b[2:])
	}
	return 0
}

// sameButForHop compares without what a router changes.
func sameButForHop(a, b []byte) bool {
	return len(a) == len(b) && bytes.Equal(withoutHop(a), withoutHop(b))
}

func withoutHop(b []byte) []byte {
	b = slices.Clone(b)
	if b[0]>>4 == 4 {
		clear(b[8:9])
		clear(b[10:12])
	} else {
		clear(b[7:8])
	}
	return b
}

// report logs the figures and checks that they mean something.
func (c *comparison) report(policies int, seed uint64) {
	c.t.Helper()
	var lines strings.Builder
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(c.met)) {
		fmt.Fprintf(&lines, "\n  %5d %s", c.met[name], name)
		sum += c.met[name]
	}
	c.t.Logf("%d policies, %d packets, %s=%d: both carried %d, both dropped %d, %d intended differences%s",
		policies, c.packets, kernelSeedEnv, seed, c.carried, c.dropped, sum, lines.String())
	if c.t.Failed() {
		c.t.Logf("to repeat it: %s=%d %s=%d scripts/e2e -test.run 'TestKernel'", kernelPoliciesEnv, policies, kernelSeedEnv, seed)
		return
	}
	if c.carried < c.packets/5 || c.dropped < c.packets/5 {
		c.t.Errorf("the packets are too much alike to prove anything")
	}
}
