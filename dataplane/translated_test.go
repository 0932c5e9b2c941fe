package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

const (
	public1   = "198.51.100.1" // VM1's own
	public2   = "198.51.100.2" // VM2's own
	balanced  = "198.51.100.5" // VM3 and VM4 are behind it
	floats    = "198.51.100.6" // the same, which get packets as they were sent
	shared    = "198.51.100.9" // of the NAT gateway of VM4's subnet
	router    = "203.0.113.1"  // on the way to world
	world2    = "203.0.113.11"
	public16  = "2001:db8:51::1"
	shared6   = "2001:db8:51::9"
	sharedLow = 1024
)

// translatedFigure is the figure with addresses that change; NSGs allow everything.
func translatedFigure() *policy.Set {
	all := func() []ruleset.Rule {
		return []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow), anyRule("out", 100, ruleset.Outbound, ruleset.Allow)}
	}
	return translating(dualStack(figure(all(), all())))
}

// translating gives the figure, with both families, the addresses above.
func translating(p *policy.Set) *policy.Set {
	public := func(name, address string) *policy.PublicIPAddress {
		a := &policy.PublicIPAddress{Name: name, ID: "/ip/" + name, SKU: policy.SKUStandard, Address: netip.MustParseAddr(address), IdleTimeout: 10 * time.Minute}
		p.PublicIPAddresses = append(p.PublicIPAddresses, a)
		return a
	}
	p.NetworkInterfaces[vm1].IPConfigurations[0].PublicIPAddress = public("ip1", public1)
	p.NetworkInterfaces[vm1].IPConfigurations[1].PublicIPAddress = public("ip16", public16)
	p.NetworkInterfaces[vm2].IPConfigurations[0].PublicIPAddress = public("ip2", public2)
	p.VirtualNetworks[0].Subnets[2].NetworkSecurityGroup = p.NetworkSecurityGroups[0] // or it would be closed
	p.VirtualNetworks[0].Subnets[2].NATGateway = &policy.NATGateway{Name: "nat", ID: "/nat/nat", IdleTimeout: 20 * time.Minute,
		Addresses: []*policy.PublicIPAddress{public("ip9", shared), public("ip96", shared6)}}
	pool := &policy.BackendPool{Name: "pool", ID: "/pool"}
	for _, i := range []int{vm3, vm4} {
		nic := p.NetworkInterfaces[i]
		pool.Backends = append(pool.Backends, policy.Backend{NetworkInterface: nic, VirtualNetwork: p.VirtualNetworks[0], Address: nic.IPConfigurations[0].Address})
	}
	lb := &policy.LoadBalancer{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Pools: []*policy.BackendPool{pool}}
	for _, f := range []struct {
		address  string
		floating bool
	}{{balanced, false}, {floats, true}} {
		ip := public("f"+f.address, f.address)
		front := &policy.Frontend{Name: f.address, ID: "/front/" + f.address, PublicIPAddress: ip, Address: ip.Address}
		lb.Frontends = append(lb.Frontends, front)
		for _, proto := range []policy.Transport{policy.TransportTCP, policy.TransportUDP} {
			r := &policy.LoadBalancingRule{Name: "r", Frontend: front, Pools: lb.Pools, Protocol: proto, FrontendPort: 80, BackendPort: 8080,
				FloatingIP: f.floating, DisableOutboundSNAT: true, TCPReset: true, IdleTimeout: 5 * time.Minute}
			if f.floating {
				r.BackendPort = 80
			}
			lb.Rules = append(lb.Rules, r)
		}
	}
	p.LoadBalancers = []*policy.LoadBalancer{lb}
	return p
}

// frameOut is what became of a packet: the frame that came out, where, or why it did not.
type frameOut struct {
	at    int
	frame []byte
	drop  string
}

// pass carries one frame.
func (r *rig) pass(from int, frame []byte) (out frameOut) {
	r.t.Helper()
	before := r.engine.Drops()
	if !r.devices[from].Inject(0, frame) {
		r.t.Fatal("memory device is full")
	}
	if err := r.engine.workers[0].carryBurst(from); err != nil {
		r.t.Fatal(err)
	}
	out.at = -1
	for i, d := range r.devices {
		d.Drain(0, func(frame []byte) {
			if out.at >= 0 {
				r.t.Errorf("came out at %d and %d", out.at, i)
			}
			out.at, out.frame = i, append([]byte(nil), frame...)
		})
	}
	for reason, n := range r.engine.Drops() {
		if n > before[reason] {
			out.drop = dropName(reason)
		}
	}
	return out
}

// becomes carries a packet and holds what came out against what was to.
func (r *rig) becomes(from int, p []byte, to int, want []byte) {
	r.t.Helper()
	got := r.pass(from, append(make([]byte, tun.HeaderLen), p...))
	if got.at != to {
		r.t.Fatalf("came out at %d (%s), want %d", got.at, got.drop, to)
	}
	if string(got.frame[tun.HeaderLen:]) != string(want) {
		r.t.Fatalf("came out as\n%x, want\n%x", got.frame[tun.HeaderLen:], want)
	}
}

// refuses carries a packet that must be dropped.
func (r *rig) refuses(from int, p []byte, why packet.Drop) {
	r.t.Helper()
	if got := r.pass(from, append(make([]byte, tun.HeaderLen), p...)); got.at >= 0 || got.drop != why.String() {
		r.t.Errorf("came out at %d, %q; want %s", got.at, got.drop, why)
	}
}

type spec = packettest.Spec

