package arm

import (
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/nsgd/nsgd/ruleset/arm/terraform"
)

// kind is what a resource is.
type kind uint8

const (
	otherKind kind = iota
	groupKind
	ruleKind
	networkKind
	subnetKind
	peeringKind
	interfaceKind
	asgKind
	routeTableKind
	routeKind
	managerKind
	networkGroupKind
	staticMemberKind
	adminKind // security admin configuration
	collectionKind
	adminRuleKind
	publicAddressKind
	publicPrefixKind
	natGatewayKind
	loadBalancerKind
	frontendKind // inside a load balancer only, like probes
	poolKind
	probeKind
	natRuleKind
	configurationKind // inside a network interface only
	privateEndpointKind
	watcherKind
	flowLogKind
	policyKind   // of Microsoft.Authorization
	natPoolKind  // inside a load balancer only
	scaleSetKind // of Microsoft.Compute, as its instances
	instanceKind // made for network interfaces only
	machineKind  // of Microsoft.Compute, made for network interfaces only
	hubKind      // virtual hub
	hubConnectionKind
	hubTableKind
	hubIntentKind
)

// kinds are the resource types that are read, without "Microsoft.Network/" and in lower case.
var kinds = map[string]kind{
	"networksecuritygroups":                    groupKind,
	"networksecuritygroups/securityrules":      ruleKind,
	"virtualnetworks":                          networkKind,
	"virtualnetworks/subnets":                  subnetKind,
	"virtualnetworks/virtualnetworkpeerings":   peeringKind,
	"networkinterfaces":                        interfaceKind,
	"applicationsecuritygroups":                asgKind,
	"routetables":                              routeTableKind,
	"routetables/routes":                       routeKind,
	"networkmanagers":                          managerKind,
	"networkmanagers/networkgroups":            networkGroupKind,
	"networkwatchers":                          watcherKind,
	"networkwatchers/flowlogs":                 flowLogKind,
	"publicipaddresses":                        publicAddressKind,
	"publicipprefixes":                         publicPrefixKind,
	"natgateways":                              natGatewayKind,
	"privateendpoints":                         privateEndpointKind,
	"loadbalancers":                            loadBalancerKind,
	"loadbalancers/backendaddresspools":        poolKind,
	"loadbalancers/inboundnatrules":            natRuleKind,
	"virtualhubs":                              hubKind,
	"virtualhubs/hubvirtualnetworkconnections": hubConnectionKind,
	"virtualhubs/hubroutetables":               hubTableKind,
	"virtualhubs/routingintent":                hubIntentKind,

	"networkmanagers/networkgroups/staticmembers":                       staticMemberKind,
	"networkmanagers/securityadminconfigurations":                       adminKind,
	"networkmanagers/securityadminconfigurations/rulecollections":       collectionKind,
	"networkmanagers/securityadminconfigurations/rulecollections/rules": adminRuleKind,
}

// foreignKinds are the resource types of other providers that are read, in lower case.
var foreignKinds = map[string]kind{
	"microsoft.authorization/policydefinitions":                                                                      policyKind,
	computeProvider + "virtualmachinescalesets":                                                                      scaleSetKind,
	computeProvider + "virtualmachinescalesets/virtualmachines/networkinterfaces":                                    interfaceKind,
	computeProvider + "virtualmachinescalesets/virtualmachines/networkinterfaces/ipconfigurations/publicipaddresses": publicAddressKind,
}

