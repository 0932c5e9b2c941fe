package dataplane

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/logring"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

func dropName(reason int) string { return packet.Drop(reason).String() }

func syn(src, dst string, port uint16) []byte {
	return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: 40000, DstPort: port, Flags: "S"})
}

func TestFirstPacketIsJudgedAsTheFigureSays(t *testing.T) {
	allow, deny := []ruleset.Rule{allowHTTP()}, []ruleset.Rule(nil)
	denyOut := func(name string) []ruleset.Rule {
		return []ruleset.Rule{anyRule(name, 100, ruleset.Outbound, ruleset.Deny)}
	}
	tests := []struct {
		name         string
		nsg1, nsg2   []ruleset.Rule
		from         int
		packet       []byte
		to           int    // -1: denied by a rule
		denier, rule string // who denied
	}{
		{"VM1 on port 80 from the internet when both NSGs allow", allow, allow, internet, syn(world, addr1, 80), vm1, "", ""},
		{"VM1 when only NSG1 allows", allow, deny, internet, syn(world, addr1, 80), -1, "NSG2", "DenyAllInBound"},
		{"VM1 when only NSG2 allows", deny, allow, internet, syn(world, addr1, 80), -1, "NSG1", "DenyAllInBound"},
		{"VM2 needs NSG1 only", allow, deny, internet, syn(world, addr2, 80), vm2, "", ""},
		{"VM2 is denied by NSG1", deny, allow, internet, syn(world, addr2, 80), -1, "NSG1", "DenyAllInBound"},
		{"VM3 needs NSG2 only", deny, allow, internet, syn(world, addr3, 80), vm3, "", ""},
		{"VM3 is denied by NSG2", allow, deny, internet, syn(world, addr3, 80), -1, "NSG2", "DenyAllInBound"},
		{"VM4 needs none", deny, deny, internet, syn(world, addr4, 80), vm4, "", ""},
		{"VM4 on any port", deny, deny, internet, syn(world, addr4, 8080), vm4, "", ""},
		{"VM1 on a port that no rule names", allow, allow, internet, syn(world, addr1, 8080), -1, "NSG1", "DenyAllInBound"},
		{"VM1 to the internet by the default rules", deny, deny, vm1, syn(addr1, world, 80), internet, "", ""},
		{"VM1 outbound is denied by NSG2 first", denyOut("Deny1"), denyOut("Deny2"), vm1, syn(addr1, world, 80), -1, "NSG2", "Deny2"},
		{"VM1 outbound is denied by NSG1 alone", denyOut("Deny1"), deny, vm1, syn(addr1, world, 80), -1, "NSG1", "Deny1"},
		{"VM2 outbound asks NSG1 only", deny, denyOut("Deny2"), vm2, syn(addr2, world, 80), internet, "", ""},
		{"VM3 outbound is denied by NSG2", deny, denyOut("Deny2"), vm3, syn(addr3, world, 80), -1, "NSG2", "Deny2"},
		{"VM4 outbound asks nobody", denyOut("Deny1"), denyOut("Deny2"), vm4, syn(addr4, world, 80), internet, "", ""},
		{"between subnets by AllowVnetInBound", deny, deny, vm3, syn(addr3, addr1, 22), vm1, "", ""},
		{"deny-all on NSG1 cuts VM1 from VM2", denyOut("DenyAll"), deny, vm1, syn(addr1, addr2, 22), -1, "NSG1", "DenyAll"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figure(tt.nsg1, tt.nsg2), conntrack.Options{Max: 1024})
			to, drop := r.send(tt.from, tt.packet)
			if to != tt.to {
				t.Fatalf("came out at %d (%s), want %d", to, drop, tt.to)
			}
			if tt.to >= 0 {
				return
			}
			if drop != packet.DropRule.String() {
				t.Fatalf("dropped under %s", drop)
			}
			d := ruleset.Inbound
			if tt.from != internet {
				d = ruleset.Outbound
			}
			if c := r.count(tt.denier, d, tt.rule); c.Hits != 1 || c.Packets != 1 {
				t.Errorf("%s %s counted %+v", tt.denier, tt.rule, c)
			}
		})
	}
}

