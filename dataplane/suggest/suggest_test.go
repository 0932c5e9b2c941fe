package suggest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/export"
	"github.com/nsgd/nsgd/ruleset/policy"
)

const prefix = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/"

// world is two subnets with a group each: four web servers of one application security group, a database of another one, and
// a machine of none with a group of its own. The second network is apart.
func world(t *testing.T, rules map[string][]ruleset.Rule) *topology.Snapshot {
	t.Helper()
	nsg := func(name string) *ruleset.NSG {
		return &ruleset.NSG{Name: name, ID: prefix + "networkSecurityGroups/" + name, Location: "westeurope", Rules: rules[name]}
	}
	webNSG, dbNSG, nicNSG, farNSG := nsg("web-nsg"), nsg("db-nsg"), nsg("nic-nsg"), nsg("far-nsg")
	set := &policy.Set{NetworkSecurityGroups: []*ruleset.NSG{webNSG, dbNSG, nicNSG, farNSG}, ServiceTags: map[string][]netip.Prefix{"Storage": {netip.MustParsePrefix("20.60.0.0/16")}}}
	network := func(name, space string) *policy.VirtualNetwork {
		v := &policy.VirtualNetwork{Name: name, ID: prefix + "virtualNetworks/" + name, AddressSpace: []netip.Prefix{netip.MustParsePrefix(space)}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		return v
	}
	subnet := func(v *policy.VirtualNetwork, name, p string, g *ruleset.NSG) *policy.Subnet {
		s := &policy.Subnet{Name: name, ID: v.ID + "/subnets/" + name, VirtualNetwork: v, Prefixes: []netip.Prefix{netip.MustParsePrefix(p)}, NetworkSecurityGroup: g}
		v.Subnets = append(v.Subnets, s)
		return s
	}
	nic := func(name, a string, s *policy.Subnet, g *ruleset.NSG, groups ...string) {
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: name, ID: prefix + "networkInterfaces/" + name, NetworkSecurityGroup: g,
			IPConfigurations: []policy.IPConfiguration{{Name: "ipconfig1", Address: netip.MustParseAddr(a), Subnet: s, Primary: true, ApplicationSecurityGroups: groups}}})
	}
	web, db := prefix+"applicationSecurityGroups/web", prefix+"applicationSecurityGroups/db"
	for _, id := range []string{web, db} {
		set.ApplicationSecurityGroups = append(set.ApplicationSecurityGroups, &policy.ApplicationSecurityGroup{Name: id[len(prefix):], ID: id})
	}
	v1, v2 := network("vnet1", "10.0.0.0/16"), network("vnet2", "10.9.0.0/16")
	webs, dbs, far := subnet(v1, "web", "10.0.1.0/24", webNSG), subnet(v1, "db", "10.0.2.0/24", dbNSG), subnet(v2, "far", "10.9.0.0/24", farNSG)
	for i := range 4 {
		nic(fmt.Sprintf("web%d", i), fmt.Sprintf("10.0.1.%d", 4+i), webs, nil, web)
	}
	nic("db0", "10.0.2.4", dbs, nil, db)
	nic("db1", "10.0.2.5", dbs, nicNSG)
	nic("far0", "10.9.0.4", far, nil)
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readBack are groups as a reader understands them.
func readBack(t *testing.T, groups []Group) map[string][]ruleset.Rule {
	t.Helper()
	read := map[string][]ruleset.Rule{}
	for i := range groups {
		dir := t.TempDir()
		var b bytes.Buffer
		if err := export.Write(&b, export.ARM, []*ruleset.NSG{groups[i].NSG}); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{"nsg.json": b.Bytes(), "asg.json": export.ApplicationSecurityGroups(groups[i].NSG)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d := arm.Load(dir)
		if len(d.Faults)+len(d.Unresolved) > 0 {
			t.Fatalf("%v %v\n%s", d.Faults, d.Unresolved, b.String())
		}
		read[groups[i].NSG.Name] = d.Set.NetworkSecurityGroups[0].Rules
	}
	return read
}

// seen makes sightings of both ends of a packet.
func see(t *testing.T, c *Collector, protocol uint8, src, dst string, port uint16) {
	t.Helper()
	if err := seeErr(c, protocol, netip.MustParseAddr(src), netip.MustParseAddr(dst), port); err != nil {
		t.Fatal(err)
	}
}

func seeErr(c *Collector, protocol uint8, src, dst netip.Addr, port uint16) error {
	k := packet.Tuple{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst), SrcPort: 40000, DstPort: port, Proto: protocol}
	for _, s := range []Sighting{{End: c.snapshot.Owner(src), Outbound: true, Tuple: k}, {End: c.snapshot.Owner(dst), Tuple: k}} {
		if s.End == nil || s.End.Subnet == nil {
			continue
		}
		if err := c.Add(&s); err != nil {
			return err
		}
	}
	return nil
}

