package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// family is the figure's hosts as one version of IP knows them.
type family struct {
	name                      string
	vm1, vm2, vm4, world, far string
	ping, pong, unreachable   uint8 // ICMP types
}

var families = []family{
	{"IPv4", addr1, addr2, addr4, world, "198.51.100.1", 8, 0, 3},
	{"IPv6", "fd00:0:0:1::4", "fd00:0:0:1::5", "fd00:0:0:3::4", "2001:db8::10", "2001:db8:1::1", 128, 129, 1},
}

// dualStack gives a policy of the figure IPv6 as well.
func dualStack(policy *policy.Set) *policy.Set {
	vnet := policy.VirtualNetworks[0]
	vnet.AddressSpace = append(vnet.AddressSpace, netip.MustParsePrefix("fd00::/48"))
	for i, s := range vnet.Subnets {
		s.Prefixes = append(s.Prefixes, netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", i+1)))
	}
	for _, nic := range policy.NetworkInterfaces {
		c := nic.IPConfigurations[0]
		host := c.Address.As4()
		c.Name = "ipconfig2"
		c.Address = netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%d::%d", host[2], host[3]))
		nic.IPConfigurations = append(nic.IPConfigurations, c)
	}
	return policy
}

// step is a packet and what becomes of it.
type step struct {
	from   int
	packet []byte
	to     int    // where it comes out; -1, or anything with a drop: nowhere
	drop   string // why not
}

func (r *rig) play(steps []step) {
	r.t.Helper()
	for i, s := range steps {
		want := s.to
		if s.drop != "" {
			want = -1
		}
		if to, drop := r.send(s.from, s.packet); to != want || drop != s.drop {
			r.t.Errorf("step %d: to %d, dropped under %q; want %d, %q", i, to, drop, want, s.drop)
		}
	}
}

// TestAttacks is a table of what is sent to get past a filter, each row named after
// its cause, over both versions of IP where both have it.
func TestAttacks(t *testing.T) {
	for _, f := range families {
		for _, a := range attacks(f) {
			t.Run(a.name+"/"+f.name, func(t *testing.T) {
				r := newRig(t, dualStack(figureOfTheSeed()), conntrack.Options{Max: 1024})
				r.play(a.steps)
			})
		}
	}
}

type attack struct {
	name  string
	steps []step
}

func attacks(f family) []attack {
	list := append(fragmentAttacks(f), headerAttacks(f)...)
	list = append(list, tcpAttacks(f)...)
	list = append(list, icmpAttacks(f)...)
	if f.name == "IPv4" {
		return append(list, ipv4Attacks(f)...)
	}
	return append(list, ipv6Attacks(f)...)
}

// A SYN from the internet to a port of VM1: 80 is allowed, anything else is not.
func (f family) syn(port uint16) packettest.Spec {
	return packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 40000, DstPort: port, Flags: "S", Payload: 40}
}

func (f family) query() packettest.Spec {
	return packettest.Spec{Src: f.vm1, Dst: f.world, SrcPort: 40000, DstPort: 53, Payload: 40}
}

func (f family) headerLen() int {
	if f.name == "IPv6" {
		return 40
	}
	return 20
}

func fragmentAttacks(f family) []attack {
	allowed, denied := packettest.TCP(f.syn(80)), packettest.TCP(f.syn(22))
	cut := packettest.Fragments(allowed, 7, 24, 16)
	hidden := packettest.Fragments(denied, 7, 24, 16)
	at := func(offset int, more bool) []byte {
		return packettest.FragmentAt(allowed[:f.headerLen()], make([]byte, 16), 7, offset, more)
	}
	return []attack{
		{"tiny first fragment", []step{
			{internet, packettest.Fragments(allowed, 7, 16)[0], -1, "fragment_tiny"},
			{internet, at(24, false), -1, "fragment_no_first"}}},
		{"tiny first fragment without the TCP flags", []step{
			{internet, packettest.Fragments(denied, 7, 8, 8)[0], -1, "fragment_tiny"},
			{internet, packettest.Fragments(denied, 7, 8, 8)[1], -1, "fragment_in_header"}}},
		{"later fragment over the header", []step{
			{internet, cut[0], vm1, ""},
			{internet, at(8, true), -1, "fragment_in_header"}}},
		{"overlapping fragments", []step{
			{internet, cut[0], vm1, ""},
			{internet, at(32, true), vm1, ""},
			{internet, at(40, true), -1, "fragment_overlap"},
			{internet, at(48, false), -1, "fragment_overlap"}}},
		{"second first fragment with other ports", []step{
			{internet, cut[0], vm1, ""},
			{internet, hidden[0], -1, "fragment_overlap"},
			{internet, cut[1], -1, "fragment_overlap"}}},
		{"denied first fragment", []step{
			{internet, hidden[0], -1, "rule_deny"},
			{internet, hidden[1], -1, "rule_deny"},
			{internet, hidden[2], -1, "rule_deny"}}},
		{"later fragment without first", []step{
			{internet, cut[1], -1, "fragment_no_first"},
			{internet, cut[0], vm1, ""},
			{internet, cut[1], vm1, ""}}},
		{"later fragment of another host's datagram", []step{
			{internet, cut[0], vm1, ""},
			{internet, packettest.FragmentAt(packettest.TCP(packettest.Spec{Src: f.far, Dst: f.vm1})[:f.headerLen()], make([]byte, 8), 7, 24, false), -1, "fragment_no_first"}}},
		{"later fragment from another attachment", []step{
			{internet, cut[0], vm1, ""},
			{vm2, cut[1], -1, "spoofed_source"}}},
		{"ping of death", []step{
			{internet, packettest.Fragments(allowed, 7, 24)[0], vm1, ""},
			{internet, at(65_528, false), -1, "fragment_too_long"}}},
		{"fragments that fill no gap", []step{
			{internet, packettest.FragmentAt(allowed[:f.headerLen()], nil, 7, 24, true), -1, "fragment_length"},
			{internet, packettest.FragmentAt(allowed[:f.headerLen()], make([]byte, 9), 7, 24, true), -1, "fragment_length"}}},
	}
}

