package dataplane

import (
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// capturesEnv names captures to carry besides those of testdata: pcap and pcapng
// files, and folders that are searched for them, separated as in PATH. Relative ones are
// relative to the repository, where people run go test, and not to this folder, where it runs.
const capturesEnv = "NSGD_CAPTURES"

var update = flag.Bool("update", false, "rewrite the captures of testdata and what became of their packets")

func TestEveryPacketOfACaptureGetsAVerdictOrADropReason(t *testing.T) {
	const dir = "testdata/captures"
	if *update {
		writeCaptures(t, dir)
	}
	var got strings.Builder
	for _, name := range captureFiles(t, dir) {
		fmt.Fprintf(&got, "%s: %s\n", filepath.Base(name), carryCapture(t, name))
	}
	golden := filepath.Join(dir, "want.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("what became of the packets (-want +got):\n%s", diff)
	}
}

func TestCapturesOfOthersAreCarriedToo(t *testing.T) {
	t.Run("gopacket's", func(t *testing.T) {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/gopacket").Output()
		dir := strings.TrimSpace(string(out))
		if err != nil || dir == "" {
			t.Fatalf("gopacket's source, which has captures, is in no module cache: %v", err)
		}
		packets := 0
		for _, name := range captureFiles(t, dir) {
			o := carryCapture(t, name)
			packets += o.packets
			t.Logf("%s: %s", filepath.Base(name), o)
		}
		if packets == 0 {
			t.Error("no packet could be read")
		}
	})
	for _, path := range filepath.SplitList(os.Getenv(capturesEnv)) {
		if !filepath.IsAbs(path) {
			path = filepath.Join("..", path)
		}
		for _, name := range captureFiles(t, path) {
			o := carryCapture(t, name)
			t.Logf("%s: %s", name, o)
			if o.packets == 0 {
				t.Errorf("%s: no packet could be read", name)
			}
		}
	}
}

// captureFiles are the captures at a path, a file or a folder.
func captureFiles(t *testing.T, path string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if name == path || slices.Contains([]string{".pcap", ".pcapng", ".cap"}, filepath.Ext(name)) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// outcome counts what became of the packets of a capture.
type outcome struct {
	packets, notIP, carried int
	drops                   [packet.NumDrops]uint64
	end                     error // why reading ended before the file did
}

func (o *outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d packets, %d not IP, %d carried", o.packets, o.notIP, o.carried)
	for reason, n := range o.drops {
		if n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, packet.Drop(reason))
		}
	}
	if o.end != nil {
		fmt.Fprintf(&b, "; %v", o.end)
	}
	return b.String()
}

// carryCapture carries every packet of a capture through an engine whose network has one end of
// each conversation. Time passes as the capture says.
func carryCapture(t *testing.T, name string) *outcome {
	t.Helper()
	frames, end := readCapture(name)
	o := &outcome{packets: len(frames), end: end}
	inside := sides(frames)
	r := newCaptureRig(t, inside)
	clock := time.Duration(0)
	for i, f := range frames {
		if f.ip == nil {
			o.notIP++
			continue
		}
		clock = max(clock, f.at.Sub(frames[0].at))
		r.clock = time.Hour + clock
		if i > 0 {
			r.engine.Flows().Expire(r.engine.Now(), 1024)
		}
		before, held := r.engine.Drops(), r.engine.Fragments().Held()
		from := captureInternet
		if src, _, ok := addressesOf(f.ip); ok && inside[src] {
			from = captureSubnet
		}
		if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), f.ip...)) {
			t.Fatalf("%s: packet %d of %d bytes does not fit", name, i+1, len(f.ip))
		}
		if err := r.engine.workers[0].carryBurst(from); err != nil {
			t.Fatal(err)
		}
		out := 0 // more than one when others waited for it
		for _, d := range r.devices {
			out += d.Drain(0, nil)
		}
		after, dropped := r.engine.Drops(), 0
		for reason := range after {
			dropped += int(after[reason] - before[reason])
		}
		o.carried += out
		waits := int(r.engine.Fragments().Held() - held)
		if out+dropped+waits != 1 {
			t.Errorf("%s: packet %d came out %d times and was dropped %d times: %x", name, i+1, out, dropped, f.ip)
		}
	}
	r.engine.Fragments().Expire(r.clock+time.Hour, time.Hour)
	o.drops = r.engine.Drops()
	return o
}

