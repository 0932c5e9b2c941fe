package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// dialogue is a TCP connection of a test: each side's next packets.
type dialogue struct {
	r              *rig
	from, to       int  // attachments
	there, back    spec // there as the client sends, back as the server does
	begins, answer uint32
}

// dial begins a connection of a client with the sequence numbers 1000 and 77000, and opens it.
func dial(r *rig, from, to int, s spec) *dialogue {
	r.t.Helper()
	c := &dialogue{r: r, from: from, to: to, there: s, back: back(s), begins: 1000, answer: 77000}
	c.open()
	return c
}

func (c *dialogue) open() {
	c.r.t.Helper()
	c.client("S", c.begins, 0, 0)
	c.server("SA", c.answer, c.begins+1, 0)
	c.client("A", c.begins+1, c.answer+1, 0)
}

// client and server send a segment and fail unless it passes.
func (c *dialogue) client(flags string, seq, ack uint32, payload int) {
	c.r.t.Helper()
	if at, drop := c.try(c.from, c.there, flags, seq, ack, payload); at != c.to {
		c.r.t.Fatalf("the client's %s: came out at %d (%s)", flags, at, drop)
	}
}

func (c *dialogue) server(flags string, seq, ack uint32, payload int) {
	c.r.t.Helper()
	if at, drop := c.try(c.to, c.back, flags, seq, ack, payload); at != c.from {
		c.r.t.Fatalf("the server's %s: came out at %d (%s)", flags, at, drop)
	}
}

func (c *dialogue) try(from int, s spec, flags string, seq, ack uint32, payload int) (at int, drop string) {
	s.Flags, s.Seq, s.Ack, s.Payload = flags, seq, ack, payload
	out := c.r.pass(from, framed(packettest.TCP(s)))
	return out.at, out.drop
}

// state is that of the flow that the client's packets belong to; "none" without one.
func (c *dialogue) state() string {
	c.r.engine.Flows().Expire(c.r.engine.Now(), 0)
	for f := range c.r.engine.Flows().Flows {
		if f.Key.SrcPort == c.there.SrcPort && f.Key.DstPort == c.there.DstPort && !f.Waits && !f.Class.Cut() {
			return f.State()
		}
	}
	return "none"
}

// inbound lets TCP port 22 in, and lets VMs begin nothing.
func inbound() []ruleset.Rule {
	in := anyRule("in", 100, ruleset.Inbound, ruleset.Allow)
	in.Protocol, in.DestinationPorts = ruleset.TCP, []ruleset.PortRange{{First: 22, Last: 22}}
	return []ruleset.Rule{in, anyRule("noOut", 100, ruleset.Outbound, ruleset.Deny)}
}

var toVM2 = spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 22}

// Whoever knows the server alone sweeps the ports of a NAT gateway with a segment each.
func TestHostile02BlindRSTOverAllPortsOfANATGateway(t *testing.T) {
	all := []string{"R", "RA", "FA", "A"}
	if testing.Short() {
		all = all[:1]
	}
	for _, flags := range all {
		t.Run(flags, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			const connections = 20
			ports := map[uint16]uint16{}
			for i := range uint16(connections) {
				s := spec{Src: addr4, Dst: world, SrcPort: 20000 + i, DstPort: 443, Flags: "S", Seq: 1000}
				out := r.pass(vm4, framed(packettest.TCP(s)))
				ports[i] = portOut(t, out)
				r.pass(internet, framed(packettest.TCP(spec{Src: world, Dst: shared, SrcPort: 443, DstPort: ports[i], Flags: "SA", Seq: 77000, Ack: 1001})))
				s.Flags, s.Seq, s.Ack = "A", 1001, 77001
				r.pass(vm4, framed(packettest.TCP(s)))
			}
			r.clock += 5 * time.Minute
			for port := 1024; port <= 65535; port++ {
				r.pass(internet, framed(packettest.TCP(spec{Src: world, Dst: shared, SrcPort: 443, DstPort: uint16(port), Flags: flags, Seq: 0xdeadbeef, Ack: 0x12345678})))
			}
			r.engine.Flows().Expire(r.engine.Now(), 0)
			n := 0
			for f := range r.engine.Flows().Flows {
				n++
				if f.State() != "established" || f.Idle != 5*time.Minute {
					t.Fatalf("%v is %s, idle for %v", f.Key, f.State(), f.Idle)
				}
			}
			if n != connections || r.engine.Flows().Stats().OutOfWindow != connections {
				t.Errorf("%d connections, %d segments out of their window; want %d of each", n, r.engine.Flows().Stats().OutOfWindow, connections)
			}
			r.clock += 6 * time.Second
			for i, port := range ports {
				if out := r.pass(vm4, framed(packettest.TCP(spec{Src: addr4, Dst: world, SrcPort: 20000 + i, DstPort: 443, Flags: "PA", Seq: 1001, Ack: 77001, Payload: 100}))); out.at != internet {
					t.Errorf("the client's data: %s", out.drop)
				}
				if out := r.pass(internet, framed(packettest.TCP(spec{Src: world, Dst: shared, SrcPort: 443, DstPort: port, Flags: "PA", Seq: 77001, Ack: 1101, Payload: 100}))); out.at != vm4 {
					t.Errorf("the server's data: %s", out.drop)
				}
			}
		})
	}
}