func TestADenyInTheFirstStageIsNeverEvaluatedByTheSecond(t *testing.T) {
	r := newRig(t, figure(nil, []ruleset.Rule{allowHTTP()}), conntrack.Options{Max: 1024})
	r.send(internet, syn(world, addr1, 80))
	keys := r.engine.Registry().Keys()
	for i, c := range r.engine.Counters().Rules(len(keys)) {
		if keys[i].NetworkSecurityGroup == "NSG2" && c != (counter.Rule{}) {
			t.Errorf("%+v counted %+v", keys[i], c)
		}
	}
}

func TestReturnTrafficNeedsNoRule(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	reply := func(src, dst string, flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: 80, DstPort: 40000, Flags: flags})
	}
	if to, drop := r.send(internet, reply(world, addr1, "SA")); to != -1 || drop != "tcp_no_syn" {
		t.Errorf("SYN+ACK without a flow: to %d, %s", to, drop)
	}
	if to, drop := r.send(vm1, syn(addr1, world, 80)); to != internet {
		t.Fatalf("SYN: to %d, %s", to, drop)
	}
	if to, drop := r.send(internet, reply(world, addr1, "SA")); to != vm1 {
		t.Errorf("SYN+ACK: to %d, %s", to, drop)
	}
	if to, drop := r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: addr1, SrcPort: 81, DstPort: 40000, Flags: "S"})); drop != "rule_deny" {
		t.Errorf("another port of the same host: to %d, %s", to, drop)
	}
	out := r.count("NSG2", ruleset.Outbound, "AllowInternetOutBound")
	if want := (counter.Rule{Hits: 1, Packets: 2, Bytes: 80}); out != want {
		t.Errorf("AllowInternetOutBound counted %+v, want %+v", out, want)
	}
}

func TestPacketsThatAVirtualNetworkDoesNotCarry(t *testing.T) {
	udp := func(src, dst string) []byte {
		return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 1, DstPort: 5353})
	}
	tests := []struct {
		name   string
		from   int
		packet []byte
		drop   string
	}{
		{"a NIC's packet with another NIC's source", vm1, udp(addr2, addr3), "spoofed_source"},
		{"a NIC's packet with an outside source", vm1, udp(world, addr3), "spoofed_source"},
		{"the internet's packet with an inside source", internet, udp(addr2, addr3), "spoofed_source"},
		{"the internet's packet with a platform source", internet, udp("168.63.129.16", addr3), "spoofed_source"},
		{"a loopback source from the internet", internet, udp("127.0.0.1", addr3), "spoofed_source"},
		{"a broadcast source from the internet", internet, udp("255.255.255.255", addr3), "spoofed_source"},
		{"a packet to its own sender", vm1, udp(addr1, addr1), "land"},
		{"the internet's packet to the outside", internet, udp(world, "198.51.100.1"), "no_route"},
		{"mDNS", vm1, udp(addr1, "224.0.0.251"), "kernel_noise"},
		{"multicast", vm1, udp(addr1, "239.1.1.1"), "broadcast"},
		{"limited broadcast", vm1, udp(addr1, "255.255.255.255"), "broadcast"},
		{"a datagram to an IPv6 link-local address", vm1, udp("fd00::4", "fe80::1"), "kernel_noise"},
		{"a router solicitation", vm1, packettest.ICMP(packettest.Spec{Src: "fe80::1", Dst: "ff02::2", ICMPType: 133}), "kernel_noise"},
		{"a multicast listener report, which has a hop-by-hop header", vm1,
			packettest.Extend(packettest.ICMP(packettest.Spec{Src: "fe80::1", Dst: "ff02::16", ICMPType: 143}), packettest.Options(0, 1)), "kernel_noise"},
		{"an address of the subnet that nobody has", vm1, udp(addr1, "10.0.1.77"), "no_route"},
		{"a private address outside the virtual network", vm1, udp(addr1, "192.168.1.1"), "no_route"},
		{"the platform, which is not attached", vm1, udp(addr1, "168.63.129.16"), "no_route"},
		{"SYN and FIN together", vm1, packettest.TCP(packettest.Spec{Src: addr1, Dst: addr2, DstPort: 80, Flags: "SF"}), "tcp_flags"},
		{"an echo reply that nobody asked for", vm1, packettest.ICMP(packettest.Spec{Src: addr1, Dst: addr2, ICMPType: 0}), "icmp_no_flow"},
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			if to, drop := r.send(tt.from, tt.packet); drop != tt.drop {
				t.Errorf("to %d, dropped under %q, want %q", to, drop, tt.drop)
			}
		})
	}
	keys := r.engine.Registry().Keys()
	for i, c := range r.engine.Counters().Rules(len(keys)) {
		if c != (counter.Rule{}) {
			t.Errorf("a rule counted what no rule saw: %+v %+v", keys[i], c)
		}
	}
}

