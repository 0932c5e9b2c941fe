package dataplane

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// slowTranslation says what must become of a flow's first packet in the figure with addresses that
// change, from the ARM objects and from Azure's order, read anew for each packet. IPv4, TCP and UDP.
type slowTranslation struct {
	*oracle // knows the first match of an NSG
}

// fate is one that a packet may have.
type fate struct {
	at       int
	src, dst string
	port     uint16 // of the destination
	chosen   bool   // the source port is one of a gateway's
}

// fates are those that a packet may have, one of which comes true, or the reason why there is none.
func (r slowTranslation) fates(from int, t packet.Tuple) (list []fate, drop packet.Drop) {
	dst := t.Dst.String()
	to := fate{at: internet, src: t.Src.String(), dst: dst, port: t.DstPort}
	local := slices.Index([]string{addr1, addr2, addr3, addr4}, dst)
	public := slices.ContainsFunc(r.set.PublicIPAddresses, func(p *policy.PublicIPAddress) bool { return p.Address.String() == dst })
	if from != internet {
		if r.groups(from, ruleset.Outbound, t) == ruleset.Deny {
			return nil, packet.DropRule
		}
		if local < 0 {
			if drop := r.leave(from, &to); drop != packet.NotDropped {
				return nil, drop
			}
			if public && to.src == t.Src.String() {
				return nil, packet.DropNoOutbound
			}
		}
	}
	public = public && local < 0
	switch {
	case local >= 0 && from == internet:
		return nil, packet.DropNoRoute
	case local >= 0:
		to.at = local
		list = []fate{to}
	case !public:
		list = []fate{to}
	default:
		if list = r.enter(to); list == nil {
			return nil, packet.DropNoFrontend
		}
	}
	for i := range list {
		if drop := r.receives(&list[i], t, public); drop != packet.NotDropped {
			if len(list) > 1 { // which backend it is decides
				list[i].at = -int(drop)
				continue
			}
			return nil, drop
		}
	}
	return list, packet.NotDropped
}

// leave gives a packet the source that the internet sees, by the first of Azure's methods that there is.
func (r slowTranslation) leave(from int, f *fate) packet.Drop {
	c := r.set.NetworkInterfaces[from].IPConfigurations[0]
	switch {
	case c.Subnet.NATGateway != nil:
		f.src, f.chosen = c.Subnet.NATGateway.Addresses[0].Address.String(), true
	case c.PublicIPAddress != nil:
		f.src = c.PublicIPAddress.Address.String()
	case from == vm3 || from == vm4: // behind a Standard load balancer without outbound rules
		return packet.DropNoOutbound
	case c.Subnet.DisableDefaultOutbound:
		return packet.DropNoOutbound
	}
	return packet.NotDropped
}

// enter lists the endpoints that a public address leads to.
func (r slowTranslation) enter(to fate) (list []fate) {
	for i, nic := range r.set.NetworkInterfaces {
		if p := nic.IPConfigurations[0].PublicIPAddress; p != nil && p.Address.String() == to.dst {
			to.at, to.dst = i, nic.IPConfigurations[0].Address.String()
			return []fate{to}
		}
	}
	if to.port != 80 || to.dst != balanced && to.dst != floats {
		return nil
	}
	for _, at := range []int{vm3, vm4} {
		one := to
		if one.at = at; to.dst == balanced {
			one.dst, one.port = r.set.NetworkInterfaces[at].IPConfigurations[0].Address.String(), 8080
		}
		list = append(list, one)
	}
	return list
}

// standard reports a NIC that some Standard address leads to.
func (r slowTranslation) standard(at int) bool {
	for _, c := range r.set.NetworkInterfaces[at].IPConfigurations {
		if p := c.PublicIPAddress; p != nil && p.SKU != policy.SKUBasic {
			return true
		}
	}
	return (at == vm3 || at == vm4) && r.set.LoadBalancers[0].SKU != policy.SKUBasic
}

// receives asks the receiver's end of a packet as it arrives, by a public address or another one.
func (r slowTranslation) receives(f *fate, sent packet.Tuple, public bool) packet.Drop {
	if f.at == internet {
		return packet.NotDropped
	}
	nic := r.set.NetworkInterfaces[f.at]
	if public && r.standard(f.at) && nic.NetworkSecurityGroup == nil && nic.IPConfigurations[0].Subnet.NetworkSecurityGroup == nil {
		return packet.DropClosed
	}
	k := sent
	k.Src, k.Dst, k.DstPort = packet.AddrFrom(netip.MustParseAddr(f.src)), packet.AddrFrom(netip.MustParseAddr(f.dst)), f.port
	if r.groups(f.at, ruleset.Inbound, k) == ruleset.Deny {
		return packet.DropRule
	}
	return packet.NotDropped
}

// groups asks the network security groups of a NIC and its subnet.
func (r slowTranslation) groups(at int, d ruleset.Direction, k packet.Tuple) ruleset.Access {
	nic := r.set.NetworkInterfaces[at]
	for _, g := range []*ruleset.NSG{nic.NetworkSecurityGroup, nic.IPConfigurations[0].Subnet.NetworkSecurityGroup} {
		if g != nil && r.firstMatch(g, d, &packet.Packet{Tuple: k}).Access == ruleset.Deny {
			return ruleset.Deny
		}
	}
	return ruleset.Allow
}