// Whoever knows all but the numbers sweeps those: a reset must have one of two numbers of 2^32.
func TestHostile02BlindRSTSweepsSequenceNumbers(t *testing.T) {
	blind := uint64(64_512)
	if testing.Short() {
		blind = 2_000
	}
	for _, tt := range []struct {
		name   string
		picked bool
	}{{"from its beginning", false}, {"picked up in mid-stream", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figure(append(inbound(), anyRule("out", 99, ruleset.Outbound, ruleset.Allow)), nil), conntrack.Options{Max: 1024})
			c := &dialogue{r: r, from: internet, to: vm2, there: toVM2, back: back(toVM2), begins: 1000, answer: 77000}
			if tt.picked {
				c.client("PA", 1001, 77001, 0)
				c.server("A", 77001, 1001, 0)
			} else {
				c.open()
			}
			for i := range uint32(blind) {
				seq := 12345 + i*uint32(1<<32/blind)
				for from, s := range map[int]spec{internet: c.there, vm2: c.back} {
					for _, flags := range []string{"R", "FA"} {
						c.try(from, s, flags, seq, 0x40000000+i*77777, 0)
					}
				}
			}
			if got := c.state(); got != "established" {
				t.Fatalf("the connection is %s", got)
			}
			c.server("R", 77001, 0, 0)
			if got := c.state(); got != "reset" {
				t.Errorf("after a reset where it must be the connection is %s", got)
			}
		})
	}
}

func TestHostile02BlindRSTAgainstAServerThatMayBeginNothing(t *testing.T) {
	r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
	c := dial(r, internet, vm2, toVM2)
	for _, seq := range []uint32{0, 1, 999, 1000, 1002, 66536, 77001, 0x7fffffff, 0xdeadbeef} {
		c.client("R", seq, 0, 0) // the receiver answers it, or not
	}
	r.clock += 6 * time.Second
	c.server("PA", 77001, 1001, 50)
	c.client("R", 1001, 0, 0)
	r.clock += 6 * time.Second
	if at, drop := c.try(vm2, c.back, "PA", 77051, 1001, 50); at >= 0 || drop != packet.DropRule.String() {
		t.Errorf("after a true reset data came out at %d (%s)", at, drop)
	}
}

func TestHostile02BlindRSTDoesNotRefuseAnAttempt(t *testing.T) {
	r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
	c := &dialogue{r: r, from: internet, to: vm2, there: toVM2, back: back(toVM2)}
	c.client("S", 1000, 0, 0)
	for _, ack := range []uint32{1, 1000, 1002, 66000, 0xdeadbeef} {
		c.server("RA", 0, ack, 0)
		if got := c.state(); got != "syn_sent" {
			t.Fatalf("a refusal of %d makes it %s", ack, got)
		}
	}
	c.server("RA", 0, 1001, 0)
	if got := c.state(); got != "reset" {
		t.Errorf("after its refusal the attempt is %s", got)
	}
}

