package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// on is a rule for one address and one port, of the direction's far field.
func on(name string, priority int, d ruleset.Direction, a ruleset.Access, src, dst string, port uint16) ruleset.Rule {
	r := anyRule(name, priority, d, a)
	if src != "" {
		r.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(src), 32)}}
	}
	if dst != "" {
		r.Destination = ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(dst), 32)}}
	}
	if port != 0 {
		r.DestinationPorts = []ruleset.PortRange{{First: port, Last: port}}
	}
	return r
}

// underRules is translatedFigure with rules in place of NSG1's, at VM1, VM2 and VM4, and NSG2's, at VM1 and VM3.
func underRules(rules ...ruleset.Rule) *policy.Set {
	p := translatedFigure()
	p.NetworkSecurityGroups[0].Rules, p.NetworkSecurityGroups[1].Rules = rules, rules
	return p
}

func TestRulesSeeThePacketAsSentAndAsItArrives(t *testing.T) {
	in, out, allow := ruleset.Inbound, ruleset.Outbound, ruleset.Allow
	syn := func(src string, dst string, port uint16) []byte {
		return packettest.TCP(spec{Flags: "S", Src: src, Dst: dst, SrcPort: 40000, DstPort: port})
	}
	deny := anyRule("none", 4000, out, ruleset.Deny)
	for _, tt := range []struct {
		name  string
		rules []ruleset.Rule
		from  int
		frame []byte
		drop  string
	}{
		{"inbound by the private address", []ruleset.Rule{on("r", 100, in, allow, world, addr1, 80)}, internet, syn(world, public1, 80), ""},
		{"not inbound by the public address", []ruleset.Rule{on("r", 100, in, allow, world, public1, 80)}, internet, syn(world, public1, 80), "rule_deny"},
		{"outbound by the private source", []ruleset.Rule{on("r", 100, out, allow, addr1, world, 80), deny}, vm1, syn(addr1, world, 80), ""},
		{"not outbound by the public source", []ruleset.Rule{on("r", 100, out, allow, public1, world, 80), deny}, vm1, syn(addr1, world, 80), "rule_deny"},
		{"a gateway's packets outbound by the private source", []ruleset.Rule{on("r", 100, out, allow, addr4, world, 80), deny}, vm4, syn(addr4, world, 80), ""},
		{"not by the gateway's", []ruleset.Rule{on("r", 100, out, allow, shared, world, 80), deny}, vm4, syn(addr4, world, 80), "rule_deny"},
		{"balanced by the client and the backend's port", []ruleset.Rule{on("r", 100, in, allow, world, "", 8080)}, internet, syn(world, balanced, 80), ""},
		{"not by the frontend's port", []ruleset.Rule{on("r", 100, in, allow, world, "", 80)}, internet, syn(world, balanced, 80), "rule_deny"},
		{"floating by the frontend", []ruleset.Rule{on("r", 100, in, allow, world, floats, 80)}, internet, syn(world, floats, 80), ""},
		{"to a neighbour's public address outbound by it and inbound by both others", []ruleset.Rule{
			on("a", 100, out, allow, addr1, public2, 80), on("b", 101, in, allow, public1, addr2, 80), deny}, vm1, syn(addr1, public2, 80), ""},
		{"not inbound by the private source", []ruleset.Rule{
			on("a", 100, out, allow, addr1, public2, 80), on("b", 101, in, allow, addr1, addr2, 80), deny}, vm1, syn(addr1, public2, 80), "rule_deny"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, underRules(tt.rules...), conntrack.Options{Max: 1024})
			if got := r.pass(tt.from, framed(tt.frame)); got.drop != tt.drop || (got.at < 0) != (tt.drop != "") {
				t.Errorf("came out at %d, %q, want %q", got.at, got.drop, tt.drop)
			}
			hits := uint64(0)
			keys := r.engine.Registry().Keys()
			for i, c := range r.engine.Counters().Rules(len(keys)) {
				if keys[i].Rule != "none" {
					hits += c.Hits
				}
			}
			if hits == 0 && tt.drop == "" {
				t.Error("no rule counted")
			}
		})
	}
}