func TestAFlowOutlivesItsRuleAndEndsWhenIdle(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	segment := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: world, Dst: addr2, SrcPort: 40000, DstPort: 80, Flags: flags})
	}
	back := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: addr2, Dst: world, SrcPort: 80, DstPort: 40000, Flags: flags})
	}
	r.send(internet, segment("S"))
	r.send(vm2, back("SA"))
	r.send(internet, segment("A"))

	s, err := r.engine.Prepare(figure(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Swap(s, nil); err != nil {
		t.Fatal(err)
	}
	if to, drop := r.send(internet, segment("PA")); to != vm2 {
		t.Errorf("the flow ended with its rule: to %d, %s", to, drop)
	}
	if _, drop := r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: addr2, SrcPort: 40001, DstPort: 80, Flags: "S"})); drop != "rule_deny" {
		t.Errorf("a new flow after the rule went: %q", drop)
	}
	before := r.count("NSG1", ruleset.Inbound, "AllowHttpInBound")
	if before.Hits != 1 || before.Packets < 4 {
		t.Errorf("the removed rule lost its counts: %+v", before)
	}
	r.clock += 4*time.Minute + time.Second
	if _, drop := r.send(internet, segment("PA")); drop != "rule_deny" {
		t.Errorf("an idle flow's next segment: %q, want the rules' verdict", drop)
	}
}

func TestFlowsOfAnAddressThatMovedEnd(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	r.send(internet, syn(world, addr4, 80))
	r.send(internet, syn(world, addr2, 80))
	moved := figureOfTheSeed()
	moved.NetworkInterfaces[3].IPConfigurations[0].Address = netip.MustParseAddr("10.0.3.5")
	s, err := r.engine.Prepare(moved)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Swap(s, nil); err != nil {
		t.Fatal(err)
	}
	if n := r.engine.Flows().Stats().Flows; n != 1 {
		t.Errorf("%d flows are left, want the one of the address that stayed", n)
	}
	if to, drop := r.send(internet, syn(world, addr4, 80)); drop != "no_route" {
		t.Errorf("a packet to the old address: to %d, %s", to, drop)
	}
}

func TestTranslatedFlowsOfAnAddressThatMovedEnd(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1024})
	r.rewrites = true
	if to, drop := r.send(vm4, packettest.UDP(packettest.Spec{Src: addr4, Dst: world, SrcPort: 1, DstPort: 53})); to != internet {
		t.Fatal(drop)
	}
	moved := translatedFigure()
	moved.NetworkInterfaces[vm4].IPConfigurations[0].Address = netip.MustParseAddr("10.0.3.5")
	moved.LoadBalancers = nil
	s, err := r.engine.Prepare(moved)
	if err == nil {
		err = r.engine.Swap(s, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := r.engine.Flows().Stats().Flows; n != 0 {
		t.Errorf("%d flows are left", n)
	}
}

func TestFlowLimitRefusesUnderItsOwnReason(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024, MaxPerZone: 8})
	refused := 0
	for port := range uint16(16) {
		// Two-way flows, so that eviction finds no half-open one.
		p := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000 + port, DstPort: 53}
		q := packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 53, DstPort: 1000 + port}
		if to, drop := r.send(vm1, packettest.UDP(p)); to < 0 {
			if drop != "flow_limit" {
				t.Fatalf("dropped under %s", drop)
			}
			refused++
			continue
		}
		r.send(vm4, packettest.UDP(q))
		r.send(vm1, packettest.UDP(p)) // more than a question with its answer
	}
	if refused != 8 {
		t.Errorf("%d of 16 flows refused at a limit of 8", refused)
	}
}

