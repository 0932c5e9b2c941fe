// Package terraform turns the output of "terraform show -json", a state or a plan, into
// resources of ARM: what Terraform's azurerm provider would send to Azure.
//
// It reads network security groups and rules, application security groups, virtual
// networks, subnets, peerings, network interfaces, route tables and routes, public
// addresses, NAT gateways, load balancers, scale sets, virtual hubs, and the associations between them. It
// skips other resources. Data sources of these types count if no resource has the same id.
// Terraform repeats separate rules, subnets and routes in their parent's list; the separate
// resource holds.
//
// A plan has no ids of resources that do not exist yet. References to them are followed
// through the plan's configuration, also through variables and outputs of modules. Ids are
// made of the subscription of what exists, the resource group and the name. Any other value that
// Terraform knows only after apply becomes a text "[ADDRESS.FIELD]", with an entry in Result.Reasons.
package terraform

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// noSubscription is the subscription in ids where nothing of the plan exists yet.
const noSubscription = "00000000-0000-0000-0000-000000000000"

// Result is a converted document.
type Result struct {
	// Resources are objects in the form of ARM templates.
	Resources []any
	// Reasons say why values are not known, by the text that stands for each.
	Reasons map[string]string
	// Left are parts of the document that were not converted.
	Left []Left
}

// Left is a part of a document that was not converted.
type Left struct {
	// Address is Terraform's address, such as module.net.azurerm_subnet.a.
	Address string
	Field   string
	Value   string
	Message string
}

// resource is a resource of a state or a plan.
type resource struct {
	address, module string
	kind, name      string
	data            bool
	values          map[string]any
	unknown         map[string]any // the fields that a plan leaves open, until they are filled in
	subscription    string         // of an id that is made
}

// converter collects a document's resources.
type converter struct {
	result    *Result
	resources []*resource
	byAddress map[string]*resource
	config    *config
	// made are ARM resources by id in lower case.
	made  map[string]map[string]any
	order []map[string]any
}

// Is reports whether a document is the output of "terraform show -json".
func Is(document map[string]any) bool {
	version, _ := document["format_version"].(string)
	return version != "" && (object(document, "values") != nil || object(document, "planned_values") != nil || document["terraform_version"] != nil)
}

// Convert turns a document into resources of ARM. For a plan these are the resources after
// it is applied.
func Convert(document map[string]any) *Result {
	c := &converter{result: &Result{Reasons: map[string]string{}}, byAddress: map[string]*resource{}, made: map[string]map[string]any{}}
	state := object(document, "planned_values")
	if state == nil {
		state = object(document, "values")
	} else {
		c.config = newConfig(object(object(document, "configuration"), "root_module"))
		c.collect(object(object(object(document, "prior_state"), "values"), "root_module"), "", true)
	}
	c.collect(object(state, "root_module"), "", false)
	c.leaveRest(document)
	changes := list(document, "resource_changes")
	c.subscribe(changes)
	c.unknowns(changes)
	c.convert()
	for _, r := range c.order {
		c.result.Resources = append(c.result.Resources, r)
	}
	return c.result
}

// Prior is the state that a plan begins from, as a document of its own. It is empty where nothing exists
// yet. ok is false when the document is no plan.
func Prior(document map[string]any) (state map[string]any, ok bool) {
	if object(document, "planned_values") == nil {
		return nil, false
	}
	values := object(object(document, "prior_state"), "values")
	if values == nil {
		values = map[string]any{}
	}
	return map[string]any{"format_version": document["format_version"], "values": values}, true
}

// Unreadable says why a document of Terraform cannot be read. Empty when it can, or when it
// is no document of Terraform.
func Unreadable(document map[string]any) string {
	const show = `give the output of "terraform show -json"`
	_, version := document["version"].(json.Number)
	_, lineage := document["lineage"].(string)
	if version && lineage {
		return "it is a state as Terraform keeps it, which is not read: " + show
	}
	if text(document, "format_version") != "" && object(document, "values") == nil && object(document, "planned_values") == nil {
		return "it has a format_version, and neither values nor planned_values: " + show + " of a state or a plan that has resources"
	}
	return ""
}

// collect collects the resources of a module and of its child modules. From a plan's prior
// state it takes only data sources.
func (c *converter) collect(module map[string]any, address string, dataOnly bool) {
	for _, v := range list(module, "resources") {
		o, _ := v.(map[string]any)
		r := &resource{
			address: text(o, "address"), module: address, kind: text(o, "type"), name: text(o, "name"),
			data: text(o, "mode") == "data", values: object(o, "values"),
		}
		if !dataOnly && !r.data {
			c.leaveOther(r)
		}
		if kinds[r.kind].convert == nil || dataOnly && !r.data || r.data && !kinds[r.kind].data {
			continue
		}
		r.values = maps.Clone(r.values)
		if r.values == nil {
			r.values = map[string]any{}
		}
		c.resources = append(c.resources, r)
		c.byAddress[r.address] = r
	}
	for _, v := range list(module, "child_modules") {
		child, _ := v.(map[string]any)
		c.collect(child, text(child, "address"), dataOnly)
	}
}

