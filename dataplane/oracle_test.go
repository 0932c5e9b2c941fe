package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/conntracktest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/tun"
)

// oracle says what must become of a frame, from the policy's own documents and
// from what it remembers: no snapshot, no compiled table, no flow table, no
// expiry. It shares with the pipeline the decoder, which gopacket's is held against,
// and with the flow table's tests the slow flow of conntracktest.
type oracle struct {
	set    *arm.Set
	strict bool
	now    time.Duration
	flows  map[conntrack.Key]*oracleFlow // by both keys; those that are over too
	rules  map[topology.RuleKey]RuleCount
}

// oracleFlow is why packets cross without a rule being asked.
type oracleFlow struct {
	conntracktest.Flow
	keys  [2]conntrack.Key
	rules []topology.RuleKey // that allowed it
}

// expectation is what must become of one frame.
type expectation struct {
	packet packet.Packet
	to     int // attachment, when drop is NotDropped
	drop   packet.Drop
	rules  []topology.RuleKey // that count the packet
	hit    bool               // and the verdict
	// begins is the flow that the packet begins, unless there is no room; ends the one
	// that it takes the place of.
	begins, ends *oracleFlow
}

// expect says what must become of a frame from an attachment. It changes nothing
// but the flow that the packet belongs to.
func (o *oracle) expect(from int, frame []byte) (e expectation) {
	p := &e.packet
	e.drop = o.decode(frame, p)
	if p.Segments == 0 {
		p.Segments, p.WireLen = 1, uint32(len(frame)-tun.HeaderLen)
	}
	if e.drop != packet.NotDropped {
		return e
	}
	if e.drop = o.admit(from, p); e.drop != packet.NotDropped {
		return e
	}
	key := conntrack.Key{Tuple: p.Tuple, Zone: uint16(from)}
	if p.IsICMPError() {
		if quoted, ok := packet.DecodeQuote(frame[tun.HeaderLen:], p); ok {
			if f, side := o.lookup(conntrack.Key{Tuple: quoted.Reverse(), Zone: uint16(from)}); f != nil {
				e.to, e.rules = int(f.keys[1-side].Zone), f.rules
				return e
			}
		}
		o.judge(from, &e)
		return e
	}
	f, side := o.lookup(key)
	if f != nil && !f.Restarts(side, p) {
		if e.drop = f.Pass(side, p, o.now); e.drop == packet.NotDropped {
			e.to, e.rules = int(f.keys[1-side].Zone), f.rules
		}
		return e
	}
	if e.drop = conntracktest.MayCreate(p, o.strict); e.drop != packet.NotDropped {
		return e
	}
	if o.judge(from, &e); e.drop == packet.NotDropped {
		e.ends = f
		e.begins = &oracleFlow{Flow: *conntracktest.Begin(p, o.now), rules: e.rules,
			keys: [2]conntrack.Key{key, {Tuple: p.Reverse(), Zone: uint16(e.to)}}}
		if timeout := o.set.VirtualNetworks[0].FlowTimeout; timeout > 0 {
			e.begins.Established = timeout // one end is in the network, whatever the other is
		}
	}
	return e
}

func (o *oracle) decode(frame []byte, p *packet.Packet) packet.Drop {
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	size := h.GSOSize
	if h.GSOType == tun.GSONone {
		size = 0
	}
	var d packet.Decoder
	if drop := d.Decode(frame[tun.HeaderLen:], size, p); drop != packet.NotDropped || h.GSOType == tun.GSONone {
		return drop
	}
	type claim struct {
		kind, proto uint8
		v4          bool
	}
	claimed := claim{h.GSOType &^ tun.GSOECN, p.Proto, p.Src.Is4()}
	if h.GSOSize == 0 || !slices.Contains([]claim{{tun.GSOTCPv4, 6, true}, {tun.GSOTCPv6, 6, false}, {tun.GSOUDPL4, 17, true}, {tun.GSOUDPL4, 17, false}}, claimed) {
		return packet.DropOffload
	}
	return packet.NotDropped
}

// admit refuses what no virtual network carries, and senders that are not who they say.
func (o *oracle) admit(from int, p *packet.Packet) packet.Drop {
	src, dst := p.Src.Netip(), p.Dst.Netip()
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case dst.IsMulticast() && (src.IsLinkLocalUnicast() || src.IsUnspecified() || dst.IsLinkLocalMulticast() || dst.IsInterfaceLocalMulticast()):
		return packet.DropKernelNoise
	case dst.IsMulticast(), dst == broadcast:
		return packet.DropBroadcast
	case src.Is6() && src.IsLinkLocalUnicast():
		return packet.DropKernelNoise
	case src == dst, src.IsMulticast(), src == broadcast, src.IsLoopback(), src.IsUnspecified(), !o.owns(from, src):
		return packet.DropSpoofed
	}
	return packet.NotDropped
}