// What acknowledges what was never sent, or is far from where its side is, keeps no flow alive.
func TestHostile02BlindACKsKeepNoFlowAlive(t *testing.T) {
	for _, tt := range []struct {
		name     string
		seq, ack uint32
		counts   bool
	}{
		{"where the connection is", 1001, 77001, true},
		{"a keepalive", 1000, 77001, true},
		{"an acknowledgement of what was never sent", 1001, 77002, false},
		{"an acknowledgement that is much too old", 1001, 77001 - 66001, false},
		{"beyond the window", 1001 + 65535 + 1, 77001, false},
		{"numbers of another connection", 0x40000000, 0x13000000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
			c := dial(r, internet, vm2, toVM2)
			want := "none"
			if tt.counts {
				want = "established"
			}
			r.clock += 239 * time.Second
			c.client("A", tt.seq, tt.ack, 0)
			r.clock += 2 * time.Second
			if got := c.state(); got != want {
				t.Errorf("the connection is %s, want %s", got, want)
			}
		})
	}
}

func TestHostile02BlindACKCompletesNoHandshake(t *testing.T) {
	for _, ack := range []uint32{0, 76000, 77000, 77002, 0x1234567} {
		r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
		c := &dialogue{r: r, from: internet, to: vm2, there: toVM2, back: back(toVM2)}
		c.client("S", 1000, 0, 0)
		c.server("SA", 77000, 1001, 0)
		c.client("A", 1001, ack, 0)
		if got := c.state(); got != "syn_sent" {
			t.Errorf("ACK %d: the connection is %s", ack, got)
		}
		c.client("A", 1001, 77001, 0)
		if got := c.state(); got != "established" {
			t.Errorf("ACK %d: after the true one it is %s", ack, got)
		}
	}
}

// Each end of a flow that takes two ways has a record of its own, and both look at the numbers.
func TestHostile02BlindRSTWhereAnswersGoAnotherWay(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24"), b: []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, ruleset.Deny)}})
	s := func(flags string, seq, ack uint32) []byte {
		return packettest.TCP(spec{Src: addrA, Dst: addrB, SrcPort: 40000, DstPort: 80, Flags: flags, Seq: seq, Ack: ack})
	}
	answer := func(flags string, seq, ack uint32) []byte {
		return packettest.TCP(spec{Src: addrB, Dst: addrA, SrcPort: 80, DstPort: 40000, Flags: flags, Seq: seq, Ack: ack})
	}
	r.play([]step{{atA, s("S", 1000, 0), atFW, ""}, {atFW, s("S", 1000, 0), atB, ""}, {atB, answer("SA", 7000, 1001), atA, ""},
		{atA, s("A", 1001, 7001), atFW, ""}, {atFW, s("A", 1001, 7001), atB, ""}})
	for i := range uint32(1000) {
		r.play([]step{{atFW, s("R", 0xdeadbeef+i*4_294_967, 0), atB, ""}})
	}
	r.clock += 6 * time.Second
	r.play([]step{{atB, answer("PA", 7001, 1001), atA, ""}, {atFW, s("R", 1001, 0), atB, ""}})
	r.clock += 6 * time.Second
	r.play([]step{{atB, answer("PA", 7001, 1001), -1, "rule_deny"}})
}

func reloadTo(t *testing.T, r *rig, rules ...ruleset.Rule) {
	t.Helper()
	swap(t, r, figure(rules, nil))
}

var denyIn = anyRule("deny", 50, ruleset.Inbound, ruleset.Deny)

