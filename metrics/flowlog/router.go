package flowlog

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// router knows where the rows of each flow end go. A flow keeps the name, the NSG and the MAC
// address that it began with, though a reload changes or removes them. So the router grows with
// the rules and network interfaces that have met, never with traffic.
type router struct {
	engine *dataplane.Engine
	logs   []*flowLog

	rules  [][]*rule // by slot, the older ones first
	views  []*view   // of the last policies, the newest last
	places map[placeKey]*place
	groups map[groupKey]*group
	shares map[shareKey]*share
	ends   []flowEnd // by the number that flows remember; 0: not logged
	known  map[flowEnd]uint32

	kept *slab.Journal // what the numbers of ends mean, for the next process; nil: they end with this one
	free []uint32      // numbers of ends that are nobody's

	failed func(error)
	walked *view  // the newest view when the last walk began
	first  uint64 // the generation of the first policy
}

// rule is the rule of a slot.
type rule struct {
	nsg, guid string // id and GUID of an NSG or of a network manager's rule collection
	name      string // with Azure's prefix
	direction ruleset.Direction
	access    ruleset.Access
	admin     bool
	since     uint64 // generation
}

// flowEnd is one end of a flow: where its rows go, one group for each version; nil: nowhere.
type flowEnd struct {
	outbound bool
	groups   [numVersions]*group
}

type placeKey struct {
	log         *flowLog
	folder, mac string
}

type groupKey struct {
	place     *place
	acl, rule string
}

// shareKey names an NSG: by the folder in NSG flow logs, by its GUID in those of virtual networks.
type shareKey struct {
	log         *flowLog
	folder, acl string
}

// view is what one policy says about endpoints and logs.
type view struct {
	snapshot *topology.Snapshot
	targets  [][]target // by log
	ends     map[endKey]uint32
}

// endKey identifies a flow end by the endpoint and the rule that decided there.
type endKey struct {
	endpoint  *topology.Endpoint
	direction ruleset.Direction
	slot      uint32 // conntrack.NoSlot: none
}

// keptViews is how many policies are remembered, for flows that began before a reload.
const keptViews = 8

// newRouter makes a router. failed is told about logs with a target that a policy lacks.
func newRouter(engine *dataplane.Engine, logs []*flowLog, failed func(error)) *router {
	return &router{engine: engine, logs: logs, failed: failed, ends: make([]flowEnd, 1), known: map[flowEnd]uint32{},
		places: map[placeKey]*place{}, groups: map[groupKey]*group{}, shares: map[shareKey]*share{}}
}

// follow takes up a new policy.
func (t *router) follow() {
	s := t.engine.Snapshot()
	if n := len(t.views); n > 0 && t.views[n-1].snapshot == s {
		return
	}
	if t.first == 0 {
		t.first = s.Generation
	}
	v := &view{snapshot: s, ends: map[endKey]uint32{}}
	for _, l := range t.logs {
		found, err := l.resolve(s.Policy)
		if err != nil {
			t.failed(err)
		}
		v.targets = append(v.targets, found)
	}
	if t.views = append(t.views, v); len(t.views) > keptViews {
		t.views = t.views[1:]
	}
	for _, g := range s.Groups {
		for _, table := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i := range table.Rules {
				t.addRule(table.Slots[i], s.Generation, g.NSG, &table.Rules[i])
			}
		}
	}
}

// keptRules are how many rules of a slot are remembered: flows may still tell of the one before.
const keptRules = 2

// addRule enters the rule that a slot has from a generation on. The slot of a removed rule may get another
// one, and an NSG may have been replaced by another of the same name.
func (t *router) addRule(slot uint32, since uint64, nsg *ruleset.NSG, r *ruleset.Rule) {
	for int(slot) >= len(t.rules) {
		t.rules = append(t.rules, nil)
	}
	known := t.rules[slot]
	if n := len(known); n > 0 && known[n-1].nsg == nsg.ID && known[n-1].name == r.PrefixedName() && known[n-1].direction == r.Direction &&
		known[n-1].access == r.Access {
		return
	} else if n == keptRules {
		known = known[1:]
	}
	guid := nsg.ResourceGUID
	if guid == "" {
		guid = guidOf(nsg.ID)
	}
	one := &rule{since: since, nsg: nsg.ID, guid: guid, name: r.PrefixedName(), direction: r.Direction, access: r.Access, admin: r.Admin}
	t.rules[slot] = append(slices.Clone(known), one)
	t.keepRule(slot, one)
}

// ruleOf is the rule that a slot had in a generation; nil when it has none.
func (t *router) ruleOf(slot uint32, generation uint64) (r *rule) {
	if int(slot) >= len(t.rules) {
		return nil
	}
	for _, one := range t.rules[slot] {
		if r == nil || one.since <= generation {
			r = one
		}
	}
	return r
}

// forget drops older policies at the beginning of a walk, if the walk before also began under
// the present policy. That walk has met all flows that began under older ones.
func (t *router) forget() {
	newest := t.views[len(t.views)-1]
	if t.walked == newest {
		t.views = append([]*view(nil), newest)
	}
	t.walked = newest
}

// viewOf is the policy of a generation, or the oldest one that is left.
func (t *router) viewOf(generation uint64) *view {
	if t.views[len(t.views)-1].snapshot.Generation < generation {
		t.follow()
	}
	for _, v := range t.views {
		if v.snapshot.Generation >= generation {
			return v
		}
	}
	return t.views[len(t.views)-1]
}