func lines(groups []Group) (list []string) {
	for i := range groups {
		for k := range groups[i].NSG.Rules {
			r := &groups[i].NSG.Rules[k]
			short := func(p *ruleset.Peer) string {
				return strings.ReplaceAll(strings.Join(p.Texts(), ","), prefix+"applicationSecurityGroups/", "")
			}
			list = append(list, fmt.Sprintf("%s %v %d %v %v %s>%s %v seen %d", groups[i].NSG.Name, r.Direction, r.Priority, r.Access, r.Protocol, short(&r.Source), short(&r.Destination), r.DestinationPorts, groups[i].Rules[k].Seen))
		}
	}
	return list
}

// What is seen becomes groups, subnets, tags and lists of ports.
func TestWhatWasSeenIsGrouped(t *testing.T) {
	c := NewCollector(world(t, nil), Options{Tags: map[string][]netip.Prefix{"Storage": {netip.MustParsePrefix("20.60.0.0/16")}, "AzureCloud": {netip.MustParsePrefix("20.0.0.0/8")}}})
	for i := range 20 {
		see(t, c, packet.ProtoTCP, fmt.Sprintf("8.8.8.%d", i), "10.0.1.4", 443) // many of the internet
	}
	see(t, c, packet.ProtoTCP, "8.8.4.4", "10.0.1.5", 22)    // one
	see(t, c, packet.ProtoTCP, "10.0.1.4", "10.0.2.4", 1433) // group to group
	see(t, c, packet.ProtoTCP, "10.0.1.4", "10.0.2.4", 1434)
	see(t, c, packet.ProtoTCP, "10.0.1.7", "20.60.1.1", 443)    // a service tag
	see(t, c, packet.ProtoUDP, "10.0.1.4", "168.63.129.16", 53) // of the platform
	see(t, c, packet.ProtoICMP, "10.0.2.200", "10.0.2.5", 0)    // others of the subnet
	see(t, c, packet.ProtoICMP, "10.0.2.201", "10.0.2.5", 0)
	groups := mustRules(t, c)
	want := []string{
		"web-nsg Inbound 100 Allow Tcp 8.8.4.4>web [22] seen 1",
		"web-nsg Inbound 110 Allow Tcp Internet>web [443] seen 20",
		"web-nsg Inbound 4096 Deny * *>* [*] seen 0",
		"web-nsg Outbound 100 Allow Tcp web>Storage [443] seen 1",
		"web-nsg Outbound 110 Allow Tcp web>db [1433-1434] seen 2",
		"web-nsg Outbound 4096 Deny * *>* [*] seen 0",
		"db-nsg Inbound 100 Allow Tcp web>db [1433-1434] seen 2",
		"db-nsg Inbound 110 Allow Icmp 10.0.2.0/24>10.0.2.5 [*] seen 2",
		"db-nsg Inbound 4096 Deny * *>* [*] seen 0",
		"db-nsg Outbound 100 Allow Icmp 10.0.2.0/24>10.0.2.5 [*] seen 2",
		"db-nsg Outbound 4096 Deny * *>* [*] seen 0",
		"nic-nsg Inbound 100 Allow Icmp 10.0.2.0/24>10.0.2.5 [*] seen 2",
		"nic-nsg Inbound 4096 Deny * *>* [*] seen 0",
		"nic-nsg Outbound 4096 Deny * *>* [*] seen 0",
	}
	if diff := cmp.Diff(want, lines(groups)); diff != "" {
		t.Error(diff)
	}
	if s := c.Seen(); s.Platform != 1 || s.Sightings != 31 {
		t.Errorf("%+v", s)
	}
}

