package worlds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// tuple is a flow's first packet and the attachment that sends it.
type tuple struct {
	From             int // attachment
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16 // 0 without ports
	Proto            uint8
}

func (t *tuple) String() string {
	return fmt.Sprintf("attachment %d: %s %s:%d > %s:%d", t.From, packet.ProtocolName(t.Proto), t.Src, t.SrcPort, t.Dst, t.DstPort)
}

func (t *tuple) hasPorts() bool { return t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP }

// packet is the first packet: of TCP a SYN, of ICMP an echo request.
func (t *tuple) packet() []byte {
	spec := packettest.Spec{Src: t.Src.String(), Dst: t.Dst.String(), SrcPort: t.SrcPort, DstPort: t.DstPort, Payload: 8}
	switch t.Proto {
	case packet.ProtoTCP:
		spec.Flags, spec.Payload = "S", 0
		return packettest.TCP(spec)
	case packet.ProtoUDP:
		return packettest.UDP(spec)
	case packet.ProtoICMP:
		spec.ICMPType = packet.ICMPv4EchoRequest
		return packettest.ICMP(spec)
	}
	return packettest.Raw(spec, t.Proto)
}

// answer is a packet of the tuple that answers p: of TCP a SYN with ACK, of ICMP an echo reply.
func (t *tuple) answer(p *packet.Packet) []byte {
	spec := packettest.Spec{Src: t.Src.String(), Dst: t.Dst.String(), SrcPort: t.SrcPort, DstPort: t.DstPort, Payload: 8}
	var b []byte
	switch t.Proto {
	case packet.ProtoTCP:
		spec.Flags, spec.Payload, spec.Ack = "SA", 0, p.Seq+1
		b = packettest.TCP(spec)
	case packet.ProtoUDP:
		b = packettest.UDP(spec)
	case packet.ProtoICMP:
		spec.ICMPType, spec.ICMPID = packet.ICMPv4EchoReply, p.SrcPort
		b = packettest.ICMP(spec)
	default:
		b = packettest.Raw(spec, t.Proto)
	}
	return append(make([]byte, tun.HeaderLen), b...)
}

// frame is the packet behind a virtio-net header that asks for nothing.
func (t *tuple) frame() []byte { return append(make([]byte, tun.HeaderLen), t.packet()...) }

// traffic makes the tuples of a world.
type traffic struct {
	*rand.Rand
	b            *built
	destinations []netip.Addr     // that somebody of the world has
	services     []netip.AddrPort // where a load balancer's rule, the platform or a mail server, waits for packets
	internal     []netip.AddrPort // those of internal load balancers
}

// interesting are addresses that nobody, the outside or the platform has.
var interesting = []string{"198.51.100.7", "198.51.100.8", "8.8.8.8", "192.168.7.7", "172.16.5.5", "10.77.0.1", "20.77.0.1", "198.18.7.7", "10.0.9.9", "10.1.9.9", "10.0.0.77", "10.1.1.77", "10.0.0.255",
	"168.63.129.16", "169.254.169.254", "20.118.99.224", "203.0.113.99", "10.0.255.4"}

func newTraffic(r *rand.Rand, b *built) *traffic {
	t := &traffic{Rand: r, b: b}
	for _, service := range []string{"168.63.129.16:53", "168.63.129.16:80", "169.254.169.254:80", "20.118.99.224:1688", "198.51.100.7:25", "8.8.8.8:25"} {
		t.services = append(t.services, netip.MustParseAddrPort(service))
	}
	for _, n := range b.policy.NetworkInterfaces {
		for i := range n.IPConfigurations {
			t.destinations = append(t.destinations, n.IPConfigurations[i].Address)
		}
	}
	for _, p := range b.policy.PublicIPAddresses {
		if p.Address.IsValid() {
			t.destinations = append(t.destinations, p.Address)
		}
	}
	for _, p := range b.policy.PublicIPPrefixes {
		t.destinations = append(t.destinations, p.Prefix.Addr())
	}
	wait := func(f *policy.Frontend, port uint16) {
		if f.Address.IsValid() {
			t.services = append(t.services, netip.AddrPortFrom(f.Address, port))
		}
		if f.Subnet != nil {
			t.internal = append(t.internal, netip.AddrPortFrom(f.Address, port))
		}
	}
	for _, lb := range b.policy.LoadBalancers {
		for _, f := range lb.Frontends {
			if f.Address.IsValid() {
				t.destinations = append(t.destinations, f.Address)
			}
		}
		for range 3 {
			for _, rule := range lb.Rules {
				wait(rule.Frontend, rule.FrontendPort)
			}
			for _, rule := range lb.NATRules {
				wait(rule.Frontend, rule.First+uint16(r.IntN(3)))
			}
		}
	}
	return t
}

