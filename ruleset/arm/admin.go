package arm

import (
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Our own codes for virtual network managers.
const (
	CodeNoAppliesToGroups     = "SecurityAdminRuleCollectionMustApplyToNetworkGroups"
	CodeConditionalMembership = "NetworkGroupConditionalMembershipUnsupported" // in Documents.Unresolved
	CodeInvalidMemberType     = "NetworkGroupMemberTypeUnsupported"
	CodeInvalidStaticMember   = "NetworkGroupInvalidStaticMember"
)

func (l *loader) buildNetworkGroup(r *resource) {
	if r.parent == nil { // adopt has reported it
		return
	}
	f := l.read(r.file, r.place(), "", r.body)
	if !f.named(r) {
		return
	}
	g := &policy.NetworkGroup{Name: r.name, ID: r.identity()}
	f.readConditional(g)
	if text := f.text("memberType"); text != "" && !strings.EqualFold(text, "VirtualNetwork") {
		f.fault(CodeInvalidMemberType, "memberType", text, "supported is VirtualNetwork")
	}
	for _, member := range l.inner(r, staticMemberKind, f.objects("staticMembers")) {
		m := l.read(member.file, member.place(), "", member.body)
		id := m.text("resourceId")
		if id == "" {
			if !m.open["resourceId"] && !m.withheld() {
				m.fault(CodeInvalidStaticMember, "resourceId", "", "a static member needs the id of a virtual network")
			}
			f.inherit(m, "staticMembers")
			continue
		}
		switch network := m.resolve(networkKind, "resourceId", id).(type) {
		case *policy.VirtualNetwork:
			g.Members = appendOnce(g.Members, network)
		case nil:
			f.inherit(m, "staticMembers")
		}
	}
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
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
	if r.parent == nil { // adopt has reported it
		return
	}
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
		f.because(g.cause)
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
	bodies := map[string]ruleBody{}
	for _, child := range l.inner(r, adminRuleKind, f.objects("rules")) {
		bodies[strings.ToLower(child.name)] = ruleBody{child.file, child.source}
		if rule, ok := l.readAdminRule(child); ok {
			raw.Rules = append(raw.Rules, rule)
		}
	}
	var faults ruleset.Faults
	c.Rules, faults = raw.Validate(l.knownTags)
	l.out.Faults = append(l.out.Faults, l.placeFaults(faults, r.source, bodies)...)
	l.out.bodies[c.Rules] = bodies
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
	} else if l.register(r, c.Rules.ID, c, r.path()) {
		l.out.Set.AdminCollections = append(l.out.Set.AdminCollections, c)
		l.out.files[c.Rules] = r.file
	}
}

// readAdminRule reads a rule's fields as text. ok is false when a template leaves any open.
func (l *loader) readAdminRule(r *resource) (rule ruleset.SecurityAdminRule, ok bool) {
	f := l.read(r.file, r.parent.place(), r.name, r.body)
	rule = ruleset.SecurityAdminRule{Name: r.name, ID: r.identity(), Sources: f.adminPeers("sources"), Destinations: f.adminPeers("destinations")}
	readFields(f, &rule, ruleset.AdminRuleFields)
	rule.Kind, _ = lookup(r.body, "kind").(string)
	f.adminFieldsOnly()
	f.markCondition(r)
	return rule, len(f.open) == 0
}

// adminFieldsOnly reports fields that look like misspelt lists of an admin rule. Passed
// over in silence they would be dangerous: a missing list means everything.
func (f *fields) adminFieldsOnly() {
	lists := []string{"sources", "destinations"}
	for _, field := range ruleset.AdminRuleFields {
		if field.List != nil {
			lists = append(lists, field.Plural)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		low := strings.ToLower(name)
		near, known := ruleset.NewNearMiss(low), false
		for _, field := range lists {
			known = known || strings.EqualFold(name, field)
			near.Try(field, strings.ToLower(field), false)
		}
		side := strings.HasPrefix(low, "source") || strings.HasPrefix(low, "destination")
		if !known && (side || near.Hint() != "") && f.values[name] != nil {
			f.fault(CodeInvalidRequestFormat, name, asText(f.values[name]),
				"a security admin rule has no such field; allowed are %s", strings.Join(lists, ", "))
		}
	}
}

// adminPeers reads sources or destinations. It spells network groups as their own ids are.
func (f *fields) adminPeers(field string) (peers []ruleset.AdminPeer) {
	for _, o := range f.objects(field) {
		one := &fields{l: f.l, file: f.file, place: f.place, rule: f.rule, values: o, open: f.open}
		p := ruleset.AdminPeer{AddressPrefix: one.text("addressPrefix"), AddressPrefixType: one.text("addressPrefixType")}
		f.because(one.cause)
		if strings.EqualFold(p.AddressPrefixType, "NetworkGroup") && p.AddressPrefix != "" {
			if group, ok := f.resolve(networkGroupKind, field, p.AddressPrefix).(*policy.NetworkGroup); ok {
				p.AddressPrefix = group.ID
			}
		}
		peers = append(peers, p)
	}
	return peers
}
