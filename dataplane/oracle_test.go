package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/conntracktest"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// oracle says what must become of a frame, from the policy's own documents and
// from what it remembers: no snapshot, no compiled table, no flow table, no
// expiry. It shares with the pipeline the decoder, which gopacket's is held against,
// and with the flow table's tests the slow flow of conntracktest.
type oracle struct {
	set        *policy.Set
	generation int // counts the policies
	strict     bool
	blockSMTP  bool
	now        time.Duration
	flows      map[conntrack.Key]*oracleFlow // by both keys; those that are over too
	rules      map[topology.RuleKey]counter.Rule
	datagrams  map[datagramKey]*datagram
	hold       int // fragments that may wait
	inVain     int // that have waited in vain

	fruitless conntrack.Tick // of the last flow that found no room
}

// oracleFlow is why packets cross without a rule being asked.
type oracleFlow struct {
	conntracktest.Flow
	keys  [2]conntrack.Key
	rules []topology.RuleKey // that allowed it
	due   bool               // to be judged again
	stale bool               // judged by an older policy

	next *oracleFlow   // waits to take its place
	cut  time.Duration // how long it is kept after it was denied; 0: it was not
}

func (f *oracleFlow) over(now time.Duration) bool {
	if f.cut > 0 {
		return now-f.Seen >= f.cut
	}
	return f.Over(now)
}

// expectation is what must become of one frame.
type expectation struct {
	frame  []byte
	packet packet.Packet
	to     int // attachment, when drop is NotDropped
	drop   packet.Drop
	waits  bool               // neither carried nor dropped yet
	rules  []topology.RuleKey // that count the packet
	hit    bool               // and the verdict
	// begins is the flow that the packet begins, unless there is no room; ends the one
	// that it takes the place of.
	begins, ends *oracleFlow
	succeeds     *oracleFlow // the live flow that begins waits to replace
	again        bool        // a live flow was judged
	belongs      relation
	key          conntrack.Key // of the flow that it belongs to
	first        *datagram     // of which it is the first fragment
}

// expect says what must become of a frame from an attachment. It changes nothing
// but the flow and the datagram that the packet belongs to; settle does the rest.
func (o *oracle) expect(from int, frame []byte) (e expectation) {
	e.frame = frame
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
	k := datagramKey{p.Src, p.Dst, p.Fragment.ID, p.Fragment.Proto, from}
	switch {
	case p.Fragment.IsLater():
		o.laterFragment(k, &e)
	case !p.Fragment.IsFragment() || o.firstFragment(k, &e):
		o.decide(from, &e)
	}
	return e
}

// decide says what must become of a packet that has all its headers.
func (o *oracle) decide(from int, e *expectation) {
	p := &e.packet
	if p.IsICMPError() {
		o.related(from, e)
		return
	}
	e.key, e.belongs = conntrack.Key{Tuple: p.Tuple, Zone: uint16(from)}, inFlow
	f, side := o.lookup(e.key)
	if f != nil && o.accepted(f, e.key, p) {
		f, side = o.lookup(e.key)
	}
	if f != nil && !f.Restarts(side, p) && !f.Succeeds(side, p) {
		if side == conntracktest.Original && (f.due || f.stale && !f.Answered()) {
			e.again = true
			if o.judge(from, e); e.drop != packet.NotDropped {
				o.cut(f)
				return
			}
			f.due, f.rules, e.rules, e.hit = false, e.rules, nil, false
		}
		if side == conntracktest.Original {
			f.stale = false
		}
		if e.drop = f.Pass(side, p, o.now); e.drop == packet.NotDropped {
			e.to, e.rules = int(f.keys[1-side].Zone), f.rules
		}
		return
	}
	if cut := o.flows[e.key]; cut != nil && cut.cut > 0 && !cut.over(o.now) && cut.keys[conntracktest.Original] != e.key && !bareSYN(p) {
		cut.Seen, e.drop = o.now, packet.DropFlowCut
		return
	}
	if dst := o.find(from, p.Dst.Netip()); dst == nil || dst.at < 0 { // routes come first
		e.drop = packet.DropNoRoute
		return
	}
	e.drop = conntracktest.MayCreate(p, o.strict)
	stateless := o.stateless(from, p)
	if stateless {
		e.drop = conntracktest.MayCreateStateless(p)
	}
	if e.drop != packet.NotDropped {
		return
	}
	if o.judge(from, e); e.drop == packet.NotDropped {
		if f != nil && f.Succeeds(side, p) {
			e.succeeds = f
		} else {
			e.ends = f
		}
		e.begins = &oracleFlow{Flow: *conntracktest.Begin(p, o.now), rules: e.rules,
			keys: [2]conntrack.Key{e.key, {Tuple: p.Reverse(), Zone: uint16(e.to)}}}
		e.begins.Stateless = stateless
		if timeout := o.set.VirtualNetworks[0].FlowTimeout; timeout > 0 {
			e.begins.Established = timeout // one end is in the network, whatever the other is
		}
	}
}

func bareSYN(p *packet.Packet) bool {
	return p.Proto == packet.ProtoTCP && p.TCPFlags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// accepted gives a flow that waits the place of another, if p acknowledges its SYN.
func (o *oracle) accepted(f *oracleFlow, k conntrack.Key, p *packet.Packet) bool {
	next := f.next
	if p.Proto != packet.ProtoTCP || p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) != packet.SYN|packet.ACK ||
		next == nil || next.Over(o.now) || next.keys[conntracktest.Original] == k || !next.Answers(p) {
		return false
	}
	o.remove(f)
	for _, k := range next.keys {
		o.flows[k] = next
	}
	return true
}

