package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// rebuildSet is a policy of three NSGs. "tags", of vnet1's subnet, names a file's tag. "asg", of
// vnet2's subnet, names an application security group. Nothing uses "plain".
func rebuildSet() *policy.Set {
	set := twoNetworks()
	v1, v2 := set.VirtualNetworks[0], set.VirtualNetworks[1]
	tags := &ruleset.NSG{Name: "tags", ID: "/nsg/tags", Rules: []ruleset.Rule{
		allow("storage", 100, ruleset.Outbound, ruleset.Peer{Any: true}, ruleset.Peer{Tag: "Storage"}),
	}}
	asg := &ruleset.NSG{Name: "asg", ID: "/nsg/asg", Rules: []ruleset.Rule{
		allow("web", 100, ruleset.Inbound, ruleset.Peer{Any: true}, ruleset.Peer{ApplicationSecurityGroups: []string{"/asg/web"}}),
	}}
	plain := &ruleset.NSG{Name: "plain", ID: "/nsg/plain", Rules: []ruleset.Rule{
		allow("net", 100, ruleset.Inbound, ruleset.Peer{Prefixes: []netip.Prefix{pfx("192.0.2.0/24")}}, ruleset.Peer{Any: true}),
	}}
	set.NetworkSecurityGroups = []*ruleset.NSG{tags, asg, plain}
	v1.Subnets[0].NetworkSecurityGroup, v2.Subnets[0].NetworkSecurityGroup = tags, asg
	set.NetworkInterfaces[2].IPConfigurations[0].ApplicationSecurityGroups = []string{"/asg/web"}
	set.ServiceTags = map[string][]netip.Prefix{"Storage": {pfx("198.51.100.0/24"), pfx("2001:db8:5::/48")}}
	return set
}

func allow(name string, priority int, d ruleset.Direction, source, destination ruleset.Peer) ruleset.Rule {
	return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: ruleset.Allow, Protocol: ruleset.TCP, Source: source, Destination: destination,
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 443, Last: 443}}}
}