// deciding is the slot of the rule that decided at one end: the last NSG's, or an admin rule
// when no NSG was asked.
func (t *router) deciding(slots conntrack.Slots, generation uint64, d ruleset.Direction) uint32 {
	decided := conntrack.NoSlot
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if r := t.ruleOf(slot, generation); r != nil && r.direction == d {
			decided = slot // admin rules come first
		}
	}
	return decided
}

// endAt numbers the flow end at an address in a zone, for the slot of the rule that decided
// there; 0: it is not logged. generation is that of the policy that decided.
func (t *router) endAt(v *view, generation uint64, zone uint16, address packet.Addr, d ruleset.Direction, slot uint32) uint32 {
	index, whole := t.engine.Room().Attachment(zone)
	if !whole || v.snapshot.NameSince(index, generation) == "" {
		return 0
	}
	endpoint := v.snapshot.Admit(v.snapshot.Attachments[index], address)
	if endpoint == nil || endpoint.Subnet == nil {
		return 0
	}
	key := endKey{endpoint, d, slot}
	n, ok := v.ends[key]
	if !ok {
		n = t.number(t.find(v, key))
		v.ends[key] = n
	}
	return n
}

func (t *router) number(e flowEnd) uint32 {
	if e.groups == [numVersions]*group{} {
		return 0
	}
	n, ok := t.known[e]
	if !ok {
		if last := len(t.free) - 1; last >= 0 {
			n, t.free = t.free[last], t.free[:last]
			t.ends[n] = e
		} else {
			n = uint32(len(t.ends))
			t.ends = append(t.ends, e)
		}
		t.known[e] = n
		t.keep(n, &e)
	}
	return n
}

// find decides where the rows of a flow end go.
func (t *router) find(v *view, k endKey) (e flowEnd) {
	e.outbound = k.direction == ruleset.Outbound
	var r *rule
	if k.slot != conntrack.NoSlot {
		r = t.ruleOf(k.slot, v.snapshot.Generation)
	}
	if r != nil && !r.admin {
		if l, _, _ := t.logOf(v, NSG, k.endpoint, r.nsg); l != nil {
			p := t.placeOf(l, nsgFolder(r.nsg), macOfEnd(k.endpoint), func(string) string { return nsgHead(r.nsg, r.guid) })
			e.groups[NSG] = t.groupOf(p, "", r.name)
		}
	}
	if l, id, name := t.logOf(v, VNet, k.endpoint, ""); l != nil {
		log, location := flowLogOf(id, name), k.endpoint.Subnet.VirtualNetwork.Location
		if location = strings.ReplaceAll(location, " ", ""); location == "" {
			location = noLocation
		}
		p := t.placeOf(l, vnetFolder(log, location), macOfEnd(k.endpoint), func(mac string) string {
			return vnetHead(flowLogID(log, location), id, mac)
		})
		acl, name := unspecified, unspecified
		if r != nil {
			acl, name = r.guid, r.name
		}
		e.groups[VNet] = t.groupOf(p, acl, name)
	}
	return e
}

// unspecified stands for the rule and its NSG where none was asked.
const unspecified = "unspecified"

// logOf is the most particular log of a version that covers an endpoint, with the id of what the
// log covers, and the log's name where the policy gives it.
func (t *router) logOf(v *view, version Version, endpoint *topology.Endpoint, nsg string) (log *flowLog, id, name string) {
	best := targetKind(0)
	for i, l := range t.logs {
		if l.Version != version {
			continue
		}
		for _, target := range v.targets[i] {
			is, covers := target.covers(endpoint, nsg)
			if covers && (log == nil || target.kind > best) {
				log, id, name, best = l, is, target.name, target.kind
			}
		}
	}
	return log, id, name
}

// covers reports whether a log of a target has an endpoint's rows, and the id of what it covers.
func (t *target) covers(endpoint *topology.Endpoint, nsg string) (id string, ok bool) {
	switch t.kind {
	case everything, aNetwork:
		id = endpoint.Subnet.VirtualNetwork.ID
	case aSubnet:
		id = endpoint.Subnet.ID
	case aGroup:
		id = nsg
	case anInterface:
		if endpoint.NetworkInterface != nil {
			id = endpoint.NetworkInterface.ID
		}
	}
	return id, t.kind == everything || strings.EqualFold(id, t.id)
}

func macOfEnd(e *topology.Endpoint) string {
	if e.NetworkInterface != nil {
		return macOf(e.NetworkInterface.MACAddress, e.NetworkInterface.ID)
	}
	return macOf("", e.Subnet.ID)
}

func (t *router) placeOf(l *flowLog, folder, mac string, head func(mac string) string) *place {
	k := placeKey{l, folder, mac}
	p := t.places[k]
	if p == nil {
		p = &place{log: l, folder: folder, mac: mac, head: head(mac)}
		t.places[k] = p
	}
	return p
}

func (t *router) groupOf(p *place, acl, rule string) *group {
	k := groupKey{p, acl, rule}
	g := t.groups[k]
	if g == nil {
		g = &group{place: p, share: t.shareOf(shareKey{p.log, p.folder, acl}), acl: acl, rule: rule}
		t.groups[k] = g
	}
	return g
}

func (t *router) shareOf(k shareKey) *share {
	s := t.shares[k]
	if s == nil {
		s = &share{}
		t.shares[k] = s
	}
	return s
}
