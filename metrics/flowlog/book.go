package flowlog

import (
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// book knows where the rows of each end of a flow go. What it has once found stays: a flow
// keeps its rule's name, NSG and MAC address over reloads that change or remove them. So it grows with
// the rules and network interfaces that have met, never with traffic.
type book struct {
	engine *dataplane.Engine
	logs   []*flowLog

	rules  []*rule // by slot
	views  []*view // of the last policies, the newest last
	places map[placeKey]*place
	groups map[groupKey]*group
	ends   []end // by what flows remember; 0: not logged
	known  map[end]uint32

	failed func(error)
	walked *view // the newest when the last walk began
}

// rule is what a slot stands for.
type rule struct {
	nsg, guid string // id; GUID of an NSG or of a network manager's rule collection
	name      string // with Azure's prefix
	direction ruleset.Direction
	access    ruleset.Access
	admin     bool
}

// end is one end of a flow: where its rows go, one group for each version; nil: nowhere.
type end struct {
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

// view is one policy's idea of who is where.
type view struct {
	snapshot *topology.Snapshot
	targets  []target // by log
	ends     map[endKey]uint32
}

// endKey is what an end is found by: who has the address, and which rule decided.
type endKey struct {
	who       *topology.Endpoint
	direction ruleset.Direction
	slot      uint32 // conntrack.NoSlot: none
}

// keptViews is how many policies are remembered: flows that began before a reload may be met
// after it.
const keptViews = 8

// newBook makes a book; failed is told of logs whose target a policy lacks.
func newBook(engine *dataplane.Engine, logs []*flowLog, failed func(error)) *book {
	return &book{engine: engine, logs: logs, failed: failed, ends: make([]end, 1), known: map[end]uint32{},
		places: map[placeKey]*place{}, groups: map[groupKey]*group{}}
}

// follow takes notice of a new policy.
func (b *book) follow() {
	s := b.engine.Snapshot()
	if n := len(b.views); n > 0 && b.views[n-1].snapshot == s {
		return
	}
	v := &view{snapshot: s, ends: map[endKey]uint32{}}
	for _, l := range b.logs {
		t, err := l.resolve(s.Policy)
		if err != nil {
			b.failed(err)
		}
		v.targets = append(v.targets, t)
	}
	if b.views = append(b.views, v); len(b.views) > keptViews {
		b.views = b.views[1:]
	}
	for _, g := range s.Groups {
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i := range t.Rules {
				b.learn(t.Slots[i], g.NSG, &t.Rules[i])
			}
		}
	}
}

// learn enters a rule. A slot is of one name for ever, but an NSG of the same name may have come
// in the place of another.
func (b *book) learn(slot uint32, nsg *ruleset.NSG, r *ruleset.Rule) {
	for int(slot) >= len(b.rules) {
		b.rules = append(b.rules, nil)
	}
	if known := b.rules[slot]; known != nil && known.nsg == nsg.ID {
		return
	}
	guid := nsg.ResourceGUID
	if guid == "" {
		guid = guidOf(nsg.ID)
	}
	b.rules[slot] = &rule{nsg: nsg.ID, guid: guid, name: r.PrefixedName(), direction: r.Direction, access: r.Access, admin: r.Admin}
}

// forget drops older policies, where a walk has met all flows that began under them: at the
// beginning of the next walk after the one that began under the present policy.
func (b *book) forget() {
	newest := b.views[len(b.views)-1]
	if b.walked == newest {
		b.views = append([]*view(nil), newest)
	}
	b.walked = newest
}

// viewOf is the policy of a generation, or the oldest there is instead.
func (b *book) viewOf(generation uint64) *view {
	if b.views[len(b.views)-1].snapshot.Generation < generation {
		b.follow()
	}
	for _, v := range b.views {
		if v.snapshot.Generation >= generation {
			return v
		}
	}
	return b.views[len(b.views)-1]
}

// rule is what decided at one end: the last of its NSGs, or an admin rule where no NSG was
// asked.
func (b *book) rule(slots conntrack.Slots, d ruleset.Direction) uint32 {
	decided := conntrack.NoSlot
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if int(slot) < len(b.rules) && b.rules[slot] != nil && b.rules[slot].direction == d {
			decided = slot // admin rules come first
		}
	}
	return decided
}

