package replay

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

const (
	addr1 = "10.0.1.4"
	addr2 = "10.0.1.5"
	addr3 = "10.0.2.4"
	addr4 = "10.0.3.4"
	world = "203.0.113.10"
	dns   = "168.63.129.16"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// labPolicy is the seed's figure.
func labPolicy(t testing.TB) *policy.Set {
	t.Helper()
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	set, err := inspect.NewPolicyFiles("", dir+"/policy").Load()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func nics(t testing.TB, set *policy.Set, names ...string) (list []*policy.NetworkInterface) {
	t.Helper()
	for _, name := range names {
		nic, err := set.NetworkInterface(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, nic)
	}
	return list
}

// sent is a packet, and when and where it was captured.
type sent struct {
	after time.Duration // after noon
	at    int           // interface
	ip    []byte
	keep  int // bytes captured; 0: all
}

// ngFile is a pcapng capture with raw IP from interfaces of these names.
func ngFile(t testing.TB, names []string, packets ...sent) []byte {
	t.Helper()
	var file bytes.Buffer
	var w *pcapgo.NgWriter
	for i, name := range names {
		intf := pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeRaw, TimestampResolution: 9}
		var err error
		if i == 0 {
			w, err = pcapgo.NewNgWriterInterface(&file, intf, pcapgo.DefaultNgWriterOptions)
		} else {
			_, err = w.AddInterface(intf)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range packets {
		data := p.ip
		if p.keep > 0 {
			data = data[:p.keep]
		}
		err := w.WritePacket(gopacket.CaptureInfo{Timestamp: noon.Add(p.after), InterfaceIndex: p.at, CaptureLength: len(data), Length: len(p.ip)}, data)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// play replays one capture and returns a line a packet.
func play(t testing.TB, o Options, file []byte) (lines []string, s *Summary) {
	t.Helper()
	o.Each = func(p *Packet) error {
		rules := ""
		for _, j := range p.Rules {
			rules += " " + j.NetworkSecurityGroup + "/" + j.Name
		}
		lines = append(lines, fmt.Sprintf("%s>%s %s %s%s%s", p.From, p.To, p.Verdict, p.Reason, rules, p.PlatformService))
		return nil
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.File(context.Background(), "f", bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if s, err = r.Summary(); err != nil {
		t.Fatal(err)
	}
	return lines, s
}

func syn(src, dst string, from, to uint16) []byte {
	return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: from, DstPort: to, Flags: "S"})
}

func tcp(src, dst string, from, to uint16, flags string, payload int) []byte {
	return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: from, DstPort: to, Flags: flags, Payload: payload})
}

func udp(src, dst string, from, to uint16) []byte {
	return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: from, DstPort: to, Payload: 20})
}

func TestTheRulesOfTheChosenNetworkInterfaceDecide(t *testing.T) {
	set := labPolicy(t)
	udpHTTP := packettest.Fragments(packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: 9, DstPort: 53, Payload: 64}), 7, 32)
	lines, s := play(t, Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"), Top: 2, Fragments: fragment.Options{Hold: 8}}, ngFile(t, []string{""},
		sent{ip: syn(world, addr1, 4000, 80)},
		sent{after: 1 * time.Second, ip: tcp(addr1, world, 80, 4000, "SA", 0)},
		sent{after: 2 * time.Second, ip: tcp(world, addr1, 4000, 80, "A", 100)},
		sent{after: 3 * time.Second, ip: syn(world, addr1, 4001, 22)},
		sent{after: 4 * time.Second, ip: syn(addr4, addr1, 4001, 22)},          // from the virtual network
		sent{after: 5 * time.Second, ip: syn(addr1, "10.0.200.1", 1, 1)},       // of no subnet, which nobody asks for
		sent{after: 6 * time.Second, ip: udp(addr1, dns, 5353, 53)},            // the platform
		sent{after: 7 * time.Second, ip: udp(dns, addr1, 53, 5353)},            // and its answer
		sent{after: 8 * time.Second, ip: udp(addr2, addr3, 1, 1)},              // others'
		sent{after: 9 * time.Second, ip: udpHTTP[1]},                           // before its first
		sent{after: 9 * time.Second, ip: udpHTTP[0]},                           //
		sent{after: 10 * time.Second, ip: syn(world, addr1, 5000, 80)[:19]},    // not even an IP header
		sent{after: 20 * time.Minute, ip: tcp(addr1, world, 80, 4000, "A", 0)}, // long over
	))
	want := []string{
		"internet>vm1-nic Allow newFlow NSG1/AllowHttpInBound NSG2/AllowHttpInBound",
		"vm1-nic>internet Allow flow NSG1/AllowHttpInBound NSG2/AllowHttpInBound",
		"internet>vm1-nic Allow flow NSG1/AllowHttpInBound NSG2/AllowHttpInBound",
		"internet>vm1-nic Deny rule_deny NSG1/DenyAllInBound",
		"vm4-nic>vm1-nic Allow newFlow NSG1/AllowVnetInBound NSG2/AllowVnetInBound",
		"vm1-nic>nowhere Allow newFlow NSG2/AllowVnetOutBound NSG1/AllowVnetOutBound",
		"vm1-nic>platform Allow newFlowdns",
		"platform>vm1-nic Allow flowdns",
		"> Skip other_addresses",
		"vm1-nic>internet Wait first_fragment",
		"vm1-nic>internet Allow newFlow NSG2/AllowInternetOutBound NSG1/AllowInternetOutBound",
		"> Skip cut_headers",
		"vm1-nic>internet Allow newFlow NSG2/AllowInternetOutBound NSG1/AllowInternetOutBound",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if s.Packets != 13 || s.Judged.Packets != 11 || s.Allowed.Packets != 10 || s.Denied.Packets != 1 || s.Dropped["rule_deny"] != 1 {
		t.Errorf("summary: %+v", s)
	}
	if s.Flows.Created != 6 || len(s.Flows.Top) != 2 || s.Flows.Top[0].SourcePort != 4000 || s.Flows.Top[0].PacketsSent != 2 {
		t.Errorf("flows: %+v", s.Flows)
	}
	for _, r := range s.UnusedRules {
		if r.Name == "AllowHttpInBound" {
			t.Errorf("%s is called unused", r.Name)
		}
	}
}