// sides puts the ends of a capture's conversations into the network or outside, so that
// most packets cross: private addresses are inside, for they have no route outside; else whoever
// speaks first is, unless the other one is.
func sides(frames []captured) map[netip.Addr]bool {
	inside := map[netip.Addr]bool{}
	for _, f := range frames {
		src, dst, ok := addressesOf(f.ip)
		if !ok || !src.IsGlobalUnicast() {
			continue
		}
		if _, known := inside[src]; !known {
			inside[src] = src.IsPrivate() || !inside[dst] && !dst.IsPrivate()
		}
		if _, known := inside[dst]; !known && dst.IsGlobalUnicast() {
			inside[dst] = dst.IsPrivate() || !inside[src]
		}
	}
	return inside
}

// addressesOf reads an IP header's addresses.
func addressesOf(b []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), true
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		return src, dst, !src.Is4In6() && !dst.Is4In6()
	}
	return src, dst, false
}

const (
	captureSubnet = iota
	captureInternet
)

// newCaptureRig makes an engine for a network with these addresses. Its NSG lets in echo
// requests, UDP, and TCP to the well-known ports.
func newCaptureRig(t *testing.T, inside map[netip.Addr]bool) *rig {
	t.Helper()
	allow := func(name string, priority int, protocol ruleset.Protocol, ports ...ruleset.PortRange) ruleset.Rule {
		r := anyRule(name, priority, ruleset.Inbound, ruleset.Allow)
		r.Protocol, r.DestinationPorts = protocol, ports
		return r
	}
	group := &ruleset.NSG{Name: "NSG1", ID: "/nsg/NSG1", Rules: []ruleset.Rule{
		allow("Echo", 100, ruleset.ICMP, ruleset.PortRange{First: 8, Last: 8}, ruleset.PortRange{First: 128, Last: 128}), allow("Udp", 110, ruleset.UDP, ruleset.AllPorts),
		allow("WellKnown", 120, ruleset.TCP, ruleset.PortRange{First: 0, Last: 1023})}}
	vnet := &policy.VirtualNetwork{Name: "vnet1", ID: "/vnet/vnet1", AddressSpace: []netip.Prefix{netip.MustParsePrefix("fd00:dead::/64")}}
	subnet := &policy.Subnet{Name: "captured", ID: "/vnet/vnet1/captured", VirtualNetwork: vnet, NetworkSecurityGroup: group, Prefixes: vnet.AddressSpace}
	for a, is := range inside {
		if is {
			vnet.AddressSpace = append(vnet.AddressSpace, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	subnet.Prefixes = slices.Clone(vnet.AddressSpace)
	vnet.Subnets = []*policy.Subnet{subnet}
	r := &rig{t: t, clock: time.Hour}
	var err error
	r.engine, err = New(&policy.Set{NetworkSecurityGroups: []*ruleset.NSG{group}, VirtualNetworks: []*policy.VirtualNetwork{vnet}}, Options{
		Attachments: []topology.Spec{{Kind: topology.Subnet, Reference: "vnet1/captured"}, {Kind: topology.Internet}},
		Workers:     1, Flows: conntrack.Options{Max: 4096}, Fragments: fragment.Options{Max: 1024, Hold: 8},
		Clock: func() time.Duration { return r.clock }})
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	for range 2 {
		d, err := tuntest.NewMemory("mem", 1, 8)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		r.devices, devices = append(r.devices, d), append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	return r
}
