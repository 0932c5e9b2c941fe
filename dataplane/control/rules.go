package control

import (
	"context"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// GET /v1/rules lists rules: those of the networkSecurityGroup, by name or id, or all. With
// unused=true it lists only rules that decided nothing and carry no flow's packets. With since=10m it counts that time alone.
var rulesRoute = get("rules", func(s *inspect.Service, q url.Values) (*inspect.RuleList, error) {
	unused, err := parseFlag(q, "unused")
	if err != nil {
		return nil, err
	}
	since, err := parseSince(q)
	if err != nil {
		return nil, err
	}
	list, err := s.Rules(inspect.RuleFilter{NetworkSecurityGroup: q.Get("networkSecurityGroup"), Unused: unused, Since: since})
	return list, notFound(err)
})

// Rules lists the rules of the running policy with their counters.
func (c *Client) Rules(ctx context.Context, filter inspect.RuleFilter) (*inspect.RuleList, error) {
	return rulesRoute.ask(ctx, c, url.Values{
		"networkSecurityGroup": {filter.NetworkSecurityGroup}, "unused": {strconv.FormatBool(filter.Unused)},
		"since": {filter.Since.String()},
	}, nil)
}

// GET /v1/effective lists the rules that hold for the networkInterface, by name or id.
var effectiveRoute = get("effective", func(s *inspect.Service, q url.Values) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	result, err := ask.Effective(s.Snapshot(), q.Get("networkInterface"))
	return result, notFound(err)
})

// Effective lists the rules that hold for a NIC, by name or id.
func (c *Client) Effective(ctx context.Context, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	return effectiveRoute.ask(ctx, c, url.Values{"networkInterface": {networkInterface}}, nil)
}

// GET /v1/effectiveRoutes lists the routes of the networkInterface, by name or id.
var effectiveRoutesRoute = get("effectiveRoutes", func(s *inspect.Service, q url.Values) (*azure.EffectiveRouteListResult, error) {
	snapshot, err := s.Asked()
	if err != nil {
		return nil, err
	}
	result, err := ask.EffectiveRoutes(snapshot, q.Get("networkInterface"))
	return result, notFound(err)
})

// EffectiveRoutes lists the routes of a NIC, by name or id.
func (c *Client) EffectiveRoutes(ctx context.Context, networkInterface string) (*azure.EffectiveRouteListResult, error) {
	return effectiveRoutesRoute.ask(ctx, c, url.Values{"networkInterface": {networkInterface}}, nil)
}

// GET /v1/securityGroupView shows the rules of the target, a NIC or a virtual machine.
var groupViewRoute = get("securityGroupView", func(s *inspect.Service, q url.Values) (*azure.SecurityGroupViewResult, error) {
	result, err := ask.SecurityGroupView(s.Snapshot(), q.Get("target"))
	return result, notFound(err)
})

// SecurityGroupView asks for the rules of a NIC or virtual machine, by name or id.
func (c *Client) SecurityGroupView(ctx context.Context, target string) (*azure.SecurityGroupViewResult, error) {
	return groupViewRoute.ask(ctx, c, url.Values{"target": {target}}, nil)
}

// GET /v1/names lists the names of the policy's resources. It has no query.
var namesRoute = get("names", func(s *inspect.Service, _ url.Values) (*inspect.Names, error) {
	return s.Names(), nil
})

// Names lists the names in the running policy, for completions.
func (c *Client) Names(ctx context.Context) (*inspect.Names, error) {
	return namesRoute.ask(ctx, c, nil, nil)
}
