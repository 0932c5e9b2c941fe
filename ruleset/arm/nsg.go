package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes of ours for Azure's limits of a region in a subscription.
const (
	CodeTooManyGroups            = "SubscriptionInvalidNumberOfNetworkSecurityGroups"
	CodeTooManyApplicationGroups = "SubscriptionInvalidNumberOfApplicationSecurityGroups"
)

const (
	maxGroupsPerRegion = 5000
	maxASGsPerRegion   = 3000
)

// region is where Azure counts resources of a kind.
type region struct {
	kind                   kind
	subscription, location string
}

// countInRegion counts a resource and reports the first one beyond the limit.
func (f *fields) countInRegion(r *resource, location string) {
	at := region{r.kind, subscriptionOf(r.id), strings.ToLower(strings.ReplaceAll(location, " ", ""))}
	f.l.inRegion[at]++
	code, most := CodeTooManyGroups, maxGroupsPerRegion
	if r.kind == asgKind {
		code, most = CodeTooManyApplicationGroups, maxASGsPerRegion
	}
	if f.l.inRegion[at] == most+1 {
		f.fault(code, "location", location, "a subscription has at most %d %s in a region", most, kindPaths[r.kind])
	}
}

// subscriptionOf is the subscription of a resource id, in lower case.
func subscriptionOf(id string) string {
	if !isAzureID(id) {
		return ""
	}
	return strings.ToLower(strings.Split(id, "/")[2])
}

func (l *loader) buildASGs() {
	for _, r := range l.resources {
		if r.kind != asgKind {
			continue
		}
		f := l.read(r.file, r.place(), "", r.body)
		a := &policy.ApplicationSecurityGroup{Name: r.name, ID: r.identity()}
		if !f.named(r) {
			continue
		}
		f.leaveCondition(r)
		if len(f.open) > 0 {
			l.registerOpen(r)
		} else if l.register(r, a.ID, a, a.Name) {
			l.out.Set.ApplicationSecurityGroups = append(l.out.Set.ApplicationSecurityGroups, a)
			location, _ := lookup(r.body, "location").(string)
			f.countInRegion(r, location)
		}
	}
}

// named checks that a resource can be told from others.
func (f *fields) named(r *resource) bool {
	if r.name == "" {
		f.fault(CodeInvalidRequestFormat, "name", "", "a resource needs a name or an id")
	}
	return r.name != ""
}

// registerOpen makes references to a resource that is left open known as such.
func (l *loader) registerOpen(r *resource) {
	names := []string{r.name}
	if paired(r.kind) && r.parent != nil {
		names = append(names, r.parent.name+"/"+r.name)
	}
	l.register(r, r.identity(), nil, names...)
}

func (l *loader) buildGroups() {
	for _, r := range l.resources {
		if r.kind == groupKind {
			l.buildGroup(r)
		}
	}
	// Rules without their group are checked as far as that goes.
	strays := map[string]*ruleset.NetworkSecurityGroup{}
	var order []string
	for _, r := range l.orphans {
		if r.kind != ruleKind {
			continue
		}
		raw := strays[r.parentName]
		if raw == nil {
			raw = &ruleset.NetworkSecurityGroup{File: r.file, Name: lastSegment(r.parentName), UnknownName: true}
			strays[r.parentName] = raw
			order = append(order, r.parentName)
		}
		raw.SecurityRules = append(raw.SecurityRules, l.readRule(r.file, "networkSecurityGroups/"+raw.Name, r.name, false, r.body))
	}
	for _, name := range order {
		_, faults := strays[name].Validate(l.known)
		l.out.Faults = append(l.out.Faults, faults...)
	}
}

