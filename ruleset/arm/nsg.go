package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Our own codes for Azure's limits of a region in a subscription.
const (
	CodeTooManyGroups            = "SubscriptionInvalidNumberOfNetworkSecurityGroups"
	CodeTooManyApplicationGroups = "SubscriptionInvalidNumberOfApplicationSecurityGroups"
)

const (
	maxGroupsPerRegion = 5000
	maxASGsPerRegion   = 3000
)

// region is the scope in which Azure counts the resources of a kind.
type region struct {
	kind                   kind
	subscription, location string
}

// countInRegion counts a resource, and reports the first one above the limit.
func (f *fields) countInRegion(r *resource, location string) {
	at := region{r.kind, subscriptionOf(r.id), regionOf(location)}
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

func (l *loader) buildASG(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	a := &policy.ApplicationSecurityGroup{Name: r.name, ID: r.identity()}
	if !f.named(r) {
		return
	}
	f.markCondition(r)
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
	} else if l.register(r, a.ID, a, a.Name) {
		l.out.Set.ApplicationSecurityGroups = append(l.out.Set.ApplicationSecurityGroups, a)
		location, _ := lookup(r.body, "location").(string)
		f.countInRegion(r, location)
	}
}

// named reports whether a resource can be read: without a name it is faulty. One with an open name is open as a whole:
// nothing can tell what refers to it.
func (f *fields) named(r *resource) bool {
	switch {
	case r.name == "":
		f.fault(CodeInvalidRequestFormat, "name", "", "a resource needs a name or an id")
		return false
	case r.nameUnknown && r.id == "":
		f.markOpen("name", r.name)
		return !f.translating
	}
	return true
}

// registerOpen registers a resource that stays open for a cause, so that references to it
// are not broken but open too.
func (l *loader) registerOpen(r *resource, because *cause) {
	names := []string{r.name}
	switch {
	case managed(r.kind), r.kind == interfaceKind:
		names = []string{r.path()}
	case paired(r.kind) && r.parent != nil:
		names = append(names, r.parent.name+"/"+r.name)
	}
	l.enter(r, &entry{id: r.identity(), cause: because}, names...)
}

// checkOrphanRules validates rules whose group no document has.
func (l *loader) checkOrphanRules() {
	strays, bodies := map[string]*ruleset.NetworkSecurityGroup{}, map[string]ruleBody{}
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
		bodies[strings.ToLower(r.name)] = ruleBody{r.file, r.source}
		raw.SecurityRules = append(raw.SecurityRules, l.readRule(r.file, "networkSecurityGroups/"+raw.Name, r.name, false, r.body))
	}
	for _, name := range order {
		_, faults := strays[name].Validate(l.knownTags)
		l.out.Faults = append(l.out.Faults, l.placeFaults(faults, nil, bodies)...)
	}
}

func (l *loader) buildGroup(r *resource) {
	if r.built != nil {
		l.stale = l.stale || len(r.children) > 0
		l.addGroup(r, r.built)
		return
	}
	f := l.read(r.file, r.place(), "", r.body)
	raw := &ruleset.NetworkSecurityGroup{
		File: r.file, Name: r.name, ID: r.identity(), UnknownName: r.nameUnknown,
		FlushConnection: f.flag("flushConnection", false),
	}
	if r.nameUnknown {
		f.named(r)
	}
	raw.Location, _ = lookup(r.body, "location").(string)
	if guid, _ := lookup(f.values, "resourceGuid").(string); !isExpression(guid) {
		raw.ResourceGUID = guid
	}
	inner := l.inner(r, ruleKind, f.objects("securityRules"))
	bodies := make(map[string]ruleBody, len(inner))
	raw.SecurityRules = make([]ruleset.SecurityRule, 0, len(inner)) // a policy keeps them: see ruleset.Rule.Written
	for _, c := range inner {
		bodies[strings.ToLower(c.name)] = ruleBody{c.file, c.source}
		raw.SecurityRules = append(raw.SecurityRules, l.readRule(c.file, r.place(), c.name, c.nameUnknown, c.body))
	}
	nsg, faults := raw.Validate(l.knownTags)
	l.out.Faults = append(l.out.Faults, l.placeFaults(faults, r.source, bodies)...)
	l.out.bodies[nsg] = bodies
	if len(f.open) > 0 {
		l.registerOpen(r, f.cause)
		return
	}
	// A condition comes last: the rules are checked whatever it says.
	f.markCondition(r)
	if l.values.Partial && len(f.open) > 0 {
		l.registerOpen(r, f.cause)
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

// readRule reads a rule's fields as text, for ruleset to validate.
func (l *loader) readRule(file, place, name string, nameUnknown bool, body map[string]any) ruleset.SecurityRule {
	f := l.read(file, place, name, body)
	rule := ruleset.SecurityRule{Name: name}
	rule.ID, _ = lookup(body, "id").(string)
	readFields(f, &rule, ruleset.SecurityRuleFields)
	f.warnOfNumbers(&rule)
	if nameUnknown {
		f.markOpen("name", name)
	}
	for _, field := range ruleset.SecurityRuleFields {
		if text, _ := lookup(f.values, field.Name).(string); field.Literal && isExpression(text) {
			f.open[field.Name] = true
		}
	}
	if len(f.open) > 0 {
		rule.Unknown = f.open
	}
	return rule
}

// CodeNumberAsAddress is in Documents.Warnings. It is ours.
const CodeNumberAsAddress = "SecurityRuleNumberAsAddress"

// warnOfNumbers warns of numbers in the place of addresses.
func (f *fields) warnOfNumbers(rule *ruleset.SecurityRule) {
	for _, field := range ruleset.SecurityRuleFields {
		if !strings.HasSuffix(field.Name, "AddressPrefix") {
			continue
		}
		for _, text := range append([]string{*field.Text(rule)}, *field.List(rule)...) {
			if a, ok := ruleset.NumberedAddress(text); ok {
				f.l.warn(f.newFault(CodeNumberAsAddress, field.Name, text, "Azure takes a number; what it matches is not known: here it is "+a.String()+", as .NET reads it"))
			}
		}
	}
}

// readFields fills a rule from the table of its fields. When the properties cannot be
// read, the fields that decide a verdict are open.
func readFields[R any](f *fields, rule *R, table []ruleset.Field[R]) {
	for _, field := range table {
		if f.withheld() && !field.Literal {
			for _, name := range field.Names() {
				f.open[name] = true
			}
		}
		var list []string
		switch several, _ := lookup(f.values, field.Name).([]any); {
		case field.Text == nil:
		case field.Literal:
			*field.Text(rule) = f.literal(field.Name)
		case field.List != nil && len(several) > 1 && lookup(f.body, "properties") == nil: // PowerShell's form
			list = f.texts(field.Name)
		default:
			*field.Text(rule) = f.text(field.Name)
		}
		switch {
		case field.References:
			*field.List(rule) = f.asgs(field.Plural)
		case field.List != nil:
			*field.List(rule) = append(list, f.texts(field.Plural)...)
		}
	}
}

// asgs reads references to ASGs, spelled as the ASGs' own ids are.
func (f *fields) asgs(field string) []string {
	ids := f.references(field)
	for i, id := range ids {
		if a, ok := f.resolve(asgKind, field, id).(*policy.ApplicationSecurityGroup); ok {
			ids[i] = a.ID
		}
	}
	return slices.Compact(ids)
}
