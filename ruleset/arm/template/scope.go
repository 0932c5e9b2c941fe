package template

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// engine is one evaluation.
type engine struct {
	options Options
	budget  *budget
	result  *Result
	asts    map[string]ast
	// base is what the whole template is deployed to.
	base group
	// instances are the resources of all deployments by id in lower case, children their children by the parent's id.
	instances, children map[string][]*instance
	deployments         []*instance
	needed              [][2]*instance  // the first is deployed after the second, which an expression of it refers to
	waiting             int             // deployments whose template is not expanded
	asked               map[string]bool // keys of Options.Runtime
	searching           bool
	contents            map[string]content // of linked files
	files               map[string]map[string]any
}

func newEngine(o Options, b *budget) *engine {
	return &engine{
		options: o, budget: b, result: &Result{origins: origins{}}, asts: map[string]ast{}, instances: map[string][]*instance{},
		children: map[string][]*instance{}, contents: map[string]content{}, asked: map[string]bool{}, files: map[string]map[string]any{},
	}
}

// ast is a parsed expression, or the error of parsing it.
type ast struct {
	node node
	err  error
}

func (e *engine) parsed(s string) (node, error) {
	if a, ok := e.asts[s]; ok {
		return a.node, a.err
	}
	if err := e.budget.step(len(s) / 8); err != nil {
		return nil, err
	}
	n, err := parse(s)
	e.asts[s] = ast{n, err}
	return n, err
}

// scope is one deployment.
type scope struct {
	*engine
	file     string
	place    string // the template's path in file, with a dot at its end; empty for a whole file
	template map[string]any
	name     string    // of the deployment; empty when it is not known
	caller   *instance // the deployment of a nested or linked template; nil for the root
	depth    int       // of nesting

	// target is the resource group of its resources, home the answer of resourceGroup() and
	// subscription(). They differ in a nested template that uses the outer scope.
	target, home group

	parameters map[string]*cell
	variables  map[string]*cell
	// outer has the parameters and variables of a nested template that uses the outer scope.
	outer *frame

	instances []*instance
	strays    []unresolved         // expressions that stand for whole resources
	symbols   map[string]*instance // by symbolic name in lower case
	expanding bool
	results   cell // outputs
}

// group is what resources are deployed to: a resource group, a subscription (no name), or a tenant or management group
// (no name and no subscription).
type group struct {
	subscription, name, location string
	// openSubscription and openName say why one is not known. Its text is then the expression.
	openSubscription, openName *Problem
}

// of is what a template is deployed to by a deployment to g: its schema may name a higher level.
func (g group) of(template map[string]any) group {
	switch schema := strings.ToLower(text(template, "$schema")); {
	case strings.Contains(schema, "/subscriptiondeploymenttemplate.json"):
		g.name = ""
	case strings.Contains(schema, "/managementgroupdeploymenttemplate.json"), strings.Contains(schema, "/tenantdeploymenttemplate.json"):
		g.name, g.subscription = "", ""
	}
	return g
}

// cell is a value that is evaluated on its first use.
type cell struct {
	place string
	make  func() (any, error)
	state cellState
	value any
	err   error
}

type cellState uint8

const (
	cold cellState = iota
	busy
	done
)

var errCycle = errors.New("it refers to itself")

// get evaluates the cell once. A cycle is an error that names the cell.
func (c *cell) get(b *budget) (any, error) {
	switch c.state {
	case busy:
		b.cycles++
		return nil, fmt.Errorf("%s: %w, directly or through others", c.place, errCycle)
	case cold:
		c.state = busy
		if c.err = b.enter(); c.err == nil {
			c.value, c.err = c.make()
		}
		b.leave()
		c.state = done
	}
	return c.value, c.err
}

// newScope prepares a deployment's parameters and variables without evaluating them.
func (e *engine) newScope(file, place string, template map[string]any) *scope {
	s := &scope{engine: e, file: file, place: place, template: template,
		parameters: map[string]*cell{}, variables: map[string]*cell{}, symbols: map[string]*instance{}}
	s.results = cell{place: place + "outputs", make: func() (any, error) { return s.evaluateOutputs(), nil }}
	variables := object(template, "variables")
	for _, name := range sortedKeys(variables) {
		at := place + "variables." + name
		if loops, ok := propertyLoops(name, variables[name]); ok {
			for i, l := range loops {
				s.variableLoop(fmt.Sprintf("%s[%d]", at, i), l)
			}
			continue
		}
		s.setVariable(name, &cell{place: at, make: func() (any, error) {
			return s.frame().tree(at, variables[name]), nil
		}})
	}
	return s
}

