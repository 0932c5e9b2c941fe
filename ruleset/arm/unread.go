package arm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// Our own codes for documents that are not, or not wholly, a policy.
const (
	// CodeNothingRead is for a document that holds nothing that is read.
	CodeNothingRead = "NothingRead"
	// CodeIncompleteList is for a document that says that it is a part of a longer list.
	CodeIncompleteList = "IncompleteList"
	// CodeClassic is for classic resources, those of Azure Service Manager.
	CodeClassic = "ClassicResource"
	// CodeResourceNotRead is in Documents.Warnings, for a resource that changes what happens to packets.
	CodeResourceNotRead = "ResourceNotRead"
)

// reading is how far a document was read.
type reading struct {
	file string
	// nothing is what the document is instead of a policy; empty when something was read of it.
	nothing string
	// beside means that such files lie beside policies for good reason.
	beside bool
	// template means that the document is a template, or Terraform's output.
	template bool
}

// checkRead reports the documents that hold nothing that is read. It is a fault of a document that was
// named itself, and of all when nothing was read at all. Templates without a network are common, so
// that they have a warning.
func (l *loader) checkRead(readings []reading) {
	told := map[string]bool{}
	for _, list := range []ruleset.Faults{l.out.Faults, l.out.Unresolved} {
		for i := range list {
			told[list[i].File] = true
		}
	}
	none := len(l.resources) == 0 && len(told) == 0
	for _, r := range readings {
		f := ruleset.Fault{Code: CodeNothingRead, File: r.file, Message: r.nothing}
		switch {
		case r.nothing == "" || told[r.file]:
		case r.template:
			l.warn(f)
		case l.named[r.file] || none:
			l.fault(f)
		case !r.beside:
			l.warn(f)
		}
	}
}

// wholeWhatIf says what writes a what-if with its resources.
const wholeWhatIf = "az deployment group what-if --result-format FullResourcePayloads --no-pretty-print writes all of it"

// aboutUnread says what a document is that holds nothing that is read.
func aboutUnread(file string, value any) reading {
	r := reading{file: file}
	const export = "; 'az network nsg list' and 'az network vnet list' write what is read"
	body, _ := value.(map[string]any)
	schema := strings.ToLower(textOf(body, "$schema"))
	has := func(field string) bool { return lookup(body, field) != nil }
	switch list, isList := listOf(value); {
	case isTemplate(value):
		r.template, r.nothing = true, "the template or plan has no resource that is read"
	case isList && len(list) == 0:
		r.nothing = "the list is empty: was the right subscription asked, and the right resource group?" + export
	case isList:
		r.nothing = "nothing in the list is a resource that is read" + export
	case body == nil:
		r.nothing = "the document is no object and no list" + export
	case len(body) == 0:
		r.nothing = "the object is empty" + export
	case failureOf(body) != "":
		r.nothing = "it is an error in the place of resources: " + failureOf(body)
	case wrappedTemplate(body) != "":
		r.nothing = "the template is inside its field " + wrappedTemplate(body) + ": lay that alone into a file"
	case strings.Contains(schema, "deploymentparameters") || has("parameters") && has("contentVersion"):
		r.beside, r.nothing = true, "it is a parameters file: give its template, and the file with --parameters"
	case strings.Contains(schema, "createuidefinition") || textOf(body, "handler") == "Microsoft.Azure.CreateUIDef":
		r.beside, r.nothing = true, "it is the portal's form for a template: give the template"
	case has("values") && (has("changeNumber") || has("cloud")):
		r.nothing = "it is a service tag file: give it with --service-tags, or as serviceTags of nsgd.yaml"
	case has("resource") && has("provider"), has("resource") && has("terraform"):
		r.nothing = "it is Terraform source as JSON: 'terraform show -json' writes the state or plan, which is read"
	case has("changes"):
		r.nothing = "the what-if has no resource that is read: " + wholeWhatIf
	default:
		r.nothing = "nothing in it is a resource that is read" + export
	}
	return r
}

