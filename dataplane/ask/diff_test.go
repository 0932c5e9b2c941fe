package ask

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// worldsOf is how many random worlds a test tries, fewer in short tests.
func worldsOf(all, short int) int {
	if testing.Short() {
		return short
	}
	return all
}

// randomPolicies are a policy and one that differs from it in a few choices.
func randomPolicies(t *testing.T, seed uint64) (snapshots [2]*topology.Snapshot) {
	t.Helper()
	for side, set := range randomSets(seed) {
		s, err := topology.Build(set, nil, topology.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		snapshots[side] = s
	}
	return snapshots
}

func randomSets(seed uint64) (sets [2]*policy.Set) {
	r := rand.New(rand.NewPCG(seed, 1))
	choices := make([]byte, 600)
	for i := range choices {
		choices[i] = uint8(r.Uint32())
	}
	for side := range sets {
		c := packettest.Choices(slices.Clone(choices))
		sets[side] = enginetest.PolicyFrom(&c)
		for range 1 + r.IntN(3) {
			choices[r.IntN(200)] = uint8(r.Uint32())
		}
	}
	return sets
}

// judged is what the engine's decision says of a packet that an endpoint sends or receives.
func judged(s *topology.Snapshot, e *topology.Endpoint, direction ruleset.Direction, k packet.Tuple) DiffDecision {
	p := packet.Packet{Tuple: k, Segments: 1}
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 {
		p.ICMPType, p.SrcPort, p.DstPort = uint8(k.DstPort), 0, 0
	}
	if k.Proto == packet.ProtoTCP {
		p.TCPFlags = packet.SYN
	}
	var d verdict.Decision
	var drop packet.Drop
	if direction == ruleset.Outbound {
		drop = d.AskSender(s, e, &p)
	} else {
		way := topology.Way{To: e, Arrives: p.Tuple, Closed: s.ClosedTo(e, k.Src.Netip())}
		drop = d.Receives(s, &way, &p)
	}
	out := DiffDecision{Access: "Allow", Reason: ReasonNoGroup}
	if drop != packet.NotDropped {
		out.Access = "Deny"
	}
	switch v := &d.Verdict; {
	case drop == packet.DropClosed:
		out.Reason = "closed"
	case v.N > 0:
		last := &v.Stages[v.N-1]
		out.NetworkSecurityGroup, out.RuleName, out.Reason = last.Stage.Group.Label, last.SecurityRule().QualifiedName(), ReasonRule
	case v.Service != topology.NoService:
		out.Reason = ReasonPlatform
	}
	return out
}

// in reports whether a text of a box has an address or a number.
func in(texts []string, a netip.Addr) bool {
	return slices.ContainsFunc(texts, func(text string) bool {
		if first, last, isRange := strings.Cut(text, "-"); isRange {
			return netip.MustParseAddr(first).Compare(a) <= 0 && a.Compare(netip.MustParseAddr(last)) <= 0 && netip.MustParseAddr(first).Is4() == a.Is4()
		}
		if p, err := netip.ParsePrefix(text); err == nil {
			return p.Contains(a)
		}
		return netip.MustParseAddr(text) == a
	})
}

func inNumbers(texts []string, n uint16) bool {
	return slices.ContainsFunc(texts, func(text string) bool {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		low, _ := strconv.Atoi(first)
		high, _ := strconv.Atoi(last)
		return low <= int(n) && int(n) <= high
	})
}

func (b *DiffBox) has(k *packet.Tuple) bool {
	if !in(b.Sources, k.Src.Netip()) || !in(b.Destinations, k.Dst.Netip()) {
		return false
	}
	named := packet.ProtocolName(k.Proto)
	foreign := k.Proto == packet.ProtoICMP && !k.Src.Is4() || k.Proto == packet.ProtoICMPv6 && k.Src.Is4()
	switch {
	case foreign:
		named = fmt.Sprint(k.Proto)
	case k.Proto == packet.ProtoGRE:
		named = "other"
	}
	switch b.Protocol {
	case "*":
		return true
	case named:
	default:
		return false
	}
	switch named {
	case "TCP", "UDP":
		return inNumbers(b.SourcePorts, k.SrcPort) && inNumbers(b.DestinationPorts, k.DstPort)
	case "ICMP", "ICMPv6":
		return inNumbers(b.ICMPTypes, k.DstPort)
	}
	return true
}

// randomTuple is a packet between an endpoint and somebody, as rules see it.
func randomTuple(r *rand.Rand, e *topology.Endpoint, d ruleset.Direction) packet.Tuple {
	family := 0
	if e.Address().Is6() {
		family = 1
	}
	other := netip.MustParseAddr(enginetest.Hosts[r.IntN(len(enginetest.Hosts))].Address(family))
	if other.Is4In6() {
		other = netip.MustParseAddr("2001:db8::1")
	}
	ports := []uint16{0, 8, 22, 53, 67, 79, 80, 81, 82, 128, 1023, 1024, 1688, 8037, 65535}
	k := packet.Tuple{Src: packet.AddrFrom(e.Address()), Dst: packet.AddrFrom(other)}
	k.Proto = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH, packet.ProtoGRE}[r.IntN(7)]
	icmp := map[bool]uint8{false: packet.ProtoICMP, true: packet.ProtoICMPv6}[family == 1]
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		k.SrcPort, k.DstPort = ports[r.IntN(len(ports))], ports[r.IntN(len(ports))]
	case icmp:
		k.DstPort = []uint16{0, 3, 8, 128, 255}[r.IntN(5)]
	}
	if d == ruleset.Inbound {
		k.Src, k.Dst = k.Dst, k.Src
	}
	return k
}