// A request for a new connection must not ride on the permission of an old one.
func TestHostile13SYNOnEstablishedIsJudgedByTheRulesOfNow(t *testing.T) {
	r := newRig(t, figure(inbound(), nil), conntrack.Options{Max: 1024, TCPStrict: true})
	c := dial(r, internet, vm2, toVM2)
	reloadTo(t, r, append(inbound(), denyIn)...)
	for range 20 {
		r.clock += 230 * time.Second
		c.client("A", 1001, 77001, 0)
	}
	before := r.count("NSG1", ruleset.Inbound, "deny")
	if at, drop := c.try(internet, c.there, "S", 777777, 0, 0); at >= 0 || drop != packet.DropRule.String() {
		t.Fatalf("the new SYN came out at %d (%s)", at, drop)
	}
	if after := r.count("NSG1", ruleset.Inbound, "deny"); after.Hits != before.Hits+1 {
		t.Errorf("the denial counted %+v after %+v", after, before)
	}
	c.client("PA", 1001, 77001, 10)
	c.server("A", 77001, 1011, 0)
	if got := c.state(); got != "established" {
		t.Errorf("the old connection is %s", got)
	}
}

// A SYN ends nothing. The answer to it does.
func TestHostile13SYNOnEstablishedEndsItOnlyWithItsAnswer(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprint("half closed ", half), func(t *testing.T) {
			r := newRig(t, figure(inbound(), nil), conntrack.Options{Max: 1024})
			c := dial(r, internet, vm2, toVM2)
			state, seq := "established", uint32(77001)
			if half {
				c.server("FA", 77001, 1001, 0)
				c.client("A", 1001, 77002, 0)
				state, seq = "closing", 77002
			}
			r.clock += 200 * time.Second
			for i := range uint32(100) { // blind ones, which the server answers with an ACK (RFC 5961 section 4)
				c.client("S", 500_000+i*1_000_003, 0, 0)
				c.server("A", seq, 1001, 0)
			}
			if got := c.state(); got != state {
				t.Fatalf("after blind SYNs the connection is %s", got)
			}
			c.client("PA", 1001, seq, 10)
			c.server("SA", 123, 456, 0)
			if got := c.state(); got != state {
				t.Fatalf("after an answer to nothing the connection is %s", got)
			}
			// The client has lost its memory, and the server too.
			c.begins, c.answer = 9_000_000, 4_000_000
			c.open()
			if got := c.state(); got != "established" {
				t.Errorf("the new connection is %s", got)
			}
			c.client("PA", 9_000_001, 4_000_001, 10)
			c.server("A", 4_000_001, 9_000_011, 0)
			if s := r.engine.Flows().Stats(); s.Flows != 1 {
				t.Errorf("%d flows", s.Flows)
			}
		})
	}
}

func TestHostile13SYNOnEstablishedExtendsNothing(t *testing.T) {
	r := newRig(t, figure(inbound(), nil), conntrack.Options{Max: 1024})
	c := dial(r, internet, vm2, toVM2)
	for range 8 {
		r.clock += 29 * time.Second
		c.client("S", 777777, 0, 0)
	}
	r.clock += 9 * time.Second
	if got := c.state(); got != "none" {
		t.Errorf("the connection is %s", got)
	}
}

// From the side that did not begin, a SYN is judged by the rules for that side.
func TestHostile13SYNOnEstablishedFromTheOtherSide(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules []ruleset.Rule
		want  string
	}{
		{"which may begin nothing", inbound(), packet.DropRule.String()},
		{"which may", inbound()[:1], ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figure(tt.rules, nil), conntrack.Options{Max: 1024})
			c := dial(r, internet, vm2, toVM2)
			if _, drop := c.try(vm2, c.back, "S", 5, 0, 0); drop != tt.want {
				t.Fatalf("dropped under %q, want %q", drop, tt.want)
			}
			c.client("A", 1001, 77001, 0)
			if tt.want != "" {
				return
			}
			c.client("SA", 60, 6, 0)
			c.server("A", 6, 61, 0)
			for f := range r.engine.Flows().Flows {
				if f.State() != "established" || f.Key.SrcPort != 22 {
					t.Errorf("%v is %s", f.Key, f.State())
				}
			}
		})
	}
}