func mustBuild(t testing.TB, earlier *Snapshot, set *policy.Set, registry *Registry) *Snapshot {
	t.Helper()
	s, err := Rebuild(earlier, set, []Spec{{Kind: NetworkInterface, Reference: "vnet1a"}, {Kind: NetworkInterface, Reference: "vnet2a"}, {Kind: Internet}}, registry)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compiledAnew lists the directions of a snapshot that do not have the earlier one's tables.
func compiledAnew(earlier, s *Snapshot) []string {
	var list []string
	for i, g := range s.Groups {
		old := earlier.Groups[i]
		if g.Inbound.Match != old.Inbound.Match {
			list = append(list, g.NSG.Name+" Inbound")
		}
		if g.Outbound.Match != old.Outbound.Match {
			list = append(list, g.NSG.Name+" Outbound")
		}
	}
	return list
}

func TestRebuildCompilesOnlyWhatChanged(t *testing.T) {
	tests := []struct {
		name string
		edit func(*policy.Set)
		want []string
	}{
		{"nothing changed", func(*policy.Set) {}, nil},
		{"a rule's port", func(s *policy.Set) {
			s.NetworkSecurityGroups[2].Rules[0].DestinationPorts = []ruleset.PortRange{{First: 80, Last: 80}}
		}, []string{"plain Inbound"}},
		{"a rule's protocol", func(s *policy.Set) { s.NetworkSecurityGroups[2].Rules[0].Protocol = ruleset.UDP }, []string{"plain Inbound"}},
		{"a rule's source", func(s *policy.Set) {
			s.NetworkSecurityGroups[2].Rules[0].Source.Prefixes = []netip.Prefix{pfx("192.0.2.0/25")}
		}, []string{"plain Inbound"}},
		{"a rule more", func(s *policy.Set) {
			g := s.NetworkSecurityGroups[2]
			g.Rules = append(g.Rules, allow("more", 200, ruleset.Outbound, ruleset.Peer{Any: true}, ruleset.Peer{Any: true}))
		}, []string{"plain Outbound"}},
		{"a rule's access and name, which the classifier does not know", func(s *policy.Set) {
			s.NetworkSecurityGroups[2].Rules[0].Access, s.NetworkSecurityGroups[2].Rules[0].Name = ruleset.Deny, "other"
		}, nil},
		{"the content of a service tag", func(s *policy.Set) {
			s.ServiceTags["Storage"] = []netip.Prefix{pfx("198.51.100.0/24"), pfx("2001:db8:6::/48")}
		}, []string{"tags Outbound"}},
		{"the prefixes of a service tag in other memory", func(s *policy.Set) {
			s.ServiceTags["Storage"] = slices.Clone(s.ServiceTags["Storage"])
		}, nil},
		{"a member of an application security group", func(s *policy.Set) {
			s.NetworkInterfaces[3].IPConfigurations[0].ApplicationSecurityGroups = []string{"/asg/web"}
		}, []string{"asg Inbound"}},
		{"the address of a member", func(s *policy.Set) {
			s.NetworkInterfaces[2].IPConfigurations[0].Address = netip.MustParseAddr("10.0.1.77")
		}, []string{"asg Inbound"}},
		{"the address space of a virtual network", func(s *policy.Set) {
			s.VirtualNetworks[0].AddressSpace = append(s.VirtualNetworks[0].AddressSpace, pfx("10.9.0.0/16"))
		}, []string{"tags Inbound", "tags Outbound"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			registry := NewRegistry()
			before := mustBuild(t, nil, rebuildSet(), registry)
			set := rebuildSet()
			tt.edit(set)
			after := mustBuild(t, before, set, registry)
			if got := compiledAnew(before, after); !slices.Equal(got, tt.want) {
				t.Errorf("compiled %v, want %v", got, tt.want)
			}
		})
	}
}

// A reader gives an unchanged group as the same object. Its rules and slots are shared, but its
// tags and members may have changed.
func TestRebuildOfTheSameGroupsSeesWhatTheyReferTo(t *testing.T) {
	registry := NewRegistry()
	first, second := rebuildSet(), rebuildSet()
	second.NetworkSecurityGroups = first.NetworkSecurityGroups
	for i := range second.VirtualNetworks {
		second.VirtualNetworks[i].Subnets[0].NetworkSecurityGroup = first.VirtualNetworks[i].Subnets[0].NetworkSecurityGroup
	}
	second.ServiceTags["Storage"] = []netip.Prefix{pfx("198.51.100.0/25")}
	before := mustBuild(t, nil, first, registry)
	after := mustBuild(t, before, second, registry)
	if got, want := compiledAnew(before, after), []string{"tags Outbound"}; !slices.Equal(got, want) {
		t.Errorf("compiled %v, want %v", got, want)
	}
	old, now := &before.Groups[1].Inbound, &after.Groups[1].Inbound
	if &old.Rules[0] != &now.Rules[0] || &old.Slots[0] != &now.Slots[0] {
		t.Error("the rules or slots of an unchanged group are made anew")
	}
}

// Slots belong to one registry. Another numbers the rules by itself.
func TestRebuildWithAnotherRegistryNumbersTheRulesAnew(t *testing.T) {
	set := rebuildSet()
	before := mustBuild(t, nil, set, NewRegistry())
	other := NewRegistry()
	if _, err := other.reserve([]RuleKey{{Rule: "first"}}); err != nil {
		t.Fatal(err)
	}
	after := mustBuild(t, before, set, other)
	for _, g := range after.Groups {
		for _, table := range []*Table{&g.Inbound, &g.Outbound} {
			for i, slot := range table.Slots {
				if key := other.Keys()[slot]; key.Rule != table.Rules[i].Name || key.NetworkSecurityGroup != g.Label {
					t.Errorf("slot %d of %s is %+v", slot, table.Rules[i].Name, key)
				}
			}
		}
	}
	if got := compiledAnew(before, after); got != nil {
		t.Errorf("compiled %v, want nothing", got)
	}
}

// Compiling a tag's prefixes once for all rules needs one slice in all of them.
func TestRulesOfOneNetworkShareATagsPrefixes(t *testing.T) {
	set := rebuildSet()
	g := set.NetworkSecurityGroups[0]
	for i := range 3 {
		g.Rules = append(g.Rules, allow(fmt.Sprint("more", i), 200+i, ruleset.Outbound, ruleset.Peer{Tag: ruleset.TagVirtualNetwork}, ruleset.Peer{Tag: "Storage"}))
	}
	s := mustBuild(t, nil, set, NewRegistry())
	rules := s.Groups[0].Outbound.compiled
	for i := 1; i < 4; i++ {
		if &rules[i].Destinations[0] != &set.ServiceTags["Storage"][0] || &rules[i].Sources[0] != &rules[1].Sources[0] {
			t.Errorf("rule %d has prefixes of its own", i)
		}
	}
	if got := s.Groups[0].Expand("Storage"); &got[0] != &set.ServiceTags["Storage"][0] {
		t.Errorf("the tag expands to %v", got)
	}
}

func TestFaultsStandInThePolicysOrder(t *testing.T) {
	set := rebuildSet()
	set.ServiceTags = nil
	set.NetworkSecurityGroups[2].Rules[0].Source = ruleset.Peer{Tag: "Sql"}
	slices.Reverse(set.NetworkSecurityGroups)
	_, err := Build(set, []Spec{{Kind: NetworkInterface, Reference: "nobody"}}, NewRegistry())
	if err == nil {
		t.Fatal("no error")
	}
	last := -1
	for _, want := range []string{`"Sql"`, `"Storage"`, `"nobody"`} {
		at := strings.Index(err.Error(), want)
		if at <= last {
			t.Errorf("%s is not where it belongs in:\n%v", want, err)
		}
		last = at
	}
}

// TestRebuildEqualsBuild edits a policy at random many times. It compares the snapshot after each
// edit with one that is built from nothing, on one core and on all.
func TestRebuildEqualsBuild(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	r := rand.New(rand.NewPCG(6, 1))
	registry := NewRegistry()
	state := newRandomPolicy(r)
	var running *Snapshot
	for round := range rounds {
		set := state.set()
		running = mustBuild(t, running, set, registry)
		cores := runtime.GOMAXPROCS(1 + round%4)
		cold := mustBuild(t, nil, set, NewRegistry())
		runtime.GOMAXPROCS(cores)
		for range 200 {
			k := state.tuple()
			for i, g := range running.Groups {
				for _, pair := range [][2]*Table{{&g.Inbound, &cold.Groups[i].Inbound}, {&g.Outbound, &cold.Groups[i].Outbound}} {
					if got, want := pair[0].Match.FirstMatch(&k), pair[1].Match.FirstMatch(&k); got != want {
						t.Fatalf("round %d, %s, %+v: rule %d, built from nothing %d", round, g.NSG.Name, k, got, want)
					}
				}
			}
		}
		for _, g := range running.Groups {
			checkSlots(t, g, registry.Keys())
		}
		state.edit()
	}
}

func checkSlots(t *testing.T, g *Group, keys []RuleKey) {
	t.Helper()
	for _, table := range []*Table{&g.Inbound, &g.Outbound} {
		for i, slot := range table.Slots {
			r := &table.Rules[i]
			if want := (RuleKey{g.Label, r.Direction, ruleLabel(r), r.Access}); keys[slot] != want {
				t.Fatalf("slot %d counts for %+v, not for %+v", slot, keys[slot], want)
			}
		}
	}
}

// randomPolicy is a policy that is edited at random. A group without a change is sometimes the
// same object and sometimes an equal one, as after a reload.
type randomPolicy struct {
	r      *rand.Rand
	groups []*ruleset.NSG
	tags   map[string][]netip.Prefix
	spaces [2][]netip.Prefix
	member [4]string // the ASG of each NIC
}

func newRandomPolicy(r *rand.Rand) *randomPolicy {
	p := &randomPolicy{r: r, tags: map[string][]netip.Prefix{}}
	for i := range 4 {
		p.groups = append(p.groups, &ruleset.NSG{Name: fmt.Sprint("g", i), ID: fmt.Sprint("/nsg/g", i)})
		p.tags[fmt.Sprint("Tag", i)] = p.prefixes()
	}
	for i := range p.spaces {
		p.spaces[i] = []netip.Prefix{pfx("10.0.0.0/16")}
	}
	for range 30 {
		p.edit()
	}
	return p
}

// address is one of a few addresses, so that rules and packets meet.
func (p *randomPolicy) address() netip.Addr {
	if p.r.IntN(4) == 0 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(p.r.IntN(8))})
	}
	return netip.AddrFrom4([4]byte{10, byte(p.r.IntN(3)), byte(1 + p.r.IntN(2)), byte(p.r.IntN(8))})
}