// failureOf is the code and message of an error in one of the forms of Azure's interfaces; empty when it is none.
func failureOf(body map[string]any) string {
	for _, field := range []string{"error", "odata.error"} {
		if failure, ok := lookup(body, field).(map[string]any); ok {
			body = failure
		}
	}
	message := textOf(body, "message")
	if long, ok := lookup(body, "message").(map[string]any); ok { // with its language
		message = textOf(long, "value")
	}
	if message == "" {
		return textOf(body, "code")
	}
	return strings.TrimSpace(textOf(body, "code") + " " + ruleset.Clip(message))
}

// wrappedTemplate is the field of a document that holds a template: an answer of exportTemplate, a deployment or a
// template spec. Empty when there is none.
func wrappedTemplate(body map[string]any) string {
	for _, field := range []string{"template", "mainTemplate"} {
		if isTemplate(lookup(body, field)) {
			return field
		}
		if properties, ok := lookup(body, "properties").(map[string]any); ok && isTemplate(lookup(properties, field)) {
			return "properties." + field
		}
	}
	return ""
}

// listOf is a document's list: the document itself, a page's value, or the data of Resource Graph.
func listOf(value any) (list []any, ok bool) {
	switch v := value.(type) {
	case []any:
		return v, true
	case map[string]any:
		for _, field := range []string{"value", "data"} {
			if list, ok := lookup(v, field).([]any); ok {
				return list, true
			}
		}
	}
	return nil, false
}

func textOf(body map[string]any, field string) string {
	text, _ := lookup(body, field).(string)
	return text
}

// notJSON adds to the message about a file that is no JSON what it is, and what turns it into JSON.
func notJSON(f *ruleset.Fault) string {
	file, message := f.File, f.Message
	switch strings.ToLower(filepath.Ext(file)) {
	case ".bicep":
		return "it is Bicep source: 'az bicep build --file " + file + "' writes the template, which is read"
	case ".bicepparam":
		return "it is a Bicep parameters file: 'az bicep build-params --file " + file + "' writes the parameters file for --parameters"
	case ".tf":
		return "it is Terraform source: 'terraform show -json' writes the state or plan, which is read"
	}
	switch {
	case strings.Contains(message, "'{' after top-level value"):
		message += ": a file holds one document; 'terraform show -json', and not 'terraform plan -json', writes a plan as one"
	case f.Line == 1 && f.Column == 1 && strings.HasPrefix(message, "invalid character"):
		message += ": the file begins with other text than JSON; 'az ... -o json' writes JSON alone"
	}
	return message
}

// collectAnswer collects the resources of an object that is none itself: a page of a list, the rows of
// Resource Graph, or what a deployment would do.
func (l *loader) collectAnswer(file string, body map[string]any) {
	l.collect(file, lookup(body, "value"), nil)
	rows, _ := lookup(body, "data").([]any)
	if table, ok := lookup(body, "data").(map[string]any); ok {
		rows = rowsOf(table)
	}
	l.collect(file, rows, nil)
	l.warnOfOtherPages(file, body)
	result := body
	if properties, ok := lookup(body, "properties").(map[string]any); ok {
		result = properties
	}
	changes, _ := lookup(result, "changes").([]any)
	l.collectChanges(file, changes, "")
	potential, _ := lookup(result, "potentialChanges").([]any)
	l.collectChanges(file, potential, "whether the deployment has the resource is open")
}

// withheldKinds are the kinds that Azure never answers without properties, and that without these are read as if they did
// nothing. Others have a fault then.
var withheldKinds = []kind{groupKind, routeTableKind, publicAddressKind, natGatewayKind, loadBalancerKind, privateEndpointKind}