func TestCountersAddUp(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	payload := 3001
	super := packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 40000, DstPort: 80, Flags: "S", Payload: payload})
	header := make([]byte, tun.HeaderLen)
	(&tun.Header{GSOType: tun.GSOTCPv4, GSOSize: 1460}).Encode((*[tun.HeaderLen]byte)(header))
	r.devices[vm1].Inject(0, append(header, super...))
	if err := r.engine.workers[0].carryBurst(vm1); err != nil {
		t.Fatal(err)
	}
	want := counter.Rule{Hits: 1, Packets: 3, Bytes: uint64(payload + 3*40)}
	for _, g := range []string{"NSG1", "NSG2"} {
		if got := r.count(g, ruleset.Outbound, "AllowVnetOutBound"); got != want {
			t.Errorf("%s: %+v, want %+v", g, got, want)
		}
	}
	counts := r.engine.AttachmentCounts()
	if got := counts[vm1]; got.ReceivePackets != 3 || got.ReceiveBytes != want.Bytes {
		t.Errorf("received %+v", got)
	}
	if got := counts[vm4]; got.TransmitPackets != 3 || got.TransmitBytes != want.Bytes {
		t.Errorf("transmitted %+v", got)
	}
}

// One NSG at both places counted each packet twice.
func TestAnNSGOfBothSubnetAndNICCountsAPacketOnce(t *testing.T) {
	policy := figureOfTheSeed()
	policy.NetworkInterfaces[0].NetworkSecurityGroup = policy.NetworkSecurityGroups[0]
	r := newRig(t, policy, conntrack.Options{Max: 1024})
	for range 2 { // the verdict and a packet of the flow
		r.send(internet, syn(world, addr1, 80))
	}
	if got, want := r.count("NSG1", ruleset.Inbound, "AllowHttpInBound"), (counter.Rule{Hits: 1, Packets: 2, Bytes: 80}); got != want {
		t.Errorf("allowed: counted %+v, want %+v", got, want)
	}
	r.send(internet, syn(world, addr1, 81))
	if got, want := r.count("NSG1", ruleset.Inbound, "DenyAllInBound"), (counter.Rule{Hits: 1, Packets: 1, Bytes: 40}); got != want {
		t.Errorf("denied: counted %+v, want %+v", got, want)
	}
}

func TestASuperpacketMustBeWhatItsHeaderClaims(t *testing.T) {
	tcp, udp := syn(addr1, addr4, 80), packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 7, DstPort: 7, Payload: 100})
	for _, tt := range []struct {
		name   string
		kind   uint8
		packet []byte
	}{
		{"TCP over IPv6 that is IPv4", tun.GSOTCPv6, tcp},
		{"TCP over IPv4 that is UDP", tun.GSOTCPv4, udp},
		{"UDP that is TCP", tun.GSOUDPL4, tcp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
			header := make([]byte, tun.HeaderLen)
			(&tun.Header{GSOType: tt.kind, GSOSize: 1460}).Encode((*[tun.HeaderLen]byte)(header))
			r.devices[vm1].Inject(0, append(header, tt.packet...))
			if err := r.engine.workers[0].carryBurst(vm1); err != nil {
				t.Fatal(err)
			}
			if n := r.engine.Drops()[packet.DropOffload]; n != 1 {
				t.Errorf("%d drops under %s", n, packet.DropOffload)
			}
		})
	}
}