// randomTraffic is packets between the figure's machines and the outside, with answers, fragments and
// pauses.
func randomTraffic(random *rand.Rand, n int) (list []sent) {
	addresses := []string{addr1, addr2, addr3, addr4, world}
	at := time.Duration(0)
	for range n {
		at += time.Duration(random.ExpFloat64() * float64(3*time.Second))
		from := random.IntN(len(addresses))
		spec := packettest.Spec{Src: addresses[from], Dst: addresses[random.IntN(len(addresses))], Payload: random.IntN(300),
			SrcPort: []uint16{80, 443, 1000, 1001}[random.IntN(4)], DstPort: []uint16{80, 443, 1000, 1001}[random.IntN(4)],
			Flags: []string{"S", "SA", "A", "A", "FA", "R", "SF"}[random.IntN(7)], ICMPType: []uint8{0, 8, 3}[random.IntN(3)], ICMPID: 7}
		var b []byte
		switch random.IntN(6) {
		case 0, 1, 2:
			b = packettest.TCP(spec)
		case 3:
			b = packettest.UDP(spec)
		case 4:
			b = packettest.ICMP(spec)
		default:
			spec.Payload = 64
			parts := packettest.Fragments(packettest.UDP(spec), random.Uint32(), 32)
			random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			for _, part := range parts {
				list = append(list, sent{after: at, at: from, ip: part})
			}
			continue
		}
		list = append(list, sent{after: at, at: from, ip: b})
	}
	return list
}