func (s *scope) variableLoop(at string, l map[string]any) {
	name := text(l, "name")
	s.setVariable(name, &cell{place: at, make: func() (any, error) {
		out := map[string]any{}
		s.frame().repeat(at, l, out)
		if v, open := out["copy"]; open {
			return v, nil
		}
		return out[name], nil
	}})
}

// setVariable sets a variable. If two have one name, neither has a value.
func (s *scope) setVariable(name string, c *cell) {
	key := strings.ToLower(name)
	if s.variables[key] != nil {
		c = &cell{place: c.place, make: func() (any, error) {
			return nil, fmt.Errorf("there are two variables %s; allowed is one", name)
		}}
	}
	s.variables[key] = c
}

func (s *scope) frame() frame { return frame{scope: s} }

// scopeFunctions read the deployment, its parameters and its variables.
var scopeFunctions = map[string]function{
	"parameters": {least: 1, most: 1, call: func(f frame, args []any) (any, error) {
		name, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		return f.parameter(name)
	}},
	"variables": {least: 1, most: 1, call: func(f frame, args []any) (any, error) {
		name, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		return f.variable(name)
	}},
	"copyIndex": {least: 0, most: 2, call: copyIndex},
	"deployment": {call: func(f frame, _ []any) (any, error) {
		return f.scope.deployment(), nil
	}},
	"subscription": {call: func(f frame, _ []any) (any, error) {
		id := f.home.subscription
		switch {
		case f.home.openSubscription != nil:
			return nil, f.home.openSubscription
		case id == "":
			return nil, errors.New("the template is deployed to no subscription")
		}
		return map[string]any{
			"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": f.options.tenant(),
			"displayName": f.fromAzure("subscription", "/subscriptions/"+id, "displayName"),
		}, nil
	}},
	"resourceGroup": {call: func(f frame, _ []any) (any, error) {
		switch {
		case f.home.openName != nil:
			return map[string]any{
				"id": unresolved{f.home.openName}, "name": unresolved{f.home.openName}, "type": "Microsoft.Resources/resourceGroups",
				"location": f.home.location, "tags": unresolved{f.home.openName}, "properties": map[string]any{"provisioningState": "Succeeded"},
			}, nil
		case f.home.name == "":
			return nil, errors.New("the template is deployed to no resource group")
		}
		return map[string]any{
			"id": f.home.id(), "name": f.home.name, "type": "Microsoft.Resources/resourceGroups", "location": f.home.location,
			"tags": f.fromAzure("resourceGroup", f.home.id(), "tags"), "properties": map[string]any{"provisioningState": "Succeeded"},
		}, nil
	}},
	"tenant": {call: func(f frame, _ []any) (any, error) {
		id := "/tenants/" + f.options.tenant()
		return map[string]any{
			"tenantId": f.options.tenant(), "id": id,
			"displayName": f.fromAzure("tenant", id, "displayName"), "countryCode": f.fromAzure("tenant", id, "countryCode"),
		}, nil
	}},
	"environment": {call: func(frame, []any) (any, error) { return publicCloud(), nil }},
}

// fromAzure is a field of the subscription, group or deployment that only Azure knows: out
// of Options.Runtime, else a problem.
func (f frame) fromAzure(function, id, name string) any {
	if v, ok := field(f.runtime(id, nil), name); ok {
		return v
	}
	place := function + "()." + name
	return f.problem(place, "["+place+"]", fmt.Errorf("only Azure knows it; give it with --runtime, as the field %s of %s", name, id))
}

func (f frame) parameter(name string) (any, error) {
	if f.own != nil {
		v, ok := f.own[strings.ToLower(name)]
		if !ok {
			return nil, fmt.Errorf("the function has no parameter %s", name)
		}
		return v, nil
	}
	if f.outer != nil {
		return f.outer.parameter(name)
	}
	c := f.scope.parameters[strings.ToLower(name)]
	if c == nil {
		return nil, fmt.Errorf("the template has no parameter %s", name)
	}
	return c.get(f.budget)
}