// checkWithheld reports a resource of an answer that is there without its properties: a group would have no rule. A
// resource of a template may have none. The columns of a query may have them under their own names.
func (l *loader) checkWithheld(r *resource) {
	null, listed := r.body["properties"]
	if r.built != nil || null != nil || !listed && (r.id == "" || r.templated()) || !slices.Contains(withheldKinds, r.kind) || lookup(r.body, "properties") != nil || hasKnown(r.body, spellings[kindPaths[r.kind]]) {
		return
	}
	f := l.places.at(ruleset.Fault{Code: CodeNothingRead, File: r.file, Resource: r.place(), Field: "properties",
		Message: "the properties are left out, as lists of resources of all kinds do, and queries that do not project them: nothing of the resource was read"}, r.body)
	if listed {
		f.Code, f.Value = CodeInvalidRequestFormat, "null"
		l.fault(f)
		return
	}
	l.unresolved(f)
}

// warnOfOtherPages reports a page of a longer list: one that names the next, or that says that more exists.
func (l *loader) warnOfOtherPages(file string, body map[string]any) {
	warn := func(field, value string) {
		l.warn(ruleset.Fault{Code: CodeIncompleteList, File: file, Field: field, Value: ruleset.Clip(value),
			Message: "the document is one page of a longer list: what is on the other pages is missing unless they are documents too"})
	}
	for _, field := range []string{"nextLink", "@odata.nextLink", "odata.nextLink", "skip_token", "$skipToken"} {
		if next := textOf(body, field); next != "" && !isExpression(next) {
			warn(field, next)
			return
		}
	}
	for _, field := range []string{"result_truncated", "resultTruncated"} { // of az graph query, and of its interface
		if cut := lookup(body, field); cut != nil && strings.EqualFold(asText(cut), "true") {
			warn(field, asText(cut))
			return
		}
	}
	here, counted := lookup(body, "count").(json.Number)
	if list, ok := listOf(body); ok && !counted {
		here = json.Number(strconv.Itoa(len(list)))
	}
	for _, field := range []string{"total_records", "totalRecords"} {
		if all, ok := lookup(body, field).(json.Number); ok && here != "" && all != here {
			warn(field, all.String())
		}
	}
}

// branchesNotRead says what stands for the branches of a virtual hub.
const branchesNotRead = "branches behind a virtual hub are not read: attach a gateway to the networks that reach them, with their prefixes (gateway and prefixes of nsgd.yaml)"

// Messages about virtual WANs.
const (
	hubTablesV2NotRead = "route tables of version 2 of a virtual hub are not read: write virtualHubs/hubRouteTables"
	// "What is Azure Virtual WAN?", Virtual WAN types.
	basicNotRead = "a Basic WAN carries site-to-site VPN alone: its hubs give virtual networks no way to each other, and here they do"
)

// notReadTypes are types of resources that change what happens to packets and are not read, in lower
// case, with what to do instead.
var notReadTypes = map[string]string{
	provider + "vpngateways":                                                      branchesNotRead,
	provider + "vpngateways/vpnconnections":                                       branchesNotRead,
	provider + "expressroutegateways":                                             branchesNotRead,
	provider + "expressroutegateways/expressrouteconnections":                     branchesNotRead,
	provider + "p2svpngateways":                                                   branchesNotRead,
	provider + "virtualhubs/bgpconnections":                                       "routes that a virtual hub learns by BGP are not read",
	provider + "virtualhubs/routetables":                                          hubTablesV2NotRead,
	provider + "virtualhubs/routemaps":                                            "route maps of a virtual hub are not read",
	provider + "networkmanagers/routingconfigurations":                            "routes that a virtual network manager makes are not read: lay the route tables that it has made beside",
	provider + "networkmanagers/securityuserconfigurations/rulecollections/rules": "security user rules of a virtual network manager are not read: lay the network security groups that it has made beside",
	"microsoft.azurestackhci/networksecuritygroups":                               "network security groups of Azure Local are not read",
	"microsoft.azurestackhci/networksecuritygroups/securityrules":                 "network security groups of Azure Local are not read",
	provider + "networkmanagers/connectivityconfigurations":                       "peerings that a virtual network manager makes are not read: lay the virtual networks with their peerings beside",
}