// Each packet that two policies treat differently is in one box, with both deciders, and no other is.
func TestDiffAgreesWithTheVerdictOfPackets(t *testing.T) {
	pairs, packets, differing := worldsOf(1000, 100), 60, 0
	for seed := range uint64(pairs) {
		s := randomPolicies(t, seed)
		result := Diff(s[0], s[1], DiffOptions{})
		if len(result.Undecided) > 0 {
			t.Fatalf("seed %d: not decided: %+v", seed, result.Undecided)
		}
		r := rand.New(rand.NewPCG(seed, 2))
		for _, e := range s[1].Endpoints() {
			if e.NetworkInterface == nil {
				continue
			}
			old := endpointLike(s[0], e)
			if old == nil {
				continue
			}
			for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
				for range packets {
					k := randomTuple(r, e, direction)
					was, is := judged(s[0], old, direction, k), judged(s[1], e, direction, k)
					if was.Access != is.Access {
						differing++
					}
					holdDiff(t, result, e, direction, &k, was, is)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if differing < pairs {
		t.Errorf("only %d packets of %d pairs differ: the test says little", differing, pairs)
	}
}

// What analysis finds reachable by a chain, and by which rule, is what the engine's decision says.
func TestAChainSaysWhatTheVerdictSays(t *testing.T) {
	policies, packets := worldsOf(60, 20), 40
	for seed := range uint64(policies) {
		s := randomPolicies(t, seed)[0]
		chains := verdict.NewChains(s)
		r := rand.New(rand.NewPCG(seed, 4))
		for _, e := range s.Endpoints() {
			if e.NetworkInterface == nil {
				continue
			}
			for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
				chain := chains.Of(e, direction)
				within := analysis.Packets{Sources: e.Judged()}
				if direction == ruleset.Inbound {
					within = analysis.Packets{Destinations: e.Judged()}
				}
				reachable := analysis.Reach(chain.Lists, analysis.Options{Within: within})
				for range packets {
					k := randomTuple(r, e, direction)
					got := DiffDecision{Access: "Deny"}
					for _, a := range reachable.Allowed {
						for i := range a.Boxes {
							if b := boxOf(&a.Boxes[i], &analysis.Names{}); b.has(&k) {
								got = decisionOf(chain.At(a.By.Stage, a.By.Rule), a.By.Access)
							}
						}
					}
					if want := judged(s, e, direction, k); got.Access != want.Access || got.Access == "Allow" && got != want {
						t.Fatalf("seed %d, %s of %s, %v (ports %d, %d): %+v, want %+v", seed, direction, e.NetworkInterface.Name, k, k.SrcPort, k.DstPort, got, want)
					}
				}
			}
		}
	}
}

// Two collections deny and allow the same. The random policies seldom have that.
func TestTheCollectionWithTheLowestPriorityNumberDecidesAChain(t *testing.T) {
	for first, want := range map[int]string{10: "Deny", 30: "Allow"} { // the second collection's rule has 20
		set := figureOfTheSeed()
		for i, access := range []ruleset.Access{ruleset.Deny, ruleset.AlwaysAllow} {
			set.AdminCollections = append(set.AdminCollections, &policy.AdminCollection{Networks: set.VirtualNetworks,
				Rules: &ruleset.NSG{Name: fmt.Sprint("nm/config/", i), ID: fmt.Sprint("/nm/", i), Admin: true, Rules: []ruleset.Rule{{
					Name: "all", Admin: true, Priority: []int{first, 20}[i], Direction: ruleset.Inbound, Access: access, Source: ruleset.Peer{Any: true},
					Destination: ruleset.Peer{Any: true}, SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}}}})
		}
		s, err := topology.Build(set, nil, topology.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		e := s.Endpoints()[0]
		k := packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr(world)), Dst: packet.AddrFrom(e.Address()), DstPort: 22, Proto: packet.ProtoTCP}
		if got := judged(s, e, ruleset.Inbound, k).Access; got != want {
			t.Errorf("the first collection has priority %d: the decision is %s, want %s", first, got, want)
		}
		reachable := analysis.Reach(verdict.NewChains(s).Of(e, ruleset.Inbound).Lists, analysis.Options{})
		if got := len(reachable.Allowed) > 0; got != (want == "Allow") {
			t.Errorf("the first collection has priority %d: reachable %v, want %s", first, got, want)
		}
	}
}

// endpointLike is the endpoint of another policy with the same NIC and address.
func endpointLike(s *topology.Snapshot, e *topology.Endpoint) *topology.Endpoint {
	nic, err := s.Policy.NetworkInterface(e.NetworkInterface.Name)
	if err != nil {
		return nil
	}
	return s.Endpoint(nic, e.Address())
}

func holdDiff(t *testing.T, result *DiffResult, e *topology.Endpoint, d ruleset.Direction, k *packet.Tuple, was, is DiffDecision) {
	t.Helper()
	var found []*DiffChange
	for i := range result.Changes {
		c := &result.Changes[i]
		if c.Direction != d.String() || !slices.Contains(c.NetworkInterfaces, e.NetworkInterface.Name) {
			continue
		}
		for j := range c.Boxes {
			if c.Boxes[j].has(k) {
				found = append(found, c)
			}
		}
	}
	switch {
	case was.Access == is.Access && len(found) == 0:
	case was.Access == is.Access || len(found) != 1:
		t.Errorf("%s of %s, %v (ports %d, %d): was %+v, is %+v, in %d boxes", d, e.NetworkInterface.Name, k, k.SrcPort, k.DstPort, was, is, len(found))
	case found[0].Old != was || found[0].New != is:
		t.Errorf("%s of %s, %v: was %+v, is %+v; the change says %+v and %+v", d, e.NetworkInterface.Name, k, was, is, found[0].Old, found[0].New)
	}
}

// tuple is a witness as rules see it.
func (w *DiffWitness) tuple(t *testing.T) packet.Tuple {
	t.Helper()
	k := packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr(w.Source)), Dst: packet.AddrFrom(netip.MustParseAddr(w.Destination))}
	number, err := strconv.Atoi(w.Protocol)
	k.Proto = uint8(number)
	if err != nil {
		k.Proto = map[string]uint8{"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPv6": 58, "ESP": 50, "AH": 51}[w.Protocol]
	}
	for _, f := range []struct {
		to   *uint16
		from *uint16
	}{{&k.SrcPort, w.SourcePort}, {&k.DstPort, w.DestinationPort}, {&k.DstPort, w.ICMPType}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	return k
}