func headerAttacks(f family) []attack {
	whole := packettest.UDP(f.query())
	beyond := slices.Clone(whole)
	last := f.headerLen() + 4 // the UDP length
	beyond[last], beyond[last+1] = 0xff, 0xff
	return []attack{
		{"UDP length beyond the packet", []step{{vm1, beyond, -1, "udp_length"}}},
		{"packet shorter than its length", []step{{vm1, whole[:len(whole)-1], -1, "ip_length"}}},
		{"land attack", []step{
			{vm1, packettest.TCP(packettest.Spec{Src: f.vm1, Dst: f.vm1, SrcPort: 80, DstPort: 80, Flags: "S"}), -1, "land"},
			{internet, packettest.TCP(packettest.Spec{Src: f.vm1, Dst: f.vm1, SrcPort: 80, DstPort: 80, Flags: "S"}), -1, "land"}}},
		{"spoofed source", []step{
			{vm1, packettest.TCP(packettest.Spec{Src: f.vm2, Dst: f.vm4, DstPort: 80, Flags: "S"}), -1, "spoofed_source"},
			{internet, packettest.TCP(packettest.Spec{Src: f.vm4, Dst: f.vm1, DstPort: 80, Flags: "S"}), -1, "spoofed_source"}}},
		{"unknown protocol in place of one with ports", []step{
			{internet, packettest.Raw(packettest.Spec{Src: f.world, Dst: f.vm1, Payload: 40}, 253), -1, "rule_deny"}}},
	}
}

func tcpAttacks(f family) []attack {
	flags := func(set string) []byte {
		s := f.syn(80)
		s.Flags = set
		return packettest.TCP(s)
	}
	offset := func(words byte) []byte {
		b := packettest.TCP(f.syn(80))
		b[f.headerLen()+12] = words << 4
		return b
	}
	options := f.syn(80)
	options.TCPOptions = []layers.TCPOption{{OptionType: 2, OptionLength: 200, OptionData: []byte{5, 180, 0, 0, 0, 0}}}
	badDenied := options
	badDenied.DstPort = 22
	return []attack{
		{"null scan", []step{{internet, flags(""), -1, "tcp_flags"}}},
		{"xmas scan", []step{{internet, flags("FPU"), -1, "tcp_flags"}}},
		{"SYN and FIN", []step{{internet, flags("SF"), -1, "tcp_flags"}}},
		{"SYN and RST", []step{{internet, flags("SR"), -1, "tcp_flags"}}},
		{"FIN scan", []step{{internet, flags("F"), -1, "tcp_flags"}}},
		{"SYN+ACK without SYN", []step{{internet, flags("SA"), -1, "tcp_no_syn"}}},
		{"RST without a connection", []step{{internet, flags("R"), -1, "tcp_no_syn"}}},
		{"bad data offset", []step{
			{internet, offset(4), -1, "tcp_header"},
			{internet, offset(15)[:f.headerLen()+40], -1, "ip_length"}}},
		{"data offset beyond the segment", []step{
			{internet, func() []byte {
				s := f.syn(80)
				s.Payload = 0
				b := packettest.TCP(s)
				b[f.headerLen()+12] = 15 << 4
				return b
			}(), -1, "tcp_header"}}},
		// Whatever its options are, a segment has the ports that it has.
		{"bad options", []step{
			{internet, packettest.TCP(options), vm1, ""},
			{internet, packettest.TCP(badDenied), -1, "rule_deny"}}},
	}
}