func TestAStandardAddressIsClosedWithoutAGroup(t *testing.T) {
	for _, sku := range []policy.SKU{policy.SKUStandard, policy.SKUBasic} {
		p := translatedFigure()
		p.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = nil
		p.PublicIPAddresses[2].SKU = sku // VM2's
		r := newRig(t, p, conntrack.Options{Max: 1024})
		s := spec{Flags: "S"}
		first := packettest.TCP(with(s, world, 1, public2, 80))
		if sku == policy.SKUBasic {
			r.becomes(internet, first, vm2, packettest.TCP(with(s, world, 1, addr2, 80)))
		} else {
			r.refuses(internet, first, packet.DropClosed)
		}
		r.refuses(internet, packettest.TCP(with(s, world, 2, addr2, 80)), packet.DropNoRoute)
		// What goes out is another matter.
		r.becomes(vm2, packettest.TCP(with(s, addr2, 3, world, 80)), internet, packettest.TCP(with(s, public2, 3, world, 80)))
	}
}

func TestAPortThatWasChosenIsForNoConnectionInMidStream(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	for _, flags := range []string{"A", "SA", "R", "FA"} {
		r.refuses(vm4, packettest.TCP(with(spec{Flags: flags}, addr4, 40000, world, 80)), packet.DropTCPNoSYN)
	}
	r.becomes(vm1, packettest.TCP(with(spec{Flags: "A"}, addr1, 40000, world, 80)), internet, packettest.TCP(with(spec{Flags: "A"}, public1, 40000, world, 80)))
}

func TestPortsRunOutForOneDestinationOnly(t *testing.T) {
	p := translatedFigure()
	p.VirtualNetworks[0].Subnets[2].NATGateway = nil
	pool := p.LoadBalancers[0].Pools[0]
	p.LoadBalancers[0].OutboundRules = []*policy.OutboundRule{{Name: "out", Frontends: p.LoadBalancers[0].Frontends[:1], Pool: pool,
		Protocol: policy.TransportAll, AllocatedPorts: 64, IdleTimeout: 4 * time.Minute}}
	r := newRig(t, p, conntrack.Options{Max: 4096})
	s := spec{}
	seen := map[uint16]bool{}
	for sport := uint16(1); sport <= 64; sport++ {
		out := r.pass(vm4, framed(packettest.UDP(with(s, addr4, sport, world, 53))))
		if out.at != internet {
			t.Fatalf("flow %d: %s", sport, out.drop)
		}
		seen[decoded(t, out.frame).SrcPort] = true
	}
	if len(seen) != 64 {
		t.Errorf("%d ports for 64 flows", len(seen))
	}
	for range 3 {
		r.refuses(vm4, packettest.UDP(with(s, addr4, 65, world, 53)), packet.DropSNATExhausted)
	}
	// Another destination, the other backend, and the next flow when one is over.
	for _, out := range []frameOut{
		r.pass(vm4, framed(packettest.UDP(with(s, addr4, 65, world2, 53)))),
		r.pass(vm4, framed(packettest.UDP(with(s, addr4, 65, world, 54)))),
		r.pass(vm3, framed(packettest.UDP(with(s, addr3, 65, world, 53)))),
	} {
		if out.at != internet {
			t.Errorf("refused: %s", out.drop)
		}
	}
	k := conntrack.Key{Tuple: decoded(t, framed(packettest.UDP(with(s, addr4, 7, world, 53)))).Tuple, Zone: vm4}
	r.engine.Flows().End(&k)
	if out := r.pass(vm4, framed(packettest.UDP(with(s, addr4, 65, world, 53)))); out.at != internet {
		t.Errorf("refused when a port is free: %s", out.drop)
	}
}

func TestTheTimeoutIsTheTranslations(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	open := func(from, to int, src string, sport uint16, dst string, dport uint16) {
		s := spec{Flags: "S"}
		out := r.pass(from, framed(packettest.TCP(with(s, src, sport, dst, dport))))
		p := decoded(t, out.frame)
		s.Flags = "SA"
		r.pass(out.at, framed(packettest.TCP(with(s, p.Dst.String(), p.DstPort, p.Src.String(), p.SrcPort))))
		s.Flags = "A"
		if out = r.pass(from, framed(packettest.TCP(with(s, src, sport, dst, dport)))); out.at != to && to >= 0 {
			t.Fatalf("came out at %d, %s", out.at, out.drop)
		}
	}
	open(vm1, internet, addr1, 40000, world, 80)
	open(vm4, internet, addr4, 40000, world, 80)
	open(internet, -1, world, 40000, balanced, 80)
	open(vm1, vm4, addr1, 40000, addr4, 80)
	r.pass(vm4, framed(packettest.UDP(with(spec{}, addr4, 40000, world, 53))))
	r.engine.Flows().Expire(r.engine.Now(), 0)
	want := map[string]time.Duration{public1: 10 * time.Minute, shared: 20 * time.Minute, world: 5 * time.Minute, addr1: 4 * time.Minute}
	n := 0
	for f := range r.engine.Flows().Flows {
		n++
		w := want[f.ReplyKey.Dst.String()]
		if f.Key.Proto == packet.ProtoUDP {
			w = topology.IdleUDP
		}
		if f.ExpiresIn != w {
			t.Errorf("%v expires in %v, want %v", f.Key, f.ExpiresIn, w)
		}
	}
	if n != 5 {
		t.Errorf("%d flows", n)
	}
}