// random sees packets between all sorts of ends.
func random(t *testing.T, r *rand.Rand, c *Collector) {
	t.Helper()
	address := func() netip.Addr {
		switch r.IntN(5) {
		case 0:
			return netip.AddrFrom4([4]byte{10, 0, 1, byte(4 + r.IntN(6))})
		case 1:
			return netip.AddrFrom4([4]byte{10, 0, 2, byte(4 + r.IntN(6))})
		case 2:
			return netip.AddrFrom4([4]byte{20, 60, byte(r.IntN(2)), byte(r.IntN(4))})
		case 3:
			return netip.AddrFrom4([4]byte{8, 8, 8, byte(r.IntN(100))})
		}
		return netip.AddrFrom4([4]byte{10, 9, 0, byte(4 + r.IntN(3))})
	}
	for range 1 + r.IntN(120) {
		protocol := []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoGRE}[r.IntN(5)]
		if err := seeErr(c, protocol, address(), address(), []uint16{22, 80, 81, 443, uint16(r.IntN(1000))}[r.IntN(5)]); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever was seen passes under what is suggested, within the bounds, and what passes beyond it is told exactly.
func TestAllThatWasSeenPassesAndWhatIsBeyondIsTold(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	tags := map[string][]netip.Prefix{"Storage": {netip.MustParsePrefix("20.60.0.0/16")}}
	widened := false
	for n := range 120 {
		o := Options{Tags: tags, MaxRules: []int{0, 0, 1, 2, 5}[r.IntN(5)], KeepDefaults: r.IntN(4) == 0}
		c := NewCollector(world(t, nil), o)
		random(t, r, c)
		groups := mustRules(t, c)
		rules := readBack(t, groups)
		after := world(t, rules)
		proof := c.Prove(after, groups)
		if proof.Judged != len(c.keys) || proof.Allowed != proof.Judged || len(proof.Untold) > 0 {
			t.Fatalf("%d: %d of %d pass, %+v, untold %v\n%s", n, proof.Allowed, proof.Judged, proof.NotAllowed, proof.Untold, strings.Join(lines(groups), "\n"))
		}
		for i := range groups {
			count := map[ruleset.Direction]int{}
			for k := range groups[i].NSG.Rules {
				rule := &groups[i].NSG.Rules[k]
				if rule.Access == ruleset.Allow {
					count[rule.Direction]++
				}
				widened = widened || groups[i].Rules[k].Widened
			}
			if o.MaxRules > 0 && max(count[0], count[1]) > o.MaxRules {
				t.Fatalf("%d rules, allowed are %d", max(count[0], count[1]), o.MaxRules)
			}
		}
		sample(t, r, c, after, groups, proof)
	}
	if !widened {
		t.Error("no rule was ever widened")
	}
}

// sample holds what is beyond to random packets: each group allows what was seen, and what is told, and nothing else.
func sample(t *testing.T, r *rand.Rand, c *Collector, after *topology.Snapshot, groups []Group, proof *Proof) {
	t.Helper()
	for range 300 {
		end := c.ends[r.IntN(len(c.ends))]
		d := ruleset.Direction(r.IntN(2))
		own := end.Judged()[0].Addr()
		if end.NetworkInterface == nil {
			own = netip.AddrFrom4([4]byte{10, own.As4()[1], own.As4()[2], byte(4 + r.IntN(6))})
			if o := c.snapshot.Owner(own); o != end {
				continue
			}
		}
		remote := []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(1 + r.IntN(2)), byte(4 + r.IntN(6))}), netip.AddrFrom4([4]byte{8, 8, 8, byte(r.IntN(120))}), netip.AddrFrom4([4]byte{20, 60, 0, byte(r.IntN(6))})}[r.IntN(3)]
		k := key{c.index[endID(end)], d == ruleset.Outbound, packet.AddrFrom(own), packet.AddrFrom(remote), []uint8{packet.ProtoTCP, packet.ProtoUDP}[r.IntN(2)], []uint16{22, 80, 82, 443}[r.IntN(4)]}
		for i := range groups {
			at := slices.IndexFunc(stagesOf(end, d), func(s topology.Stage) bool { return s.Group.NSG.ID == groups[i].NSG.ID })
			if at < 0 {
				continue
			}
			tuple := k.tuple()
			var table *topology.Table
			for _, e := range after.Endpoints() {
				if endID(e) == endID(end) {
					table = stagesOf(e, d)[at].Table
				}
			}
			allows := table.Rules[table.Match.FirstMatch(&tuple)].Access == ruleset.Allow
			_, was := c.keys[k]
			for o := range c.keys {
				same := o
				same.remote = k.remote
				was = was || same == k && c.whole(o) && c.tagOf(o.remote) == c.tagOf(k.remote) && c.in(end, ruleset.TagInternet, k.remote)
			}
			told := slices.ContainsFunc(proof.Beyond, func(b Beyond) bool {
				return b.NetworkSecurityGroup == groups[i].NSG.Name && b.Direction == d.String() && slices.ContainsFunc(b.Boxes, func(box ask.DiffBox) bool { return boxHas(&box, &tuple) })
			})
			if allows != (was || told) || was && told {
				t.Fatalf("%s %v %v: allowed %v, seen %v, told %v\n%s", groups[i].NSG.Name, d, tuple, allows, was, told, strings.Join(lines(groups), "\n"))
			}
		}
	}
}