// kindPaths are the last parts of resource types, in ARM's spelling.
var kindPaths = [...]string{
	groupKind: "networkSecurityGroups", ruleKind: "securityRules", networkKind: "virtualNetworks",
	subnetKind: "subnets", peeringKind: "virtualNetworkPeerings", interfaceKind: "networkInterfaces",
	asgKind: "applicationSecurityGroups", routeTableKind: "routeTables", routeKind: "routes",
	managerKind: "networkManagers", networkGroupKind: "networkGroups", staticMemberKind: "staticMembers",
	adminKind: "securityAdminConfigurations", collectionKind: "ruleCollections", adminRuleKind: "rules",
	publicAddressKind: "publicIPAddresses", publicPrefixKind: "publicIPPrefixes", natGatewayKind: "natGateways",
	loadBalancerKind: "loadBalancers", frontendKind: "frontendIPConfigurations", poolKind: "backendAddressPools",
	probeKind: "probes", natRuleKind: "inboundNatRules", configurationKind: "ipConfigurations",
	watcherKind: "networkWatchers", flowLogKind: "flowLogs", policyKind: "policyDefinitions",
	privateEndpointKind: "privateEndpoints", natPoolKind: "inboundNatPools",
	scaleSetKind: "virtualMachineScaleSets", instanceKind: "virtualMachines", machineKind: "virtualMachines",
	hubKind: "virtualHubs", hubConnectionKind: "hubVirtualNetworkConnections", hubTableKind: "hubRouteTables", hubIntentKind: "routingIntent",
}

// parentKinds are the kinds of the parents of child kinds.
var parentKinds = map[kind]kind{ruleKind: groupKind, subnetKind: networkKind, peeringKind: networkKind, routeKind: routeTableKind,
	networkGroupKind: managerKind, staticMemberKind: networkGroupKind,
	adminKind: managerKind, collectionKind: adminKind, adminRuleKind: collectionKind,
	frontendKind: loadBalancerKind, poolKind: loadBalancerKind, probeKind: loadBalancerKind, natRuleKind: loadBalancerKind,
	flowLogKind: watcherKind, natPoolKind: loadBalancerKind, configurationKind: interfaceKind, instanceKind: scaleSetKind,
	hubConnectionKind: hubKind, hubTableKind: hubKind, hubIntentKind: hubKind}

// depth is the number of parents above a resource of kind k.
func (k kind) depth() (n int) {
	for ; parentKinds[k] != otherKind; k = parentKinds[k] {
		n++
	}
	return n
}

// typeName is the resource type without "Microsoft.Network/", in ARM's spelling.
func (k kind) typeName() string {
	path := kindPaths[k]
	if parent := parentKinds[k]; parent != otherKind {
		path = parent.typeName() + "/" + path
	}
	return path
}

// typePath is typeName in lower case.
func (k kind) typePath() string { return strings.ToLower(k.typeName()) }

const provider, computeProvider = "microsoft.network/", "microsoft.compute/"

// kindOfType is the kind of a type in lower case, with its provider.
func kindOfType(t string) kind {
	if path, ok := strings.CutPrefix(t, provider); ok {
		return kinds[path]
	}
	return foreignKinds[t]
}

// resource is an object of a document whose kind is read.
type resource struct {
	kind kind
	file string
	body map[string]any
	// source is the body as it was given; updates replace body.
	source map[string]any
	// name is the last segment of the name, or the whole text of an expression.
	name        string
	nameUnknown bool
	id          string       // empty when the document has none
	built       *ruleset.NSG // a group that an earlier reading built; then body is nil
	parent      *resource
	parentName  string // name or id of the parent of a child that is not nested
	children    []*resource
	like        *resource // what the first instance of the same scale set has
	given
}

// document collects the resources of a parsed file.
func (l *loader) document(file string, value any, err error) {
	if err != nil {
		f := notJSONFault(file, err)
		f.Message = notJSON(&f)
		l.fault(f)
		return
	}
	l.collect(file, value, nil)
}

// parseDocument parses a file.
func parseDocument(data []byte) (*jsonc.Document, error) {
	return jsonc.Parse(data, func(value any) bool {
		body, _ := value.(map[string]any)
		return terraform.Is(body) // its names are told apart by case
	})
}

// collect finds resources in a document's value, a list or a template's part.
func (l *loader) collect(file string, value any, parent *resource) {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			l.collect(file, v, parent)
		}
	case map[string]any:
		l.collectObject(file, value, parent)
	}
}