// destination is mostly an address of the world.
func (t *traffic) destination() netip.Addr {
	if t.IntN(4) == 0 {
		return netip.MustParseAddr(interesting[t.IntN(len(interesting))])
	}
	return t.destinations[t.IntN(len(t.destinations))]
}

// ports are at the edges of rules, and those of services.
var ports = []uint16{22, 25, 25, 25, 53, 67, 80, 80, 443, 443, 80, 443, 1001, 999, 1000, 1001, 1010, 1011, 1688, 1999, 2000, 2001, 2009, 2010, 8037, 8080, 8081, 32526}

func (t *traffic) next() tuple {
	from := t.IntN(len(t.b.snapshot.Attachments))
	k := tuple{From: from, Src: t.source(t.b.snapshot.Attachments[from]), Dst: t.destination(),
		SrcPort: uint16(1 + t.IntN(65535)), DstPort: ports[t.IntN(len(ports))],
		Proto: []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP}[t.IntN(7)]}
	if k.Src == k.Dst && t.IntN(4) > 0 {
		k.Dst = t.destination()
	}
	switch {
	case t.IntN(6) == 0:
		k.SrcPort = ports[t.IntN(len(ports))]
	case t.IntN(8) == 0:
		k.DstPort = uint16(t.IntN(65536))
	}
	waits := func(list []netip.AddrPort) {
		service := list[t.IntN(len(list))]
		k.Dst, k.DstPort = service.Addr(), service.Port()
	}
	switch {
	case t.b.Attachments[from].Gateway != "" && len(t.internal) > 0 && t.IntN(3) == 0:
		waits(t.internal)
	case t.IntN(4) == 0:
		waits(t.services)
	}
	if !k.hasPorts() {
		k.SrcPort, k.DstPort = 0, 0 // a question does not say the identifier of an echo
	}
	return k
}

// source is an address that the attachment sends from.
func (t *traffic) source(a *topology.Attachment) netip.Addr {
	some := func(list ...string) netip.Addr { return netip.MustParseAddr(list[t.IntN(len(list))]) }
	switch a.Kind {
	case topology.NetworkInterface:
		if nic, _ := t.b.policy.NetworkInterface(t.b.Attachments[a.Index].NetworkInterface); nic.EnableIPForwarding && t.IntN(6) == 0 {
			return t.destination() // what somebody else has sent
		}
		return a.Addresses[t.IntN(len(a.Addresses))].Addr()
	case topology.Subnet:
		subnet, err := t.b.policy.Subnet(t.b.Attachments[a.Index].Subnet)
		if err != nil {
			panic(err) // the attachment has it
		}
		return t.inSubnet(a, subnet)
	case topology.Platform:
		return some("168.63.129.16", "169.254.169.254")
	case topology.Gateway:
		return some("192.168.7.7", "192.168.7.8", "192.168.200.1", "198.51.100.8")
	}
	if t.IntN(8) == 0 { // mostly what it cannot have
		return some("172.16.5.5", "10.99.0.1", "10.77.0.1", "20.77.0.1", "192.168.7.7", "198.18.7.7", "10.0.0.77", "240.0.0.1", "203.0.113.10", "168.63.129.16")
	}
	return some("198.51.100.7", "198.51.100.8", "8.8.8.8", "203.0.113.99", "198.51.100.7")
}

// inSubnet is a NIC's address that has no attachment of its own, or an address that no NIC has.
func (t *traffic) inSubnet(a *topology.Attachment, s *policy.Subnet) netip.Addr {
	list := []netip.Addr{s.Prefixes[0].Addr()}
	for range 77 {
		list[0] = list[0].Next()
	}
	for _, n := range t.b.policy.NetworkInterfaces {
		for i := range n.IPConfigurations {
			if e := t.b.snapshot.Endpoint(n, n.IPConfigurations[i].Address); e.Subnet == s && e.Attachment == a.Index {
				list = append(list, n.IPConfigurations[i].Address)
			}
		}
	}
	return list[t.IntN(len(list))]
}
