package worlds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/transfer"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// cluster is a world on several hosts: each has some of the attachments, a platform, and fabrics for the others'.
type cluster struct {
	one    *built // the same world on one host
	hosts  []*host
	at     []place        // of one's attachments; of the platform the first host's
	owner  map[string]int // host, by the identity of an attachment of one
	groups []topology.PeeredGroup
}

// place is an attachment of a host.
type place struct{ host, slot int }

type host struct {
	name     string
	specs    []topology.Spec
	carrier  *dataplane.Carrier
	keys     []topology.RuleKey
	internet bool
	options  dataplane.Options
}

// spread puts the attachments of a world on some hosts. Each NIC has an attachment of its own.
func (b *built) spread(r *rand.Rand, n int) (*cluster, error) {
	c := &cluster{one: b, at: make([]place, len(b.specs)), owner: map[string]int{}, groups: topology.FabricGroups(b.policy)}
	for i := range n {
		c.hosts = append(c.hosts, &host{name: fmt.Sprint("host", i)})
	}
	platform := false
	for i, spec := range b.specs {
		if spec.Kind == topology.Platform {
			platform, c.at[i] = true, place{0, -1}
			continue
		}
		at := r.IntN(n)
		h := c.hosts[at]
		c.at[i] = place{at, len(h.specs)}
		h.specs = append(h.specs, spec)
		h.internet = h.internet || spec.Kind == topology.Internet
		c.owner[spec.Identity(b.policy)] = at
	}
	for _, h := range c.hosts {
		if platform {
			h.specs = append(h.specs, topology.Spec{Kind: topology.Platform})
		}
		h.specs = append(h.specs, c.fabrics()...)
		r.Shuffle(len(h.specs), func(i, j int) {
			h.specs[i], h.specs[j] = h.specs[j], h.specs[i]
		})
	}
	for i, spec := range b.specs {
		h := c.hosts[c.at[i].host]
		c.at[i].slot = slices.IndexFunc(h.specs, func(s topology.Spec) bool { return s.Identity(b.policy) == spec.Identity(b.policy) })
	}
	for _, h := range c.hosts {
		// Attachments come and go, and a slot is used again once nothing means the old one.
		o := dataplane.Options{Attachments: slices.Clone(h.specs), Room: 4 * (len(h.specs) + 8), Topology: b.topology(), Subscription: b.subscription(), Flows: b.flows()}
		o.Topology.Host = h.name
		var err error
		if h.carrier, err = dataplane.NewCarrier(b.policy, o); err != nil {
			return nil, err
		}
		h.keys, h.options = h.carrier.Engine().Registry().Keys(), o
	}
	return c, nil
}

// move moves some network interface to another host, with its flows. It returns what has moved, an attachment of the one
// host's world; -1: there is none.
func (c *cluster) move(r *rand.Rand) (moved int, came transfer.Arrived, err error) {
	var nics []int
	for i := range c.one.specs {
		if c.one.specs[i].Kind == topology.NetworkInterface {
			nics = append(nics, i)
		}
	}
	if len(nics) == 0 {
		return -1, came, nil
	}
	moved = nics[r.IntN(len(nics))]
	spec := c.one.specs[moved]
	at := c.at[moved]
	to := (at.host + 1 + r.IntN(len(c.hosts)-1)) % len(c.hosts)
	old, next := c.hosts[at.host], c.hosts[to]
	for _, h := range c.hosts {
		h.carrier.Advance(c.one.now)
	}
	d, err := transfer.Depart(old.carrier.Engine(), spec.Reference, old.name)
	if err != nil {
		return moved, came, err
	}
	var sent bytes.Buffer
	if _, err := d.Write(&sent, spec.Reference); err != nil {
		return moved, came, err
	}
	t, err := transfer.Read(&sent, spec.Reference, old.name, 1000)
	if err != nil {
		return moved, came, err
	}
	old.specs[at.slot] = topology.Spec{Kind: topology.Vacant}
	if _, err := old.rearrange(c.one.policy, nil, func(s *topology.Snapshot) { d.Remain(s) }); err != nil {
		return moved, came, err
	}
	slot, err := next.rearrange(c.one.policy, &spec, func(s *topology.Snapshot) { came, err = t.Arrive(next.carrier.Engine(), s) })
	c.at[moved], c.owner[spec.Identity(c.one.policy)] = place{to, slot}, to
	return moved, came, err
}