func TestAReloadGivesTranslatedFlowsTheirTimeout(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	r.pass(vm4, framed(packettest.TCP(with(spec{Flags: "S"}, addr4, 40000, world, 80))))
	r.pass(internet, framed(packettest.TCP(with(spec{Flags: "S"}, world, 40000, balanced, 80))))
	p := translatedFigure()
	p.VirtualNetworks[0].Subnets[2].NATGateway.IdleTimeout = 40 * time.Minute
	for _, rule := range p.LoadBalancers[0].Rules {
		rule.IdleTimeout = 6 * time.Minute
	}
	swap(t, r, p)
	want := map[string]time.Duration{addr4: 40 * time.Minute, world: 6 * time.Minute}
	for f := range r.engine.Flows().Flows {
		if f.Established != want[f.Key.Src.String()] {
			t.Errorf("%v has %v, want %v", f.Key, f.Established, want[f.Key.Src.String()])
		}
		delete(want, f.Key.Src.String())
	}
	if len(want) > 0 {
		t.Errorf("no flow from %v", want)
	}
}

func TestASilentConnectionIsResetAtBothEnds(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	r.engine.workers[0].flows.Park()
	client := func(flags string, seq, ack uint32, n int) []byte {
		return packettest.TCP(with(spec{Flags: flags, Seq: seq, Ack: ack, Payload: n}, world, 40000, balanced, 80))
	}
	out := r.pass(internet, framed(client("S", 99, 0, 0)))
	backend := map[int]string{vm3: addr3, vm4: addr4}[out.at]
	server := func(flags string, seq, ack uint32, n int) []byte {
		return packettest.TCP(with(spec{Flags: flags, Seq: seq, Ack: ack, Payload: n}, backend, 8080, world, 40000))
	}
	r.pass(out.at, framed(server("SA", 499, 100, 0)))
	r.pass(internet, framed(client("A", 100, 500, 0)))
	r.pass(internet, framed(client("A", 100, 500, 50)))
	r.pass(out.at, framed(server("A", 500, 150, 20)))
	r.pass(internet, framed(client("A", 150, 520, 0)))
	r.clock += 5*time.Minute - conntrack.TickLength
	r.engine.Flows().Expire(r.engine.Now(), 1024)
	r.engine.workers[0].sendResets()
	if n := r.devices[internet].Drain(0, nil) + r.devices[out.at].Drain(0, nil); n > 0 {
		t.Fatalf("%d packets before the timeout", n)
	}
	r.clock += conntrack.TickLength
	r.engine.Flows().Expire(r.engine.Now(), 1024)
	r.engine.workers[0].sendResets()
	got := map[int][]byte{}
	for i, d := range r.devices {
		d.Drain(0, func(frame []byte) { got[i] = append([]byte(nil), frame[tun.HeaderLen:]...) })
	}
	for at, want := range map[int]spec{
		internet: with(spec{Seq: 520, Ack: 150, Flags: "RA"}, balanced, 80, world, 40000),
		out.at:   with(spec{Seq: 150, Ack: 520, Flags: "RA"}, world, 40000, backend, 8080),
	} {
		p := decoded(t, framed(got[at]))
		whole := packettest.TCP(want)
		if p.Tuple != decoded(t, framed(whole)).Tuple || p.TCPFlags != packet.RST|packet.ACK || string(got[at][24:32]) != string(whole[24:32]) {
			t.Errorf("at %d came out\n%x, want\n%x", at, got[at], whole)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d ends were reset", len(got))
	}
}

func TestAReloadKeepsTheFlowsWhoseTranslationStays(t *testing.T) {
	tcp := packettest.TCP
	for _, tt := range []struct {
		name                             string
		edit                             func(*policy.Set)
		own, gateway, balanced, floating bool // what stays
	}{
		{"the same policy", func(*policy.Set) {}, true, true, true, true},
		{"another public address", func(p *policy.Set) { p.PublicIPAddresses[0].Address = netip.MustParseAddr("198.51.100.77") }, false, true, true, true},
		{"no public address", func(p *policy.Set) { p.NetworkInterfaces[vm1].IPConfigurations[0].PublicIPAddress = nil }, false, true, true, true},
		{"no gateway", func(p *policy.Set) { p.VirtualNetworks[0].Subnets[2].NATGateway = nil }, true, false, true, true},
		{"one address more at the gateway", func(p *policy.Set) {
			g := p.VirtualNetworks[0].Subnets[2].NATGateway
			g.Addresses = append([]*policy.PublicIPAddress{{Name: "more", ID: "/ip/more", SKU: policy.SKUStandard, Address: netip.MustParseAddr("198.51.100.78")}}, g.Addresses...)
		}, true, true, true, true},
		{"no load balancer", func(p *policy.Set) { p.LoadBalancers = nil }, true, true, false, false},
		{"another backend port", func(p *policy.Set) { p.LoadBalancers[0].Rules[0].BackendPort = 8081 }, true, true, false, true},
		{"no floating address", func(p *policy.Set) {
			for _, r := range p.LoadBalancers[0].Rules {
				r.FloatingIP = false
			}
		}, true, true, true, false},
		{"a backend that the hash leads elsewhere", func(p *policy.Set) {
			pool := p.LoadBalancers[0].Pools[0]
			nic := p.NetworkInterfaces[vm2]
			pool.Backends = append([]policy.Backend{{NetworkInterface: nic, VirtualNetwork: p.VirtualNetworks[0], Address: nic.IPConfigurations[0].Address}}, pool.Backends...)
		}, true, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
			s := spec{Flags: "S"}
			var sent []frameOut
			for sport := uint16(1); sport <= 8; sport++ { // some of them on each backend
				for _, p := range []frameOut{
					{at: vm1, frame: tcp(with(s, addr1, sport, world, 80))}, {at: vm4, frame: tcp(with(s, addr4, sport, world, 80))},
					{at: internet, frame: tcp(with(s, world, sport, balanced, 80))}, {at: internet, frame: tcp(with(s, world, sport, floats, 80))},
				} {
					if out := r.pass(p.at, framed(p.frame)); out.at < 0 {
						t.Fatalf("refused: %s", out.drop)
					}
					sent = append(sent, p)
				}
			}
			p := translatedFigure()
			tt.edit(p)
			swap(t, r, p)
			left := map[packet.Tuple]bool{}
			for f := range r.engine.Flows().Flows {
				left[f.Key.Tuple] = true
			}
			for i, p := range sent {
				want := []bool{tt.own, tt.gateway, tt.balanced, tt.floating}[i%4]
				if k := decoded(t, framed(p.frame)).Tuple; left[k] != want {
					t.Errorf("%v stays: %t", k, left[k])
				}
			}
		})
	}
}