// subscribe makes the ids of what does not exist yet those of the subscription of all that does, so that a
// resource that is replaced keeps its id.
func (c *converter) subscribe(changes []any) {
	found := ""
	note := func(values map[string]any) bool {
		parts := strings.Split(text(values, "id"), "/")
		if len(parts) < 3 || !strings.EqualFold(parts[1], "subscriptions") {
			return true
		}
		one := found == "" || strings.EqualFold(found, parts[2])
		found = parts[2]
		return one
	}
	for _, v := range changes {
		change, _ := v.(map[string]any)
		if !note(object(object(change, "change"), "before")) {
			return
		}
	}
	for _, r := range c.resources {
		if !note(r.values) {
			return
		}
	}
	for _, r := range c.resources {
		r.subscription = found
	}
}

// leaveOther lists a resource that matters for the policy but whose type is not read.
func (c *converter) leaveOther(r *resource) {
	left := Left{Address: r.address, Field: "type", Value: r.kind}
	switch {
	case strings.HasPrefix(r.kind, "azurerm_network_manager_"):
		left.Message = "virtual network managers are read from ARM's documents only: the resource was not read"
	case r.kind == "azapi_resource", r.kind == "azapi_update_resource", r.kind == "azapi_resource_action":
		left.Value = text(r.values, "type")
		if !decides(left.Value) || r.kind == "azapi_resource_action" && slices.Contains([]string{"", "GET", "HEAD", "POST"}, strings.ToUpper(text(r.values, "method"))) {
			return
		}
		left.Message = "resources of the azapi provider are not read: write it as one of the azurerm provider"
	case r.kind == "azurerm_virtual_machine_scale_set":
		left.Message = "scale sets of this type are not read: write it as azurerm_linux_virtual_machine_scale_set, azurerm_windows_... or azurerm_orchestrated_..."
	case strings.HasPrefix(r.kind, "azurestack_"):
		if kinds["azurerm_"+strings.TrimPrefix(r.kind, "azurestack_")].convert == nil {
			return
		}
		left.Message = "resources of the azurestack provider are not read"
	case strings.HasPrefix(r.kind, "azurerm_") && strings.HasSuffix(r.kind, "template_deployment"):
		template := cmp.Or(text(r.values, "template_content"), text(r.values, "template_body"))
		if template != "" && !strings.Contains(strings.ToLower(template), "microsoft.network/") {
			return
		}
		left.Message = "the template of the deployment was not read: give it as a document of its own"
	default:
		return
	}
	c.result.Left = append(c.result.Left, left)
}

// leaveRest says that a plan is not all of its configuration.
func (c *converter) leaveRest(document map[string]any) {
	const message = ": resources may be missing here and are not told: plan it again"
	if document["errored"] == true {
		c.result.Left = append(c.result.Left, Left{Address: "plan", Field: "errored", Value: "true", Message: "Terraform ended with an error while it planned" + message})
	} else if document["complete"] == false {
		c.result.Left = append(c.result.Left, Left{Address: "plan", Field: "complete", Value: "false",
			Message: "the plan does not hold all resources, because of -target or of what is deferred" + message})
	}
}

// networkKinds are ARM's kinds that are read, in lower case.
var networkKinds = []string{
	"networksecuritygroups", "applicationsecuritygroups", "virtualnetworks", "networkinterfaces", "routetables", "networkmanagers",
	"publicipaddresses", "publicipprefixes", "natgateways", "loadbalancers", "privateendpoints", "virtualhubs", "virtualwans",
}

// decides reports whether a resource of an ARM type, with its API version, may change what happens to packets.
func decides(kind string) bool {
	kind, _, _ = strings.Cut(strings.ToLower(kind), "@")
	of, kind, _ := strings.Cut(kind, "/")
	kind, _, _ = strings.Cut(kind, "/")
	switch of {
	case "microsoft.network":
		return slices.Contains(networkKinds, kind)
	case "microsoft.compute":
		return kind == "virtualmachinescalesets"
	case "microsoft.resources":
		return kind == "deployments" || kind == "deploymentstacks"
	}
	return false
}

// unknowns fills in values that Terraform knows only after apply, or texts that stand for
// them.
func (c *converter) unknowns(changes []any) {
	for _, v := range changes {
		change, _ := v.(map[string]any)
		if r := c.byAddress[text(change, "address")]; r != nil && !r.data {
			r.unknown = object(object(change, "change"), "after_unknown")
		}
	}
	for _, r := range c.resources {
		c.complete(r)
	}
	for _, v := range changes {
		change, _ := v.(map[string]any)
		if r := c.byAddress[text(change, "address")]; r != nil && !r.data {
			c.dynamic(r, object(object(change, "change"), "after_unknown"))
		}
	}
}

// complete fills in a resource's unknown values, after those of the resources that it
// refers to.
func (c *converter) complete(r *resource) {
	if unknown := r.unknown; unknown != nil {
		r.unknown = nil // a circle ends here
		r.values = c.fill(r, r.address, r.values, unknown, c.config.expressions(r))
	}
}