// randomTranslation is the figure with some of the addresses that change, some NSGs and rules that
// name private and public addresses.
func randomTranslation(random *rand.Rand) *policy.Set {
	coin := func() bool { return random.IntN(2) == 0 }
	var rules [2][]ruleset.Rule
	for i := range rules {
		for n := range 8 {
			some := func() string {
				return pickOf(random, "", addr1, addr2, addr4, public1, public2, shared, balanced, floats, world)
			}
			r := on(string(rune('a'+n)), 100+n, pickOf(random, ruleset.Inbound, ruleset.Outbound), pickOf(random, ruleset.Allow, ruleset.Deny), some(), some(),
				pickOf[uint16](random, 0, 80, 8080))
			rules[i] = append(rules[i], r)
		}
		rules[i] = append(rules[i], anyRule("in", 900, ruleset.Inbound, pickOf(random, ruleset.Allow, ruleset.Deny)))
	}
	p := translating(dualStack(figure(rules[0], rules[1])))
	gateway := p.VirtualNetworks[0].Subnets[2].NATGateway
	for _, s := range p.VirtualNetworks[0].Subnets {
		s.NATGateway, s.NetworkSecurityGroup, s.DisableDefaultOutbound = nil, nil, coin()
		if coin() {
			s.NetworkSecurityGroup = pickOf(random, p.NetworkSecurityGroups...)
		}
	}
	pickOf(random, p.VirtualNetworks[0].Subnets...).NATGateway = gateway
	for i, nic := range p.NetworkInterfaces {
		if nic.NetworkSecurityGroup = nil; coin() {
			nic.NetworkSecurityGroup = pickOf(random, p.NetworkSecurityGroups...)
		}
		if i == vm1 && coin() {
			nic.IPConfigurations[0].PublicIPAddress, p.NetworkInterfaces[vm4].IPConfigurations[0].PublicIPAddress = nil, nic.IPConfigurations[0].PublicIPAddress
		}
	}
	for _, a := range p.PublicIPAddresses {
		a.SKU = pickOf(random, policy.SKUBasic, policy.SKUStandard)
	}
	return p
}

func TestTranslatedPacketsAreJudgedAsTheARMObjectsSay(t *testing.T) {
	worlds := 300
	if testing.Short() {
		worlds = 60
	}
	met := map[string]int{}
	for seed := range worlds {
		random := rand.New(rand.NewPCG(uint64(seed), 21))
		set := randomTranslation(random)
		r := newRig(t, set, conntrack.Options{Max: 4096})
		slow := slowTranslation{&oracle{set: set}}
		for n := range uint16(60) {
			from := random.IntN(numAttachments)
			tuple := packet.Tuple{Proto: pickOf[uint8](random, packet.ProtoTCP, packet.ProtoUDP), SrcPort: 100 + n, DstPort: pickOf[uint16](random, 80, 8080, 53),
				Src: packet.AddrFrom(netip.MustParseAddr([]string{addr1, addr2, addr3, addr4, world}[from])),
				Dst: packet.AddrFrom(netip.MustParseAddr(pickOf(random, addr1, addr2, addr3, addr4, public1, public2, shared, balanced, floats, world2)))}
			if tuple.Src == tuple.Dst || from == internet && tuple.Dst.String() == world2 {
				continue // which have nothing to do with translation
			}
			fates, drop := slow.fates(from, tuple)
			out := r.pass(from, framed(madeOf(tuple, 0, 0)))
			if why := differs(t, &tuple, out, fates, drop); why != "" {
				t.Fatalf("world %d: %v from %d came out at %d, %s %s; want %s or %+v", seed, tuple, from, out.at, out.drop, why, drop, fates)
			}
			met[out.drop]++
		}
	}
	for _, why := range []packet.Drop{packet.DropRule, packet.DropClosed, packet.DropNoFrontend, packet.DropNoOutbound} {
		if met[why.String()] == 0 {
			t.Errorf("nothing was dropped as %s", why)
		}
	}
	t.Log(met)
}

// differs says how what came out is none of the fates; empty when it is one.
func differs(t *testing.T, sent *packet.Tuple, out frameOut, fates []fate, drop packet.Drop) string {
	if drop != packet.NotDropped || out.at < 0 {
		if drop != packet.NotDropped && out.drop == drop.String() && out.at < 0 ||
			slices.ContainsFunc(fates, func(f fate) bool { return f.at < 0 && out.at < 0 && packet.Drop(-f.at).String() == out.drop }) {
			return ""
		}
		return "dropped or not"
	}
	p := decoded(t, out.frame)
	for _, f := range fates {
		same := p.SrcPort == sent.SrcPort
		if f.chosen {
			same = p.SrcPort >= sharedLow
		}
		if same && f.at == out.at && f.src == p.Src.String() && f.dst == p.Dst.String() && f.port == p.DstPort {
			return ""
		}
	}
	return p.Tuple.String()
}