func (l *loader) collectObject(file string, body map[string]any, parent *resource) {
	if lookup(body, "condition") == false {
		return
	}
	k, typed := kindOf(body, parent)
	condition, _ := lookup(body, "condition").(string)
	if k == ruleKind && isExpression(condition) {
		l.listOther(file, body, "condition", condition, "the rule was not read")
		return
	}
	if k == otherKind {
		l.notRead(file, body)
		l.noteService(file, body)
		if !typed {
			l.collectAnswer(file, body)
		}
		switch t := typeOf(body); {
		case template.IsDeployment(t):
			l.collectDeployment(file, body)
		case t == computeProvider+"virtualmachines":
			l.collectMachine(file, body)
		case isExpression(t):
			l.listOther(file, body, "type", asText(lookup(body, "type")), "what the resource is is open")
		case typed:
			l.nearType(file, body, parent)
		}
		l.collectNested(file, body, nil)
		return
	}
	r := newResource(k, file, body, parent)
	if step := l.steps[file]; step != nil {
		r.step = step(body)
	}
	l.resources = append(l.resources, r)
	l.collectNested(file, body, r)
}

// collectDeployment collects the resources of a deployment's template, even if it is not
// known whether, or how often, they exist.
func (l *loader) collectDeployment(file string, body map[string]any) {
	properties, _ := lookup(body, "properties").(map[string]any)
	template := lookup(properties, "template")
	if text, ok := template.(string); ok && isExpression(text) {
		l.listOther(file, body, "template", text, "the template was not read")
	}
	before := len(l.resources)
	condition, _ := lookup(body, "condition").(string)
	if l.values.Partial && isExpression(condition) {
		l.listOther(file, body, "condition", condition, "the resources of the deployment were not read")
		return
	}
	l.collect(file, template, nil)
	if len(l.resources) == before {
		return
	}
	if isExpression(condition) {
		l.listOther(file, body, "condition", condition, "whether the resources of the deployment exist is open")
	}
	if v := lookup(body, "copy"); v != nil {
		l.listOther(file, body, "copy", asText(v), "how often the resources of the deployment exist is open")
	}
}

// listOther lists a field that an expression keeps open in an object whose kind is not read.
func (l *loader) listOther(file string, body map[string]any, field, value, what string) {
	place := "template"
	if name, ok := lookup(body, "name").(string); ok && name != "" {
		place = "resources/" + name
	}
	l.unresolved(l.places.at(ruleset.Fault{
		Code: CodeTemplateExpression, File: file, Resource: place, Field: field, Value: ruleset.Clip(value),
		Message: l.reason(file, value) + ": " + what,
	}, body))
}

// collectNested collects "resources". Templates of language version 2 write it as an
// object of symbolic names.
func (l *loader) collectNested(file string, body map[string]any, parent *resource) {
	var list []any
	switch nested := lookup(body, "resources").(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(nested)) {
			list = append(list, nested[name])
		}
	case []any:
		list = nested
	default:
		list = []any{nested}
	}
	for _, v := range list {
		if text, ok := v.(string); ok && isExpression(text) {
			l.listOther(file, body, "resources", text, "the resources were not read")
		}
	}
	l.collect(file, list, parent)
}

func typeOf(body map[string]any) string {
	text, _ := lookup(body, "type").(string)
	return strings.ToLower(text)
}

// kindOf finds a resource's kind by its type, else by its id, else by its shape. typed
// reports whether it has a type.
func kindOf(body map[string]any, parent *resource) (k kind, typed bool) {
	if t := typeOf(body); t != "" {
		if k := kindOfType(t); k != otherKind || strings.HasPrefix(t, provider) {
			return k, true
		}
		if parent != nil && !strings.Contains(t, "/") {
			return kinds[parent.kind.typePath()+"/"+t], true
		}
		return otherKind, true
	}
	if id, ok := lookup(body, "id").(string); ok {
		if k := kindOfID(id); k != otherKind {
			return k, false
		}
	}
	fields := body
	if properties, ok := lookup(body, "properties").(map[string]any); ok {
		fields = properties
	}
	has := func(field string) bool { return lookup(fields, field) != nil }
	switch {
	case has("securityRules"), has("defaultSecurityRules"):
		return groupKind, false
	case has("addressSpace"):
		return networkKind, false
	case has("ipConfigurations") && !has("addressPrefix") && !has("addressPrefixes"): // subnets list them too
		return interfaceKind, false
	case has("disableBgpRoutePropagation"):
		return routeTableKind, false
	case has("frontendIPConfigurations") && has("backendAddressPools"):
		return loadBalancerKind, false
	case has("publicIPAllocationMethod") && has("publicIPAddressVersion"):
		return publicAddressKind, false
	}
	return otherKind, false
}

