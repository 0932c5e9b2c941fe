// Package suggest finds the least rules that allow what was seen. A Collector takes sightings, each of them what one end of a
// virtual network has seen of a flow's first packet, and sums them up. Rules groups them by application security group, subnet,
// service tag and port, as Azure's rules can say it. Prove asks the verdict about each sighting under the new rules, and package
// analysis which packets they allow beyond.
package suggest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

const (
	// MaxServices bounds what is told apart: ends with a protocol, a port and the other end, whoever sends. It takes some
	// hundred megabytes.
	MaxServices = 1_000_000
	// maxOutside is how many addresses of the internet are told apart of one end, protocol and port. The others count as
	// the whole internet, or the whole service tag.
	maxOutside = 64
)

// Sighting is what one end has seen of a packet that began a flow, or was denied.
type Sighting struct {
	// End is the end of a virtual network; of any snapshot of the collector's policy.
	End *topology.Endpoint
	// Outbound says that the end has sent the packet.
	Outbound bool
	// Tuple is the packet as the end's rules see it.
	Tuple packet.Tuple
	// Denied says that it was not let through.
	Denied bool
}

// Seen counts sightings.
type Seen struct {
	Sightings uint64 `json:"sightings"`
	// Distinct are different ends, protocols and ports among those that count.
	Distinct int `json:"distinct"`
	// Denied were not let through, and count only where that was asked for.
	Denied uint64 `json:"denied"`
	// WithoutGroup are of ends without a network security group in the direction; Platform are for services of the platform,
	// which need no rule; Other are of no end of a virtual network.
	WithoutGroup uint64 `json:"withoutGroup"`
	Platform     uint64 `json:"platform"`
	Other        uint64 `json:"other"`
}

// key is what is told apart of sightings.
type key struct {
	end         int32 // index in ends
	outbound    bool
	own, remote packet.Addr
	protocol    uint8
	port        uint16
}

// service is a key without the other end, but for the service tag that it is of.
type service struct {
	key
	tag string
}

// Collector sums up sightings. It is owned by one goroutine.
type Collector struct {
	Options
	snapshot *topology.Snapshot
	ends     []*topology.Endpoint
	index    map[string]int32 // of ends, by endID
	seen     Seen
	keys     map[key]struct{}
	outside  map[service]int // addresses of the internet; above maxOutside not all are in keys
	tags     *bart.Table[string]
	sets     map[setKey]*netipx.IPSet
	members  map[string][]netip.Prefix // of application security groups, by id in lower case
	decision verdict.Decision
}

// Options choose what is suggested.
type Options struct {
	// Denied takes sightings that were denied too.
	Denied bool
	// Tags are the service tags that rules may name, besides those of Azure's built-in ones.
	Tags map[string][]netip.Prefix
	// MaxRules is how many rules each network security group gets in each direction, besides the last one; 0: half of
	// ruleset.MaxRulesPerGroup.
	MaxRules int
	// KeepDefaults leaves what Azure's default rules allow allowed. Else a last rule denies all that was not seen.
	KeepDefaults bool
	// Keep leaves the groups the rules that they have, and adds those that allow what these deny. Sightings that were denied
	// count, and no last rule is added.
	Keep bool
	// Groups are the network security groups that get rules; nil: all.
	Groups []*ruleset.NSG
}

// Check says what is wrong with options. The error begins with the field.
func (o *Options) Check() error {
	if most := ruleset.MaxRulesPerGroup/2 - 1; o.MaxRules < 0 || o.MaxRules > most {
		return fmt.Errorf("max-rules %d: allowed are 1 to %d", o.MaxRules, most)
	}
	return nil
}

type setKey struct {
	network *policy.VirtualNetwork
	tag     string
}

// NewCollector makes a collector for a policy's snapshot.
func NewCollector(s *topology.Snapshot, o Options) *Collector {
	c := &Collector{Options: o, snapshot: s, index: map[string]int32{}, keys: map[key]struct{}{}, outside: map[service]int{}, tags: &bart.Table[string]{},
		sets: map[setKey]*netipx.IPSet{}, members: map[string][]netip.Prefix{}}
	for i, e := range s.Endpoints() {
		c.ends = append(c.ends, e)
		c.index[endID(e)] = int32(i)
	}
	for _, tag := range broadestFirst(o.Tags) {
		for _, p := range o.Tags[tag] {
			c.tags.Insert(p, tag)
		}
	}
	for _, nic := range s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			ip := &nic.IPConfigurations[i]
			for _, id := range ip.ApplicationSecurityGroups {
				c.members[strings.ToLower(id)] = append(c.members[strings.ToLower(id)], netip.PrefixFrom(ip.Address, ip.Address.BitLen()))
			}
		}
	}
	return c
}

// broadestFirst are the names of tags, without those of all customers' machines.
func broadestFirst(tags map[string][]netip.Prefix) (names []string) {
	sizes := map[string]float64{}
	for tag, prefixes := range tags {
		if name, _, _ := strings.Cut(tag, "."); strings.EqualFold(name, "AzureCloud") {
			continue
		}
		names = append(names, tag)
		for _, p := range prefixes {
			sizes[tag] += sizeOf(p)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sizes[b], sizes[a]), cmp.Compare(b, a)) })
	return names
}

// sizeOf counts addresses. All of IPv6 count as many as all of IPv4.
func sizeOf(p netip.Prefix) float64 {
	size := float64(uint64(1) << 32)
	for range p.Bits() {
		size /= 2
	}
	return size
}