// with is a packet like s with other ends.
func with(s spec, src string, sport uint16, dst string, dport uint16) spec {
	s.Src, s.SrcPort, s.Dst, s.DstPort = src, sport, dst, dport
	return s
}

var transports = []struct {
	name string
	make func(spec) []byte
}{{"TCP", packettest.TCP}, {"UDP", packettest.UDP}}

func TestAPublicAddressIsTranslatedBothWays(t *testing.T) {
	for _, p := range transports {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			s := spec{Flags: "S", Payload: 33, Seq: 7}
			answer := spec{Flags: "SA", Payload: 11, Ack: 8}
			r.becomes(vm1, p.make(with(s, addr1, 40000, world, 80)), internet, p.make(with(s, public1, 40000, world, 80)))
			r.becomes(internet, p.make(with(answer, world, 80, public1, 40000)), vm1, p.make(with(answer, world, 80, addr1, 40000)))
			r.becomes(internet, p.make(with(s, world, 50000, public1, 80)), vm1, p.make(with(s, world, 50000, addr1, 80)))
			r.becomes(vm1, p.make(with(answer, addr1, 80, world, 50000)), internet, p.make(with(answer, public1, 80, world, 50000)))
		})
	}
}

// portOut is the source port of a packet that came out from shared.
func portOut(t *testing.T, out frameOut) uint16 {
	t.Helper()
	if out.at != internet {
		t.Fatalf("came out at %d (%s)", out.at, out.drop)
	}
	p := decoded(t, out.frame)
	if got := p.Src.String(); got != shared && got != shared6 {
		t.Fatalf("came out from %s", got)
	}
	return p.SrcPort
}

func decoded(t testing.TB, frame []byte) (p packet.Packet) {
	t.Helper()
	var decoder packet.Decoder
	if drop := decoder.Decode(frame[tun.HeaderLen:], 0, &p); drop != packet.NotDropped {
		t.Fatalf("%x: %s", frame, drop)
	}
	return p
}

func framed(p []byte) []byte { return append(make([]byte, tun.HeaderLen), p...) }

func TestANATGatewaySharesItsAddress(t *testing.T) {
	for _, p := range transports {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			s, answer := spec{Flags: "S", Payload: 20}, spec{Flags: "SA", Payload: 9}
			ports := map[uint16]uint16{}
			for sport := uint16(40000); sport < 40200; sport++ {
				first := p.make(with(s, addr4, sport, world, 80))
				port := portOut(t, r.pass(vm4, framed(first)))
				if _, taken := ports[port]; taken || port < sharedLow {
					t.Fatalf("port %d, taken %t", port, taken)
				}
				ports[port] = sport
				r.becomes(vm4, first, internet, p.make(with(s, shared, port, world, 80)))
			}
			for port, sport := range ports {
				r.becomes(internet, p.make(with(answer, world, 80, shared, port)), vm4, p.make(with(answer, world, 80, addr4, sport)))
			}
			r.refuses(internet, p.make(with(s, world2, 80, shared, 2000)), packet.DropNoFrontend)
		})
	}
}

func TestALoadBalancerKeepsTheClientsSource(t *testing.T) {
	for _, p := range transports {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			s, answer := spec{Flags: "S", Payload: 20}, spec{Flags: "SA", Payload: 9}
			took := map[int]int{}
			for sport := uint16(40000); sport < 40100; sport++ {
				first := p.make(with(s, world, sport, balanced, 80))
				at := r.pass(internet, framed(first)).at
				took[at]++
				backend := map[int]string{vm3: addr3, vm4: addr4}[at]
				r.becomes(internet, first, at, p.make(with(s, world, sport, backend, 8080)))
				r.becomes(at, p.make(with(answer, backend, 8080, world, sport)), internet, p.make(with(answer, balanced, 80, world, sport)))
			}
			if len(took) != 2 || took[vm3]+took[vm4] != 100 {
				t.Errorf("backends took %v", took)
			}
			r.refuses(internet, p.make(with(s, world, 1, balanced, 81)), packet.DropNoFrontend)
		})
	}
}

func TestAFloatingAddressIsDeliveredAsItIs(t *testing.T) {
	for _, p := range transports {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			s, answer := spec{Flags: "S", Payload: 20}, spec{Flags: "SA", Payload: 9}
			first := p.make(with(s, world, 40000, floats, 80))
			at := r.pass(internet, framed(first)).at
			r.becomes(internet, first, at, first)
			back := p.make(with(answer, floats, 80, world, 40000))
			r.becomes(at, back, internet, back)
			// Nothing but an answer has that address.
			r.refuses(at, p.make(with(s, floats, 81, world, 40000)), packet.DropSpoofed)
			r.refuses(vm1, back, packet.DropSpoofed)
			unreachable := packettest.ICMPError(spec{Src: floats, Dst: world, ICMPType: 3, ICMPCode: 3}, p.make(with(s, world, 1, floats, 80)))
			r.refuses(at, unreachable, packet.DropICMPNoFlow)
		})
	}
}

func TestAVirtualMachineReachesAnotherByItsPublicAddress(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
	s, answer := spec{Flags: "S"}, spec{Flags: "SA"}
	tcp := packettest.TCP
	r.becomes(vm1, tcp(with(s, addr1, 40000, public2, 80)), vm2, tcp(with(s, public1, 40000, addr2, 80)))
	r.becomes(vm2, tcp(with(answer, addr2, 80, public1, 40000)), vm1, tcp(with(answer, public2, 80, addr1, 40000)))
}