// cut ends a flow that was denied. Its other side must not begin it again.
func (o *oracle) cut(f *oracleFlow) {
	if f.Proto != packet.ProtoTCP && f.Proto != packet.ProtoUDP {
		o.remove(f)
		return
	}
	_, _, f.cut = f.State()
	f.Seen, f.next = o.now, nil
}

// related says what must become of an ICMP error: it belongs to the live flow that it
// quotes, if the quoted packet went to where the error comes from; else the rules decide.
func (o *oracle) related(from int, e *expectation) {
	if quoted, ok := packet.DecodeQuote(e.frame[tun.HeaderLen:], &e.packet); ok {
		tuple := quoted.Tuple
		if quoted.Fragment.IsLater() {
			tuple, ok = o.quotedDatagram(from, &quoted)
		}
		key := conntrack.Key{Tuple: tuple.Reverse(), Zone: uint16(from)}
		if f, side := o.lookup(key); ok && f != nil {
			e.key, e.belongs, e.to, e.rules = key, related, int(f.keys[1-side].Zone), f.rules
			return
		}
	}
	o.judge(from, e)
}

func (o *oracle) decode(frame []byte, p *packet.Packet) packet.Drop {
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	size := h.GSOSize
	if h.GSOType == tun.GSONone {
		size = 0
	}
	var d packet.Decoder
	if drop := d.Decode(frame[tun.HeaderLen:], size, p); drop != packet.NotDropped {
		return drop
	}
	// A checksum that is left to do is the transport header's own, or one in the payload.
	offset, sums := map[uint8]uint16{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2, packet.ProtoICMPv6: 2}[p.Proto]
	itself := sums && h.CsumStart == p.HeaderLen && h.CsumOffset == offset && !p.Fragment.IsFragment()
	payload := h.GSOType == tun.GSONone && int(h.CsumStart)+int(h.CsumOffset) >= int(p.PayloadOffset) && !p.Fragment.IsFragment()
	switch {
	case h.Flags&tun.FlagNeedsCsum != 0 && !itself && !payload:
		return packet.DropOffload
	case h.GSOType == tun.GSONone:
		return packet.NotDropped
	}
	type claim struct {
		kind, proto uint8
		v4          bool
	}
	claimed := claim{h.GSOType &^ tun.GSOECN, p.Proto, p.Src.Is4()}
	if h.GSOSize == 0 || int(p.Len) != len(frame)-tun.HeaderLen || p.Fragment.IsFragment() || !slices.Contains([]claim{{tun.GSOTCPv4, 6, true}, {tun.GSOTCPv6, 6, false}, {tun.GSOUDPL4, 17, true}, {tun.GSOUDPL4, 17, false}}, claimed) {
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
	case src.Is6() && (src.IsLinkLocalUnicast() || dst.IsLinkLocalUnicast()):
		return packet.DropKernelNoise
	case src == dst:
		return packet.DropLand
	case src.IsMulticast(), src.IsLoopback(), within(unused, src), !o.owns(from, src):
		return packet.DropSpoofed
	}
	return packet.NotDropped
}

// owns reports whether an address may send from an attachment.
func (o *oracle) owns(at int, a netip.Addr) bool {
	switch spec := enginetest.Specs[at]; spec.Kind {
	case topology.NetworkInterface:
		nic := o.nic(spec.Reference)
		return nic.EnableIPForwarding && !slices.Contains(topology.PlatformAddresses, a) || slices.ContainsFunc(nic.IPConfigurations, func(c policy.IPConfiguration) bool { return c.Address == a })
	case topology.Platform:
		return slices.Contains(topology.PlatformAddresses, a)
	case topology.Internet:
		return packettest.OnInternet(a, func(a netip.Addr) bool { return o.inNetwork(a) || slices.Contains(topology.PlatformAddresses, a) })
	}
	e := o.find(at, a)
	return e != nil && e.at == at
}

func (o *oracle) nic(name string) *policy.NetworkInterface {
	i := slices.IndexFunc(o.set.NetworkInterfaces, func(n *policy.NetworkInterface) bool { return n.Name == name })
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
	nic    *policy.NetworkInterface
	subnet *policy.Subnet
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
	case at == enginetest.AtInternet || at == enginetest.AtPlatform: // which reach virtual networks and nothing else
		return nil
	case slices.Contains(topology.PlatformAddresses, a):
		return &oracleEnd{at: enginetest.AtPlatform}
	case o.inNetwork(a) || a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || within(nowhere, a):
		return nil
	}
	return &oracleEnd{at: enginetest.AtInternet}
}

// unused are addresses that no host has, besides loopback and multicast.
var unused = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96")}

// nowhere are ranges without a route besides the private, link-local and loopback ones.
var nowhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("240.0.0.0/4")}

// place is the attachment that leads to a NIC, or to the rest of a subnet; -1: none does.
func (o *oracle) place(nic, subnet string) int {
	for i, s := range enginetest.Specs {
		if s.Kind == topology.NetworkInterface && s.Reference == nic {
			return i
		}
	}
	return slices.IndexFunc(enginetest.Specs, func(s topology.Spec) bool {
		return s.Kind == topology.Subnet && strings.HasSuffix(s.Reference, "/"+subnet)
	})
}