// endID is the same for an end in all policies that are read from the same documents.
func endID(e *topology.Endpoint) string {
	if e.NetworkInterface != nil {
		return strings.ToLower(e.NetworkInterface.ID) + " " + e.Address().String()
	}
	return strings.ToLower(e.Subnet.ID)
}

// ErrTooMany refuses more than MaxServices.
var ErrTooMany = fmt.Errorf("more than %d different ends, protocols and ports were seen: choose fewer", MaxServices)

// Judge says whether the policy denies what an end has seen.
func (c *Collector) Judge(s *Sighting) (denied bool) {
	return !c.allowed(c.snapshot, s.End, s.Outbound, &s.Tuple)
}

// allowed asks an end's own rules about a flow's first packet.
func (c *Collector) allowed(s *topology.Snapshot, end *topology.Endpoint, outbound bool, t *packet.Tuple) bool {
	p := firstPacket(*t)
	if outbound {
		return c.decision.AskSender(s, end, &p) == packet.NotDropped
	}
	way := topology.Way{To: end, Arrives: p.Tuple, Closed: s.ClosedTo(end, t.Src.Netip())}
	return c.decision.Receives(s, &way, &p) == packet.NotDropped
}

// firstPacket is a packet that begins a flow.
func firstPacket(t packet.Tuple) packet.Packet {
	p := packet.Packet{Tuple: t, Segments: 1}
	switch p.Proto {
	case packet.ProtoTCP:
		p.TCPFlags = packet.SYN
	case packet.ProtoICMP:
		p.ICMPType = packet.ICMPv4EchoRequest
	case packet.ProtoICMPv6:
		p.ICMPType = packet.ICMPv6EchoRequest
	}
	return p
}

// Add takes a sighting. The error is ErrTooMany.
func (c *Collector) Add(s *Sighting) error {
	c.seen.Sightings++
	if s.End == nil || s.End.Subnet == nil {
		c.seen.Other++
		return nil
	}
	at, known := c.index[endID(s.End)]
	if !known {
		c.seen.Other++
		return nil
	}
	end := c.ends[at]
	k := key{at, s.Outbound, s.Tuple.Dst, s.Tuple.Src, s.Tuple.Proto, 0}
	stages := end.Inbound
	if s.Outbound {
		k.own, k.remote, stages = s.Tuple.Src, s.Tuple.Dst, end.Outbound
	}
	if k.protocol == packet.ProtoTCP || k.protocol == packet.ProtoUDP {
		k.port = s.Tuple.DstPort
	}
	switch {
	case s.Outbound && end.Service(&s.Tuple) != topology.NoService:
		c.seen.Platform++
		return nil
	case len(stages) == 0:
		c.seen.WithoutGroup++
		return nil
	case s.Denied:
		if c.seen.Denied++; !c.Denied && !c.Keep {
			return nil
		}
	}
	if _, again := c.keys[k]; again {
		return nil
	}
	if c.in(end, ruleset.TagInternet, k.remote) {
		of := service{k, c.tagOf(k.remote)}
		of.remote = packet.Addr{}
		if c.outside[of] > maxOutside {
			return nil // the whole of it counts already
		}
		if c.outside[of]++; c.outside[of] > maxOutside {
			return nil
		}
	}
	if len(c.keys) >= MaxServices {
		return ErrTooMany
	}
	c.keys[k] = struct{}{}
	return nil
}

// Seen counts what was added.
func (c *Collector) Seen() Seen {
	s := c.seen
	s.Distinct = len(c.keys)
	return s
}

// in reports an address that a built-in tag has for an end.
func (c *Collector) in(end *topology.Endpoint, tag string, a packet.Addr) bool {
	return c.tagSet(end, tag).Contains(a.Netip())
}

func (c *Collector) tagSet(end *topology.Endpoint, tag string) *netipx.IPSet {
	k := setKey{end.Subnet.VirtualNetwork, tag}
	if c.sets[k] == nil {
		prefixes, _ := c.snapshot.ExpandTag(end.Subnet, tag)
		c.sets[k] = setOf(prefixes)
	}
	return c.sets[k]
}

func setOf(prefixes []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(p)
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return set
}

// tagOf is the smallest service tag that an address of the internet is of; empty: none.
func (c *Collector) tagOf(a packet.Addr) string {
	tag, _ := c.tags.Lookup(a.Netip())
	return tag
}

// sorted are the keys of a direction of ends that a group judges, always in the same order.
func (c *Collector) sorted(g *ruleset.NSG, d ruleset.Direction) (list []key) {
	judged := make([]bool, len(c.ends))
	for i, e := range c.ends {
		judged[i] = slices.ContainsFunc(stagesOf(e, d), func(s topology.Stage) bool { return s.Group.NSG == g })
	}
	for k := range c.keys {
		if k.outbound == (d == ruleset.Outbound) && judged[k.end] {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, key.compare)
	return list
}

func stagesOf(e *topology.Endpoint, d ruleset.Direction) []topology.Stage {
	if d == ruleset.Outbound {
		return e.Outbound
	}
	return e.Inbound
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.end, o.end), k.own.Netip().Compare(o.own.Netip()), cmp.Compare(k.protocol, o.protocol), cmp.Compare(k.port, o.port),
		k.remote.Netip().Compare(o.remote.Netip()))
}

// whole reports that more of the internet, or of the service tag that the other end is of, was seen than was kept.
func (c *Collector) whole(k key) bool {
	of := service{k, c.tagOf(k.remote)}
	of.remote = packet.Addr{}
	return c.outside[of] > maxOutside
}