// rearrange attaches what a host has, with one more, which gets a slot; nil: none comes.
func (h *host) rearrange(set *policy.Set, more *topology.Spec, flows func(*topology.Snapshot)) (slot int, err error) {
	w := &dataplane.Wanted{Policy: set, Topology: h.options.Topology, Subscription: h.options.Subscription}
	for _, spec := range h.specs {
		if spec.Kind != topology.Vacant {
			w.Attachments = append(w.Attachments, spec)
		}
	}
	if more != nil {
		w.Attachments = append(w.Attachments, *more)
	}
	slots, err := h.carrier.Rearrange(w, flows)
	if err != nil {
		return 0, err
	}
	for i := range h.specs {
		h.specs[i] = topology.Spec{Kind: topology.Vacant}
	}
	for i, slot := range slots {
		for slot >= len(h.specs) {
			h.specs = append(h.specs, topology.Spec{Kind: topology.Vacant})
		}
		h.specs[slot] = w.Attachments[i]
	}
	h.keys = h.carrier.Engine().Registry().Keys()
	return slots[len(slots)-1], nil
}

// fabrics are those that every host has.
func (c *cluster) fabrics() (list []topology.Spec) {
	for _, g := range c.groups {
		list = append(list, topology.Spec{Kind: topology.Fabric, Reference: g.Networks[0].ID})
		for _, h := range c.hosts {
			if h.internet {
				list = append(list, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInternet, Reference: g.Networks[0].ID, Host: h.name})
			}
		}
	}
	for _, nic := range topology.FabricInterfaces(c.one.policy) {
		list = append(list, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInterface, Reference: nic.ID})
	}
	for _, s := range c.one.specs {
		if s.Kind == topology.Gateway {
			list = append(list, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricGateway, Reference: s.Reference, Prefixes: s.Prefixes})
		}
	}
	return list
}

// kernel is what carries a packet between hosts: by the fabric that it left by, and where several hosts have ends
// behind that, by its destination. ok is false if no host has the destination.
func (c *cluster) kernel(from int, slot int, t *packet.Tuple) (to place, ok bool) {
	spec := &c.hosts[from].specs[slot]
	identity := spec.Identity(c.one.policy)
	at := func(host int) (place, bool) {
		slot := slices.IndexFunc(c.hosts[host].specs, func(s topology.Spec) bool { return s.Identity(c.one.policy) == identity })
		return place{host, slot}, slot >= 0 && host != from
	}
	switch spec.Sort {
	case topology.FabricInterface, topology.FabricGateway:
		end := topology.Spec{Kind: topology.NetworkInterface, Reference: spec.Reference}
		if spec.Sort == topology.FabricGateway {
			end.Kind = topology.Gateway
		}
		owner, ok := c.owner[end.Identity(c.one.policy)]
		if !ok {
			return place{}, false
		}
		return at(owner)
	case topology.FabricInternet:
		if spec.Host != c.hosts[from].name {
			return at(slices.IndexFunc(c.hosts, func(h *host) bool { return h.name == spec.Host }))
		}
	}
	for _, g := range c.groups {
		if slices.ContainsFunc(g.Networks, func(v *policy.VirtualNetwork) bool { return v.ID == spec.Reference }) {
			if owner, ok := c.ownerOf(g, t.Dst.Netip()); ok {
				return at(owner)
			}
		}
	}
	return place{}, false
}

// ownerOf is the host with an address of a group: of a NIC, or of the rest of a subnet.
func (c *cluster) ownerOf(g topology.PeeredGroup, a netip.Addr) (host int, ok bool) {
	for _, v := range g.Networks {
		if nic := c.one.interfaceWith(v, a); nic != nil {
			s := topology.Spec{Kind: topology.NetworkInterface, Reference: nic.ID}
			host, ok = c.owner[s.Identity(c.one.policy)]
			return host, ok
		}
		for _, sub := range v.Subnets {
			if slices.ContainsFunc(sub.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
				s := topology.Spec{Kind: topology.Subnet, Reference: sub.ID}
				host, ok = c.owner[s.Identity(c.one.policy)]
				return host, ok
			}
		}
	}
	return 0, false
}

