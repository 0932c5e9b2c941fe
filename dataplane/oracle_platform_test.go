package dataplane

import (
	"reflect"
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// oracleServices are what Azure's documents say passes whatever the NSGs say, with the tag that
// a rule can name it by.
var oracleServices = []struct {
	name, tag, address string
	port               uint16
	protocols          []uint8
}{
	{"dns", "AzurePlatformDNS", "168.63.129.16", 53, []uint8{6, 17}},
	{"imds", "AzurePlatformIMDS", "169.254.169.254", 80, []uint8{6}},
	{"lkm", "AzurePlatformLKM", "23.102.135.246", 1688, []uint8{6}},
	{"lkm", "AzurePlatformLKM", "20.118.99.224", 1688, []uint8{6}},
	{"lkm", "AzurePlatformLKM", "40.83.235.53", 1688, []uint8{6}},
	{"dhcp", "", "168.63.129.16", 67, []uint8{17}},
	{"wire_server", "", "168.63.129.16", 80, []uint8{6}},
	{"wire_server", "", "168.63.129.16", 443, []uint8{6}},
	{"wire_server", "", "168.63.129.16", 32526, []uint8{6}},
	{"network_watcher", "", "168.63.129.16", 8037, []uint8{6}},
}

// serviceAt says which service has a port, and the tag that names it.
func serviceAt(a packet.Addr, port uint16, proto uint8) (name, tag string) {
	for _, s := range oracleServices {
		if a.String() == s.address && port == s.port && slices.Contains(s.protocols, proto) {
			return s.name, s.tag
		}
	}
	return "", ""
}

// platform decides what goes to a service of the platform: only rules that name it are asked.
func (o *oracle) platform(src *oracleEnd, e *expectation) (decided bool) {
	name, tag := serviceAt(e.packet.Dst, e.packet.DstPort, e.packet.Proto)
	if name == "" || src.subnet == nil {
		return false
	}
	for _, group := range []*ruleset.NSG{src.nicGroup(), src.subnetGroup()} {
		if group == nil || tag == "" {
			continue
		}
		only := *group
		only.Rules = nil
		for _, r := range group.Rules {
			if r.Source.Tag == tag || r.Destination.Tag == tag {
				only.Rules = append(only.Rules, r)
			}
		}
		key, found := o.firstOf(only.Name, only.Rules, ruleset.Outbound, &e.packet)
		if !found {
			continue
		}
		e.meet(key)
		if key.Access == ruleset.Deny {
			e.drop = packet.DropRule
			return true
		}
	}
	e.meet(serviceKey(name))
	return true
}

// serviceKey is what the oracle counts a service under.
func serviceKey(name string) topology.RuleKey { return topology.RuleKey{Rule: name} }

// meet adds a rule that decides. One NSG at both places counts once.
func (e *expectation) meet(key topology.RuleKey) {
	if n := len(e.rules); n == 0 || e.rules[n-1] != key {
		e.rules = append(e.rules, key)
	}
}

// admin asks the rule collections that hold for one end, as one list by priority. asksGroups
// says that the NSGs are to be asked.
func (o *oracle) admin(end *oracleEnd, d ruleset.Direction, e *expectation) (asksGroups bool) {
	if end.subnet == nil {
		return true
	}
	best, priority := topology.RuleKey{}, 0
	for _, c := range o.set.AdminCollections {
		if !slices.Contains(c.Networks, end.subnet.VirtualNetwork) {
			continue
		}
		for i := range c.Rules.Rules {
			r := &c.Rules.Rules[i]
			key, matches := o.firstOf(c.Rules.Name, []ruleset.Rule{*r}, d, &e.packet)
			if matches && (priority == 0 || r.Priority < priority) {
				best, priority = key, r.Priority
			}
		}
	}
	if priority == 0 {
		return true
	}
	e.meet(best)
	if best.Access == ruleset.Deny {
		e.drop = packet.DropRule
	}
	return best.Access == ruleset.Allow
}

// stateless reports that one of a packet's ends wants no TCP states.
func (o *oracle) stateless(from int, p *packet.Packet) bool {
	for _, end := range []*oracleEnd{o.sender(from, p.Src.Netip()), o.find(from, p.Dst.Netip())} {
		if end != nil && end.nic != nil && end.nic.DisableTCPStateTracking {
			return true
		}
	}
	return false
}

// flush notes which live flows a new policy has judged again, at their next packet from the
// side that began: those with an NSG with flushConnection at one of their ends that has other
// rules than before, was not there, had it not, or is there no more.
func (o *oracle) flush(before *policy.Set) {
	after := o.set
	groups := func(set *policy.Set, k conntrack.Key) map[string]*ruleset.NSG {
		o.set = set
		end := o.sender(int(k.Zone), k.Src.Netip())
		list := map[string]*ruleset.NSG{}
		if end == nil { // an address that is going to move
			return list
		}
		for _, g := range []*ruleset.NSG{end.nicGroup(), end.subnetGroup()} {
			if g != nil {
				list[g.ID] = g
			}
		}
		return list
	}
	for f := range o.alive() {
		if f.cut > 0 {
			continue
		}
		for _, k := range f.keys {
			was, is := groups(before, k), groups(after, k)
			for id, g := range is {
				if old := was[id]; g.FlushConnection && (old == nil || !old.FlushConnection || !reflect.DeepEqual(decisive(old), decisive(g))) {
					f.due = true
				}
			}
			for id, g := range was {
				if g.FlushConnection && is[id] == nil {
					f.due = true
				}
			}
		}
	}
	o.set = after
}

// decisive is what of an NSG's rules says how and on what it decides: their order, but not the
// numbers that give it.
func decisive(g *ruleset.NSG) (rules []ruleset.Rule) {
	rules = append(g.Ordered(ruleset.Inbound), g.Ordered(ruleset.Outbound)...)
	for i := range rules {
		rules[i].Priority = 0
		for _, side := range []*ruleset.Peer{&rules[i].Source, &rules[i].Destination} {
			if side.Any {
				*side = ruleset.Peer{Prefixes: enginetest.Prefixes[:2]}
			}
		}
	}
	return rules
}