func (p *randomPolicy) prefixes() []netip.Prefix {
	list := make([]netip.Prefix, 1+p.r.IntN(4))
	for i := range list {
		a := p.address()
		list[i] = netip.PrefixFrom(a, a.BitLen()-p.r.IntN(12)).Masked()
	}
	return list
}

func (p *randomPolicy) peer() ruleset.Peer {
	switch p.r.IntN(6) {
	case 0:
		return ruleset.Peer{Any: true}
	case 1:
		return ruleset.Peer{Tag: []string{ruleset.TagVirtualNetwork, ruleset.TagInternet, ruleset.TagAzureLoadBalancer}[p.r.IntN(3)]}
	case 2:
		return ruleset.Peer{Tag: fmt.Sprint("Tag", p.r.IntN(4))}
	case 3:
		return ruleset.Peer{ApplicationSecurityGroups: []string{fmt.Sprint("/asg/", p.r.IntN(3))}}
	}
	return ruleset.Peer{Prefixes: p.prefixes()}
}

func (p *randomPolicy) rule() ruleset.Rule {
	rule := allow(fmt.Sprint("r", p.r.IntN(20)), 100+p.r.IntN(1000), ruleset.Direction(p.r.IntN(2)), p.peer(), p.peer())
	rule.Access, rule.Protocol = ruleset.Access(p.r.IntN(2)), ruleset.Protocol(p.r.IntN(3))
	rule.DestinationPorts = []ruleset.PortRange{{First: uint16(p.r.IntN(4)), Last: 4}}
	return rule
}