// kindOfID finds the kind in a resource id: every second segment after the provider.
func kindOfID(id string) kind {
	_, path, found := strings.Cut(strings.ToLower(id), "/providers/microsoft.")
	if !found {
		return otherKind
	}
	var types []string
	for i, segment := range strings.Split(path, "/") {
		if i == 0 || i%2 == 1 {
			types = append(types, segment)
		}
	}
	return kindOfType("microsoft." + strings.Join(types, "/"))
}

func newResource(k kind, file string, body map[string]any, parent *resource) *resource {
	r := &resource{kind: k, file: file, body: body, source: body}
	if of, child := parentKinds[k]; child && parent != nil && parent.kind == of {
		r.parent = parent
	}
	r.id, _ = lookup(body, "id").(string)
	if isExpression(r.id) {
		r.id = ""
	}
	if k == interfaceKind {
		r.parent = instanceOf(file, r.id)
	}
	name, _ := lookup(body, "name").(string)
	switch {
	case isExpression(name):
		r.name, r.nameUnknown = name, true
	case name == "":
		r.name = lastSegment(r.id)
	case parentKinds[k] == otherKind:
		r.name = name
	default:
		before, last, found := cutLast(name)
		r.name = last
		if found {
			r.parentName = before
		}
	}
	if group := known(body, "resourceGroup"); r.id == "" && group != "" && parentKinds[k] == otherKind && !r.nameUnknown { // a row of Resource Graph without its id
		r.id = "/subscriptions/" + known(body, "subscriptionId") + "/resourceGroups/" + group + "/providers/Microsoft.Network/" + kindPaths[k] + "/" + r.name
	}
	if r.parentName == "" && r.parent == nil && parentKinds[k] != otherKind {
		// ".../virtualNetworks/v/subnets/s": the parent's id is all but two segments.
		if parentID, _, found := cutLast(r.id); found {
			parentID, _, _ = cutLast(parentID)
			r.parentName = parentID
		}
	}
	return r
}

// lookup finds a field in any case; the exact spelling wins.
func lookup(object map[string]any, field string) any {
	if v, ok := object[field]; ok {
		return v
	}
	found, ok := "", false
	for name := range object {
		if jsonc.SameName(name, field) && (!ok || name < found) {
			found, ok = name, true
		}
	}
	if !ok { // object[""] may exist
		return nil
	}
	return object[found]
}

// isExpression reports whether text is a template expression. "[[" escapes a bracket.
func isExpression(text string) bool {
	return len(text) >= 2 && text[0] == '[' && text[len(text)-1] == ']' && text[1] != '['
}

func lastSegment(id string) string {
	_, last, _ := cutLast(id)
	return last
}

// cutLast splits at the last slash. Without a slash the whole text is last.
func cutLast(text string) (before, last string, found bool) {
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

// nearType reports a resource whose type is nearly one of those that are read.
func (l *loader) nearType(file string, body map[string]any, parent *resource) {
	t := typeOf(body)
	if parent != nil && !strings.Contains(t, "/") {
		t = provider + parent.kind.typePath() + "/" + t
	}
	near := ruleset.NewNearMiss(t)
	for path, k := range kinds {
		near.Try("Microsoft.Network/"+k.typeName(), provider+path, false)
	}
	if hint := near.Hint(); hint != "" {
		name, _ := lookup(body, "name").(string)
		l.fault(l.places.at(ruleset.Fault{
			Code: CodeInvalidResourceType, File: file, Resource: "resources/" + name, Field: "type", Value: ruleset.Clip(asText(lookup(body, "type"))),
			Message: "there is no such type" + hint,
		}, body))
	}
}