func boxHas(b *ask.DiffBox, k *packet.Tuple) bool {
	address := func(list []string, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(text string) bool {
			if p, err := netip.ParsePrefix(text); err == nil {
				return p.Contains(a)
			}
			if first, last, ok := strings.Cut(text, "-"); ok {
				return netip.MustParseAddr(first).Compare(a) <= 0 && a.Compare(netip.MustParseAddr(last)) <= 0
			}
			return netip.MustParseAddr(text) == a
		})
	}
	ports := func(list []string, n uint16) bool {
		return slices.ContainsFunc(list, func(text string) bool {
			var first, last uint16
			if n, _ := fmt.Sscanf(text, "%d-%d", &first, &last); n == 1 {
				last = first
			}
			return first <= n && n <= last
		})
	}
	protocol := b.Protocol == "*" || b.Protocol == packet.ProtocolName(k.Proto)
	return protocol && address(b.Sources, k.Src.Netip()) && address(b.Destinations, k.Dst.Netip()) && ports(b.SourcePorts, k.SrcPort) && ports(b.DestinationPorts, k.DstPort)
}

// The same sightings give the same document, in whatever order they come.
func TestTheOrderDoesNotMatter(t *testing.T) {
	write := func(reverse bool) string {
		c := NewCollector(world(t, nil), Options{MaxRules: 3})
		var list [][2]netip.Addr
		for i := range 200 {
			list = append(list, [2]netip.Addr{netip.AddrFrom4([4]byte{8, 8, byte(i % 7), byte(i)}), netip.AddrFrom4([4]byte{10, 0, 1, byte(4 + i%4)})})
		}
		if reverse {
			slices.Reverse(list)
		}
		for i, of := range list {
			if reverse {
				i = len(list) - 1 - i
			}
			if err := seeErr(c, packet.ProtoTCP, of[0], of[1], uint16(i*i%50)); err != nil {
				t.Fatal(err)
			}
		}
		return strings.Join(lines(mustRules(t, c)), "\n")
	}
	if a, b := write(false), write(true); a != b {
		t.Error(cmp.Diff(a, b))
	}
}