// edit changes one thing. It replaces groups and never writes to them, as for all of a policy.
func (p *randomPolicy) edit() {
	i := p.r.IntN(len(p.groups))
	g := *p.groups[i]
	g.Rules = slices.Clone(g.Rules)
	switch n := len(g.Rules); p.r.IntN(9) {
	case 0, 1:
		g.Rules = append(g.Rules, p.rule())
	case 2:
		if n > 0 {
			g.Rules[p.r.IntN(n)] = p.rule()
		}
	case 3:
		if n > 0 {
			at := p.r.IntN(n)
			g.Rules = slices.Delete(g.Rules, at, at+1)
		}
	case 4:
		p.tags[fmt.Sprint("Tag", p.r.IntN(4))] = p.prefixes()
	case 5:
		p.member[p.r.IntN(4)] = []string{"", "/asg/0", "/asg/1", "/asg/2"}[p.r.IntN(4)]
	case 6:
		p.spaces[p.r.IntN(2)] = []netip.Prefix{pfx("10.0.0.0/16"), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + p.r.IntN(3)), 0, 0}), 16)}
	case 7:
		if n > 0 { // one field of a rule
			r := &g.Rules[p.r.IntN(n)]
			r.Protocol, r.DestinationPorts = ruleset.Protocol(p.r.IntN(3)), []ruleset.PortRange{{First: uint16(p.r.IntN(4)), Last: 4}}
		}
	case 8: // an equal group in other memory
	}
	p.groups[i] = &g
}

// set is the present policy, read again.
func (p *randomPolicy) set() *policy.Set {
	set := twoNetworks()
	set.NetworkSecurityGroups = slices.Clone(p.groups)
	set.ServiceTags = map[string][]netip.Prefix{}
	for name, prefixes := range p.tags {
		if p.r.IntN(2) == 0 {
			prefixes = slices.Clone(prefixes)
		}
		set.ServiceTags[name] = prefixes
	}
	for i, v := range set.VirtualNetworks {
		v.AddressSpace = p.spaces[i]
		for j, sub := range v.Subnets {
			sub.Prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(1 + j), 0}), 24)}
			sub.NetworkSecurityGroup = p.groups[i+j] // the second serves both networks
		}
	}
	for i, nic := range set.NetworkInterfaces {
		nic.IPConfigurations[0].Address = netip.AddrFrom4([4]byte{10, 0, byte(1 + i%2), byte(4 + i)})
		if p.member[i] != "" {
			nic.IPConfigurations[0].ApplicationSecurityGroups = []string{p.member[i]}
		}
	}
	return set
}

func (p *randomPolicy) tuple() packet.Tuple {
	k := packet.Tuple{Src: packet.AddrFrom(p.address()), SrcPort: 1, DstPort: uint16(p.r.IntN(6)),
		Proto: []uint8{packet.ProtoTCP, packet.ProtoUDP}[p.r.IntN(2)]}
	for k.Dst = packet.AddrFrom(p.address()); k.Dst.Is4() != k.Src.Is4(); k.Dst = packet.AddrFrom(p.address()) {
	}
	return k
}