// owns reports whether an address may send from an attachment.
func (o *oracle) owns(at int, a netip.Addr) bool {
	switch spec := oracleSpecs[at]; spec.Kind {
	case topology.NetworkInterface:
		nic := o.nic(spec.Reference)
		return nic.EnableIPForwarding || slices.ContainsFunc(nic.IPConfigurations, func(c arm.IPConfiguration) bool { return c.Address == a })
	case topology.Platform:
		return slices.Contains(topology.PlatformAddresses, a)
	case topology.Internet:
		return !o.inNetwork(a) && !slices.Contains(topology.PlatformAddresses, a)
	}
	e := o.find(at, a)
	return e != nil && e.at == at
}

func (o *oracle) nic(name string) *arm.NetworkInterface {
	i := slices.IndexFunc(o.set.NetworkInterfaces, func(n *arm.NetworkInterface) bool { return n.Name == name })
	return o.set.NetworkInterfaces[i]
}

func (o *oracle) inNetwork(a netip.Addr) bool {
	return within(o.set.VirtualNetworks[0].AddressSpace, a)
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// oracleEnd is who has an address: at is where, -1 nowhere; nic and subnet are nil outside.
type oracleEnd struct {
	at     int
	nic    *arm.NetworkInterface
	subnet *arm.Subnet
}

// find says who has an address as seen from an attachment; nil when nobody can have it.
func (o *oracle) find(at int, a netip.Addr) *oracleEnd {
	for _, nic := range o.set.NetworkInterfaces {
		for _, c := range nic.IPConfigurations {
			if c.Address == a {
				return &oracleEnd{o.place(nic.Name, c.Subnet.Name), nic, c.Subnet}
			}
		}
	}
	for _, s := range o.set.VirtualNetworks[0].Subnets {
		for _, p := range s.Prefixes {
			switch {
			case !p.Contains(a):
			case a.Is4() && !p.Contains(a.Next()): // the subnet's broadcast address
				return nil
			default:
				return &oracleEnd{o.place("", s.Name), nil, s}
			}
		}
	}
	switch {
	case at == atInternet || at == atPlatform: // which reach virtual networks and nothing else
		return nil
	case slices.Contains(topology.PlatformAddresses, a):
		return &oracleEnd{at: atPlatform}
	case o.inNetwork(a) || a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || within(nowhere, a):
		return nil
	}
	return &oracleEnd{at: atInternet}
}

// nowhere are ranges without a route besides the private, link-local and loopback ones.
var nowhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("240.0.0.0/4")}

// place is the attachment that leads to a NIC, or to the rest of a subnet; -1: none does.
func (o *oracle) place(nic, subnet string) int {
	for i, s := range oracleSpecs {
		if s.Kind == topology.NetworkInterface && s.Reference == nic {
			return i
		}
	}
	return slices.IndexFunc(oracleSpecs, func(s topology.Spec) bool {
		return s.Kind == topology.Subnet && strings.HasSuffix(s.Reference, "/"+subnet)
	})
}

// judge asks the NSGs on the way in Azure's order: first match by priority, the first
// Deny ends it, a place without an NSG allows.
func (o *oracle) judge(from int, e *expectation) {
	dst := o.find(from, e.packet.Dst.Netip())
	if dst == nil || dst.at < 0 {
		e.drop = packet.DropNoRoute
		return
	}
	src := o.sender(from, e.packet.Src.Netip())
	e.to, e.hit = dst.at, true
	for _, stage := range []struct {
		group     *ruleset.NSG
		direction ruleset.Direction
	}{{src.nicGroup(), ruleset.Outbound}, {src.subnetGroup(), ruleset.Outbound}, {dst.subnetGroup(), ruleset.Inbound}, {dst.nicGroup(), ruleset.Inbound}} {
		if stage.group == nil {
			continue
		}
		key := o.firstMatch(stage.group, stage.direction, &e.packet)
		if n := len(e.rules); n == 0 || e.rules[n-1] != key { // one NSG at both places counts once
			e.rules = append(e.rules, key)
		}
		if key.Access == ruleset.Deny {
			e.drop = packet.DropRule
			return
		}
	}
}

// sender is who an admitted packet comes from.
func (o *oracle) sender(from int, a netip.Addr) *oracleEnd {
	spec := oracleSpecs[from]
	if spec.Kind == topology.Internet || spec.Kind == topology.Platform {
		return &oracleEnd{at: from}
	}
	if spec.Kind == topology.NetworkInterface { // which may forward for somebody else
		nic := o.nic(spec.Reference)
		return &oracleEnd{from, nic, nic.IPConfigurations[0].Subnet}
	}
	return o.find(from, a)
}