// A connection keeps its translation when it begins anew, and is judged for that.
func TestHostile13SYNOnEstablishedKeepsItsTranslation(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	s := spec{Src: addr4, Dst: world, SrcPort: 20000, DstPort: 443, Flags: "S", Seq: 1000}
	port := portOut(t, r.pass(vm4, framed(packettest.TCP(s))))
	answer := spec{Src: world, Dst: shared, SrcPort: 443, DstPort: port, Flags: "SA", Seq: 77000, Ack: 1001}
	r.pass(internet, framed(packettest.TCP(answer)))
	s.Flags, s.Seq, s.Ack = "A", 1001, 77001
	r.pass(vm4, framed(packettest.TCP(s)))

	s.Flags, s.Seq, s.Ack = "S", 50_000, 0
	if again := portOut(t, r.pass(vm4, framed(packettest.TCP(s)))); again != port {
		t.Fatalf("a new SYN goes out from port %d, its connection has %d", again, port)
	}
	answer.Seq, answer.Ack = 99_000, 50_001
	if out := r.pass(internet, framed(packettest.TCP(answer))); out.at != vm4 {
		t.Fatalf("its answer: %s", out.drop)
	}
	s.Flags, s.Seq, s.Ack = "A", 50_001, 99_001
	if again := portOut(t, r.pass(vm4, framed(packettest.TCP(s)))); again != port {
		t.Errorf("the new connection goes out from port %d", again)
	}
	n := 0
	for f := range r.engine.Flows().Flows {
		if n++; f.State() != "established" || f.Established != 20*time.Minute {
			t.Errorf("%v is %s, %v", f.Key, f.State(), f.Established)
		}
	}
	if n != 1 {
		t.Errorf("%d flows", n)
	}
}

// A connection keeps its backend when it begins anew, whatever the load balancer would choose now: another
// one, which knows nothing of the connection, would answer a blind SYN.
func TestHostile13SYNOnEstablishedKeepsItsBackend(t *testing.T) {
	for _, front := range []string{balanced, floats} {
		t.Run(front, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
			s := spec{Src: world, Dst: front, DstPort: 80}
			send := func(sport uint16, flags string, seq, ack uint32) frameOut {
				s.SrcPort, s.Flags, s.Seq, s.Ack = sport, flags, seq, ack
				return r.pass(internet, framed(packettest.TCP(s)))
			}
			answer := func(sport uint16, at int, flags string, seq, ack uint32) frameOut {
				a := spec{Src: map[int]string{vm3: addr3, vm4: addr4}[at], Dst: world, SrcPort: 8080, DstPort: sport, Flags: flags, Seq: seq, Ack: ack}
				if front == floats {
					a.Src, a.SrcPort = front, 80
				}
				return r.pass(at, framed(packettest.TCP(a)))
			}
			const ports = 20
			at := map[uint16]int{}
			for sport := uint16(1); sport <= ports; sport++ {
				at[sport] = send(sport, "S", 1000, 0).at
				answer(sport, at[sport], "SA", 77000, 1001)
				send(sport, "A", 1001, 77001)
			}
			p := translatedFigure()
			addBackend(p, vm2)
			swap(t, r, p)
			elsewhere := 0
			for sport := uint16(1); sport <= ports; sport++ {
				for more := range uint16(3) { // so many that chance alone spares none
					if send(1000+3*sport+more, "S", 1000, 0).at == vm2 {
						elsewhere++
					}
				}
				if got := send(sport, "S", 0xdeadbeef, 0); got.at != at[sport] {
					t.Errorf("a blind SYN came out at %d (%s), its connection is at %d", got.at, got.drop, at[sport])
				}
				if got := answer(sport, at[sport], "PA", 77001, 1001); got.at != internet {
					t.Errorf("the connection's next segment: %s", got.drop)
				}
				if sport%2 == 0 { // the client has begun anew, and its backend too
					send(sport, "S", 500_000, 0)
					answer(sport, at[sport], "SA", 900_000, 500_001)
				}
			}
			if elsewhere == 0 {
				t.Fatal("no connection is led elsewhere")
			}
			if s := r.engine.Flows().Stats(); s.Ended[conntrack.EndRestarted] != ports {
				t.Errorf("%+v", s)
			}
		})
	}
}