// dynamic marks a list of children as unknown when a dynamic block may set it: such a block
// is not among a configuration's expressions. If the document has the children as separate
// resources, the provider computes the list from these.
func (c *converter) dynamic(r *resource, unknown map[string]any) {
	lists := map[string]string{
		"azurerm_network_security_group": "security_rule", "azurerm_route_table": "route", "azurerm_virtual_network": "subnet",
	}
	field := lists[r.kind]
	if field == "" || unknown[field] != true || r.values[field] != nil {
		return
	}
	for _, other := range c.resources {
		k := kinds[other.kind]
		if k.parentKind == kinds[r.kind].kind && k.kind != "virtualNetworkPeerings" && text(other.values, k.parent) == text(r.values, "name") {
			return
		}
	}
	at := r.address + "." + field
	t := "[" + at + "]"
	c.result.Reasons[t] = "a dynamic block may set " + at + ", which Terraform tells only after it applied the plan: apply it, or read a state"
	r.values[field] = t
}

// fill returns an object with its unknown fields filled in. expressions are those of the
// configuration; nil when there is none.
func (c *converter) fill(r *resource, path string, values, unknown, expressions map[string]any) map[string]any {
	values = maps.Clone(values)
	if values == nil {
		values = map[string]any{}
	}
	for _, field := range slices.Sorted(maps.Keys(unknown)) {
		expression, configured := expressions[field]
		at := path + "." + field
		switch u := unknown[field].(type) {
		case bool:
			// The provider computes what the configuration does not set. For dynamic
			// blocks, see dynamic.
			if !u || field == "id" || expressions != nil && !configured {
				continue
			}
			values[field] = c.refer(r, at, field, expression)
		case []any:
			have, _ := values[field].([]any)
			blocks, _ := expression.([]any)
			values[field] = c.fillList(r, at, field, have, u, blocks, expression)
		case map[string]any:
			have, _ := values[field].(map[string]any)
			inner, _ := expression.(map[string]any)
			values[field] = c.fill(r, at, have, u, inner)
		}
	}
	return values
}

func (c *converter) fillList(r *resource, path, field string, have, unknown, blocks []any, expression any) []any {
	have = slices.Clone(have)
	for i, u := range unknown {
		at := fmt.Sprintf("%s[%d]", path, i)
		for len(have) <= i {
			have = append(have, nil)
		}
		switch u := u.(type) {
		case bool:
			if u {
				have[i] = c.refer(r, at, field, expression)
			}
		case map[string]any:
			values, _ := have[i].(map[string]any)
			inner := blockOf(blocks, values, field, i, len(unknown))
			have[i] = c.fill(r, at, values, u, inner)
		}
	}
	return have
}

// blockOf is the configuration of element i of n; nil when it is not known, as for dynamic
// blocks. The provider keeps most blocks as a set, without the configuration's order, so
// blocks are found by their names.
func blockOf(blocks []any, values map[string]any, field string, i, n int) map[string]any {
	if len(blocks) == n && (n == 1 || field == "ip_configuration") {
		block, _ := blocks[i].(map[string]any)
		return block
	}
	for _, v := range blocks {
		block, _ := v.(map[string]any)
		if name := text(object(block, "name"), "constant_value"); name != "" && name == text(values, "name") {
			return block
		}
	}
	return nil
}

// refer is the value of a field that refers to ids or names of other resources. For any
// other field it is the text that stands for the value.
func (c *converter) refer(r *resource, at, field string, expression any) any {
	want := ""
	switch {
	case field == "id", field == "security_group", strings.HasSuffix(field, "_id"), strings.HasSuffix(field, "_ids"):
		want = ".id"
	case strings.HasSuffix(field, "_name"):
		want = ".name"
	}
	o, _ := expression.(map[string]any)
	var found []any
	if want != "" {
		targets, whole := c.config.targets(r.module, o, want, 0)
		if len(targets) == 0 && strings.Contains(field, "route_table_id") {
			want = ofDefaultTable
			targets, whole = c.config.targets(r.module, o, want, 0)
		}
		for _, target := range targets {
			if t := c.byAddress[target]; t != nil && whole {
				found = append(found, c.attribute(t, want))
			} else { // the list would lack an id, or have the wrong branch of a condition
				return c.open(at)
			}
		}
	}
	switch {
	case len(found) > 0 && strings.HasSuffix(field, "_ids"):
		return found
	case len(found) == 1:
		return found[0]
	}
	return c.open(at)
}

func (c *converter) attribute(r *resource, name string) any {
	c.complete(r)
	switch name {
	case ".name":
		return text(r.values, "name")
	case ofDefaultTable:
		return r.id() + "/hubRouteTables/defaultRouteTable"
	}
	return r.id()
}

// open is the text that stands for an unknown value.
func (c *converter) open(at string) string {
	t := "[" + at + "]"
	c.result.Reasons[t] = "Terraform knows " + at + " only after it applied the plan: apply it, or read a state"
	return t
}

func object(o map[string]any, name string) map[string]any {
	v, _ := o[name].(map[string]any)
	return v
}

func list(o map[string]any, name string) []any {
	v, _ := o[name].([]any)
	return v
}

func text(o map[string]any, name string) string {
	switch v := o[name].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}