// The reference is an engine that runs, on devices: its counters and those of a replay of the same
// packets are equal to the last.
func TestReplayCountsWhatARunningEngineCounts(t *testing.T) {
	set := labPolicy(t)
	names := []string{"vm1-nic", "vm2-nic", "vm3-nic", "vm4-nic", "internet"}
	traffic := randomTraffic(rand.New(rand.NewPCG(1, 2)), 3000)

	var specs []topology.Spec
	var devices []tun.Device
	var memory []*tuntest.Memory
	for _, name := range names {
		spec, err := specOf(set, name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := tuntest.NewMemory(name, 1, 8)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		specs, devices, memory = append(specs, spec), append(devices, d), append(memory, d)
	}
	clock := make(chan time.Duration, 1)
	clock <- time.Duration(noon.UnixNano())
	e, err := dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1, Fragments: fragment.Options{Hold: 8}, Clock: func() time.Duration {
		now := <-clock
		clock <- now
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Attach(devices); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	received := uint64(0)
	for _, p := range traffic {
		<-clock
		clock <- time.Duration(noon.Add(p.after).UnixNano())
		memory[p.at].Inject(0, append(make([]byte, tun.HeaderLen), p.ip...))
		received++
		for sum := uint64(0); sum < received; { // one at a time, or the order is not known
			sum = 0
			for _, c := range e.AttachmentCounts() {
				sum += c.ReceivePackets
			}
			for _, d := range memory {
				d.Drain(0, nil)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	keys := e.Registry().Keys()
	want := outcome{e.Counters().Rules(len(keys)), e.AttachmentCounts(), e.Drops(), e.Flows().Stats().Created}

	r, err := New(Options{Policy: set, Fragments: fragment.Options{Hold: 8}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.File(t.Context(), "f", bytes.NewReader(ngFile(t, names, traffic...))); err != nil {
		t.Fatal(err)
	}
	e = r.carrier.Engine()
	got := outcome{e.Counters().Rules(len(keys)), e.AttachmentCounts(), e.Drops(), e.Flows().Stats().Created}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters of an engine that runs and of a replay (-running +replay):\n%s", diff)
	}
	if want.Created == 0 || want.Drops[packet.DropRule] == 0 || want.Drops[packet.DropTCPState]+want.Drops[packet.DropTCPNoSYN] == 0 {
		t.Errorf("the traffic is too tame: %+v", want)
	}
}

type outcome struct {
	Rules       []counter.Rule
	Attachments []counter.Attachment
	Drops       [packet.NumDrops]uint64
	Created     uint64
}

// A packet that begins a flow, or is denied, meets what Verify answers for the NIC.
func TestAFirstPacketGetsTheAnswerOfVerify(t *testing.T) {
	set := labPolicy(t)
	snapshot, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	others := []string{addr2, addr3, addr4, world, "10.0.9.9", "192.168.1.1", "8.8.8.8"}
	for i := range 500 {
		src, dst, direction := addr1, others[random.IntN(len(others))], ruleset.Outbound
		if random.IntN(2) == 0 {
			src, dst, direction = dst, src, ruleset.Inbound
		}
		port := []uint16{22, 80, 443}[random.IntN(3)]
		var verdict string
		r, err := New(Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"), Flows: conntrack.Options{Max: 16},
			Each: func(p *Packet) error { verdict = p.Verdict; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.File(t.Context(), "f", bytes.NewReader(ngFile(t, []string{""}, sent{ip: syn(src, dst, uint16(1024+i), port)}))); err != nil {
			t.Fatal(err)
		}
		flow := &azure.Flow{NetworkInterface: "vm1-nic", Direction: direction, Protocol: packet.ProtoTCP,
			Local: netip.MustParseAddr(addr1), Remote: netip.MustParseAddr(dst), LocalPort: uint16(1024 + i), RemotePort: port}
		if direction == ruleset.Inbound {
			flow.Remote, flow.LocalPort, flow.RemotePort = netip.MustParseAddr(src), port, uint16(1024+i)
		}
		want, err := ask.Verify(snapshot, flow, false)
		if err != nil {
			t.Fatal(err)
		}
		if verdict != want.Access {
			t.Errorf("%s -> %s:%d: replay says %s, verify %s by %s", src, dst, port, verdict, want.Access, want.RuleName)
		}
	}
}

func TestACutPacketIsJudgedByItsHeadersOrNotAtAll(t *testing.T) {
	set := labPolicy(t)
	whole := tcp(world, addr1, 4000, 80, "S", 1000)
	bare, query := tcp(world, addr1, 4000, 80, "S", 0), udp(world, addr1, 4000, 53)
	ping := packettest.ICMPError(packettest.Spec{Src: world, Dst: addr1, ICMPType: 3}, udp(addr1, "198.51.100.7", 7, 53))
	for _, tt := range []struct {
		name string
		ip   []byte
		keep int
		want string
	}{
		{"TCP with its flags", whole, 34, Allow},
		{"TCP without its flags", whole, 33, Skipped},
		{"TCP without ports", whole, 21, Skipped},
		{"a segment without payload, with its flags", bare, 34, Allow},
		{"a segment without payload, without its header's length", bare, 32, Skipped},
		{"a segment without payload, without its header", bare, 20, Skipped},
		{"UDP with its length", query, 26, Deny},
		{"UDP without its length", query, 24, Skipped},
		{"UDP without its header", query, 20, Skipped},
		{"an ICMP error without ports in its quote", ping, 50, Skipped},
		{"an ICMP error with ports in its quote", ping, 56, Deny},
	} {
		var verdict string
		var bytesOf uint32
		r, err := New(Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"),
			Each: func(p *Packet) error { verdict, bytesOf = p.Verdict, p.Bytes; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.File(t.Context(), "f", bytes.NewReader(ngFile(t, []string{""}, sent{ip: tt.ip, keep: tt.keep}))); err != nil {
			t.Fatal(err)
		}
		if verdict != tt.want || bytesOf != uint32(len(tt.ip)) {
			t.Errorf("%s: %s of %d bytes, want %s of %d", tt.name, verdict, bytesOf, tt.want, len(tt.ip))
		}
	}
}

// flood is a capture without end: SYNs from ever new ports and addresses, and data of one flow.
type flood struct {
	rest  []byte
	block []byte
	n     uint32
	left  int
}

func newFlood(t testing.TB, packets int) *flood {
	file := ngFile(t, []string{""}, sent{ip: syn(world, addr1, 1, 80)})
	at := bytes.Index(file, []byte{6, 0, 0, 0})
	return &flood{rest: file[:at], block: slices.Clone(file[at:]), left: packets}
}

func (f *flood) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(f.rest) == 0 {
			if f.left == 0 {
				if n == 0 {
					err = io.EOF
				}
				return n, err
			}
			f.left--
			f.n++
			binary.BigEndian.PutUint32(f.block[28+12:], 0x14000000+f.n) // the source
			stamp := uint64(noon.UnixNano()) + uint64(f.n)*10_000
			binary.LittleEndian.PutUint32(f.block[12:], uint32(stamp>>32))
			binary.LittleEndian.PutUint32(f.block[16:], uint32(stamp))
			f.rest = f.block
		}
		m := copy(p[n:], f.rest)
		n, f.rest = n+m, f.rest[m:]
	}
	return n, nil
}

func TestMemoryDoesNotGrowWithTheCapture(t *testing.T) {
	set := labPolicy(t)
	r, err := New(Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"), Top: 10, Flows: conntrack.Options{Max: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	const some, many = 10_000, 400_000
	run := func(packets int) float64 {
		return testing.AllocsPerRun(1, func() {
			if err := r.File(context.Background(), "f", newFlood(t, packets)); err != nil {
				t.Fatal(err)
			}
		})
	}
	// What a file costs does not depend on how many packets it has, so there is nothing
	// that could grow; every packet begins a flow here.
	few, all := run(some), run(many)
	if all > few+20 {
		t.Errorf("%v allocations for %d packets, %v for %d", all, many, few, some)
	}
}

func TestAnInterruptLeavesWhatWasCounted(t *testing.T) {
	set := labPolicy(t)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	r, err := New(Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"), Each: func(*Packet) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := ngFile(t, []string{""}, sent{ip: syn(world, addr1, 1, 80)}, sent{ip: syn(world, addr1, 2, 80)}, sent{ip: syn(world, addr1, 3, 80)}, sent{ip: syn(world, addr1, 4, 80)})
	if err := r.File(ctx, "f", bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), "f: context canceled") {
		t.Errorf("error %v", err)
	}
	if s, err := r.Summary(); err != nil || s.Complete || s.Packets != 3 || s.Allowed.Packets != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

func BenchmarkReplay(b *testing.B) {
	set := labPolicy(b)
	for _, tt := range []struct {
		name    string
		payload int
	}{{"small", 64}, {"large", 1400}} {
		b.Run(tt.name, func(b *testing.B) {
			var list []sent
			for i := range 4096 {
				port := uint16(1000 + i%512)
				flags := "A"
				if i < 512 {
					flags = "S"
				}
				list = append(list, sent{after: time.Duration(i) * time.Microsecond, ip: tcp(world, addr1, port, 80, flags, tt.payload)})
			}
			file := ngFile(b, []string{""}, list...)
			r, err := New(Options{Policy: set, NetworkInterfaces: nics(b, set, "vm1-nic"), Top: 10})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(file)) / 4096)
			b.ResetTimer()
			for done := 0; done < b.N; done += 4096 {
				if err := r.File(context.Background(), "f", bytes.NewReader(file)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}