// addBackend puts a VM before the load balancer's other backends.
func addBackend(p *policy.Set, vm int) {
	pool, nic := p.LoadBalancers[0].Pools[0], p.NetworkInterfaces[vm]
	pool.Backends = append([]policy.Backend{{NetworkInterface: nic, VirtualNetwork: p.VirtualNetworks[0], Address: nic.IPConfigurations[0].Address}}, pool.Backends...)
}

// Where the connection's backend is closed by now, a new one begins no more.
func TestHostile13SYNOnEstablishedWhoseBackendIsClosed(t *testing.T) {
	for client, at := range map[string]int{world: internet, addr1: vm1} {
		r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
		first := func(sport uint16, seq uint32) []byte {
			return packettest.TCP(spec{Src: client, Dst: balanced, SrcPort: sport, DstPort: 80, Flags: "S", Seq: seq})
		}
		var closed []uint16
		for sport := uint16(1); sport <= 40; sport++ {
			if out := r.pass(at, framed(first(sport, 1000))); out.at == vm4 {
				seen := decoded(t, out.frame)
				r.pass(vm4, framed(packettest.TCP(spec{Src: addr4, Dst: seen.Src.String(), SrcPort: 8080, DstPort: sport, Flags: "SA", Seq: 77000, Ack: 1001})))
				closed = append(closed, sport)
			}
		}
		p := translatedFigure()
		p.VirtualNetworks[0].Subnets[2].NetworkSecurityGroup = nil
		addBackend(p, vm2) // so that some of them would be led there
		swap(t, r, p)
		for _, sport := range closed {
			r.refuses(at, first(sport, 500_000), packet.DropClosed)
		}
	}
}

func TestHostile13SYNOnEstablishedWhereAnswersGoAnotherWay(t *testing.T) {
	allow := hubWorld{left: byFW("10.2.0.0/24")}
	s := func(flags string, seq, ack uint32) []byte {
		return packettest.TCP(spec{Src: addrA, Dst: addrB, SrcPort: 40000, DstPort: 80, Flags: flags, Seq: seq, Ack: ack})
	}
	answer := func(flags string, seq, ack uint32) []byte {
		return packettest.TCP(spec{Src: addrB, Dst: addrA, SrcPort: 80, DstPort: 40000, Flags: flags, Seq: seq, Ack: ack})
	}
	open := func(a, b uint32) []step {
		return []step{{atA, s("S", a, 0), atFW, ""}, {atFW, s("S", a, 0), atB, ""}, {atB, answer("SA", b, a+1), atA, ""},
			{atA, s("A", a+1, b+1), atFW, ""}, {atFW, s("A", a+1, b+1), atB, ""}}
	}
	r := hubRig(t, allow)
	r.play(open(1000, 7000))
	r.play(open(500_000, 900_000))
	denied := hubWorld{left: allow.left, b: []ruleset.Rule{anyRule("d", 100, ruleset.Inbound, ruleset.Deny), anyRule("o", 100, ruleset.Outbound, ruleset.Deny)}}
	swap(t, r, denied.policy())
	r.play([]step{{atA, s("A", 500_001, 900_001), atFW, ""}, {atFW, s("A", 500_001, 900_001), atB, ""}, // which was established lives on
		{atFW, s("S", 42, 0), -1, "rule_deny"}, {atB, answer("A", 900_001, 500_001), atA, ""}})
}

// Nobody has answered: with the rules the permission ends.
func TestHostile13SYNOnEstablishedNeverAnswered(t *testing.T) {
	for name, build := range map[string]func(spec) []byte{"TCP": packettest.TCP, "UDP": packettest.UDP} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, figure([]ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}, nil), conntrack.Options{Max: 1024})
			s := toVM2
			s.Flags = "S"
			if to, drop := r.send(internet, build(s)); to != vm2 {
				t.Fatal(drop)
			}
			reloadTo(t, r, denyIn)
			for range 20 {
				r.clock += 29 * time.Second
				if to, drop := r.send(internet, build(s)); to >= 0 || drop != packet.DropRule.String() {
					t.Fatalf("came out at %d (%s)", to, drop)
				}
			}
		})
	}
}