// Every witness of diff is confirmed by verify, where verify can ask: it knows echo requests only.
func TestVerifyConfirmsTheWitnessesOfDiff(t *testing.T) {
	pairs, confirmed := worldsOf(1000, 100), 0
	for seed := range uint64(pairs) {
		s := randomPolicies(t, seed)
		for _, c := range Diff(s[0], s[1], DiffOptions{}).Changes {
			k := c.Witness.tuple(t)
			boxes := 0
			for i := range c.Boxes {
				if c.Boxes[i].has(&k) {
					boxes++
				}
			}
			if boxes != 1 {
				t.Fatalf("seed %d: witness %v is in %d boxes of %+v", seed, k, boxes, c)
			}
			if len(c.NetworkInterfaces) == 0 {
				continue
			}
			q := &azure.Flow{NetworkInterface: c.NetworkInterfaces[0], Direction: ruleset.Inbound, Protocol: k.Proto,
				Local: k.Dst.Netip(), LocalPort: k.DstPort, Remote: k.Src.Netip(), RemotePort: k.SrcPort}
			if c.Direction == "Outbound" {
				q.Direction, q.Local, q.Remote, q.LocalPort, q.RemotePort = ruleset.Outbound, q.Remote, q.Local, k.SrcPort, k.DstPort
			}
			if echo := map[bool]uint16{true: packet.ICMPv4EchoRequest, false: packet.ICMPv6EchoRequest}[k.Src.Is4()]; c.Witness.ICMPType != nil && k.DstPort != echo {
				continue
			}
			for i, want := range []DiffDecision{c.Old, c.New} {
				got, err := Verify(s[i], q, false)
				if err != nil {
					if strings.Contains(err.Error(), "has no address") { // it forwards
						continue
					}
					t.Fatalf("seed %d: %+v: %v", seed, q, err)
				}
				if got.Access != want.Access || got.RuleName != want.RuleName {
					t.Fatalf("seed %d: %s of %v: verify says %+v, diff %+v", seed, c.Direction, k, got, want)
				}
				confirmed++
			}
		}
	}
	if confirmed < pairs {
		t.Errorf("only %d answers of %d pairs were confirmed: the test says little", confirmed, pairs)
	}
}