// nobody reports an address of a virtual network to which nothing is attached.
func (c *cluster) nobody(a netip.Addr) bool {
	for _, g := range c.groups {
		if _, ok := c.ownerOf(g, a); ok {
			return false
		}
	}
	return len(c.one.networksWith(a)) > 0
}

// crossing is what became of a packet on the hosts that it met.
type crossing struct {
	drop    packet.Drop
	to      int // attachment of the one host's world, when it was let pass
	frame   []byte
	rules   []string // that it was counted on
	service bool
	last    place // that has received it
	lost    bool  // between the hosts
	outlet  bool  // it came to a host with the internet from another
	met     []string
}

// platformSlot is where a host has the platform.
func (h *host) platformSlot() int {
	return slices.IndexFunc(h.specs, func(s topology.Spec) bool { return s.Kind == topology.Platform })
}

// carry takes a packet of an attachment of the one host's world through the hosts.
func (c *cluster) carry(at time.Time, from place, frame []byte) (x crossing) {
	for range 4 {
		h := c.hosts[from.host]
		var r dataplane.Carried
		h.carrier.Carry(at, from.slot, frame, &r)
		x.drop, x.frame = r.Drop, frame
		x.outlet = x.outlet || h.carrier.Engine().Snapshot().Attachments[from.slot].Outlet()
		x.met = append(x.met, fmt.Sprintf("%s from %s: %s", h.name, h.carrier.Engine().Snapshot().Attachments[from.slot].Name, r.Drop))
		for _, slot := range r.Slots {
			if topology.ServiceOfSlot(slot) != topology.NoService {
				x.service = true
				continue
			}
			k := &h.keys[slot]
			x.rules = append(x.rules, fmt.Sprintf("%s %s %s", k.NetworkSecurityGroup, k.Direction, k.Rule))
		}
		if r.Drop != packet.NotDropped {
			return x
		}
		if h.specs[r.To].Kind != topology.Fabric {
			x.last = place{from.host, r.To}
			x.to = c.oneOf(x.last)
			return x
		}
		next, ok := c.kernel(from.host, r.To, &r.Packet.Tuple)
		if !ok {
			x.met = append(x.met, "lost behind "+h.carrier.Engine().Snapshot().Attachments[r.To].Name)
			x.drop, x.lost = packet.DropNoRoute, true
			return x
		}
		from = next
	}
	x.met = append(x.met, "in a circle")
	x.drop = packet.DropNoRoute
	return x
}

// hits are how often rules have decided, by rule.
func hits(engines ...*dataplane.Engine) map[string]uint64 {
	all := map[string]uint64{}
	for _, e := range engines {
		keys := e.Registry().Keys()
		for slot, n := range e.Counters().Rules(len(keys)) {
			if n.Hits > 0 {
				k := &keys[slot]
				all[fmt.Sprintf("%s %s %s", k.NetworkSecurityGroup, k.Direction, k.Rule)] += n.Hits
			}
		}
	}
	return all
}

func (c *cluster) hits() map[string]uint64 {
	var all []*dataplane.Engine
	for _, h := range c.hosts {
		all = append(all, h.carrier.Engine())
	}
	return hits(all...)
}

// since are the rules whose hits have changed, once for each.
func since(before, after map[string]uint64) (list []string) {
	for rule, n := range after {
		for range n - before[rule] {
			list = append(list, rule)
		}
	}
	slices.Sort(list)
	return list
}

// oneOf is the attachment of the one host's world that a host has at a slot.
func (c *cluster) oneOf(p place) int {
	spec := &c.hosts[p.host].specs[p.slot]
	return slices.IndexFunc(c.one.specs, func(s topology.Spec) bool { return s.Identity(c.one.policy) == spec.Identity(c.one.policy) })
}

// String shows where everything is.
func (c *cluster) String() string {
	var b strings.Builder
	for i, p := range c.at {
		fmt.Fprintf(&b, "%s on %s; ", c.one.specs[i].Identity(c.one.policy), c.hosts[p.host].name)
	}
	return b.String()
}