// Of one service the addresses of the internet are bounded, and what is seen in all.
func TestWhatIsToldApartIsBounded(t *testing.T) {
	c := NewCollector(world(t, nil), Options{})
	for i := range 100_000 {
		if err := seeErr(c, packet.ProtoTCP, netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)}), netip.MustParseAddr("10.0.1.4"), 443); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.keys) > maxOutside {
		t.Errorf("%d are told apart", len(c.keys))
	}
	groups := mustRules(t, c)
	if p := c.Prove(world(t, readBack(t, groups)), groups); p.Allowed != p.Judged || len(p.Beyond) != 1 {
		t.Errorf("%+v", p) // beyond are the other machines of the group
	}
	for k := range MaxServices {
		c.keys[key{end: -1, remote: packet.AddrFrom4([4]byte{1, byte(k >> 16), byte(k >> 8), byte(k)})}] = struct{}{}
	}
	if err := seeErr(c, packet.ProtoTCP, netip.MustParseAddr("10.0.1.4"), netip.MustParseAddr("10.0.2.4"), 9); !errors.Is(err, ErrTooMany) {
		t.Errorf("more than %d: %v", MaxServices, err)
	}
}

func TestDeniedCountsWhereItIsAskedFor(t *testing.T) {
	for _, denied := range []bool{false, true} {
		c := NewCollector(world(t, nil), Options{Denied: denied})
		b := replay.Beginning{Sender: c.snapshot.Owner(netip.MustParseAddr("8.8.8.8")), Receiver: c.snapshot.Owner(netip.MustParseAddr("10.0.1.4")),
			Sent: packet.Tuple{Src: packet.AddrFrom4([4]byte{8, 8, 8, 8}), Dst: packet.AddrFrom4([4]byte{10, 0, 1, 4}), SrcPort: 9999, DstPort: 22, Proto: packet.ProtoTCP}}
		b.Arrives = b.Sent
		if err := c.AddBeginning(&b); err != nil {
			t.Fatal(err)
		}
		if s := c.Seen(); s.Denied != 1 || len(mustRules(t, c)) != map[bool]int{false: 0, true: 1}[denied] {
			t.Errorf("denied %v: %+v, %d groups", denied, s, len(mustRules(t, c)))
		}
	}
}

// A connection that had begun before the capture belongs to the end with the higher port.
func TestInMidstreamTheLowerPortIsTheServers(t *testing.T) {
	c := NewCollector(world(t, map[string][]ruleset.Rule{"web-nsg": {{Name: "web", Priority: 100, Access: ruleset.Allow, Protocol: ruleset.TCP, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
		SourcePorts: everyPort, DestinationPorts: everyPort}}}), Options{})
	b := replay.Beginning{Midstream: true, Receiver: c.snapshot.Owner(netip.MustParseAddr("8.8.8.8")), Sender: c.snapshot.Owner(netip.MustParseAddr("10.0.1.4")),
		Sent: packet.Tuple{Src: packet.AddrFrom4([4]byte{10, 0, 1, 4}), Dst: packet.AddrFrom4([4]byte{8, 8, 8, 8}), SrcPort: 443, DstPort: 9999, Proto: packet.ProtoTCP}}
	b.Arrives = b.Sent
	if err := c.AddBeginning(&b); err != nil {
		t.Fatal(err)
	}
	if got := lines(mustRules(t, c)); len(got) != 3 || !strings.Contains(got[0], "Inbound 100 Allow Tcp 8.8.8.8>web [443]") {
		t.Errorf("%q", got)
	}
}