// end finds the end of a flow that is at an address in a zone, for the rule of a slot that decided
// there.
func (b *book) end(v *view, zone uint16, address packet.Addr, d ruleset.Direction, slot uint32) uint32 {
	index, whole := b.engine.Attachment(zone)
	if !whole {
		return 0
	}
	who := v.snapshot.Admit(v.snapshot.Attachments[index], address)
	if who == nil || who.Subnet == nil {
		return 0
	}
	key := endKey{who, d, slot}
	n, ok := v.ends[key]
	if !ok {
		n = b.number(b.find(v, key))
		v.ends[key] = n
	}
	return n
}

func (b *book) number(e end) uint32 {
	if e.groups == [numVersions]*group{} {
		return 0
	}
	n, ok := b.known[e]
	if !ok {
		n = uint32(len(b.ends))
		b.ends = append(b.ends, e)
		b.known[e] = n
	}
	return n
}

// find decides where the rows of an end go.
func (b *book) find(v *view, k endKey) (e end) {
	e.outbound = k.direction == ruleset.Outbound
	var r *rule
	if k.slot != conntrack.NoSlot {
		r = b.rules[k.slot]
	}
	if r != nil && !r.admin {
		if l, _ := b.logOf(v, NSG, k.who, r.nsg); l != nil {
			p := b.place(l, nsgFolder(r.nsg), macOfEnd(k.who), func(string) string { return nsgHead(r.nsg, r.guid) })
			e.groups[NSG] = b.group(p, "", r.name)
		}
	}
	if l, t := b.logOf(v, VNet, k.who, ""); l != nil {
		log, location := flowLogOf(t), k.who.Subnet.VirtualNetwork.Location
		if location = strings.ReplaceAll(location, " ", ""); location == "" {
			location = noLocation
		}
		p := b.place(l, vnetFolder(log, location), macOfEnd(k.who), func(mac string) string {
			return vnetHead(flowLogID(log, location), t, mac)
		})
		acl, name := unspecified, unspecified
		if r != nil {
			acl, name = r.guid, r.name
		}
		e.groups[VNet] = b.group(p, acl, name)
	}
	return e
}

// unspecified stands for the rule and its NSG where none was asked.
const unspecified = "unspecified"

// logOf is the most particular log of a version that has an end, and the id of what it logs.
func (b *book) logOf(v *view, version Version, who *topology.Endpoint, nsg string) (log *flowLog, id string) {
	best := targetKind(0)
	for i, l := range b.logs {
		t := v.targets[i]
		is := ""
		switch t.kind {
		case everything:
			is = who.Subnet.VirtualNetwork.ID
		case aNetwork:
			is = who.Subnet.VirtualNetwork.ID
		case aSubnet:
			is = who.Subnet.ID
		case aGroup:
			is = nsg
		case anInterface:
			if who.NetworkInterface != nil {
				is = who.NetworkInterface.ID
			}
		}
		if l.Version != version || t.kind == nothing || t.kind != everything && !strings.EqualFold(is, t.id) {
			continue
		}
		if log == nil || t.kind > best {
			log, id, best = l, is, t.kind
		}
	}
	return log, id
}

func macOfEnd(who *topology.Endpoint) string {
	if who.NetworkInterface != nil {
		return macOf(who.NetworkInterface.MACAddress, who.NetworkInterface.ID)
	}
	return macOf("", who.Subnet.ID)
}

func (b *book) place(l *flowLog, folder, mac string, head func(mac string) string) *place {
	k := placeKey{l, folder, mac}
	p := b.places[k]
	if p == nil {
		p = &place{log: l, folder: folder, mac: mac, head: head(mac)}
		b.places[k] = p
	}
	return p
}

func (b *book) group(p *place, acl, rule string) *group {
	k := groupKey{p, acl, rule}
	g := b.groups[k]
	if g == nil {
		g = &group{place: p, acl: acl, rule: rule}
		b.groups[k] = g
	}
	return g
}