func icmpAttacks(f family) []attack {
	query := packettest.UDP(f.query())
	answer := packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 53, DstPort: 40000})
	report := func(src, dst string, quote []byte) []byte {
		return packettest.ICMPError(packettest.Spec{Src: src, Dst: dst, ICMPType: f.unreachable}, quote)
	}
	echo := func(src, dst string, typ uint8, id uint16) []byte {
		return packettest.ICMP(packettest.Spec{Src: src, Dst: dst, ICMPType: typ, ICMPID: id})
	}
	datagram := packettest.Fragments(query, 9, 24, 8)
	return []attack{
		{"unrelated ICMP error", []step{
			{internet, report(f.world, f.vm1, query), -1, "rule_deny"},
			{vm1, query, internet, ""},
			{internet, report(f.world, f.vm2, query), -1, "rule_deny"},  // to another host
			{internet, report(f.world, f.vm1, answer), -1, "rule_deny"}, // about the other way
			{internet, report(f.far, f.vm1, query), vm1, ""}}},
		{"ICMP error about an ICMP error", []step{
			{vm1, query, internet, ""},
			{internet, report(f.world, f.vm1, report(f.vm1, f.world, answer)), -1, "rule_deny"}}},
		{"ICMP error about a fragment of another datagram", []step{
			{vm1, datagram[0], internet, ""},
			{vm1, datagram[1], internet, ""},
			{internet, report(f.world, f.vm1, datagram[1]), vm1, ""},
			{internet, report(f.world, f.vm1, packettest.Fragments(query, 10, 24, 8)[1]), -1, "rule_deny"}}},
		{"echo request in place of a reply", []step{
			{vm1, echo(f.vm1, f.world, f.ping, 5), internet, ""},
			{internet, echo(f.world, f.vm1, f.ping, 5), -1, "rule_deny"},
			{internet, echo(f.world, f.vm1, f.pong, 5), vm1, ""}}},
		{"echo reply of another request", []step{
			{vm1, echo(f.vm1, f.world, f.ping, 5), internet, ""},
			{internet, echo(f.world, f.vm1, f.pong, 6), -1, "icmp_no_flow"}}},
		{"echo reply that nobody asked for", []step{{internet, echo(f.world, f.vm1, f.pong, 5), -1, "icmp_no_flow"}}},
	}
}

func ipv4Attacks(f family) []attack {
	length := func(total int) []byte {
		b := packettest.TCP(f.syn(80))
		b[2], b[3] = byte(total>>8), byte(total)
		return b
	}
	options := f.syn(22)
	options.IPOptions = []layers.IPv4Option{{OptionType: 130, OptionLength: 3, OptionData: []byte{0}}, {OptionType: 0}}
	return []attack{
		{"short total length", []step{
			{internet, length(30), -1, "truncated"},
			{internet, length(19), -1, "ip_length"}}},
		{"total length 0", []step{{internet, length(0), -1, "ip_length"}}},
		{"ports behind IPv4 options", []step{{internet, packettest.TCP(options), -1, "rule_deny"}}},
	}
}

func ipv6Attacks(f family) []attack {
	whole := packettest.TCP(f.syn(80))
	none := slices.Clone(whole)
	none[4], none[5] = 0, 0
	padding := []packettest.Extension{packettest.Options(60, 1)}
	return []attack{
		{"payload length 0", []step{{internet, none, -1, "truncated"}}},
		{"ports after an unknown extension header", []step{
			{internet, packettest.Extend(whole, packettest.Extension{Protocol: 253, Bytes: make([]byte, 8)}), -1, "rule_deny"},
			{internet, packettest.Extend(whole, padding[0]), vm1, ""}}},
		{"denied ports after known extension headers", []step{
			{internet, packettest.Extend(packettest.TCP(f.syn(22)), packettest.Options(0, 1), padding[0], packettest.Options(43, 1)), -1, "rule_deny"}}},
		{"routing header 0", []step{
			{internet, packettest.Extend(whole, packettest.Extension{Protocol: 43, Bytes: make([]byte, 8)}), -1, "ipv6_routing_header"}}},
		{"oversized chains", []step{
			{internet, packettest.Extend(whole, slices.Repeat(padding, 9)...), -1, "ipv6_extension_limit"},
			{internet, packettest.Extend(whole, packettest.Options(60, 130)), -1, "ipv6_extension_limit"}}},
		{"fragment of a fragment", []step{
			{internet, packettest.Extend(whole, packettest.FragmentHeader(0, false, 1), packettest.FragmentHeader(0, true, 2)), -1, "ipv6_extension"}}},
		{"extension headers split over fragments", []step{
			{internet, packettest.Fragments(packettest.Extend(whole, packettest.Options(60, 4)), 7, 16)[0], -1, "fragment_tiny"}}},
		{"later fragment that names another header", []step{
			{internet, packettest.Fragments(whole, 7, 24)[0], vm1, ""},
			// The first one's decides, for the receiver and for us (RFC 8200 section 4.5).
			{internet, packettest.FragmentAt(packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1})[:40], make([]byte, 8), 7, 24, false), vm1, ""}}},
		{"IPv4-mapped addresses", []step{
			{internet, mapped(whole), -1, "ipv6_mapped_address"}}},
		{"hop-by-hop header in the middle", []step{
			{internet, packettest.Extend(whole, padding[0], packettest.Options(0, 1)), -1, "ipv6_extension"}}},
	}
}