func (l *loader) buildGroup(r *resource) {
	if r.built != nil {
		l.stale = l.stale || len(r.children) > 0
		l.addGroup(r, r.built)
		return
	}
	f := l.read(r.file, r.place(), "", r.body)
	if v, listed := r.body["properties"]; listed && v == nil {
		f.fault(CodeInvalidRequestFormat, "properties", "null",
			"the properties are left out, as lists of resources of all kinds do; its rules are needed")
	}
	raw := &ruleset.NetworkSecurityGroup{
		File: r.file, Name: r.name, ID: r.identity(), UnknownName: r.nameUnknown,
		FlushConnection: f.flag("flushConnection", false),
	}
	raw.Location, _ = lookup(r.body, "location").(string)
	if guid, _ := lookup(f.values, "resourceGuid").(string); !isExpression(guid) {
		raw.ResourceGUID = guid
	}
	for _, o := range f.objects("securityRules") {
		name, _ := lookup(o, "name").(string)
		raw.SecurityRules = append(raw.SecurityRules, l.readRule(r.file, r.place(), name, isExpression(name), o))
	}
	for _, child := range r.children {
		if child.kind == ruleKind {
			raw.SecurityRules = append(raw.SecurityRules, l.readRule(child.file, r.place(), child.name, child.nameUnknown, child.body))
		}
	}
	nsg, faults := raw.Validate(l.known)
	l.out.Faults = append(l.out.Faults, faults...)
	if len(f.open) > 0 {
		l.registerOpen(r)
		return
	}
	// The group is read nevertheless: its rules can be checked.
	f.leaveCondition(r)
	if l.values.Partial && len(f.open) > 0 {
		l.registerOpen(r)
		return
	}
	l.addGroup(r, nsg)
}

func (l *loader) addGroup(r *resource, nsg *ruleset.NSG) {
	r.built = nsg
	if l.register(r, nsg.ID, nsg, nsg.Name) {
		l.out.Set.NetworkSecurityGroups = append(l.out.Set.NetworkSecurityGroups, nsg)
		l.out.files[nsg] = r.file
		f := &fields{l: l, file: r.file, place: r.place()}
		f.countInRegion(r, nsg.Location)
	}
}

// ruleFields are the properties that a rule can't do without, in all their forms.
var ruleFields = []string{
	"protocol", "access", "direction", "priority",
	"sourcePortRange", "sourcePortRanges", "destinationPortRange", "destinationPortRanges",
	"sourceAddressPrefix", "sourceAddressPrefixes", "sourceApplicationSecurityGroups",
	"destinationAddressPrefix", "destinationAddressPrefixes", "destinationApplicationSecurityGroups",
}

// readRule reads a rule's fields as text; validation is ruleset's.
func (l *loader) readRule(file, place, name string, nameUnknown bool, body map[string]any) ruleset.SecurityRule {
	f := l.read(file, place, name, body)
	if f.withheld() {
		for _, field := range ruleFields {
			f.open[field] = true
		}
	}
	rule := ruleset.SecurityRule{
		Name:        name,
		Description: f.literal("description"),
		Protocol:    f.text("protocol"),
		Access:      f.text("access"),
		Direction:   f.text("direction"),
		Priority:    f.text("priority"),
		Source:      f.side("source"),
		Destination: f.side("destination"),
		Unknown:     f.open,
	}
	rule.ID, _ = lookup(body, "id").(string)
	f.open["name"] = nameUnknown
	f.open["description"] = isExpression(rule.Description)
	return rule
}

// side reads the fields that begin with "source" or "destination". A singular
// field with several values, PowerShell's form, reads as the plural one.
func (f *fields) side(end string) ruleset.Side {
	one := func(field string) (string, []string) {
		if list, ok := lookup(f.values, field).([]any); ok && len(list) > 1 {
			return "", f.texts(field)
		}
		return f.text(field), nil
	}
	var s ruleset.Side
	s.PortRange, s.PortRanges = one(end + "PortRange")
	s.PortRanges = append(s.PortRanges, f.texts(end+"PortRanges")...)
	s.AddressPrefix, s.AddressPrefixes = one(end + "AddressPrefix")
	s.AddressPrefixes = append(s.AddressPrefixes, f.texts(end+"AddressPrefixes")...)
	s.ApplicationSecurityGroups = f.asgs(end + "ApplicationSecurityGroups")
	return s
}

// asgs reads references to ASGs and gives them the spelling of the ASGs' own ids.
func (f *fields) asgs(field string) []string {
	ids := f.references(field)
	for i, id := range ids {
		if a, ok := f.resolve(asgKind, field, id).(*policy.ApplicationSecurityGroup); ok {
			ids[i] = a.ID
		}
	}
	return slices.Compact(ids)
}