// One FIN ends one direction. The other one goes on for as long as in an open connection.
func TestReport05HalfClose(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		pause   time.Duration
		alive   bool
	}{
		{"59 seconds", 0, 59 * time.Second, true},
		{"61 seconds", 0, 61 * time.Second, true},
		{"short of the timeout", 0, 239 * time.Second, true},
		{"the timeout", 0, 240 * time.Second, false},
		{"a longer timeout of the network", 30 * time.Minute, 29 * time.Minute, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := figure(inbound(), inbound())
			p.VirtualNetworks[0].FlowTimeout = tt.timeout
			r := newRig(t, p, conntrack.Options{Max: 1024})
			c := dial(r, internet, vm2, toVM2)
			c.client("PA", 1001, 77001, 7)
			c.client("FA", 1008, 77001, 0)
			c.server("A", 77001, 1009, 0)
			for range 3 {
				r.clock += tt.pause
				at, drop := c.try(vm2, c.back, "PA", 77001, 1009, 6)
				if (at == internet) != tt.alive {
					t.Fatalf("the answer came out at %d (%s)", at, drop)
				}
			}
		})
	}
}

func TestReport05HalfCloseThroughANATGateway(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	s := spec{Src: addr4, Dst: world, SrcPort: 20000, DstPort: 443, Flags: "S", Seq: 1000}
	port := portOut(t, r.pass(vm4, framed(packettest.TCP(s))))
	answer := spec{Src: world, Dst: shared, SrcPort: 443, DstPort: port, Flags: "SA", Seq: 77000, Ack: 1001}
	r.pass(internet, framed(packettest.TCP(answer)))
	s.Flags, s.Seq, s.Ack = "FA", 1001, 77001
	r.pass(vm4, framed(packettest.TCP(s)))
	answer.Flags, answer.Seq, answer.Ack = "A", 77001, 1002
	r.pass(internet, framed(packettest.TCP(answer)))
	answer.Flags, answer.Payload = "PA", 6
	for _, pause := range []time.Duration{70 * time.Second, 19 * time.Minute} {
		r.clock += pause
		if out := r.pass(internet, framed(packettest.TCP(answer))); out.at != vm4 {
			t.Errorf("after %v: %s", pause, out.drop)
		}
	}
	r.clock += 20 * time.Minute
	if out := r.pass(internet, framed(packettest.TCP(answer))); out.at >= 0 {
		t.Error("the answer passed after the gateway's timeout")
	}
}

// A reset far from the window passes. The connection goes on, and the server's late answer arrives.
func TestReport10BlindRST(t *testing.T) {
	for _, pause := range []time.Duration{4 * time.Second, 18 * time.Second, 200 * time.Second} {
		r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
		c := dial(r, internet, vm2, toVM2)
		c.client("PA", 1001, 77001, 1)
		c.server("A", 77001, 1002, 0)
		c.client("R", 1002+777_777_777, 0, 0)
		c.server("A", 77001, 1002, 0)
		r.clock += pause
		c.server("PA", 77001, 1002, 6)
		c.client("A", 1002, 77007, 0)
		r.clock += pause
		c.server("PA", 77007, 1002, 6)
		if got := c.state(); got != "established" {
			t.Errorf("%v: the connection is %s", pause, got)
		}
	}
}