// A packet that asks for a new flow ended the old one before the rules were asked,
// so that a denied packet cut a connection.
func TestADeniedPacketEndsNoFlow(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	out := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 40000, DstPort: 80, Flags: flags})
	}
	back := func(flags string) []byte {
		return packettest.TCP(packettest.Spec{Src: world, Dst: addr1, SrcPort: 80, DstPort: 40000, Flags: flags})
	}
	// Identifier 0: the peer's request has the key of a reply.
	echo := func(src, dst string, icmpType uint8) []byte {
		return packettest.ICMP(packettest.Spec{Src: src, Dst: dst, ICMPType: icmpType})
	}
	steps := []struct {
		name   string
		from   int
		packet []byte
		to     int
		drop   string
	}{
		{"SYN", vm1, out("S"), internet, ""},
		{"SYN+ACK", internet, back("SA"), vm1, ""},
		{"ACK", vm1, out("A"), internet, ""},
		{"FIN of one side", vm1, out("FA"), internet, ""},
		{"the other side's data", internet, back("PA"), vm1, ""},
		{"a SYN that no rule allows", internet, back("S"), -1, "rule_deny"},
		{"the rest of the data", internet, back("PA"), vm1, ""},
		{"FIN of the other side", internet, back("FA"), vm1, ""},
		{"a SYN that a rule allows", vm1, out("S"), internet, ""},
		{"echo request", vm1, echo(addr1, world, 8), internet, ""},
		{"echo request that no rule allows", internet, echo(world, addr1, 8), -1, "rule_deny"},
		{"echo reply", internet, echo(world, addr1, 0), vm1, ""},
	}
	for _, s := range steps {
		if to, drop := r.send(s.from, s.packet); to != s.to || drop != s.drop {
			t.Errorf("%s: to %d, dropped under %q; want %d, %q", s.name, to, drop, s.to, s.drop)
		}
	}
	if n := r.engine.Flows().Stats().Ended[conntrack.EndRestarted]; n != 1 {
		t.Errorf("%d flows restarted, want the one whose SYN is allowed", n)
	}
}

// A worker takes the snapshot once for a burst. A flow that it began by the old one
// after the reload had looked through the table stayed, under a removed rule
// or towards an address that had moved.
func TestAReloadOvertakesABurst(t *testing.T) {
	moved := figureOfTheSeed()
	moved.NetworkInterfaces[1].IPConfigurations[0].Address = netip.MustParseAddr("10.0.1.6")
	tests := []struct {
		name string
		next *policy.Set
		drop packet.Drop
		kept int64
	}{
		{"a rule is removed", figure(nil, nil), packet.DropRule, 0},
		{"the address has moved", moved, packet.DropNoRoute, 0},
		{"nothing that matters has changed", figureOfTheSeed(), packet.NotDropped, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
			old := r.engine.Snapshot()
			s, err := r.engine.Prepare(tt.next)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Swap(s, nil); err != nil {
				t.Fatal(err)
			}
			w := r.engine.workers[0]
			w.now = r.engine.Now()
			group := []slot{{frame: append(make([]byte, tun.HeaderLen), syn(world, addr2, 80)...)}}
			w.prepare(old.Attachments[internet], group)
			if drop := w.passage.carry(old, old.Attachments[internet], &group[0]); drop != tt.drop {
				t.Errorf("dropped under %s, want %s", drop, tt.drop)
			}
			w.counters.Flush()
			if n := r.engine.Flows().Stats().Flows; n != tt.kept {
				t.Errorf("%d flows, want %d", n, tt.kept)
			}
			if c := r.count("NSG1", ruleset.Inbound, "AllowHttpInBound"); c.Hits != uint64(tt.kept) {
				t.Errorf("the rule counted %+v, want %d hits", c, tt.kept)
			}
		})
	}
}

// reloading is a queue on which a packet arrives just after a reload.
type reloading struct {
	tun.Queue
	reload func()
}

func (q *reloading) Read(buf []byte) (int, error) {
	if q.reload != nil {
		q.reload()
		q.reload = nil
	}
	return q.Queue.Read(buf)
}

