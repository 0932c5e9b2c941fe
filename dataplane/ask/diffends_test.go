package ask

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// onPath is what verify says of a packet's whole path; ok is false where verify cannot ask.
func onPath(s *topology.Snapshot, k *packet.Tuple) (access, rule string, ok bool) {
	senders := s.SendersFrom(k.Src.Netip())
	if len(senders) != 1 {
		return "", "", false
	}
	if echo := map[bool]uint16{true: packet.ICMPv4EchoRequest, false: packet.ICMPv6EchoRequest}[k.Src.Is4()]; isICMP(k) && k.DstPort != echo {
		return "", "", false
	}
	r, err := Verify(s, asFlow(nil, k, senders[0]), true)
	if err != nil {
		return "", "", false
	}
	return r.Access, r.RuleName, true
}

func pathsWith(paths []DiffPath, k *packet.Tuple) (n int) {
	for i := range paths {
		if slices.ContainsFunc(paths[i].Boxes, func(b DiffBox) bool { return b.has(k) }) {
			n++
		}
	}
	return n
}

// What is said to change end to end does: verify says Allow of the whole path under one policy and Deny under the other.
// What is said not to get through is denied under both. And each packet of a change between known ends is in one path.
func TestWhatChangesEndToEnd(t *testing.T) {
	pairs, changed, unchanged := worldsOf(300, 60), 0, 0
	for seed := range uint64(pairs) {
		s := randomPolicies(t, seed)
		for _, c := range Diff(s[0], s[1], DiffOptions{EndToEnd: true}).Changes {
			e := c.EndToEnd
			if e == nil || e.Undecided {
				continue
			}
			asked, other := s[1], s[0]
			if c.Kind == DiffDenied {
				asked, other = other, asked
			}
			hold := func(k packet.Tuple, by *DiffDecision) {
				access, rule, ok := onPath(asked, &k)
				against, _, known := onPath(other, &k)
				switch {
				case !ok || !known:
					return
				case by == nil && (access != "Allow" || against != "Deny"):
					t.Fatalf("seed %d: %s %s: %v is said to change end to end, and is %s and %s (%+v)", seed, c.Kind, c.Direction, k, access, against, c)
				case by != nil && (access != "Deny" || against != "Deny" || by.RuleName != rule):
					t.Fatalf("seed %d: %s %s: %v is said to be denied by %+v, and is %s by %s, and %s", seed, c.Kind, c.Direction, k, by, access, rule, against)
				case by == nil:
					changed++
				default:
					unchanged++
				}
			}
			for _, paths := range [][]DiffPath{e.Changed, e.Unchanged} {
				for i := range paths {
					k := paths[i].Witness.tuple(t)
					if pathsWith(paths[i:i+1], &k) != 1 || !slices.ContainsFunc(c.Boxes, func(b DiffBox) bool { return b.has(&k) }) {
						t.Fatalf("seed %d: witness %v is not of its path or not of its change: %+v", seed, k, c)
					}
					hold(k, paths[i].By)
				}
			}
			if !e.More {
				holdKnownEnds(t, seed, asked, &c)
			}
		}
	}
	if changed < pairs/6 || unchanged < pairs/20 {
		t.Errorf("the test is blind: %d change, %d do not", changed, unchanged)
	}
}

func hostAddress(r *rand.Rand, family int) packet.Addr {
	return packet.AddrFrom(netip.MustParseAddr(enginetest.Hosts[r.IntN(4)].Address(family)))
}

// holdKnownEnds asks of packets between the world's network interfaces.
func holdKnownEnds(t *testing.T, seed uint64, s *topology.Snapshot, c *DiffChange) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 9))
	for range 30 {
		family := r.IntN(2)
		k := packet.Tuple{Proto: []uint8{packet.ProtoTCP, packet.ProtoUDP}[r.IntN(2)], SrcPort: 49152, DstPort: []uint16{22, 53, 80, 443, 8080}[r.IntN(5)],
			Src: hostAddress(r, family), Dst: hostAddress(r, family)}
		if k.Src == k.Dst || len(s.SendersFrom(k.Src.Netip())) != 1 || s.SendersFrom(k.Src.Netip())[0].NetworkInterface == nil || s.Owner(k.Dst.Netip()) == nil {
			continue
		}
		in := slices.ContainsFunc(c.Boxes, func(b DiffBox) bool { return b.has(&k) })
		n := pathsWith(c.EndToEnd.Changed, &k) + pathsWith(c.EndToEnd.Unchanged, &k)
		if in && n != 1 || !in && n > 0 {
			t.Fatalf("seed %d: %s %s: %v is in the change: %v, and in %d paths", seed, c.Kind, c.Direction, k, in, n)
		}
	}
}