func TestAFlowThatWasNotTranslatedEndsWhenThePolicyTranslatesIt(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	for _, s := range []spec{with(spec{Flags: "S"}, addr1, 1, world, 80), with(spec{Flags: "S"}, addr3, 1, world, 80), with(spec{Flags: "S"}, addr1, 2, addr4, 80)} {
		r.send(map[string]int{addr1: vm1, addr3: vm3}[s.Src], packettest.TCP(s))
	}
	p := translatedFigure()
	p.LoadBalancers = nil
	swap(t, r, p)
	left := 0
	for f := range r.engine.Flows().Flows {
		if left++; f.Key.SrcPort == 1 && f.Key.Src.String() == addr1 {
			t.Errorf("%v is left", f.Key)
		}
	}
	if left != 2 {
		t.Errorf("%d flows are left", left)
	}
}

func TestFlushConnectionJudgesTranslatedFlowsAgain(t *testing.T) {
	in := func(access ruleset.Access, flush bool) *policy.Set {
		p := underRules(on("r", 100, ruleset.Inbound, access, world, "", 8080), on("f", 101, ruleset.Inbound, access, world, floats, 80))
		for _, g := range p.NetworkSecurityGroups {
			g.FlushConnection = flush
		}
		return p
	}
	s := spec{Flags: "S"}
	for _, dst := range []string{balanced, floats} {
		first := packettest.TCP(with(s, world, 40000, dst, 80))
		r := newRig(t, in(ruleset.Allow, true), conntrack.Options{Max: 1024})
		at := r.pass(internet, framed(first)).at
		changed := in(ruleset.Allow, true)
		for _, g := range changed.NetworkSecurityGroups {
			g.Rules = append(g.Rules, anyRule("more", 300, ruleset.Inbound, ruleset.Deny))
		}
		swap(t, r, changed)
		if again := r.pass(internet, framed(first)); again.at != at {
			t.Fatalf("to %s: judged again it came out at %d, %s", dst, again.at, again.drop)
		}
		swap(t, r, in(ruleset.Deny, true))
		r.refuses(internet, first, packet.DropRule)
		if n := r.engine.Flows().Stats().Ended[conntrack.EndDenied]; n != 1 {
			t.Errorf("to %s: %d flows ended", dst, n)
		}
	}
}