// The snapshot was taken before the packets were read: a packet that was sent after the
// reload was denied by the policy before it.
func TestAPacketThatComesAfterAReloadIsJudgedByTheNewPolicy(t *testing.T) {
	r := newRig(t, figure(nil, nil), conntrack.Options{Max: 1024})
	s, err := r.engine.Prepare(figureOfTheSeed())
	if err != nil {
		t.Fatal(err)
	}
	w := r.engine.workers[0]
	w.queues[internet] = &reloading{w.queues[internet], func() {
		if err := r.engine.Swap(s, nil); err != nil {
			t.Fatal(err)
		}
	}}
	if to, drop := r.send(internet, syn(world, addr2, 80)); to != vm2 {
		t.Errorf("to %d, dropped under %q", to, drop)
	}
}

// A SYN that the limit of new flows refused ended the connection that it would have replaced.
func TestARefusedPacketEndsNoFlow(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024, NewPerSecond: 1})
	segment := func(out bool, flags string) []byte {
		s := packettest.Spec{Src: addr1, Dst: world, SrcPort: 40000, DstPort: 80, Flags: flags}
		if !out {
			s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
		}
		return packettest.TCP(s)
	}
	r.play([]step{
		{vm1, segment(true, "S"), internet, ""}, {internet, segment(false, "SA"), vm1, ""}, {vm1, segment(true, "A"), internet, ""},
		{vm1, segment(true, "FA"), internet, ""}, {internet, segment(false, "FA"), vm1, ""},
		{vm1, segment(true, "S"), -1, "flow_rate"}, {internet, segment(false, "FA"), vm1, ""},
	})
	r.clock += time.Second
	r.play([]step{{vm1, segment(true, "S"), internet, ""}})
}

// full is a queue whose device refuses every packet for a reason of its own.
type full struct{ tun.Queue }

func (full) Write([]byte) error { return syscall.EIO }

// logged waits until the log has what was told.
func (r *rig) logged() {
	r.t.Helper()
	if !r.engine.log.Handler().(*logring.Handler).Flush(r.t.Context()) {
		r.t.Fatal(r.t.Context().Err())
	}
}

// Whoever reads the log may read no more. A tenant can make a device refuse packets, and a worker tells of it.
func TestHostile15BlockedLog(t *testing.T) {
	read, unread, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(unread, nil))
	flushed, cancel := context.WithCancel(t.Context())
	cancel()
	told := logring.New(log.Handler())
	for n := 0; told.Lost() == 0; n++ { // fills the pipe, then the ring
		slog.New(told).Warn("a line", "number", n, "pad", strings.Repeat("x", 4000))
	}
	if told.Flush(flushed) {
		t.Fatal("the pipe is not full")
	}
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Log: log})
	w := r.engine.workers[0]
	w.queues[vm4] = full{w.queues[vm4]}
	for range 100 {
		r.clock += time.Minute
		r.play([]step{{vm1, syn(addr1, addr4, 80), -1, "transmit"}, {vm1, syn(addr1, addr2, 80), vm2, ""}})
	}
	done := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(read)
		done <- string(text)
	}()
	r.logged()
	if !told.Flush(t.Context()) {
		t.Error("not all lines are written")
	}
	unread.Close()
	text := <-done
	if n := strings.Count(text, "write refused"); n != 100 {
		t.Errorf("%d of 100 lines came once the log was read", n)
	}
	if n := strings.Count(text, "notShown="); n != 1 || told.Lost() == 0 {
		t.Errorf("%d lines tell of %d that found no room", n, told.Lost())
	}
}

func TestRefusedWritesDoNotFloodTheLog(t *testing.T) {
	var log bytes.Buffer
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	w := r.engine.workers[0]
	w.queues[vm4] = full{w.queues[vm4]}
	for range 1000 {
		r.play([]step{{vm1, syn(addr1, addr4, 80), -1, "transmit"}, {internet, []byte{0}, -1, "ip_version"}})
	}
	r.logged()
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines for a thousand refused and a thousand malformed packets:\n%s", n, log.String())
	}
	r.clock += time.Minute
	r.send(vm1, syn(addr1, addr4, 80))
	r.logged()
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines a minute later", n)
	}
}