// The rest of a subnet was told to be open at addresses of network interfaces that are closed without a group.
func TestTheRestOfASubnetLeavesClosedAddressesOut(t *testing.T) {
	public := &policy.PublicIPAddress{Name: "p", ID: "/p", SKU: policy.SKUStandard, Address: netip.MustParseAddr("203.0.113.99")}
	side := func(guard bool) *topology.Snapshot {
		set := figure([]ruleset.Rule{enginetest.AnyRule("none", 100, ruleset.Inbound, ruleset.Deny)}, nil)
		set.PublicIPAddresses = []*policy.PublicIPAddress{public}
		set.NetworkInterfaces[vm3].NetworkSecurityGroup, set.NetworkInterfaces[vm3].IPConfigurations[0].PublicIPAddress = nil, public
		if guard {
			set.VirtualNetworks[0].Subnets[1].NetworkSecurityGroup = set.NetworkSecurityGroups[0]
		}
		s, err := topology.Build(set, nil, topology.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	old, new := side(true), side(false)
	remote := netip.MustParseAddr("203.0.113.10")
	r, err := Verify(new, &azure.Flow{Direction: ruleset.Inbound, Protocol: packet.ProtoTCP, Local: netip.MustParseAddr(addr3), LocalPort: 80, Remote: remote, RemotePort: 5000}, false)
	if err != nil || r.Access+" "+r.Reason != "Deny closed" {
		t.Fatalf("%+v, %v", r, err)
	}
	found := false
	for _, c := range Diff(old, new, DiffOptions{}).Changes {
		for _, b := range c.Boxes {
			if !slices.Contains(c.Subnets, "vnet1/Subnet2") || !inTexts(t, b.Sources, remote) {
				continue
			}
			found = true
			if inTexts(t, b.Destinations, netip.MustParseAddr(addr3)) {
				t.Errorf("%s for %v: %s, which is closed", c.Kind, c.Subnets, addr3)
			}
		}
	}
	if !found {
		t.Error("the rest of the subnet is not open to the internet")
	}
}

// inTexts reports an address in prefixes, addresses and ranges.
func inTexts(t *testing.T, list []string, a netip.Addr) bool {
	t.Helper()
	return slices.ContainsFunc(list, func(text string) bool {
		if p, err := netip.ParsePrefix(text); err == nil {
			return p.Contains(a)
		}
		r, err := netipx.ParseIPRange(text)
		return err == nil && r.Contains(a) || text == a.String()
	})
}