// VM A's routes send everything to an appliance: answers to what came by its public address too, and
// nobody there could translate them back.
func TestWhatComesByAnAddressWhoseAnswersRoutesTakeElsewhereIsDropped(t *testing.T) {
	h := hubWorld{left: byFW("0.0.0.0/0"), a: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}, fw: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}}
	h.edit = func(p *policy.Set) {
		for i, nic := range p.NetworkInterfaces[:3] {
			a := &policy.PublicIPAddress{Name: nic.Name, ID: "/ip/" + nic.Name, SKU: policy.SKUStandard, Address: netip.MustParseAddr([]string{public1, public2, shared}[i])}
			p.PublicIPAddresses = append(p.PublicIPAddresses, a)
			nic.IPConfigurations[0].PublicIPAddress = a
		}
	}
	r := hubRig(t, h)
	s := spec{Flags: "S"}
	r.refuses(atOut, packettest.TCP(with(s, world, 1, public1, 80)), packet.DropAsymmetric)
	v, err := ask.Verify(r.engine.Snapshot(), &azure.Flow{Direction: ruleset.Inbound, Protocol: packet.ProtoTCP, Local: netip.MustParseAddr(public1), LocalPort: 80,
		Remote: netip.MustParseAddr(world), RemotePort: 1}, true)
	if err != nil || v.Access != "Deny" || v.Reason != "asymmetricRoute" {
		t.Errorf("verify --path: %+v, %v; want Deny, asymmetricRoute", v, err)
	}
	// What A sends out goes to the appliance as it is, and from there too: it is not the appliance's own.
	out := packettest.TCP(with(s, addrA, 1, world, 80))
	r.becomes(atA, out, atFW, out)
	r.becomes(atFW, out, atOut, out)
	// Where no route is in the way the flow is whole.
	r.becomes(atFW, packettest.TCP(with(s, addrFW, 1, world, 80)), atOut, packettest.TCP(with(s, shared, 1, world, 80)))
	s.Flags = "SA"
	r.becomes(atOut, packettest.TCP(with(s, world, 80, shared, 1)), atFW, packettest.TCP(with(s, world, 80, addrFW, 1)))
}

// What answers a sender behind a NAT gateway is sent to the gateway's address, not to the sender's: it
// was the way to the sender's own address that was asked for.
func TestAnswersGoToTheAddressThatAGatewayLends(t *testing.T) {
	const gateway = "198.51.100.9"
	world := func(left []policy.Route, peers bool) *rig {
		h := hubWorld{left: left, a: []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}}
		h.edit = func(p *policy.Set) {
			for _, a := range []string{public1, gateway} {
				p.PublicIPAddresses = append(p.PublicIPAddresses, &policy.PublicIPAddress{Name: a, ID: "/ip/" + a, SKU: policy.SKUStandard, Address: netip.MustParseAddr(a)})
			}
			p.NetworkInterfaces[0].IPConfigurations[0].PublicIPAddress = p.PublicIPAddresses[0]
			p.VirtualNetworks[2].Subnets[0].NATGateway = &policy.NATGateway{Name: "nat", ID: "/nat/nat", Addresses: p.PublicIPAddresses[1:]}
			if !peers {
				p.VirtualNetworks[1].Peerings, p.VirtualNetworks[2].Peerings = p.VirtualNetworks[1].Peerings[:1], p.VirtualNetworks[2].Peerings[:1]
			}
		}
		return hubRig(t, h)
	}
	syn := packettest.TCP(spec{Flags: "S", Src: addrB, SrcPort: 1, Dst: public1, DstPort: 80})
	if out := world(byFW("172.31.0.0/16"), false).pass(atB, framed(syn)); out.at != atA {
		t.Errorf("a stranger by its gateway: came out at %d, %s", out.at, out.drop)
	}
	world(byFW("0.0.0.0/0"), true).refuses(atB, syn, packet.DropAsymmetric)
}