// What a denial has ended does not begin again from the side that it shut out, nor for it.
func TestHostile05ADenialLeavesNothingBehind(t *testing.T) {
	policyOf := func(rules ...ruleset.Rule) *policy.Set {
		p := figure(rules, nil)
		p.NetworkSecurityGroups[0].FlushConnection = true
		return p
	}
	allowIn := anyRule("in", 100, ruleset.Inbound, ruleset.Allow)
	udp := func(s spec) []byte { s.Flags = ""; return packettest.UDP(s) }
	for name, build := range map[string]func(spec) []byte{"TCP": packettest.TCP, "UDP": udp} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, policyOf(allowIn), conntrack.Options{Max: 1024})
			there, answer := toVM2, back(toVM2)
			there.Flags, answer.Flags = "S", "SA"
			r.play([]step{{internet, build(there), vm2, ""}, {vm2, build(answer), internet, ""}})
			there.Flags, answer.Flags = "A", "PA"
			r.play([]step{{internet, build(there), vm2, ""}, {vm2, build(answer), internet, ""}})
			swap(t, r, policyOf(denyIn))
			r.play([]step{{internet, build(there), -1, "rule_deny"}})
			for range 100 { // the VM goes on; its rules let it begin what it likes
				r.clock += 20 * time.Second
				r.play([]step{{vm2, build(answer), -1, "flow_cut"}, {internet, build(there), -1, "rule_deny"}})
			}
			if n := r.engine.Flows().Stats().Ended[conntrack.EndDenied]; n != 1 {
				t.Errorf("%d flows ended by a denial", n)
			}
			if name == "TCP" { // a connection of its own
				answer.Flags = "S"
				r.play([]step{{vm2, build(answer), internet, ""}})
			} else { // once the flow would have been over
				r.clock += 4 * time.Minute
				r.play([]step{{vm2, build(answer), internet, ""}})
			}
		})
	}
	t.Run("the rules allow it again", func(t *testing.T) {
		r := newRig(t, policyOf(allowIn), conntrack.Options{Max: 1024})
		c := dial(r, internet, vm2, toVM2)
		swap(t, r, policyOf(denyIn))
		c.try(internet, c.there, "A", 1001, 77001, 0)
		swap(t, r, policyOf(allowIn))
		c.client("A", 1001, 77001, 0)
		c.server("A", 77001, 1001, 0)
		if got := c.state(); got != "established" {
			t.Errorf("picked up again it is %s", got)
		}
	})
}

func TestHostile13SYNOnEstablishedNeverAnsweredWhereAnswersGoAnotherWay(t *testing.T) {
	allow := hubWorld{left: byFW("10.2.0.0/24")}
	r := hubRig(t, allow)
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}})
	denied := hubWorld{left: allow.left, b: []ruleset.Rule{anyRule("d", 100, ruleset.Inbound, ruleset.Deny)}}
	swap(t, r, denied.policy())
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), -1, "rule_deny"}, {atFW, ab("S"), -1, "rule_deny"}})
}

func TestHostile05ADenialLeavesNothingBehindWhereAnswersGoAnotherWay(t *testing.T) {
	world := func(rules ...ruleset.Rule) *policy.Set {
		return hubWorld{left: byFW("10.2.0.0/24"), a: append(rules, anyRule("in", 200, ruleset.Inbound, ruleset.Allow)), edit: func(s *policy.Set) {
			for _, g := range s.NetworkSecurityGroups {
				g.FlushConnection = true
			}
		}}.policy()
	}
	r := newRigWith(t, world(), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64}})
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}, {atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}})
	swap(t, r, world(anyRule("out", 100, ruleset.Outbound, ruleset.Deny)))
	r.play([]step{{atA, ab("A"), -1, "rule_deny"}, {atB, ba("A"), -1, "flow_cut"}, {atA, ab("A"), -1, "rule_deny"}})
}

func TestATraceSaysThatASegmentIsOutOfItsWindow(t *testing.T) {
	r := newRig(t, figure(inbound(), nil), conntrack.Options{Max: 1024})
	c := dial(r, internet, vm2, toVM2)
	sub := r.watch(watch.Options{}, "reason out_of_window")
	c.client("A", 1001, 77001, 0)
	c.client("R", 0xdeadbeef, 0, 0)
	c.client("A", 1001, 77001, 0)
	events := seen(t, sub)
	if len(events) != 1 || !events[0].OutOfWindow || events[0].Drop != packet.NotDropped || events[0].Packet.TCPFlags != packet.RST {
		t.Errorf("%+v", events)
	}
}