// mapped makes the destination of an IPv6 packet VM1's IPv4 address.
func mapped(b []byte) []byte {
	b = slices.Clone(b)
	a := netip.MustParseAddr("::ffff:" + addr1).As16()
	copy(b[24:40], a[:])
	return b
}

// An expired flow passed until the sweep came by (NetBird), and so did errors about it.
func TestAnExpiredFlowIsGoneBeforeTheSweep(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, dualStack(figureOfTheSeed()), conntrack.Options{Max: 1024})
			query := packettest.UDP(f.query())
			answer := packettest.UDP(packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 53, DstPort: 40000})
			report := packettest.ICMPError(packettest.Spec{Src: f.world, Dst: f.vm1, ICMPType: f.unreachable}, query)
			r.play([]step{{vm1, query, internet, ""}, {internet, answer, vm1, ""}, {internet, report, vm1, ""}})
			r.clock += 4*time.Minute + time.Second
			r.play([]step{{internet, report, -1, "rule_deny"}, {internet, answer, -1, "rule_deny"}})
			if n := r.engine.Flows().Stats().Flows; n != 1 {
				t.Fatalf("%d flows: the sweep has come by, or the flow never was", n)
			}
		})
	}
}

func TestAFragmentFloodPastTheCapLeavesEstablishedFlowsAlone(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newRigWith(t, dualStack(figureOfTheSeed()), Options{Flows: conntrack.Options{Max: 1024}, Fragments: fragment.Options{Max: 1024}})
			query := packettest.UDP(f.query())
			answer := packettest.Spec{Src: f.world, Dst: f.vm1, SrcPort: 53, DstPort: 40000, Payload: 40}
			r.play([]step{{vm1, query, internet, ""}})
			flood := packettest.TCP(f.syn(80))
			var carried, limited int
			for id := range uint32(5000) {
				switch to, drop := r.send(internet, packettest.Fragments(flood, id, 24)[0]); {
				case to == vm1:
					carried++
				case drop == "fragment_limit":
					limited++
				default:
					t.Fatalf("to %d, dropped under %s", to, drop)
				}
			}
			if carried != 512 || limited != 5000-512 {
				t.Errorf("%d carried, %d refused, want 512, half of the table, and the rest", carried, limited)
			}
			r.play([]step{{vm1, query, internet, ""}, {internet, packettest.UDP(answer), vm1, ""}})
			// Another attachment has its own share; one place in a hundred may be full.
			passed := 0
			for id := range uint32(40) {
				datagram := packettest.Fragments(query, 1<<15+id, 24, 8)
				if to, _ := r.send(vm1, datagram[0]); to == internet {
					passed++
					r.play([]step{{vm1, datagram[1], internet, ""}, {vm1, datagram[2], internet, ""}})
				}
			}
			if passed < 20 {
				t.Errorf("%d of 40 datagrams of another attachment passed", passed)
			}
			r.clock += 3 * time.Second
			r.engine.Fragments().Expire(r.clock, time.Hour)
			for _, p := range packettest.Fragments(packettest.UDP(answer), 20_000, 24, 8) {
				r.play([]step{{internet, p, vm1, ""}})
			}
		})
	}
}

// TestEveryAttackIsNamed keeps the table's rows apart: two with one name would hide
// which of them failed.
func TestEveryAttackIsNamed(t *testing.T) {
	for _, f := range families {
		seen := map[string]bool{}
		for _, a := range attacks(f) {
			if name := strings.ToLower(a.name); seen[name] || len(a.steps) == 0 {
				t.Errorf("%s: taken, or without a step", a.name)
			} else {
				seen[name] = true
			}
		}
	}
}