// notRead reports a resource that is not read and should be known of.
func (l *loader) notRead(file string, body map[string]any) {
	t, name := typeOf(body), textOf(body, "name")
	if name == "" {
		name = lastSegment(textOf(body, "id"))
	}
	f := ruleset.Fault{File: file, Resource: "resources/" + name, Field: "type", Value: ruleset.Clip(textOf(body, "type"))}
	switch {
	case strings.HasPrefix(t, "microsoft.classicnetwork/"), t == "" && isClassicGroup(body):
		f.Code = CodeClassic
		f.Message = "classic resources (Azure Service Manager) are not read; Move-AzureNetworkSecurityGroup and Move-AzureVirtualNetwork, with -Validate, -Prepare and -Commit, make them resources of Azure Resource Manager: read what 'az network nsg list' and 'az network vnet list' write then"
		l.fault(f)
	case notReadTypes[t] != "":
		f.Code, f.Message = CodeResourceNotRead, notReadTypes[t]
		l.warn(f)
	case isBasicWAN(t, body):
		f.Code, f.Field, f.Value, f.Message = CodeResourceNotRead, "properties.type", "Basic", basicNotRead
		l.warn(f)
	}
}

// isBasicWAN reports a virtual WAN of type Basic, also one without a type of its own, and as az writes it.
func isBasicWAN(t string, body map[string]any) bool {
	if segments := strings.Split(strings.ToLower(textOf(body, "id")), "/"); t == "" && len(segments) > 2 && segments[len(segments)-2] == "virtualwans" {
		t = provider + "virtualwans"
	}
	properties, _ := lookup(body, "properties").(map[string]any)
	return t == provider+"virtualwans" && strings.EqualFold(cmp.Or(textOf(properties, "type"), textOf(body, "typePropertiesType")), "Basic")
}

// isClassicGroup reports a network security group as the commands for classic resources write it.
func isClassicGroup(body map[string]any) bool {
	rules, _ := lookup(body, "rules").([]any)
	return len(rules) > 0 && !slices.ContainsFunc(rules, func(v any) bool {
		rule, _ := v.(map[string]any)
		direction := textOf(rule, "type")
		return !strings.EqualFold(direction, "Inbound") && !strings.EqualFold(direction, "Outbound") || lookup(rule, "action") == nil || lookup(rule, "priority") == nil
	})
}

// rowsOf turns the table of Resource Graph into its rows as objects.
func rowsOf(table map[string]any) []any {
	columns, _ := lookup(table, "columns").([]any)
	rows, _ := lookup(table, "rows").([]any)
	objects := make([]any, 0, len(rows))
	for _, row := range rows {
		cells, _ := row.([]any)
		object := map[string]any{}
		for i := range min(len(cells), len(columns)) {
			column, _ := columns[i].(map[string]any)
			object[textOf(column, "name")] = cells[i]
		}
		objects = append(objects, object)
	}
	return objects
}

// collectChanges collects the resources of a what-if as they are after the deployment. With open, why
// they are not known, they are listed instead. PowerShell writes a resource as lists that say nothing.
func (l *loader) collectChanges(file string, changes []any, open string) {
	for _, v := range changes {
		change, _ := v.(map[string]any)
		id, kind := cmp.Or(textOf(change, "resourceId"), textOf(change, "fullyQualifiedResourceId")), strings.ToLower(textOf(change, "changeType"))
		after, _ := lookup(change, "after").(map[string]any)
		if after == nil && slices.Contains([]string{"ignore", "nochange", "noeffect"}, kind) {
			after, _ = lookup(change, "before").(map[string]any)
		}
		why := open
		switch {
		case kind == "delete":
			continue
		case kind == "unsupported":
			why = fmt.Sprintf("Azure could not say what becomes of the resource: %s", textOf(change, "unsupportedReason"))
		case after == nil:
			why = "the what-if has only the resource's id: " + wholeWhatIf
		}
		if why == "" {
			l.collect(file, after, nil)
		} else if kindOfID(id) != otherKind {
			l.unresolved(ruleset.Fault{Code: CodeTemplateExpression, File: file, Resource: id, Field: "changeType", Value: asText(lookup(change, "changeType")), Message: why})
		}
	}
}