// A live flow is two sightings, each as its end sees it.
func TestALiveFlowIsSeenAtBothEnds(t *testing.T) {
	c := NewCollector(world(t, nil), Options{})
	flow := inspect.Flow{Protocol: "TCP", Source: "10.0.1.4", SourcePort: 40000, Destination: "20.1.1.1", DestinationPort: 80, From: "web0", To: "db0",
		Translated: &inspect.FlowTuple{Source: "10.0.1.4", SourcePort: 40000, Destination: "10.0.2.4", DestinationPort: 8080}}
	if err := c.AddFlow(&flow); err != nil {
		t.Fatal(err)
	}
	flow.From = "" // the record of the receiver's end
	if err := c.AddFlow(&flow); err != nil {
		t.Fatal(err)
	}
	if err := c.AddFlow(&inspect.Flow{Protocol: "TCP", Source: "10.0.1.4", Destination: "10.0.2.4", From: "gone", To: "db0", DestinationPort: 1}); err != nil {
		t.Fatal(err)
	}
	got := lines(mustRules(t, c))
	for _, want := range []string{"web-nsg Outbound 100 Allow Tcp web>20.1.1.1 [80] seen 1", "db-nsg Inbound 100 Allow Tcp web>db [1 8080] seen 2"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not among %q", want, got)
		}
	}
	if s := c.Seen(); s.Other != 1 || s.Sightings != 5 {
		t.Errorf("%+v", s)
	}
}

// Names that somebody chose become names that Azure takes.
func TestNamesAreThoseThatAzureTakes(t *testing.T) {
	taken := map[string]bool{}
	hostile := draft{own: ruleset.Peer{ApplicationSecurityGroups: []string{"/x/\"';${é}" + strings.Repeat("a", 200) + "-."}}, remote: ruleset.Peer{Any: true}, protocol: ruleset.TCP, ports: everyPort}
	for range 3 {
		name := unique(taken, nameOf(&hostile, ruleset.Inbound))
		g := ruleset.NetworkSecurityGroup{Name: "g", SecurityRules: []ruleset.SecurityRule{{Name: name}}}
		_, faults := g.Validate(nil)
		if slices.ContainsFunc(faults, func(f ruleset.Fault) bool { return f.Field == "name" }) {
			t.Errorf("%q: %v", name, faults)
		}
	}
	if len(taken) != 3 {
		t.Errorf("%d names", len(taken))
	}
}

// So many rules that not all pairs are compared, and so many addresses that Azure's limits are met.
func TestManyRulesStayWithinAzuresLimits(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	c := NewCollector(world(t, nil), Options{})
	for range 20_000 {
		if err := seeErr(c, packet.ProtoTCP, netip.AddrFrom4([4]byte{8, 8, byte(r.IntN(4)), byte(r.IntN(256))}), netip.AddrFrom4([4]byte{10, 0, 1, byte(r.IntN(250))}), uint16(r.IntN(5000))); err != nil {
			t.Fatal(err)
		}
	}
	groups := mustRules(t, c)
	after := world(t, readBack(t, groups)) // which refuses what Azure refuses
	if p := c.Prove(after, groups); p.Judged != len(c.keys) || p.Allowed != p.Judged || p.Judged < 15_000 {
		t.Errorf("%d of %d pass", p.Allowed, p.Judged)
	}
}

// BenchmarkSuggest makes rules of a million sightings.
func BenchmarkSuggest(b *testing.B) {
	t := &testing.T{}
	for b.Loop() {
		r := rand.New(rand.NewPCG(5, 5))
		c := NewCollector(world(t, nil), Options{})
		for range 1_000_000 {
			if err := seeErr(c, packet.ProtoTCP, netip.AddrFrom4([4]byte{8, 8, byte(r.IntN(256)), byte(r.IntN(256))}), netip.AddrFrom4([4]byte{10, 0, 1, byte(r.IntN(250))}), uint16(r.IntN(65536))); err != nil {
				b.Fatal(err)
			}
		}
		mustRules(t, c)
		b.ReportMetric(float64(len(c.keys)), "distinct")
	}
}
