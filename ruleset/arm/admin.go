package arm

import (
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes of ours for virtual network managers.
const (
	CodeNoAppliesToGroups     = "SecurityAdminRuleCollectionMustApplyToNetworkGroups"
	CodeConditionalMembership = "NetworkGroupConditionalMembershipUnsupported"
	CodeInvalidMemberType     = "NetworkGroupMemberTypeUnsupported"
	CodeInvalidStaticMember   = "NetworkGroupInvalidStaticMember"
)

// buildAdmin builds what virtual network managers hold: first the groups, which rules and
// collections name.
func (l *loader) buildAdmin() {
	for _, r := range l.resources {
		if r.kind == networkGroupKind && r.parent != nil {
			l.buildNetworkGroup(r)
		}
	}
	for _, r := range l.resources {
		if r.kind == collectionKind && r.parent != nil {
			l.buildCollection(r)
		}
	}
}

func (l *loader) buildNetworkGroup(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	g := &policy.NetworkGroup{Name: r.name, ID: r.identity()}
	if text := f.text("conditionalMembership"); text != "" {
		f.fault(CodeConditionalMembership, "conditionalMembership", text, "supported are static members")
	}
	if text := f.text("memberType"); text != "" && !strings.EqualFold(text, "VirtualNetwork") {
		f.fault(CodeInvalidMemberType, "memberType", text, "supported is VirtualNetwork")
	}
	for _, member := range r.inner(staticMemberKind, f.objects("staticMembers")) {
		m := l.read(member.file, member.place(), "", member.body)
		id := m.text("resourceId")
		if id == "" {
			if !m.open["resourceId"] && !m.withheld() {
				m.fault(CodeInvalidStaticMember, "resourceId", "", "a static member needs the id of a virtual network")
			}
			f.open["staticMembers"] = f.open["staticMembers"] || len(m.open) > 0
			continue
		}
		switch network := m.resolve(networkKind, "resourceId", id).(type) {
		case *policy.VirtualNetwork:
			g.Members = appendOnce(g.Members, network)
		case nil:
			f.open["staticMembers"] = f.open["staticMembers"] || len(m.open) > 0
		}
	}
	f.leaveCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r)
	} else if l.register(r, g.ID, g, r.path()) {
		l.out.Set.NetworkGroups = append(l.out.Set.NetworkGroups, g)
	}
}

func appendOnce[T comparable](list []T, more ...T) []T {
	for _, v := range more {
		known := false
		for _, have := range list {
			known = known || have == v
		}
		if !known {
			list = append(list, v)
		}
	}
	return list
}

func (l *loader) buildCollection(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	c := &policy.AdminCollection{}
	groups := f.objects("appliesToGroups")
	if len(groups) == 0 && !f.open["appliesToGroups"] && !f.withheld() {
		f.fault(CodeNoAppliesToGroups, "appliesToGroups", "", "a rule collection applies to at least one network group")
	}
	for _, o := range groups {
		g := &fields{l: l, file: f.file, place: f.place, values: o, open: f.open}
		id := g.text("networkGroupId")
		if id == "" {
			if !g.open["networkGroupId"] {
				f.fault(CodeInvalidResourceReference, "appliesToGroups", asText(o), "an element is an object with networkGroupId")
			}
			continue
		}
		if group, ok := f.resolve(networkGroupKind, "appliesToGroups", id).(*policy.NetworkGroup); ok {
			c.Networks = appendOnce(c.Networks, group.Members...)
		}
	}
	raw := ruleset.SecurityAdminCollection{File: r.file, Resource: r.place(), Name: r.path(), ID: r.identity()}
	for _, child := range r.inner(adminRuleKind, f.objects("rules")) {
		if rule, ok := l.readAdminRule(child); ok {
			raw.Rules = append(raw.Rules, rule)
		}
	}
	var faults ruleset.Faults
	c.Rules, faults = raw.Validate(l.known)
	l.out.Faults = append(l.out.Faults, faults...)
	f.leaveCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r)
	} else if l.register(r, c.Rules.ID, c, r.path()) {
		l.out.Set.AdminCollections = append(l.out.Set.AdminCollections, c)
		l.out.files[c.Rules] = r.file
	}
}

// readAdminRule reads a rule's fields as text; ok is false when a template leaves some open.
func (l *loader) readAdminRule(r *resource) (rule ruleset.SecurityAdminRule, ok bool) {
	f := l.read(r.file, r.parent.place(), r.name, r.body)
	rule = ruleset.SecurityAdminRule{
		Name: r.name, ID: r.identity(), Description: f.literal("description"),
		Protocol: f.text("protocol"), Access: f.text("access"), Direction: f.text("direction"), Priority: f.text("priority"),
		Sources: f.adminPeers("sources"), Destinations: f.adminPeers("destinations"),
		SourcePortRanges: f.texts("sourcePortRanges"), DestinationPortRanges: f.texts("destinationPortRanges"),
	}
	rule.Kind, _ = lookup(r.body, "kind").(string)
	f.adminFieldsOnly()
	f.leaveCondition(r)
	return rule, len(f.open) == 0
}

// adminFields are those of a rule whose absence means everything.
var adminFields = []string{"sources", "destinations", "sourcePortRanges", "destinationPortRanges"}

// adminFieldsOnly reports fields that were meant to be others, such as those of security
// rules: a side without its field is open.
func (f *fields) adminFieldsOnly() {
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		low := strings.ToLower(name)
		near, known := ruleset.NewNearMiss(low), false
		for _, field := range adminFields {
			known = known || strings.EqualFold(name, field)
			near.Try(field, strings.ToLower(field), false)
		}
		side := strings.HasPrefix(low, "source") || strings.HasPrefix(low, "destination")
		if !known && (side || near.Hint() != "") && f.values[name] != nil {
			f.fault(CodeInvalidRequestFormat, name, asText(f.values[name]),
				"a security admin rule has no such field; allowed are %s", strings.Join(adminFields, ", "))
		}
	}
}

// adminPeers reads sources or destinations; network groups get the spelling of their own id.
func (f *fields) adminPeers(field string) (peers []ruleset.AdminPeer) {
	for _, o := range f.objects(field) {
		one := &fields{l: f.l, file: f.file, place: f.place, rule: f.rule, values: o, open: f.open}
		p := ruleset.AdminPeer{AddressPrefix: one.text("addressPrefix"), AddressPrefixType: one.text("addressPrefixType")}
		if strings.EqualFold(p.AddressPrefixType, "NetworkGroup") && p.AddressPrefix != "" {
			if group, ok := f.resolve(networkGroupKind, field, p.AddressPrefix).(*policy.NetworkGroup); ok {
				p.AddressPrefix = group.ID
			}
		}
		peers = append(peers, p)
	}
	return peers
}