func (e *oracleEnd) nicGroup() *ruleset.NSG {
	if e.nic == nil {
		return nil
	}
	return e.nic.NetworkSecurityGroup
}

func (e *oracleEnd) subnetGroup() *ruleset.NSG {
	if e.subnet == nil {
		return nil
	}
	return e.subnet.NetworkSecurityGroup
}

// azureDefaults are the rules that every NSG ends with, as Azure's documents have them.
var azureDefaults = func() []ruleset.Rule {
	anyone, network := ruleset.Peer{Any: true}, ruleset.Peer{Tag: "VirtualNetwork"}
	rule := func(name string, priority int, d ruleset.Direction, a ruleset.Access, src, dst ruleset.Peer) ruleset.Rule {
		every := []ruleset.PortRange{{First: 0, Last: 65535}}
		return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: a, Source: src, Destination: dst, SourcePorts: every, DestinationPorts: every}
	}
	return []ruleset.Rule{
		rule("AllowVnetInBound", 65000, ruleset.Inbound, ruleset.Allow, network, network),
		rule("AllowAzureLoadBalancerInBound", 65001, ruleset.Inbound, ruleset.Allow, ruleset.Peer{Tag: "AzureLoadBalancer"}, anyone),
		rule("DenyAllInBound", 65500, ruleset.Inbound, ruleset.Deny, anyone, anyone),
		rule("AllowVnetOutBound", 65000, ruleset.Outbound, ruleset.Allow, network, network),
		rule("AllowInternetOutBound", 65001, ruleset.Outbound, ruleset.Allow, anyone, ruleset.Peer{Tag: "Internet"}),
		rule("DenyAllOutBound", 65500, ruleset.Outbound, ruleset.Deny, anyone, anyone),
	}
}()

// firstMatch is the matching rule of the lowest priority.
func (o *oracle) firstMatch(g *ruleset.NSG, d ruleset.Direction, p *packet.Packet) topology.RuleKey {
	k := p.Tuple
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 { // rules see the type as destination port
		k.SrcPort, k.DstPort = 0, uint16(p.ICMPType)
	}
	var best *ruleset.Rule
	rules := slices.Concat(g.Rules, azureDefaults)
	for i := range rules {
		r := &rules[i]
		one := classifier.Linear{{Protocol: r.Protocol, Sources: o.asPrefixes(&r.Source, k.Src), Destinations: o.asPrefixes(&r.Destination, k.Dst),
			SourcePorts: r.SourcePorts, DestinationPorts: r.DestinationPorts}}
		if r.Direction == d && (best == nil || r.Priority < best.Priority) && one.FirstMatch(&k) == 0 {
			best = r
		}
	}
	key := topology.RuleKey{NetworkSecurityGroup: g.Name, Direction: d, Rule: best.Name, Access: best.Access}
	if best.Priority <= 4096 && slices.ContainsFunc(azureDefaults, func(r ruleset.Rule) bool { return r.Direction == d && r.Name == best.Name }) {
		key.Rule = "securityRules/" + best.Name // the default rule of that name counts for itself
	}
	return key
}

// asPrefixes is the part of a rule's side that can matter for one address.
func (o *oracle) asPrefixes(peer *ruleset.Peer, addr packet.Addr) []netip.Prefix {
	a := addr.Netip()
	matches := false
	network := o.inNetwork(a) || a == topology.PlatformAddresses[0]
	switch {
	case peer.Any:
		matches = true
	case peer.Tag == "VirtualNetwork":
		matches = network
	case peer.Tag == "Internet":
		matches = !network && (a.Is4() && !within(notPublic, a) || within(globalUnicast, a))
	case peer.Tag == "AzureLoadBalancer":
		matches = a == topology.PlatformAddresses[0]
	case len(peer.ApplicationSecurityGroups) > 0:
		for _, nic := range o.set.NetworkInterfaces {
			for _, c := range nic.IPConfigurations {
				matches = matches || c.Address == a && slices.ContainsFunc(c.ApplicationSecurityGroups, func(id string) bool {
					return strings.EqualFold(id, peer.ApplicationSecurityGroups[0])
				})
			}
		}
	default:
		return peer.Prefixes
	}
	if matches {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	return nil
}

// notPublic is what Azure's Internet tag leaves out of IPv4 (azure-docs, service
// tags), globalUnicast all that it has of IPv6.
var (
	notPublic = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/3")}
	globalUnicast = []netip.Prefix{netip.MustParsePrefix("2000::/3")}
)