func (f frame) variable(name string) (any, error) {
	if f.own != nil {
		return nil, errors.New("a template's own function sees no variables")
	}
	if f.outer != nil {
		return f.outer.variable(name)
	}
	c := f.scope.variables[strings.ToLower(name)]
	if c == nil {
		return nil, fmt.Errorf("the template has no variable %s", name)
	}
	return c.get(f.budget)
}

// copyIndex is copyIndex(), copyIndex(offset), copyIndex(name) or copyIndex(name, offset).
func copyIndex(f frame, args []any) (any, error) {
	loops := f.loops
	if f.outer != nil {
		loops = append(f.outer.loops[:len(f.outer.loops):len(f.outer.loops)], loops...)
	}
	name, offset := "", int64(0)
	if len(args) > 0 {
		if s, ok := args[0].(string); ok {
			name, args = s, args[1:]
		}
	}
	if len(args) > 1 {
		return nil, errors.New("allowed are a loop's name and an offset")
	}
	if len(args) == 1 {
		var err error
		if offset, err = argInt(args, 0); err != nil {
			return nil, err
		}
	}
	if l := pick(loops, name); l != nil {
		return number(l.index + offset), nil
	}
	if name == "" {
		return nil, errors.New("it stands in no copy loop")
	}
	return nil, fmt.Errorf("it stands in no copy loop %s", name)
}

// pick finds the loop of a name. Without a name it picks the resource's loop, else the
// innermost.
func pick(loops []loop, name string) *loop {
	var found *loop
	for i := range loops {
		l := &loops[i]
		switch {
		case name != "" && !strings.EqualFold(l.name, name):
		case name == "" && found != nil && l.property && !found.property:
		default:
			found = l
		}
	}
	return found
}

func (s *scope) deployment() map[string]any {
	name, id := any(s.name), any(s.target.id()+"/providers/Microsoft.Resources/deployments/"+s.name)
	if s.caller != nil && s.name == "" {
		name, id = s.caller.head["name"], s.caller.head["name"]
	}
	return map[string]any{
		"name": name, "id": id, "location": s.home.location,
		"properties": map[string]any{
			"mode": "Incremental", "provisioningState": "Accepted",
			// Links in the template are relative to its own file.
			"templateLink": map[string]any{"uri": filepath.Base(s.file)},
			"template":     map[string]any{"contentVersion": text(s.template, "contentVersion")},
		},
	}
}

// id begins the ids of what is deployed to g.
func (g group) id() string {
	switch {
	case g.subscription == "":
		return ""
	case g.name == "":
		return "/subscriptions/" + g.subscription
	}
	return "/subscriptions/" + g.subscription + "/resourceGroups/" + g.name
}

// publicCloud is environment() of Azure's public cloud.
func publicCloud() map[string]any {
	return map[string]any{
		"name": "AzureCloud", "portal": "https://portal.azure.com/", "gallery": "https://gallery.azure.com/",
		"graph": "https://graph.windows.net/", "graphAudience": "https://graph.windows.net/",
		"resourceManager": "https://management.azure.com/", "batch": "https://batch.core.windows.net/",
		"media": "https://rest.media.azure.net", "sqlManagement": "https://management.core.windows.net:8443/",
		"activeDirectoryDataLake": "https://datalake.azure.net/", "vmImageAliasDoc": "",
		"authentication": map[string]any{
			"loginEndpoint": "https://login.microsoftonline.com/", "tenant": "common", "identityProvider": "AAD",
			"audiences": []any{"https://management.core.windows.net/", "https://management.azure.com/"},
		},
		"suffixes": map[string]any{
			"storage": "core.windows.net", "keyvaultDns": ".vault.azure.net", "sqlServerHostname": ".database.windows.net",
			"acrLoginServer": ".azurecr.io", "azureDatalakeStoreFileSystem": "azuredatalakestore.net",
			"azureDatalakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
			"azureFrontDoorEndpointSuffix":        "azurefd.net",
		},
	}
}