// Ends beyond the bound are told of, not asked about.
func TestKnownEndsAreBounded(t *testing.T) {
	side := newSideOf(randomPolicies(t, 1)[0])
	side.between(0)
	all, more := side.known(rangesOf(everyAddress), 1000, nil)
	if more || len(all.Prefixes()) < 4 {
		t.Fatalf("%v, more %v", all.Prefixes(), more)
	}
	if some, more := side.known(rangesOf(everyAddress), 2, nil); !more || len(some.Prefixes()) >= len(all.Prefixes()) {
		t.Errorf("%v of %v, more %v", some.Prefixes(), all.Prefixes(), more)
	}
}

// Networks that don't know each other may have the same addresses: a path is between the ends of one of them. The first
// network's ends were named for the others' too.
func TestPathsOfNetworksWithTheSameAddresses(t *testing.T) {
	const networks = 3
	for n := range networks {
		for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			found := 0
			for _, c := range Diff(sameAddresses(t, networks, -1, d), sameAddresses(t, networks, n, d), DiffOptions{EndToEnd: true}).Changes {
				if c.EndToEnd == nil {
					continue
				}
				for _, p := range slices.Concat(c.EndToEnd.Changed, c.EndToEnd.Unchanged) {
					for _, name := range slices.Concat(p.From, p.To) {
						if found++; !strings.HasSuffix(name, fmt.Sprint(n)) && !strings.HasPrefix(name, fmt.Sprint("v", n)) {
							t.Errorf("network %d, %v: %q to %q", n, d, p.From, p.To)
						}
					}
				}
			}
			if found < 2 {
				t.Errorf("network %d, %v: %d ends of paths", n, d, found)
			}
		}
	}
	paths := NewBetween(sameAddresses(t, networks, 0, ruleset.Inbound), 0)
	own, err := paths.End("nic:a2")
	if err != nil {
		t.Fatal(err)
	}
	to, err := paths.End("10.9.0.5")
	if err != nil {
		t.Fatal(err)
	}
	sets, err := paths.Ask(own, to, nil)
	if err != nil || len(sets.Sets) == 0 {
		t.Fatalf("%+v, %v", sets, err)
	}
	for i := range sets.Sets {
		if s := &sets.Sets[i]; !slices.Equal(s.To, []string{"b2"}) {
			t.Errorf("from a2 to 10.9.0.5: %q", s.To)
		}
	}
}

// sameAddresses are networks with the same two addresses, of a and b. Of all but the network open, rules deny what b
// receives, or a sends.
func sameAddresses(t *testing.T, networks, open int, d ruleset.Direction) *topology.Snapshot {
	t.Helper()
	set := &policy.Set{}
	space := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}
	for n := range networks {
		v := &policy.VirtualNetwork{Name: fmt.Sprint("v", n), ID: fmt.Sprint("/v", n), AddressSpace: space}
		v.Subnets = []*policy.Subnet{{Name: "s", ID: v.ID + "/s", VirtualNetwork: v, Prefixes: space}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		for i, name := range []string{"a", "b"} {
			nsg := &ruleset.NSG{Name: fmt.Sprint(name, n), ID: fmt.Sprint("/g", name, n)}
			if at := map[ruleset.Direction]int{ruleset.Outbound: 0, ruleset.Inbound: 1}[d]; at == i && n != open {
				nsg.Rules = []ruleset.Rule{enginetest.AnyRule("deny", 100, d, ruleset.Deny)}
			}
			set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, nsg)
			set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: nsg.Name, ID: "/n" + nsg.Name, NetworkSecurityGroup: nsg, IPConfigurations: []policy.IPConfiguration{{
				Name: "c", Address: netip.AddrFrom4([4]byte{10, 9, 0, byte(4 + i)}), Subnet: v.Subnets[0], Primary: true}}})
		}
	}
	return build(t, set)
}

// Networks with the same addresses are asked about as one: their pairs don't grow with the square of the networks.
func TestManyNetworksWithTheSameAddressesAreAnswered(t *testing.T) {
	const networks = 60
	paths := NewBetween(sameAddresses(t, networks, networks-1, ruleset.Inbound), 0)
	all, err := paths.End("10.9.0.0/24")
	if err != nil {
		t.Fatal(err)
	}
	sets, err := paths.Ask(all, all, nil)
	if err != nil || len(sets.Undecided) > 0 {
		t.Fatalf("%+v, %v", sets.Undecided, err)
	}
	network := func(name string) string { return strings.TrimLeft(strings.TrimSuffix(name, "/s"), "abv") }
	open := map[string]int{} // sets that reach a network
	for i := range sets.Sets {
		s := &sets.Sets[i]
		if s.Access != ruleset.Allow.String() {
			continue
		}
		in := network(s.To[0])
		open[in]++
		for _, name := range slices.Concat(s.From, s.To) {
			if network(name) != in {
				t.Errorf("%q to %q", s.From, s.To)
			}
		}
		if last := fmt.Sprint(networks - 1); in != last && slices.Contains(s.To, "b"+in) {
			t.Errorf("%q to %q: b of network %s alone is open", s.From, s.To, last)
		}
	}
	if len(open) != networks {
		t.Errorf("of %d networks, %d have a way: %v", networks, len(open), open)
	}
}
